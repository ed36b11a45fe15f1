"""Sources of many regions that fail: nobody reads them from that moment on, and others are answered meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from softcxl.fm.pool import sweep
from softcxl.fm.pool.copies import Copies
from softcxl.fm.pool.server import PoolServer
from softcxl.pool import errors
from softcxl.pool.layout import SourceState
from softcxl.pool.protocol import Located
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena
from tests.pool.served import LONG, wait_until

COUNT = 60
MANY = replace(PLAN, regions=1024)


class Held:
    """Stops a server between two portions, until it is let go on."""

    def __init__(self) -> None:
        self.stopped, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.stopped.set()
        assert self.go_on.wait(LONG)


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "PORTION", 8)


@pytest.fixture
def sources() -> list[FakeSource]:
    return [FakeSource("mem0"), FakeSource("mem1")]


@pytest.fixture
def server(sources: list[FakeSource]) -> Iterator[PoolServer]:
    with PoolServer(arena(MANY), sources, plan=MANY) as one:
        yield one


def made(client: Client, copies: int = 2, source: int = 0) -> list[Located]:
    regions = [client.allocate(64, copies, source=source) for _ in range(COUNT)]
    for number, one in enumerate(regions):
        client.region(one).write(0, bytes([number]) * 64)
    return regions


def contents(client: Client, regions: list[Located]) -> list[int]:
    return [client.region(one).read(0, 64)[0] for one in regions]


def healthy(server: PoolServer, regions: list[Located]) -> set[int]:
    return {Copies(server.directory, one.index).healthy for one in regions}


def test_none_of_its_copies_is_read_and_others_are_answered_before_all_records_say_so(
    server: PoolServer, sources: list[FakeSource]
) -> None:
    client = Client(server, sources)
    regions, alone = made(client), made(client, 1, source=2)
    server.health.sweeps.rest = held = Held()
    sources[0].fail()
    assert held.stopped.wait(LONG)
    assert Copies(server.directory, regions[-1].index).healthy == 0b11
    sources[0].memory[:] = b"\xee" * sources[0].size
    assert contents(client, regions) == list(range(COUNT))
    for one in alone:
        with pytest.raises(errors.Failed):
            client.region(one).read(0, 64)
        with pytest.raises(errors.Failed):
            client.region(one).write(0, bytes(64))
    another = client.allocate(64)  # by another thread than the one that is at it
    assert server.regions.known[another.index].extents[0] >> 56 == 2
    held.go_on.set()
    wait_until(lambda: len(healthy(server, regions)) == 1)
    wait_until(lambda: healthy(server, alone) == {0})
    assert contents(client, regions) == list(range(COUNT))


def test_one_that_is_back_before_is_used_only_when_its_failure_is_in_all_records(
    server: PoolServer, sources: list[FakeSource]
) -> None:
    client = Client(server, sources)
    regions, alone = made(client), made(client, 1, source=2)
    server.rebuilder.close()  # nothing is copied back
    server.health.sweeps.rest = held = Held()
    sources[0].fail()
    assert held.stopped.wait(LONG)
    for number, one in enumerate(regions):
        client.region(one).write(0, bytes([number + 100]) * 64)
    sources[0].come_back(kept=True)
    assert server.sources.all[1].state is SourceState.FAILED
    held.go_on.set()
    wait_until(lambda: server.sources.all[1].state is SourceState.HEALTHY)
    assert all(bits in (0b01, 0b10) for bits in healthy(server, regions)), (
        "they miss what was written meanwhile"
    )
    assert contents(client, regions) == [number + 100 for number in range(COUNT)]
    assert contents(client, alone) == list(range(COUNT))


def test_one_that_fails_again_before_is_not_used(server: PoolServer, sources: list[FakeSource]) -> None:
    client = Client(server, sources)
    alone = made(client, 1, source=2)
    server.health.sweeps.rest = held = Held()
    sources[0].fail()
    assert held.stopped.wait(LONG)
    sources[0].come_back(kept=True)
    sources[0].fail("it was pulled out")
    held.go_on.set()
    wait_until(lambda: healthy(server, alone) == {0})
    assert server.sources.all[1].state is SourceState.FAILED
    server.health.sweeps.finish()
    assert healthy(server, alone) == {0}


def test_what_was_left_where_a_server_was_killed_the_next_one_does(sources: list[FakeSource]) -> None:
    fd = arena(MANY)
    first = PoolServer(fd, sources, plan=MANY)
    first.directory.ready()
    client = Client(first, sources)
    regions = made(client)
    first.health.sweeps._later = lambda job: None  # it is killed before it comes to that
    sources[0].fail()
    assert 0b11 in healthy(first, regions)
    for number, one in enumerate(regions):
        client.region(one).write(0, bytes([number + 100]) * 64)
    first.directory.close()
    sources[0].reason = ""  # it is back, while no server is there to hear of it
    second = PoolServer(fd, sources, plan=MANY)
    second.directory.ready()
    client.server, client.directory = second, second.directory.memory
    client.sources[0] = client.directory
    assert second.sources.all[1].state is SourceState.HEALTHY
    assert 0b11 not in healthy(second, regions)
    assert contents(client, regions) == [number + 100 for number in range(COUNT)]
    second.close()


class Killed:
    """Servers that are killed, one after the other, over what is the same for all of them."""

    def __init__(self, sources: list[FakeSource]) -> None:
        self.sources, self.fd = sources, arena(MANY)
        self.server = self.serve()
        self.client = Client(self.server, sources)

    def serve(self) -> PoolServer:
        self.server = PoolServer(self.fd, self.sources, plan=MANY)
        self.server.directory.ready()
        return self.server

    def stuck(self) -> None:
        """Nothing is done from now on but what is done at once: the first portion."""
        self.server.health.sweeps._later = lambda job: None

    def again(self) -> PoolServer:
        """It is killed, and another one comes."""
        for one in self.sources:
            one.observer = None
        self.server.directory.close()
        server = self.client.server = self.serve()
        self.client.directory = server.directory.memory
        self.client.sources[0] = self.client.directory
        return server


def test_a_server_that_is_killed_while_a_source_returns_leaves_nothing_lost(
    sources: list[FakeSource],
) -> None:
    pool = Killed(sources)
    alone = made(pool.client, 1, source=2)
    sources[0].fail()
    assert healthy(pool.server, alone) == {0}
    pool.stuck()
    sources[0].come_back(kept=True)
    assert healthy(pool.server, alone) == {0, 1}
    for _ in range(2):
        server = pool.again()
        assert server.sources.all[1].state is SourceState.HEALTHY
        assert healthy(server, alone) == {1}
        assert contents(pool.client, alone) == list(range(COUNT))
    server.close()


def test_a_source_that_fails_while_no_server_is_there_and_has_not_returned_is_not_used(
    sources: list[FakeSource],
) -> None:
    pool = Killed(sources)
    alone = made(pool.client, 1, source=2)
    sources[0].fail()
    server = pool.again()
    assert server.sources.all[1].state is SourceState.FAILED
    assert healthy(server, alone) == {0}
    sources[0].come_back(kept=True)
    assert healthy(server, alone) == {1}
    assert contents(pool.client, alone) == list(range(COUNT))
    server.close()


def test_what_a_source_lost_before_a_server_was_killed_no_later_one_takes_for_there(
    sources: list[FakeSource],
) -> None:
    pool = Killed(sources)
    alone = made(pool.client, 1, source=2)
    sources[0].fail()
    sources[0].spoil()
    server = pool.again()  # it does not answer yet
    assert server.sources.all[1].state is SourceState.FAILED
    sources[0].reason = ""
    server = pool.again()
    assert server.sources.all[1].state is SourceState.HEALTHY
    sources[0].fail()
    sources[0].come_back(kept=True)
    assert healthy(server, alone) == {0}, "it kept only what it had then"
    fresh = pool.client.allocate(4096, source=2)
    assert pool.client.region(fresh).read(0, 4096) == bytes(4096)
    server.close()


def test_a_server_that_is_killed_before_all_records_say_what_is_lost_leaves_it_lost(
    sources: list[FakeSource],
) -> None:
    pool = Killed(sources)
    alone = made(pool.client, 1, source=2)
    sources[0].fail()
    pool.stuck()
    sources[0].come_back(kept=False)
    server = pool.again()
    assert server.sources.all[1].state is SourceState.HEALTHY
    sources[0].fail()
    sources[0].come_back(kept=True)
    assert healthy(server, alone) == {0}
    server.close()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_that_failed_the_last_one_has_what_counts_for_the_next_server_too(
    sources: list[FakeSource], order: tuple[int, int]
) -> None:
    first, last = (sources[number] for number in order)
    pool = Killed(sources)
    regions = made(pool.client)
    pool.stuck()
    first.fail()
    for number, one in enumerate(regions):
        pool.client.region(one).write(0, bytes([number + 100]) * 64)
    last.fail()
    server = pool.again()
    assert healthy(server, regions) == {0}
    server = pool.again()
    first.come_back(kept=True)
    assert healthy(server, regions) == {0}, "it misses what was written"
    last.come_back(kept=True)
    assert contents(pool.client, regions) == [number + 100 for number in range(COUNT)]
    server.close()


def test_one_that_comes_back_empty_and_fails_is_empty_when_it_is_back_as_it_was(
    server: PoolServer, sources: list[FakeSource]
) -> None:
    client = Client(server, sources)
    alone = made(client, 1, source=2)
    go_on, begun = threading.Event(), threading.Event()

    def busy() -> None:
        begun.set()
        assert go_on.wait(LONG)

    server.later(busy)  # so that what is free is not cleared before it fails again
    assert begun.wait(LONG)
    server.health.sweeps.rest = lambda: None
    sources[0].fail()
    server.health.sweeps.finish()
    sources[0].come_back(kept=False)
    server.health.sweeps.finish()
    sources[0].fail()
    sources[0].come_back(kept=True)
    server.health.sweeps.finish()
    assert server.sources.all[1].state is SourceState.FAILED
    go_on.set()
    wait_until(lambda: server.sources.all[1].state is SourceState.HEALTHY)
    assert healthy(server, alone) == {0}
    fresh = client.allocate(1 << 20, source=2)
    assert client.region(fresh).read(0, 1 << 20) == bytes(1 << 20)


def test_nothing_is_repaired_from_what_is_lost_before_its_record_says_so(sources: list[FakeSource]) -> None:
    pool = Killed(sources)
    server = pool.server
    regions = made(pool.client)
    one = regions[-1]
    bad = next(at for at in server.regions.known[one.index].extents if at >> 56 == 2)
    pool.stuck()
    sources[1].poison(bad & (1 << 56) - 1)
    sources[0].fail()
    sources[0].memory[:] = b"\xee" * sources[0].size
    copies = Copies(server.directory, one.index)
    assert copies.healthy == 0b11
    assert not server.rebuilder.mend(one.index)
    assert copies.poisoned
    with pytest.raises(errors.Poisoned):
        pool.client.region(one).read(0, 64)
    server.close()
