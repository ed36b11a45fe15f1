"""What a pool's server answers of itself: lists, what it tells, journals, and calls of the dead."""

from __future__ import annotations

import json
import os

import pytest

from softcxl.fm.pool import regions
from softcxl.fm.pool.server import PoolServer
from softcxl.pool import layout
from softcxl.pool.native import Caller, Queue
from softcxl.pool.protocol import (
    Journal,
    ListAnswer,
    ListQuery,
    Opcode,
    PoisonAnswer,
    PoisonQuery,
    Status,
    TellAnswer,
    TellQuery,
)
from tests.fm.pool.asking import ask, hello, of
from tests.fm.pool.memories import Client, FakeSource


def test_calls_of_the_dead_take_nothing_from_who_comes_into_their_slot(server: PoolServer) -> None:
    directory = server.directory
    caught = []
    for _ in range(2 * layout.CALLS):
        slot = server.attach(hello(), os.getpid()).slot
        queue = Queue(directory.memory, directory.plan.queue_at, layout.QUEUE_SIZE, slot)
        at = directory.calls_at(slot)
        caller = Caller(directory.memory, at, layout.CALLS_STRIDE, queue)
        caught.append((slot, caller.start(b"", Opcode.LIST, 0)))  # Full, where there is no cell
        server.left(slot)
    assert len({slot for slot, _ in caught}) == 1
    # Numbers go on: nothing that is said of an older call is of a newer one.
    numbers = [number for _, (cell, number) in caught if cell == 0]
    assert numbers == sorted(set(numbers))


def test_lists_go_on_where_they_stopped(server: PoolServer, sources: list[FakeSource]) -> None:
    client = Client(server, sources)
    made = [client.allocate(4096).index for _ in range(200)]
    found: list[int] = []
    start = 0
    while True:
        answer = ListAnswer.unpack(client.execute(Opcode.LIST, ListQuery(start=start).pack()))
        found += answer.indices
        if not (start := answer.next):
            break
    assert [index for index in found if index in made] == sorted(made)


@pytest.mark.parametrize("what", ["sources", "clients", "server", "regions", "quotas"])
def test_what_it_tells_comes_in_pieces_of_json(
    server: PoolServer, sources: list[FakeSource], what: str
) -> None:
    client = Client(server, sources)
    for _ in range(8):
        server.attach(hello(name=b"n" * 63), os.getpid())
    text = b""
    while True:
        query = TellQuery(offset=len(text), what=what.encode()).pack()
        answer = TellAnswer.unpack(client.execute(Opcode.TELL, query))
        text += answer.piece
        if len(text) == answer.total:
            break
    told = json.loads(text)
    if what == "sources":
        assert [one["name"] for one in told] == ["arena", "mem0", "mem1"]
    if what == "clients":
        assert len(told) == 9
    if what == "quotas":
        assert told[0] == {"name": "small", "limit": 1 << 20, "used": 0}


def test_what_is_not_told_is_unknown(server: PoolServer, sources: list[FakeSource]) -> None:
    status, said = ask(Client(server, sources), Opcode.TELL, TellQuery(offset=0, what=b"future").pack())
    assert (status, "sources" in said) == (Status.UNKNOWN, True)


def test_a_client_has_one_journal_free_of_charge(server: PoolServer, sources: list[FakeSource]) -> None:
    client = Client(server, sources, "small")
    journal = Journal.unpack(client.execute(Opcode.JOURNAL))
    assert Journal.unpack(client.execute(Opcode.JOURNAL)) == journal
    assert (journal.at >> 56, journal.size) == (0, 1 << 20)
    assert server.accounts.used(server.clients.identities[client.slot]) == 0


def test_poison_is_told_by_copy(server: PoolServer, sources: list[FakeSource]) -> None:
    client = Client(server, sources)
    made = client.allocate(8192, copies=2)
    at = server.regions.known[made.index].extents[0] & (1 << 56) - 1
    where = server.regions.known[made.index].extents[0] >> 56
    sources[where - 1].poison(at + 128)
    query = PoisonQuery(index=made.index, generation=made.generation, offset=0, length=8192)
    answer = PoisonAnswer.unpack(client.execute(Opcode.POISON, query.pack()))
    assert [(one.copy, one.offset, one.length) for one in answer.ranges] == [(0, 128, 64)]
    outside = query.replace(offset=8192, length=1)
    assert ask(client, Opcode.POISON, outside.pack())[0] == Status.MALFORMED
    assert ask(client, Opcode.POISON, query.replace(generation=99).pack())[0] == Status.GONE


def test_others_add_requests_and_what_is_told(server: PoolServer, sources: list[FakeSource]) -> None:
    client = Client(server, sources)
    left: list[int] = []
    server.handle(200, lambda slot, data: data + bytes([slot]))
    server.tell("weather", lambda: {"rain": True})
    server.on_left(left.append)
    assert client.execute(200, b"x") == b"x" + bytes([client.slot])  # type: ignore[arg-type]
    told = TellAnswer.unpack(client.execute(Opcode.TELL, TellQuery(offset=0, what=b"weather").pack()))
    assert told.piece == b'{"rain": true}'
    server.left(client.slot)
    assert left == [client.slot]


def test_regions_are_listed_in_pages_however_few_of_the_records_are_theirs(
    monkeypatch: pytest.MonkeyPatch, server: PoolServer, sources: list[FakeSource]
) -> None:
    monkeypatch.setattr(regions, "_LOOKED_AT", 16)
    client = Client(server, sources)
    made = [client.allocate(64) for _ in range(150)]
    stay = {made[0].index, *(one.index for one in made[40:44]), made[149].index}
    for one in made:
        if one.index not in stay:
            client.execute(Opcode.FREE, of(one))
    found, start, answers = list[int](), 0, 0
    while True:
        answer = ListAnswer.unpack(client.execute(Opcode.LIST, ListQuery(start=start).pack()))
        found += answer.indices
        answers += 1
        if not answer.next:
            break
        assert answer.next > start
        start = answer.next
    others = {index for index, one in server.regions.known.items() if one.flags & 4}  # its journal
    assert found == sorted(stay | others)
    assert answers >= 150 // 16


def test_a_page_of_regions_goes_on_where_it_was_full(server: PoolServer, sources: list[FakeSource]) -> None:
    client = Client(server, sources)
    made = [client.allocate(64).index for _ in range(6)]
    first, onward = server.regions.page(made[0], 4)
    assert (first, onward) == (made[:4], made[4])
    assert server.regions.page(onward, 4) == (made[4:], 0)
    assert server.regions.page(1 << 40, 4) == ([], 0)
