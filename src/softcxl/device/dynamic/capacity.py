"""The owner's side of dynamic capacity: who gives it out, takes it back, and is told what hosts do.

>>> from softcxl.device.type3 import Type3
>>> from softcxl.device.dynamic.region import DynamicRegion
>>> device = Type3("mem0", dynamic=[DynamicRegion(length=256 << 20)])
>>> offer = device.dynamic.add(length=64 << 20)
>>> offer.state.value, [str(one) for one in offer.extents]
('offered', ['DPA 0x0 to 0x4000000'])
>>> device.dynamic.extents  # nothing until the host takes it, by Add Dynamic Capacity Response
()
>>> device.close()

A fabric manager's commands 5600h to 5608h (`softcxl.device.dynamic.owner`) call these methods; every error has the
return code that they end in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from softcxl.device.clock import Clock
from softcxl.device.dynamic.errors import (
    AddressOutside,
    CapacityExhausted,
    ExtentInvalid,
    NoSuchHost,
    NoSuchRegion,
    RegionInUse,
    TagInvalid,
)
from softcxl.device.dynamic.extents import NO_TAG, Extent, Range, cut, left, merged, overlapping, subtracted
from softcxl.device.dynamic.host import GENERATIONS, HostCapacity
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.removal import named, tagged
from softcxl.device.dynamic.request import Addition, Removal, RemovalState
from softcxl.device.dynamic.selection import Selection, checked, choose, prescribed
from softcxl.device.dynamic.store import HostRecord, Kept
from softcxl.device.dynamic.tags import TagUse, uses
from softcxl.device.events import EventLogs
from softcxl.device.persist import StatePage
from softcxl.spec.cxl.events import (
    DYNAMIC_CAPACITY_EVENT,
    DynamicCapacityEvent,
    DynamicCapacityEventType,
    EventHeader,
)

NOWHERE: Final = 1 << 64
EXTENTS, TAGS = 512, 64
"""Extents and tags that a device keeps account of."""

Listener = Callable[[DynamicCapacityEvent], None]
Witness = Callable[[str, int, Sequence[Extent]], None]

_TOLD: Final = {
    (DynamicCapacityEventType.ADD_CAPACITY_RESPONSE, True): "accepted",
    (DynamicCapacityEventType.ADD_CAPACITY_RESPONSE, False): "declined",
    (DynamicCapacityEventType.CAPACITY_RELEASED, True): "released",
    (DynamicCapacityEventType.CAPACITY_RELEASED, False): "not-released",
}


class DynamicCapacity:
    """The dynamic capacity in `regions`, for whoever owns the device to give to its hosts.

    Methods are safe from any thread; `lock` is the device's. They raise `DynamicCapacityError`s, and after one
    nothing has changed. `listeners` are called, with the lock held, with the records that a fabric manager gets:
    a host's answer (one record for each extent taken, or one of length 0) and what it has released. `timeout` is
    how many seconds a host has to answer an offer, where the offer does not say. `page` is where extents in
    non-volatile regions are kept; it raises `StateDamaged` for what these regions cannot have. `erase` makes a range
    (DPA, bytes) zeros and takes the poison off it.
    """

    def __init__(
        self,
        regions: Sequence[DynamicRegion],
        *,
        erase: Callable[[int, int], None],
        clock: Clock,
        lock: AbstractContextManager[object],
        page: StatePage,
    ) -> None:
        self.regions = tuple(regions)
        self.start = regions[0].base if regions else NOWHERE
        """The first address that is dynamic capacity's."""
        self.hosts: dict[int, HostCapacity] = {}
        self.listeners: list[Listener] = []
        self.witness: Witness = lambda what, host, extents: None
        """Called, the lock held, with what happens to extents: offered, accepted, declined (or not answered in time),
        asked for, released, not-released, forced."""
        self.timeout = 60.0
        self.hosts_supported = 1
        """How many hosts there can be; their numbers are lower."""
        self.extents_supported, self.tags_supported = EXTENTS, TAGS
        self.clock, self.lock = clock, lock
        self.changed: list[Callable[[], None]] = []
        """Called when a region's configuration has changed."""
        self._erase, self._page = erase, page
        self._tags_seen: tuple[int, list[TagUse]] = (0, [])
        self._doomed: list[Range] = []  # to be erased when nobody has them any more
        kept = page.take("dynamic", self._read) or Kept()
        self._records, self._references, self._configured = kept.hosts, kept.references, kept.regions
        self._doomed += kept.doomed

    def connect(self, host: int, events: EventLogs, payload_max: int) -> HostCapacity:
        """Let a host in. Its commands are the result's. One that is in by this number leaves first."""
        self.disconnect(host)
        self.hosts_supported = max(self.hosts_supported, host + 1)
        one = HostCapacity(self, host, events, payload_max)
        if record := self._records.get(host):
            one.put(record.extents, record.generation)
        self.hosts[host] = one
        return one

    def disconnect(self, host: int) -> None:
        """A host is there no more: what it had and was offered is others' to have. Nothing if it is not there.

        Raises `OSError`, and then it is gone all the same, and what it had is nobody's until `drop`."""
        with self.lock:
            try:
                self.deprive(host, sanitize=False)
            finally:
                one = self.hosts.pop(host, None)
                if one is not None:
                    one.leave()

    def deprive(self, host: int, *, sanitize: bool = True) -> None:
        """Take from a host all that it has and was offered, without telling it. What nobody has then is erased where
        its region says so, or with `sanitize`."""
        with self.lock:
            if one := self.hosts.get(host):
                one.lose(sanitize)

    def drop(self, host: int) -> None:
        """A host that had extents in an earlier run will not come for them: they are others' to have. Raises
        `OSError`, and then they are its own yet."""
        with self.lock:
            record = self._records.get(host)
            if record is None or host in self.hosts or not record.extents:
                return
            others = {number: one for number, one in self._records.items() if number != host}
            held = [extent.range for one in others.values() for extent in one.extents]
            self._wipe(subtracted([one.range for one in record.extents], [*held, *self._referenced()]))
            records = others | {host: HostRecord((record.generation + 1) % GENERATIONS)}
            self._put(records, self._references, self._configured)
            self._records = records

    # -- what there is -------------------------------------------------------------------------------------------

    @property
    def extents(self) -> tuple[Extent, ...]:
        """What host 0, the only one of a device of one logical device, has accepted."""
        return self.hosts[0].accepted if 0 in self.hosts else ()

    @property
    def pending(self) -> tuple[Extent, ...]:
        """What host 0 was offered and can still take."""
        return tuple(self.hosts[0].pending) if 0 in self.hosts else ()

    def free(self, region: int = 0) -> list[Range]:
        """The addresses of a region that nobody has, in order: (start, end)."""
        with self.lock:
            return subtracted([self._region(region).range], self._taken())

    @property
    def tags(self) -> list[TagUse]:
        """Every tag in use, by its value."""
        with self.lock:
            absent = {host: one.extents for host, one in self._records.items() if host not in self.hosts}
            accepted = {host: one.accepted for host, one in self.hosts.items()}
            pending = {host: one.pending for host, one in self.hosts.items()}
            return uses(absent | accepted, pending, self._references)

    @property
    def tags_generation(self) -> int:
        """Another number whenever `tags` has changed since it was last asked for."""
        with self.lock:
            generation, seen = self._tags_seen
            if seen != (now := self.tags):
                self._tags_seen = ((generation + 1) % GENERATIONS, now)
            return self._tags_seen[0]

    @property
    def extents_available(self) -> int:
        """How many more extents the device can keep account of."""
        return self.extents_supported - sum(
            len(one.accepted) + len(one.pending) for one in self.hosts.values()
        )

    @property
    def tags_available(self) -> int:
        """How many more tags the device can keep account of."""
        return self.tags_supported - len(self.tags)

    def region_at(self, dpa: int) -> DynamicRegion | None:
        """The region that has `dpa`, if one has."""
        return next((one for one in self.regions if one.base <= dpa < one.base + one.length), None)

    def region_of(self, dpa: int) -> DynamicRegion:
        """The region that has `dpa`, which is some extent's."""
        region = self.region_at(dpa)
        if region is None:
            raise AddressOutside(f"DPA {dpa:#x} is in no dynamic capacity region")
        return region

    def refusal(self, dpa: int, size: int, *, write: bool = False, host: int = 0) -> str | None:
        """Why a host cannot access `size` bytes at `dpa`, None if it can. Only for addresses from `start` on."""
        if host not in self.hosts or not self.hosts[host].covers(dpa, size):
            return f"DPA {dpa:#x} is dynamic capacity that the host has not accepted"
        if write and self.region_of(dpa).read_only:
            return f"DPA {dpa:#x} is in a read-only region"
        return None

    # -- giving and taking ---------------------------------------------------------------------------------------

    def add(
        self,
        *,
        region: int = 0,
        length: int = 0,
        selection: Selection = Selection.FREE,
        extents: Iterable[Extent | tuple[int, int]] = (),
        tag: UUID | None = None,
        host: int = 0,
        timeout: float | None = None,
    ) -> Addition:
        """Offer capacity to a host (Initiate Dynamic Capacity Add, CXL 3.1 §7.6.7.6.5).

        `length` (bytes) is for `Selection.FREE` and `CONTIGUOUS`, `extents` are for `PRESCRIPTIVE`, as
        (start, length) or `Extent`. A sharable region wants a `tag` that is not in use, and `SHARED` one that is.
        The host has `timeout` seconds from when it can know of the offer, and no other before it.
        """
        with self.lock:
            to, place = self._host(host), self._region(region)
            tag = NO_TAG if tag is None else tag
            if selection is Selection.SHARED:
                chosen = self._shared(to, place, tag)
            else:
                self._check_tag(place, tag)
                if selection is Selection.PRESCRIPTIVE:
                    chosen = prescribed(place, extents, self._taken())
                else:
                    contiguous = selection is Selection.CONTIGUOUS
                    ranges = choose(place, self.free(region), length, contiguous=contiguous)
                    chosen = [Extent(start, end - start) for start, end in ranges]
                if not any(one.sequence for one in chosen) and place.sharable:
                    chosen = [replace(one, sequence=number) for number, one in enumerate(chosen)]
                chosen = [replace(one, tag=tag) for one in chosen]
            self._room_for(len(chosen))
            addition = Addition(host, tuple(chosen), self.timeout if timeout is None else timeout)
            to.offer(addition)
            self.witness("offered", host, addition.extents)
            return addition

    def release(
        self,
        *,
        extents: Iterable[Extent | tuple[int, int]] | None = None,
        tag: UUID | None = None,
        length: int | None = None,
        host: int = 0,
        forced: bool = False,
        sanitize: bool = False,
        timeout: float | None = None,
    ) -> Removal:
        """Ask a host to give capacity back, or take it (Initiate Dynamic Capacity Release, CXL 3.1 §7.6.7.6.6).

        What: `extents`, which may be parts of the host's or go over several; or those with `tag` (None: without
        one), the last `length` bytes of them or all. With `forced` they are gone when this returns, whatever the
        host does, offers that it has not answered with them. With `sanitize` what they hold is erased, whatever
        the region says. A host that is asked may take its time; after `timeout` seconds the request's state is
        `EXPIRED`, and it may still.
        """
        with self.lock:
            of = self._host(host)
            if extents is not None:
                given = [one if isinstance(one, Extent) else Extent(*one) for one in extents]
                ranges = named(host, given, self._had(of, forced), self.region_of)
            else:
                ranges = tagged(
                    host, NO_TAG if tag is None else tag, length, self._had(of, forced), self.region_of
                )
            removal = Removal(host, tuple(cut(of.accepted, ranges)), sanitize)
            if any(self.region_of(one.start).sharable and one not in of.accepted for one in removal.extents):
                raise ExtentInvalid("shared extents are released whole")
            if forced:
                self._room_for(len(list(left(of.accepted, ranges))) - len(of.accepted))
                removal.state = RemovalState.RELEASED
                self.witness("forced", host, removal.extents)
                of.force(ranges, sanitize)
            else:
                of.ask(removal, timeout)
                self.witness("asked-for", host, removal.extents)
            return removal

    def refer(self, tag: UUID) -> None:
        """Keep the extents of a tag, and what they hold, when no host has them any more (CXL 3.1 §7.6.7.6.7)."""
        with self.lock:
            extents = next((one.extents for one in self.tags if one.tag == tag), None)
            if extents is None:
                raise TagInvalid(f"tag {tag} is not in use")
            if not self.region_of(extents[0].start).sharable:
                raise TagInvalid(f"tag {tag} is not of a sharable region")
            self._keep(self._references | {tag: extents})

    def forget(self, tag: UUID) -> None:
        """Take a reference away. What nobody has then is free (CXL 3.1 §7.6.7.6.8)."""
        with self.lock:
            if tag not in self._references:
                raise TagInvalid(f"tag {tag} has no reference")
            extents = self._references[tag]
            others = {other: kept for other, kept in self._references.items() if other != tag}
            held = [*self._holding(), *(one.range for kept in others.values() for one in kept)]
            self._wipe(subtracted([one.range for one in extents], held))
            self._keep(others)

    def configure(
        self, region: int, *, block_size: int | None = None, sanitize_on_release: bool | None = None
    ) -> None:
        """Change a region in which there are no extents (Set DC Region Configuration, CXL 3.1 §7.6.7.6.3). Hosts are
        told by an event."""
        with self.lock:
            old = self._region(region)
            changes: dict[str, Any] = {"block_size": block_size, "sanitize_on_release": sanitize_on_release}
            new = replace(old, **{name: value for name, value in changes.items() if value is not None})
            if self.free(region) != [old.range]:
                raise RegionInUse(f"region {region} has extents in it")
            if new == old:
                return
            configured = self._configured | {region: (new.block_size, new.sanitize_on_release)}
            self._put(self._records, self._references, configured)
            self._configured = configured
            self.regions = (*self.regions[:region], new, *self.regions[region + 1 :])
            for told in self.changed:
                told()
            for host in self.hosts.values():
                host.configured(region)

    # -- for hosts' commands; the lock is held ---------------------------------------------------------------------

    def erase(self, host: int, ranges: Sequence[Range], wanted: Sequence[Range]) -> None:
        """`ranges` are no longer this host's. What nobody has then is erased where its region says so, or `wanted`
        does or has."""
        self._doomed += wanted
        self._wipe(subtracted(ranges, [*self._holding(host), *self._referenced()]))

    def save(self, host: int, extents: Sequence[Extent], generation: int) -> None:
        """Put a host's new list where it outlives the process."""
        lasting = tuple(one for one in extents if self.region_of(one.start).non_volatile)
        if len(lasting) < len(extents):
            generation += 1  # the list that the next run begins with is another one
        records = self._records | {host: HostRecord(generation % GENERATIONS, lasting)}
        self._put(records, self._references, self._configured)
        self._records = records

    def tell(self, kind: DynamicCapacityEventType, host: int, extents: Sequence[Extent]) -> None:
        """Tell whoever listens: one record for each extent, or one of length 0."""
        self.witness(_TOLD[kind, bool(extents)], host, extents)
        for number, extent in enumerate(extents or (Extent(0, 0),)):
            event = DynamicCapacityEvent(
                header=EventHeader(identifier=DYNAMIC_CAPACITY_EVENT), event_type=kind, host_id=host
            )
            event.flags.more = number + 1 < len(extents)
            event.extent = extent.record()
            for listener in self.listeners:
                listener(event)

    # -- what happens to the device; the lock is held ----------------------------------------------------------------

    def reset(self, host: int | None = None) -> None:
        """Any reset, of the device or of the logical device `host` alone."""
        for one in self._those(host):
            one.reset()

    def power_on(self, host: int | None = None) -> None:
        """A cold reset, of the device or of the logical device `host` alone: it has no extents in volatile regions
        then, and is not waited for."""
        for one in self._those(host):
            one.power_on()
        if host is None:
            self._keep(self._lasting(self._references))

    def close(self) -> None:
        """Let go of the clock."""
        for host in self.hosts.values():
            host.close()

    def _those(self, host: int | None) -> list[HostCapacity]:
        return [one for number, one in self.hosts.items() if host in (None, number)]

    # -- who has what ------------------------------------------------------------------------------------------------

    def _host(self, host: int) -> HostCapacity:
        if not self.regions:
            raise NoSuchRegion("the device has no dynamic capacity")
        if host not in self.hosts:
            raise NoSuchHost(f"host {host}: there are {', '.join(map(str, self.hosts))}")
        return self.hosts[host]

    def _region(self, region: int) -> DynamicRegion:
        if not 0 <= region < len(self.regions):
            raise NoSuchRegion(f"region {region}: the device has {len(self.regions)}")
        return self.regions[region]

    def _holding(self, but: int | None = None) -> list[Range]:
        """What hosts have and were offered, but for one host's accepted extents. A host of an earlier run that has not
        come yet has what it had."""
        held = [
            one.range
            for number, host in self.hosts.items()
            for one in (*(host.accepted if number != but else ()), *host.pending)
        ]
        for number, record in self._records.items():
            if number not in self.hosts:
                held += [one.range for one in record.extents]
        return held

    def _referenced(self) -> list[Range]:
        return [one.range for extents in self._references.values() for one in extents]

    def _taken(self) -> list[Range]:
        return merged([*self._holding(), *self._referenced()])

    def _room_for(self, more: int) -> None:
        if more > self.extents_available:
            raise CapacityExhausted(f"{more} extents: {self.extents_available} are left")

    def _check_tag(self, region: DynamicRegion, tag: UUID) -> None:
        used = {one.tag for one in self.tags}
        if region.sharable and tag == NO_TAG:
            raise TagInvalid("a sharable region wants a tag")
        if region.sharable and tag in used:
            raise TagInvalid(f"tag {tag} is in use; Selection.SHARED offers its extents to another host")
        if tag != NO_TAG and tag not in used and not self.tags_available:
            raise CapacityExhausted(f"all {self.tags_supported} tags are in use")

    def _shared(self, host: HostCapacity, region: DynamicRegion, tag: UUID) -> list[Extent]:
        use = next((one for one in self.tags if one.tag == tag), None)
        if use is None or not all(region.holds(one.start, one.length) for one in use.extents):
            raise TagInvalid(f"tag {tag} is not in use in this region")
        if not region.sharable:
            raise TagInvalid(f"tag {tag} is not of a sharable region")
        if host.host in (*use.hosts, *use.pending):
            raise TagInvalid(f"host {host.host} has or was offered tag {tag} already")
        return sorted(use.extents, key=lambda one: one.sequence)

    def _had(self, host: HostCapacity, forced: bool) -> list[Extent]:
        """What can be taken from a host: by force what it was offered, too."""
        return [*host.accepted, *(host.pending if forced else ())]

    # -- bytes -----------------------------------------------------------------------------------------------------

    def _wipe(self, free: Sequence[Range]) -> None:
        """Erase what of `free` is in a region that says so, or was to be."""
        regions = [one.range for one in self.regions if one.sanitize_on_release]
        for start, end in subtracted(free, subtracted(free, [*regions, *self._doomed])):
            self._erase(start, end - start)
        self._doomed = subtracted(self._doomed, free)

    def _lasting(self, references: dict[UUID, tuple[Extent, ...]]) -> dict[UUID, tuple[Extent, ...]]:
        return {
            tag: extents
            for tag, extents in references.items()
            if self.region_of(extents[0].start).non_volatile
        }

    def _keep(self, references: dict[UUID, tuple[Extent, ...]]) -> None:
        if references == self._references:
            return
        self._put(self._records, references, self._configured)
        self._references = references

    def _put(
        self,
        records: dict[int, HostRecord],
        references: dict[UUID, tuple[Extent, ...]],
        configured: dict[int, tuple[int, bool]],
    ) -> None:
        lasting = [one.range for one in self.regions if one.non_volatile]
        doomed = subtracted(self._doomed, subtracted(self._doomed, lasting))
        kept = Kept(records, self._lasting(references), tuple(doomed), configured)
        self._page.put("dynamic", **kept.plain())

    def _read(self, section: dict[str, Any]) -> Kept:
        """What an earlier run has kept, if a device with these regions can have it."""
        kept = Kept.read(section)
        regions = list(self.regions)
        for number, (size, sanitize) in kept.regions.items():
            regions[number] = replace(regions[number], block_size=size, sanitize_on_release=sanitize)
        self.regions = tuple(regions)
        lists = [one.extents for one in kept.hosts.values()]
        for extents in (*lists, *kept.references.values()):
            for one in extents:
                region = self.region_of(one.start)
                if not region.non_volatile:
                    raise AddressOutside(f"{one} is not in a non-volatile region")
                checked(region, one)
            if overlapping(one.range for one in extents):
                raise ExtentInvalid("extents overlap")
        return kept
