"""What the directory says of a region, at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from softcxl.pool import layout
from softcxl.pool.layout import Mode, RegionFlag


@dataclass(frozen=True)
class Copy:
    """One copy of a region: where it is, and what of it."""

    source: int
    offset: int
    healthy: bool
    """It is read, and written."""
    joining: bool
    """It is being rebuilt: written, and not read yet."""
    poisoned: bool
    """It has poison somewhere."""


@dataclass(frozen=True)
class RegionInfo:
    """What the directory says of a region. Sizes and offsets are bytes."""

    index: int
    generation: int
    name: str
    """Empty where it has none."""
    size: int
    owner: int
    """The owner's slot; 0 where the owner has gone and the region has stayed."""
    mode: Mode
    flags: RegionFlag
    copies: tuple[Copy, ...]
    lease: float = 0.0
    """For how many seconds it stays when nobody has it open; 0 for ever."""
    writes: int = 0
    """How often it was written, modulo 2^40; writes of one aligned word to one copy are not counted."""
    locked_by: int | None = None
    """The slot that has its lock."""

    @classmethod
    def of(cls, index: int, record: layout.RegionRecord) -> Self:
        """From a region's record."""
        copies = []
        for copy in range(min(record.copies, layout.MAX_COPIES)):
            source, offset = layout.split(getattr(record, f"extent{copy}"))
            bit = 1 << copy
            copies.append(
                Copy(
                    source,
                    offset,
                    bool(record.healthy & bit),
                    bool(record.joining & bit),
                    bool(record.poisoned & bit),
                )
            )
        return cls(
            index,
            record.word >> 24,
            layout.decode_name(record.name),
            record.size,
            record.owner,
            Mode(record.mode) if record.mode in tuple(Mode) else Mode.PRIVATE,
            RegionFlag(record.flags & 7),
            tuple(copies),
            record.lease / 1000,
            record.sequence >> 24,
            record.lock >> 48 if record.lock & 0xFF else None,
        )


@dataclass(frozen=True)
class RegionStat:
    """How a region is. Sizes and offsets are bytes."""

    info: RegionInfo
    healthy: int
    """How many copies are read."""
    joining: int
    """How many copies are being rebuilt."""
    torn: tuple[int, int] | None
    """Offset and size of what a dead writer has left neither old nor new."""
    poisoned: tuple[tuple[int, int, int], ...]
    """Poisoned bytes: number of the copy, offset, size."""
    views: int
    """How many views of it this client has."""
