"""Arenas that are none, are too small or are another server's; how many sources and records one has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from softcxl.fm.pool.errors import ArenaUnfit
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.layout import MAX_SOURCES, Plan, RegionFlag
from softcxl.pool.protocol import Opcode, Status
from tests.fm.pool.asking import ask, asking, of
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena
from tests.pool.served import Served


def test_two_servers_have_not_one_arena(server: PoolServer, sources: list[FakeSource]) -> None:
    with pytest.raises(ArenaUnfit, match="another server has this arena"):
        PoolServer(server.directory.fd, sources)


def test_a_server_that_has_ended_gives_the_arena_up(sources: list[FakeSource]) -> None:
    fd = arena()
    for epoch in (1, 2, 3):
        with PoolServer(fd, sources, plan=PLAN) as served:
            assert served.directory.epoch == epoch


@pytest.mark.parametrize("size", [0, 100, 4096, 1 << 20])
def test_an_arena_that_is_too_small_is_unfit(size: int) -> None:
    fd = os.memfd_create("small")
    os.truncate(fd, size)
    with pytest.raises(ArenaUnfit, match=f"the arena has {size} bytes"):
        PoolServer(fd, [FakeSource("mem0")], plan=PLAN)


def test_a_file_of_something_else_is_left_alone() -> None:
    fd = os.memfd_create("other")
    os.pwrite(fd, b"GIF89a" + bytes(1 << 20), 0)
    with pytest.raises(ArenaUnfit, match="is of no pool"):
        PoolServer(fd, [FakeSource("mem0")])
    assert os.pread(fd, 6, 0) == b"GIF89a"


def test_sources_are_so_many() -> None:
    many = [FakeSource(f"mem{number}", 4096) for number in range(MAX_SOURCES + 1)]
    with pytest.raises(ArenaUnfit, match="252 at most"):
        PoolServer(arena(), many, plan=PLAN)


def test_sources_keep_their_numbers(sources: list[FakeSource]) -> None:
    fd = arena()
    with PoolServer(fd, sources, plan=PLAN) as served:
        numbers = {held.name: number for number, held in served.sources.all.items()}
    more = [FakeSource("mem2"), sources[1], sources[0]]
    with PoolServer(fd, more, plan=PLAN) as served:
        assert {held.name: number for number, held in served.sources.all.items()} == numbers | {"mem2": 3}


def test_records_are_so_many(sources: list[FakeSource]) -> None:
    plan = Plan(slots=4, regions=3, heap=2 << 20)
    with PoolServer(arena(plan), sources, plan=plan) as served:
        client = Client(served, sources)  # its journal is one
        client.allocate(4096)
        made = client.allocate(4096)
        status, said = ask(client, Opcode.ALLOCATE, asking().pack())
        assert (status, "records for no more" in said) == (Status.NO_ROOM, True)
        client.execute(Opcode.FREE, of(made))
        client.allocate(4096)


def test_channels_are_in_the_arena(server: PoolServer, sources: list[FakeSource]) -> None:
    client = Client(server, sources)
    made = client.allocate(4096, flags=RegionFlag.CHANNEL)
    assert server.regions.known[made.index].extents[0] >> 56 == 0


def test_as_many_sources_as_a_message_has_descriptors_for(tmp_path: Path) -> None:
    """A Unix socket passes 253 on at once (unix(7)): the arena, and these."""
    served = Served(tmp_path / "pool.sock")
    served.sources = [FakeSource(f"mem{number}", 4096) for number in range(252)]
    served.start()
    try:
        with served.connect() as pool:
            assert pool.sources == set(range(253))
            made = pool.allocate_many(4096, 252)
            assert {one.info.copies[0].source for one in made} == set(range(1, 253))
    finally:
        served.stop()
    served.sources.append(FakeSource("one-more", 4096))
    with pytest.raises(ArenaUnfit, match="253 sources of memory: a pool has 252 at most"):
        served.start()
