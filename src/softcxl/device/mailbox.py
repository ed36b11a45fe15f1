"""The mailbox: a door into the command interface, by registers and a payload area (CXL 3.1 §8.2.8.4)."""

from __future__ import annotations

from collections.abc import Callable

from softcxl.device.cci import Cci
from softcxl.spec.cxl.device import MAILBOX_PAYLOAD_OFFSET, Mailbox
from softcxl.wire import RegisterFile, on_write

PAYLOAD_SIZES = [1 << power for power in range(8, 21)]
"""Payload sizes a mailbox may have, in bytes."""


class MailboxDoor:
    """The mailbox at `offset` of `file`, with `cci` behind it.

    A command runs to its end inside the write that rings the doorbell, so software finds the doorbell clear at
    its first look. The payload area is plain memory: a guest may have it mapped, and then never traps for it.
    `interrupt` is called with the mailbox's vector.
    """

    def __init__(
        self, file: RegisterFile, offset: int, cci: Cci, *, vector: int, interrupt: Callable[[int], None]
    ) -> None:
        if cci.payload_max not in PAYLOAD_SIZES:
            raise ValueError(
                f"mailbox payload of {cci.payload_max} bytes: a power of two from 256 to 1 MiB is allowed"
            )
        self._file, self._cci, self._interrupt, self._vector = file, cci, interrupt, vector
        self._payload = offset + MAILBOX_PAYLOAD_OFFSET
        self.registers = file.place(offset, Mailbox, hooks=self)
        file.ram(self._payload, cci.payload_max)
        capabilities = self.registers.capabilities
        capabilities.payload_size = cci.payload_max.bit_length() - 1
        capabilities.doorbell_interrupt_capable = capabilities.background_interrupt_capable = True
        capabilities.interrupt_message_number = vector

    @property
    def payload_range(self) -> tuple[int, int]:
        """Offset and size of the payload area in the file."""
        return self._payload, self._cci.payload_max

    def background_changed(self) -> None:
        """Show the state of the background operation; when it has just ended, interrupt if that is asked for."""
        self.show_background()
        if not self._cci.busy and self.registers.control.background_interrupt:
            self._interrupt(self._vector)

    def show_background(self) -> None:
        """Bring the background registers up to date."""
        background = self._cci.progress()
        self.registers.status.background_operation = background.running
        shown = self.registers.background_status
        shown.opcode = background.opcode
        shown.percentage_complete = background.percent
        shown.return_code = background.code
        shown.vendor_status = background.vendor_status

    @on_write(Mailbox.control)
    def _ring(self, old: int, new: int) -> None:
        control = self.registers.control
        if not control.doorbell:
            return
        # Linux rings with a bare 1, clearing the interrupt that it asked for when it started a background
        # command and still waits for. Software that means to clear it does so without ringing.
        if type(control)(old).background_interrupt:
            control.background_interrupt = True
        command = self.registers.command
        length = command.payload_length
        data = self._file.data
        payload = bytes(data[self._payload : self._payload + min(length, self._cci.payload_max)])
        if length > self._cci.payload_max:
            payload += bytes(
                length - self._cci.payload_max
            )  # longer than any command's: refused for its length
        reply = self._cci.execute(command.opcode, payload)
        answer = reply.payload[: self._cci.payload_max]
        data[self._payload : self._payload + len(answer)] = answer
        command.payload_length = len(answer)
        status = self.registers.status
        status.return_code = reply.code
        status.vendor_status = reply.vendor_status
        self.show_background()
        control.doorbell = False
        if control.doorbell_interrupt:
            self._interrupt(self._vector)
