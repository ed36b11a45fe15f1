"""What clients ask for wrongly, or twice: each gets an answer in words, and nothing comes of it."""

from __future__ import annotations

import pytest

from softcxl.fm.pool.server import PoolServer
from softcxl.pool.protocol import LARGEST, Allocate, AllocateMany, ListQuery, Located, Named, Opcode, Status
from tests.fm.pool.asking import ask, asking, by_name, of
from tests.fm.pool.memories import PLAN, SOURCE, Client, FakeSource, arena


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


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("restarts", [0, 1])
@pytest.mark.parametrize("end", [1104, 1110], ids=["the late one remembered", "none of them remembered"])
def test_a_request_that_is_made_again_late_makes_nothing_twice(
    sources: list[FakeSource], count: int, restarts: int, end: int
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
    others(1041, end)
    there = set(server.regions.known)
    assert make(1000) == made
    assert make(900) == late != made
    assert set(server.regions.known) == there
    server.close()
