"""Who dies writing to memory that fails: what may come back with half of a write in it is torn, and is said to be."""

from __future__ import annotations

import struct

import pytest

from softcxl.pool import errors
from softcxl.pool.layout import REGION, SOURCE, SourceState
from tests.pool.directory import ATOMIC, DEAD, EPOCH, REGIONS_AT, Directory

OLD, WRITTEN = b"o" * 256, b"w" * 100
FIRST, OTHERS, REPLAY = 1, 2, 3
SOURCES_AT = 4096


def died(pool: Directory, phase: int, first: int) -> None:
    """Slot 2 has died in that phase of a write of 100 bytes at 64, half of which is in the copy that it was at."""
    at = REGIONS_AT
    struct.pack_into("<Q", pool.arena, at + REGION["lock"], 2 << 48 | EPOCH << 8 | 1)
    struct.pack_into("<Q", pool.arena, at + REGION["sequence"], 7 << 24 | 2 << 8 | first << 2 | phase)
    struct.pack_into("<QQ", pool.arena, at + REGION["intent_at"], 64, len(WRITTEN))
    pool.slot(2, state=DEAD)


def has(pool: Directory, source: int, state: SourceState) -> None:
    struct.pack_into("<I", pool.arena, SOURCES_AT + 64 * source + SOURCE["state"], state)


def health(pool: Directory, healthy: int, joining: int) -> None:
    struct.pack_into("<II", pool.arena, REGIONS_AT + REGION["healthy"], healthy, joining)


@pytest.mark.parametrize("noted", [False, True], ids=["by the source's word alone", "in the record, too"])
@pytest.mark.parametrize(("phase", "flags"), [(FIRST, 0), (OTHERS, 0), (REPLAY, ATOMIC)])
def test_half_a_write_to_memory_that_failed_is_torn_when_that_is_back(
    phase: int, flags: int, noted: bool
) -> None:
    pool = Directory()
    pool.region(copies=1, flags=flags)
    pool.open().write(0, OLD)
    pool.buffers[1][64:114] = WRITTEN[:50]
    died(pool, phase, 0)
    has(pool, 1, SourceState.FAILED)
    if noted:
        health(pool, 0, 1)
    assert pool.open().mend(2, EPOCH)
    has(pool, 1, SourceState.HEALTHY)
    health(pool, 1, 0)
    assert pool.open().torn == (64, 100)
    with pytest.raises(errors.Torn):
        pool.open().read(0, 256)
    assert pool.open().read(0, 64) == OLD[:64]


def test_a_copy_that_was_not_written_yet_is_whole_when_it_is_back() -> None:
    pool = Directory()
    pool.region(copies=2)
    pool.open().write(0, OLD)
    pool.buffers[1][64:114] = WRITTEN[:50]
    died(pool, FIRST, 0)
    has(pool, 1, SourceState.FAILED)
    has(pool, 2, SourceState.FAILED)
    health(pool, 0, 0b10)  # the first copy was lost before the second one
    assert pool.open().mend(2, EPOCH)
    has(pool, 2, SourceState.HEALTHY)
    health(pool, 0b10, 0)
    assert pool.open().read(0, 256) == OLD


@pytest.mark.parametrize("phase", [FIRST, REPLAY])
def test_a_copy_that_answers_is_mended_beside_one_that_failed(phase: int) -> None:
    pool = Directory()
    pool.region(copies=2)
    pool.open().write(0, OLD)
    journal = struct.unpack_from("<Q", pool.arena, 8192 + 2 * 256 + 80)[0]
    pool.arena[journal : journal + 100] = WRITTEN
    died(pool, phase, 0)
    has(pool, 1, SourceState.FAILED)
    assert pool.open().mend(2, EPOCH)
    found = pool.open().read(0, 256)
    assert found == (OLD if phase == FIRST else OLD[:64] + WRITTEN + OLD[164:])
