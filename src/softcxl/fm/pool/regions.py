"""Regions: who has which memory.

What the directory holds is the truth; the tables here are made from it when a server starts, and are what makes it
fast.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from softcxl.fm.pool.directory import REGION_HEAD, Directory
from softcxl.fm.pool.errors import Refusal
from softcxl.pool import layout
from softcxl.pool.layout import REGION, Mode, RegionFlag, RegionState
from softcxl.pool.protocol import Allocate, Hold, Located, Named, Status

if TYPE_CHECKING:
    from softcxl.fm.pool.sources import Sources

_REMEMBERED = 64


@dataclass
class Known:
    """What a server knows of a region beside its record."""

    generation: int
    size: int
    capacity: int
    owner: int
    identity: int
    flags: int
    mode: int
    lease: int
    extents: list[int]
    name: str
    opened: int = 0
    pins: int = 0
    unused_since: float = 0.0
    leaving: bool = False


@dataclass
class _Holdings:
    """What a slot has."""

    own: set[int] = field(default_factory=set)
    opened: dict[int, int] = field(default_factory=dict)
    pins: dict[int, int] = field(default_factory=dict)
    requests: dict[int, int] = field(default_factory=dict)


class Regions:
    """All regions of a pool. Its caller holds the server's lock.

    `client_of` says whose identity is in a slot; `charge(identity, bytes)` raises `Refusal` where that is too much,
    and gives back with a negative number.
    """

    def __init__(
        self,
        directory: Directory,
        sources: Sources,
        client_of: Callable[[int], int],
        charge: Callable[[int, int], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._sources = sources
        self._client_of = client_of
        self._charge = charge
        self._now = now
        self.known: dict[int, Known] = {}
        self.names: dict[str, int] = {}
        self._holdings: defaultdict[int, _Holdings] = defaultdict(_Holdings)
        self._free: list[int] = []
        self._next = 0
        self._leased: set[int] = set()
        self._leaving: set[int] = set()
        self._recover()

    # -- what clients ask ------------------------------------------------------------------------------------

    def allocate(self, slot: int, asked: Allocate) -> Located:
        """Make a region. Asked twice by the same number, it is the same one."""
        holdings = self._holdings[slot]
        if asked.request and (made := holdings.requests.get(asked.request)) is not None:
            return self._located(made)
        size, copies = asked.size, asked.copies
        if not 0 < size <= 1 << 55:
            raise Refusal(Status.MALFORMED, f"a size of {size} bytes: a region has 1 or more")
        if not 0 < copies <= layout.MAX_COPIES:
            raise Refusal(Status.MALFORMED, f"{copies} copies: a region has 1 to {layout.MAX_COPIES}")
        if asked.mode > Mode.WRITE:
            raise Refusal(Status.MALFORMED, f"mode {asked.mode}: there are 0 (private), 1 (read), 2 (write)")
        raw = asked.name.rstrip(b"\0")
        name = ""
        flags = asked.flags & (RegionFlag.ATOMIC | RegionFlag.CHANNEL)
        if raw:
            name = _name(raw)
            flags |= RegionFlag.KEPT
            if name in self.names:
                raise Refusal(Status.EXISTS, f"there is a region {name!r} already")
        capacity = layout.room(size)
        client = self._client_of(slot)
        self._charge(client, capacity * copies)
        try:
            index = self._index()
            try:
                extents = self._sources.take(capacity, asked)
            except Refusal:
                self._free.append(index)
                raise
        except Refusal:
            self._charge(client, -capacity * copies)
            raise
        head = REGION_HEAD.pack(
            size, slot, flags, copies, asked.mode, asked.request, client, asked.lease, capacity
        )
        generation = self._directory.make_region(index, head, extents, raw)
        one = Known(
            generation, size, capacity, slot, client, flags, asked.mode, asked.lease, extents, name, opened=1
        )
        self.known[index] = one
        self._sources.note(index, extents)
        if name:
            self.names[name] = index
        if asked.lease:
            self._leased.add(index)
        holdings.own.add(index)
        holdings.opened[index] = 1
        if asked.request:
            holdings.requests[asked.request] = index
            if len(holdings.requests) > _REMEMBERED:
                del holdings.requests[next(iter(holdings.requests))]
        return Located(index=index, generation=generation, size=size)

    def open(self, slot: int, asked: Named) -> Located:
        """Find a region, and note that this client uses it."""
        index = self.find(asked)
        one = self.known[index]
        self._allowed(slot, one)
        one.opened += 1
        opened = self._holdings[slot].opened
        opened[index] = opened.get(index, 0) + 1
        return self._located(index)

    def close(self, slot: int, asked: Named) -> None:
        """A client is through with a region that it had opened. One without a name goes when its owner is."""
        index = self.find(asked)
        opened = self._holdings[slot].opened
        if index not in opened:
            raise Refusal(Status.MALFORMED, f"region {index} is not open here")
        self._less(opened, index)
        one = self.known[index]
        one.opened -= 1
        if not one.opened:
            one.unused_since = self._now()
            if one.owner == slot and not one.flags & RegionFlag.KEPT:
                self._leave(index)

    def free(self, slot: int, asked: Named) -> None:
        """Give a region back. It vanishes at once; its memory when nobody is at it any more."""
        index = self.find(asked)
        one = self.known[index]
        if one.owner != slot and one.identity != self._client_of(slot):
            raise Refusal(
                Status.DENIED, f"{self._called(index)} is another client's: only its owner frees it"
            )
        self._leave(index)

    def pin(self, slot: int, asked: Named) -> None:
        """A client looks at a region's memory itself: it stays where it is until `unpin`."""
        index = self.find(asked)
        self._allowed(slot, self.known[index])
        self.known[index].pins += 1
        pins = self._holdings[slot].pins
        pins[index] = pins.get(index, 0) + 1

    def unpin(self, slot: int, asked: Named) -> None:
        """A client no longer looks there."""
        pins = self._holdings[slot].pins
        if asked.index not in pins:
            raise Refusal(Status.MALFORMED, f"region {asked.index} is not pinned here")
        self._less(pins, asked.index)
        self.known[asked.index].pins -= 1
        if asked.index in self._leaving:
            self._finish(asked.index)

    def hold(self, slot: int, asked: Hold) -> None:
        """A client that was there before this server says what it has: that is so from now on."""
        one = self.known.get(asked.index)
        if one is None or one.generation != asked.generation:
            raise Refusal(
                Status.GONE, f"region {asked.index}, generation {asked.generation}, is not there any more"
            )
        self._allowed(slot, one)
        holdings = self._holdings[slot]
        one.opened += asked.opened - holdings.opened.pop(asked.index, 0)
        one.pins += asked.pins - holdings.pins.pop(asked.index, 0)
        if asked.opened:
            holdings.opened[asked.index] = asked.opened
        if asked.pins:
            holdings.pins[asked.index] = asked.pins

    def list(self, start: int, most: int) -> tuple[list[int], int]:
        """Up to `most` indices of regions from `start` on, and where to go on (0: nowhere)."""
        found: list[int] = []
        for index in range(start, self._next):
            one = self.known.get(index)
            if one is None or one.leaving:
                continue
            if len(found) == most:
                return found, index
            found.append(index)
        return found, 0

    # -- what happens ----------------------------------------------------------------------------------------

    def gone(self, slot: int) -> None:
        """A client has left, or died: what it held is let go, and what was its own without a name is freed."""
        holdings = self._holdings.pop(slot, None)
        if holdings is None:
            return
        for index, count in holdings.pins.items():
            self.known[index].pins -= count
        for index, count in holdings.opened.items():
            if (one := self.known.get(index)) is not None:
                one.opened -= count
                one.unused_since = self._now()
        for index in holdings.own:
            one = self.known.get(index)
            if one is None:
                continue
            if one.flags & RegionFlag.KEPT:
                one.owner = layout.SERVER
                self._directory.disown_region(index)
            elif not one.leaving:
                self._leave(index)
        for index in [index for index in holdings.pins if index in self._leaving]:
            self._finish(index)

    def sweep(self) -> None:
        """What can be done now and could not be before: regions that were busy, leases that have run out."""
        for index in list(self._leaving):
            self._finish(index)
        now = self._now()
        for index in list(self._leased):
            one = self.known[index]
            if not one.opened and now - one.unused_since > one.lease / 1000:
                self._leave(index)

    def find(self, asked: Named) -> int:
        """The index of the region that is named. Raises `Refusal`."""
        if not asked.generation:
            name = _name(asked.name.rstrip(b"\0"))
            index = self.names.get(name)
            if index is None:
                raise Refusal(Status.UNKNOWN, f"there is no region {name!r}")
            return index
        one = self.known.get(asked.index)
        if one is None or one.generation != asked.generation or one.leaving:
            raise Refusal(
                Status.GONE, f"region {asked.index}, generation {asked.generation}, is not there any more"
            )
        return asked.index

    # -- within ----------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        indices, rows = self._directory.live_regions()
        self._next = self._directory.header.regions_used
        there = set(indices)
        self._free = [index for index in range(self._next - 1, -1, -1) if index not in there]
        for index, row in zip(indices, rows, strict=True):
            record = layout.RegionRecord.unpack(row.tobytes())
            name = layout.decode_name(record.name)
            extents = [getattr(record, f"extent{copy}") for copy in range(record.copies)]
            self._sources.take_at(record.capacity, extents)
            owner = record.owner if self._directory.slot_state(record.owner)[1] else layout.SERVER
            one = Known(
                record.word >> 24,
                record.size,
                record.capacity,
                owner,
                record.identity,
                record.flags,
                record.mode,
                record.lease,
                extents,
                name,
                unused_since=self._now(),
            )
            self.known[index] = one
            self._sources.note(index, extents)
            self._charge(one.identity, one.capacity * len(extents))
            if name:
                self.names[name] = index
            if one.lease:
                self._leased.add(index)
            if record.word & 0xFF == RegionState.LEAVING or (not owner and not one.flags & RegionFlag.KEPT):
                self._leave(index)
            elif owner:
                self._holdings[owner].own.add(index)
                self._holdings[owner].opened[index] = one.opened = 1
                if record.request:
                    self._holdings[owner].requests[record.request] = index

    def _index(self) -> int:
        if self._free:
            return self._free.pop()
        if self._next >= self._directory.plan.regions:
            raise Refusal(Status.NO_ROOM, f"there are {self._next} regions, and records for no more")
        self._next += 1
        return self._next - 1

    def _leave(self, index: int) -> None:
        one = self.known[index]
        one.leaving = True
        if one.name:
            self.names.pop(one.name, None)
        self._directory.set_region(index, RegionState.LEAVING)
        self._leased.discard(index)
        self._leaving.add(index)
        self._finish(index)

    def _finish(self, index: int) -> None:
        """Give the memory of a region that has left to others, once nobody writes or looks at it."""
        one = self.known[index]
        if one.pins:
            return
        at = self._directory.region_at(index) + REGION["lock"]
        word = self._directory.memory.load(at)
        mine = (self._directory.epoch & (1 << 40) - 1) << 8 | 1
        if word & 0xFF or not self._directory.memory.swap(at, word, mine):
            return  # somebody is at it, or has died there and is not mended yet: sweep comes again
        self._sources.give_back(one.capacity, one.extents)
        self._directory.set_region(index, RegionState.FREE)
        self._leaving.discard(index)
        del self.known[index]
        self._charge(one.identity, -one.capacity * len(one.extents))
        holdings = self._holdings.get(one.owner)
        if holdings is not None:
            holdings.own.discard(index)
            holdings.opened.pop(index, None)
        self._free.append(index)

    def _allowed(self, slot: int, one: Known) -> None:
        if one.mode == Mode.PRIVATE and one.owner != slot and one.identity != self._client_of(slot):
            raise Refusal(Status.DENIED, f"region {one.name!r} is private to its owner")

    def _located(self, index: int) -> Located:
        one = self.known[index]
        return Located(index=index, generation=one.generation, size=one.size)

    def _called(self, index: int) -> str:
        return f"region {self.known[index].name or index!r}"

    @staticmethod
    def _less(counts: dict[int, int], index: int) -> None:
        counts[index] -= 1
        if not counts[index]:
            del counts[index]


def _name(data: bytes) -> str:
    try:
        name = data.decode()
        layout.encode_name(name)
    except ValueError as error:
        raise Refusal(Status.MALFORMED, f"{data!r} is no name: {error}") from None
    return name


__all__ = ["Known", "Regions"]
