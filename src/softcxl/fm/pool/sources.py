"""The pool's sources: which memory there is, what of it is free, and what befalls it."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from softcxl.fm.pool.backing import Backing
from softcxl.fm.pool.cleaning import Cleaning
from softcxl.fm.pool.errors import ArenaUnfit, Refusal
from softcxl.fm.pool.placement import Placement, Room
from softcxl.fm.pool.space import Space
from softcxl.pool.errors import NoRoom
from softcxl.pool.layout import ARENA, MAX_SOURCES, PAGE, RegionFlag, SourceState, address
from softcxl.pool.native import Memory
from softcxl.pool.protocol import Policy, Separate, SourceFile, Status

if TYPE_CHECKING:
    import enum

    from numpy.typing import NDArray

    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.source import Source

_CHANNEL = int(RegionFlag.CHANNEL)
_OFFSET = (1 << 56) - 1
_POLICIES, _SEPARATE = tuple(Policy), tuple(Separate)


@dataclass(eq=False)
class Held:
    """A source, and what of it is free."""

    number: int
    name: str
    device: str
    switch: str | None
    size: int
    fd: int
    offset: int
    space: Space
    source: Source | None
    state: SourceState = SourceState.HEALTHY
    reason: str = ""
    failures: int = 0
    poisonings: int = 0
    regions: dict[int, int] = field(default_factory=dict)
    """Index of the region that has the extent at each offset."""


class Sources:
    """All sources of a pool by number: 0 is the arena's heap, the others are memory devices.

    A device has the number that it had when the arena was served last, whatever order they are given in.
    """

    def __init__(self, directory: Directory, given: Sequence[Source]) -> None:
        if len(given) > MAX_SOURCES:
            raise ArenaUnfit(f"{len(given)} sources of memory: a pool has {MAX_SOURCES} at most")
        self._directory = directory
        self.all: dict[int, Held] = {}
        heap = directory.plan.heap // PAGE * PAGE
        self.all[ARENA] = Held(
            ARENA, "arena", "arena", None, heap, directory.fd, directory.plan.heap_at, Space(heap), None
        )
        known = {directory.source_name(number): number for number in range(1, MAX_SOURCES + 1)}
        taken = {known[one.name] for one in given if one.name in known}
        numbers = iter(number for number in range(1, MAX_SOURCES + 1) if number not in taken)
        # Numbers of sources that are not there this time stay theirs as long as there are others
        unnamed = [number for number in numbers if not directory.source_name(number)]
        for one in given:
            if one.name not in known and not unnamed:
                raise ArenaUnfit(
                    f"the arena has lines for {MAX_SOURCES} sources, and none is left for {one.name}"
                )
            number = known[one.name] if one.name in known else unnamed.pop(0)
            self.all[number] = Held(
                number, one.name, one.device, one.switch, one.size, one.fd, one.offset, Space(one.size), one
            )
        self._begin = [0] * (MAX_SOURCES + 1)
        self._begin[ARENA] = directory.plan.heap_at
        self._memories: list[Memory | None] = []
        self._absent = {
            number: directory.source_size(number)
            for name, number in known.items()
            if name and number not in taken
        }
        self.backing = Backing(self.all, directory.plan.size)
        self.placement = Placement()
        self.cleaning = Cleaning(self)
        for held in self.all.values():
            reserved = held.number == ARENA
            self.placement.add(
                Room(held.number, held.name, held.device, held.switch, held.space, asked_for=reserved)
            )
        gone = {
            number
            for number in self.all.keys() | self._absent.keys()
            if number in self._absent or directory.source_state(number) == SourceState.FAILED
        }
        self.lost = sorted(
            gone,
            key=lambda number: (
                directory.source_state(number) == SourceState.HEALTHY,
                directory.source_generation(number),
            ),
        )
        """Those of which it may not be in all regions' records that they failed, or are not there any more, in the
        order in which that befell them: the last one has what was written last."""
        directory.set_source(ARENA, "arena", directory.plan.size, SourceState.HEALTHY)
        for number, held in self.all.items():
            if number in self.lost:
                self.set_state(number, SourceState.FAILED)
            elif number:
                directory.set_source(number, held.name, held.size, SourceState.HEALTHY)
        for number in self._absent:
            directory.set_source(
                number, directory.source_name(number), self._absent[number], SourceState.ABSENT
            )

    def take(
        self, index: int, capacity: int, copies: int, policy: int, separate: int, source: int, flags: int
    ) -> tuple[int, ...]:
        """Room for each copy of the region `index`, as an `Allocate` asks for it. Returns their pool addresses; raises
        `Refusal`."""
        if copies == 1 and not (policy or separate or source or flags & _CHANNEL):
            placed = self.placement.spread(capacity)
            if placed is not None:
                number, offset = placed
                self.backing.least -= capacity
                if self.backing.least < 0 and (why := self._unbacked([placed])):
                    raise Refusal(Status.NO_ROOM, why)
                self.all[number].regions[offset] = index
                return (number << 56 | offset,)
        only = ARENA if flags & _CHANNEL else source - 1 if source else None
        try:
            how, apart = _POLICIES[policy], _SEPARATE[separate]
        except IndexError:
            raise Refusal(
                Status.MALFORMED,
                f"policy {policy}, separate {separate}: there are {_choices(Policy)} and {_choices(Separate)}",
            ) from None
        try:
            found = self.placement.allocate(capacity, copies, how, apart, source=only)
        except NoRoom as error:
            raise Refusal(Status.NO_ROOM, str(error)) from None
        self.backing.least -= capacity * copies
        if self.backing.least < 0 and (why := self._unbacked(found)):
            raise Refusal(Status.NO_ROOM, why)
        for number, offset in found:
            self.all[number].regions[offset] = index
        return tuple([number << 56 | offset + self._begin[number] for number, offset in found])

    def spare(self, capacity: int, beside: Sequence[int] = (), source: int | None = None) -> int:
        """Room for a copy more of a region that has others on the sources `beside`, or on that source. Returns its
        pool address; raises `NoRoom`."""
        placed = self.placement.allocate(capacity, beside=beside, source=source)
        self.backing.least -= capacity
        if self.backing.least < 0 and (why := self._unbacked(placed)):
            raise NoRoom(why)
        ((number, offset),) = placed
        return self.at(number, offset)

    def _unbacked(self, placed: Sequence[tuple[int, int]]) -> str:
        """Why this cannot be given out, and then it is free again; nothing where it can."""
        why = self.backing.refuses([number for number, _ in placed])
        if why:
            for number, offset in placed:
                self.placement.free(number, offset)
        return why

    def files(self) -> list[tuple[SourceFile, int]]:
        """The files of memory devices, with their descriptors."""
        return [
            (SourceFile(number=number, offset=one.offset, size=one.size), one.fd)
            for number, one in self.all.items()
            if number
        ]

    def note(self, index: int, extents: Sequence[int]) -> None:
        """Remember that these extents are the region's."""
        for extent in extents:
            if (held := self.all.get(extent >> 56)) is not None:
                held.regions[(extent & _OFFSET) - self._begin[extent >> 56]] = index

    def sizes(self) -> dict[int, int]:
        """Bytes of each source, of those that are not there this time, too; of the arena its heap's."""
        return {**self._absent, **{number: held.size for number, held in self.all.items()}}

    def restore(self, number: int, addresses: NDArray[np.uint64], sizes: NDArray[np.uint64]) -> None:
        """What regions had of a source before the server started is taken: pool addresses, and bytes of each."""
        held = self.all.get(number)
        if held is None:
            return
        offsets = (addresses & np.uint64(_OFFSET)) - np.uint64(self._begin[number])
        held.space = Space.restore(held.size, offsets, sizes)
        self.placement.replace_space(number, held.space)

    def offset(self, place: int) -> int:
        """Where in its source's space a pool address is."""
        return (place & _OFFSET) - self._begin[place >> 56]

    def take_at(self, capacity: int, place: int) -> None:
        """Have nobody given an extent: a pool address. ValueError: somebody has it."""
        held = self.all.get(place >> 56)
        if held is not None:
            held.space.allocate_at((place & _OFFSET) - self._begin[held.number], capacity)
            self.placement.replace_space(held.number, held.space)

    def take_out(self, held: Held, page: int) -> bool:
        """Have nobody given the page at that offset. False: somebody has it."""
        try:
            held.space.allocate_at(page, PAGE)
        except ValueError:
            return False
        self.placement.replace_space(held.number, held.space)
        return True

    def set_aside(self, held: Held, start: int, end: int) -> list[tuple[int, int]]:
        """Have nobody given what is free there, in whole pages: offset and size of each stretch."""
        start, end = start // PAGE * PAGE, min(-(-end // PAGE) * PAGE, held.space.size)
        found = [
            (max(offset, start), min(offset + size, end) - max(offset, start))
            for offset, size, free in held.space.pieces(start, end)
            if free
        ]
        for offset, size in found:
            held.space.allocate_at(offset, size)
        self.placement.replace_space(held.number, held.space)
        return found

    def memories(self) -> list[Memory | None]:
        """Every source's memory, mapped, by number; None where there is none."""
        if not self._memories:
            found: list[Memory | None] = [None] * (max(self.all) + 1)
            for number, held in self.all.items():
                if number:
                    found[number] = Memory(mmap.mmap(held.fd, held.size, offset=held.offset))
            found[ARENA] = self._directory.memory
            self._memories = found
        return self._memories

    def close(self) -> None:
        """Give mappings up."""
        self._memories = []

    def at(self, number: int, offset: int) -> int:
        """The pool address of a byte of a source's space. That of the arena begins behind its directory."""
        return address(number, offset + self._begin[number])

    def set_state(self, number: int, state: SourceState, reason: str = "") -> None:
        """Show a source's state."""
        held = self.all[number]
        held.state, held.reason = state, reason
        self.placement.set_state(number, state)
        self._directory.set_source(number, held.name, held.size, state)


def _choices(kind: type[enum.IntEnum]) -> str:
    return ", ".join(f"{one.value} ({one.name.lower()})" for one in kind)
