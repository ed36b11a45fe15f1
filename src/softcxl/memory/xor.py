"""XOR interleave arithmetic: the maps of a CXL XOR Interleave Math Structure (CXIMS).

In a window with XOR arithmetic each position bit of an address is the exclusive or of several address bits:
those set in one *map*, whose lowest set bit is the position bit itself. Putting the position bits through
their maps turns a system address into one that modulo arithmetic decodes, and doing it twice gives the
address back (CXL 3.1 §9.18.1.5, Table 9-22 and Table 9-23; Linux ``drivers/cxl/acpi.c``).

A decoder of *w* ways uses the first maps of the list, one for each power of two in *w*: none for 1 and 3
ways, one for 2 and 6, two for 4 and 12, three for 8, four for 16.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from softcxl.memory.errors import GeometryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MAPS_FOR_WAYS = {1: 0, 2: 1, 3: 0, 4: 2, 6: 1, 8: 3, 12: 2, 16: 4}


def maps_for(ways: int, maps: Sequence[int]) -> tuple[int, ...]:
    """The maps of a CXIMS that a host-bridge interleave of `ways` uses, in order.

    Raises `GeometryError` if `ways` has no CXL encoding or the list is too short for it.
    """
    if ways not in _MAPS_FOR_WAYS:
        raise GeometryError(f"{ways} ways: allowed are {', '.join(map(str, _MAPS_FOR_WAYS))}")
    needed = _MAPS_FOR_WAYS[ways]
    if len(maps) < needed:
        raise GeometryError(f"{ways} ways need {needed} XOR maps, {len(maps)} given")
    return tuple(maps[:needed])


def check_maps(maps: Sequence[int], lowest: int, count: int) -> None:
    """Check that `maps` can be undone, for position bits `lowest` to ``lowest + count - 1``.

    The standard computes all position bits from the address as it came, Linux one after the other on the
    result so far. The two differ, and neither can be undone by itself, if a map looks at a bit that another
    map changes; such a set is refused with `GeometryError`. A zero map stands for an unused entry.
    """
    changed: dict[int, int] = {}
    for xor_map in maps:
        if not 0 <= xor_map < 1 << 64:
            raise GeometryError(f"XOR map {xor_map:#x} is not a 64-bit number")
        if not xor_map:
            continue
        bit = _lowest_bit(xor_map)
        if not lowest <= bit < lowest + count:
            allowed = f"bits {lowest} to {lowest + count - 1}" if count else "no bit: these ways have none"
            raise GeometryError(f"XOR map {xor_map:#x} starts at bit {bit}; position bits are {allowed}")
        if bit in changed:
            raise GeometryError(f"XOR maps {changed[bit]:#x} and {xor_map:#x} both give position bit {bit}")
        changed[bit] = xor_map
    for bit, xor_map in changed.items():
        if xor_map == 1 << bit:
            continue
        for other in changed.values():
            if other is not xor_map and other >> bit & 1:
                raise GeometryError(
                    f"XOR map {other:#x} looks at bit {bit}, which map {xor_map:#x} changes:"
                    " it cannot be undone"
                )


@lru_cache(maxsize=256)
def diagonals(maps: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The maps as pairs (distance, mask): ``address ^ Σ (address >> distance & mask)`` applies them all.

    Maps of one CXIMS are usually one pattern shifted, so that a handful of shifts serves all of them.
    """
    masks: dict[int, int] = {}
    for xor_map in maps:
        if xor_map:
            bit = _lowest_bit(xor_map)
            for other in range(bit + 1, 64):
                if xor_map >> other & 1:
                    masks[other - bit] = masks.get(other - bit, 0) ^ 1 << bit
    return tuple(sorted(masks.items()))


def apply(maps: tuple[int, ...], address: int) -> int:
    """System address to modulo address, or back: the operation is its own inverse."""
    result = address
    for distance, mask in diagonals(maps):
        result ^= address >> distance & mask
    return result


def apply_many(
    maps: tuple[int, ...], addresses: NDArray[np.uint64], out: NDArray[np.uint64], scratch: NDArray[np.uint64]
) -> None:
    """`apply` on an array. `out` and `scratch` have the shape of `addresses` and are not the same memory."""
    np.copyto(out, addresses)
    for distance, mask in diagonals(maps):
        np.right_shift(addresses, _u64(distance), out=scratch)
        np.bitwise_and(scratch, _u64(mask), out=scratch)
        np.bitwise_xor(out, scratch, out=out)


def _lowest_bit(value: int) -> int:
    return (value & -value).bit_length() - 1


def _u64(value: int) -> Any:
    # A numpy scalar: with a Python int, numpy 1.x would promote the result to float64.
    return np.uint64(value)
