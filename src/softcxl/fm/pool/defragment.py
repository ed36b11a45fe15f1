"""Room for one large region where there is only as much in pieces: regions are moved, and used on.

A window of a source is chosen in which the fewest bytes have to be moved. What is free there is kept back, then each
copy that lies there is moved: another copy of it joins elsewhere, everything is copied to that under the region's lock,
chunk by chunk and compared by checksum, and then the record says that the copy is there. Readers look at the record's
`layout` again after they have read; what they have read from the old place they read once more. So the old place can
be given to others at once. A region that somebody looks at without a copy (a view) stays where it is.

A server that is killed amid it leaves regions that are whole where their records say; the next one gives back the place
that a copy was on its way to.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from softcxl.fm.pool.copies import Copies
from softcxl.fm.pool.copying import Progress, locked
from softcxl.fm.pool.rebuild import Orphan
from softcxl.pool.errors import Busy, NoRoom, PoolError, Stale
from softcxl.pool.layout import ARENA, MAX_COPIES, PAGE, SourceState, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softcxl.fm.pool.rebuild import Rebuilder
    from softcxl.fm.pool.regions import Known
    from softcxl.fm.pool.sources import Held

log = logging.getLogger(__name__)

_WINDOWS = 8
"""How many windows of a source are tried: in some there is no other place for what lies there."""


@dataclass(frozen=True)
class Window:
    """A part of a source, in bytes: what lies there in whole or in part has `moved` bytes."""

    start: int
    end: int
    moved: int


def windows(
    size: int, allocations: Sequence[tuple[int, int]], fixed: Sequence[bool], need: int
) -> list[Window]:
    """Where `need` bytes can be made free on a source of `size` bytes, by moving the least: up to eight, best first.

    `allocations` are offset and size of each, by offset; those that are `fixed` stay where they are. A best window
    begins where an allocation ends, or ends where one begins, or touches an end of the source: all of these are looked
    at.
    """
    table = np.array(allocations, np.int64).reshape(-1, 2)
    starts, ends = table[:, 0], table[:, 0] + table[:, 1]
    stays = np.array(fixed, bool)
    first = np.unique(np.concatenate(([0, size - need], ends, starts - need)))
    first = first[(first >= 0) & (first + need <= size)]
    low = np.searchsorted(ends, first, "right")
    high = np.maximum(np.searchsorted(starts, first + need, "left"), low)
    bytes_until = np.concatenate(([0], np.cumsum(table[:, 1])))
    fixed_until = np.concatenate(([0], np.cumsum(stays)))
    can = fixed_until[high] == fixed_until[low]
    first, cost = first[can], (bytes_until[high] - bytes_until[low])[can]
    best = np.argsort(cost, kind="stable")[:_WINDOWS]
    return [Window(int(first[one]), int(first[one]) + need, int(cost[one])) for one in best]


@dataclass
class _Move:
    """A copy of a region that has to go somewhere else."""

    index: int
    copy: int
    old: int
    capacity: int
    new: int
    begun: bool = False


@dataclass
class _Taken:
    """What is kept from everybody else while a window is made free."""

    held: Held
    free: list[tuple[int, int]] = field(default_factory=list)
    moves: list[_Move] = field(default_factory=list)


class Defragmenter:
    """Makes room, in the thread of the rebuilder. `moved` are the bytes that it has moved so far."""

    def __init__(self, rebuilder: Rebuilder) -> None:
        self._rebuilder = rebuilder
        self._copier = rebuilder.copier
        self._lock = rebuilder.lock
        self._directory = rebuilder.directory
        self._sources = rebuilder.sources
        self._regions = rebuilder.regions
        self.moved = 0

    def can_help(self, need: int, copies: int = 1) -> bool:
        """Whether there are as many bytes on as many devices, in whatever pieces."""
        with self._lock:
            if not self._sources.backing.has(need * copies):
                return False
            return len({one.device for one in self._usable() if one.space.available >= need}) >= copies

    def make_room(self, need: int, copies: int = 1) -> bool:
        """Have `need` bytes in one piece on as many devices as there will be `copies`. False: there is no way.

        Not with the server's lock.
        """
        tried: set[int] = set()
        while True:
            with self._lock:
                rooms = [one for one in self._usable() if one.space.largest >= need]
                devices = {one.device for one in rooms}
                if len(devices) >= copies:
                    return True
                others = [
                    one for one in self._usable()
                    if one.number not in tried and one.device not in devices and one.space.available >= need
                ]  # fmt: skip
            # Without the lock: there may be a great many allocations. What has changed since, `_take` finds.
            found = [(window, one) for one in others for window in self._windows(one, need)]
            if not found:
                return False
            found.sort(key=lambda pair: pair[0].moved)
            if not any(self._clear(held, window) for window, held in found[:_WINDOWS]):
                tried |= {held.number for _, held in found}

    def _usable(self) -> list[Held]:
        everyone = self._sources.all.values()
        return [one for one in everyone if one.number != ARENA and one.state is SourceState.HEALTHY]

    def _windows(self, held: Held, need: int) -> list[Window]:
        allocations = held.space.allocations()
        fixed = [self._movable(held, offset) is None for offset, _ in allocations]
        return windows(held.space.size, allocations, fixed, -(-need // PAGE) * PAGE)

    def _movable(self, held: Held, offset: int) -> tuple[int, Known] | None:
        """The region that has this extent, if that can be moved."""
        index = held.regions.get(offset)
        one = None if index is None else self._regions.known.get(index)
        if index is None or one is None or one.leaving or one.pins or len(one.extents) == MAX_COPIES:
            return None
        return index, one

    # -- a window ------------------------------------------------------------------------------------------------------

    def _clear(self, held: Held, window: Window) -> bool:
        """Move away what lies in a window. False: not all of that could be."""
        with self._lock:
            taken = self._take(held, window)
        if taken is None:
            return False
        log.info("%d bytes are moved to make room on %s", window.moved, held.name)
        left = list(taken.moves)
        emptied: list[_Move] = []
        try:
            while left:
                if not self._move(left[0]):
                    return False
                emptied.append(left.pop(0))
        finally:
            for move in emptied:
                self._copier.give_back(move.capacity, move.old)
            for move in left:
                if not move.begun:
                    self._copier.give_back(move.capacity, move.new)
            for place, size in taken.free:  # something may have befallen it meanwhile
                self._copier.give_back(size, place)
        return True

    def _take(self, held: Held, window: Window) -> _Taken | None:
        """Keep back what is free in a window, and a place elsewhere for everything else that is there."""
        taken = _Taken(held)
        pieces = held.space.pieces(window.start, window.end)
        for offset, size, free in pieces:
            if free:
                start, end = max(offset, window.start), min(offset + size, window.end)
                held.space.allocate_at(start, end - start)
                taken.free.append((self._sources.at(held.number, start), end - start))
        try:
            for offset, size, free in pieces:
                if free:
                    continue
                place = self._sources.at(held.number, offset)
                found = self._movable(held, offset)
                if found is None:
                    raise NoRoom("it is used otherwise by now")
                index, one = found
                copies = Copies(self._directory, index)
                if copies.state != (copies.own, 0) or copies.poisoned:
                    raise NoRoom("it is being mended")
                copy = one.extents.index(place)
                taken.moves.append(_Move(index, copy, place, size, self._elsewhere(one, copy, size)))
        except NoRoom:
            self._sources.cleaning.free(
                [*(place for place, _ in taken.free), *(move.new for move in taken.moves)]
            )
            return None
        return taken

    def _elsewhere(self, one: Known, copy: int, capacity: int) -> int:
        number = one.extents[copy] >> 56
        try:
            return self._sources.spare(capacity, source=number)
        except NoRoom:
            return self._sources.spare(
                capacity, [extent >> 56 for extent in one.extents if extent >> 56 != number]
            )

    # -- a copy --------------------------------------------------------------------------------------------------------

    def _move(self, move: _Move) -> bool:
        """Move a copy. False: it stays where it is."""
        with self._lock:
            one = self._regions.known.get(move.index)
            if one is None or not self._still(one, move):
                return False
            self._regions.clearing.work_begins(move.index)
            self._sources.note(move.index, [move.new])
        copies = Copies(self._directory, move.index)
        joined = False
        spare = copies.count
        try:
            region = self._copier.open(move.index, one)
            self._copier.clean(move.new, move.capacity)
            with locked(region), self._lock:
                if not self._still(one, move):
                    return False
                copies.place(spare, move.new)
                move.begun = joined = copies.join(spare)
            name = self._sources.all[move.new >> 56].name
            progress = Progress(move.index, one.name, move.copy, name, copies.size)
            self._rebuilder.under_way[move.index] = progress
            if not joined or not self._copier.copy(region, copies, spare, progress):
                return False
            with locked(region), self._lock:
                if not self._still(one, move) or copies.poisoned or not copies.joining >> spare & 1:
                    return False
                copies.place(move.copy, move.new)
                copies.displaced()
                copies.leave(1 << spare)
                joined = move.begun = False
                one.place(move.copy, move.new)
                self._sources.all[move.old >> 56].regions.pop(split(move.old)[1], None)
            self.moved += move.capacity
            return True
        except (Busy, Stale):
            return False
        except PoolError as error:
            log.warning("region %d cannot be moved: %s", move.index, error)
            return False
        finally:
            self._rebuilder.under_way.pop(move.index, None)
            with self._lock:
                self._regions.clearing.work_ends(move.index)
            if joined:
                self._rebuilder.orphans.append(Orphan(move.index, one, spare, move.new))
                self._rebuilder.changed()

    def _still(self, one: Known, move: _Move) -> bool:
        """Whether a copy is there yet, and may be moved."""
        if self._regions.known.get(move.index) is not one or one.leaving or one.pins:
            return False
        copies = Copies(self._directory, move.index)
        return (
            one.extents[move.copy] == move.old
            and copies.healthy == copies.own
            and self._sources.all[move.new >> 56].state is SourceState.HEALTHY
        )
