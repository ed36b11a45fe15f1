"""A multi-logical device: memory that a fabric manager deals out to up to sixteen logical devices, as many at each of
its heads if it has several (CXL 3.1 §2.4, §2.5).

>>> pool = MultiLogicalDevice("pool", volatile=4 << 30, logical_devices=[1 << 30, 0, 0, 0])
>>> sorted(pool.logical), pool.logical[0].capacity.total == 1 << 30
([0], True)
>>> pool.allocate({1: 2 << 30})
>>> sorted(pool.logical), pool.allocations.free.volatile == 1 << 30
([0, 1], True)
>>> pool.logical[1].bind("rack.left.0")
>>> pool.allocate({1: 0})
Traceback (most recent call last):
softcxl.device.mld.errors.LdInUse: pool.1 is bound to rack.left.0: its allocation cannot change
>>> pool.close()
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from softcxl.device.cci import CommandSet
from softcxl.device.clock import Clock, SystemClock
from softcxl.device.dynamic.owner import OwnerCommands
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.shared import SharedCapacity, size_of
from softcxl.device.events import EventLogs
from softcxl.device.mld.allocation import NOTHING, Allocation, Allocations
from softcxl.device.mld.errors import LdInUse
from softcxl.device.mld.head import Head
from softcxl.device.mld.heads import MultiHeadedCommands
from softcxl.device.mld.logical import LogicalDevice, OnUnbind
from softcxl.device.mld.management import OwnerCci
from softcxl.device.mld.owner import FmOwnedDevice
from softcxl.device.mld.page import LdPage
from softcxl.device.mld.qos import BandwidthTelemetry
from softcxl.device.persist import StatePage
from softcxl.device.type3 import DEVICE_ID
from softcxl.memory.errors import MemoryFault
from softcxl.memory.media import Medium
from softcxl.spec.command.events import EventLog, EventNotificationRequest
from softcxl.spec.cxl.dvsec import VENDOR_CXL
from softcxl.spec.cxl.events import DynamicCapacityEvent
from softcxl.spec.fm.mld import MAX_LDS
from softcxl.wire import Reset

log = logging.getLogger(__name__)

PAYLOAD: Final = 8192
"""The largest payload of an FM-owned LD's commands, in bytes: an LD's mailbox has 4096, and a tunnel adds to it."""
LABEL_STORAGE: Final = 128 << 10


@dataclass(frozen=True, slots=True)
class LdChange:
    """A logical device has appeared (`old` is None), vanished (`new` is None), or is another one, of another size."""

    ld: int
    old: LogicalDevice | None
    new: LogicalDevice | None


class MultiLogicalDevice:
    """A device called `name` with `volatile` and `persistent` bytes, for as many logical devices as `logical_devices`
    has entries: the bytes of each when the device comes from the factory, as a number (volatile) or a pair (volatile,
    persistent), in multiples of `granularity` (bytes).

    `logical` are the logical devices that have memory, or a share of dynamic capacity, by LD ID; they are called
    ``name.ID``. `allocate` changes who
    has how much; a logical device whose allocation changes is a new one, and nothing of the old one is left.
    `listeners` are called with each `LdChange`, the lock held, before the old one is closed. `on_unbind` says what is
    left of contents when a logical device is unbound.

    With several `heads` each has the logical devices that `ld_map` (a head's number for each) gives it, by default as
    many as the others, in order; `heads[n]` is what is plugged into a port then, and `management` is that of the pool
    of all. Allocations, and the logical devices' own state, are kept in `state`; with a `folder` logical devices with
    persistent memory have their bytes in files there: ``name.ID.mem`` and ``name.ID.mem.labels``. Those of `kept` have
    theirs in the files that it says, and find there all that was, be it volatile. `options` are those of
    `softcxl.device.type3.Type3`, for every logical device.

    `dynamic` are regions of dynamic capacity, which logical devices share: `MultiLogicalDevice.dynamic` gives it out,
    to the host IDs that are LD IDs, and a fabric manager by the commands of the pool. Its bytes are in one medium, a
    file ``name.dynamic.mem`` in the `folder` where some of it is non-volatile.
    Raises `ValueError` for what the standard does not allow, `StateDamaged` for a page of another device, and
    `MemoryFault` for files that cannot be used.
    """

    vendor_id = VENDOR_CXL
    device_id = DEVICE_ID

    def __init__(
        self,
        name: str,
        *,
        volatile: int = 0,
        persistent: int = 0,
        logical_devices: Sequence[int | Sequence[int]] = (0,) * 16,
        granularity: int = 256 << 20,
        heads: int = 1,
        ld_map: Sequence[int] | None = None,
        on_unbind: OnUnbind | str = OnUnbind.CLEAR,
        serial: int = 0,
        clock: Clock | None = None,
        event_log_depth: int = 15,
        label_storage: int = LABEL_STORAGE,
        state: Path | StatePage | None = None,
        folder: Path | None = None,
        kept: Mapping[int, Path] | None = None,
        dynamic: Iterable[DynamicRegion] = (),
        **options: Any,
    ) -> None:
        self._kept = dict(kept or {})
        self.name, self.serial = name, serial
        self.volatile, self.persistent, self.granularity = volatile, persistent, granularity
        self.on_unbind = OnUnbind(on_unbind)
        self.lock = threading.RLock()
        """One for the device, its FM-owned LDs and all logical devices."""
        self.event_log_depth, self.payload = event_log_depth, PAYLOAD
        self.dynamic: SharedCapacity | None = None
        """The dynamic capacity that logical devices share, if there are regions of it."""
        self.listeners: list[Callable[[LdChange], None]] = []
        self.witness: Callable[[str, str], None] = lambda what, name: None
        """Told, the lock held, what is done to the device or to a logical device: ld-reset, power-cycled."""
        self.heads: tuple[Head, ...] = ()
        self.command_sets: list[CommandSet] = []
        self._label_storage, self._folder, self._options = label_storage, folder, options
        factory = Allocations(
            volatile, persistent, granularity, tuple(Allocation.of(one) for one in logical_devices)
        )
        self.page = StatePage.of(state)
        self.allocations = (
            self.page.take("allocations", lambda section: factory.read(section["each"])) or factory
        )
        fresh = self.page.take("allocations", lambda section: [int(one) for one in section["fresh"]]) or []
        self._fresh = fresh
        self.logical: dict[int, LogicalDevice] = {}
        self._owned = ExitStack()
        with ExitStack() as undo:
            undo.callback(self.close)
            if clock is None:
                clock = SystemClock()
                self._owned.callback(clock.close)
            self.clock: Clock = clock
            self._pages = [LdPage(self.page, f"ld{ld}") for ld in range(len(factory.each))]
            self.qos = BandwidthTelemetry(len(factory.each), self.page, self.lock)
            if regions := list(dynamic):
                self._add_dynamic_capacity(regions)
            self._add_heads(heads, ld_map)
            for ld in range(len(factory.each)):
                if ld in fresh:
                    self._forget(ld)
                if device := self._make(ld):
                    self.logical[ld] = device
                    if ld in fresh:
                        device.partitions.discarded = 0  # what is found of it elsewhere is lost, too
            if fresh:
                self._keep(self.allocations, [])
            undo.pop_all()

    def _add_dynamic_capacity(self, regions: Sequence[DynamicRegion]) -> None:
        """What logical devices share, at addresses that none of them has otherwise, and the commands for it."""
        size, name = size_of(regions), f"{self.name}-dynamic"
        if self._folder is not None and any(one.non_volatile for one in regions):
            self._folder.mkdir(parents=True, exist_ok=True)
            medium = Medium.open(self._folder / f"{self.name}.dynamic.mem", size)
        else:
            medium = Medium.memfd(name, size)
        self._owned.callback(medium.close)
        pool = SharedCapacity(
            regions,
            start=self.volatile + self.persistent,
            medium=medium,
            clock=self.clock,
            lock=self.lock,
            page=self.page,
        )
        pool.hosts_supported = self.ld_count
        pool.listeners.append(self._note)
        self._owned.callback(pool.close)
        if medium.persistent:
            pool.forget_volatile()  # of an earlier run
        self.dynamic = pool
        self.command_sets.append(OwnerCommands(pool, self.payload))

    def _note(self, event: DynamicCapacityEvent) -> None:
        """What a host has answered or released, in the fabric manager's log."""
        self.record_event(EventLog.DYNAMIC_CAPACITY, event)

    def _add_heads(self, count: int, ld_map: Sequence[int] | None) -> None:
        """The heads, and the pool that all of them are of; a single head is both."""
        lds = range(self.ld_count)
        sets = [*([MultiHeadedCommands(self)] if count > 1 else []), *self.command_sets]
        if not 1 <= count <= max(self.ld_count, 1):
            raise ValueError(f"{count} heads: 1 to {self.ld_count} are possible, one for each logical device")
        if ld_map is None:
            ld_map = [ld * count // self.ld_count for ld in lds]
        if most := [head for head in {*ld_map} if list(ld_map).count(head) > MAX_LDS]:
            raise ValueError(f"head {most[0]} has more than {MAX_LDS} logical devices")
        if len(ld_map) != self.ld_count or {*ld_map} != {*range(count)}:
            raise ValueError(
                f"LD map {list(ld_map)}: {self.ld_count} numbers of heads, each of 0 to {count - 1} at least once"
            )
        self.pool = Head(self, self.name, 0 if count == 1 else None, lds, sets)
        if count == 1:
            self.heads = (self.pool,)
            return
        self.heads = tuple(
            Head(self, f"{self.name} head {head}", head, [ld for ld in lds if ld_map[ld] == head])
            for head in range(count)
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {len(self.logical)} logical devices, serial {self.serial:#x}>"

    def close(self) -> None:
        """Let go of all that was made. No logical device may be attached."""
        with self.lock:
            for device in self.logical.values():
                device.close()
            self.logical = {}
        self._owned.close()

    # -- as a whole ----------------------------------------------------------------------------------------------

    @property
    def ld_count(self) -> int:
        """Logical devices that it supports, with memory or without."""
        return len(self.allocations.each)

    @property
    def events(self) -> EventLogs:
        """The event logs that a fabric manager reads."""
        return self.pool.fm_owned.events

    @property
    def single(self) -> bool:
        """It is a single logical device, as one head with one is: never."""
        return self.pool.single

    @property
    def fm_owned(self) -> FmOwnedDevice:
        """The FM-owned logical device."""
        return self.pool.fm_owned

    def record_event(self, log: EventLog, event: Any) -> bool:
        """Log an event record for the fabric manager. Returns False where the log was full."""
        return self.events.record(log, event)

    def function(self, ld: int | None = None) -> LogicalDevice | None:
        """The logical device with that LD ID in the device; see `Head.function`."""
        return self.pool.function(ld)

    def link_changed(self, *, up: bool, perst: bool = False) -> None:
        """Whoever is at the other end of the only head's link tells what it is now."""
        self.pool.link_changed(up=up, perst=perst)

    def management(self, send: Callable[[EventNotificationRequest], None]) -> OwnerCci:
        """A command interface of the device's FM-owned LD, for one door: `send` is called with each Event Notification
        that is due, the lock held. Close it with its door."""
        return self.pool.management(send)

    def reset(self, kind: Reset = Reset.HOT) -> None:
        """Reset the whole device, hot or cold: every logical device, and what is the fabric manager's."""
        if kind is Reset.COLD:
            self.power_cycle()
            return
        with self.lock:
            self.qos.reset()
            for head in self.heads:
                head.hot_reset_all()

    def power_cycle(self) -> None:
        """Power goes and comes: volatile memory of every logical device has lost its contents; allocations stay."""
        with self.lock:
            self.witness("power-cycled", self.name)
            for head in {*self.heads, self.pool}:
                head.fm_owned.reset(Reset.COLD)
            self.qos.reset()
            for device in self.logical.values():
                device.power_cycle()
            if self.dynamic is not None:
                self.dynamic.power_cycle()

    def error(
        self, name: str, *, correctable: bool = False, protocol: str = "cxl", header: Sequence[int] = ()
    ) -> None:
        """Have a protocol error of the whole device happen: every logical device reports it (CXL 3.1 §2.4.2). The
        arguments are those of `softcxl.device.inject.Injection.error`, which is for one of them. Not with the lock
        held: machines' come first."""
        for device in list(self.logical.values()):
            device.inject.error(name, correctable=correctable, protocol=protocol, header=header)

    # -- allocations ---------------------------------------------------------------------------------------------

    def allocate(self, wanted: Mapping[int, int | Sequence[int]]) -> None:
        """Give the logical devices in `wanted` what it says, in bytes: a number (volatile) or (volatile, persistent).
        All of it happens, or nothing.

        A logical device whose allocation is another then starts anew, without contents. Raises a
        `LogicalDeviceError` for one that is not there or in use, for what is not in multiples of the granularity, and
        for more than there is; `OSError` or `MemoryFault` where it cannot be kept.
        """
        with self.lock:
            before = self.allocations
            after = before.with_({ld: Allocation.of(one) for ld, one in wanted.items()})
            changed = before.changed(after)
            for ld in changed:
                device = self.logical.get(ld)
                if device is not None and device.in_use:
                    where = f"bound to {device.holder}" if device.holder else "plugged into a machine"
                    raise LdInUse(f"{device.name} is {where}: its allocation cannot change")
            if not changed:
                return
            self._keep(after, changed)  # whatever happens from here on, these begin without contents
            self.allocations = after
            failed: dict[int, Exception] = {}
            for ld in changed:
                try:
                    self._replace(ld)
                except (MemoryFault, OSError) as error:  # no file, or no room: it has no memory then
                    if self.allocations.each[ld] == NOTHING:
                        log.warning("%s: what LD %d was is not forgotten yet: %s", self.name, ld, error)
                        continue
                    self.allocations = self.allocations.with_({ld: NOTHING})
                    failed[ld] = error
            if failed:
                self._keep(self.allocations, failed)
                raise next(iter(failed.values()))
            try:
                self.settle()
            except OSError as error:  # done it is; those that have nothing yet would begin with nothing again
                log.warning("%s: allocations are not settled: %s", self.name, error)

    def settle(self) -> None:
        """Have logical devices keep their contents over the end of the process from now on, if some would not. Raises
        `OSError`."""
        if self._fresh:
            for ld in self._fresh:
                if ld not in self.logical:
                    self._replace(ld)
            self._keep(self.allocations, [])

    def _keep(self, allocations: Allocations, fresh: Iterable[int]) -> None:
        """Have the allocations outlive the process, and which logical devices begin without contents then."""
        fresh = list(fresh)
        self.page.put("allocations", each=allocations.plain(), fresh=fresh)
        self._fresh = fresh

    def _replace(self, ld: int) -> None:
        """The logical device starts anew, with its new allocation, if that is any."""
        old, new = self.logical.pop(ld, None), None
        self._pages[ld].retire()
        self._pages[ld] = LdPage(self.page, f"ld{ld}")
        try:
            if old is not None:
                old.space.abandon()
                old.labels.clear()
            if self.dynamic is not None:
                self.dynamic.disconnect(ld)
            self._forget(ld)
            new = self._make(ld)
        finally:
            if new is not None:
                self.logical[ld] = new
            for tell in self.listeners if old or new else ():
                tell(LdChange(ld, old, new))
            if old is not None:
                old.close()

    def _forget(self, ld: int) -> None:
        """Leave nothing of what a logical device was: state, files, extents of an earlier run."""
        self._pages[ld].clear()
        self._discard(ld)
        if self.dynamic is not None:
            self.dynamic.drop(ld)

    def _make(self, ld: int) -> LogicalDevice | None:
        volatile, persistent = self.allocations.each[ld]
        if not volatile + persistent and self.dynamic is None:
            return None
        size, labels = volatile + persistent, self._label_storage if persistent else 0
        with ExitStack() as undo:
            media: dict[str, Medium] = {}
            if ld in self._kept and size:
                media["medium"] = undo.enter_context(Medium.open(self._kept[ld], size))
            elif self._folder is not None and persistent:
                self._folder.mkdir(parents=True, exist_ok=True)
                home, beside = self._files(ld)
                media["medium"] = undo.enter_context(Medium.open(home, size))
                media["medium"].clear(0, volatile)  # of an earlier run
                if labels:
                    media["label_medium"] = undo.enter_context(Medium.open(beside, labels))
            made = LogicalDevice(
                self,
                ld,
                volatile=volatile,
                persistent=persistent,
                label_storage=labels,
                clock=self.clock,
                state=self._pages[ld],
                dynamic=() if self.dynamic is None else self.dynamic.share(ld),
                **media,
                **self._options,
            )
            made.owns(undo.pop_all())
        return made

    def _files(self, ld: int) -> tuple[Path, Path]:
        """Where a logical device's bytes and labels are, of one with persistent memory."""
        assert self._folder is not None, "asked for where there is one"
        home = self._folder / f"{self.name}.{ld}.mem"
        return home, home.with_name(home.name + ".labels")

    def _discard(self, ld: int) -> None:
        """Files of a logical device that is no more."""
        if ld in self._kept:
            self._kept[ld].unlink(missing_ok=True)
        if self._folder is not None:
            for path in self._files(ld):
                path.unlink(missing_ok=True)
