"""Copies that were lost are made anew, whatever happens meanwhile."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from softcxl.fm.pool.copies import Copies
from softcxl.fm.pool.copying import CHUNK
from softcxl.fm.pool.server import PoolServer
from softcxl.pool import errors
from softcxl.pool.layout import HEADER, REGION
from softcxl.pool.protocol import Located, Named, Opcode
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena, copies_of

SIZE = 3 * CHUNK + 12345


class Pool:
    """A server on memory that can fail, with a rebuilder that works when it is told to."""

    def __init__(self, *sources: FakeSource) -> None:
        self.sources = list(sources)
        self.arena = arena()
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.serve()
        self.client = Client(self.server, self.sources)

    def serve(self) -> None:
        """Another server takes over."""
        self.server = PoolServer(
            self.arena, self.sources, plan=PLAN,
            event=lambda kind, subject, detail: self.events.append((kind, subject, dict(detail))),
        )  # fmt: skip
        self.rebuilder = self.server.rebuilder
        self.server.directory.ready()

    def region(self, copies: int, size: int = SIZE, name: str = "r") -> tuple[Located, bytes]:
        """A region with random bytes."""
        located, data = self.client.allocate(size, copies, name=name), os.urandom(size)
        self.client.region(located).write(0, data)
        return located, data

    def state(self, located: Located) -> tuple[int, int]:
        return Copies(self.server.directory, located.index).state

    def where(self, located: Located) -> list[str]:
        record = self.server.directory.region(located.index)
        numbers = [getattr(record, f"extent{copy}") >> 56 for copy in range(record.copies)]
        return [self.server.sources.all[number].name for number in numbers]

    def holds(self, located: Located, data: bytes, copies: int) -> None:
        """Every copy has these bytes, and there are so many."""
        found = copies_of(self.server, self.sources, located.index)
        assert len(found) == copies
        assert all(copy == data for copy in found.values())
        assert self.client.region(located).read(0, len(data)) == data

    def used(self) -> dict[str, int]:
        return {
            held.name: held.size - held.space.available
            for number, held in self.server.sources.all.items()
            if number
        }


def devices(count: int) -> list[FakeSource]:
    return [FakeSource(f"mem{i}") for i in range(count)]


def test_a_lost_copy_is_made_on_a_device_that_has_none() -> None:
    pool = Pool(*devices(3))
    located, data = pool.region(2)
    assert pool.where(located) == ["mem0", "mem1"]
    pool.sources[0].fail()
    assert pool.state(located) == (0b10, 0)
    assert pool.client.region(located).read(0, SIZE) == data
    pool.sources[0].memory[:] = b"\xee" * pool.sources[0].size
    pool.rebuilder.round()
    assert pool.where(located) == ["mem2", "mem1"]
    pool.holds(located, data, 2)
    capacity = -(-SIZE // 4096) * 4096
    assert pool.used() == {"mem0": 0, "mem1": capacity, "mem2": capacity}
    assert [kind for kind, _, _ in pool.events][-3:] == ["source failed", "rebuild began", "rebuilt"]
    assert pool.events[-1][1:] == ("r", {"region": located.index, "copy": 0, "source": "mem2", "bytes": SIZE})
    assert pool.rebuilder.told() == {"rebuilding": [], "waiting": []}


def test_without_a_spare_it_waits_and_says_why_until_the_memory_comes_back() -> None:
    pool = Pool(*devices(2))
    located, data = pool.region(2)
    pool.sources[1].fail()
    pool.rebuilder.round()
    pool.rebuilder.round()
    why = "a copy more was asked for; all healthy devices (mem0) have one already"
    assert pool.rebuilder.told()["waiting"] == [{"region": located.index, "name": "r", "why": why}]
    assert [kind for kind, _, _ in pool.events].count("rebuild waits") == 1
    pool.client.region(located).write(5, b"written while one was down")
    pool.sources[1].come_back(kept=True)
    assert pool.state(located) == (0b01, 0), "what it holds is old"
    pool.rebuilder.round()
    pool.holds(located, data[:5] + b"written while one was down" + data[31:], 2)
    assert pool.where(located) == ["mem0", "mem1"]
    assert pool.rebuilder.waiting == {}


def test_a_region_all_of_whose_copies_were_lost_comes_back_with_the_one_that_was_last() -> None:
    pool = Pool(*devices(2))
    located, _ = pool.region(2)
    pool.sources[0].fail()
    latest = os.urandom(SIZE)
    pool.client.region(located).write(0, latest)
    pool.sources[1].fail()
    with pytest.raises(errors.Failed):
        pool.client.region(located).read(0, 1)
    pool.sources[0].come_back(kept=True)
    pool.rebuilder.round()
    assert pool.state(located) == (0, 0b10)
    assert pool.rebuilder.waiting[located.index] == "no copy is healthy"
    pool.sources[1].come_back(kept=True)
    pool.rebuilder.round()
    pool.holds(located, latest, 2)


def test_memory_that_has_kept_nothing_brings_nothing_back() -> None:
    pool = Pool(*devices(1))
    located, _ = pool.region(1)
    pool.sources[0].fail()
    pool.sources[0].come_back(kept=False)
    pool.rebuilder.round()
    assert pool.state(located) == (0, 0)
    with pytest.raises(errors.Failed):
        pool.client.region(located).read(0, 1)


def test_the_barest_region_comes_first() -> None:
    pool = Pool(*devices(4))
    three, _ = pool.region(3, 4096, "three")
    two, _ = pool.region(2, 4096, "two")
    for source in pool.sources[:2]:
        source.fail()
    healthy = {name: bin(pool.state(one)[0]).count("1") for name, one in (("three", three), ("two", two))}
    pool.rebuilder.round()
    began = [subject for kind, subject, _ in pool.events if kind == "rebuild began"]
    assert sorted(healthy, key=lambda name: healthy[name])[0] == began[0]


def test_a_spare_that_fails_on_the_way_is_left_for_another() -> None:
    pool = Pool(*devices(4))
    located, data = pool.region(2)
    pool.sources[0].fail()
    copied = pool.rebuilder.copier.copy_chunk
    chunks: list[str] = []

    def fails(region: Any, copies: Copies, copy: int, at: int, length: int) -> bool:
        name = pool.where(located)[copy]
        chunks.append(name)
        if chunks == [name, name]:
            next(one for one in pool.sources if one.name == name).fail()
        return copied(region, copies, copy, at, length)

    pool.rebuilder.copier.copy_chunk = fails  # type: ignore[method-assign]
    pool.rebuilder.round()
    assert chunks[:3] == ["mem2", "mem2", "mem3"]
    assert pool.where(located) == ["mem3", "mem1"]
    pool.holds(located, data, 2)
    assert pool.used()["mem2"] == 0


def test_memory_that_does_not_hold_what_is_written_is_not_used() -> None:
    pool = Pool(*devices(4))
    located, data = pool.region(2)
    pool.sources[0].fail()
    checksum = pool.rebuilder.copier.checksum
    pool.rebuilder.copier.checksum = (  # type: ignore[method-assign]
        lambda copies, copy, at, length: (
            checksum(copies, copy, at, length) + (pool.where(located)[copy] == "mem2" and at == CHUNK)
        )
    )
    pool.rebuilder.round()
    assert pool.where(located) == ["mem3", "mem1"]
    pool.holds(located, data, 2)
    assert [detail["offset"] for kind, _, detail in pool.events if kind == "rebuild failed"] == [CHUNK]


def test_a_region_that_is_freed_meanwhile_is_none_of_its_business() -> None:
    pool = Pool(*devices(3))
    located, _ = pool.region(2)
    pool.sources[0].fail()
    pool.server.regions.leave(located.index)
    pool.rebuilder.round()
    assert not any(kind.startswith("rebu") for kind, _, _ in pool.events)


def test_a_region_whose_lock_is_taken_is_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softcxl.fm.pool.copying.PATIENCE", 0.01)
    pool = Pool(*devices(3))
    located, data = pool.region(2)
    pool.sources[0].fail()
    holder = pool.client.region(located)
    holder.lock()
    pool.rebuilder.round()
    assert pool.rebuilder.waiting == {located.index: "somebody has its lock"}
    assert pool.used()["mem2"] == 0
    holder.unlock()
    pool.rebuilder.round()
    pool.holds(located, data, 2)


def test_writers_go_on_meanwhile_and_nothing_of_theirs_is_lost() -> None:
    pool = Pool(*devices(3))
    located, data = pool.region(2)
    expected, stop, begun = bytearray(data), threading.Event(), threading.Event()

    def write() -> None:
        region, count = pool.client.region(located), 0
        while not stop.is_set() or count < 300:
            at = count * 7919 % (SIZE - 3000)
            piece = count.to_bytes(4, "little") * 700
            region.write(at, piece)
            expected[at : at + len(piece)] = piece
            count += 1
            begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(60)
    for failing in (0, 1, 2, 0, 1):
        pool.sources[failing].fail()
        pool.rebuilder.round()
        while pool.state(located) != (0b11, 0):  # a writer that was not let run had the lock for long
            assert pool.rebuilder.waiting == {located.index: "somebody has its lock"}
            pool.rebuilder.round()
        pool.sources[failing].come_back(kept=False)
        pool.rebuilder.round()
        assert pool.state(located) == (0b11, 0)
    stop.set()
    writer.join()
    pool.holds(located, bytes(expected), 2)


def test_the_thread_does_it_by_itself_and_is_stopped_in_between() -> None:
    pool = Pool(*devices(3))
    located, data = pool.region(2)
    rebuilt = threading.Event()
    pool.rebuilder._event = lambda kind, subject, detail: rebuilt.set() if kind == "rebuilt" else None
    with pool.server:
        pool.sources[1].fail()
        assert rebuilt.wait(60)
    pool.serve()
    pool.holds(located, data, 2)


def test_a_server_that_stops_amid_a_round_does_not_wait_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """What wakes its thread to stop may be taken by the round for news of memory."""
    pool = Pool(*devices(2))
    pool.region(2)
    pool.sources[0].fail()
    rebuilder, mending = pool.rebuilder, threading.Event()
    stopping = rebuilder.copier.stopping

    def mend(index: int) -> bool:
        mending.set()
        assert stopping.wait(60)
        while not rebuilder._wake.is_set():
            threading.Event().wait(0.001)
        return False

    monkeypatch.setattr(rebuilder, "mend", mend)
    rebuilder.start()
    assert mending.wait(60)
    rebuilder.close()
    assert stopping.is_set()


def test_a_server_that_stops_leaves_the_rest_to_the_next() -> None:
    pool = Pool(*devices(3))
    located, data = pool.region(2)
    pool.sources[0].fail()
    copied = pool.rebuilder.copier.copy_chunk

    def closes(*arguments: Any) -> bool:
        pool.rebuilder.close()
        return copied(*arguments)

    pool.rebuilder.copier.copy_chunk = closes  # type: ignore[method-assign,assignment]
    pool.rebuilder.round()
    assert pool.state(located) == (0b10, 0b01)
    assert pool.where(located) == ["mem2", "mem1"]
    pool.server.close()
    pool.serve()
    pool.rebuilder.round()
    pool.holds(located, data, 2)
    assert pool.where(located) == ["mem2", "mem1"]


# -- poison ----------------------------------------------------------------------------------------------------------


def test_poisoned_lines_are_written_anew_from_the_other_copy() -> None:
    pool = Pool(*devices(2))
    located, data = pool.region(2)
    pool.sources[0].poison(0, 64, SIZE - 1)
    pool.sources[1].poison(4096)
    record = pool.server.directory.region(located.index)
    assert record.poisoned == 0b11
    pool.rebuilder.round()
    assert pool.server.directory.region(located.index).poisoned == 0
    assert [source.lines for source in pool.sources] == [set(), set()]
    pool.holds(located, data, 2)
    repaired = [detail["bytes"] for kind, _, detail in pool.events if kind == "poison repaired"]
    assert repaired == [192, 64]


def test_what_is_poisoned_in_every_copy_is_said_and_left() -> None:
    pool = Pool(*devices(2))
    located, _ = pool.region(2)
    pool.sources[0].poison(128, 4096)
    pool.sources[1].poison(128)
    pool.rebuilder.round()
    assert pool.rebuilder.waiting == {located.index: "128 bytes are poisoned in every copy"}
    assert pool.sources[0].lines == pool.sources[1].lines == {128}
    assert pool.server.directory.region(located.index).poisoned == 0b11


def test_a_copy_whose_lines_are_worn_out_is_made_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(*devices(3))
    located, data = pool.region(2)
    worn = pool.sources[0]
    clear = worn.clear_poison

    def again(at: int, length: int) -> None:
        clear(at, length)
        worn.poison(at)

    monkeypatch.setattr(worn, "clear_poison", again)
    worn.poison(640)
    pool.rebuilder.round()
    assert pool.where(located) == ["mem2", "mem1"]
    pool.holds(located, data, 2)


def test_a_copy_is_not_made_from_poison() -> None:
    pool = Pool(*devices(3))
    located, data = pool.region(3)
    pool.sources[0].fail()
    pool.sources[1].poison(CHUNK + 64)
    pool.sources[2].poison(CHUNK + 64)
    pool.rebuilder.round()
    why = pool.rebuilder.waiting[located.index]
    assert why == "128 bytes are poisoned in every copy" or "a copy more was asked for" in why
    pool.sources[0].come_back(kept=False)
    pool.rebuilder.round()
    assert pool.rebuilder.waiting[located.index] == (
        f"a part of it is poisoned in every copy, from byte {CHUNK:#x} on"
    )
    assert pool.client.region(located).read(0, CHUNK, 0b110) == data[:CHUNK]
    assert not pool.state(located)[0] & 1


def test_memory_that_is_there_no_more_is_given_up() -> None:
    pool = Pool(*devices(3))
    located, data = pool.region(2)
    pool.server.close()
    gone = pool.sources.pop(0)
    pool.serve()
    assert pool.state(located) == (0b10, 0)
    pool.client = Client(pool.server, pool.sources)
    pool.rebuilder.round()
    assert pool.where(located) == ["mem2", "mem1"]
    pool.holds(located, data, 2)
    assert gone.name == "mem0"


def test_much_that_was_written_over_poison_is_made_good_in_pieces() -> None:
    """Others write in between: the lock is nobody's for as long as all of it takes."""
    pool = Pool(*devices(2))
    located, data = pool.region(2)
    for source in pool.sources:
        source.poison(*range(0, SIZE, 32768))
    pool.server.health.tick()
    region = pool.client.region(located)
    region.write(0, data)
    health = pool.server.directory.memory.load(HEADER["health"])
    locks: list[int] = []

    class Watched:
        def lock(self, timeout: float) -> None:
            locks.append(0)
            region.lock(timeout)

        def unlock(self) -> None:
            region.unlock()

    repairer, copies = pool.rebuilder.repairer, Copies(pool.server.directory, located.index)
    write = repairer._write_anew

    def counted(*given: Any) -> None:
        locks[-1] += 1
        write(*given)

    repairer._write_anew = counted  # type: ignore[method-assign, assignment]
    assert repairer.heal(Watched(), copies, 0, SIZE, health)  # type: ignore[arg-type]
    assert sum(locks) == 2 * len(range(0, SIZE, 32768))
    assert max(locks) == 2 * 2
    assert all(not source.lines for source in pool.sources)
    pool.holds(located, data, 2)
    assert copies.poisoned == 0


def test_poison_that_comes_between_two_pieces_is_not_made_good() -> None:
    pool = Pool(*devices(2))
    located, data = pool.region(2)
    for source in pool.sources:
        source.poison(*range(0, SIZE, 32768))
    pool.server.health.tick()
    region = pool.client.region(located)
    region.write(0, data)
    health = pool.server.directory.memory.load(HEADER["health"])
    repairer, copies = pool.rebuilder.repairer, Copies(pool.server.directory, located.index)
    write, late = repairer._write_anew, SIZE // 4096 * 4096 - 64

    def more(*given: Any) -> None:
        write(*given)
        if late not in pool.sources[0].lines:
            for source in pool.sources:
                source.poison(late)

    repairer._write_anew = more  # type: ignore[method-assign, assignment]
    assert not repairer.heal(region, copies, 0, SIZE, health)
    assert late in pool.sources[0].lines
    assert copies.poisoned == 0b11


def test_a_copy_that_is_about_to_lose_bytes_is_not_copied_from() -> None:
    """A source tells of poison first: what is there in the next moment is not what was."""
    pool = Pool(*devices(3))
    located, _ = pool.region(3)
    copies = Copies(pool.server.directory, located.index)
    observer = pool.sources[0].observer
    assert observer is not None
    observer.poisoned([(64, 64)])
    assert pool.rebuilder.copier.holders(copies, 0, 4096) == [1, 2]
    assert pool.rebuilder.copier.holders(copies, 4096, 4096) == [0, 1, 2]
    assert pool.rebuilder.copier.good(copies, 1, 0, 4096) == 2


def test_what_a_view_shows_is_nobody_elses_while_there_is_one() -> None:
    pool = Pool(*devices(3))
    located, data = pool.region(2)
    named = Named(index=located.index, generation=located.generation, name=b"").pack()
    pool.client.execute(Opcode.PIN, named)
    pool.sources[0].fail()
    pool.rebuilder.round()
    pool.holds(located, data, 2)
    assert pool.where(located) == ["mem2", "mem1"]
    assert pool.sources[0].memory[:SIZE] == data
    pool.rebuilder.round()
    assert pool.used()["mem0"] > 0
    pool.client.execute(Opcode.UNPIN, named)
    pool.server.regions.clearing.clear(pool.server.lock)
    assert pool.used()["mem0"] == 0


def test_a_record_that_was_written_over_stops_nobody_elses_rebuilding() -> None:
    pool = Pool(*devices(3))
    bad, _ = pool.region(2, 4096, "bad")
    good, data = pool.region(2, 4096, "good")
    memory, at = pool.server.directory.memory, pool.server.directory.region_at(bad.index)
    memory.store(at + REGION["extent0"], 200 << 56)
    for copies in (Copies(pool.server.directory, one.index) for one in (bad, good)):
        copies.drop(0b01)
    pool.rebuilder.round()
    pool.holds(good, data, 2)
    assert pool.rebuilder.waiting == {bad.index: "somebody has written over its record"}


@pytest.mark.parametrize("place", [200 << 56, 1 << 56 | 12345, 1 << 56 | 1 << 40, 1 << 56])
def test_a_place_that_cannot_be_does_not_keep_a_server_from_starting(place: int) -> None:
    """A client has written that a copy is on its way to there."""
    pool = Pool(*devices(2))
    located, data = pool.region(1)
    other, others = pool.region(1, 4096, "other")
    copies = Copies(pool.server.directory, other.index)
    copies.place(3, place)
    copies.join(3)
    pool.server.close()
    pool.serve()
    pool.rebuilder.round()
    pool.client = Client(pool.server, pool.sources)
    pool.holds(located, data, 1)
    pool.holds(other, others, 1)
    assert pool.state(other) == (1, 0)
