"""Leases in a thread of their own, and a pool's server that has a host fenced before its programs are forgotten."""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from softcxl.cli.serve_grants import ways
from softcxl.fm.errors import NoAnswer
from softcxl.fm.pool.fence import Fence, Port
from softcxl.fm.pool.grants import GrantError, Grants, NoSuchGrant
from softcxl.fm.pool.leases import Leases
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.protocol import PROTOCOL, Hello
from tests.fm.pool.memories import PLAN, FakeSource, arena
from tests.fm.pool.racks import HOSTS, TOPOLOGY, UNIT, rack

LONG = 60.0


@pytest.fixture
def place():
    with rack() as place:
        yield place


@pytest.fixture
def told():
    return queue.SimpleQueue()


@pytest.fixture
def leases(place, tmp_path, told):
    def make():
        fence = Fence(place.connect, place.names, patience=20.0)
        tell = lambda kind, host, **detail: told.put((kind, host, place.bound()))  # noqa: E731
        return Grants(fence, HOSTS, tmp_path / "grants.json", tell=tell)

    with Leases(make) as leases:
        yield leases


def test_a_lease_that_runs_out_is_seen_to(leases, told, place):
    leases.grant(UNIT, "b", 0.05)
    assert told.get(timeout=LONG)[:2] == ("granted", "b")
    assert told.get(timeout=LONG)[:2] == ("lease-ended", "b")
    assert told.get(timeout=LONG) == ("fenced", "b", ["rack.left.0 0.0"])
    assert leases.all() == []


def test_grants_are_told_renewed_and_released(leases):
    made = leases.grant(UNIT, "b", 1000)
    leases.renew(made.number)
    leases.heard_of("b")
    (found,) = leases.all()
    assert (found["number"], found["host"], found["state"]) == (1, "b", "granted")
    assert 900 < found["seconds"] <= 1000
    leases.release(made.number)
    with pytest.raises(NoSuchGrant):
        leases.renew(made.number)


def test_a_host_loses_all_that_it_has_and_others_nothing(leases, place):
    leases.grant(UNIT, "a", 1000, "ld")
    leases.grant(UNIT, "b", 1000, "ld")
    assert leases.fence("a")
    assert leases.fence("nobody")
    assert [one["host"] for one in leases.all()] == ["b"]


def test_a_host_that_cannot_be_deprived_is_not_fenced(leases, place):
    leases.grant(UNIT, "b", 1000)
    good = leases._grants.fence._connect

    def nobody():
        raise NoAnswer("nobody listens there")

    leases._grants.fence._connect = nobody
    assert not leases.fence("b")
    assert leases.all()[0]["state"] == "held"
    leases._grants.fence._connect = good
    assert leases.fence("b")


WITH_A_WAY = (
    TOPOLOGY.replace("spare: {volatile: 256MiB}", "spare: {volatile: 256MiB}\n  way: {type: pool-access}")
    .replace("ports: [shared, spare]", "ports: [shared, spare, way]")
    .replace("right: {ports: [null]}", "right: {ports: [null, way]}")
    + "pool: {memory: [spare]}\n"
).replace("ports: [shared, spare, way]", "ports: [shared, null, way]")


def test_a_host_that_is_fenced_loses_its_way_to_memory_that_is_others_too(tmp_path):
    with rack(WITH_A_WAY) as place:
        place.fabric.access["way"].host = "b"
        told = []

        def make():
            tell = lambda kind, host, **detail: told.append((kind, host, detail))  # noqa: E731
            return Grants(Fence(place.connect, place.names), HOSTS, tmp_path / "grants.json", tell=tell)

        with Leases(make, lambda host: ways(place.fabric, host)) as leases:
            assert place.bound() == ["rack.left.0 0.0", "rack.right.1 2.None"]
            assert leases.fence("a")
            assert "rack.right.1 2.None" in place.bound()
            assert leases.fence("b")
            assert place.bound() == ["rack.left.0 0.0"]
            assert leases.fence("b")  # again: it has none
        said = "vPPB 1 of VCS 1 of rack to port 2"
        assert told == [("cut-off", "b", {"binding": said})]


def test_a_host_whose_way_cannot_be_taken_is_not_fenced(place, tmp_path):
    def make():
        return Grants(Fence(place.connect, place.names), HOSTS, tmp_path / "grants.json")

    with Leases(make, lambda host: [Port("attic", 2)]) as leases:
        assert not leases.fence("b")


def test_before_and_after_nothing_is_granted(place, tmp_path):
    leases = Leases(lambda: Grants(Fence(place.connect, place.names), HOSTS, tmp_path / "grants.json"))
    for _ in range(2):
        with pytest.raises(GrantError, match="no fabric manager can take memory from hosts here"):
            leases.grant(UNIT, "b", 1)
        assert not leases.fence("b")
        leases.heard_of("b")
        leases.begin()
        leases.close()


def test_the_next_one_goes_on_with_what_there_is(place, tmp_path):
    def make():
        return Grants(Fence(place.connect, place.names), HOSTS, tmp_path / "grants.json")

    with Leases(make) as leases:
        leases.grant(UNIT, "b", 1000)
    with Leases(make) as leases:
        assert leases.fence("b")
    assert place.bound() == ["rack.left.0 0.0"]


def test_what_programs_of_a_silent_host_had_is_given_on_when_the_fabric_has_fenced_it(leases, place, told):
    leases.grant(UNIT, "b", 1000)
    events: queue.SimpleQueue[tuple[str, str, list[str]]] = queue.SimpleQueue()

    def event(kind, subject, detail):
        events.put((kind, subject, place.bound()))

    plan = replace(PLAN, slots=4)
    sources = [FakeSource("mem0")]
    with PoolServer(arena(plan), sources, plan=plan, lease=0.1, fence=leases.fence, event=event) as server:
        server.attach(Hello(protocol=PROTOCOL, name=b"guest", host=b"b"), 0, remote=True)
        seen = {}
        while "client gone" not in seen:
            kind, subject, bound = events.get(timeout=LONG)
            seen[kind] = subject, bound
    assert seen["lease ran out"] == ("guest", ["rack.left.0 0.0", "rack.right.0 0.1"])
    assert seen["client gone"] == ("guest", ["rack.left.0 0.0"])
    assert leases.all() == []


def test_who_is_silent_says_nothing_for_others_of_the_host(told):
    """A host that cannot be fenced is tried again; meanwhile no program of it counts as heard of."""
    events: queue.SimpleQueue[str] = queue.SimpleQueue()
    plan = replace(PLAN, slots=4)
    sources = [FakeSource("mem0")]

    def event(kind, subject, detail):
        events.put(kind)

    with PoolServer(
        arena(plan), sources, plan=plan, lease=0.1, fence=lambda host: False, event=event
    ) as server:
        with server.lock:
            for name in (b"one", b"two"):
                server.attach(Hello(protocol=PROTOCOL, name=name, host=b"b"), 0, remote=True)
            assert server.clients.heard() == {"b"}
        silent = 0
        while silent < 2:
            silent += events.get(timeout=LONG) == "host not fenced"
        with server.lock:
            assert server.clients.heard() == set()
            assert sorted(server.names.values()) == ["one", "two"]


def test_what_is_under_way_when_it_ends_is_told_so(place, tmp_path):
    """A host that never takes what it is offered, and a server that stops meanwhile."""
    offered = threading.Event()
    dynamic = place.fabric.mlds["shared"].dynamic
    dynamic.witness = lambda what, number, extents: offered.set() if what == "offered" else None
    page = tmp_path / "grants.json"
    first = Leases(lambda: Grants(Fence(place.connect, place.names), HOSTS, page))
    with first, ThreadPoolExecutor(1) as others:
        asked = others.submit(first.grant, 2 << 20, "a", 10, "extents")
        assert offered.wait(LONG)
        first.close()
        with pytest.raises(GrantError, match="the server stops"):
            asked.result(LONG)
    with Leases(lambda: Grants(Fence(place.connect, place.names), HOSTS, page)) as leases:
        assert leases.fence("a")  # the next one takes the offer back
        assert leases.all() == []
    assert dynamic.tags == []
