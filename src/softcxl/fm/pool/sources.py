"""The pool's sources: which memory there is, what of it is free, and what befalls it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from softcxl.fm.pool.errors import ArenaUnfit, Refusal
from softcxl.fm.pool.placement import Placement, Room
from softcxl.fm.pool.space import Space
from softcxl.memory import sparse
from softcxl.pool.errors import NoRoom
from softcxl.pool.layout import ARENA, MAX_SOURCES, PAGE, RegionFlag, SourceState, address, split
from softcxl.pool.protocol import Allocate, Policy, Separate, SourceFile, Status

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
        self.placement = Placement()
        for held in self.all.values():
            reserved = held.number == ARENA
            self.placement.add(
                Room(held.number, held.name, held.device, held.switch, held.space, asked_for=reserved)
            )
        directory.set_source(ARENA, "arena", directory.plan.size, SourceState.HEALTHY)
        for number, held in self.all.items():
            if number:
                directory.set_source(number, held.name, held.size, SourceState.HEALTHY)

    def take(self, capacity: int, asked: Allocate) -> list[int]:
        """Room for each copy of a region. Returns their pool addresses; raises `Refusal`."""
        source = ARENA if asked.flags & RegionFlag.CHANNEL else asked.source - 1 if asked.source else None
        try:
            policy, separate = Policy(asked.policy), Separate(asked.separate)
        except ValueError as error:
            raise Refusal(Status.MALFORMED, f"how copies are placed: {error}") from None
        try:
            placed = self.placement.allocate(capacity, asked.copies, policy, separate, source=source)
        except NoRoom as error:
            raise Refusal(Status.NO_ROOM, str(error)) from None
        return [self.at(number, offset) for number, offset in placed]

    def spare(self, capacity: int, beside: Sequence[int]) -> int:
        """Room for a copy more of a region that has others on the sources `beside`. Returns its pool address; raises
        `NoRoom`."""
        ((number, offset),) = self.placement.allocate(capacity, beside=beside)
        return self.at(number, offset)

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
            self.placement.free(number, offset)

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
        self.placement.set_state(number, state)
        self._directory.set_source(number, held.name, held.size, state)
