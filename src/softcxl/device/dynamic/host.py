"""One host's dynamic capacity: what it was offered, what it has accepted, and its commands (CXL 3.1 §8.2.9.9.9).

Offers are answered one after the other, in the order in which they were made. Their records enter the event log
as it has room, so that none is lost to an overflow.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.device.dynamic.extents import Extent, Range, cut, left, merged, overlapping, subtracted
from softcxl.device.dynamic.request import Addition, AdditionState, Removal, RemovalState
from softcxl.device.events import EventLogs
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.dynamic_capacity import (
    ADD_DYNAMIC_CAPACITY_RESPONSE,
    GET_DYNAMIC_CAPACITY_CONFIGURATION,
    GET_DYNAMIC_CAPACITY_EXTENT_LIST,
    RELEASE_DYNAMIC_CAPACITY,
    GetDcConfigurationRequest,
    GetDcConfigurationResponse,
    GetDcExtentListRequest,
    GetDcExtentListResponse,
    UpdatedExtent,
    UpdateExtentListRequest,
)
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import (
    DYNAMIC_CAPACITY_EVENT,
    DynamicCapacityEvent,
    DynamicCapacityEventType,
    DynamicCapacityExtent,
    DynamicCapacityFlags,
    EventHeader,
)

if TYPE_CHECKING:
    from softcxl.device.dynamic.capacity import DynamicCapacity

GENERATIONS = 1 << 32


class HostCapacity(CommandSet):
    """The dynamic capacity of the host with ID `host` of `owner`, and its four commands.

    `events` are the logs that the host reads, and `payload_max` (bytes) bounds how many extents a reply carries.
    """

    def __init__(self, owner: DynamicCapacity, host: int, events: EventLogs, payload_max: int) -> None:
        self.owner, self.host, self.events = owner, host, events
        self.accepted: tuple[Extent, ...] = ()
        """What the host has accepted and not released, by address."""
        self.generation = 0
        """Changes whenever `accepted` does."""
        self.offers: deque[Addition] = deque()
        """Offers that the host owes an answer to, the one to be answered first in front."""
        self.removals: list[Removal] = []
        """What the host was asked to give back and still has."""
        self._room = (payload_max - GetDcExtentListResponse.__layout__.size) // (
            DynamicCapacityExtent.__layout__.size
        )
        self._records: deque[tuple[DynamicCapacityEvent, Addition | None]] = deque()
        self._parts: dict[int, list[UpdatedExtent]] = {}  # lists of which more is to come, by opcode
        self._starts: list[int] = []
        self._ends: list[int] = []
        events.emptied[EventLog.DYNAMIC_CAPACITY] = self._log

    # -- what it has ---------------------------------------------------------------------------------------------

    def covers(self, dpa: int, size: int) -> bool:
        """Whether the host has accepted all `size` bytes from `dpa`."""
        at = bisect_right(self._starts, dpa) - 1
        return at >= 0 and dpa + size <= self._ends[at]

    @property
    def pending(self) -> list[Extent]:
        """What the host was offered and can still take."""
        return [extent for offer in self.offers if offer.pending for extent in offer.extents]

    def set(self, accepted: Iterable[Extent]) -> None:
        """Make this the host's extents. Counts as another generation if they are others."""
        found = tuple(sorted(accepted))
        if found == self.accepted:
            return
        generation = (self.generation + 1) % GENERATIONS
        self.owner.save(self.host, found, generation)
        self.put(found, generation)

    def put(self, accepted: Sequence[Extent], generation: int) -> None:
        """What the host had in an earlier run of the device."""
        self.accepted, self.generation = tuple(accepted), generation
        ranges = merged(one.range for one in accepted)
        self._starts, self._ends = [start for start, _ in ranges], [end for _, end in ranges]

    # -- what the owner does; the lock is held -------------------------------------------------------------------

    def offer(self, addition: Addition) -> None:
        """Let the host choose what of `addition` it takes."""
        self.offers.append(addition)
        addition.unrecorded = len(addition.extents)
        self._tell(DynamicCapacityEventType.ADD_CAPACITY, addition.extents, addition)

    def ask(self, removal: Removal, timeout: float | None) -> None:
        """Ask the host to release what it has of `removal`. After `timeout` seconds the owner is told if it has not."""
        self.removals.append(removal)
        if timeout is not None:
            removal.timer = self.owner.clock.call_later(timeout, lambda: self._overdue(removal))
        self._tell(DynamicCapacityEventType.RELEASE_CAPACITY, removal.extents)

    def force(self, ranges: Sequence[Range], sanitize: bool) -> None:
        """Take `ranges` away, and whole offers that have part in them. The host is told what it has lost."""
        lost = cut(self.accepted, ranges)
        for one in [one for one in self.offers if one.pending and overlapping([*one.ranges, *ranges])]:
            self._withdraw(one, AdditionState.WITHDRAWN)
        self._take(ranges, sanitize)
        self._tell(DynamicCapacityEventType.FORCED_RELEASE_CAPACITY, lost)

    def configured(self, region: int) -> None:
        """Tell the host that a region has another configuration."""
        event = _event(DynamicCapacityEventType.REGION_CONFIGURATION_UPDATED, self.host)
        event.updated_region = region
        self._records.append((event, None))
        self._log()

    def reset(self) -> None:
        """Any reset: a list that came in part is forgotten. What was accepted and offered stays."""
        self._parts.clear()

    def power_on(self) -> None:
        """A cold reset: offers and requests are forgotten, and with them what was in memory that forgets."""
        self._records.clear()
        for offer in list(self.offers):
            if offer.pending:
                self._withdraw(offer, AdditionState.WITHDRAWN)
        self.offers.clear()
        lost = [one for one in self.accepted if not self.owner.region_of(one.start).non_volatile]
        self._take([one.range for one in lost], sanitize=False)
        for removal in self.removals:
            self._settle(removal, RemovalState.EXPIRED)
        self.removals.clear()

    def lose(self, sanitize: bool) -> None:
        """All that the host has and was offered is taken from it, and it is not told."""
        self._take([one.range for one in self.accepted], sanitize)
        self.power_on()

    def leave(self) -> None:
        """The host is there no more."""
        self.events.emptied.pop(EventLog.DYNAMIC_CAPACITY, None)

    def close(self) -> None:
        """Let go of the clock."""
        for timer in [*(one.timer for one in self.offers), *(one.timer for one in self.removals)]:
            if timer is not None:
                timer.cancel()

    # -- the event log -------------------------------------------------------------------------------------------

    def _tell(
        self, kind: DynamicCapacityEventType, extents: Sequence[Extent], addition: Addition | None = None
    ) -> None:
        last = len(extents) - 1
        for number, extent in enumerate(extents):
            event = _event(kind, self.host)
            event.flags.more = number < last
            event.extent = extent.record()
            self._records.append((event, addition))
        self._log()

    def _log(self) -> None:
        """Move records into the log as far as it has room."""
        while self._records and self.events.room(EventLog.DYNAMIC_CAPACITY):
            event, addition = self._records.popleft()
            event.extents_available = self.owner.extents_available
            event.tags_available = self.owner.tags_available
            event.validity.extents_available = event.validity.tags_available = True
            self.events.record(EventLog.DYNAMIC_CAPACITY, event)
            if addition is not None:
                addition.unrecorded -= 1
        self._next()

    def _next(self) -> None:
        """The time of the offer that is to be answered next begins: even if its records wait for room in the log, as
        it is the host that makes room."""
        head = next((one for one in self.offers if one.pending), None)
        if head is None:
            return
        if head.timer is None:
            head.timer = self.owner.clock.call_later(head.timeout, lambda: self._expire(head))
        if not head.unrecorded:
            head.state = AdditionState.OFFERED

    # -- the end of offers and requests --------------------------------------------------------------------------

    def _expire(self, offer: Addition) -> None:
        with self.owner.lock:
            if offer.pending:
                self._withdraw(offer, AdditionState.EXPIRED)
                self.owner.tell(DynamicCapacityEventType.ADD_CAPACITY_RESPONSE, self.host, ())
                self._next()

    def _overdue(self, removal: Removal) -> None:
        with self.owner.lock:
            if removal.state is RemovalState.ASKED:
                self._settle(removal, RemovalState.EXPIRED)
                self.owner.tell(DynamicCapacityEventType.CAPACITY_RELEASED, self.host, ())

    def _withdraw(self, offer: Addition, state: AdditionState) -> None:
        """An offer ends without an answer. One that the host may know of stays in line: its answer is still to come,
        and must not be taken for that of the next."""
        self._close(offer, state)
        if offer.unrecorded == len(offer.extents):
            self.offers.remove(offer)
            self._records = deque(one for one in self._records if one[1] is not offer)

    def _close(self, offer: Addition, state: AdditionState) -> None:
        offer.state = state
        if offer.timer is not None:
            offer.timer.cancel()
        # what others shared with it, and have given up meanwhile, it was the last that could have
        self.owner.erase(self.host, subtracted(offer.ranges, [one.range for one in self.accepted]), ())

    def _settle(self, removal: Removal, state: RemovalState) -> None:
        removal.state = state
        if removal.timer is not None:
            removal.timer.cancel()

    def _take(self, ranges: Sequence[Range], sanitize: bool) -> None:
        """`ranges` are the host's no longer."""
        gone = cut(self.accepted, ranges)
        if not gone:
            return
        away = merged(one.range for one in gone)
        asked = [part.range for one in self.removals if one.sanitize for part in cut(gone, one.ranges)]
        self.owner.erase(self.host, away, away if sanitize else asked)
        self.set(left(self.accepted, away))
        for removal in list(self.removals):
            if not cut(self.accepted, removal.ranges):
                self._settle(removal, RemovalState.RELEASED)
                self.removals.remove(removal)
        self.owner.tell(DynamicCapacityEventType.CAPACITY_RELEASED, self.host, gone)

    # -- commands ------------------------------------------------------------------------------------------------

    @command(GET_DYNAMIC_CAPACITY_CONFIGURATION)
    def get_configuration(self, request: GetDcConfigurationRequest) -> GetDcConfigurationResponse:
        owner, start = self.owner, request.start_index
        if start >= len(owner.regions):
            raise CommandError(ReturnCode.INVALID_INPUT)
        regions = [one.record() for one in owner.regions[start : start + request.count]]
        return GetDcConfigurationResponse(
            available=len(owner.regions),
            count=len(regions),
            regions=regions,
            extents_supported=owner.extents_supported,
            extents_available=owner.extents_available,
            tags_supported=owner.tags_supported,
            tags_available=owner.tags_available,
        )

    @command(GET_DYNAMIC_CAPACITY_EXTENT_LIST)
    def get_extent_list(self, request: GetDcExtentListRequest) -> GetDcExtentListResponse:
        start, total = request.start_index, len(self.accepted)
        if start > total:
            raise CommandError(ReturnCode.INVALID_INPUT)
        extents = [one.record() for one in self.accepted[start : start + min(request.count, self._room)]]
        return GetDcExtentListResponse(
            count=len(extents), total=total, generation=self.generation, extents=extents
        )

    @command(ADD_DYNAMIC_CAPACITY_RESPONSE)
    def add_response(self, request: UpdateExtentListRequest) -> None:
        ranges = self._whole(ADD_DYNAMIC_CAPACITY_RESPONSE.opcode, request)
        if ranges is None:
            return
        self._well_formed(ranges)
        if not self.offers:
            raise CommandError(ReturnCode.INVALID_PHYSICAL_ADDRESS if ranges else ReturnCode.INVALID_INPUT)
        offer = self.offers[0]
        if ranges:
            offer = next((one for one in self.offers if one.pending), offer)
            if not offer.pending or subtracted(ranges, offer.ranges):
                self._stale(ranges)
                raise CommandError(ReturnCode.INVALID_PHYSICAL_ADDRESS)
        if not offer.pending:
            self.offers.popleft()  # an answer that comes too late
            return
        taken = self._taken(offer, ranges)
        self._room_for(len(taken) - len(offer.extents))
        while self.offers[0] is not offer:
            self.offers.popleft()
        self.set([*self.accepted, *taken])
        self.offers.popleft()
        offer.accepted = tuple(taken)
        self._close(offer, AdditionState.ANSWERED)
        self.owner.tell(DynamicCapacityEventType.ADD_CAPACITY_RESPONSE, self.host, taken)
        self._next()

    @command(RELEASE_DYNAMIC_CAPACITY)
    def release(self, request: UpdateExtentListRequest) -> None:
        ranges = self._whole(RELEASE_DYNAMIC_CAPACITY.opcode, request)
        if ranges is None:
            return
        if not ranges:
            raise CommandError(ReturnCode.INVALID_INPUT)
        self._well_formed(ranges)
        if subtracted(ranges, [one.range for one in self.accepted]):
            raise CommandError(ReturnCode.INVALID_PHYSICAL_ADDRESS)
        parts = cut(self.accepted, ranges)
        if any(self.owner.region_of(one.start).sharable and one not in self.accepted for one in parts):
            raise CommandError(ReturnCode.INVALID_EXTENT_LIST)
        self._room_for(len(list(left(self.accepted, ranges))) - len(self.accepted))
        self._take(ranges, sanitize=False)

    def _whole(self, opcode: int, request: UpdateExtentListRequest) -> list[Range] | None:
        """The list that this is the last part of; None where more is to come."""
        listed = [*self._parts.pop(opcode, ()), *request.extents]
        if len(listed) > self.owner.extents_supported:
            raise CommandError(ReturnCode.RESOURCES_EXHAUSTED)
        if request.flags.more:
            self._parts[opcode] = listed
            return None
        return [(one.start_dpa, one.start_dpa + one.length) for one in listed]

    def _room_for(self, more: int) -> None:
        if more > self.owner.extents_available:
            raise CommandError(ReturnCode.RESOURCES_EXHAUSTED)

    def _well_formed(self, ranges: Sequence[Range]) -> None:
        for start, end in ranges:
            region = self.owner.region_at(start)
            if region is None or not region.holds(start, end - start):
                raise CommandError(ReturnCode.INVALID_PHYSICAL_ADDRESS)
            if not region.aligned(start, end - start):
                raise CommandError(ReturnCode.INVALID_EXTENT_LIST)
        if overlapping(ranges):
            raise CommandError(ReturnCode.INVALID_EXTENT_LIST)

    def _stale(self, ranges: Sequence[Range]) -> None:
        """The first offer in line, if it has ended and this is its answer, has been answered."""
        if not self.offers[0].pending and not subtracted(ranges, self.offers[0].ranges):
            self.offers.popleft()

    def _taken(self, offer: Addition, ranges: Sequence[Range]) -> list[Extent]:
        """What the host takes of an offer. Shared extents it takes whole, and all of them or none."""
        if not ranges:
            return []
        if self.owner.region_of(offer.extents[0].start).sharable:
            if sorted(ranges) != sorted(offer.ranges):
                raise CommandError(ReturnCode.INVALID_EXTENT_LIST)
            return list(offer.extents)
        tag = offer.extents[0].tag
        return [Extent(start, end - start, tag) for start, end in ranges]


def _event(kind: DynamicCapacityEventType, host: int) -> DynamicCapacityEvent:
    return DynamicCapacityEvent(
        header=EventHeader(identifier=DYNAMIC_CAPACITY_EVENT),
        event_type=kind,
        host_id=host,
        flags=DynamicCapacityFlags(),
    )
