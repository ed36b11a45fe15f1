"""Regions: who has which memory.

What the directory holds is the truth; the tables here are made from it when a server starts, and are what makes it
fast. A region that is freed vanishes at once; its memory is on its way to others from then on (`Clearing`).
"""

from __future__ import annotations

import gc
import heapq
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from softcxl.fm.pool.clearing import Clearing
from softcxl.fm.pool.errors import Refusal
from softcxl.fm.pool.pins import OLD, PINNED, Pins
from softcxl.fm.pool.records import REMEMBERED, Known, recover
from softcxl.fm.pool.uses import Uses
from softcxl.pool import layout
from softcxl.pool.errors import NoRoom
from softcxl.pool.layout import Mode, RegionFlag, RegionState
from softcxl.pool.protocol import Allocate, Located, Named, Status

if TYPE_CHECKING:
    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.sources import Sources

_KEPT = int(RegionFlag.KEPT)
_ALLOWED = int(RegionFlag.ATOMIC | RegionFlag.CHANNEL)
_WRITE = int(Mode.WRITE)
_LEAVING = int(RegionState.LEAVING)
_LIVE, _STATE = np.uint64(RegionState.LIVE), np.uint64(0xFF)
_LOOKED_AT = 1 << 14
"""Records that are looked at for one answer to who lists regions."""
_PAGE = layout.PAGE - 1
_OWNER, _REQUEST = layout.REGION["owner"] // 8, layout.REGION["request"] // 8
_LOW = np.uint64(0xFFFFFFFF)
_NO_NAME = bytes(64)
_ASKED = struct.Struct("<2Q4B2HQ8s64s")
"""An `Allocate`, field by field."""
_PLACE = struct.Struct("<2Q")
assert _ASKED.size == Allocate.__layout__.size


class Regions:
    """All regions of a pool. Its caller holds the server's lock.

    `client_of` says whose identity is in a slot; `charge(identity, bytes)` raises `Refusal` where that is too much,
    and gives back with a negative number. `damaged` has what was found in the directory that cannot be.
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
        self.uses = Uses(directory, self, self.known)
        self._free: list[int] = []
        self._next = 0
        self._leases: list[tuple[float, int, int]] = []
        self._certain = False
        self.clearing = Clearing(directory, sources, self.known, self._cleared)
        self.damaged: list[str] = []
        self.pins = Pins(directory, self.known, self._unpinned)
        collecting = gc.isenabled()
        gc.disable()  # a million regions are made in one go, and no garbage
        try:
            self._recover()
        finally:
            if collecting:
                gc.enable()

    # -- what clients ask ------------------------------------------------------------------------------------

    def allocate(self, slot: int, asked: Allocate, *, free_of_charge: bool = False) -> Located:
        """Make a region. Asked twice by the same number, it is the same one."""
        made = self._allocate(slot, asked.pack(), 0 if free_of_charge else self._client_of(slot))
        index, generation = made[0]
        return Located(index=index, generation=generation, size=asked.size)

    def allocate_packed(self, slot: int, data: bytes) -> bytes:
        """The same, as bytes."""
        index, generation = self._allocate(slot, data, self._client_of(slot))[0]
        return _PLACE.pack(index, generation) + data[:8]

    def allocate_many(self, slot: int, data: bytes, count: int) -> list[tuple[int, int]]:
        """Make several alike, all of them or none: index and generation of each. Asked twice they are the same."""
        if Allocate.unpack(data).name.rstrip(b"\0"):
            raise Refusal(Status.MALFORMED, f"{count} regions cannot have one name")
        return self._allocate(slot, data, self._client_of(slot), count)

    def _allocate(self, slot: int, data: bytes, client: int, count: int = 1) -> list[tuple[int, int]]:
        # All of it in one place, and no more calls than there have to be: how many a second there are depends on it
        if len(data) != _ASKED.size:
            Allocate.unpack(data)  # raises what is told of it
        size, request, copies, policy, separate, mode, flags, source, lease, _, raw = _ASKED.unpack(data)
        holdings, before = self.uses.holdings[slot], 0
        requests = holdings.requests
        made: list[tuple[int, int]] = []
        if 0 < request <= holdings.forgotten and request not in requests:
            self._look_up(slot, request)
        if request and request in requests:
            self._there(requests[request])
            made = list(requests[request])
            before = len(made)
            if before >= count:
                return made
        if not 0 < size <= 1 << 55:
            raise Refusal(Status.MALFORMED, f"a size of {size} bytes: a region has 1 or more")
        if not 0 < copies <= layout.MAX_COPIES:
            raise Refusal(Status.MALFORMED, f"{copies} copies: a region has 1 to {layout.MAX_COPIES}")
        if mode > _WRITE:
            raise Refusal(Status.MALFORMED, f"mode {mode}: there are 0 (private), 1 (read), 2 (write)")
        name, flags = "", flags & _ALLOWED
        if raw != _NO_NAME:
            raw = raw.rstrip(b"\0")
            name = named(raw)
            flags |= _KEPT
            if name in self.names:
                raise Refusal(Status.EXISTS, f"there is a region {name!r} already")
        capacity = size + _PAGE & ~_PAGE
        free, known = self._free, self.known
        take, make, own = self._sources.take, self._directory.make_region, holdings.own
        charged = capacity * copies * (count - before)
        self._charge(client, charged)
        try:
            for _ in range(count - before):
                index = free.pop() if free else self._index()
                try:
                    extents = take(index, capacity, copies, policy, separate, source, flags)
                except Refusal:
                    free.append(index)
                    raise
                generation = make(
                    index, size, slot, flags, mode, request, client, lease, capacity, extents, raw
                )
                known[index] = Known(generation, size, slot, client, flags, mode, lease, extents, name)
                own.add(index)
                made.append((index, generation))
                charged -= capacity * copies
        except Refusal:
            self._charge(client, -charged)
            for index, _ in made[before:]:
                self.leave(index)
            raise
        if name:
            self.names[name] = index
        if request:
            requests[request] = made
            if len(requests) > REMEMBERED:
                oldest = next(iter(requests))  # threads do not come in the order of their numbers
                del requests[oldest]
                if oldest > holdings.forgotten:
                    holdings.forgotten = oldest
        return made

    def _look_up(self, slot: int, request: int) -> None:
        """A request is older than those that are remembered: records say what it has made, if it was made before. A
        thread of a client's may not run while others make many."""
        words = self._directory.region_words()
        there = words[:, 0] & _STATE == _LIVE
        mine = words[:, _OWNER] & _LOW == np.uint64(slot)
        found = np.flatnonzero(there & mine & (words[:, _REQUEST] == np.uint64(request))).tolist()
        if made := [(index, self.known[index].generation) for index in found if index in self.known]:
            self.uses.holdings[slot].requests[request] = made

    def _there(self, made: list[tuple[int, int]]) -> None:
        for index, generation in made:
            one = self.known.get(index)
            if one is None or one.generation != generation or one.leaving:
                raise Refusal(
                    Status.GONE, f"region {index}, which this request has made, is not there any more"
                )

    def free(self, slot: int, asked: Named) -> None:
        """Give a region back. It vanishes at once; its memory when nobody is at it any more."""
        index = self.find(asked)
        one = self.known[index]
        if one.owner != slot and one.identity != self._client_of(slot):
            raise Refusal(Status.DENIED, f"{self.called(index)} is another client's: only its owner frees it")
        self.leave(index)

    def pass_on(self, asked: Named, giver: int, taker: int) -> None:
        """Make a region without a name another's; what goes to the server stays until that gives it to somebody."""
        index = self.find(asked)
        one = self.known[index]
        if one.owner != giver or one.name or one.flags & RegionFlag.CHANNEL:
            raise Refusal(
                Status.DENIED, f"{self.called(index)} cannot be given: it has a name, or is another's"
            )
        identity, size = self._client_of(taker), one.capacity * len(one.extents)
        self._charge(identity, size)
        self._charge(one.identity, -size)
        self.uses.holdings[giver].own.discard(index)
        self.uses.own(taker, index, one)
        one.owner, one.identity = taker, identity
        one.flags = one.flags | _KEPT if taker == layout.SERVER else one.flags & ~_KEPT
        self._directory.pass_region_on(index, taker, one.flags, identity)

    def certain(self) -> None:
        """Every client of the server before has said what it has, or has gone."""
        self.pins.certain()
        self._certain = True

    def page(self, start: int, most: int) -> tuple[list[int], int]:
        """Up to `most` indices of regions from `start` on, and where to go on (0: nowhere). So many records are looked
        at at a time that requests are answered between, however few of them are regions'."""
        words = self._directory.region_words()
        start = min(start, len(words))
        end = min(start + _LOOKED_AT, len(words))
        found = np.flatnonzero(words[start:end, 0] & _STATE == _LIVE)
        if len(found) > most:
            end = start + int(found[most])
        return (found[:most] + start).tolist(), end if end < len(words) else 0

    # -- what happens ----------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """What can be done now and could not be before: regions that were busy, leases that have run out. None has as
        long as a client of the server before may have a region open, and has not said so yet."""
        self.clearing.look_again()
        leases, now = self._leases, self._now()
        while self._certain and leases and leases[0][0] <= now:
            _, index, generation = heapq.heappop(leases)
            one = self.known.get(index)
            if one is None or one.generation != generation or one.leaving or one.opened or one.pins:
                continue
            end = one.unused_since + one.lease / 1000
            if end <= now:
                self.leave(index)
            else:
                heapq.heappush(leases, (end, index, generation))

    def find(self, asked: Named) -> int:
        """The index of the region that is named. Raises `Refusal`."""
        if not asked.generation:
            name = named(asked.name.rstrip(b"\0"))
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
        found, requests, self.damaged, self._next = recover(self._directory, self._sources)
        self._free = [index for index in range(self._next - 1, -1, -1) if index not in found]
        self.known.update(found)
        now = self._now()
        looked_at = [index for index, one in found.items() if one.flags & (PINNED | OLD)]
        for index in sorted(looked_at, key=lambda index: found[index].flags & OLD):
            self.pins.recover(index)
        for index, one in found.items():
            one.unused_since = now
            self._sources.note(index, one.extents)
            self._charge(one.identity, one.capacity * len(one.extents))
            if one.leaving or not (one.owner or one.flags & _KEPT):
                self.leave(index)
                continue
            if one.name:
                self.names[one.name] = index
            if not one.owner and one.name:
                self._unused(index)
                continue
            # The server's own without a name is on its way to somebody: till then it has it open
            holdings = self.uses.holdings[one.owner]
            holdings.own.add(index)
            one.opened = one.mine = 1
            if index in requests:
                holdings.requests.setdefault(requests[index], []).append((index, one.generation))
        for holdings in self.uses.holdings.values():
            holdings.requests = dict(sorted(holdings.requests.items()))
            holdings.forgotten = min(holdings.requests, default=1) - 1

    def _index(self) -> int:
        if self._next >= self._directory.plan.regions:
            raise Refusal(Status.NO_ROOM, f"there are {self._next} regions, and records for no more")
        self._next += 1
        return self._next - 1

    def leave(self, index: int) -> None:
        one = self.known[index]
        one.leaving = True
        if one.name and self.names.get(one.name) == index:
            del self.names[one.name]
        self._directory.set_region(index, one.generation, _LEAVING)
        self.clearing.add(index)

    def closed(self, index: int, one: Known) -> None:
        """Fewer have it open."""
        if one.opened or one.leaving:
            return
        if one.flags & _KEPT:
            self._unused(index)
        else:
            self.leave(index)

    def _unused(self, index: int) -> None:
        """Nobody has it open: its lease begins."""
        one = self.known[index]
        one.unused_since = self._now()
        if one.lease:
            heapq.heappush(self._leases, (one.unused_since + one.lease / 1000, index, one.generation))

    def leave_behind(self, index: int, place: int) -> None:
        """A copy of a region is about to be elsewhere than at that pool address, of which there may be views: nobody
        gets it as long as there are. Raises `NoRoom` where there is no record for it."""
        one = self.known[index]
        try:
            old = self._free.pop() if self._free else self._index()
        except Refusal as refusal:
            raise NoRoom(str(refusal)) from None
        generation = self._directory.make_region(
            old, one.size, layout.SERVER, OLD, 0, index + 1, 0, one.generation, one.capacity, (place,)
        )
        self._directory.set_region(old, generation, _LEAVING)
        self.known[old] = Known(
            generation, one.size, layout.SERVER, 0, OLD, 0, one.generation, (place,), "", 0, 0, leaving=True
        )
        self._charge(0, one.capacity)
        self._sources.note(old, [place])
        self.pins.note_old(index, old)

    def _unpinned(self, index: int) -> None:
        one = self.known[index]
        if one.leaving:
            self.clearing.add(index)
        elif not one.opened:
            self._unused(index)

    def _cleared(self, gone: list[tuple[int, Known]]) -> None:
        """Their memory is others' now."""
        sizes: dict[int, int] = {}
        holdings = self.uses.holdings
        for index, one in gone:
            sizes[one.identity] = sizes.get(one.identity, 0) + one.capacity * len(one.extents)
            if one.owner in holdings:
                holdings[one.owner].own.discard(index)
        for identity, size in sizes.items():
            self._charge(identity, -size)
        self._free += [index for index, _ in gone]

    def allowed(self, slot: int, one: Known) -> None:
        if one.mode == Mode.PRIVATE and one.owner != slot and one.identity != self._client_of(slot):
            raise Refusal(Status.DENIED, f"region {one.name!r} is private to its owner")

    def check_writer(self, slot: int, index: int) -> None:
        """Raise `Refusal` where a client may not write a region."""
        one = self.known[index]
        if one.mode != Mode.WRITE and one.owner != slot and one.identity != self._client_of(slot):
            raise Refusal(Status.DENIED, f"{self.called(index)} is written by its owner alone")

    def called(self, index: int) -> str:
        return f"region {self.known[index].name or index!r}"


def named(data: bytes) -> str:
    """A region's name in a request. Raises `Refusal`."""
    try:
        name = data.decode()
        layout.encode_name(name)
    except ValueError as error:
        raise Refusal(Status.MALFORMED, f"{data!r} is no name: {error}") from None
    return name


__all__ = ["Known", "Regions"]
