"""A Type 3 device: memory behind HDM decoders, managed through a mailbox.

Scripting one is a subclass: override a command, add one, place a register::

    class Forgetful(Type3):
        @command(IDENTIFY_MEMORY_DEVICE)
        def identify(self) -> IdentifyMemoryDevice:
            return self.capacity_commands.identify().replace(fw_revision="forgetful")

What happens to a device goes in by `record_event`, `inject_poison`, `clear_poison`, `set_health`, `media_disabled`
and `reset`, from any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from softcxl.device.alert import Alerts
from softcxl.device.background import BackgroundCommands
from softcxl.device.capacity import Capacity, CapacityCommands
from softcxl.device.cci import Cci, CommandSet
from softcxl.device.cdat import CdatTable
from softcxl.device.clock import Clock, SystemClock
from softcxl.device.compliance import ComplianceMode
from softcxl.device.cpmu import PerformanceMonitor
from softcxl.device.custody import Custody
from softcxl.device.decoder import CommitError, HdmDecoders
from softcxl.device.dynamic.capacity import DynamicCapacity
from softcxl.device.dynamic.region import DynamicRegion, place, span
from softcxl.device.dynamic.shared import Share
from softcxl.device.endpoint import COMPONENT_BAR, Endpoint
from softcxl.device.events import EventLogs
from softcxl.device.faults import MediaFaults
from softcxl.device.feature import Feature, FeatureCommands
from softcxl.device.firmware import FirmwareCommands
from softcxl.device.health import HealthCommands
from softcxl.device.inject import Injection
from softcxl.device.labels import LabelCommands
from softcxl.device.logs import LogCommands
from softcxl.device.mailbox import MailboxDoor, SecondaryMailbox
from softcxl.device.management import ManagementCci
from softcxl.device.media import MediaCommands
from softcxl.device.partition import PartitionCommands, divided
from softcxl.device.passthrough import PassthroughCommands
from softcxl.device.persist import StatePage
from softcxl.device.poison import LINE, PoisonCommands
from softcxl.device.qos import QosTelemetry
from softcxl.device.registers import DeviceRegisters
from softcxl.device.repair import RepairCommands
from softcxl.device.scan import ScanCommands
from softcxl.device.scrub import ErrorCheckScrub, PatrolScrub
from softcxl.device.security import SecurityCommands
from softcxl.device.shutdown import ShutdownCommands
from softcxl.device.timestamp import TimestampCommands
from softcxl.memory.dpa import DpaSpace
from softcxl.memory.media import Medium
from softcxl.memory.places import Shared
from softcxl.pci.doe import DoeMailbox
from softcxl.pci.region import SharedRegisters
from softcxl.spec.command.base import Command, ReturnCode
from softcxl.spec.command.events import EventLog, EventNotificationRequest
from softcxl.spec.command.poison import PoisonSource
from softcxl.spec.cxl.cdat import DATA_OBJECT_TYPE_CDAT
from softcxl.spec.cxl.compliance import DATA_OBJECT_TYPE_COMPLIANCE
from softcxl.spec.cxl.component import COMPONENT_BLOCK_SIZE
from softcxl.spec.cxl.device import (
    DEVICE_STATUS_VERSION,
    MAILBOX_PAYLOAD_OFFSET,
    MAILBOX_VERSION,
    MEMORY_DEVICE_STATUS_VERSION,
    DeviceCapabilityId,
    DeviceStatus,
    DeviceType,
    Mailbox,
    MediaStatus,
    MemoryDevice,
)
from softcxl.spec.cxl.dvsec import REGISTER_BLOCK_ALIGNMENT, VENDOR_CXL, RegisterBlockId, TimeScale
from softcxl.spec.pci.header import CLASS_CXL_MEMORY_DEVICE
from softcxl.wire import Reset

log = logging.getLogger(__name__)

PAGE = 4096
_STATUS_OFFSET, _MEMORY_OFFSET = 0x80, 0x90
_MAPPED = 2 * PAGE
_MAILBOX_OFFSET = _MAPPED - Mailbox.command.__layout__.offset  # what of it can be mapped begins on a page
_CPMU_VECTOR = 8  # behind the mailbox's and the event logs'
DEVICE_ID = 0x0001


class Traffic(Protocol):
    """Who counts accesses to a device's memory, `size` bytes at `dpa` that came through an HDM decoder."""

    def read(self, decoder: int, dpa: int, size: int) -> None: ...

    def write(self, decoder: int, dpa: int, size: int) -> None: ...


class Type3(Endpoint, CommandSet):
    """A memory device called `name`, with `volatile` and `persistent` bytes of capacity.

    `medium` holds the bytes (a memfd where none is given), and `label_medium` the label storage area of
    `label_storage` bytes; with named files persistent capacity and labels outlive the process. `payload` is the
    mailbox's payload size in bytes. `state` is the file, or the page, of what else outlives power: passphrases,
    firmware, the shutdown state, extents, and what was left unfinished. `decoders` is the number of HDM decoders.
    `dynamic` are the regions of dynamic capacity, at the addresses after the other capacity; `device.dynamic` gives it
    out; a logical device has a `Share` of its device's in their place. With a `partition_alignment` (bytes) software
    can move capacity between volatile and persistent in such parts; `volatile` and `persistent` are how it comes from
    the factory. `features` (`VendorFeature`) are there beside the standard's. With `secondary_mailbox` there is a
    second mailbox, which takes what does not run in the background.
    With `cpmu` it has performance counters (`device.cpmu`), with `compliance` the compliance mode.
    Raises `ValueError` for what the standard does not allow.
    """

    vendor_id = VENDOR_CXL
    device_id = DEVICE_ID
    fw_revision = "softcxl 1"
    fw_slots = 2
    flush_seconds = 0  # that it takes to save its data when power fails, up to 150

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
        state: Path | StatePage | None = None,
        dynamic: Iterable[DynamicRegion] | Share = (),
        features: Iterable[Feature] = (),
        partition_alignment: int = 0,
        cpmu: bool = False,
        secondary_mailbox: bool = False,
        compliance: bool = False,
    ) -> None:
        self.name = name
        self._share = dynamic if isinstance(dynamic, Share) else None
        self.dynamic_host = 0 if self._share is None else self._share.host
        """By which number its host is known to the owner of its dynamic capacity."""
        own = volatile + persistent
        regions = () if isinstance(dynamic, Share) else place(dynamic, own)
        reach = span(regions) if self._share is None else self._share.end - own
        self.page = StatePage.of(state)
        self.capacity = divided(self.page, Capacity(volatile, persistent, reach), partition_alignment)
        super().__init__(
            vendor_id=self.vendor_id if vendor_id is None else vendor_id,
            device_id=self.device_id if device_id is None else device_id,
            class_code=CLASS_CXL_MEMORY_DEVICE,
            serial=serial,
            memory=self.capacity.total,
            dynamic=self.capacity.dynamic,
            decoders=decoders,
            interrupts=interrupts,
            component_size=COMPONENT_BLOCK_SIZE * (1 + cpmu),
        )
        self.cpmu: PerformanceMonitor | None = None
        self.traffic: Traffic | None = None  # who counts CXL.mem, while anybody does
        scale, unit = (TimeScale.S_1, 1) if self.flush_seconds <= 15 else (TimeScale.S_10, 10)
        self.gpf.phase2_duration.time_base = -(-self.flush_seconds // unit)
        self.gpf.phase2_duration.time_scale = scale if self.flush_seconds else TimeScale.US_1
        self.platform: Callable[[], None] = lambda: None  # what platform firmware does after each reset
        self._partition_alignment = partition_alignment
        self._owned = ExitStack()
        with ExitStack() as undo:
            undo.callback(self._owned.close)
            self.secondary_mailbox: SecondaryMailbox | None = None
            self._secondary = secondary_mailbox
            self._build(clock, payload, medium, label_medium, label_storage, event_log_depth, poison_list_max)
            self._add_dynamic_capacity(regions)
            self._add_features(features)
            if cpmu:
                self._add_cpmu()
            if compliance:
                self.compliance = ComplianceMode(self)
                self.doe.protocols[VENDOR_CXL, DATA_OBJECT_TYPE_COMPLIANCE] = self.compliance.exchange
            self.finish()
            self.firmware.power_on()
            self.partitions.power_on()
            self.media.power_on()
            undo.pop_all()

    def _build(
        self,
        clock: Clock | None,
        payload: int,
        medium: Medium | None,
        label_medium: Medium | None,
        label_storage: int,
        event_log_depth: int,
        poison_list_max: int,
    ) -> None:
        if clock is None:
            clock = SystemClock()
            self._owned.callback(clock.close)
        end, total = self.capacity.end, self.capacity.total
        self.clock = clock
        self.medium = medium or self._medium(self.name, end if self._share is None else max(PAGE, total))
        if label_medium is None and label_storage:
            label_medium = self._medium(f"{self.name}-labels", label_storage)
        self.space = DpaSpace(self.medium, end, self.name, shared=self._shared_memory())
        self.custody = Custody(self)
        self.space.altering = self.custody.altering

        self.cci = Cci(clock, self.lock, payload_max=payload)
        self._add_registers(payload)
        self.timestamp = TimestampCommands(clock)
        self.events = EventLogs(
            event_log_depth,
            self.timestamp,
            self.status.event_status,
            payload_max=payload,
            vectors=self.vectors[self.interrupts],
            interrupt=self.interrupt,
            lock=self.lock,
            dynamic_capacity=self.capacity.dynamic > 0,
        )
        self.poison = PoisonCommands(self, poison_list_max)
        self.health = HealthCommands()
        self.alerts = Alerts(self)
        self.faults = MediaFaults(self)
        self.scan = ScanCommands(self)
        self.shutdown = ShutdownCommands(self)
        self.labels = LabelCommands(label_medium, payload)
        self.security = SecurityCommands(self)
        self.media = MediaCommands(self)
        self.firmware = FirmwareCommands(self, self.fw_revision, self.fw_slots)
        self.capacity_commands = CapacityCommands(
            self.capacity,
            self.firmware,
            event_log_depth=event_log_depth,
            lsa_size=self.labels.size,
            partition_alignment=self._partition_alignment,
            poison_list_max=poison_list_max,
        )
        self.partitions = PartitionCommands(self, self._partition_alignment)
        self.logs = LogCommands(self)
        self.cdat = CdatTable(self.capacity)
        self.doe = DoeMailbox(self, {(VENDOR_CXL, DATA_OBJECT_TYPE_CDAT): self.cdat.exchange})
        self.qos = QosTelemetry(self.lock)
        self.doors: list[ManagementCci] = []  # beside the mailboxes
        self.inject = Injection(self)
        self.cci.barred = self._barred
        self.cci.ended = self._background_ended
        self.cci.add(
            [
                self,
                *([self.partitions] if self._partition_alignment else []),
                self.capacity_commands,
                self.events,
                self.timestamp,
                self.logs,
                self.labels,
                self.health,
                self.poison,
                self.scan,
                self.media,
                self.firmware,
                self.security,
                self.shutdown,
                PassthroughCommands(),
                self.qos,
                BackgroundCommands(self.cci),
            ]
        )

    def _shared_memory(self) -> Shared | None:
        """The memory that it has with others."""
        return None if self._share is None else self._share.memory

    def _add_dynamic_capacity(self, regions: Sequence[DynamicRegion]) -> None:
        """The regions, and the host's commands for them."""
        if self._share is None:
            self.dynamic = DynamicCapacity(
                regions, erase=self._erase, clock=self.clock, lock=self.lock, page=self.page
            )
        else:
            owner = self._share.owner
            self.dynamic = owner
            self.decoders.gap = range(self.capacity.total, owner.start)
            owner.erased.append(self.poison.clear)
            owner.poisoned.append(self.poison.add)
            self._owned.callback(owner.erased.remove, self.poison.clear)
            self._owned.callback(owner.poisoned.remove, self.poison.add)
            for line, source in owner.bad.items():
                self.poison.map.add(line, source)
            self.poison.listed, self.poison.cleared = owner.poison, owner.heal
        self._keep_persistent()
        if self.dynamic.regions:
            self.dynamic.changed.append(self._regions_changed)
            self._owned.callback(self.dynamic.changed.remove, self._regions_changed)
            host = self.dynamic.connect(self.dynamic_host, self.events, self.cci.payload_max)
            self._owned.callback(host.close)
            self.cci.add([host])
            self._regions_changed()

    def _add_features(self, features: Iterable[Feature]) -> None:
        """The standard's features, and `features` after them."""
        self.patrol_scrub, self.ecs, self.repair = (
            PatrolScrub(self),
            ErrorCheckScrub(self),
            RepairCommands(self),
        )
        every = [self.patrol_scrub, self.ecs, *self.repair.features, *features]
        self.features = FeatureCommands(every, self.page, self.cci.payload_max)
        self.cci.add([self.features, self.repair])

    def _add_cpmu(self) -> None:
        self.cpmu = PerformanceMonitor(
            self.component.file,
            COMPONENT_BLOCK_SIZE,
            self.clock,
            vendor_id=self.header.vendor_id.value,
            vector=min(_CPMU_VECTOR, self.vectors[self.interrupts] - 1),
            interrupt=self.interrupt,
            lock=self.lock,
            watch=self._watch_traffic,
        )
        self.doe.answered = self.cpmu.data_object
        for mailbox in self.mailboxes:
            mailbox.served = self.cpmu.command
        self.locate(RegisterBlockId.CPMU, COMPONENT_BAR, COMPONENT_BLOCK_SIZE)

    def _watch_traffic(self, watch: bool) -> None:
        self.traffic = self.cpmu if watch else None

    def _regions_changed(self) -> None:
        self.cdat.regions = self.dynamic.regions
        self.cdat.build(self.capacity)

    def _erase(self, dpa: int, length: int) -> None:
        self.space.clear(dpa, length)
        self.poison.clear(dpa, length)

    def _add_registers(self, payload: int) -> None:
        """The device register block: status, memory device status, and the mailbox, from its command register on
        in pages of its own."""
        mapped = -(-(_MAILBOX_OFFSET + MAILBOX_PAYLOAD_OFFSET + payload) // PAGE) * PAGE - _MAPPED
        room = MAILBOX_PAYLOAD_OFFSET + payload if self._secondary else 0  # behind what can be mapped
        size = _power_of_two(max(REGISTER_BLOCK_ALIGNMENT, _MAPPED + mapped + room))
        file = SharedRegisters(size, f"{self.name}-registers")
        self._owned.callback(file.close)
        self.device_registers = DeviceRegisters(file, DeviceType.MEMORY_DEVICE)
        self.status = self.device_registers.add(
            _STATUS_OFFSET, DeviceCapabilityId.DEVICE_STATUS, DEVICE_STATUS_VERSION, DeviceStatus
        )
        self.mailbox = MailboxDoor(file, _MAILBOX_OFFSET, self.cci, vector=0, interrupt=self.interrupt)
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
        rest = sum(self.mailbox.payload_range)
        file.ram(rest, _MAPPED + mapped - rest)
        if self._secondary:
            self.secondary_mailbox = SecondaryMailbox(file, _MAPPED + mapped, self.cci)
            self.device_registers.list_capability(
                DeviceCapabilityId.SECONDARY_MAILBOX, MAILBOX_VERSION, _MAPPED + mapped, room
            )
        self.add_device_block(file, (_MAPPED, mapped))

    @property
    def mailboxes(self) -> list[MailboxDoor]:
        """The primary mailbox, and the secondary one if there is one."""
        return [self.mailbox, *([self.secondary_mailbox] if self.secondary_mailbox else [])]

    def management(self, send: Callable[[EventNotificationRequest], None]) -> ManagementCci:
        """A command interface for another door than a mailbox, such as an MCTP endpoint: `send` is called with each
        Event Notification that is due, the device's lock held. Close it with its door."""
        with self.lock:
            return ManagementCci(self, send)

    @property
    def decoders(self) -> HdmDecoders:
        """The HDM decoders."""
        assert self._decoders is not None, "made for every device with memory"
        return self._decoders

    def close(self) -> None:
        """Let go of the clock, registers and media that the device made. It must not be attached. Work in the
        background ends as a reset ends it."""
        with self.lock:
            self.cci.reset()
            if self._share is None:
                self.dynamic.close()
            self.faults.close()
            self.patrol_scrub.stop()
            if self.cpmu is not None:
                self.cpmu.close()
        self.shutdown.close()
        self._owned.close()

    def _medium(self, name: str, size: int) -> Medium:
        medium = Medium.memfd(name, size)
        self._owned.callback(medium.close)
        return medium

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.capacity.total:#x} bytes, serial {self.serial:#x}>"

    # -- what happens to it ----------------------------------------------------------------------------------

    def record_event(self, log: EventLog, event: Any) -> bool:
        """Log an event record of `softcxl.spec.cxl.events`; its handle, timestamp and severity are filled in.

        Returns False where the log was full.
        """
        return self.events.record(log, event)

    def inject_poison(self, dpa: int, source: PoisonSource = PoisonSource.INTERNAL) -> bool:
        """Poison the 64 bytes at `dpa`, with the event that goes with it. Returns False where the list is full."""
        return self.poison.add(dpa, source)

    def clear_poison(self, dpa: int, length: int = LINE) -> int:
        """Take the poison off `length` bytes from `dpa`, whose data stay; returns how many lines had it."""
        return self.poison.clear(dpa, length)

    def set_health(self, **changes: int) -> None:
        """Change the device's condition, by items of `DeviceHealth`: ``set_health(device_temperature=95)``. What that
        changes of its states, a threshold that is crossed or another status, is an event."""
        with self.lock:
            self.health.info = self.health.info.replace(**changes)
            self.alerts.look()

    @property
    def media_disabled(self) -> bool:
        """The media cannot be used, being disabled or having failed: commands that need them are refused. Settable."""
        return self.memory_status.media_status in (MediaStatus.DISABLED, MediaStatus.ERROR)

    @media_disabled.setter
    def media_disabled(self, disabled: bool) -> None:
        with self.lock:
            if disabled:
                self.custody.lose("its media are disabled")
            self.memory_status.media_status = MediaStatus.DISABLED if disabled else MediaStatus.READY
            self.custody.look()

    # -- behaviour -------------------------------------------------------------------------------------------

    def _barred(self, command: Command) -> ReturnCode | None:
        """While the media are disabled, or locked, commands that need them are refused (CXL 3.1 §8.2.9.9.5.1)."""
        return ReturnCode.MEDIA_DISABLED if self.media.barred(command.opcode) else None

    def _background_ended(self) -> None:
        self.mailbox.background_ended()
        for door in list(self.doors):
            door.background_ended()

    def volatile_at(self, dpa: int) -> bool:
        """The memory at `dpa` forgets without power."""
        if dpa < self.capacity.total:
            return dpa < self.capacity.volatile
        region = self.dynamic.region_at(dpa)
        return region is None or not region.non_volatile

    @property
    def persistent_ranges(self) -> list[tuple[int, int]]:
        """The device addresses, from start to end, of memory of its own that does not forget without power."""
        static = [(self.capacity.volatile, self.capacity.total)] if self.capacity.persistent else []
        if self._share is not None:
            return static
        return static + [one.range for one in self.dynamic.regions if one.non_volatile]

    @property
    def own_ranges(self) -> list[tuple[int, int]]:
        """The device addresses, from start to end, of memory that no other device has: erasing all of a logical
        device's is no matter of others'."""
        if self._share is None:
            return [(0, self.capacity.end)]
        host = self.dynamic.hosts.get(self.dynamic_host)
        mine = () if host is None else host.accepted
        alone = [one.range for one in mine if not self.dynamic.region_of(one.start).sharable]
        return [(0, self.capacity.total), *alone]

    def is_others(self, dpa: int, length: int) -> bool:
        """A logical device's host has nothing to do with these addresses (bytes): they are of shared memory that it has
        not accepted, or of none."""
        if self._share is None or dpa + length <= self.capacity.total:
            return False
        return self.dynamic.refusal(dpa, length, host=self.dynamic_host) is not None

    @property
    def owns_dynamic(self) -> bool:
        """There is dynamic capacity, and it is the device's own to give out."""
        return self._share is None and bool(self.dynamic.regions)

    def _keep_persistent(self) -> None:
        """Have the bytes survive from the first device address of memory that does not forget."""
        if self.medium.persistent:
            ranges = self.persistent_ranges
            self.space.persistent_from = ranges[0][0] if ranges else self.capacity.end

    def divide(self, capacity: Capacity) -> None:
        """The capacity is divided like this from now on. What data that costs is the caller's to see to, and to hold
        the lock."""
        self.capacity = self.capacity_commands.capacity = capacity
        self._keep_persistent()
        self.cdat.build(capacity)

    def clear_volatile(self) -> None:
        if self.capacity.volatile:
            self.space.clear(0, self.capacity.volatile)
        for region in self.dynamic.regions:
            if not region.non_volatile and self._share is None:
                self.space.clear(region.base, region.decode_length)

    def silence(self) -> None:
        self.custody.lose("it does not answer")
        super().silence()

    def wake(self, kind: Reset = Reset.COLD) -> None:
        super().wake(kind)
        self.custody.look()

    def enter_viral(self, *, told: bool = False) -> bool:
        if self.dvsec.control.viral_enable:
            self.custody.lose("it is viral")
        return super().enter_viral(told=told)

    def on_reset(self, kind: Reset) -> None:
        if kind is Reset.COLD:
            self.custody.lose("its power is gone")
        if not kind.of_function:
            self.cci.reset()
        super().on_reset(kind)
        self.device_registers.file.reset(kind, [self.memory_status] if kind.of_function else ())
        for mailbox in self.mailboxes:
            mailbox.reset()
        which = None if self._share is None else self.dynamic_host
        self.dynamic.reset(which)
        if kind is not Reset.FLR:
            self.firmware.reset()
            if self.cpmu is not None:
                self.cpmu.reset()
        if kind.of_function:
            self.events.show()
            return
        self.timestamp.reset()
        self.qos.reset()
        for door in self.doors:
            door.reset()
        self.events.reset()
        self.poison.reset()
        self.scan.reset()
        self.repair.reset()
        self.features.reset(kind)
        if kind is Reset.COLD:
            self.dynamic.power_on(which)
            self.events.forget()
            self.logs.power_on()
            self.partitions.power_on()
            self.clear_volatile()
            self.shutdown.power_lost(saved=True)
            self.security.power_on()
            self.firmware.power_on()
        self.media.power_on()
        self.custody.look()
        try:
            self.platform()
        except CommitError as error:
            log.warning("%s: the platform's firmware cannot program it again: %s", self.name, error)


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
