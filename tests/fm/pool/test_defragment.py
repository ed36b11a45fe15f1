"""Room is made by moving the least, and nobody who reads or writes notices."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from softcxl.fm.pool.copying import CHUNK
from softcxl.fm.pool.defragment import windows
from softcxl.pool.errors import NoRoom
from softcxl.pool.layout import split
from softcxl.pool.protocol import Located, Named, Opcode
from tests.fm.pool.memories import Client, FakeSource, copies_of
from tests.fm.pool.test_rebuild import Pool
from tests.fm.pool.test_rebuild_kill import each_death

PAGE = 4096
MIB = 1 << 20
SIZE = MIB + 12345


@given(
    pieces=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.booleans()), max_size=8),
    tail=st.integers(0, 3),
    need=st.integers(1, 12),
)
@example(pieces=[(0, 1, False), (0, 2, False), (0, 1, False)], tail=0, need=2)  # where nothing is free
@settings(max_examples=400, deadline=None)
def test_the_window_is_the_one_with_the_least_to_move(
    pieces: list[tuple[int, int, bool]], tail: int, need: int
) -> None:
    allocations, fixed, at = [], [], 0
    for gap, length, stays in pieces:
        allocations.append((at + gap, length))
        fixed.append(stays)
        at += gap + length
    size = at + tail
    costs = []
    for start in range(size - need + 1):
        there = [
            (length, stays)
            for (offset, length), stays in zip(allocations, fixed, strict=True)
            if offset < start + need and offset + length > start
        ]
        if not any(stays for _, stays in there):
            costs.append(sum(length for length, _ in there))
    found = windows(size, allocations, fixed, need)
    assert [window.moved for window in found] == sorted(window.moved for window in found)
    assert (found[0].moved if found else None) == min(costs, default=None)
    for window in found:
        assert window.start >= 0
        assert window.end == window.start + need <= size


def scattered(
    pool: Pool, count: int = 7, copies: int = 1, size: int = SIZE
) -> dict[str, tuple[Located, bytes]]:
    """Regions side by side, every other one of which has been freed."""
    regions = {}
    for number in range(count):
        located, data = pool.region(copies, size, f"r{number}")
        regions[f"r{number}"] = located, data
    for number in range(0, count, 2):
        located, _ = regions.pop(f"r{number}")
        free(pool.client, located)
    pool.server.regions.clearing.clear(pool.server.lock)
    return regions


def free(client: Client, located: Located) -> None:
    client.execute(Opcode.FREE, Named(index=located.index, generation=located.generation, name=b"").pack())


def intact(pool: Pool, regions: dict[str, tuple[Located, bytes]], copies: int = 1) -> None:
    for located, data in regions.values():
        pool.holds(located, data, copies)


def exact(pool: Pool) -> None:
    """What the free space says is what the records say: nothing leaks, and nothing is had twice."""
    directory = pool.server.directory
    for held in pool.server.sources.all.values():
        expected = {
            split(extent)[1]: one.capacity
            for one in pool.server.regions.known.values()
            for extent in one.extents
            if held.number and extent >> 56 == held.number
        }
        if held.number:
            assert dict(held.space.allocations()) == expected
            assert set(held.regions) == set(expected)
    for index in pool.server.regions.known:
        assert directory.region(index).joining == 0


def test_room_is_made_and_everything_is_there_yet() -> None:
    pool = Pool(FakeSource("mem0", 8 * MIB))
    regions = scattered(pool)
    with pytest.raises(NoRoom, match="in pieces on mem0: defragmenting helps"):
        pool.server.sources.spare(3 * MIB, [])
    assert pool.server.defragmenter.make_room(3 * MIB)
    assert pool.server.sources.all[1].space.largest >= 3 * MIB
    capacity = -(-SIZE // PAGE) * PAGE
    assert pool.server.defragmenter.moved == capacity, "one region in the way is the least"
    intact(pool, regions)
    exact(pool)
    large, data = pool.region(1, 3 * MIB, "large")
    pool.holds(large, data, 1)


def test_what_was_moved_from_is_zeros() -> None:
    pool = Pool(FakeSource("mem0", 8 * MIB))
    scattered(pool)
    pool.server.defragmenter.make_room(3 * MIB)
    memory, space = pool.sources[0].memory, pool.server.sources.all[1].space
    assert all(not any(memory[at : at + size]) for at, size in space.extents())


def test_copies_move_to_devices_that_have_none() -> None:
    pool = Pool(FakeSource("mem0", 4 * MIB), FakeSource("mem1", 4 * MIB), FakeSource("mem2", 4 * MIB))
    regions = scattered(pool, 3, 2)
    assert pool.server.defragmenter.make_room(3 * MIB + MIB // 2)
    intact(pool, regions, 2)
    exact(pool)
    for located, _ in regions.values():
        assert len(set(pool.where(located))) == 2


def test_room_on_as_many_devices_as_there_are_copies() -> None:
    pool = Pool(FakeSource("mem0", 8 * MIB), FakeSource("mem1", 8 * MIB))
    regions = scattered(pool, 7, 2)
    assert pool.server.defragmenter.make_room(3 * MIB, 2)
    intact(pool, regions, 2)
    exact(pool)
    large, data = pool.region(2, 3 * MIB, "large")
    pool.holds(large, data, 2)


def test_there_is_no_way_where_there_is_not_as_much() -> None:
    pool = Pool(FakeSource("mem0", 8 * MIB))
    regions = scattered(pool)
    assert not pool.server.defragmenter.make_room(6 * MIB)
    assert not pool.server.defragmenter.make_room(PAGE, 2)
    intact(pool, regions)
    exact(pool)
    assert pool.server.defragmenter.moved == 0


def test_what_somebody_looks_at_stays_where_it_is() -> None:
    pool = Pool(FakeSource("mem0", 8 * MIB))
    regions = scattered(pool)
    before = {name: pool.server.directory.region(one.index).extent0 for name, (one, _) in regions.items()}
    pinned = [Named(index=one.index, generation=one.generation, name=b"") for one, _ in regions.values()]
    for named in pinned:
        pool.client.execute(Opcode.PIN, named.pack())
    assert not pool.server.defragmenter.make_room(3 * MIB)
    pool.client.execute(Opcode.UNPIN, pinned[1].pack())
    assert pool.server.defragmenter.make_room(3 * MIB)
    after = {name: pool.server.directory.region(one.index).extent0 for name, (one, _) in regions.items()}
    assert [name for name in before if before[name] != after[name]] == [list(regions)[1]]
    intact(pool, regions)
    exact(pool)


@pytest.mark.parametrize("what", ["pin", "free", "fail", "poison", "locked"])
def test_what_happens_on_the_way_ends_the_move_and_leaks_nothing(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softcxl.fm.pool.copying.PATIENCE", 0.01)
    pool = Pool(FakeSource("mem0", 8 * MIB), FakeSource("mem1", 2 * MIB))
    pool.client.allocate(2 * MIB - PAGE, source=3)
    regions = scattered(pool)
    copied, done = pool.rebuilder.copier.copy_chunk, [0]
    holders: list[threading.Thread] = []
    release = threading.Event()

    def hold(region: Any) -> None:
        region.lock()  # as soon as the chunk is through
        assert release.wait(60)
        region.unlock()

    def chunk(region: Any, copies: Any, copy: int, at: int, length: int) -> bool:
        done[0] += 1
        if done[0] == 2:
            located, _ = next(one for one in regions.values() if one[0].index == copies.index)
            named = Named(index=located.index, generation=located.generation, name=b"").pack()
            where = pool.server.directory.region(copies.index)
            if what == "pin":
                pool.client.execute(Opcode.PIN, named)
            elif what == "free":
                pool.client.execute(Opcode.FREE, named)
                del regions[next(name for name, one in regions.items() if one[0] is located)]
            elif what == "fail":
                pool.sources[0].fail()
            elif what == "poison":
                pool.sources[0].poison(split(getattr(where, f"extent{copy}"))[1])
            else:
                holder = threading.Thread(target=hold, args=(pool.client.region(located),))
                holder.start()
                holders.append(holder)
        return copied(region, copies, copy, at, length)

    pool.rebuilder.copier.copy_chunk = chunk  # type: ignore[method-assign]
    pool.server.defragmenter.make_room(3 * MIB)
    assert done[0] >= 2
    pool.rebuilder.copier.copy_chunk = copied  # type: ignore[method-assign]
    release.set()
    for holder in holders:
        holder.join()
    pool.server.regions.clearing.look_again()
    pool.server.regions.clearing.clear(pool.server.lock)
    if what == "fail":
        pool.sources[0].come_back(kept=True)
    pool.server.health.tick()  # the poison that was told of is there by now
    pool.rebuilder.round()
    pool.rebuilder.round()
    intact(pool, regions)
    exact(pool)


def test_what_goes_bad_while_it_is_kept_free_is_clean_for_who_gets_it() -> None:
    pool = Pool(FakeSource("mem0", 8 * MIB))
    regions = scattered(pool)
    copied, space, poisoned = pool.rebuilder.copier.copy_chunk, pool.server.sources.all[1].space, list[int]()

    def chunk(*given: Any) -> bool:
        held = pool.server.sources.all[1]
        kept = [at for at, _ in space.allocations() if at not in held.regions and at not in poisoned]
        for at in kept:
            poisoned.append(at)
            pool.sources[0].poison(at)
            pool.server.health.tick()
        return copied(*given)

    pool.rebuilder.copier.copy_chunk = chunk  # type: ignore[method-assign, assignment]
    assert pool.server.defragmenter.make_room(3 * MIB)
    assert poisoned
    pool.rebuilder.copier.copy_chunk = copied  # type: ignore[method-assign]
    assert not pool.sources[0].lines & set(poisoned)
    pool.server.health.tick()
    intact(pool, regions)
    exact(pool)


def test_readers_and_writers_notice_nothing() -> None:
    pool = Pool(FakeSource("mem0", 8 * MIB))
    regions = scattered(pool)
    located, data = regions["r3"]
    expected, stop, wrong = bytearray(data), threading.Event(), []

    def write() -> None:
        region, count = pool.client.region(located), 0
        while not stop.is_set() or count < 200:
            at = count * 104729 % (SIZE - 8192)
            piece = (count % 251).to_bytes(1, "little") * 8192
            region.write(at, piece)
            expected[at : at + 8192] = piece
            count += 1

    def read() -> None:
        region = pool.client.region(regions["r1"][0])
        count = 0
        while not stop.is_set() or count < 20:
            if region.read(0, SIZE) != regions["r1"][1]:
                wrong.append(count)
            count += 1

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    kept: list[Located] = []
    for number in range(4):
        assert pool.server.defragmenter.make_room(3 * MIB)
        large, _ = pool.region(1, 3 * MIB, f"large{number}")  # over all that was moved from
        free(pool.client, large)
        first, second = (pool.region(1, SIZE, f"small{number}.{which}")[0] for which in range(2))
        free(pool.client, first)
        for one in kept:
            free(pool.client, one)
        kept = [second]
        pool.server.regions.clearing.clear(pool.server.lock)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    regions["r3"] = located, bytes(expected)
    intact(pool, regions)
    exact(pool)
    assert pool.server.defragmenter.moved >= 2 * SIZE


def test_a_move_that_was_cut_off_by_the_servers_death_is_as_if_it_had_not_begun_or_is_done() -> None:
    data = {name: os.urandom(2 * CHUNK) for name in ("r1", "r3")}

    def make() -> Pool:
        pool = Pool(FakeSource("mem0", 5 * 2 * CHUNK))
        pool.regions = scattered(pool, 5, size=2 * CHUNK)  # type: ignore[attr-defined]
        for name, (located, _) in pool.regions.items():  # type: ignore[attr-defined]
            pool.client.region(located).write(0, data[name])
        return pool

    def work(pool: Pool) -> None:
        assert pool.server.defragmenter.make_room(4 * CHUNK)

    for pool in each_death(make, work):
        regions = {name: (located, data[name]) for name, (located, _) in pool.regions.items()}
        intact(pool, regions)
        for name, (located, _) in regions.items():
            pool.client.region(located).write(CHUNK - 2, b"over")
            regions[name] = located, data[name][: CHUNK - 2] + b"over" + data[name][CHUNK + 2 :]
        pool.rebuilder.round()
        exact(pool)
        assert pool.server.defragmenter.make_room(4 * CHUNK)
        for located, _ in regions.values():
            assert len(copies_of(pool.server, pool.sources, located.index)) == 1
        intact(pool, regions)
        exact(pool)
