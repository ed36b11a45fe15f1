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
