"""Who has how much of a device's memory: allocations, in multiples of a granularity, never more than there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from softcxl.device.mld.errors import AllocationUneven, CapacityExceeded, NoSuchLd
from softcxl.spec.fm.mhd import NO_HEAD
from softcxl.spec.fm.mld import MemoryGranularity

GRANULARITIES: Final = {
    256 << 20: MemoryGranularity.MIB_256,
    512 << 20: MemoryGranularity.MIB_512,
    1 << 30: MemoryGranularity.GIB_1,
}
"""The granularities that there are, by bytes (CXL 3.1 §7.6.7.4.2)."""


POOL_MAX: Final = NO_HEAD
"""Logical devices of a device with any number of heads, at most: their IDs are a byte."""


class Allocation(NamedTuple):
    """What a logical device has, in bytes: Range 1 of the standard is its volatile, Range 2 its persistent memory."""

    volatile: int = 0
    persistent: int = 0

    @classmethod
    def of(cls, given: int | Sequence[int]) -> Self:
        """From (volatile, persistent), or from a number, which is all volatile."""
        return cls(given) if isinstance(given, int) else cls(*given)


NOTHING: Final = Allocation()


@dataclass(frozen=True, slots=True)
class Allocations:
    """The allocations of all logical devices, by LD ID, out of `volatile` and `persistent` bytes.

    Raises `ValueError` for a granularity (bytes) or a number of logical devices that there is not, and what `with_`
    does for allocations that cannot be.
    """

    volatile: int
    persistent: int
    granularity: int
    each: tuple[Allocation, ...]

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise ValueError(
                f"a granularity of {self.granularity:#x} bytes: 256 MiB, 512 MiB and 1 GiB are possible"
            )
        if not 1 <= len(self.each) <= POOL_MAX:
            raise ValueError(f"{len(self.each)} logical devices: 1 to {POOL_MAX} are possible")
        for ld, one in enumerate(self.each):
            for name, size in zip(one._fields, one, strict=True):
                if size < 0 or size % self.granularity:
                    raise AllocationUneven(
                        f"LD {ld}: {size:#x} bytes of {name} capacity: multiples of {self.granularity:#x} are allowed"
                    )
        for name in Allocation._fields:
            given, there = sum(getattr(one, name) for one in self.each), getattr(self, name)
            if given > there:
                raise CapacityExceeded(
                    f"{given:#x} bytes of {name} capacity for logical devices: the device has {there:#x}"
                )

    @property
    def free(self) -> Allocation:
        """What nobody has."""
        return Allocation(
            self.volatile - sum(one.volatile for one in self.each),
            self.persistent - sum(one.persistent for one in self.each),
        )

    def with_(self, changes: Mapping[int, Allocation]) -> Allocations:
        """These with `changes`, all of them. Raises `NoSuchLd`, `AllocationUneven`, `CapacityExceeded`."""
        for ld in changes:
            if not 0 <= ld < len(self.each):
                raise NoSuchLd(f"LD {ld}: the device has {len(self.each)}, from 0 on")
        each = tuple(changes.get(ld, one) for ld, one in enumerate(self.each))
        return Allocations(self.volatile, self.persistent, self.granularity, each)

    def changed(self, after: Allocations) -> list[int]:
        """The LD IDs whose allocation is another in `after`."""
        pairs = zip(self.each, after.each, strict=True)
        return [ld for ld, (one, other) in enumerate(pairs) if one != other]

    def plain(self) -> list[list[int]]:
        """As a state page keeps them."""
        return [list(one) for one in self.each]

    def read(self, plain: list[Any]) -> Allocations:
        """These capacities with what `plain` has kept. Raises what Python does for values that cannot be."""
        if len(plain) != len(self.each):
            raise ValueError(f"{len(plain)} logical devices, not {len(self.each)}")
        each = tuple(Allocation(int(volatile), int(persistent)) for volatile, persistent in plain)
        return Allocations(self.volatile, self.persistent, self.granularity, each)
