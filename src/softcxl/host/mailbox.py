"""The driver's end of a memory device's mailbox (CXL 3.1 §8.2.8.4)."""

from __future__ import annotations

from typing import TypeVar

from softcxl.host.errors import MailboxError, ProbeError
from softcxl.host.registers import Registers
from softcxl.spec.command.base import Command, ReturnCode
from softcxl.spec.cxl.device import (
    MAILBOX_PAYLOAD_OFFSET,
    CapabilitiesArray,
    DeviceCapabilityId,
    EventStatus,
    Mailbox,
    MailboxCapabilities,
    MailboxCommand,
    MailboxControl,
    MailboxStatus,
    MemoryDeviceStatus,
)
from softcxl.wire import Record, WireError

R = TypeVar("R", bound=Record)

_POLLS = 1 << 16
"""Looks at the doorbell before a command has hung. A driver on hardware gives it two seconds."""

_CAPABILITY_SIZE = 0x10
_LEAST_PAYLOAD = 256


class MailboxDriver:
    """Sends commands through the primary mailbox in the device register block at `block`. Raises `ProbeError`."""

    def __init__(self, block: Registers) -> None:
        self.name = block.name
        found = _capabilities(block)
        try:
            self._mailbox = block.at(found[DeviceCapabilityId.PRIMARY_MAILBOX])
            self._memory = block.at(found[DeviceCapabilityId.MEMORY_DEVICE_STATUS])
        except KeyError as missing:
            raise ProbeError(f"{self.name}: no device capability {int(missing.args[0]):#x}") from None
        status_at = found.get(DeviceCapabilityId.DEVICE_STATUS)
        self._device = None if status_at is None else block.at(status_at)
        self.payload_max = 1 << MailboxCapabilities(self._mailbox.read(_CAPABILITIES)).payload_size
        if self.payload_max < _LEAST_PAYLOAD:
            raise ProbeError(
                f"{self.name}: a mailbox payload of {self.payload_max} bytes; at least 256 are needed"
            )
        status = self.status
        if not status.mailbox_ready or status.fatal:
            raise ProbeError(f"{self.name}: its mailbox is not ready (memory device status {int(status):#x})")

    @property
    def status(self) -> MemoryDeviceStatus:
        """The memory device status register, as it is now."""
        return MemoryDeviceStatus(self._memory.read(0, 8))

    @property
    def event_status(self) -> EventStatus:
        """The event status register, as it is now: which event logs have records. Empty where there is none."""
        return EventStatus(0 if self._device is None else self._device.read(0, 8))

    def send(self, command: Command, request: Record | None = None) -> bytes:
        """Send one command; returns its output payload. Raises `MailboxError`, also for an answer that says that
        work goes on in the background."""
        code, output = self.submit(command.opcode, b"" if request is None else request.pack(), command.name)
        if code:
            word = ReturnCode(code).name.lower().replace("_", " ") if code in list(ReturnCode) else "unknown"
            raise MailboxError(f"{self.name}: {command.name}: return code {code:#x} ({word})", code)
        return output

    def submit(self, opcode: int, payload: bytes = b"", name: str = "") -> tuple[int, bytes]:
        """Send a command by its opcode; returns its return code and, of one that succeeds, its output payload.
        Raises `MailboxError` where there is no answer, or none that can be."""
        name = name or f"command {opcode:04X}h"
        if len(payload) > self.payload_max:
            raise MailboxError(f"{self.name}: {name}: {len(payload)} bytes, and {self.payload_max} fit")
        box = self._mailbox
        if box.read(_CONTROL) & MailboxControl.doorbell.mask:
            raise MailboxError(f"{self.name}: {name}: the doorbell is still set")
        box.write(_COMMAND, int(MailboxCommand.make(opcode=opcode, payload_length=len(payload))), 8)
        if payload:
            box.machine.mmio_write(box.base + MAILBOX_PAYLOAD_OFFSET, payload)
        box.write(_CONTROL, MailboxControl.doorbell.mask)
        for _ in range(_POLLS):
            if not box.read(_CONTROL) & MailboxControl.doorbell.mask:
                break
        else:
            raise MailboxError(f"{self.name}: {name}: no answer")
        code = int(MailboxStatus(box.read(_STATUS, 8)).return_code)
        if code:
            return code, b""
        length = MailboxCommand(box.read(_COMMAND, 8)).payload_length
        if length > self.payload_max:
            raise MailboxError(f"{self.name}: {name}: answers {length} bytes, and {self.payload_max} fit")
        return 0, box.machine.mmio_read(box.base + MAILBOX_PAYLOAD_OFFSET, length) if length else b""

    def ask(self, command: Command, kind: type[R], request: Record | None = None) -> R:
        """`send`, and the answer as a record of `kind`; one that is longer than we know is newer, and cut."""
        answer = self.send(command, request)
        try:
            return kind.unpack_from(answer)
        except WireError as error:
            raise MailboxError(f"{self.name}: {command.name}: {error}") from None


def _capabilities(block: Registers) -> dict[int, int]:
    """Offsets in the device register block, by capability ID."""
    array = block.read(CapabilitiesArray.array.__layout__.offset, 8)
    count = array >> 32 & 0xFFFF
    if array in (0, (1 << 64) - 1) or count > 0xFF:
        raise ProbeError(f"{block.name}: no device capabilities array at {block.base:#x}")
    entries = (block.at(_CAPABILITY_SIZE * number) for number in range(1, count + 1))
    return {entry.read(0) & 0xFFFF: entry.read(4) for entry in entries}


_CAPABILITIES = Mailbox.capabilities.__layout__.offset
_CONTROL = Mailbox.control.__layout__.offset
_COMMAND = Mailbox.command.__layout__.offset
_STATUS = Mailbox.status.__layout__.offset
