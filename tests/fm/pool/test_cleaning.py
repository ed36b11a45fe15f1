"""Memory that cannot be cleared: nobody gets it, everybody is told why, and it is tried again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from softcxl.fm.pool import allocating
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.protocol import Located, Named, Opcode, TellAnswer, TellQuery
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena
from tests.pool.served import wait_until

SIZE = 8 << 20


class Stubborn(FakeSource):
    """Its poison cannot be cleared while it is told not to; lines that are worn out are bad again at once."""

    why = ""
    worn: int | None = None

    def clear_poison(self, offset: int, length: int) -> None:
        if self.why:
            raise OSError(self.why)
        super().clear_poison(offset, length)
        if self.worn is not None and offset <= self.worn < offset + length:
            self.poison(self.worn)


class Pool:
    def __init__(self, *, runs: bool = False) -> None:
        self.sources = [Stubborn("mem0", SIZE), Stubborn("mem1", SIZE), Stubborn("mem2", SIZE)]
        self.fd, self.events = arena(), list[tuple[str, str]]()
        self.serve()
        if runs:
            self.server.start()

    def serve(self) -> None:
        self.server = PoolServer(self.fd, self.sources, plan=PLAN, event=self._happened)
        self.server.directory.ready()
        self.client = Client(self.server, self.sources)

    def _happened(self, kind: str, subject: str, detail: Any) -> None:
        self.events.append((kind, subject))

    def free(self, made: Located) -> None:
        self.client.execute(Opcode.FREE, Named(index=made.index, generation=made.generation, name=b"").pack())

    def clear(self) -> None:
        self.server.allocating._again_at = 0.0
        self.server.allocating.clear_now()

    def available(self, number: int) -> int:
        return self.server.sources.all[number].space.available

    def told(self) -> dict[str, tuple[int, str]]:
        asked = TellQuery(offset=0, what=b"sources")
        answer = TellAnswer.unpack(self.client.execute(Opcode.TELL, asked.pack()))
        text = answer.piece
        while len(text) < answer.total:
            asked = asked.replace(offset=len(text))
            text += TellAnswer.unpack(self.client.execute(Opcode.TELL, asked.pack())).piece
        return {
            one["name"]: (one["held_back"], one["why_held_back"])
            for one in json.loads(text)
            if one["held_back"]
        }


@pytest.fixture
def pool() -> Pool:
    return Pool()


def test_what_cannot_be_cleared_is_held_back_with_the_reason_and_the_rest_is_free(pool: Pool) -> None:
    bad, good = pool.client.allocate(8192, source=2), pool.client.allocate(4096, source=3)
    pool.sources[0].poison(64)
    pool.sources[0].why = "no space left on the device"
    pool.free(bad)
    pool.free(good)
    pool.clear()
    assert pool.told() == {"mem0": (8192, "no space left on the device")}
    assert (pool.available(1), pool.available(2)) == (SIZE - 8192, SIZE)
    assert not pool.server.regions.clearing.coming, "who asks for memory waits for nothing"
    assert pool.server.accounts.used(pool.server.clients.identities[pool.client.slot]) == 0
    pool.clear()
    assert pool.told() == {"mem0": (8192, "no space left on the device")}
    assert pool.events.count(("memory held back", "mem0")) == 1
    pool.sources[0].why = ""
    pool.clear()
    assert not pool.told()
    assert pool.available(1) == SIZE
    again = pool.client.allocate(SIZE, source=2)
    assert pool.client.region(again).read(0, SIZE) == bytes(SIZE)


def test_it_is_tried_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocating, "_AGAIN", 0.0)
    pool = Pool(runs=True)
    made = pool.client.allocate(4096, source=2)
    pool.sources[0].poison(64)
    pool.sources[0].why = "not now"
    pool.free(made)
    wait_until(lambda: pool.server.sources.cleaning.held_back)
    pool.sources[0].why = ""
    wait_until(lambda: pool.available(1) == SIZE)
    pool.server.close()


def test_the_next_server_begins_by_clearing_it(pool: Pool) -> None:
    made = pool.client.allocate(8192, source=2)
    pool.client.region(made).write(0, b"theirs" * 1000)
    pool.sources[0].poison(64)
    pool.sources[0].why = "not now"
    pool.free(made)
    pool.server.close()
    pool.serve()
    assert pool.told() == {"mem0": (SIZE, "not now")}
    pool.server.close()
    pool.sources[0].why = ""
    pool.serve()
    assert not pool.told()
    again = pool.client.allocate(SIZE, source=2)
    assert pool.client.region(again).read(0, SIZE) == bytes(SIZE)


def test_the_place_that_a_copy_leaves_is_held_back(pool: Pool) -> None:
    made = pool.client.allocate(4096, 2)
    (first, _) = pool.server.regions.known[made.index].extents
    assert first >> 56 == 1
    pool.sources[0].poison(64)
    pool.sources[0].why = "not now"
    pool.sources[0].fail()
    pool.server.rebuilder.round()
    assert [one >> 56 for one in pool.server.regions.known[made.index].extents] == [3, 2]
    assert pool.told() == {"mem0": (4096, "not now")}
    pool.sources[0].why = ""
    pool.sources[0].come_back(kept=True)
    pool.clear()
    assert pool.available(1) == SIZE


def test_what_was_free_when_it_was_erased_is_held_back(pool: Pool) -> None:
    source = pool.sources[0]
    assert source.observer is not None
    source._bad[100] = 1
    source.why = "not now"
    source.observer.poisoned([(0, SIZE)])
    assert pool.told() == {"mem0": (SIZE, "not now")}
    source.why = ""
    pool.clear()
    assert (pool.available(1), source.lines) == (SIZE, set())


def test_a_page_that_went_bad_is_held_back(pool: Pool) -> None:
    pool.sources[0].why = "not now"
    pool.sources[0].poison(4096)
    pool.server.health.tick()
    assert pool.told() == {"mem0": (4096, "not now")}
    pool.sources[0].why = ""
    pool.clear()
    assert pool.available(1) == SIZE


def test_what_is_worn_out_when_its_region_is_freed_is_given_to_nobody(pool: Pool) -> None:
    made = pool.client.allocate(SIZE, source=2)
    pool.sources[0].worn = 8192 + 64
    pool.sources[0].poison(8192 + 64)
    pool.server.health.tick()
    pool.free(made)
    pool.clear()
    pool.server.health.tick()
    assert pool.available(1) == SIZE - 4096
    assert ("memory retired", "mem0") in pool.events
    space = pool.server.sources.all[1].space
    while space.available:
        one = pool.client.allocate(space.largest, source=2)
        extent = pool.server.regions.known[one.index].extents[0] & (1 << 56) - 1
        assert not extent <= 8192 < extent + one.size


def test_poison_in_memory_that_is_on_its_way_to_others_is_found_when_it_gets_there(pool: Pool) -> None:
    """Between the clearing of what was freed and its new owner it is no region's, and not free either."""
    made = pool.client.allocate(SIZE, source=2)
    pool.free(made)
    cleaning = pool.server.sources.cleaning
    free = cleaning.free

    def poisoned(*given: Any) -> None:
        cleaning.free = free  # type: ignore[method-assign]
        with pool.server.lock:
            del pool.server.sources.all[1].regions[0]  # as of an extent that is no region's
        pool.sources[0].poison(4096)
        pool.server.health.tick()
        free(*given)

    cleaning.free = poisoned  # type: ignore[method-assign, assignment]
    pool.clear()
    pool.server.health.tick()
    assert (pool.sources[0].lines, pool.available(1)) == (set(), SIZE)


def test_free_memory_is_nobodys_from_the_moment_its_poison_is_told(pool: Pool) -> None:
    source, jobs = pool.sources[0], list[Any]()
    pool.server.health._later = jobs.append
    assert source.observer is not None
    source.observer.poisoned([(4096, 64)])
    assert pool.available(1) == SIZE - 4096
    made = [pool.client.allocate(4096, source=2) for _ in range(4)]
    assert 4096 not in {pool.server.regions.known[one.index].extents[0] & (1 << 56) - 1 for one in made}


def test_a_page_that_is_retired_is_looked_at_no_more(pool: Pool) -> None:
    pool.sources[0].worn = 64
    pool.sources[0].poison(64)
    for _ in range(30):
        pool.server.health.tick()
    assert ("memory retired", "mem0") in pool.events
    pool.sources[0].poison(64)
    for _ in range(30):
        pool.server.health.tick()
    assert not pool.server.health._pages
