"""What a pool's server answers, in process: each thing that is asked wrongly, and who may do what."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.fm.pool import regions
from softcxl.fm.pool.errors import ArenaUnfit, Refusal
from softcxl.fm.pool.server import PoolServer
from softcxl.pool import layout
from softcxl.pool.layout import MAX_SOURCES, Plan, RegionFlag
from softcxl.pool.native import Caller, Queue
from softcxl.pool.protocol import (
    LARGEST,
    MANY,
    PROTOCOL,
    Allocate,
    AllocateMany,
    Hello,
    Hold,
    Journal,
    ListAnswer,
    ListQuery,
    Located,
    Named,
    Opcode,
    PoisonAnswer,
    PoisonQuery,
    Status,
    TellAnswer,
    TellQuery,
)
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena
from tests.pool.served import Served

SOURCE = 8 << 20


@pytest.fixture
def sources() -> list[FakeSource]:
    return [FakeSource("mem0"), FakeSource("mem1")]


@pytest.fixture
def server(sources: list[FakeSource]) -> Iterator[PoolServer]:
    served = PoolServer(arena(), sources, plan=PLAN, quotas={"small": 1 << 20, "*": 1 << 30})
    served.directory.ready()
    yield served
    served.close()


def asking(size: int = 4096, request: int = 0, **changes: object) -> Allocate:
    asked = Allocate(
        size=size, request=request, copies=1, policy=0, separate=0, mode=2, flags=0, source=0, lease=0,
        reserved0=b"", name=b"",
    )  # fmt: skip
    return asked.replace(**changes)


def ask(client: Client, opcode: int, data: bytes = b"") -> tuple[int, str]:
    status, answer = client.server.execute(client.slot, opcode, data)
    return status, answer.decode(errors="replace") if status else ""


def of(made: Located, name: str = "") -> bytes:
    return Named(index=made.index, generation=made.generation, name=name.encode()).pack()


def by_name(name: str) -> bytes:
    return Named(index=0, generation=0, name=name.encode()).pack()


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        (asking(0), Status.MALFORMED, "a size of 0 bytes"),
        (asking(1 << 56), Status.MALFORMED, "a region has 1 or more"),
        (asking(SOURCE + 1), Status.NO_ROOM, "8MiB"),
        (asking(copies=0), Status.MALFORMED, "0 copies"),
        (asking(copies=9), Status.MALFORMED, "a region has 1 to 8"),
        (asking(copies=3), Status.NO_ROOM, "3 copies on 3 devices were asked for"),
        (asking(mode=3), Status.MALFORMED, "mode 3"),
        (asking(policy=2), Status.MALFORMED, "policy 2"),
        (asking(separate=9), Status.MALFORMED, "separate 9"),
        (asking(source=77), Status.NO_ROOM, "there is no source 76"),
        (asking(name=b"\xff\xfe"), Status.MALFORMED, "is no name"),
        (asking(name=b"a\nb"), Status.MALFORMED, "no control characters"),
        (asking(name=b"n" * 64), Status.MALFORMED, "1 to 63 bytes"),
    ],
)
def test_an_allocation_that_cannot_be_is_refused_in_words(
    server: PoolServer, sources: list[FakeSource], asked: Allocate, status: Status, words: str
) -> None:
    client = Client(server, sources)
    before = [held.space.available for held in server.sources.all.values()]
    answered, said = ask(client, Opcode.ALLOCATE, asked.pack())
    assert (answered, words in said) == (status, True), said
    assert [held.space.available for held in server.sources.all.values()] == before
    assert server.accounts.used(server.clients.identities[client.slot]) == 0


def test_a_name_is_one_regions(server: PoolServer, sources: list[FakeSource]) -> None:
    client = Client(server, sources)
    client.allocate(4096, name="x")
    assert ask(client, Opcode.ALLOCATE, asking(name=b"x").pack())[0] == Status.EXISTS
    client.execute(Opcode.FREE, by_name("x"))
    client.allocate(4096, name="x")


@pytest.mark.parametrize("opcode", [Opcode.OPEN, Opcode.FREE, Opcode.CLOSE, Opcode.PIN])
def test_what_is_not_there_is_unknown(server: PoolServer, sources: list[FakeSource], opcode: Opcode) -> None:
    client = Client(server, sources)
    assert ask(client, opcode, by_name("nothing"))[0] == Status.UNKNOWN
    gone = Named(index=5, generation=1, name=b"").pack()
    far = Named(index=1 << 63, generation=1, name=b"").pack()
    assert ask(client, opcode, gone)[0] == Status.GONE
    assert ask(client, opcode, far)[0] == Status.GONE
    assert ask(client, opcode, by_name(""))[0] == Status.MALFORMED


def test_a_region_is_freed_once_and_by_its_owner(server: PoolServer, sources: list[FakeSource]) -> None:
    mine, other = Client(server, sources, "mine"), Client(server, sources, "other")
    made = mine.allocate(4096, name="x")
    status, said = ask(other, Opcode.FREE, of(made))
    assert (status, "is another client's" in said) == (Status.DENIED, True)
    mine.execute(Opcode.FREE, of(made))
    assert ask(mine, Opcode.FREE, of(made))[0] == Status.GONE
    assert ask(mine, Opcode.FREE, by_name("x"))[0] == Status.UNKNOWN


def test_clients_of_one_name_free_each_others_regions(server: PoolServer, sources: list[FakeSource]) -> None:
    first, second = Client(server, sources), Client(server, sources)
    made = first.allocate(4096, name="x")
    second.execute(Opcode.FREE, of(made))


def test_private_is_its_owners(server: PoolServer, sources: list[FakeSource]) -> None:
    mine, other = Client(server, sources, "mine"), Client(server, sources, "other")
    mine.execute(Opcode.ALLOCATE, asking(mode=0, name=b"x").pack())
    assert ask(other, Opcode.OPEN, by_name("x"))[0] == Status.DENIED
    assert ask(other, Opcode.PIN, by_name("x"))[0] == Status.DENIED
    mine.execute(Opcode.OPEN, by_name("x"))


def test_what_was_not_opened_is_not_closed_nor_unpinned(
    server: PoolServer, sources: list[FakeSource]
) -> None:
    mine, other = Client(server, sources, "mine"), Client(server, sources, "other")
    made = mine.allocate(4096, name="x")
    assert ask(other, Opcode.CLOSE, of(made))[0] == Status.MALFORMED
    assert ask(other, Opcode.UNPIN, of(made))[0] == Status.MALFORMED
    mine.execute(Opcode.CLOSE, of(made))
    assert ask(mine, Opcode.CLOSE, of(made))[0] == Status.MALFORMED


def test_a_quota_is_kept_and_comes_back(server: PoolServer, sources: list[FakeSource]) -> None:
    client, again = Client(server, sources, "small"), Client(server, sources, "small")
    made = client.allocate(512 << 10)
    status, said = ask(again, Opcode.ALLOCATE, asking((512 << 10) + 1).pack())
    assert (status, "may have 1MiB" in said) == (Status.QUOTA, True), said
    again.allocate(512 << 10)
    assert ask(again, Opcode.ALLOCATE, asking(1).pack())[0] == Status.QUOTA
    client.execute(Opcode.FREE, of(made))
    again.allocate(512 << 10)


def test_all_copies_count(server: PoolServer, sources: list[FakeSource]) -> None:
    client = Client(server, sources, "small")
    assert ask(client, Opcode.ALLOCATE, asking(600 << 10, copies=2).pack())[0] == Status.QUOTA
    client.allocate(512 << 10, copies=2)


def test_a_request_that_is_made_again_has_the_same_result(
    server: PoolServer, sources: list[FakeSource]
) -> None:
    client = Client(server, sources)
    asked = asking(request=77, name=b"x").pack()
    made = Located.unpack(client.execute(Opcode.ALLOCATE, asked))
    assert Located.unpack(client.execute(Opcode.ALLOCATE, asked)) == made
    client.execute(Opcode.FREE, of(made))
    assert ask(client, Opcode.ALLOCATE, asked)[0] == Status.GONE


SAFE = [opcode for opcode in Opcode if opcode not in (Opcode.GOODBYE, Opcode.HELLO)]


@pytest.mark.parametrize("opcode", SAFE, ids=lambda opcode: opcode.name)
@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"\x01"], ids=["zeros", "ones", "small"])
def test_no_request_of_any_length_harms(
    server: PoolServer, sources: list[FakeSource], opcode: Opcode, byte: bytes
) -> None:
    client = Client(server, sources)
    keeper = client.allocate(4096, name="keeper")
    client.region(keeper).write(0, b"kept")
    for length in [*range(200), 1000, LARGEST]:
        status, answer = server.execute(client.slot, opcode, byte * length)
        assert status != Status.FAILED, answer
        assert len(answer) <= LARGEST
    assert client.region(keeper).read(0, 4) == b"kept"
    assert ask(client, Opcode.OPEN, by_name("keeper"))[0] == Status.OK


@pytest.mark.parametrize("opcode", [0, 39, 255, 1 << 31])
def test_an_unknown_request_is_named(server: PoolServer, sources: list[FakeSource], opcode: int) -> None:
    assert ask(Client(server, sources), opcode) == (Status.MALFORMED, f"there is no request {opcode}")


def test_nobody_is_in_a_slot_that_is_free(server: PoolServer) -> None:
    assert server.execute(3, Opcode.LIST, ListQuery(start=0).pack())[0] == Status.GONE
    assert server.execute(1 << 40, Opcode.POISON, b"")[0] == Status.GONE


# -- coming and going --------------------------------------------------------------------------------------------


def hello(**changes: object) -> Hello:
    said = Hello(protocol=PROTOCOL, pid=1, slot=0, epoch=0, token=b"", lease=0, name=b"me", host=b"")
    return said.replace(**changes)


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


# -- what is asked of it -----------------------------------------------------------------------------------------


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


# -- memory ------------------------------------------------------------------------------------------------------


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


# -- arenas that are none ----------------------------------------------------------------------------------------


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


def many(count: int, **changes: object) -> bytes:
    return AllocateMany(count=count, each=asking(**changes).pack()).pack()  # type: ignore[arg-type]


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


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("restarts", [0, 1])
def test_a_request_that_is_made_again_late_makes_nothing_twice(
    sources: list[FakeSource], count: int, restarts: int
) -> None:
    """A thread that had no processor for long, or no interpreter's lock, while others of its client's had them."""
    fd = arena()
    server = PoolServer(fd, sources, plan=PLAN)
    client = Client(server, sources)

    def make(request: int) -> bytes:
        asked = asking(request=request).pack()
        if count == 1:
            return client.execute(Opcode.ALLOCATE, asked)
        return client.execute(Opcode.ALLOCATE_MANY, AllocateMany(count=count, each=asked).pack())

    def others(start: int, end: int) -> None:
        for request in range(start, end):
            client.execute(Opcode.ALLOCATE, asking(request=request, size=1).pack())

    made = make(1000)
    others(1001, 1041)
    for _ in range(restarts):
        server.close()
        server = client.server = PoolServer(fd, sources, plan=PLAN)
    late = make(900)  # which has made nothing yet
    others(1041, 1110)
    there = set(server.regions.known)
    assert make(1000) == made
    assert make(900) == late != made
    assert set(server.regions.known) == there
    server.close()


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
