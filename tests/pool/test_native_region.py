"""Regions of the C core: what is written is in every copy, what is read is whole, and what cannot be is an error."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import threading
from collections.abc import Iterator

import pytest

from softcxl.pool import errors
from softcxl.pool.native import Memory, Region
from tests.pool.directory import ATOMIC, DEAD, EPOCH, GENERATION, Directory

TEXT = bytes(range(256)) * 16


@contextlib.contextmanager
def within_the_lock(region: Region) -> Iterator[None]:
    region.lock()
    yield
    region.unlock()


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_a_write_is_in_every_copy(copies: int) -> None:
    pool = Directory()
    pool.region(copies=copies)
    one = pool.open()
    one.write(100, TEXT)
    assert one.read(100, len(TEXT)) == TEXT
    for copy in range(copies):
        assert pool.copy(copy, 100 + len(TEXT)) == bytes(100) + TEXT
    into = bytearray(300_000)
    with pytest.raises(IndexError, match="300000 bytes at 0: the region has 65536"):
        one.read_into(0, into)
    one.read_into(0, memoryview(into)[: 1 << 16])
    assert into[100 : 100 + len(TEXT)] == TEXT


def test_a_large_write_gives_the_interpreter_free_and_comes_whole() -> None:
    pool = Directory()
    pool.region(size=256 << 10, copies=3)
    one = pool.open()
    data = os.urandom(256 << 10)
    one.write(0, data)
    assert one.read(0, len(data)) == data
    assert all(pool.copy(copy, len(data)) == data for copy in range(3))


@pytest.mark.parametrize("offset", [0, 1, 63, 4096])
def test_a_write_that_goes_past_the_caches_is_the_same(offset: int) -> None:
    pool = Directory(sources=2, source=12 << 20)
    pool.region(size=12 << 20, copies=2)
    one = pool.open()
    data = os.urandom((5 << 20) + 4097)
    one.write(offset, data)
    into = bytearray(12 << 20)
    one.read_into(0, into)
    expected = bytes(offset) + data + bytes((12 << 20) - offset - len(data))
    assert into == expected
    assert pool.copy(0, 12 << 20) == pool.copy(1, 12 << 20) == expected


@pytest.mark.parametrize(("offset", "target"), [(0, 0), (1, 0), (4095, 1), (64, 63)])
def test_a_read_that_goes_past_the_caches_is_the_same(offset: int, target: int) -> None:
    size = 20 << 20
    pool = Directory(sources=2, source=size)
    pool.region(size=size, copies=2)
    one = pool.open()
    data = os.urandom(size)
    one.write(0, data)
    length = (16 << 20) + 4097
    into = bytearray(b"?") * (target + length + 1)
    one.read_into(offset, memoryview(into)[target : target + length])
    assert into == b"?" * target + data[offset : offset + length] + b"?"
    assert one.read(offset, length) == data[offset : offset + length]
    with within_the_lock(one):
        assert one.read(offset, length) == data[offset : offset + length]


@pytest.mark.parametrize(("offset", "size"), [(0, 65537), (65536, 1), (1 << 63, 8), (8, (1 << 64) - 8)])
def test_out_of_range_is_an_index_error(offset: int, size: int) -> None:
    pool = Directory()
    pool.region()
    with pytest.raises(IndexError, match="the region has 65536"):
        pool.open().read(offset, size)


def test_words_are_counted_in_every_copy() -> None:
    pool = Directory()
    pool.region(copies=2)
    one, other = pool.open(slot=1), pool.open(slot=2)
    assert one.add(8, 5) == 5
    assert other.add(8, -1) == 4
    assert one.swap(8, 4, 1 << 63)
    assert not one.swap(8, 4, 9)
    assert other.load(8) == 1 << 63
    assert pool.copy(0, 16) == pool.copy(1, 16) == struct.pack("<QQ", 0, 1 << 63)
    with pytest.raises(IndexError, match="a word of 8 bytes at 4"):
        one.add(4, 1)


def test_additions_of_many_threads_are_all_there() -> None:
    pool = Directory()
    pool.region(copies=2)
    regions = [pool.open(slot=1 + number % 3) for number in range(6)]
    threads = [threading.Thread(target=lambda r=r: [r.add(0, 1) for _ in range(300)]) for r in regions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert regions[0].load(0) == 1800


def test_the_lock_is_one_threads_and_waits() -> None:
    pool = Directory()
    pool.region()
    one, other = pool.open(slot=1), pool.open(slot=2)
    one.lock()
    with pytest.raises(RuntimeError, match="has the region's lock already"):
        one.lock()
    with pytest.raises(errors.Busy):
        other.lock(0.02)
    with pytest.raises(errors.Busy):
        other.write(0, b"x", 0)
    one.write(0, b"within")
    assert one.read(0, 6) == b"within"
    assert other.read(0, 6) == b"within"
    one.unlock()
    with pytest.raises(RuntimeError, match="has not the region's lock"):
        one.unlock()
    other.lock(1)
    other.unlock()


def test_who_waits_for_a_lock_hears_a_signal_that_another_thread_got() -> None:
    pool = Directory()
    at = pool.region()
    one, holder = pool.open(slot=1), pool.open(slot=2)
    locked, heard = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def hear(number: int, frame: object) -> None:
        heard.set()
        raise InterruptedError

    def hold() -> None:
        holder.lock()
        locked.set()
        while not pool.directory.load(at + 112) & 1:  # somebody sleeps there
            pass
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        in_time.append(heard.wait(60.0))
        holder.unlock()

    before = signal.signal(signal.SIGUSR1, hear)
    try:
        other = threading.Thread(target=hold)
        other.start()
        locked.wait()
        with pytest.raises(InterruptedError):
            one.lock()
    finally:
        other.join()
        signal.signal(signal.SIGUSR1, before)
    assert in_time == [True]


def test_a_region_that_is_let_go_gives_its_lock_back() -> None:
    pool = Directory()
    pool.region()
    one = pool.open()
    one.lock()
    del one
    pool.open(slot=2).write(0, b"free")


def test_a_lock_stays_the_parents_where_a_process_forks() -> None:
    pool = Directory()
    pool.region()
    one = pool.open()
    one.lock()
    child = os.fork()
    if not child:
        del one
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(errors.Busy):
        pool.open(slot=2).lock(0)
    one.unlock()


def test_a_lock_of_the_dead_is_mended() -> None:
    pool = Directory()
    pool.region()
    one, other = pool.open(slot=1), pool.open(slot=2)
    one.lock()
    with pytest.raises(errors.Busy):
        other.mend(1, EPOCH)
    pool.slot(1, state=DEAD)
    other.lock(5)
    other.unlock()
    with pytest.raises(errors.Stale):
        one.unlock()
    assert not other.mend(1, EPOCH)
    with pytest.raises(errors.Stale):
        one.write(0, b"from the grave")


def test_a_process_that_is_no_more_is_found_out() -> None:
    pool = Directory()
    pool.region()
    one, other = pool.open(slot=1), pool.open(slot=2)
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    pool.slot(1, pid=child, start=1)
    one.lock()
    other.lock(5)
    other.unlock()
    assert struct.unpack_from("<Q", pool.arena, 8192 + 256)[0] == EPOCH << 24 | DEAD


def test_a_healthy_copy_is_read() -> None:
    pool = Directory()
    at = pool.region(copies=2)
    one = pool.open()
    one.write(0, TEXT)
    pool.buffers[1][:4096] = bytes(4096)
    struct.pack_into("<I", pool.arena, at + 96, 0b10)
    assert one.read(0, 4096) == TEXT
    assert one.healthy == 2
    struct.pack_into("<III", pool.arena, at + 96, 0b11, 0, 0b01)
    assert one.read(0, 4096) == TEXT
    struct.pack_into("<III", pool.arena, at + 96, 0b11, 0, 0b11)
    with pytest.raises(errors.Poisoned):
        one.read(0, 4096)
    assert one.read(0, 4096, 0b10) == TEXT
    struct.pack_into("<III", pool.arena, at + 96, 0, 0, 0)
    with pytest.raises(errors.Failed):
        one.read(0, 4096)
    with pytest.raises(errors.Failed):
        one.write(0, b"x")


@pytest.mark.parametrize(("copies", "healthy", "flags"), [(2, 0b10, 0), (1, 1, ATOMIC)])
def test_a_degraded_write_goes_through_the_journal(copies: int, healthy: int, flags: int) -> None:
    pool = Directory()
    pool.region(size=1 << 19, copies=copies, healthy=healthy, flags=flags)
    data = os.urandom(500_000)  # two journals' lengths
    one = pool.open()
    one.write(5, data)
    assert one.read(5, len(data)) == data
    bare = Directory(journal=0)
    bare.region(copies=copies, healthy=healthy, flags=flags)
    with pytest.raises(errors.Unprotected):
        bare.open().write(5, b"abc")


def test_a_joining_copy_is_written_and_rebuilt() -> None:
    pool = Directory()
    at = pool.region(copies=3, healthy=0b011)
    one = pool.open()
    one.write(0, TEXT)
    struct.pack_into("<II", pool.arena, at + 96, 0b011, 0b100)
    one.write(4096, TEXT)
    assert pool.copy(2, 8192) == bytes(4096) + TEXT
    one.rebuild(2, 0, 8192)
    assert pool.copy(2, 8192) == TEXT + TEXT


def test_a_source_that_is_not_mapped_is_told() -> None:
    pool = Directory()
    pool.region(copies=2)
    pool.memories[1] = None
    one = pool.open()
    assert one.read(0, 8) == bytes(8)
    with pytest.raises(errors.Unmapped):
        one.write(0, b"x")
    pool.memories[2] = None
    with pytest.raises(errors.Unmapped):
        pool.open().read(0, 8)


def test_what_cannot_be_is_corrupt_foreign_or_stale() -> None:
    pool = Directory()
    at = pool.region(copies=2)
    one = pool.open()
    struct.pack_into("<Q", pool.arena, at + 128, 1 << 56 | (4 << 20) - 64)
    with pytest.raises(errors.Corrupt):
        one.write(0, b"x")
    struct.pack_into("<Q", pool.arena, at + 128, 1 << 56 | 8)
    with pytest.raises(errors.Corrupt):
        one.write(0, b"x")
    struct.pack_into("<Q", pool.arena, at, (GENERATION + 1) << 24 | 1)
    for access in (lambda: one.read(0, 1), lambda: one.write(0, b"x"), lambda: one.add(0, 1), pool.open):
        with pytest.raises(errors.Stale):
            access()
    with pytest.raises(errors.TooLong):
        Region(pool.directory, 8, GENERATION, pool.memories, 1, EPOCH)
    with pytest.raises(errors.Corrupt):
        Region(pool.directory, 0, GENERATION, pool.memories, 8, EPOCH)
    with pytest.raises(ValueError, match="the first is the directory's memory"):
        Region(pool.directory, 0, GENERATION, pool.memories[1:], 1, EPOCH)
    with pytest.raises(TypeError, match="source 1: a Memory or None"):
        Region(pool.directory, 0, GENERATION, [pool.directory, b"abc"], 1, EPOCH)  # type: ignore[list-item]
    pool.arena[12:16] = bytes(4)
    with pytest.raises(errors.Empty):
        pool.open()
    pool.arena[8] = 9
    with pytest.raises(errors.Foreign):
        pool.open()


def test_doorbells_are_rung_for_who_sleeps_behind_a_device() -> None:
    pool = Directory()
    rung: list[int] = []
    host = Memory(pool.arena, ring=rung.append)
    at = pool.region()
    one = Region(host, 0, GENERATION, [host, *pool.memories[1:]], 1, EPOCH)
    one.write(0, b"x")
    assert rung == []
    struct.pack_into("<I", pool.arena, at + 112, 2)
    one.write(0, b"x")
    assert rung == [at + 112]
    assert struct.unpack_from("<I", pool.arena, at + 112)[0] == 1 << 2  # nobody sleeps, and one wake
    rested: list[tuple[int, float]] = []
    guest = Memory(pool.arena, ring=rung.append, rest=lambda where, seconds: rested.append((where, seconds)))
    other = Region(guest, 0, GENERATION, [guest, *pool.memories[1:]], 2, EPOCH)
    one.lock()
    with pytest.raises(errors.Busy):
        other.lock(0.01)
    assert {where for where, _ in rested} == {at + 112}
    assert struct.unpack_from("<I", pool.arena, at + 112)[0] == 1 << 2 | 2
    one.unlock()
    assert rung == [at + 112] * 2
    with pytest.raises(ValueError, match="ring is missing"):
        Memory(pool.arena, rest=lambda where, seconds: None)
