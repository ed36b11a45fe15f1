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

_PAGE = 4096


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
        """Make DPA `start` to `end` zeros and give room back where whole pages are freed."""
        if self.interleave.ways == 1:
            medium.clear(self.offset(start), end - start)
            return
        low, high = self.span(start, end)
        for found in medium.data_ranges(low, high - low):
            first, last = self.within(*found, start, end)
            inner = self._rounds_inside(*found, first, last)
            if self.interleave.granularity >= _PAGE or inner[0] >= inner[1]:
                self._punch(medium, first, last)
                continue
            # Zeros are stored only where the file has pages already: a hole could need room on a full disk.
            self._punch(medium, first, inner[0])
            strides.scatter(
                self._region(medium),
                self.interleave,
                self.position,
                inner[0] - self.dpa_base,
                None,
                inner[1] - inner[0],
            )
            self._punch(medium, inner[1], last)

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

    def _rounds_inside(self, low: int, high: int, start: int, end: int) -> tuple[int, int]:
        """The DPA range of those rounds that lie wholly in the file range, within `start` to `end`."""
        granularity, size = self.interleave.granularity, self.interleave.round
        first = -(-(low - self.origin) // size) * granularity + self.dpa_base
        last = (high - self.origin) // size * granularity + self.dpa_base
        return max(start, first), min(end, last)
