"""Extents, and the arithmetic of address ranges. A range is a pair (start, end) of DPAs, its end not part of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final
from uuid import UUID

from softcxl.spec.cxl.events import DynamicCapacityExtent

Range = tuple[int, int]

NO_TAG: Final = UUID(int=0)


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """`length` bytes of dynamic capacity from the device address `start`.

    `tag` names the allocation that it is part of, `NO_TAG` if none does; `sequence` is its place, from 0, among
    the extents of a tag in a sharable region.
    """

    start: int
    length: int
    tag: UUID = NO_TAG
    sequence: int = 0

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def range(self) -> Range:
        return self.start, self.end

    def record(self) -> DynamicCapacityExtent:
        """As commands and event records have it."""
        return DynamicCapacityExtent(
            start_dpa=self.start, length=self.length, tag=self.tag.bytes, shared_sequence=self.sequence
        )

    def __str__(self) -> str:
        return f"DPA {self.start:#x} to {self.end:#x}"


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The ranges in order, those that meet or overlap made one."""
    result: list[Range] = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = result[-1][0], max(end, result[-1][1])
        else:
            result.append((start, end))
    return result


def subtracted(ranges: Iterable[Range], holes: Iterable[Range]) -> list[Range]:
    """What is left of `ranges`, in order, outside of all `holes`."""
    gaps = merged(holes)
    result: list[Range] = []
    for start, end in merged(ranges):
        for first, last in gaps:
            if last <= start or end <= first:
                continue
            if start < first:
                result.append((start, first))
            start = max(start, last)
        if start < end:
            result.append((start, end))
    return result


def overlapping(ranges: Iterable[Range]) -> bool:
    """Whether two of them have an address in common."""
    ordered = sorted(ranges)
    return any(before[1] > after[0] for before, after in pairwise(ordered))


def cut(extents: Iterable[Extent], ranges: Iterable[Range]) -> list[Extent]:
    """The parts of `extents` that are in `ranges`, each with the tag and sequence of the extent it is part of."""
    wanted = merged(ranges)
    return [
        replace(one, start=max(one.start, start), length=min(one.end, end) - max(one.start, start))
        for one in extents
        for start, end in wanted
        if one.start < end and start < one.end
    ]


def left(extents: Iterable[Extent], holes: Sequence[Range]) -> Iterator[Extent]:
    """What is left of each extent outside of `holes`: it may be shortened, divided, or gone."""
    for one in extents:
        for start, end in subtracted([one.range], holes):
            yield replace(one, start=start, length=end - start)
