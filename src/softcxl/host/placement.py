"""Address space for BARs and bridge windows: who needs how much, and where that goes.

>>> needs = [Need(0x10000, 0x10000), Need(0x300000, 0x100000)]
>>> stack = stacked(needs)
>>> hex(stack.size), [hex(place) for place in stack.places(0xC000_0000)]
('0x310000', ['0xc0300000', '0xc0000000'])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from softcxl.host.errors import EnumerationError

FOUR_GIB = 1 << 32


@dataclass(frozen=True, slots=True)
class Need:
    """So many bytes, at a multiple of `alignment`."""

    size: int
    alignment: int


@dataclass(frozen=True, slots=True)
class Stack:
    """Needs put one after the other, the most aligned first, so that there are no gaps to speak of."""

    size: int
    alignment: int
    offsets: tuple[int, ...]

    def places(self, base: int) -> list[int]:
        """An address for each need, in the order in which they were given."""
        return [base + offset for offset in self.offsets]


def stacked(needs: Sequence[Need]) -> Stack:
    """The smallest stack of these needs."""
    offsets = [0] * len(needs)
    end = 0
    for index in sorted(range(len(needs)), key=lambda index: -needs[index].alignment):
        need = needs[index]
        if not need.size:
            continue
        end = -(-end // need.alignment) * need.alignment
        offsets[index] = end
        end += need.size
    return Stack(end, max((need.alignment for need in needs if need.size), default=1), tuple(offsets))


class Pool:
    """The ranges of addresses, as (base, size), that a machine's host bridges pass on."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._free = sorted((base, base + size) for base, size in ranges)

    def take(self, need: Stack, name: str, *, low: bool) -> int:
        """The lowest place below 4 GiB if `low`, else the highest-lying range's first that fits.

        Raises `EnumerationError`, with `name` in it, where none fits.
        """
        ranges = self._free if low else list(reversed(self._free))
        for start, end in ranges:
            base = -(-start // need.alignment) * need.alignment
            if base + need.size <= (min(end, FOUR_GIB) if low else end):
                self._free.remove((start, end))
                self._free += [(start, base), (base + need.size, end)]
                self._free = sorted(one for one in self._free if one[0] < one[1])
                return base
        where = "below 4 GiB" if low else "anywhere"
        raise EnumerationError(
            f"{name}: {need.size:#x} bytes aligned to {need.alignment:#x} are needed {where}, and no range has them"
        )
