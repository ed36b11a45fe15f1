"""Where a region's copies have poison, and how to read around it: each line from a copy that has it whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from softcxl.pool.errors import Corrupt
from softcxl.pool.protocol import PoisonAnswer, PoisonQuery

Ask = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Poison:
    """Poisoned bytes of a region, as (copy, offset, size), and the directory's count of health when that was so."""

    health: int
    ranges: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, index: int, generation: int, size: int, health: int, ask: Ask) -> Self:
        """Ask the server, by as many questions as it takes."""
        found: set[tuple[int, int, int]] = set()
        start = 0
        while True:
            asked = PoisonQuery(index=index, generation=generation, offset=start, length=size - start)
            answer = PoisonAnswer.unpack(ask(asked.pack()))
            told = [(one.copy, one.offset, one.length) for one in answer.ranges]
            found.update(told)
            if not answer.more:
                return cls(health, tuple(sorted(found, key=lambda one: one[1:])))
            # More than it tells at once, in order: from the last on, which may be another copy's, too
            offsets = [one[1] for one in told]
            if not told or offsets != sorted(offsets) or not start < offsets[-1] < size:
                raise Corrupt(f"the server tells of poison at {offsets} and of more, from {start} on")
            start = offsets[-1]

    @property
    def total(self) -> int:
        """How many bytes, in all copies."""
        return sum(length for _, _, length in self.ranges)

    def plan(
        self, offset: int, size: int, copies: int
    ) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]]]:
        """How to read a range from `copies` (a bitmap): pieces as (offset, size, copies that are clean there).

        And the pieces that no copy has, as (offset, size).
        """
        end = offset + size
        near = [
            (copy, at, at + length) for copy, at, length in self.ranges if at < end and offset < at + length
        ]
        clean = copies
        for copy, _, _ in near:
            clean &= ~(1 << copy)
        if clean:
            return [(offset, size, clean)], []
        cuts = sorted(
            {offset, end, *(max(at, offset) for _, at, _ in near), *(min(to, end) for _, _, to in near)}
        )
        pieces: list[tuple[int, int, int]] = []
        lost: list[tuple[int, int]] = []
        for at, to in itertools.pairwise(cuts):
            whole = copies
            for copy, start, stop in near:
                if start < to and at < stop:
                    whole &= ~(1 << copy)
            if not whole:
                if lost and sum(lost[-1]) == at:
                    lost[-1] = lost[-1][0], to - lost[-1][0]
                else:
                    lost.append((at, to - at))
            elif pieces and pieces[-1][0] + pieces[-1][1] == at and pieces[-1][2] & whole:
                pieces[-1] = pieces[-1][0], to - pieces[-1][0], pieces[-1][2] & whole
            else:
                pieces.append((at, to - at, whole))
        return pieces, lost
