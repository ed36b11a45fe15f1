"""Clients that die, or fall silent: what they had locked is mended, their hosts are fenced, and leases run out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from softcxl.fm.pool.channels import Channels
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.errors import Stale
from softcxl.pool.layout import REGION, SLOT, SlotState
from softcxl.pool.protocol import PROTOCOL, Hello, Named, Opcode, Status
from tests.fm.pool.asking import ask, asking, by_name, of
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena
from tests.pool.served import wait_until

LEASE = 10.0


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Hosts:
    """Fences hosts: `answer` says whether it can."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[], bool] = lambda: True
        self.done = threading.Event()

    def __call__(self, host: str) -> bool:
        self.asked.append(host)
        self.done.set()
        return self.answer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


@pytest.fixture
def sources() -> list[FakeSource]:
    return [FakeSource("mem0"), FakeSource("mem1")]


@pytest.fixture
def server(sources: list[FakeSource], clock: Clock, hosts: Hosts) -> Iterator[PoolServer]:
    served = PoolServer(arena(), sources, plan=PLAN, lease=LEASE, fence=hosts, now=clock)
    served.directory.ready()
    yield served
    served.close()


def remote(server: PoolServer) -> int:
    hello = Hello(protocol=PROTOCOL, pid=0, slot=0, epoch=0, token=b"", lease=0, name=b"guest", host=b"host7")
    return server.attach(hello, 0, remote=True).slot


def look(server: PoolServer) -> None:
    with server.lock:
        server.clients.look()
        server.regions.sweep()


def beat(server: PoolServer, slot: int) -> None:
    server.directory.memory.add(server.directory.slot_at(slot) + SLOT["beat"], 1)


def test_who_is_silent_for_a_lease_is_fenced_and_then_gone(
    server: PoolServer, clock: Clock, hosts: Hosts
) -> None:
    slot = remote(server)
    assert server.execute(slot, Opcode.ALLOCATE, asking().pack())[0] == Status.OK
    look(server)
    for _ in range(5):  # it lives as long as its beat goes on
        clock.time += LEASE
        beat(server, slot)
        look(server)
    clock.time += LEASE
    look(server)
    assert not hosts.asked
    clock.time += 0.1
    look(server)
    wait_until(lambda: slot not in server.names)
    assert hosts.asked == ["host7"]
    assert server.directory.slot_state(slot)[1] is SlotState.FREE
    server.regions.clearing.clear(server.lock)
    assert not server.regions.known


def test_nothing_is_given_on_before_the_host_is_fenced(
    server: PoolServer, clock: Clock, hosts: Hosts
) -> None:
    slot = remote(server)
    hosts.answer = lambda: False
    assert server.execute(slot, Opcode.ALLOCATE, asking().pack())[0] == Status.OK
    look(server)
    told: list[str] = []
    server.clients._event = lambda kind, subject, detail: told.append(kind)
    for tries in range(1, 4):
        clock.time += LEASE + 1
        look(server)
        wait_until(lambda tries=tries: len(hosts.asked) == tries and not server.clients._fencing)  # type: ignore[misc]
        look(server)
        assert server.directory.slot_state(slot)[1] is SlotState.LIVE
        assert len(server.regions.known) == 1
    hosts.answer = lambda: True
    clock.time += LEASE
    look(server)
    wait_until(lambda: told[-1] == "host fenced")
    assert slot not in server.names
    # What is tried each second leaves room for the rest of a journal
    assert told == ["lease ran out", "host not fenced", "client gone", "host fenced"]


def test_a_fence_that_fails_has_not_fenced(server: PoolServer, clock: Clock, hosts: Hosts) -> None:
    slot = remote(server)

    def fails() -> bool:
        raise OSError("no fabric manager")

    hosts.answer = fails
    look(server)
    clock.time += LEASE + 1
    look(server)
    wait_until(lambda: hosts.asked and not server.clients._fencing)
    assert slot in server.names


def test_one_that_is_being_fenced_does_not_come_again(server: PoolServer, clock: Clock, hosts: Hosts) -> None:
    hello = Hello(protocol=PROTOCOL, pid=0, slot=0, epoch=0, token=b"", lease=0, name=b"guest", host=b"host7")
    welcome = server.attach(hello, 0, remote=True)
    held = threading.Event()
    hosts.answer = lambda: held.wait(60)
    look(server)
    clock.time += LEASE + 1
    look(server)
    assert hosts.done.wait(60)
    again = hello.replace(slot=welcome.slot, epoch=welcome.epoch, token=welcome.token)
    with pytest.raises(Exception, match="is not this client's any more"):
        server.attach(again, 0, remote=True)
    held.set()
    wait_until(lambda: welcome.slot not in server.names)


@pytest.mark.parametrize("looked", [True, False])
def test_one_that_was_only_late_is_not_gone(
    server: PoolServer, clock: Clock, hosts: Hosts, looked: bool
) -> None:
    """Nor where its host is said to be fenced: one with others that live has lost nothing."""
    slot = remote(server)
    held = threading.Event()
    hosts.answer = lambda: held.wait(60)
    look(server)
    clock.time += LEASE + 1
    look(server)
    assert hosts.done.wait(60)
    beat(server, slot)
    if looked:
        look(server)
    held.set()
    wait_until(lambda: not server.clients._fencing)
    look(server)
    assert server.directory.slot_state(slot)[1] is SlotState.LIVE
    clock.time += LEASE + 1
    look(server)
    wait_until(lambda: slot not in server.names)
    assert hosts.asked == ["host7"] * 2


def test_what_a_dead_writer_had_begun_is_brought_back(server: PoolServer, sources: list[FakeSource]) -> None:
    writer, reader = Client(server, sources), Client(server, sources, "reader")
    made = writer.allocate(8192, copies=2, name="x")
    writer.region(made).write(0, b"old" * 100)
    region = writer.region(made)
    region.lock()
    # As one that died while it wrote the first copy: half of it is there
    memory, at = server.directory.memory, server.directory.region_at(made.index)
    memory.store(at + REGION["intent_at"], 0)
    memory.store(at + REGION["intent_length"], 300)
    writes = memory.load(at + REGION["sequence"]) >> 24
    memory.store(at + REGION["sequence"], writes << 24 | writer.slot << 8 | 0 << 2 | 1)
    first = server.regions.known[made.index].extents[0]
    begin = first & (1 << 56) - 1
    sources[(first >> 56) - 1].memory[begin : begin + 150] = b"new" * 50
    server.left(writer.slot)
    assert reader.region(made).read(0, 300) == b"old" * 100
    assert sources[(first >> 56) - 1].memory[begin : begin + 300] == b"old" * 100
    assert memory.load(at + REGION["lock"]) & 0xFF == 0
    with pytest.raises(Stale):
        region.unlock()


def test_intents_that_cannot_be_do_not_hold_a_slot_up(server: PoolServer, sources: list[FakeSource]) -> None:
    client = Client(server, sources)
    at = server.directory.slot_at(client.slot)
    for number, word in enumerate(("intent", "intent1", "intent2", "intent3", "intent4")):
        server.directory.memory.store(at + SLOT[word], [1 << 63, PLAN.regions + 1, 5, 2**64 - 1, 1][number])
    server.left(client.slot)
    assert not server.names


# -- leases of regions -------------------------------------------------------------------------------------------


def test_a_region_goes_when_nobody_has_had_it_open_for_its_lease(
    server: PoolServer, sources: list[FakeSource], clock: Clock
) -> None:
    owner, other = Client(server, sources, "owner"), Client(server, sources, "other")
    owner.execute(Opcode.ALLOCATE, asking(name=b"x", lease=5000).pack())
    clock.time += 100
    look(server)
    other.execute(Opcode.OPEN, by_name("x"))
    owner.execute(Opcode.GOODBYE)
    clock.time += 100
    look(server)  # the other one has it open
    other.execute(Opcode.CLOSE, by_name("x"))
    clock.time += 4.9
    look(server)
    other.execute(Opcode.OPEN, by_name("x"))
    clock.time += 100
    look(server)
    other.execute(Opcode.CLOSE, by_name("x"))
    clock.time += 4.9
    look(server)
    assert "x" in server.regions.names
    clock.time += 0.2
    look(server)
    assert ask(other, Opcode.OPEN, by_name("x"))[0] == Status.UNKNOWN


def test_a_lease_begins_anew_with_a_server(sources: list[FakeSource], clock: Clock) -> None:
    fd = arena()
    with PoolServer(fd, sources, plan=PLAN, now=clock) as first:
        client = Client(first, sources)
        client.execute(Opcode.ALLOCATE, asking(name=b"x", lease=5000).pack())
        client.execute(Opcode.GOODBYE)
    clock.time += 1000
    second = PoolServer(fd, sources, plan=PLAN, now=clock)
    second.directory.ready()
    try:
        look(second)
        assert "x" in second.regions.names
        clock.time += 5.1
        look(second)
        assert "x" not in second.regions.names
    finally:
        second.close()


def test_many_leases_cost_nothing_until_they_end(
    server: PoolServer, sources: list[FakeSource], clock: Clock
) -> None:
    client = Client(server, sources)
    for number in range(100):
        client.execute(Opcode.ALLOCATE, asking(name=b"n%d" % number, lease=1000 * (number + 1)).pack())
    client.execute(Opcode.GOODBYE)
    for number in range(100):
        clock.time += 1.0
        look(server)
        assert len(server.regions.names) in (100 - number, 99 - number)
    clock.time += 1.0
    look(server)
    assert not server.regions.names


# -- memory that wears out ---------------------------------------------------------------------------------------


def test_free_memory_that_went_bad_is_made_good(server: PoolServer, sources: list[FakeSource]) -> None:
    before = server.sources.all[1].space.available
    sources[0].poison(8192, 12288 + 64)
    assert server.sources.all[1].space.available == before - 8192  # while it is looked at
    server.health.tick()
    assert not sources[0].lines
    assert server.sources.all[1].space.available == before


def test_free_memory_that_stays_bad_is_nobodys(
    server: PoolServer, sources: list[FakeSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSource, "clear_poison", lambda self, offset, length: None)
    sources[0].poison(8192)
    server.health.tick()
    client = Client(server, sources)
    space = server.sources.all[1].space
    while space.available:
        made = client.allocate(min(space.largest, 4 << 20), source=2)
        extent = server.regions.known[made.index].extents[0] & (1 << 56) - 1
        assert not extent <= 8192 < extent + made.size
    assert server.sources.all[1].space.size - 4096 == sum(
        one.size for one in server.regions.known.values() if one.extents[0] >> 56 == 1
    )


def test_memory_that_did_not_go_bad_after_all_is_given_out_again(
    server: PoolServer, sources: list[FakeSource]
) -> None:
    assert sources[0].observer is not None
    before = server.sources.all[1].space.available
    sources[0].observer.poisoned([(8192, 64)])
    for _ in range(20):
        server.health.tick()
    assert server.sources.all[1].space.available == before


def test_memory_that_was_freed_with_poison_comes_back_clean(
    server: PoolServer, sources: list[FakeSource]
) -> None:
    client = Client(server, sources)
    made = client.allocate(8 << 20, source=2)
    sources[0].poison(4096)
    client.execute(Opcode.FREE, of(made))
    again = client.allocate(8 << 20, source=2)
    assert not sources[0].lines
    assert client.region(again).read(4096, 64) == bytes(64)


def test_a_failed_source_takes_nothing_and_its_regions_go(
    server: PoolServer, sources: list[FakeSource]
) -> None:
    client = Client(server, sources)
    made = client.allocate(4096, source=2)
    sources[0].fail("its link is down")
    status, said = ask(client, Opcode.ALLOCATE, asking(source=2).pack())
    assert (status, "mem0" in said) == (Status.NO_ROOM, True)
    client.execute(Opcode.FREE, of(made))
    server.regions.clearing.clear(server.lock)
    assert made.index not in server.regions.known
    sources[0].come_back(kept=True)
    client.allocate(8 << 20, source=2)


def test_memory_that_comes_back_with_something_else_in_it_is_cleared(
    server: PoolServer, sources: list[FakeSource]
) -> None:
    client = Client(server, sources)
    sources[0].fail()
    sources[0].come_back(kept=False)
    made = client.allocate(8 << 20, source=2)
    assert client.region(made).read(0, 8 << 20) == bytes(8 << 20)


def test_a_source_that_is_not_there_this_time_has_no_healthy_copy(sources: list[FakeSource]) -> None:
    fd = arena()
    with PoolServer(fd, sources, plan=PLAN) as first:
        client = Client(first, sources)
        both = client.allocate(4096, copies=2, name="both")
        alone = client.allocate(4096, source=2, name="alone")
        client.region(both).write(0, b"both")
    second = PoolServer(fd, sources[1:], plan=PLAN)
    second.directory.ready()
    try:
        assert second.directory.region(alone.index).healthy == 0
        client = Client(second, sources)
        assert client.region(both).read(0, 4) == b"both"
        named = Named(index=alone.index, generation=alone.generation, name=b"")
        client.execute(Opcode.FREE, named.pack())
    finally:
        second.close()


@pytest.mark.parametrize("begun", [False, True])
def test_who_has_left_while_there_was_no_server_is_gone_though_its_process_lives(
    sources: list[FakeSource], begun: bool
) -> None:
    fd = arena()
    with PoolServer(fd, sources, plan=PLAN) as first:
        client = Client(first, sources)
        client.allocate(4096)
    after = PoolServer(fd, sources, plan=PLAN) if begun else None
    leaving = after or first
    dead = client.epoch << 24 | SlotState.DEAD
    memory = client.directory if after is None else after.directory.memory
    at = leaving.directory.slot_at(client.slot)
    assert memory.swap(at, client.epoch << 24 | SlotState.LIVE, dead)
    server = after or PoolServer(fd, sources, plan=PLAN)
    look(server)
    assert server.names == {}
    server.regions.clearing.clear(server.lock)
    assert not server.regions.known
    server.close()


def test_one_client_s_trouble_keeps_nobody_else_s_death_from_being_seen_to(
    server: PoolServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has gone is let go, and the one for whom that fails is tried again, and said once."""
    server.clients._fence = None
    first, second, third, fourth = (remote(server) for _ in range(4))
    for slot in (first, second):  # two on this machine, of processes that have ended
        server.clients._beats.pop(slot)
        server.clients.unseen.add(slot)
    troubled = {first, third}

    def trouble(slot: int) -> None:
        if slot in troubled:
            raise ValueError(f"slot {slot} is in trouble")

    server.on_left(trouble)
    look(server)
    clock.time += LEASE + 1
    look(server)
    assert set(server.clients.names) == troubled
    assert {one.getMessage().split(",")[0] for one in caplog.records if one.exc_info} == {
        f"slot {slot} is not given back" for slot in troubled
    }
    said = len(caplog.records)
    for _ in range(3):
        clock.time += 2
        look(server)
    assert len(caplog.records) == said
    troubled.clear()
    look(server)
    assert set(server.clients.names) == {first, third}  # not before a second has passed
    clock.time += 2
    look(server)
    assert not server.clients.names
    assert {remote(server) for _ in range(4)} == {first, second, third, fourth}


def test_who_could_not_be_let_go_as_the_door_saw_it_end_is_let_go_later(
    server: PoolServer, sources: list[FakeSource]
) -> None:
    client = Client(server, sources)
    trouble = [ValueError("for once")]

    def fails(slot: int) -> None:
        if trouble:
            raise trouble.pop()

    server.on_left(fails)
    with pytest.raises(ValueError, match="for once"):
        server.left(client.slot)
    assert client.slot in server.clients.names
    look(server)
    assert client.slot not in server.clients.names


def test_a_server_begins_though_one_who_has_died_cannot_be_let_go(
    sources: list[FakeSource], clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = arena()
    first = PoolServer(file, sources, plan=PLAN, lease=LEASE, now=clock)
    first.directory.ready()
    slot = Client(first, sources).slot
    first.directory.set_slot(slot, first.clients.epoch(slot), SlotState.DEAD)
    first.close()
    mend, trouble = Channels.mend, [ValueError("for once")]

    def fails(channels: Channels, slot: int) -> None:
        if trouble:
            raise trouble.pop()
        mend(channels, slot)

    monkeypatch.setattr(Channels, "mend", fails)
    second = PoolServer(file, sources, plan=PLAN, lease=LEASE, now=clock)
    assert slot in second.clients.names
    assert "is not given back" in caplog.text
    clock.time += 2
    look(second)
    assert slot not in second.clients.names
    second.close()
