"""Regions as programs have them: what is written is read, whatever fails; what cannot be is told."""

from __future__ import annotations

import gc
import os
import struct
import threading

import numpy as np
import pytest

from softcxl.pool import errors
from softcxl.pool.layout import REGION
from tests.pool.served import LONG, Served, wait_until

MIB = 1 << 20


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_what_is_written_is_in_every_copy_and_is_read(served: Served, replicas: int) -> None:
    with served.connect() as pool:
        region = pool.allocate("1MiB", replicas=replicas)
        data = os.urandom(300_000)
        region.write(77, data)
        assert region.read(77, len(data)) == data
        assert region.read() == bytes(77) + data + bytes(MIB - 77 - len(data))
        assert region.read(MIB) == b""
        into = bytearray(len(data))
        region.read_into(77, into)
        assert into == data
        words = memoryview(bytearray(800)).cast("Q")
        region.read_into(0, words)
        assert bytes(words) == region.read(0, 800)
        for copy in range(replicas):
            assert served.copy(region, copy) == region.read()


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 4097), (4096, 1), (4097, 0), (-1, 1), (-8, 8), (0, -1), (1 << 64, 8), (-(1 << 64), 8), (5, 1 << 70)],
)
def test_what_is_outside_is_refused(served: Served, offset: int, size: int) -> None:
    with served.connect() as pool:
        region = pool.allocate(4096)
        with pytest.raises(errors.Refused, match="the region has 4096"):
            region.read(offset, size)
        if 0 <= size <= 1 << 20 and (offset, size) != (4097, 0):
            with pytest.raises(errors.Refused, match="the region has 4096"):
                region.read_into(offset, bytearray(size))
            with pytest.raises(errors.Refused, match="the region has 4096"):
                region.write(offset, bytes(size))
        assert region.read() == bytes(4096)


def test_words(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(64, replicas=2)
        assert region.add(8, 5) == 5
        assert region.add(8, -6) == (1 << 64) - 1
        assert region.add(8, 1 << 64) == (1 << 64) - 1
        assert region.swap(8, (1 << 64) - 1, 1 << 63)
        assert not region.swap(8, 0, 1)
        assert region.load(8) == 1 << 63
        for offset in (4, -8, 60, 64, 1 << 64):
            with pytest.raises(errors.Refused, match=f"a word of 8 bytes at {offset}"):
                region.load(offset)
            with pytest.raises(errors.Refused, match="a word of 8 bytes"):
                region.add(offset, 1)
        with pytest.raises(errors.Refused, match="a word has 64 bits"):
            region.swap(0, 0, 1 << 64)


def test_a_lock_keeps_others_out(served: Served) -> None:
    with served.connect() as pool, served.connect() as other:
        region = pool.allocate(4096, name="shared")
        theirs = other.open("shared")
        with region.locked() as same:
            assert same is region
            region.write(0, b"within")
            with pytest.raises(errors.Busy, match=f"region 'shared': .*slot {pool.slot} has its lock"):
                theirs.write(0, b"x", timeout=0.01)
            with pytest.raises(errors.Busy), theirs.locked(timeout=0):
                pass
            with pytest.raises(errors.Refused, match="this thread has the lock"), region.locked():
                pass
            assert theirs.read(0, 6) == b"within"
            assert theirs.stat.info.locked_by == pool.slot
        with theirs.locked(LONG):
            pass
        assert theirs.info.locked_by is None


def test_a_region_that_was_freed_is_stale_for_all(served: Served) -> None:
    with served.connect() as pool, served.connect("other") as other:
        region = pool.allocate(4096, name="once")
        theirs = other.open("once")
        theirs.write(0, b"theirs")
        region.free()
        for one in (region, theirs):
            for access in (
                lambda one=one: one.read(0, 1),
                lambda one=one: one.read_into(0, bytearray(1)),
                lambda one=one: one.write(0, b"x"),
                lambda one=one: one.add(0, 1),
                lambda one=one: one.load(0),
                lambda one=one: one.locked().__enter__(),
            ):
                with pytest.raises(errors.Stale, match=f"region {region.index} was freed"):
                    access()
        with pytest.raises(errors.Stale):
            region.free()
        with pytest.raises(errors.NoSuchName, match="no region 'once'"):
            pool.free("once")
        again = pool.allocate(4096, name="once")
        assert again.read() == bytes(4096)
        with pytest.raises(errors.Stale, match="was freed"):
            theirs.read(0, 1)


def test_a_region_that_was_closed_says_so(served: Served) -> None:
    with served.connect() as pool:
        with pool.allocate(4096) as region:
            region.write(0, b"x")
        region.close()
        for access in (lambda: region.read(0, 1), lambda: region.write(0, b"x"), region.view):
            with pytest.raises(errors.Closed, match="was closed here"):
                access()
        assert list(pool.regions()) == []


def test_a_region_that_nobody_has_any_more_is_closed(served: Served) -> None:
    with served.connect() as pool:
        pool.allocate(4096)
        gc.collect()
        wait_until(lambda: not list(pool.regions()))
        pool.allocate(4096, name="kept")
        gc.collect()
        assert [one.name for one in pool.regions()] == ["kept"]


def test_permissions(served: Served) -> None:
    with served.connect("owner") as pool, served.connect("other") as other, served.connect("owner") as same:
        shown = pool.allocate(4096, name="shown", mode="read")
        shown.write(0, b"look")
        pool.allocate(4096, name="hidden", mode="private")
        theirs = other.open("shown")
        assert not theirs.writable
        assert theirs.read(0, 4) == b"look"
        assert theirs.view().readonly
        for access in (
            lambda: theirs.write(0, b"x"),
            lambda: theirs.add(0, 1),
            lambda: theirs.swap(0, 0, 1),
        ):
            with pytest.raises(errors.Denied, match="'shown' may be read"):
                access()
        with pytest.raises(errors.Denied, match="private"):
            other.open("hidden")
        with pytest.raises(errors.Denied):
            theirs.free()
        assert theirs.read(0, 4) == b"look"
        same.open("hidden").write(0, b"mine")
        same.open("shown").write(0, b"mine")


def test_reads_go_on_where_a_copy_fails_and_writes_need_no_second(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(4096, replicas=3)
        region.write(0, b"first")
        served.drop(region, 0b001)
        assert region.read(0, 5) == b"first"
        region.write(0, b"other")
        served.drop(region, 0b010)
        assert region.read(0, 5) == b"other"
        region.write(0, b"third")  # one copy is left: by a journal, which is asked for
        assert region.read(0, 5) == b"third"
        assert region.stat.healthy == 1
        served.drop(region, 0b100)
        with pytest.raises(errors.Failed, match=f"region {region.index}: no copy is healthy"):
            region.read(0, 5)
        with pytest.raises(errors.Failed, match=f"region {region.index}: no copy is healthy"):
            region.write(0, b"x")
        with pytest.raises(errors.Failed, match="none of the 3 copies"):
            region.view()


def test_a_copy_that_fails_in_the_middle_of_a_read_is_passed_over(served: Served) -> None:
    """The server gives a copy up, and its bytes go bad, again and again while another thread reads."""
    with served.connect() as pool:
        data = os.urandom(2 * MIB)
        wrong: list[int] = []
        turns = 0
        for _ in range(20):
            region = pool.allocate(len(data), replicas=2)
            region.write(0, data)
            reading = threading.Event()

            def read(region: object = region, reading: threading.Event = reading) -> None:
                for number in range(6):
                    reading.set()
                    if region.read() != data:  # type: ignore[attr-defined]
                        wrong.append(number)

            thread = threading.Thread(target=read)
            thread.start()
            reading.wait()
            served.drop(region, 0b01)
            copy = region.info.copies[0]
            held = served.server.sources.all[copy.source]
            memory = next(one for one in served.sources if one.name == held.name).memory
            memory[copy.offset : copy.offset + region.size] = b"\xbd" * region.size
            thread.join()
            region.free()
            turns += 1
        assert not wrong
        assert turns == 20


def test_an_atomic_region_asks_for_its_journal(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(MIB, atomic=True)
        assert not served.server.directory.slot(pool.slot).journal_at
        region.write(5, b"whole")
        assert served.server.directory.slot(pool.slot).journal_at
        assert region.read(5, 5) == b"whole"


def test_what_the_dead_tore_is_told_and_healed(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(4096)
        at = served.server.directory.region_at(region.index) + REGION["torn"]
        served.server.directory.memory.store(at, 100 << 32 | 50)
        assert region.stat.torn == (100, 50)
        assert region.read(0, 100) == bytes(100)
        with pytest.raises(errors.Torn, match="50 bytes at 100"):
            region.read()
        with pytest.raises(errors.Torn, match="50 bytes at 100"):
            region.read_into(149, bytearray(1))
        region.write(100, b"x" * 50)
        assert region.read(99, 52) == b"\0" + b"x" * 50 + b"\0"
        assert region.stat.torn is None


# -- views -----------------------------------------------------------------------------------------------------------


def test_a_view_is_the_memory(served: Served) -> None:
    with served.connect() as pool, served.connect() as other:
        region = pool.allocate(4096, name="seen")
        view, theirs = region.view(), other.open("seen").view()
        assert isinstance(view, memoryview)
        view[10:15] = b"hello"
        assert bytes(theirs[10:15]) == b"hello"
        assert region.read(10, 5) == b"hello"
        region.write(10, b"world")
        assert bytes(theirs[10:15]) == b"world"
        assert len(view) == 4096
        several = pool.allocate(4096, replicas=2)
        several.write(0, b"copies")
        shown = several.view()
        assert shown.readonly
        assert bytes(shown[:6]) == b"copies"


def test_arrays(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(4096)
        words = region.numpy("<u4", (2, 512))
        words[1, 511] = 7
        assert struct.unpack_from("<I", region.read(), 4092) == (7,)
        assert region.numpy("f8").shape == (512,)
        assert region.numpy("V4095").shape == (1,)
        assert region.numpy("u1", (0, 5)).shape == (0, 5)
        for dtype, shape in (("u8", (513,)), ("u1", (-1, 4096)), ("u8", (1 << 62, 1 << 62))):
            with pytest.raises(errors.Refused, match="the region has 4096 bytes"):
                region.numpy(dtype, shape)
        with pytest.raises(errors.Refused, match="holds no objects"):
            region.numpy(object)
        assert not pool.allocate(64, replicas=2).numpy().flags.writeable


def test_memory_stays_where_it_is_while_it_is_looked_at(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(4096)
        whole = region.view()
        part = np.frombuffer(whole[64:128], "u1")
        del whole
        known = served.server.regions.known[region.index]
        assert known.pins == region.stat.views == 1
        part[:] = 9
        region.close()
        assert part.sum() == 9 * 64
        assert known.pins == 1
        for _ in range(4):  # nobody else gets that memory
            assert pool.allocate(4096).read() == bytes(4096)
        assert part.sum() == 9 * 64
        index = region.index
        del part
        gc.collect()
        wait_until(
            lambda: index not in served.server.regions.known or not served.server.regions.known[index].pins
        )


def test_a_view_that_cannot_be_pins_nothing(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(4096)
        with pytest.raises(errors.Refused, match="'host' or 'managed'"):
            region.view(coherence="both")  # type: ignore[call-overload]
        with pytest.raises(errors.Refused, match="drop and evict"):
            region.view(drop=True)  # type: ignore[call-overload]
        served.drop(region, 1)
        with pytest.raises(errors.Failed):
            region.view()
        wait_until(lambda: not served.server.regions.known[region.index].pins)


# -- a directory that lies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("extent0", 1 << 56 | 8 << 20),
        ("extent0", 1 << 56 | (1 << 56) - 4096),
        ("extent0", 200 << 56),
        ("extent0", 1 << 56 | 8),
        ("size", 1 << 60),
        ("size", 0),
        ("copies", 99),
    ],
)
def test_a_record_that_cannot_be_is_no_crash(served: Served, field: str, value: int) -> None:
    with served.connect() as pool:
        region = pool.allocate(4096, name="one")
        at = served.server.directory.region_at(region.index) + REGION[field]
        old = served.server.directory.map[at : at + 8]
        served.server.directory.map[at : at + (4 if field == "copies" else 8)] = value.to_bytes(
            4 if field == "copies" else 8, "little"
        )
        for access in (
            lambda: region.read(0, 8),
            lambda: region.write(0, bytes(8)),
            lambda: region.view()[0],
            lambda: pool.open("one").read(0, 1),
        ):
            try:
                access()
            except (errors.Corrupt, errors.Unmapped, errors.Refused):
                continue
        with pytest.raises((errors.Corrupt, errors.Unmapped)):
            pool.open("one").view()
        served.server.directory.map[at : at + 8] = old
