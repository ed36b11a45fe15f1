"""One device's bytes within an HPA-ordered region, as strided numpy copies.

A region is an array of bytes in HPA order that starts at region offset 0 and ends on a whole round of its
interleave. With modulo arithmetic a device's granules lie at equal distances, so that a gather or a scatter
is one strided copy of memory; with XOR arithmetic they are picked by computed indices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from softcxl.memory.errors import AddressError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from softcxl.memory.interleave import Interleave

_TURNS = 1 << 16
"""Granules picked at a time with XOR arithmetic: bounds the index array to 512 KiB."""


def gather(
    region: NDArray[np.uint8], interleave: Interleave, position: int, dpa_offset: int, out: NDArray[np.uint8]
) -> None:
    """Copy a device's bytes from `dpa_offset` on out of the region, ``out.size`` of them.

    `out` is contiguous. Raises `AddressError` if they do not all lie in the region.
    """
    first, last = _edges(region, interleave, position, dpa_offset, out.size)
    for start, end, low, high in first, last:
        out[low:high] = region[start:end]
    low, high = first[3], last[2]
    if low == high:
        return
    turn = (dpa_offset + low) >> interleave.shift
    granules = out[low:high].view(_granule(interleave))
    if interleave.ways == 1 or not interleave.xor_maps:
        np.copyto(granules, _column(region, interleave, position, turn, granules.size))
        return
    chunks = _chunks(region, interleave)
    for start in range(0, granules.size, _TURNS):
        part = granules[start : start + _TURNS]
        # mode="clip" is the one that lets numpy write into `out` without a copy of its own.
        np.take(chunks, _picks(interleave, position, turn + start, part.size), out=part, mode="clip")


def scatter(
    region: NDArray[np.uint8],
    interleave: Interleave,
    position: int,
    dpa_offset: int,
    data: NDArray[np.uint8] | None,
    size: int | None = None,
) -> None:
    """Copy a device's bytes into the region: contiguous `data`, or `size` zeros if it is None.

    Raises `AddressError` if they do not all lie in the region.
    """
    size = data.size if data is not None else size or 0
    first, last = _edges(region, interleave, position, dpa_offset, size)
    for start, end, low, high in first, last:
        region[start:end] = 0 if data is None else data[low:high]
    low, high = first[3], last[2]
    if low == high:
        return
    turn, turns = (dpa_offset + low) >> interleave.shift, (high - low) >> interleave.shift
    kind = _granule(interleave)
    granules = np.zeros(1, kind) if data is None else data[low:high].view(kind)
    if interleave.ways == 1 or not interleave.xor_maps:
        np.copyto(_column(region, interleave, position, turn, turns), granules)
        return
    chunks = _chunks(region, interleave)
    for start in range(0, turns, _TURNS):
        count = min(_TURNS, turns - start)
        picks = _picks(interleave, position, turn + start, count)
        chunks[picks] = granules if data is None else granules[start : start + count]


def erase(region: NDArray[np.uint8], interleave: Interleave, chunks: NDArray[np.uint64]) -> None:
    """Make whole granules zeros, given their numbers in HPA order."""
    _chunks(region, interleave)[chunks] = np.zeros(1, _granule(interleave))


def _edges(
    region: NDArray[np.uint8], interleave: Interleave, position: int, dpa_offset: int, size: int
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """The parts of granules at both ends, as (start, end) in the region and (start, end) in the data."""
    interleave.check_position(position)
    granularity = interleave.granularity
    rounds = region.size // interleave.round
    if dpa_offset < 0 or dpa_offset + size > rounds * granularity:
        raise AddressError(
            f"{size:#x} bytes at DPA offset {dpa_offset:#x}: a region of {region.size:#x} bytes"
            f" has {rounds * granularity:#x} for each of {interleave.ways} devices"
        )
    head = min(-dpa_offset % granularity, size)
    tail = (size - head) % granularity
    start = interleave.offset(position, dpa_offset) if head else 0
    last = interleave.offset(position, dpa_offset + size - tail) if tail else 0
    return (start, start + head, 0, head), (last, last + tail, size - tail, size)


def _granule(interleave: Interleave) -> np.dtype[Any]:
    # One opaque element a granule: numpy then moves it with one memcpy.
    return np.dtype(f"V{interleave.granularity}")


def _chunks(region: NDArray[np.uint8], interleave: Interleave) -> NDArray[Any]:
    whole = region.size // interleave.round * interleave.round
    return region[:whole].view(_granule(interleave))


def _column(
    region: NDArray[np.uint8], interleave: Interleave, position: int, turn: int, turns: int
) -> NDArray[Any]:
    rounds = _chunks(region, interleave).reshape(-1, interleave.ways)
    column: NDArray[Any] = rounds[turn : turn + turns, position]
    return column


def _picks(interleave: Interleave, position: int, turn: int, turns: int) -> NDArray[np.uint64]:
    dpas = np.arange(turn, turn + turns, dtype=np.uint64) << np.uint64(interleave.shift)
    picks = interleave.offsets_of(position, dpas, dpas)
    return np.right_shift(picks, np.uint64(interleave.shift), out=picks)
