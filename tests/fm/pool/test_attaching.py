"""Who comes to a server, and to which slot; what of his stays when he leaves."""

from __future__ import annotations

import os

import pytest

from softcxl.fm.pool.errors import Refusal
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.protocol import PROTOCOL, Hello, ListAnswer, ListQuery, Opcode, Status
from tests.fm.pool.asking import ask, by_name, hello
from tests.fm.pool.memories import PLAN, Client, FakeSource


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (hello(protocol=PROTOCOL + 1), Status.VERSION),
        (hello(protocol=0), Status.VERSION),
        (hello(name=b""), Status.MALFORMED),
        (hello(name=b"\xff"), Status.MALFORMED),
        (hello(name=b"a\tb"), Status.MALFORMED),
        (hello(host=b"\xff"), Status.MALFORMED),
        (hello(slot=1, epoch=1, token=b"x" * 16), Status.GONE),
        (hello(slot=1 << 31, epoch=1), Status.GONE),
    ],
)
def test_who_says_hello_wrongly_stays_out(server: PoolServer, said: Hello, status: Status) -> None:
    with pytest.raises(Refusal) as refused:
        server.attach(said, os.getpid())
    assert refused.value.status == status
    assert not server.names


def test_a_slot_is_had_again_with_its_token_alone(server: PoolServer) -> None:
    welcome = server.attach(hello(), os.getpid())
    mine = {"slot": welcome.slot, "epoch": welcome.epoch, "token": welcome.token}
    again = server.attach(hello(**mine), os.getpid())
    assert (again.slot, again.epoch, again.token) == (welcome.slot, welcome.epoch, welcome.token)
    for wrong in ({"token": b"x" * 16}, {"epoch": welcome.epoch + 1}):
        with pytest.raises(Refusal, match="is not this client's any more"):
            server.attach(hello(**(mine | wrong)), os.getpid())
    with pytest.raises(Refusal, match="is not this client's any more"):
        server.attach(hello(**mine), os.getppid())


def test_slots_are_so_many(server: PoolServer) -> None:
    for _ in range(PLAN.slots - 1):
        server.attach(hello(), os.getpid())
    with pytest.raises(Refusal, match="slots for no more"):
        server.attach(hello(), os.getpid())
    server.left(1)
    assert server.attach(hello(), os.getpid()).slot == 1


def test_who_leaves_leaves_what_has_a_name(server: PoolServer, sources: list[FakeSource]) -> None:
    client, other = Client(server, sources), Client(server, sources, "other")
    client.allocate(4096)
    kept = client.allocate(4096, name="kept")
    before = server.accounts.used(server.clients.identities[client.slot])
    client.execute(Opcode.GOODBYE)
    assert ask(client, Opcode.LIST, ListQuery(start=0).pack())[0] == Status.GONE
    server.regions.clearing.clear(server.lock)
    assert before == 8192
    listed = ListAnswer.unpack(other.execute(Opcode.LIST, ListQuery(start=0).pack())).indices
    assert kept.index in listed
    later = Client(server, sources)
    assert server.accounts.used(server.clients.identities[later.slot]) == 4096
    later.execute(Opcode.FREE, by_name("kept"))
