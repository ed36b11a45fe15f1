"""A Type 3 device: memory behind HDM decoders, managed through a mailbox.

Scripting one is a subclass: override a command, add one, place a register::

    class Forgetful(Type3):
        @command(IDENTIFY_MEMORY_DEVICE)
        def identify(self) -> IdentifyMemoryDevice:
            return self.capacity_commands.identify().replace(fw_revision="forgetful")
"""

from __future__ import annotations

from collections.abc import Callable

from softcxl.device.background import BackgroundCommands
from softcxl.device.capacity import Capacity, CapacityCommands
from softcxl.device.cdat import CdatTable
from softcxl.device.cci import Cci, CommandSet
from softcxl.device.clock import Clock, SystemClock
from softcxl.device.endpoint import Endpoint
from softcxl.device.events import EventLogs
from softcxl.device.firmware import FirmwareCommands
from softcxl.device.health import HealthCommands
from softcxl.device.labels import LabelCommands
from softcxl.device.logs import LogCommands
from softcxl.device.mailbox import MailboxDoor
from softcxl.device.media import MediaCommands
from softcxl.device.poison import PoisonCommands
from softcxl.device.registers import DeviceRegisters
from softcxl.device.security import SecurityCommands
from softcxl.device.timestamp import TimestampCommands
from softcxl.memory.dpa import DpaSpace
from softcxl.memory.media import Medium
from softcxl.pci.doe import DoeMailbox
from softcxl.pci.region import SharedRegisters
from softcxl.spec.command.base import Command, ReturnCode
from softcxl.spec.cxl.cdat import DATA_OBJECT_TYPE_CDAT
from softcxl.spec.cxl.device import (
    DEVICE_STATUS_VERSION,
    MAILBOX_PAYLOAD_OFFSET,
    MAILBOX_VERSION,
    MEMORY_DEVICE_STATUS_VERSION,
    DeviceCapabilityId,
    DeviceStatus,
    DeviceType,
    MediaStatus,
    MemoryDevice,
)
from softcxl.spec.cxl.dvsec import REGISTER_BLOCK_ALIGNMENT, VENDOR_CXL
from softcxl.spec.pci.header import CLASS_CXL_MEMORY_DEVICE
from softcxl.wire import Reset

PAGE = 4096
_STATUS_OFFSET, _MEMORY_OFFSET = 0x80, 0x90
_MAILBOX_OFFSET = 2 * PAGE - MAILBOX_PAYLOAD_OFFSET  # its payload begins on a page, and can be mapped
DEVICE_ID = 0x0001


class Type3(Endpoint, CommandSet):
    """A memory device called `name`, with `volatile` and `persistent` bytes of capacity.

    `medium` holds the bytes (a memfd where none is given), and `label_medium` the label storage area of
    `label_storage` bytes; with named files persistent capacity and labels outlive the process. `payload` is the
    mailbox's payload size in bytes. Raises `ValueError` for sizes that the standard does not allow.
    """

    vendor_id = VENDOR_CXL
    device_id = DEVICE_ID
    fw_revision = "softcxl 1"

    def __init__(
        self,
        name: str,
        *,
        volatile: int = 0,
        persistent: int = 0,
        label_storage: int = 0,
        serial: int = 0,
        decoders: int = 4,
        event_log_depth: int = 15,
        payload: int = PAGE,
        poison_list_max: int = 1024,
        interrupts: str = "msi",
        vendor_id: int | None = None,
        device_id: int | None = None,
        clock: Clock | None = None,
        medium: Medium | None = None,
        label_medium: Medium | None = None,
    ) -> None:
        self.name = name
        self.capacity = Capacity(volatile, persistent)
        super().__init__(
            vendor_id=self.vendor_id if vendor_id is None else vendor_id,
            device_id=self.device_id if device_id is None else device_id,
            class_code=CLASS_CXL_MEMORY_DEVICE,
            serial=serial,
            memory=self.capacity.total,
            decoders=decoders,
            interrupts=interrupts,
        )
        self._own_clock = SystemClock() if clock is None else None
        self.clock: Clock = clock or self._own_clock or SystemClock()
        self._own_media: list[Medium] = []
        self.medium = medium or self._made(name, self.capacity.total)
        self.label_medium = label_medium or (
            self._made(f"{name}-labels", label_storage) if label_storage else None
        )
        self.space = DpaSpace(self.medium, self.capacity.total, name)
        if self.medium.persistent:
            self.space.persistent_from = self.capacity.volatile

        self.cci = Cci(self.clock, self.lock, payload_max=payload)
        registers = SharedRegisters(
            _power_of_two(max(REGISTER_BLOCK_ALIGNMENT, 2 * PAGE + payload)), f"{name}-registers"
        )
        self.device_registers = DeviceRegisters(registers, DeviceType.MEMORY_DEVICE)
        self.status = self.device_registers.add(
            _STATUS_OFFSET, DeviceCapabilityId.DEVICE_STATUS, DEVICE_STATUS_VERSION, DeviceStatus
        )
        self.mailbox = MailboxDoor(registers, _MAILBOX_OFFSET, self.cci, vector=0, interrupt=self.interrupt)
        self.device_registers.list_capability(
            DeviceCapabilityId.PRIMARY_MAILBOX,
            MAILBOX_VERSION,
            _MAILBOX_OFFSET,
            MAILBOX_PAYLOAD_OFFSET + payload,
        )
        self.memory_status = self.device_registers.add(
            _MEMORY_OFFSET,
            DeviceCapabilityId.MEMORY_DEVICE_STATUS,
            MEMORY_DEVICE_STATUS_VERSION,
            MemoryDevice,
        ).status
        self.memory_status.media_status = MediaStatus.READY
        self.memory_status.mailbox_ready = True
        pages = (2 * PAGE, payload) if payload % PAGE == 0 else None
        self.add_device_block(registers, pages)

        self.timestamp = TimestampCommands(self.clock)
        self.events = EventLogs(
            event_log_depth,
            self.timestamp,
            self.status.event_status,
            payload,
            self.vectors[interrupts],
            self.interrupt,
        )
        self.poison = PoisonCommands(self, poison_list_max)
        self.health = HealthCommands()
        self.labels = LabelCommands(self.label_medium, payload)
        self.media = MediaCommands(self)
        self.firmware = FirmwareCommands(self.fw_revision)
        self.capacity_commands = CapacityCommands(
            self.capacity,
            fw_revision=self.firmware.active,
            event_log_depth=event_log_depth,
            lsa_size=self.labels.size,
            poison_list_max=poison_list_max,
        )
        self.logs = LogCommands(self.cci)
        self.cdat = CdatTable(self.capacity)
        self.doe = DoeMailbox(self, {(VENDOR_CXL, DATA_OBJECT_TYPE_CDAT): self.cdat.exchange})
        self.platform: Callable[[], None] = lambda: None  # what platform firmware does after each reset
        self.cci.barred = self._barred
        self.cci.ended = self.mailbox.background_changed
        self.cci.add(
            [
                self,
                self.capacity_commands,
                self.events,
                self.timestamp,
                self.logs,
                self.labels,
                self.health,
                self.poison,
                self.media,
                self.firmware,
                SecurityCommands(),
                BackgroundCommands(self.cci),
            ]
        )
        self.finish()

    def close(self) -> None:
        """Let go of the clock, registers and media that the device made. It must not be attached."""
        self.cci.cancel()
        if self._own_clock is not None:
            self._own_clock.close()
        for medium in self._own_media:
            medium.close()

    def _made(self, name: str, size: int) -> Medium:
        medium = Medium.memfd(name, size)
        self._own_media.append(medium)
        return medium

    @property
    def media_disabled(self) -> bool:
        return self.memory_status.media_status is MediaStatus.DISABLED

    @media_disabled.setter
    def media_disabled(self, disabled: bool) -> None:
        self.memory_status.media_status = MediaStatus.DISABLED if disabled else MediaStatus.READY

    def _barred(self, command: Command) -> ReturnCode | None:
        """While the media are disabled, commands that need them are refused (CXL 3.1 §8.2.9.9.5.1)."""
        return ReturnCode.MEDIA_DISABLED if self.media_disabled and command.opcode in _NEED_MEDIA else None

    def read(self, region: int, offset: int, size: int) -> bytes:
        """Software's read. The background registers are brought up to date when it looks at them."""
        with self.lock:
            if self.cci.busy:
                self.mailbox.show_background()
            return self._file(region).read(offset, size)

    def on_reset(self, kind: Reset) -> None:
        super().on_reset(kind)
        self.doe.reset(kind)
        if kind is Reset.FLR:
            return
        self.device_registers.file.reset(kind)
        self.cci.finish()
        self.timestamp.reset()
        self.events.reset()
        if kind is Reset.COLD:
            self.events.forget()
        self.platform()


_NEED_MEDIA = frozenset(
    (0x4101, 0x4102, 0x4103, 0x4300, 0x4301, 0x4302, 0x4303, 0x4304, 0x4305, 0x4400, 0x4401, 0x4402)
)


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
