"""What a guest finds in the memory of SoftCXL's pool-memory device: a CXL region that is the memory pool.

Ours, and no standard's; `softcxl_front.h` says the same in C. The first 2 MiB are the *front*: what else is in the
region, and where programs of the guest ask and ring by loads and stores alone. Behind it come the arena and the pool's
memory devices, each at a multiple of 2 MiB.

A *cell* is for one request. Whoever asks takes a free one by a compare-and-swap of its word (`word_of`), fills it in,
and has the word say ASKED; the server answers in place, and has it say ANSWERED; who has asked reads that, and has it
be FREE. A *bell* is a word that is 0, or tells that a word of the arena is rung (`bell_of`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

from softcxl.wire import Record, raw, reserved, u32, u64

MAGIC: Final = int.from_bytes(b"SCXLPMEM", "little")
VERSION: Final = 1

POOL_MEMORY_ID: Final = 0x5C03
"""PCI device ID of a pool-memory device."""

ALIGNMENT: Final = 2 << 20
"""Bytes of the front, and of what all pieces' places are multiples: who maps device DAX maps whole 2 MiB."""

TABLE_OFFSET: Final = 0x1000
ENTRIES: Final = 64
"""Pieces that the table has room for: the arena, and 63 memory devices. A piece's index is the source's number."""

ENTRY_NAME: Final = 48
BELLS_OFFSET: Final = 0x3000
BELLS: Final = 56
WORDS_OFFSET: Final = BELLS_OFFSET + 8 * BELLS
"""The words of cells, behind the bells: a look at all of them is one."""

CELLS: Final = 8
CELLS_OFFSET: Final = 0x4000
CELL_SIZE: Final = 0x1000
HEAD_SIZE: Final = 64
PAYLOAD_SIZE: Final = CELL_SIZE - HEAD_SIZE
"""Bytes of a request, or of an answer, at most."""

CAPACITY_UNIT: Final = 256 << 20
"""Of what a device's capacity, and so the whole region, is a multiple (CXL 3.1 §8.2.9.9.1.1)."""


class CellState(enum.IntEnum):
    """What a cell's word says, in its lowest 8 bits; the others are who has it, a random number other than 0."""

    FREE = 0
    CLAIMED = 1
    ASKED = 2
    ANSWERED = 3


class FrontHeader(Record, size=64, spec="softcxl_front.h"):
    """The first bytes of the region."""

    magic: int = u64("the bytes `SCXLPMEM`")
    version: int = u32()
    ready: int = u32("1: a pool's server answers")
    size: int = u64("bytes that a region must have to show all pieces")
    beat: int = u64("goes up as long as somebody looks at cells and bells")
    table: int = u32("where the table of pieces is: bytes from the front's start, as all of these")
    entries: int = u32("of the table")
    bells: int = u32("where the bells are: one u64 each")
    bell_count: int = u32()
    words: int = u32("where the cells' words are: one u64 each")
    cells: int = u32("where the cells are")
    cell_count: int = u32()
    cell_size: int = u32("bytes from one cell to the next: 64, then the payload")


class PieceEntry(Record, size=64, spec="softcxl_front.h"):
    """A piece of the region: a source of the pool."""

    offset: int = u64("in bytes from the region's start")
    size: int = u64("in bytes; 0: there is none of that number")
    name: bytes = raw(ENTRY_NAME)


class CellHead(Record, size=HEAD_SIZE, spec="softcxl_front.h"):
    """What stands before a cell's payload."""

    slot: int = u32("the slot that the server gave who asks; 0 where none was given yet")
    opcode: int = u32("what is asked (`softcxl.pool.protocol.Opcode`)")
    length: int = u32("bytes of the request; of the answer when it is there")
    status: int = u32("of the answer: 0, or what went wrong (`softcxl.pool.protocol.Status`)")
    _reserved: None = reserved(48)


def word_of(owner: int, state: CellState) -> int:
    """A cell's word, for who has it."""
    return owner << 8 | state


def bell_of(offset: int) -> int:
    """What a bell says where the word at `offset` of the arena (bytes, a multiple of 8) is rung."""
    return offset // 8 + 1


def rung(bell: int) -> int:
    """The offset of the word that a bell other than 0 tells of."""
    return (bell - 1) * 8


def places(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Where pieces of these sizes (bytes) are, the arena's first, and where the last one ends."""
    found, at, end = [], ALIGNMENT, ALIGNMENT
    for size in sizes:
        found.append(at)
        end = at + size
        at = -(-end // ALIGNMENT) * ALIGNMENT
    return found, end


def capacity(sizes: Iterable[int]) -> int:
    """Bytes of a device that shows pieces of these sizes."""
    _, end = places(sizes)
    return -(-end // CAPACITY_UNIT) * CAPACITY_UNIT
