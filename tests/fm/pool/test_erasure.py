"""A source that is erased, or most of it: what is told of all of it costs no more than what is bad of it, and what is
lost is never zeros to who reads it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from softcxl.fm.pool.copies import Copies
from softcxl.fm.pool.server import PoolServer
from softcxl.pool import errors
from softcxl.pool.protocol import Located, Opcode, PoisonAnswer, PoisonQuery
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena
from tests.pool.served import wait_until

OFFSETS = (1 << 56) - 1


class Erased(FakeSource):
    """Says how often it was asked. What is erased is lost until it is cleared: as with a device, nobody sees or clears
    anything between what is told of it and that it is so."""

    asked = 0
    worn = -1

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name, size)
        self._erasing = threading.RLock()

    def poisoned(self, offset: int, size: int) -> list[tuple[int, int]]:
        with self._erasing:
            return self._found(offset, size)

    def _found(self, offset: int, size: int) -> list[tuple[int, int]]:
        self.asked += 1
        first, last = offset // 64, -(-(offset + size) // 64)
        bad, found, at = self._bad[first:last], [], 0
        while (start := bad.find(1, at)) >= 0:
            at = end if (end := bad.find(0, start)) >= 0 else last - first
            found.append((64 * (first + start), 64 * (at - start)))
        return found

    def clear_poison(self, offset: int, length: int) -> None:
        with self._erasing:
            self._bad[offset // 64 : (offset + length) // 64] = bytes(length // 64)
            self.memory[offset : offset + length] = bytes(length)
            if offset <= self.worn < offset + length:
                self._bad[self.worn // 64] = 1

    def erase(self) -> None:
        """All of it."""
        assert self.observer is not None
        with self._erasing:
            self.observer.poisoned([(0, self.size)])
            self._bad[:] = b"\1" * len(self._bad)
            self.memory[:] = bytes(self.size)


@pytest.fixture
def sources() -> list[Erased]:
    return [Erased("mem0", 32 << 20), Erased("mem1", 32 << 20)]


@pytest.fixture
def server(sources: list[Erased]) -> Iterator[PoolServer]:
    with PoolServer(arena(PLAN), sources, plan=PLAN) as one:
        yield one


def lost(client: Client, made: Located) -> list[tuple[int, int]]:
    """What the server says of a region's bytes that are lost."""
    asked = PoisonQuery(index=made.index, generation=made.generation, offset=0, length=made.size)
    answer = PoisonAnswer.unpack(client.execute(Opcode.POISON, asked.pack()))
    return [(one.offset, one.length) for one in answer.ranges]


def test_what_others_have_is_made_anew_and_what_nobody_has_is_lost_until_it_is_written(
    server: PoolServer, sources: list[Erased]
) -> None:
    client = Client(server, sources)
    twice, alone = client.allocate(4096, 2), client.allocate(4096, source=2)
    client.region(twice).write(0, b"twice" * 100)
    client.region(alone).write(0, b"alone")
    place = server.regions.known[alone.index].extents[0]
    assert place >> 56 == 1
    sources[0].asked = 0
    sources[0].erase()
    wait_until(lambda: Copies(server.directory, twice.index).healthy == 0b11)
    wait_until(lambda: client.region(twice).read(0, 500) == b"twice" * 100)
    begin = place & OFFSETS
    wait_until(
        lambda: sources[0].poisoned(0, sources[0].size) == [(begin, 4096)]
    )  # what is free is good again
    wait_until(lambda: server.rebuilder.waiting.get(alone.index) == "4096 bytes are poisoned in every copy")
    for _ in range(20):  # however long one waits
        server.health.tick()
        server.rebuilder.round()
    assert lost(client, alone) == [(0, 4096)]
    with pytest.raises(errors.Poisoned):
        client.region(alone).read(0, 4096)
    assert sources[0].asked < 1000, "one for each of 8192 pages"


def test_it_is_lost_to_the_next_server_too(sources: list[Erased]) -> None:
    fd = arena(PLAN)
    with PoolServer(fd, sources, plan=PLAN) as server:
        made = Client(server, sources).allocate(8192, name="alone", source=2)
        sources[0].erase()
    with PoolServer(fd, sources, plan=PLAN) as server:
        client = Client(server, sources)
        server.health.tick()
        server.rebuilder.round()
        assert lost(client, made) == [(0, 8192)]
        with pytest.raises(errors.Poisoned):
            client.region(made).read(0, 8192)


def test_a_page_that_is_worn_out_is_given_to_nobody_and_the_rest_of_what_was_free_is(
    server: PoolServer, sources: list[Erased]
) -> None:
    free = server.sources.all[1].space
    sources[0].worn = 16 << 20
    sources[0].erase()
    wait_until(lambda: sources[0].lines == {16 << 20} and free.available == (32 << 20) - 4096)
    assert not free.size_at(0)
    assert free.size_at(16 << 20) == 4096


def test_who_gets_memory_that_is_being_erased_gets_it_when_that_is_done(sources: list[Erased]) -> None:
    """It is nobody's until it is zeros that nobody has lost."""
    server = PoolServer(arena(PLAN), sources, plan=PLAN)
    server.directory.ready()
    jobs: list[Callable[[], None]] = []
    server.health._later = jobs.append
    client = Client(server, sources)
    sources[0].erase()
    with pytest.raises(AssertionError, match="0B"):
        client.allocate(4096, source=2)
    while jobs:
        jobs.pop(0)()
    made = client.allocate(4096, source=2)
    assert not lost(client, made)
    assert client.region(made).read(0, 4096) == bytes(4096)
    server.close()
