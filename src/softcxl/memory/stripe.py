"""A stripe: one device's share of an interleaved region, in the file that holds the region.

All that a DPA range needs to be found in a window's file, and the four things done to it there: read, write,
wipe, and say where its data is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from softcxl.memory import strides
from softcxl.memory.interleave import Interleave

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from softcxl.memory.media import Medium

_FEW = 4
"""Up to so many granules are cheaper as single reads and writes than as a strided copy."""

_FEW_HOLES = 64
"""Up to so many granules are made holes one by one; each costs tens of microseconds, zeros cost less."""

_BLOCK = 1 << 16
"""Granules wiped at a time: bounds the index arrays to a few MiB."""


@dataclass(frozen=True, slots=True)
class Stripe:
    """The map from one device's DPA to the offsets of a file.

    The region starts at file offset `origin`; `dpa_base` is the DPA of the device's first byte in it. Stripes
    that map alike are made equal when they are built: regions that begin some rounds apart in the same
    pattern get the same origin, and one way has no granularity.
    """

    origin: int
    interleave: Interleave
    position: int
    dpa_base: int

    def __post_init__(self) -> None:
        self.interleave.check_position(self.position)
        if self.interleave.xor_maps:
            return
        if self.interleave.ways == 1:
            object.__setattr__(self, "interleave", Interleave())
        rounds, origin = divmod(self.origin, self.interleave.round)
        object.__setattr__(self, "dpa_base", self.dpa_base - rounds * self.interleave.granularity)
        object.__setattr__(self, "origin", origin)

    def beside(self, other: Stripe) -> bool:
        """Whether the two are different positions of one pattern, which never meet in a file."""
        return (
            self.origin == other.origin
            and self.interleave == other.interleave
            and self.position != other.position
        )

    def offset(self, dpa: int) -> int:
        """Where in the file the byte of `dpa` rests."""
        return self.origin + self.interleave.offset(self.position, dpa - self.dpa_base)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The file range that DPA `start` to `end` lies in: exact for one way, else whole rounds."""
        first, last = start - self.dpa_base, end - self.dpa_base
        if self.interleave.ways > 1:
            granularity, size = self.interleave.granularity, self.interleave.round
            first, last = first // granularity * size, -(-last // granularity) * size
        return self.origin + first, self.origin + last

    def within(self, low: int, high: int, start: int, end: int) -> tuple[int, int]:
        """What of DPA `start` to `end` may lie in the file range `low` to `high`, rounds taken whole.

        An empty answer has its end not above its start.
        """
        first, last = low - self.origin, high - self.origin
        if self.interleave.ways > 1:
            granularity, size = self.interleave.granularity, self.interleave.round
            first, last = first // size * granularity, -(-last // size) * granularity
        return max(start, self.dpa_base + first), min(end, self.dpa_base + last)

    def data_ranges(self, medium: Medium, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The DPA ranges within `start` to `end` that may hold something other than zeros, in order."""
        low, high = self.span(start, end)
        pending: tuple[int, int] | None = None
        for found in medium.data_ranges(low, high - low):
            first, last = self.within(*found, start, end)
            if pending is None:
                pending = first, last
            elif first <= pending[1]:
                pending = pending[0], max(pending[1], last)
            else:
                yield pending
                pending = first, last
        if pending is not None and pending[0] < pending[1]:
            yield pending

    def read(self, medium: Medium, dpa: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes from `dpa` on."""
        if self._few(out.size):
            for offset, start, end in self._parts(dpa, out.size):
                out[start:end] = np.frombuffer(medium.read(offset, end - start), np.uint8)
            return
        out.fill(0)
        for start, end in self.data_ranges(medium, dpa, dpa + out.size):
            part = out[start - dpa : end - dpa]
            strides.gather(self._region(medium), self.interleave, self.position, start - self.dpa_base, part)

    def write(self, medium: Medium, dpa: int, data: NDArray[np.uint8]) -> None:
        """Store `data` from `dpa` on. Raises `MediumFull` before anything was written, or part way."""
        if self._few(data.size):
            for offset, start, end in self._parts(dpa, data.size):
                medium.write(offset, data[start:end].data)
            return
        low, high = self.span(dpa, dpa + data.size)
        medium.reserve(low, high - low)
        strides.scatter(self._region(medium), self.interleave, self.position, dpa - self.dpa_base, data)

    def wipe(self, medium: Medium, start: int, end: int) -> None:
        """Make DPA `start` to `end` zeros, and give room back where that takes few calls.

        Holes stay holes: to store zeros in them would take room, on a full disk room that is not there.
        """
        granularity = self.interleave.granularity
        first = start + (self.dpa_base - start) % granularity
        last = end - (end - self.dpa_base) % granularity
        if self.interleave.ways == 1 or last - first <= _FEW * granularity:
            self._punch(medium, start, end)
            return
        self._punch(medium, start, first)
        self._punch(medium, last, end)
        for block in range(first, last, _BLOCK * granularity):
            self._wipe_granules(medium, block, min(block + _BLOCK * granularity, last))

    def _wipe_granules(self, medium: Medium, start: int, end: int) -> None:
        low, high = self.span(start, end)
        data = np.array(list(medium.data_ranges(low, high - low)), np.int64).reshape(-1, 2)
        if not data.size:
            return
        granularity = self.interleave.granularity
        dpas = np.arange(start - self.dpa_base, end - self.dpa_base, granularity, dtype=np.uint64)
        chunks = self.interleave.offsets_of(self.position, dpas) >> np.uint64(self.interleave.shift)
        offsets = chunks.astype(np.int64) * granularity + self.origin
        # The last range of data that starts within or before each granule; if that one ends before the
        # granule, no other reaches into it.
        found = np.searchsorted(data[:, 0], offsets + granularity - 1, "right") - 1
        reaches = (found >= 0) & (data[found, 1] > offsets)
        inside = reaches & (data[found, 0] <= offsets) & (data[found, 1] >= offsets + granularity)
        if np.count_nonzero(inside) > _FEW_HOLES:
            strides.erase(self._region(medium), self.interleave, chunks[inside])
            reaches &= ~inside
        for offset in offsets[reaches].tolist():
            medium.clear(offset, granularity)

    def _few(self, size: int) -> bool:
        return self.interleave.ways == 1 or size <= _FEW * self.interleave.granularity

    def _region(self, medium: Medium) -> NDArray[np.uint8]:
        return medium.view()[self.origin :]

    def _parts(self, dpa: int, size: int) -> Iterator[tuple[int, int, int]]:
        """(file offset, start, end) of each run of consecutive bytes; start and end count from `dpa`."""
        done = 0
        while done < size:
            here = dpa + done - self.dpa_base
            granularity = self.interleave.granularity
            run = (
                size - done
                if self.interleave.ways == 1
                else min(granularity - here % granularity, size - done)
            )
            yield self.offset(dpa + done), done, done + run
            done += run

    def _punch(self, medium: Medium, start: int, end: int) -> None:
        for offset, first, last in self._parts(start, end - start):
            medium.clear(offset, last - first)
