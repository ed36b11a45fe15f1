"""Which addresses an addition gets (CXL 3.1 §7.6.7.6.5)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from softcxl.device.dynamic.errors import AddressOutside, CapacityExhausted, ExtentInvalid, LengthInvalid
from softcxl.device.dynamic.extents import Extent, Range, overlapping
from softcxl.device.dynamic.region import DynamicRegion


class Selection(enum.IntEnum):
    """Selection Policy: how the device chooses extents (CXL 3.1 §7.6.7.6.5)."""

    FREE = 0
    """The lowest free blocks, in as many extents as it takes."""
    CONTIGUOUS = 1
    """One extent, the lowest that is large enough."""
    PRESCRIPTIVE = 2
    """The extents that are given."""
    SHARED = 3
    """Those that another host has by the tag that is given."""


def choose(region: DynamicRegion, free: Sequence[Range], length: int, *, contiguous: bool) -> list[Range]:
    """The lowest `length` bytes of `free`, in one piece or several.

    Raises `LengthInvalid` for a length that is not of whole blocks, and `CapacityExhausted`.
    """
    if not region.aligned(region.base, length):
        raise LengthInvalid(f"a length of {length:#x} bytes: multiples of {region.block_size:#x} are allowed")
    found: list[Range] = []
    wanted = length
    for start, end in free:
        if contiguous and end - start < wanted:
            continue
        found.append((start, min(end, start + wanted)))
        wanted -= found[-1][1] - start
        if not wanted:
            return found
    largest = max((end - start for start, end in free), default=0)
    raise CapacityExhausted(
        f"{length:#x} bytes: {sum(end - start for start, end in free):#x} are free, {largest:#x} in one piece"
    )


def prescribed(
    region: DynamicRegion, given: Iterable[Extent | tuple[int, int]], taken: Sequence[Range]
) -> list[Extent]:
    """The extents that were asked for, (start, length) or more, if `region` has them and none of them is `taken`.

    In a sharable region they get their sequence by their order, unless they have one. Raises `ExtentInvalid` and
    `AddressOutside`.
    """
    extents = [one if isinstance(one, Extent) else Extent(*one) for one in given]
    if not extents:
        raise ExtentInvalid("no extents: give at least one")
    for one in extents:
        checked(region, one)
    if overlapping(one.range for one in extents):
        raise ExtentInvalid("the extents overlap each other")
    for one in extents:
        if any(one.start < end and start < one.end for start, end in taken):
            raise ExtentInvalid(f"{one} is not free")
    sequences = [one.sequence for one in extents]
    if any(sequences) and (not region.sharable or sorted(sequences) != list(range(len(extents)))):
        raise ExtentInvalid(
            f"sequences {sequences}: 0 to {len(extents) - 1} are allowed, in a sharable region"
        )
    return extents


def checked(region: DynamicRegion, extent: Extent) -> None:
    """Raises `AddressOutside` or `ExtentInvalid` unless there can be such an extent in the region."""
    if not region.holds(extent.start, extent.length):
        raise AddressOutside(
            f"{extent} is not within the region, DPA {region.base:#x} to {region.base + region.length:#x}"
        )
    if not region.aligned(extent.start, extent.length):
        raise ExtentInvalid(f"{extent} is not of whole blocks of {region.block_size:#x} bytes")
