"""What happens to one while a server sees to another: slots that are given on, requests that wait, servers that end."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from softcxl.fm.pool.server import PoolServer
from softcxl.pool import layout
from softcxl.pool.native import Caller, Queue
from softcxl.pool.protocol import (
    PROTOCOL,
    Attach,
    Attached,
    ChannelKind,
    Give,
    Head,
    Hello,
    Hold,
    Located,
    Opcode,
    Role,
    Status,
)
from tests.fm.pool.asking import ask, asking, of
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena
from tests.pool.served import Served, wait_until

SIZE = 8 << 20


@pytest.fixture
def sources() -> list[FakeSource]:
    return [FakeSource(name, SIZE) for name in ("mem0", "mem1", "mem2")]


def guest(server: PoolServer, name: bytes) -> int:
    hello = Hello(protocol=PROTOCOL, pid=0, slot=0, epoch=0, token=b"", lease=0, name=name, host=b"host7")
    return server.attach(hello, 0, remote=True).slot


def caller(client: Client) -> Caller:
    """Calls of a client to its server, by shared memory."""
    directory = client.server.directory
    queue = Queue(directory.memory, directory.plan.queue_at, layout.QUEUE_SIZE, client.slot)
    return Caller(directory.memory, directory.calls_at(client.slot), layout.CALLS_STRIDE, queue)


# -- slots -------------------------------------------------------------------------------------------------------


def test_who_has_the_slot_of_one_that_was_being_fenced_stays(sources: list[FakeSource]) -> None:
    asked, answer, now = threading.Event(), threading.Event(), [0.0]

    def fence(host: str) -> bool:
        asked.set()
        return answer.wait(60)

    server = PoolServer(arena(), sources, plan=PLAN, fence=fence, now=lambda: now[0])
    slot = guest(server, b"silent")
    for now[0] in (0.0, 100.0):
        with server.lock:
            server.clients.look()
    assert asked.wait(60)
    fencing = [one for one in threading.enumerate() if one.name == "fencing host7"]
    server.left(slot)  # its guest has gone by itself
    assert guest(server, b"another") == slot
    answer.set()
    for thread in fencing:
        thread.join()
    assert server.names == {slot: "another"}
    server.close()


def test_a_fence_that_answers_after_the_server_has_ended_changes_nothing(sources: list[FakeSource]) -> None:
    asked, answer, now, died = threading.Event(), threading.Event(), [0.0], list[object]()

    def fence(host: str) -> bool:
        asked.set()
        return answer.wait(60)

    server = PoolServer(arena(), sources, plan=PLAN, fence=fence, now=lambda: now[0])
    slot = guest(server, b"silent")
    for now[0] in (0.0, 100.0):
        with server.lock:
            server.clients.look()
    assert asked.wait(60)
    fencing = [one for one in threading.enumerate() if one.name == "fencing host7"]
    server.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", died.append)
        answer.set()
        for thread in fencing:
            thread.join()
    assert not died
    assert slot in server.names


def test_one_that_left_before_does_not_take_the_next_one_in_its_slot_along(sources: list[FakeSource]) -> None:
    server = PoolServer(arena(), sources, plan=PLAN)
    first = Client(server, sources, "first")
    server.left(first.slot, first.epoch)
    second = Client(server, sources, "second")
    assert second.slot == first.slot
    server.left(first.slot, first.epoch)
    assert server.names == {second.slot: "second"}
    server.left(second.slot, second.epoch)
    assert not server.names
    server.close()


COMES_AND_GOES = """
import socket, sys
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.connect(sys.argv[1])
door.send(bytes(8))
door.recv(2048)
for word in ("in", "out"):
    print(word, flush=True)
    sys.stdin.readline()
    door.close()
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    one = Served(tmp_path / "pool.sock")
    one.start()
    yield one
    one.stop()


def test_who_comes_by_the_descriptors_of_one_that_dies_stays(served: Served) -> None:
    entered, go = threading.Event(), threading.Event()

    def busy(slot: int, data: bytes) -> bytes:
        entered.set()
        go.wait(60)
        return b""

    served.server.handle(200, busy)
    hello = Hello(protocol=PROTOCOL, pid=0, slot=0, epoch=0, token=b"", lease=0, name=b"n", host=b"")
    command = [sys.executable, "-c", COMES_AND_GOES, str(served.path)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as dying,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as second,
    ):
        assert dying.stdin is not None
        assert dying.stdout is not None
        assert dying.stdout.readline() == "in\n"
        for one in (first, second):
            one.settimeout(60)
        first.connect(str(served.path))
        first.send(Head(what=Opcode.HELLO, number=1).pack() + hello.pack())
        first.recv(2048)
        first.send(Head(what=200, number=2).pack())
        assert entered.wait(60)
        # Now the door is busy: it finds all of this at once, in this order
        dying.stdin.write("close\n")
        dying.stdin.flush()
        assert dying.stdout.readline() == "out\n"
        second.connect(str(served.path))
        dying.stdin.write("end\n")
        dying.stdin.flush()
        dying.wait(60)  # with the pipes to it open: their descriptors would be taken first
        go.set()
        second.send(Head(what=Opcode.HELLO, number=1).pack() + hello.pack())
        assert Head.unpack_from(second.recv(2048)).what == Status.OK


# -- requests that wait ------------------------------------------------------------------------------------------


def restarted(sources: list[FakeSource]) -> tuple[PoolServer, Client, Client]:
    """A server that waits for two clients of another one, the first of which has freed all that there is."""
    fd = arena()
    first = PoolServer(fd, sources, plan=PLAN, lease=60.0)
    clients = Client(first, sources, "one"), Client(first, sources, "two")
    made = clients[0].allocate(SIZE, 3)
    first.close()
    second = PoolServer(fd, sources, plan=PLAN, lease=60.0)
    second.start()
    for one in clients:
        one.server = second
    clients[0].execute(Opcode.FREE, of(made))
    return second, *clients


def test_one_that_waits_for_the_others_does_not_keep_them_from_saying_what_it_waits_for(
    sources: list[FakeSource],
) -> None:
    server, one, two = restarted(sources)
    with closing(server):
        waits, others = caller(one), caller(two)
        call = waits.start(asking(SIZE).pack(), Opcode.ALLOCATE)
        said = Hold(index=0, generation=0, opened=0, pins=0).pack()
        others.call(said, Opcode.HOLD, 30.0)
        assert others.kind == Status.OK
        one.execute(Opcode.HOLD, said)
        answer = waits.result(call, 60.0)
        assert isinstance(answer, bytes)
        assert waits.kind == Status.OK
        assert Located.unpack(answer).size == SIZE


def test_a_guests_request_is_not_kept_waiting(sources: list[FakeSource]) -> None:
    """Its processor stands still while the device asks."""
    server, one, two = restarted(sources)
    with closing(server):
        assert server.at_once(one.slot, Opcode.ALLOCATE, asking(SIZE).pack())[0] == Status.BUSY
        said = Hold(index=0, generation=0, opened=0, pins=0).pack()
        for client in (one, two):
            assert server.at_once(client.slot, Opcode.HOLD, said)[0] == Status.OK
        wait_until(lambda: not server.regions.clearing.coming)
        assert server.at_once(one.slot, Opcode.ALLOCATE, asking(SIZE).pack())[0] == Status.OK


def test_a_request_that_waits_does_not_keep_a_server_from_ending(
    sources: list[FakeSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softcxl.fm.pool.allocating._FREEING", 3600.0)
    server, one, _ = restarted(sources)
    server.clients.lease = 3600.0
    caller(one).start(asking(SIZE).pack(), Opcode.ALLOCATE)
    wait_until(lambda: server.allocating.waiting._all)
    server.close()


def scattered(sources: list[FakeSource]) -> tuple[PoolServer, Client]:
    """A server with room enough, in pieces."""
    server = PoolServer(arena(), sources, plan=PLAN)
    client = Client(server, sources)
    made = [client.allocate(1 << 20) for _ in range(3 * SIZE >> 20)]
    for located in made[::2]:
        client.execute(Opcode.FREE, of(located))
    server.start()
    server.settled()
    return server, client


def test_a_move_that_fails_is_answered(sources: list[FakeSource], monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = scattered(sources)

    def fails(*_: object) -> bool:
        raise OSError("no memory can be mapped")

    monkeypatch.setattr(server.defragmenter, "make_room", fails)
    with closing(server):
        calls = caller(client)
        calls.call(asking(2 << 20).pack(), Opcode.ALLOCATE, 60.0)
        assert calls.kind == Status.NO_ROOM


def test_what_one_that_has_gone_had_asked_for_is_not_the_next_ones(
    sources: list[FakeSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = scattered(sources)
    moving, go, done = threading.Event(), threading.Event(), threading.Event()

    def slow(*_: object) -> bool:
        moving.set()
        return go.wait(60)

    monkeypatch.setattr(server.defragmenter, "make_room", slow)
    with closing(server):
        caller(client).start(asking(2 << 20).pack(), Opcode.ALLOCATE)
        assert moving.wait(60)
        server.left(client.slot)
        other = Client(server, sources, "other")
        assert other.slot == client.slot
        go.set()
        server.rebuilder.do(done.set)
        assert done.wait(60)
        assert [
            one.size for one in server.regions.known.values() if one.owner == other.slot and not one.leaving
        ] == [1 << 20]
        assert server.accounts.used(layout.identity("other")) == 0


# -- servers that end --------------------------------------------------------------------------------------------


def test_what_befalls_memory_after_its_server_has_ended_is_told_to_the_next(
    sources: list[FakeSource],
) -> None:
    fd = arena()
    server = PoolServer(fd, sources, plan=PLAN)
    server.start()
    server.close()
    sources[0].fail()
    sources[0].come_back(kept=True)
    sources[1].fail("its link is down")
    sources[2].poison(0)
    server = PoolServer(fd, sources, plan=PLAN)
    assert [one.state.name for one in server.sources.all.values()] == [
        "HEALTHY",
        "HEALTHY",
        "FAILED",
        "HEALTHY",
    ]
    server.close()


def test_a_region_somebody_looks_at_is_whole_again_without_memory_that_is_not_there(
    sources: list[FakeSource],
) -> None:
    fd = arena()
    server = PoolServer(fd, sources, plan=PLAN)
    server.directory.ready()
    client = Client(server, sources)
    made = client.allocate(4096, 2)
    server.close()
    server = PoolServer(fd, [sources[0], sources[2]], plan=PLAN)
    client.server = server
    client.execute(Opcode.HOLD, Hold(index=made.index, generation=made.generation, opened=1, pins=1).pack())
    assert server.rebuilder.mend(made.index)
    assert not server.rebuilder.waiting
    server.close()


def test_the_house_is_kept_where_one_who_looks_fails(sources: list[FakeSource]) -> None:
    looked = threading.Event()

    def fails() -> None:
        raise ValueError("a bug")

    server = PoolServer(arena(), sources, plan=PLAN, lease=0.1)
    server.on_tick(fails)
    server.on_tick(looked.set)
    with server:
        for _ in range(3):
            looked.clear()
            assert looked.wait(60)


def test_what_is_on_its_way_stays_so_over_a_server_that_ends(sources: list[FakeSource]) -> None:
    fd, now = arena(), [0.0]
    server = PoolServer(fd, sources, plan=PLAN, now=lambda: now[0])
    client = Client(server, sources)
    made = Located.unpack(client.execute(Opcode.ALLOCATE, asking(lease=1000).pack()))
    attach = Attach(kind=ChannelKind.QUEUE, role=Role.USER, flags=0, cells=4, size=100, request=0, name=b"q")
    channel = Attached.unpack(client.execute(Opcode.ATTACH, attach.pack()))
    give = Give(
        index=made.index, generation=made.generation, channel=channel.index, channel_generation=channel.generation
    )  # fmt: skip
    client.execute(Opcode.GIVE, give.pack())
    server.close()
    server = PoolServer(fd, sources, plan=PLAN, now=lambda: now[0])
    now[0] = 5.0
    server.settled()
    with server.lock:
        server.regions.sweep()
    assert not server.regions.known[made.index].leaving
    client.server = server
    client.execute(Opcode.ADOPT, give.pack())
    assert server.regions.known[made.index].opened == 1
    client.execute(Opcode.FREE, of(made))
    assert ask(client, Opcode.CLOSE, of(made))[0] == Status.GONE
    server.close()


def test_nothing_is_kept_of_regions_that_their_owner_has_freed(sources: list[FakeSource]) -> None:
    server = PoolServer(arena(), sources, plan=PLAN)
    owner, other = Client(server, sources, "owner"), Client(server, sources, "other")
    before = len(server.regions.uses.holdings[other.slot].opened)
    made = owner.allocate(4096, name="n")
    other.execute(Opcode.OPEN, of(made))
    owner.execute(Opcode.FREE, of(made))
    assert ask(other, Opcode.CLOSE, of(made))[0] == Status.GONE
    assert len(server.regions.uses.holdings[other.slot].opened) == before
    server.close()


def test_memory_that_is_freed_has_regions_looked_at_only_where_one_waits_for_it(
    sources: list[FakeSource],
) -> None:
    server = PoolServer(arena(), sources[:2], plan=PLAN)
    server.directory.ready()
    client = Client(server, sources)
    made = client.allocate(4096, 2)
    woken = server.rebuilder._wake

    def free_some() -> bool:
        client.execute(Opcode.FREE, of(client.allocate(4096)))
        woken.clear()
        server.allocating.clear_now()
        return woken.is_set()

    assert not free_some()
    sources[1].fail()
    server.rebuilder.round()
    assert list(server.rebuilder.waiting) == [made.index]
    assert free_some()
    sources[1].come_back(kept=True)
    server.rebuilder.round()
    assert not free_some()
    server.close()
