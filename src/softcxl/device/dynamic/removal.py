"""Which addresses a release takes from a host (CXL 3.1 §7.6.7.6.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from softcxl.device.dynamic.errors import AddressOutside, ExtentInvalid, LengthInvalid, TagInvalid
from softcxl.device.dynamic.extents import Extent, Range, overlapping, subtracted
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.selection import checked

RegionOf = Callable[[int], DynamicRegion]
"""The region that has an address. Raises `AddressOutside`."""


def named(host: int, extents: Sequence[Extent], had: Sequence[Extent], region_of: RegionOf) -> list[Range]:
    """The addresses of `extents`, where they are of what `host` had.

    Raises `ExtentInvalid` for none, or for those that there cannot be, and `AddressOutside`.
    """
    if not extents:
        raise ExtentInvalid("no extents: give at least one")
    for one in extents:
        checked(region_of(one.start), one)
    ranges = [one.range for one in extents]
    if overlapping(ranges):
        raise ExtentInvalid("the extents overlap each other")
    if lacking := subtracted(ranges, [one.range for one in had]):
        start, end = lacking[0]
        raise AddressOutside(f"DPA {start:#x} to {end:#x} is not of host {host}")
    return ranges


def tagged(
    host: int, tag: UUID, length: int | None, had: Sequence[Extent], region_of: RegionOf
) -> list[Range]:
    """The addresses of all that `host` had with `tag`, or of the last `length` bytes of them.

    Raises `TagInvalid` where it had none, `LengthInvalid` for a length that is not of whole blocks, of none, or of more
    than it had.
    """
    found = [one for one in had if one.tag == tag]
    if not found:
        raise TagInvalid(f"host {host} has no extents with tag {tag}")
    if length is None:
        return [one.range for one in found]
    ranges: list[Range] = []
    for one in sorted(found, reverse=True):
        part = min(length, one.length)
        if part:
            region = region_of(one.start)
            if not region.aligned(region.base, part):
                raise LengthInvalid(f"{part:#x} bytes: multiples of {region.block_size:#x} are allowed")
            ranges.append((one.end - part, one.end))
        length -= part
    if length or not ranges:
        raise LengthInvalid(f"host {host} has too little with tag {tag}, or a length of 0 was asked for")
    return ranges
