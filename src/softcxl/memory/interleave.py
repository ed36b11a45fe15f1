"""Interleave arithmetic: which device holds an address, and where (CXL 3.1 §8.2.4.20.13).

A region of *w* ways and granularity *g* is dealt out like cards: its first *g* bytes rest in the device at
position 0, the next *g* in position 1, and after position *w* − 1 it is position 0's turn again. That is
all of modulo arithmetic, for 3, 6 and 12 ways too; the standard's shifts and its division by three are the
same thing seen from the address bits. XOR arithmetic shuffles the devices within each round of *w*
(`softcxl.memory.xor`).

Offsets are relative to the start of the region, DPA offsets to the first byte the device gives to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from softcxl.memory import decode, xor
from softcxl.memory.errors import AddressError, GeometryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

ADDRESS_LIMIT = 1 << 52
"""HDM decoders hold address bits 51:0."""

WAYS = (1, 2, 4, 8, 16, 3, 6, 12)
"""Interleave ways, in the order of their encodings 0-4 and 8-10 (CXL 3.1 §8.2.4.20.7)."""

GRANULARITIES = (256, 512, 1024, 2048, 4096, 8192, 16384)
"""Interleave granularities in bytes, in the order of their encodings 0-6 (CXL 3.1 §8.2.4.20.7)."""

_WAYS_BY_CODE = dict(zip((0, 1, 2, 3, 4, 8, 9, 10), WAYS, strict=True))
_CODE_BY_WAYS = {ways: code for code, ways in _WAYS_BY_CODE.items()}


def encode_ways(ways: int) -> int:
    """The value of a decoder's Interleave Ways field. Raises `GeometryError` for ways it cannot say."""
    try:
        return _CODE_BY_WAYS[ways]
    except KeyError:
        raise GeometryError(f"{ways} ways: allowed are {_listed(sorted(WAYS))}") from None


def decode_ways(code: int) -> int:
    """The ways that an Interleave Ways field says. Raises `GeometryError` for a reserved value."""
    try:
        return _WAYS_BY_CODE[code]
    except KeyError:
        raise GeometryError(
            f"interleave ways encoding {code}: allowed are {_listed(_WAYS_BY_CODE)}"
        ) from None


def encode_granularity(granularity: int) -> int:
    """The value of an Interleave Granularity field, for bytes. Raises `GeometryError` for others."""
    try:
        return GRANULARITIES.index(granularity)
    except ValueError:
        raise GeometryError(f"granularity {granularity}: allowed are {_listed(GRANULARITIES)}") from None


def decode_granularity(code: int) -> int:
    """The bytes that an Interleave Granularity field says. Raises `GeometryError` for a reserved value."""
    if not 0 <= code < len(GRANULARITIES):
        raise GeometryError(
            f"interleave granularity encoding {code}: allowed are 0 to {len(GRANULARITIES) - 1}"
        )
    return GRANULARITIES[code]


@dataclass(frozen=True, slots=True)
class Interleave:
    """How a region is dealt out to its devices.

    `ways` is one of `WAYS`, `granularity` (bytes) one of `GRANULARITIES`. `xor_maps` are the CXIMS maps in
    use (`softcxl.memory.xor.maps_for`), and `base` the address at which the region starts: XOR maps look at
    whole addresses. Without maps `base` means nothing and is stored as 0, so that geometries which decode
    alike are equal. Raises `GeometryError` for anything else.
    """

    ways: int = 1
    granularity: int = 256
    xor_maps: tuple[int, ...] = ()
    base: int = 0

    def __post_init__(self) -> None:
        encode_ways(self.ways)
        encode_granularity(self.granularity)
        object.__setattr__(self, "xor_maps", tuple(self.xor_maps))
        power_of_two = self.ways & -self.ways
        xor.check_maps(self.xor_maps, self.shift, power_of_two.bit_length() - 1)
        if not xor.diagonals(self.xor_maps):
            object.__setattr__(self, "xor_maps", ())
            object.__setattr__(self, "base", 0)
        elif not 0 <= self.base < ADDRESS_LIMIT or self.base % (power_of_two * self.granularity):
            raise GeometryError(
                f"an XOR interleave at {self.base:#x}: its base must be below 2**52"
                f" and a multiple of {power_of_two * self.granularity:#x}"
            )

    @property
    def shift(self) -> int:
        """log2 of the granularity."""
        return self.granularity.bit_length() - 1

    @property
    def round(self) -> int:
        """Bytes after which every device has had its turn: ways times granularity."""
        return self.ways * self.granularity

    def locate(self, offset: int) -> tuple[int, int]:
        """(position, DPA offset) of the byte at `offset` of the region.

        Raises `AddressError` if `offset` is negative or not below 2**52.
        """
        if not 0 <= offset < ADDRESS_LIMIT:
            raise AddressError(f"region offset {offset:#x}: allowed are 0 to {ADDRESS_LIMIT - 1:#x}")
        if self.xor_maps:
            offset = xor.apply(self.xor_maps, self.base + offset) - self.base
        turn, position = divmod(offset >> self.shift, self.ways)
        return position, turn << self.shift | offset & (self.granularity - 1)

    def offset(self, position: int, dpa_offset: int) -> int:
        """The region offset of a device's byte: the inverse of `locate`.

        Raises `GeometryError` for a position the ways do not have, `AddressError` for a DPA offset whose
        region offset would not be below 2**52.
        """
        self.check_position(position)
        turn, low = dpa_offset >> self.shift, dpa_offset & (self.granularity - 1)
        offset = (turn * self.ways + position << self.shift) | low
        if not 0 <= offset < ADDRESS_LIMIT:
            raise AddressError(
                f"DPA offset {dpa_offset:#x}: its region offset would be {offset:#x}, past 2**52"
            )
        if self.xor_maps:
            offset = xor.apply(self.xor_maps, self.base + offset) - self.base
        return offset

    def check_position(self, position: int) -> None:
        """Raise `GeometryError` unless the interleave has this position."""
        if not 0 <= position < self.ways:
            raise GeometryError(f"position {position}: {self.ways} ways have positions 0 to {self.ways - 1}")

    def locate_many(
        self,
        offsets: ArrayLike,
        positions: NDArray[np.uint8] | None = None,
        dpa_offsets: NDArray[np.uint64] | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        """`locate` on an array of offsets of any shape; gives (positions, DPA offsets) of that shape.

        The two optional arguments are buffers for the answer: C-contiguous and of the same shape, so that a
        loop allocates nothing. Offsets of 2**52 and more are not looked for and give nonsense.
        Raises `GeometryError` for buffers of another shape or type, `AddressError` for negative offsets.
        """
        return decode.locate(self.shift, self.ways, self.xor_maps, self.base, offsets, positions, dpa_offsets)

    def offsets_of(
        self, position: int | NDArray[np.uint8], dpa_offsets: ArrayLike, out: NDArray[np.uint64] | None = None
    ) -> NDArray[np.uint64]:
        """`offset` on an array of DPA offsets, all of one position or each of its own.

        `out` is an optional C-contiguous buffer of the same shape. Errors as in `locate_many` and `offset`.
        """
        if isinstance(position, int):
            self.check_position(position)
        elif position.size:
            self.check_position(int(position.max()))
        return decode.offsets(self.shift, self.ways, self.xor_maps, self.base, position, dpa_offsets, out)


def _listed(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in values)
