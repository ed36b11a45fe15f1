"""The mailbox: a door into the command interface, by registers and a payload area (CXL 3.1 §8.2.8.4)."""

from __future__ import annotations

import math
from collections.abc import Callable

from softcxl.device.cci import Cci, Later, Reply
from softcxl.device.clock import Timer
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.cxl.device import (
    MAILBOX_PAYLOAD_OFFSET,
    BackgroundStatus,
    Mailbox,
    MailboxControl,
    MailboxStatus,
)
from softcxl.wire import RegisterFile, on_read, on_write

PAYLOAD_SIZES = [1 << power for power in range(8, 21)]
"""Payload sizes a mailbox may have, in bytes."""

_TICK = 0.1
"""Seconds between two looks at a background operation."""

_DOORBELL = MailboxControl.doorbell.mask
_DOORBELL_INTERRUPT = MailboxControl.doorbell_interrupt.mask
_BACKGROUND_INTERRUPT = MailboxControl.background_interrupt.mask
_RETURN_CODE, _VENDOR_STATUS = MailboxStatus.return_code.lo, MailboxStatus.vendor_status.lo
_TOO_LONG = Reply(ReturnCode.INVALID_PAYLOAD_LENGTH)
_WRONG_MAILBOX = Reply(ReturnCode.UNSUPPORTED_MAILBOX)


class MailboxDoor:
    """The mailbox at `offset` of `file`, with `cci` behind it.

    A command runs to its end inside the write that rings the doorbell, so software finds the doorbell clear at
    its first look. Only the control register has to be seen when it is written: from the command register on a
    guest may have the mailbox mapped as memory, and then traps three times for a command. What it stores there
    where a register is read-only lasts until the next command, which writes these registers anew.

    A command whose reply comes `Later` leaves the doorbell set until then; ringing it again is without effect.

    `interrupt` is called with the mailbox's vector. Raises `ValueError` for a payload size that is not allowed.
    """

    def __init__(
        self, file: RegisterFile, offset: int, cci: Cci, *, vector: int, interrupt: Callable[[int], None]
    ) -> None:
        if cci.payload_max not in PAYLOAD_SIZES:
            raise ValueError(
                f"mailbox payload of {cci.payload_max} bytes: a power of two from 256 to 1 MiB is allowed"
            )
        self._data, self._cci, self._interrupt, self._vector = file.data, cci, interrupt, vector
        self.served: Callable[[], None] | None = None  # whoever counts commands
        self._ticking: Timer | None = None
        self._held: Later | None = None  # the reply that the doorbell waits for
        self._shown = 0  # what Background Command Status holds
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

    def reset(self) -> None:
        """After the registers have been reset: the payload goes too, since it may hold secrets; a background
        operation that goes on is shown."""
        if self._ticking is not None and not self._cci.background.running:
            self._ticking.cancel()
        self._held = None
        start, size = self.payload_range
        self._data[start : start + size] = bytes(size)
        self._show_background()

    def background_ended(self) -> None:
        """A background operation has just ended: show that, and interrupt if software asked for it."""
        self._show_background()
        if self.registers.control.background_interrupt:
            self._interrupt(self._vector)

    @on_read(Mailbox.status)
    @on_read(Mailbox.background_status)
    def _refresh(self) -> None:
        if self._cci.background.running:
            self._show_background()

    def _tick(self) -> None:
        """Show progress from time to time, since a mapped register is read without our notice."""
        cci = self._cci
        with cci.lock:
            if cci.background.running:
                self._show_background()
                self._ticking = cci.clock.call_later(_TICK, self._tick)

    def _show_background(self) -> None:
        background, shown = self._cci.progress(), BackgroundStatus()
        shown.opcode = background.opcode
        shown.percentage_complete = background.percent
        shown.return_code = background.code
        shown.vendor_status = background.vendor_status
        self._shown = int(shown)
        self.registers.background_status.assign(self._shown)
        self.registers.status.background_operation = background.running

    @on_write(Mailbox.control)
    def _ring(self, old: int, new: int) -> None:
        if not new & _DOORBELL or self._held is not None:
            return
        registers, data, start = self.registers, self._data, self._payload
        # Linux rings with a bare 1, which clears the interrupt that it asked for once and still waits for
        # (drivers/cxl/pci.c). Software that means to clear it does so without ringing.
        registers.control.assign(new | old & _BACKGROUND_INTERRUPT)
        command = registers.command
        opcode, length = command.opcode, command.payload_length
        if length <= self._cci.payload_max:
            reply = self._execute(opcode, bytes(data[start : start + length]))
        else:
            reply = _TOO_LONG
        if isinstance(reply, Later):
            self._hold(reply)
        else:
            self._complete(reply, new)

    def _execute(self, opcode: int, payload: bytes) -> Reply:
        return self._cci.execute(opcode, payload)

    def _hold(self, reply: Later) -> None:
        self._held = reply
        if not math.isinf(reply.seconds):
            self._cci.clock.call_later(reply.seconds, lambda: self._due(reply))

    def _due(self, reply: Later) -> None:
        """The time of a held command is over. By then it may have been released, or forgotten by a reset."""
        with self._cci.lock:
            if self._held is reply:
                self.release()

    @property
    def held(self) -> bool:
        """A command waits for its reply, and the doorbell is set."""
        return self._held is not None

    def release(self) -> bool:
        """Let the command that waits for its reply have it now. Returns whether there was one. The lock is held."""
        held = self._held
        if held is None:
            return False
        reply = held.run()
        if isinstance(reply, Later):
            self._hold(reply)
        else:
            self._held = None
            self._complete(reply, int(self.registers.control))
        return True

    def _complete(self, reply: Reply, control: int) -> None:
        registers, data, start = self.registers, self._data, self._payload
        command, answer = registers.command, reply.payload
        if answer:
            data[start : start + len(answer)] = answer
        command.payload_length = len(answer)
        registers.status.assign(reply.code << _RETURN_CODE | reply.vendor_status << _VENDOR_STATUS)
        if reply.code == ReturnCode.BACKGROUND_STARTED:
            self._tick()
        elif self._cci.background.running:
            self._show_background()
        else:
            registers.background_status.assign(self._shown)
        registers.control.doorbell = False
        if self.served is not None:
            self.served()
        if control & _DOORBELL_INTERRUPT:
            self._interrupt(self._vector)


class SecondaryMailbox(MailboxDoor):
    """A second mailbox into the same `cci`, for whoever manages the device beside its driver (CXL 3.1 §8.2.8.4).

    It has no interrupts, and shows no background operations: commands that may start one are answered Unsupported
    Mailbox, and the others have Secondary Mailbox Supported in the Command Effects Log.
    """

    def __init__(self, file: RegisterFile, offset: int, cci: Cci) -> None:
        super().__init__(file, offset, cci, vector=0, interrupt=lambda vector: None)
        capabilities = self.registers.capabilities
        capabilities.doorbell_interrupt_capable = capabilities.background_interrupt_capable = False
        cci.secondary = True

    def _execute(self, opcode: int, payload: bytes) -> Reply:
        entry = self._cci.handlers.get(opcode)
        if entry is not None and entry[0].background:
            return _WRONG_MAILBOX
        return super()._execute(opcode, payload)

    def _show_background(self) -> None:
        """What runs in the background is the primary mailbox's to show."""
