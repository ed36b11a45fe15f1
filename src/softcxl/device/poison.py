"""Which 64-byte lines of a device's media are poisoned, and why: one truth for lists, events and reads."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

LINE = 64
"""Bytes of a cache line, the unit of poison (CXL 3.1 §8.2.9.9.4)."""


class PoisonMap:
    """The poisoned lines of a device, by DPA, each with its source (CXL 3.1 Table 8-140).

    Look-ups are by hash and binary search, whatever the number of lines.
    """

    def __init__(self) -> None:
        self._source: dict[int, int] = {}
        self._order: list[int] = []
        self.generation = 0

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, dpa: int) -> bool:
        return dpa & ~(LINE - 1) in self._source

    def add(self, dpa: int, source: int) -> None:
        """Poison the line at `dpa`. A line that is poisoned already keeps its first source."""
        line = dpa & ~(LINE - 1)
        if line not in self._source:
            self._source[line] = source
            insort(self._order, line)
            self.generation += 1

    def remove(self, dpa: int, length: int = LINE) -> int:
        """Take the poison off every line of the range; returns how many there were."""
        start, end = self._span(dpa, length)
        for line in self._order[start:end]:
            del self._source[line]
        del self._order[start:end]
        if end > start:
            self.generation += 1
        return end - start

    def any_in(self, dpa: int, length: int) -> int | None:
        """The first poisoned line of the range, or None."""
        start, end = self._span(dpa, length)
        return self._order[start] if start < end else None

    def runs(self, dpa: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Poisoned stretches of the range as (DPA, bytes, source), neighbours of one source together, by DPA."""
        start, end = self._span(dpa, length)
        first = last = source = -1
        for line in self._order[start:end]:
            if line == last + LINE and self._source[line] == source:
                last = line
                continue
            if first >= 0:
                yield first, last + LINE - first, source
            first, last, source = line, line, self._source[line]
        if first >= 0:
            yield first, last + LINE - first, source

    def _span(self, dpa: int, length: int) -> tuple[int, int]:
        return bisect_left(self._order, dpa & ~(LINE - 1)), bisect_left(self._order, dpa + length)
