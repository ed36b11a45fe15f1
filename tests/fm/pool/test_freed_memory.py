"""Memory on its way from one to another: whose it is at any moment, and what is in it."""

from __future__ import annotations

import pytest

from softcxl.fm.pool.server import PoolServer
from softcxl.pool.protocol import Hold, Opcode, Status
from tests.fm.pool.asking import ask, asking, of
from tests.fm.pool.memories import PLAN, SOURCE, Client, FakeSource, arena


def test_nobody_gets_another_ones_bytes(server: PoolServer, sources: list[FakeSource]) -> None:
    client, other = Client(server, sources), Client(server, sources, "other")
    made = client.allocate(SOURCE, source=2)
    client.region(made).write(0, b"secret" * 1000)
    client.region(made).write(SOURCE - 6, b"secret")
    client.execute(Opcode.FREE, of(made))
    theirs = other.allocate(SOURCE, source=2)  # which waits for it to be cleared
    assert other.region(theirs).read(0, SOURCE) == bytes(SOURCE)


def test_memory_that_somebody_looks_at_is_nobody_elses(server: PoolServer, sources: list[FakeSource]) -> None:
    client, other = Client(server, sources), Client(server, sources, "other")
    made = client.allocate(SOURCE, source=2, name="x")
    client.region(made).write(0, b"seen")
    other.execute(Opcode.PIN, of(made))
    client.execute(Opcode.FREE, of(made))
    server.regions.clearing.clear(server.lock)
    assert sources[0].memory[:4] == b"seen"
    assert ask(client, Opcode.ALLOCATE, asking(source=2).pack())[0] == Status.NO_ROOM
    other.execute(Opcode.UNPIN, of(made))
    assert other.region(other.allocate(SOURCE, source=2)).read(0, 4) == bytes(4)


def test_who_dies_looks_at_nothing(server: PoolServer, sources: list[FakeSource]) -> None:
    client, other = Client(server, sources), Client(server, sources, "other")
    made = client.allocate(SOURCE, source=2)
    other.execute(Opcode.OPEN, of(made))
    other.execute(Opcode.PIN, of(made))
    server.left(client.slot)
    assert ask(other, Opcode.ALLOCATE, asking(source=2).pack())[0] == Status.NO_ROOM
    server.left(other.slot)
    Client(server, sources).allocate(SOURCE, source=2)


def test_a_region_that_is_being_written_is_not_taken_away(
    server: PoolServer, sources: list[FakeSource]
) -> None:
    client = Client(server, sources)
    made = client.allocate(SOURCE, source=2)
    region = client.region(made)
    region.lock()
    client.execute(Opcode.FREE, of(made))
    server.regions.sweep()
    server.regions.clearing.clear(server.lock)
    assert ask(client, Opcode.ALLOCATE, asking(source=2).pack())[0] == Status.NO_ROOM
    region.unlock()
    server.regions.sweep()
    client.allocate(SOURCE, source=2)


def test_a_count_of_an_old_region_is_not_a_new_ones(server: PoolServer, sources: list[FakeSource]) -> None:
    client, other = Client(server, sources), Client(server, sources, "other")
    made = client.allocate(4096, name="old")
    other.execute(Opcode.OPEN, of(made))
    client.execute(Opcode.FREE, of(made))
    server.regions.clearing.clear(server.lock)
    anew = client.allocate(4096, name="new")
    assert (anew.index, anew.generation) == (made.index, made.generation + 1)
    other.execute(Opcode.GOODBYE)  # which had the old one open
    assert server.regions.known[anew.index].opened == 1


def test_what_clients_of_the_last_server_look_at_is_not_cleared_before_they_have_said_so(
    sources: list[FakeSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softcxl.fm.pool.allocating._FREEING", 0.01)
    fd = arena()
    first = PoolServer(fd, sources, plan=PLAN)
    client, viewer, other = (Client(first, sources, name) for name in ("client", "viewer", "other"))
    made = client.allocate(SOURCE, source=2, name="x")
    viewer.execute(Opcode.OPEN, of(made))
    viewer.execute(Opcode.PIN, of(made))
    first.close()
    sources[0].memory[:4] = b"seen"
    with PoolServer(fd, sources, plan=PLAN) as second:
        for one in (client, viewer, other):
            one.server = second
        client.execute(Opcode.FREE, of(made))
        hold = Hold(index=made.index, generation=made.generation, opened=1, pins=1)
        viewer.execute(Opcode.HOLD, hold.pack())
        for one in (client, viewer, other):
            assert ask(client, Opcode.ALLOCATE, asking(source=2).pack())[0] == Status.NO_ROOM
            one.execute(Opcode.HOLD, hold.replace(index=0, generation=0).pack())
        assert ask(client, Opcode.ALLOCATE, asking(source=2).pack())[0] == Status.NO_ROOM
        assert sources[0].memory[:4] == b"seen"
        monkeypatch.undo()
        viewer.execute(Opcode.UNPIN, of(made))
        client.allocate(SOURCE, source=2)
        assert sources[0].memory[:4] == bytes(4)
