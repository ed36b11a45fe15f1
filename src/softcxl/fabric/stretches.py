"""Stretches of bytes, however many there are, of which those that touch are one.

>>> lost = Stretches([(0, 64), (64, 64)])
>>> lost.remove(32, 64)
>>> list(lost), lost.within(16, 100)
([(0, 32), (96, 32)], [(16, 16), (96, 20)])
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Stretches:
    """Stretches as (start, length), in bytes."""

    def __init__(self, found: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, length in found:
            self.add(start, length)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """In order."""
        return ((start, end - start) for start, end in zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, length: int) -> None:
        """These bytes, too."""
        if length <= 0:
            return
        end = start + length
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def remove(self, start: int, length: int) -> None:
        """These bytes no more."""
        if length <= 0:
            return
        end = start + length
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        left = [
            (a, b)
            for one, other in zip(self._starts[first:last], self._ends[first:last], strict=True)
            for a, b in ((one, min(other, start)), (max(one, end), other))
            if a < b
        ]
        self._starts[first:last], self._ends[first:last] = [a for a, _ in left], [b for _, b in left]

    def within(self, start: int, length: int) -> list[tuple[int, int]]:
        """What of them is in a range."""
        end = start + length
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        return [
            (max(one, start), min(other, end) - max(one, start))
            for one, other in zip(self._starts[first:last], self._ends[first:last], strict=True)
        ]


__all__ = ["Stretches"]
