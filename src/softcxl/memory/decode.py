"""The vectorised side of `softcxl.memory.interleave`: shifts and masks over arrays, a cacheful at a time.

Every step of the arithmetic is one numpy pass over a block small enough to stay in the level-2 cache, so
that main memory is read once and written once whatever the number of steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from softcxl.memory import xor
from softcxl.memory.errors import AddressError, GeometryError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

BLOCK = 16384
"""Addresses worked on at a time: 128 KiB each for the block and its two scratch arrays."""


def locate(
    shift: int,
    ways: int,
    maps: tuple[int, ...],
    base: int,
    offsets: ArrayLike,
    positions: NDArray[np.uint8] | None,
    dpa_offsets: NDArray[np.uint64] | None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """See `Interleave.locate_many`; `shift` is log2 of the granularity."""
    source = _addresses(offsets)
    positions = _buffer(positions, source.shape, np.dtype(np.uint8))
    dpa_offsets = _buffer(dpa_offsets, source.shape, np.dtype(np.uint64))
    flat, flat_positions, flat_dpas = source.reshape(-1), positions.reshape(-1), dpa_offsets.reshape(-1)
    scratch = np.empty((3, min(BLOCK, max(flat.size, 1))), np.uint64)
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        a, b, c = scratch[:, : block.size]
        if maps:
            block = _exchange(maps, base, block, a, b, c)
        position, dpa = flat_positions[start : start + BLOCK], flat_dpas[start : start + BLOCK]
        np.right_shift(block, _u64(shift), out=b)
        if ways & (ways - 1) == 0:
            np.bitwise_and(b, _u64(ways - 1), out=position, casting="unsafe")
            np.right_shift(b, _u64(ways.bit_length() - 1), out=b)
        else:
            np.floor_divide(b, _u64(ways), out=c)
            # The remainder fits eight bits, so eight bits of the product are enough to find it.
            np.copyto(position, b, casting="unsafe")
            np.subtract(position, c.astype(np.uint8) * np.uint8(ways), out=position)
            b = c
        np.left_shift(b, _u64(shift), out=b)
        np.bitwise_and(block, _u64((1 << shift) - 1), out=dpa)
        np.bitwise_or(dpa, b, out=dpa)
    return positions, dpa_offsets


def offsets(
    shift: int,
    ways: int,
    maps: tuple[int, ...],
    base: int,
    position: int | NDArray[np.uint8],
    dpa_offsets: ArrayLike,
    out: NDArray[np.uint64] | None,
) -> NDArray[np.uint64]:
    """See `Interleave.offsets_of`; `shift` is log2 of the granularity."""
    source = _addresses(dpa_offsets)
    out = _buffer(out, source.shape, np.dtype(np.uint64))
    if not isinstance(position, int) and position.shape != source.shape:
        raise GeometryError(f"positions of shape {position.shape} for DPA offsets of shape {source.shape}")
    flat, flat_out = source.reshape(-1), out.reshape(-1)
    scratch = np.empty((3, min(BLOCK, max(flat.size, 1))), np.uint64)
    for start in range(0, flat.size, BLOCK):
        block, offset = flat[start : start + BLOCK], flat_out[start : start + BLOCK]
        a, b, c = scratch[:, : block.size]
        np.right_shift(block, _u64(shift), out=b)
        np.multiply(b, _u64(ways), out=b)
        turn = position if isinstance(position, int) else position.reshape(-1)[start : start + BLOCK]
        np.add(b, _u64(turn) if isinstance(turn, int) else turn, out=b)
        np.left_shift(b, _u64(shift), out=b)
        np.bitwise_and(block, _u64((1 << shift) - 1), out=offset)
        np.bitwise_or(offset, b, out=offset)
        if maps:
            np.copyto(offset, _exchange(maps, base, offset, a, b, c))
    return out


def _exchange(
    maps: tuple[int, ...],
    base: int,
    block: NDArray[np.uint64],
    a: NDArray[np.uint64],
    b: NDArray[np.uint64],
    c: NDArray[np.uint64],
) -> NDArray[np.uint64]:
    """Offsets with their position bits put through the XOR maps; the answer is in `a`."""
    np.add(block, _u64(base), out=b)
    xor.apply_many(maps, b, a, c)
    np.subtract(a, _u64(base), out=a)
    return a


def _addresses(values: ArrayLike) -> NDArray[np.uint64]:
    array = np.asarray(values)
    if array.dtype.kind not in "ui" and array.size:
        raise GeometryError(f"addresses must be integers, not {array.dtype}")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise AddressError(f"address {array.min()}: addresses are not negative")
    return np.ascontiguousarray(array, dtype=np.uint64).reshape(array.shape)


def _buffer(buffer: NDArray[Any] | None, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    if buffer is None:
        return np.empty(shape, kind)
    if buffer.shape != shape or buffer.dtype != kind or not buffer.flags.c_contiguous:
        raise GeometryError(
            f"a buffer of {buffer.dtype} and shape {buffer.shape} was given;"
            f" it must be contiguous, of {kind} and shape {shape}"
        )
    return buffer


def _u64(value: int) -> Any:
    return np.uint64(value)
