"""From a chain of decoders to one interleave.

The window deals addresses out to host bridges, a bridge to its ports, a switch to its own; the endpoint's
decoder holds ways and granularity of the whole, and nobody holds its position. `flatten` computes both from
the levels an address passes, whichever of them has the finer granularity (CXL 3.1 §9.13.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from softcxl.memory.errors import GeometryError
from softcxl.memory.interleave import Interleave, encode_granularity, encode_ways

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Level:
    """One decoder on the way to an endpoint: its ways, its granularity in bytes, the target taken."""

    ways: int
    granularity: int
    position: int

    def __post_init__(self) -> None:
        encode_ways(self.ways)
        encode_granularity(self.granularity)
        if not 0 <= self.position < self.ways:
            raise GeometryError(f"target {self.position}: {self.ways} ways have targets 0 to {self.ways - 1}")


def flatten(levels: Sequence[Level], base: int = 0) -> tuple[Interleave, int]:
    """The interleave an endpoint sees, and its position in it: that of its chunk in the first round.

    `base` is the address at which the region starts. It matters to 3, 6 and 12 ways only: targets are chosen
    by whole addresses, so a region that starts inside a round starts with another device (Linux
    ``drivers/cxl/core/region.c``, unaligned regions). Levels of one way are passed through.
    Raises `GeometryError` if the levels' granularities leave gaps or overlap, or a region cannot start there.
    """
    finest_first = sorted((level for level in levels if level.ways > 1), key=lambda level: level.granularity)
    if not finest_first:
        return Interleave(1, levels[0].granularity if levels else 256), 0
    granularity = finest_first[0].granularity
    position, ways = 0, 1
    for level in finest_first:
        # A level above a division by three is addressed by the bits that the division leaves in place.
        if level.granularity != granularity * ways:
            raise GeometryError(
                f"{level.ways} ways at {level.granularity} bytes over {ways} at {granularity}:"
                f" the granularity must be {granularity * ways}"
            )
        position += level.position * ways
        ways *= level.ways
    if base % granularity:
        raise GeometryError(
            f"a region at {base:#x} does not start at a multiple of its granularity {granularity}"
        )
    interleave = Interleave(ways, granularity)
    return interleave, (position - base // granularity) % prod(level.ways for level in finest_first)
