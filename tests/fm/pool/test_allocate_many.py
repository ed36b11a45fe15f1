"""Several regions by one request: all of them, or none."""

from __future__ import annotations

import struct

import pytest

from softcxl.fm.pool.server import PoolServer
from softcxl.pool.protocol import MANY, Opcode, Status
from tests.fm.pool.asking import ask, many
from tests.fm.pool.memories import PLAN, SOURCE, Client, FakeSource, arena


def test_many_are_made_by_one_request(server: PoolServer, sources: list[FakeSource]) -> None:
    client = Client(server, sources)
    answer = client.execute(Opcode.ALLOCATE_MANY, many(MANY, size=8192, request=9))
    made = list(struct.iter_unpack("<2Q", answer))
    assert len(set(made)) == MANY
    for index, generation in made:
        assert server.regions.known[index].generation == generation
        assert server.directory.region(index).size == 8192
    assert client.execute(Opcode.ALLOCATE_MANY, many(MANY, size=8192, request=9)) == answer


def test_many_are_made_or_none(server: PoolServer, sources: list[FakeSource]) -> None:
    client = Client(server, sources)
    assert ask(client, Opcode.ALLOCATE_MANY, many(3, size=SOURCE - 4096))[0] == Status.NO_ROOM
    client.execute(Opcode.ALLOCATE_MANY, many(2, size=SOURCE))


@pytest.mark.parametrize("count", [0, MANY + 1, 1 << 63])
def test_many_are_so_many(server: PoolServer, sources: list[FakeSource], count: int) -> None:
    assert ask(Client(server, sources), Opcode.ALLOCATE_MANY, many(count))[0] == Status.MALFORMED


def test_many_have_no_name(server: PoolServer, sources: list[FakeSource]) -> None:
    assert ask(Client(server, sources), Opcode.ALLOCATE_MANY, many(2, name=b"x"))[0] == Status.MALFORMED


def test_many_that_were_half_made_by_a_server_that_died_are_made_whole(sources: list[FakeSource]) -> None:
    fd = arena()
    first = PoolServer(fd, sources, plan=PLAN)
    client = Client(first, sources)
    client.execute(
        Opcode.ALLOCATE_MANY, many(3, request=9)
    )  # as of one that was killed after the third of five
    first.close()
    with PoolServer(fd, sources, plan=PLAN) as second:
        status, answer = second.execute(client.slot, Opcode.ALLOCATE_MANY, many(5, request=9))
        assert status == 0
        assert len({index for index, _ in struct.iter_unpack("<2Q", answer)}) == 5
        assert (
            len(
                [
                    one
                    for one in second.regions.known.values()
                    if one.owner == client.slot and one.size == 4096
                ]
            )
            == 5
        )
