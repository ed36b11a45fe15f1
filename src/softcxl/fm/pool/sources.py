"""The pool's sources: which memory there is, what of it is free, and what befalls it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from softcxl.fm.pool.errors import ArenaUnfit, Refusal
from softcxl.fm.pool.space import Space
from softcxl.memory import sparse
from softcxl.pool.layout import ARENA, MAX_SOURCES, PAGE, RegionFlag, SourceState, address, split
from softcxl.pool.protocol import Allocate, Policy, SourceFile, Status

if TYPE_CHECKING:
    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.source import Source

log = logging.getLogger(__name__)


@dataclass
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
            number = known[one.name] if one.name in known else unnamed.pop(0)
            self.all[number] = Held(
                number, one.name, one.device, one.switch, one.size, one.fd, one.offset, Space(one.size), one
            )
        directory.set_source(ARENA, "arena", directory.plan.size, SourceState.HEALTHY)
        for number, held in self.all.items():
            if number:
                directory.set_source(number, held.name, held.size, SourceState.HEALTHY)

    def take(self, capacity: int, asked: Allocate) -> list[int]:
        """Room for each copy of a region. Returns their pool addresses; raises `Refusal`."""
        if asked.flags & RegionFlag.CHANNEL or asked.source == 1 + ARENA:
            chosen = [ARENA] * asked.copies
        elif asked.source:
            if asked.source - 1 not in self.all:
                raise Refusal(Status.UNKNOWN, f"there is no source {asked.source - 1}")
            chosen = [asked.source - 1] * asked.copies
        else:
            chosen = self.choose(capacity, asked.copies, asked.policy, asked.separate)
        taken: list[int] = []
        for number in chosen:
            held = self.all[number]
            offset = held.space.allocate(capacity)
            if offset is None:
                self.give_back(capacity, taken, clear=False)
                raise Refusal(
                    Status.NO_ROOM,
                    f"{capacity} bytes: the largest piece that is free in {held.name} has {held.space.largest}",
                )
            taken.append(self.at(number, offset))
        return taken

    def choose(
        self, capacity: int, copies: int, policy: int, separate: int, without: Sequence[int] = ()
    ) -> list[int]:
        """Which sources `copies` new copies go to, not on the devices of the sources `without`."""
        used = {self.all[number].device for number in without}
        chosen: list[int] = []
        found = sorted(self.usable(), key=lambda one: one.space.available, reverse=policy == Policy.SPREAD)
        for one in found:
            if one.device not in used and one.space.largest >= capacity:
                chosen.append(one.number)
                used.add(one.device)
                if len(chosen) == copies:
                    return chosen
        raise Refusal(
            Status.NO_ROOM, f"{copies} copies of {capacity} bytes: there is room on {len(chosen)} devices"
        )

    def usable(self) -> list[Held]:
        """Memory devices that new regions can be on."""
        return [one for number, one in self.all.items() if number and one.state is SourceState.HEALTHY]

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
            number, offset = self._where(extent)
            self.all[number].regions[offset] = index

    def take_at(self, capacity: int, extents: Sequence[int]) -> None:
        """What a region has had before the server started is taken."""
        for extent in extents:
            number, offset = self._where(extent)
            if number in self.all:
                self.all[number].space.allocate_at(offset, capacity)

    def give_back(self, capacity: int, extents: Sequence[int], *, clear: bool = True) -> None:
        """Free extents, cleared."""
        for extent in extents:
            number, offset = self._where(extent)
            held = self.all.get(number)
            if held is None:
                continue
            held.regions.pop(offset, None)
            if clear:
                sparse.punch(held.fd, held.offset + offset, capacity)
            held.space.free(offset)

    def at(self, number: int, offset: int) -> int:
        """The pool address of a byte of a source's space. That of the arena begins behind its directory."""
        return address(number, offset + self._directory.plan.heap_at if number == ARENA else offset)

    def _where(self, pool_address: int) -> tuple[int, int]:
        number, offset = split(pool_address)
        return number, offset - self._directory.plan.heap_at if number == ARENA else offset

    def set_state(self, number: int, state: SourceState, reason: str = "") -> None:
        """Show a source's state."""
        held = self.all[number]
        held.state, held.reason = state, reason
        self._directory.set_source(number, held.name, held.size, state)
