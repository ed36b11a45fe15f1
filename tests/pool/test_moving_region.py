"""A copy that is moved is a copy beyond those that a region has: written, never read."""

from __future__ import annotations

import struct

from tests.pool.directory import DEAD, EPOCH, Directory

TEXT = bytes(range(256)) * 16


def test_where_a_copy_is_moved_to_is_written_and_never_read() -> None:
    pool = Directory()
    at = pool.region(copies=1)
    one = pool.open()
    one.write(0, TEXT)
    struct.pack_into("<Q", pool.arena, at + 128 + 8, 2 << 56)
    struct.pack_into("<I", pool.arena, at + 100, 0b10)
    one.write(4096, TEXT)
    one.add(8192, 7)
    assert pool.copy(1, 8200) == bytes(4096) + TEXT + struct.pack("<Q", 7)
    one.rebuild(1, 0, 4096)
    assert pool.copy(1, 8200) == pool.copy(0, 8200)
    pool.buffers[2][:16] = b"never to be read"
    assert one.read(0, 4096) == TEXT


def test_a_write_to_three_copies_is_brought_to_the_one_that_is_moved_to() -> None:
    """The writer died while the others were written: what the first copy has is brought to all the rest."""
    pool = Directory()
    at = pool.region(copies=2)
    one, other = pool.open(slot=1), pool.open(slot=2)
    one.lock()
    struct.pack_into("<Q", pool.arena, at + 128 + 16, 3 << 56)
    struct.pack_into("<I", pool.arena, at + 100, 0b100)
    pool.buffers[1][64:128] = bytes(range(64))
    struct.pack_into("<QQQ", pool.arena, at + 72, 1 << 8 | 2, 64, 64)
    pool.slot(1, state=DEAD)
    assert other.mend(1, EPOCH)
    assert pool.copy(2, 128) == pool.copy(1, 128) == bytes(64) + bytes(range(64))
