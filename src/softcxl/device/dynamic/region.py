"""Dynamic capacity regions: ranges of device addresses in which extents come and go (CXL 3.1 §9.13.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from softcxl.device.dynamic.errors import RegionInvalid
from softcxl.device.dynamic.extents import Range
from softcxl.spec.command.dynamic_capacity import MAX_REGIONS, DcRegion, DcRegionFlags
from softcxl.spec.command.memory import CAPACITY_UNIT
from softcxl.spec.cxl.cdat import DsmasFlags
from softcxl.spec.fm.dcd import HostDcRegion

BLOCK_MIN = 0x40
"""Bytes of the smallest block that there may be (CXL 3.1 §8.2.9.9.9.1)."""

FIRST_HANDLE = 2
"""DSMADHandle of the first region, where none is given: 0 and 1 are those of the static capacity."""

_HANDLE_MAX = 0xFF  # 32 bits in the region's configuration, 8 in the CDAT


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicRegion:
    """One region. Sizes in bytes.

    `length` is how much can be in it, a multiple of `block_size`, which is a power of two from 64 on.
    `decode_length` is how many addresses it takes, a multiple of 256 MiB and by default as many as `length`
    needs. `base` is the device's to say. Raises `RegionInvalid` for what the standard does not allow.
    """

    length: int
    block_size: int = 2 << 20
    decode_length: int = 0
    non_volatile: bool = False
    sharable: bool = False
    hardware_coherent: bool = False
    """Hardware keeps hosts that share it coherent."""
    read_only: bool = False
    sanitize_on_release: bool = False
    interconnect_managed: bool = True
    """The CDAT says so: software learns what is in it by the interconnect's own means, which are CXL's here."""
    dsmad_handle: int | None = None
    base: int = 0

    def __post_init__(self) -> None:
        size = self.block_size
        if size < BLOCK_MIN or size & (size - 1):
            raise RegionInvalid(f"blocks of {size:#x} bytes: powers of two from {BLOCK_MIN} on are allowed")
        if self.length <= 0 or self.length % size:
            raise RegionInvalid(f"a length of {self.length:#x} bytes: multiples of {size:#x} are allowed")
        if not self.decode_length:
            object.__setattr__(self, "decode_length", -(-self.length // CAPACITY_UNIT) * CAPACITY_UNIT)
        if self.decode_length % CAPACITY_UNIT or self.decode_length < self.length:
            raise RegionInvalid(
                f"a decode length of {self.decode_length:#x} bytes: multiples of 256 MiB from the length on "
                "are allowed"
            )
        if self.hardware_coherent and not self.sharable:
            raise RegionInvalid("hardware-managed coherency is for sharable regions")
        if self.dsmad_handle is not None and not FIRST_HANDLE <= self.dsmad_handle <= _HANDLE_MAX:
            raise RegionInvalid(
                f"DSMADHandle {self.dsmad_handle}: {FIRST_HANDLE} to {_HANDLE_MAX} are allowed, "
                "lower ones are the static capacity's"
            )

    @property
    def range(self) -> Range:
        """The addresses in which extents may be."""
        return self.base, self.base + self.length

    @property
    def handle(self) -> int:
        """Its DSMADHandle."""
        assert self.dsmad_handle is not None, "placed regions have one"
        return self.dsmad_handle

    @property
    def block_sizes(self) -> int:
        """The block sizes that it could have as well: bit n is set for 2^n bytes."""
        return sum(size for size in (1 << power for power in range(6, 48)) if not self.length % size)

    @property
    def attributes(self) -> DsmasFlags:
        """What it is, as its DSMAS in the CDAT says it."""
        return DsmasFlags.make(
            non_volatile=self.non_volatile,
            shareable=self.sharable,
            hardware_managed_coherency=self.hardware_coherent,
            dynamic_capacity=self.interconnect_managed,
            read_only=self.read_only,
        )

    def holds(self, start: int, length: int) -> bool:
        """Whether a range is all within it."""
        return self.base <= start and start + length <= self.base + self.length

    def aligned(self, start: int, length: int) -> bool:
        """Whether a range is of whole blocks, one at least."""
        return length > 0 and not (start - self.base) % self.block_size and not length % self.block_size

    def record(self) -> DcRegion:
        """As Get Dynamic Capacity Configuration has it."""
        return DcRegion(
            base=self.base,
            decode_length=self.decode_length // CAPACITY_UNIT,
            length=self.length,
            block_size=self.block_size,
            dsmad_handle=self.handle,
            flags=DcRegionFlags.make(sanitize_on_release=self.sanitize_on_release),
        )

    def described(self) -> HostDcRegion:
        """As Get Host DC Region Configuration has it, which a fabric manager asks for."""
        return HostDcRegion(
            base=self.base,
            decode_length=self.decode_length // CAPACITY_UNIT,
            length=self.length,
            block_size=self.block_size,
            attributes=self.attributes,
            flags=DcRegionFlags.make(sanitize_on_release=self.sanitize_on_release),
        )


def place(regions: Iterable[DynamicRegion], start: int) -> tuple[DynamicRegion, ...]:
    """The regions at their addresses, one after the other from `start`, each with a handle.

    Raises `RegionInvalid` for more than eight, or for two with the same handle.
    """
    placed: list[DynamicRegion] = []
    for number, one in enumerate(regions):
        handle = FIRST_HANDLE + number if one.dsmad_handle is None else one.dsmad_handle
        if any(handle == other.dsmad_handle for other in placed):
            raise RegionInvalid(f"region {number}: another one has DSMADHandle {handle}, too")
        placed.append(replace(one, base=start, dsmad_handle=handle))
        start += one.decode_length
    if len(placed) > MAX_REGIONS:
        raise RegionInvalid(f"{len(placed)} dynamic capacity regions: at most {MAX_REGIONS} are allowed")
    return tuple(placed)


def span(regions: Sequence[DynamicRegion]) -> int:
    """Bytes of device addresses that all of them take."""
    return sum(one.decode_length for one in regions)
