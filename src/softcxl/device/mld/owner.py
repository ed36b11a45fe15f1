"""The FM-owned logical device: the function by which a fabric manager has the device, and what it keeps for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from softcxl.device.background import BackgroundCommands
from softcxl.device.cci import Cci, CommandSet
from softcxl.device.events import EventLogs
from softcxl.device.timestamp import TimestampCommands
from softcxl.pci.function import Function
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.device import EventStatus
from softcxl.spec.cxl.port import MldDvsec
from softcxl.spec.pci.extended import AdvancedErrorReporting, DeviceSerialNumber
from softcxl.spec.pci.header import CLASS_CXL_MEMORY_DEVICE
from softcxl.wire import Reset, on_write

if TYPE_CHECKING:
    from softcxl.device.mld.device import MultiLogicalDevice
    from softcxl.device.mld.management import OwnerCci


class FmOwnedDevice(Function):
    """The FM-owned LD (LD ID FFFFh) of `mld`, with `count` logical devices at the head with that
    `port` number; `hot_reset` resets one of them.

    It has configuration space, with the MLD DVSEC, by which a fabric manager resets logical devices; no BARs, memory or
    interrupts (CXL 3.1 §2.4.2). `cci` has the commands of `serve`, for every door to it
    (`softcxl.device.mld.management`), `events` are the event logs that a fabric manager reads.
    """

    vectors: ClassVar = {"none": 1}

    def __init__(
        self, mld: MultiLogicalDevice, name: str, count: int, port: int, hot_reset: Callable[[int], None]
    ) -> None:
        self._mld, self.name, self._hot_reset = mld, name, hot_reset
        super().__init__(
            vendor_id=mld.vendor_id,
            device_id=mld.device_id,
            class_code=CLASS_CXL_MEMORY_DEVICE,
            interrupts="none",
        )
        self.serial = mld.serial
        self.aer = self.add_extended(AdvancedErrorReporting)
        self.add_extended(DeviceSerialNumber).serial_number.value = mld.serial
        self.dvsec = self.add_extended(MldDvsec)
        self.dvsec.supported.count = count
        self.timestamp = TimestampCommands(mld.clock)
        self.events = EventLogs(
            mld.event_log_depth,
            self.timestamp,
            EventStatus(),
            payload_max=mld.payload,
            vectors=self.vectors[self.interrupts],
            interrupt=self.interrupt,
            lock=self.lock,
            dynamic_capacity=mld.dynamic is not None,
        )
        self.cci = Cci(mld.clock, self.lock, payload_max=mld.payload)
        self.cci.ended = self._background_ended
        self.doors: list[OwnerCci] = []
        self.express.link_capabilities.port_number = port
        self.finish()

    def make_lock(self) -> threading.RLock:
        return self._mld.lock

    def serve(self, sets: Iterable[CommandSet]) -> None:
        """Answer the commands of `sets`, too."""
        self.cci.add([*sets, self.events, self.timestamp, BackgroundCommands(self.cci)])

    def record_event(self, log: EventLog, event: Any) -> bool:
        """Log an event record for the fabric manager. Returns False where the log was full."""
        return self.events.record(log, event)

    def _background_ended(self) -> None:
        for door in list(self.doors):
            door.background_ended()

    @on_write(MldDvsec.hot_reset_vector)
    def _reset_logical(self, old: int, new: int) -> None:
        self.dvsec.hot_reset_vector.logical_devices = 0
        for ld in range(self.dvsec.supported.count):
            if new >> ld & 1:
                self._hot_reset(ld)

    def on_reset(self, kind: Reset) -> None:
        if not kind.of_function:
            self.cci.reset()
        super().on_reset(kind)
        if kind.of_function:
            return
        self.timestamp.reset()
        for door in self.doors:
            door.reset()
        self.events.reset()
        if kind is Reset.COLD:
            self.events.forget()

    def __repr__(self) -> str:
        return f"<FM-owned LD of {self.name}>"
