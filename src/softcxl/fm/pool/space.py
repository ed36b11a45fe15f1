"""The free space of one source: which bytes of it are allocated, and where the next allocation goes.

An allocation gets the smallest free extent that it fits in, and its low end; of several of one size, the one that came
last. Freed bytes join the free extents on both sides at once, so an allocation fails only where no extent is
large enough. The same calls in the same order always give the same offsets.

Extents of one size are found by it in a dictionary, the next larger size by bisection: of the sizes that free extents
have there are at most √(2 × granules), since they differ: 23,000 in 1 TiB where nobody has ever seen so many. So
the time that a call takes does not grow with the number of allocations (but see `Space.allocate_at`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Any

import numpy as np

from softcxl.wire.sizes import format_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRANULE = 4096  # what a processor can map, and so the least that a client can be given alone


class Space:
    """The free space of `size` bytes, given out in multiples of `granule` bytes (a power of two).

    What a size has beyond a multiple of the granule is not used. An allocation takes about 100 bytes of this process'
    memory, a free extent about 200.

    >>> space = Space(1 << 20)
    >>> space.allocate(5000), space.allocate(1), space.available
    (0, 8192, 1036288)
    >>> space.free(0)
    8192
    """

    __slots__ = (
        "_allocated",
        "_at_end",
        "_at_start",
        "_bins",
        "_mask",
        "_shift",
        "_sizes",
        "granule",
        "size",
        "unallocated",
    )

    # Everything within is counted in granules: most sizes are then small integers, which Python keeps once.
    _allocated: dict[int, int]  # start -> length of each allocation
    _at_start: dict[int, int]  # start -> length of each free extent
    _at_end: dict[int, int]  # end -> start of each free extent
    _bins: dict[int, dict[int, None]]  # length -> starts of the free extents of that length
    _sizes: list[int]  # the lengths that are in _bins, sorted
    unallocated: int
    """How many granules are free."""

    def __init__(self, size: int, granule: int = GRANULE) -> None:
        self._setup(size, granule)
        if self.unallocated:
            self._add(0, self.unallocated)

    def _setup(self, size: int, granule: int) -> None:
        if granule < 1 or granule & (granule - 1):
            raise ValueError(f"a granule of {granule} bytes: it must be a power of two")
        if size < 0:
            raise ValueError(f"a space of {size} bytes: it cannot be less than none")
        self.granule = granule
        self.size = size // granule * granule
        self._shift = granule.bit_length() - 1
        self._mask = granule - 1
        self.unallocated = size // granule
        self._allocated, self._at_start, self._at_end, self._bins = {}, {}, {}, {}
        self._sizes = []

    @classmethod
    def restore(cls, size: int, offsets: NDArray[Any], sizes: NDArray[Any], granule: int = GRANULE) -> Space:
        """The space of `size` bytes in which those are allocated: offsets and sizes in bytes, one each an allocation.

        Both are one-dimensional arrays of unsigned integers, in any order; sizes are rounded up to granules. Raises
        ValueError where one has no bytes, is not at a granule, does not fit in the space or overlaps another.
        """
        space = cls.__new__(cls)
        space._setup(size, granule)
        if len(offsets) != len(sizes):
            raise ValueError(
                f"{len(offsets)} offsets and {len(sizes)} sizes: each allocation has one of both"
            )
        at, long = np.asarray(offsets, np.uint64), np.asarray(sizes, np.uint64)
        order = np.argsort(at, kind="stable")
        at, long = at[order], long[order]
        whole = np.uint64(space.size)
        if len(wrong := np.flatnonzero(at & np.uint64(space._mask))):
            raise ValueError(f"offset {int(at[wrong[0]]):#x} is not a multiple of {format_size(granule)}")
        if len(
            wrong := np.flatnonzero((long == 0) | (long > whole) | (at > whole - np.minimum(long, whole)))
        ):
            raise ValueError(space._outside(int(at[wrong[0]]), int(long[wrong[0]])))
        start = (at >> np.uint64(space._shift)).astype(np.int64)
        length = ((long + np.uint64(space._mask)) >> np.uint64(space._shift)).astype(np.int64)
        end = start + length
        if len(wrong := np.flatnonzero(end[:-1] > start[1:])):
            first, second = int(at[wrong[0]]), int(at[wrong[0] + 1])
            raise ValueError(f"the allocations at {first:#x} and {second:#x} overlap")
        space._allocated = dict(zip(start.tolist(), length.tolist(), strict=True))
        gaps = np.concatenate(([0], end))
        room = np.concatenate((start, [space.unallocated])) - gaps
        there = np.flatnonzero(room)
        for gap, granules in zip(gaps[there].tolist(), room[there].tolist(), strict=True):
            space._add(gap, granules)
        space.unallocated -= int(length.sum())
        return space

    # -- allocating and freeing ------------------------------------------------------------------------------------

    def allocate(self, size: int) -> int | None:
        """Allocate `size` bytes (1 or more, rounded up to granules): their offset, or None where no extent is that
        large (`largest` says how large)."""
        need = (size + self._mask) >> self._shift
        if need <= 0:
            raise ValueError(f"an allocation of {size} bytes: it must have one or more")
        bins, at_start = self._bins, self._at_start
        starts = bins.get(need)
        if starts is not None:
            start = starts.popitem()[0]
            del at_start[start], self._at_end[start + need]
            if not starts:
                del bins[need], self._sizes[bisect_left(self._sizes, need)]
        else:
            sizes = self._sizes
            at = bisect_left(sizes, need)
            if at == len(sizes):
                return None
            found = sizes[at]
            starts = bins[found]
            start = starts.popitem()[0]
            after, rest = start + need, found - need
            del at_start[start]
            at_start[after] = rest
            self._at_end[start + found] = after
            others = bins.get(rest)
            if starts:
                if others is None:
                    bins[rest] = {after: None}
                    insort(sizes, rest)
                else:
                    others[after] = None
            else:  # most often it stays what it was among the sizes
                del bins[found]
                if others is not None:
                    others[after] = None
                    del sizes[at]
                else:
                    starts[after] = None
                    bins[rest] = starts
                    if at and sizes[at - 1] > rest:
                        del sizes[at]
                        insort(sizes, rest)
                    else:
                        sizes[at] = rest
        self._allocated[start] = need
        self.unallocated -= need
        return start << self._shift

    def allocate_at(self, offset: int, size: int) -> None:
        """Allocate `size` bytes from `offset` on. ValueError: they are not all free, or not there.

        Takes as long as there are free extents where `offset` is not the start of one.
        """
        if offset & self._mask:
            raise ValueError(f"offset {offset:#x} is not a multiple of {format_size(self.granule)}")
        if offset < 0 or size <= 0 or offset + size > self.size:
            raise ValueError(self._outside(offset, size))
        start, need = offset >> self._shift, (size + self._mask) >> self._shift
        if start in self._at_start:
            first = start
        else:
            extents = self._at_start.items()
            first = next((at for at, granules in extents if at <= start < at + granules), -1)
        room = self._at_start.get(first, 0)
        if first + room < start + need:
            raise ValueError(f"the {format_size(size)} from {offset:#x} on are not all free")
        del self._at_start[first], self._at_end[first + room]
        self._leave(first, room)
        if start > first:
            self._add(first, start - first)
        if first + room > start + need:
            self._add(start + need, first + room - start - need)
        self._allocated[start] = need
        self.unallocated -= need

    def free(self, offset: int) -> int:
        """Free the allocation at `offset`; returns how many bytes it had. ValueError: there is none (any more)."""
        start = offset >> self._shift
        length = 0 if offset & self._mask else self._allocated.pop(start, 0)
        if not length:
            raise ValueError(_nothing(offset))
        self.unallocated += length
        self._join(start, start + length, self._at_start, self._at_end)
        return length << self._shift

    def free_all(self, offsets: list[int]) -> int:
        """Free the allocations at these offsets, neighbours as one; returns how many bytes they had together.
        ValueError, as of `free`: then nothing was freed."""
        shift, allocated, at_start, at_end = self._shift, self._allocated, self._at_start, self._at_end
        starts = sorted([offset >> shift for offset in offsets])
        lengths = [allocated.get(start, 0) for start in starts]
        if 0 in lengths or len(set(starts)) < len(starts) or any(map(self._mask.__and__, offsets)):
            for offset in offsets:
                if not self.size_at(offset) or offsets.count(offset) > 1:
                    raise ValueError(_nothing(offset))
        total, end, first = 0, -1, -1
        for start, length in zip(starts, lengths, strict=True):
            del allocated[start]
            total += length
            if start != end:
                if end >= 0:
                    self._join(first, end, at_start, at_end)
                first = start
            end = start + length
        if end >= 0:
            self._join(first, end, at_start, at_end)
        self.unallocated += total
        return total << shift

    def _join(self, first: int, end: int, at_start: dict[int, int], at_end: dict[int, int]) -> None:
        """What is between is free, and one with what is free on its sides."""
        after = at_start.pop(end, 0)
        before = at_end.pop(first, None)
        if before is not None:
            self._leave(before, first - before)
            first = before
        if after:
            self._leave(end, after)
            end += after
        self._add(first, end - first)

    def _add(self, start: int, length: int) -> None:
        self._at_start[start] = length
        self._at_end[start + length] = start
        starts = self._bins.get(length)
        if starts is None:
            self._bins[length] = {start: None}
            insort(self._sizes, length)
        else:
            starts[start] = None

    def _leave(self, start: int, length: int) -> None:
        starts = self._bins[length]
        del starts[start]
        if not starts:
            del self._bins[length], self._sizes[bisect_left(self._sizes, length)]

    def _outside(self, offset: int, size: int) -> str:
        return f"{size} bytes from {offset:#x} on are not in a space of {format_size(self.size)}"

    # -- what there is ---------------------------------------------------------------------------------------------

    @property
    def available(self) -> int:
        """Free bytes."""
        return self.unallocated << self._shift

    @property
    def largest(self) -> int:
        """Bytes of the largest free extent, which are the most that can be allocated at once."""
        return self._sizes[-1] << self._shift if self._sizes else 0

    @property
    def fragmentation(self) -> float:
        """Which part of the free bytes is not in the largest free extent: 0 where all are (or none are free)."""
        return 1 - self._sizes[-1] / self.unallocated if self.unallocated else 0.0

    def __len__(self) -> int:
        """How many allocations there are."""
        return len(self._allocated)

    def size_at(self, offset: int) -> int:
        """Bytes of the allocation at `offset`; 0 where none starts there."""
        return 0 if offset & self._mask else self._allocated.get(offset >> self._shift, 0) << self._shift

    def allocations(self) -> list[tuple[int, int]]:
        """Offset and size in bytes of each allocation, by offset. From any thread."""
        return self._in_bytes(self._allocated)

    def extents(self) -> list[tuple[int, int]]:
        """Offset and size in bytes of each free extent, by offset."""
        return self._in_bytes(self._at_start)

    def pieces(self, start: int, end: int) -> list[tuple[int, int, bool]]:
        """What has bytes from `start` to `end`: offset and size of each allocation and each free extent, and whether it
        is free; by offset. Takes as long as there are such, and granules of the first one before `start`."""
        allocated, at_start, shift = self._allocated, self._at_start, self._shift
        at, last = max(start, 0) >> shift, min(end, self.size)
        while at and at not in allocated and at not in at_start:
            at -= 1
        found = []
        while at << shift < last:
            length = allocated.get(at, 0)
            found.append((at << shift, (length or at_start[at]) << shift, not length))
            at += length or at_start[at]
        return found

    def _in_bytes(self, granules: dict[int, int]) -> list[tuple[int, int]]:
        shift = self._shift
        return [(start << shift, length << shift) for start, length in sorted(granules.copy().items())]


def _nothing(offset: int) -> str:
    return f"nothing is allocated at {offset:#x}: it was freed before, or never allocated"
