"""Memory of a host's own: given, renewed, taken by the fabric, and others' only when it is gone."""

import asyncio
import json
from uuid import UUID

import pytest

from softcxl.fm.errors import CommandRefused, FmError, NoAnswer
from softcxl.fm.pool.fence import Binding, Capacity, Fence, NotFenced, Port
from softcxl.fm.pool.grants import Grant, GrantError, Grants, LeaseEnded, NoRoom, NoSuchGrant
from softcxl.spec.fm.vcs import UnbindOption
from tests.device.dynamic.dc_host import DcHost
from tests.fm.pool.racks import GIB, HOSTS, MIB, UNIT, rack


class Killed(BaseException):
    """The server dies here."""


class Steps(Fence):
    """A fence that says what it does, and stops at the step that it is told."""

    steps: list[str]
    dies_at = -1
    fails: Exception | None = None

    def _step(self, what):
        self.steps.append(what)
        if len(self.steps) == self.dies_at:
            raise Killed(what)

    async def unbind(self, binding):
        self._step("unbind")
        if self.fails is not None:
            raise self.fails
        await super().unbind(binding)
        self._step("unbound")

    async def empty(self, port, ld):
        self._step("empty")
        await super().empty(port, ld)
        self._step("emptied")


@pytest.fixture
def place():
    with rack() as place:
        yield place


def made(place, tmp_path, **more):
    fence = Steps(place.connect, place.names, patience=20.0)
    fence.steps = []
    grants = Grants(fence, HOSTS, tmp_path / "grants.json", tell=place.tell, now=place.now, **more)
    return grants, fence


def kept(tmp_path):
    return [
        (one["number"], one["state"]) for one in json.loads((tmp_path / "grants.json").read_text())["grants"]
    ]


def test_a_host_gets_a_logical_device(place, tmp_path):
    grants, _ = made(place, tmp_path)
    grant = asyncio.run(grants.grant(100 * MIB, "b", 10))
    assert (grant.size, grant.place) == (UNIT, Binding("rack", 1, 0, 0, 1))
    assert place.bound() == ["rack.left.0 0.0", "rack.right.0 0.1"]
    assert place.sizes() == [UNIT, UNIT, 0, 0]
    assert kept(tmp_path) == [(1, "granted")]
    assert place.told == [("granted", "b")]


def test_its_lease_runs_out_and_the_host_loses_it_before_it_is_others(place, tmp_path):
    grants, fence = made(place, tmp_path)

    async def run():
        await grants.grant(UNIT, "b", 10)
        place.seconds += 9
        assert await grants.look() == 1.0
        assert len(place.bound()) == 2
        place.seconds += 1
        assert await grants.look() is None

    asyncio.run(run())
    assert fence.steps == ["unbind", "unbound", "empty", "emptied"]
    assert place.bound() == ["rack.left.0 0.0"]
    assert place.sizes() == [UNIT, 0, 0, 0]
    assert (grants.all, kept(tmp_path)) == ([], [])
    assert place.told == [("granted", "b"), ("lease-ended", "b"), ("fenced", "b")]


def test_a_host_that_is_heard_of_keeps_what_it_has(place, tmp_path):
    grants, _ = made(place, tmp_path)

    async def run():
        grant = await grants.grant(UNIT, "b", 10)
        for renew in (lambda: grants.heard_of("b"), lambda: grants.renew(grant.number)):
            place.seconds += 9
            renew()
            place.seconds += 9
            renew()
            await grants.look()
            assert len(place.bound()) == 2
        grants.heard_of("a")  # says nothing of b
        place.seconds += 10
        with pytest.raises(LeaseEnded, match="its lease has run out"):
            grants.renew(grant.number)
        grants.heard_of("b")
        await grants.look()

    asyncio.run(run())
    assert grants.all == []


def test_given_back_is_gone_at_once(place, tmp_path):
    grants, _ = made(place, tmp_path)

    async def run():
        grant = await grants.grant(UNIT, "b", 10)
        await grants.release(grant.number)
        with pytest.raises(NoSuchGrant, match="there is no grant 1; there are none"):
            await grants.release(grant.number)

    asyncio.run(run())
    assert place.sizes() == [UNIT, 0, 0, 0]


def test_memory_is_given_on_only_when_the_fabric_says_that_it_is_gone(place, tmp_path):
    grants, fence = made(place, tmp_path)
    fence.fails = NotFenced("rack: it is bound yet")

    async def run():
        grant = await grants.grant(768 * MIB, "b", 10)  # all that there is
        place.seconds += 10
        assert await grants.look() == 1.0
        assert (grant.state, grant.reason) == ("held", "rack: it is bound yet")
        with pytest.raises(NoRoom, match="port 0 of rack has nothing left"):
            await grants.grant(UNIT, "a", 10, "ld")
        waits = []
        for _ in range(8):
            place.seconds += 100
            waits.append(await grants.look())
        assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
        assert kept(tmp_path) == [(1, "held")]
        with pytest.raises(GrantError, match="grant 1 of b is held: rack: it is bound yet"):
            await grants.release(grant.number)
        assert place.told.count(("held", "b")) == 1
        fence.fails = None
        place.seconds += 100
        assert await grants.look() is None
        assert (await grants.grant(UNIT, "a", 10, "ld")).host == "a"

    asyncio.run(run())


def test_what_somebody_has_bound_elsewhere_meanwhile_is_held(place, tmp_path):
    grants, _ = made(place, tmp_path)

    async def run():
        grant = await grants.grant(UNIT, "b", 10)
        place.switch.unbind(1, 0, UnbindOption.SURPRISE_HOT_REMOVE)
        place.switch.bind(0, 1, port=0, ld=1)
        place.seconds += 10
        await grants.look()
        assert grant.state == "held"
        assert "Set LD Allocations (5402h)" in grant.reason
        assert place.sizes() == [UNIT, UNIT, 0, 0]
        place.switch.unbind(0, 1, UnbindOption.SURPRISE_HOT_REMOVE)
        place.seconds += 10
        await grants.look()

    asyncio.run(run())
    assert grants.all == []


def test_a_fabric_manager_that_does_not_answer(place, tmp_path):
    grants, fence = made(place, tmp_path)

    async def run():
        grant = await grants.grant(UNIT, "b", 10)
        good = fence._connect

        def nobody():
            raise NoAnswer("tcp:127.0.0.1:1: nobody listens there")

        fence._connect = nobody
        place.seconds += 10
        await grants.look()
        assert (grant.state, grant.reason) == ("held", "tcp:127.0.0.1:1: nobody listens there")
        fence._connect = good
        place.seconds += 10
        await grants.look()

    asyncio.run(run())
    assert grants.all == []


@pytest.mark.parametrize("dies_at", [1, 2, 3, 4])
def test_a_server_that_is_killed_as_it_takes_goes_on_where_it_was(place, tmp_path, dies_at):
    grants, fence = made(place, tmp_path)

    async def run():
        await grants.grant(UNIT, "b", 10)
        place.seconds += 10
        fence.dies_at = dies_at
        with pytest.raises(Killed):
            await grants.look()

    asyncio.run(run())
    assert kept(tmp_path) == [(1, "ending")]
    again, _ = made(place, tmp_path)
    asyncio.run(again.start())
    assert (again.all, kept(tmp_path)) == ([], [])
    assert (place.bound(), place.sizes()) == (["rack.left.0 0.0"], [UNIT, 0, 0, 0])


@pytest.mark.parametrize("step", ["set_ld_allocations", "bind", "after"])
def test_a_server_that_is_killed_as_it_gives_leaves_nothing(place, tmp_path, step, monkeypatch):
    grants, _ = made(place, tmp_path)

    async def dies(*_, **__):
        raise Killed(step)

    with monkeypatch.context() as patch:
        if step == "set_ld_allocations":
            patch.setattr("softcxl.fm.device.Device.set_ld_allocations", dies)
        elif step == "bind":
            patch.setattr("softcxl.fm.switch.Switch.bind", dies)
        else:
            keep, count = grants._keep, []

            def keep_once():
                count.append(1)
                if len(count) == 2:
                    raise Killed(step)
                keep()

            patch.setattr(grants, "_keep", keep_once)
        with pytest.raises(Killed):
            asyncio.run(grants.grant(UNIT, "b", 10))
    assert kept(tmp_path) == [(1, "granting")]
    again, _ = made(place, tmp_path)
    asyncio.run(again.start())
    assert (again.all, place.bound(), place.sizes()) == ([], ["rack.left.0 0.0"], [UNIT, 0, 0, 0])
    assert asyncio.run(again.grant(UNIT, "b", 10)).number == 2


def test_leases_begin_anew_with_another_server(place, tmp_path):
    grants, _ = made(place, tmp_path)
    asyncio.run(grants.grant(UNIT, "b", 10))
    place.seconds = 5.0  # another machine's clock, after a restart
    again, _ = made(place, tmp_path)

    async def run():
        await again.start()
        assert [(one.number, one.host, one.state) for one in again.all] == [(1, "b", "granted")]
        assert await again.look() == 10.0

    asyncio.run(run())
    assert len(place.bound()) == 2


def test_a_fabric_that_was_made_anew_has_no_grants(place, tmp_path):
    grants, _ = made(place, tmp_path)
    asyncio.run(grants.grant(UNIT, "b", 10))
    with rack() as other:
        again, _ = made(other, tmp_path)
        asyncio.run(again.start())
        assert (again.all, other.told) == ([], [("fenced", "b")])
        assert other.sizes() == [UNIT, 0, 0, 0]


# -- extents -----------------------------------------------------------------------------------------------------


async def accept(guest, dynamic):
    """Wait for an offer, and take it."""
    offered, loop, tell = asyncio.Event(), asyncio.get_running_loop(), dynamic.witness

    def witness(what, number, extents):
        tell(what, number, extents)
        if what == "offered":
            loop.call_soon_threadsafe(offered.set)

    dynamic.witness = witness
    await offered.wait()
    assert guest.accept(*[(one.start, one.length) for one in dynamic.hosts[0].pending]) == 0


def test_a_host_that_has_a_device_gets_extents_and_loses_them(place, tmp_path):
    grants, _ = made(place, tmp_path)
    guest, dynamic = DcHost(place.fabric.devices["shared.0"]), place.fabric.mlds["shared"].dynamic

    async def run():
        grant, _ = await asyncio.gather(grants.grant(3 * MIB, "a", 10, "extents"), accept(guest, dynamic))
        assert isinstance(grant.place, Capacity)
        assert grant.size == 4 * MIB  # blocks of 2 MiB
        assert [one.length for one in guest.extents()] == [4 * MIB]
        assert grant.plain()["extents"]["tag"] == str(grant.place.tag)
        place.seconds += 10
        await grants.look()

    asyncio.run(run())
    assert (guest.extents(), grants.all, dynamic.tags) == ([], [], [])


def test_a_host_that_does_not_answer_an_offer_gets_nothing(place, tmp_path):
    grants, fence = made(place, tmp_path)
    fence.patience = 0.2
    with pytest.raises(FmError, match=r"host 0 has not taken 2097152 bytes after 0.2 s"):
        asyncio.run(grants.grant(2 * MIB, "a", 10, "extents"))
    dynamic = place.fabric.mlds["shared"].dynamic
    assert (grants.all, dynamic.tags, kept(tmp_path)) == ([], [], [])


# -- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "host", "lease", "says"),
    [
        (0, "b", 10, "0 bytes for b; more than 0 are allowed"),
        (-1, "b", 10, "-1 bytes for b"),
        (1, "nobody", 10, "'nobody' is no host of a virtual switch; there are a, b"),
        (1, "b", 0, "a lease of 0 seconds for b"),
        (1, "b", float("inf"), "a lease of inf seconds"),
        (1, "b", float("nan"), "a lease of nan seconds"),
        (GIB, "b", 10, "1GiB for b: port 0 of rack has 768MiB left; b has no device with dynamic capacity"),
    ],
)
def test_what_cannot_be_granted(place, tmp_path, size, host, lease, says):
    grants, _ = made(place, tmp_path)
    with pytest.raises(GrantError, match=says):
        asyncio.run(grants.grant(size, host, lease))
    assert (grants.all, len(place.bound())) == ([], 1)


def test_a_host_without_a_free_vppb(place, tmp_path):
    grants, _ = made(place, tmp_path)

    async def run():
        await grants.grant(UNIT, "b", 10)
        with pytest.raises(NoRoom, match="256MiB for b: VCS 1 of rack has no free vPPB"):
            await grants.grant(UNIT, "b", 10, "ld")
        with pytest.raises(NoSuchGrant, match="there is no grant 9; there are 1"):
            grants.renew(9)

    asyncio.run(run())


def test_a_switch_that_there_is_not(place, tmp_path):
    fence = Fence(place.connect, {"other": 8})
    grants = Grants(fence, HOSTS, tmp_path / "grants.json")
    with pytest.raises(FmError, match="there is no endpoint rack; there are other"):
        asyncio.run(grants.grant(UNIT, "b", 10))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "these are no grants"),
        ("[]", "these are no grants"),
        ('{"format": 9}', "format 9, this version reads 1"),
        ('{"format": 1, "next": 1, "grants": [{}]}', "these are no grants"),
        ('{"format": 1, "next": "x", "grants": []}', "these are no grants"),
    ],
)
def test_a_page_that_is_damaged_is_left_as_it_is(place, tmp_path, text, says):
    (tmp_path / "grants.json").write_text(text)
    with pytest.raises(GrantError, match=says):
        made(place, tmp_path)
    assert (tmp_path / "grants.json").read_text() == text


def test_a_grant_that_cannot_be_written_down_is_not_made(place, tmp_path):
    grants, _ = made(place, tmp_path / "absent")
    with pytest.raises(OSError, match="No such file"):
        asyncio.run(grants.grant(UNIT, "b", 10))
    assert (place.bound(), place.sizes()) == (["rack.left.0 0.0"], [UNIT, 0, 0, 0])


def test_a_grant_reads_as_it_was_written():
    tag = UUID(int=7)
    for place in (Binding("rack", 1, 2, 3, 4), Capacity("rack", 1, 2, tag, 64 * MIB)):
        grant = Grant(3, "a", 64 * MIB, 2.5, place, "held", "why")
        assert Grant.read(json.loads(json.dumps(grant.plain()))) == grant


# -- functions ---------------------------------------------------------------------------------------------------


def test_what_is_in_a_port_is_taken_from_whoever_has_it(place):
    place.switch.bind(1, 0, port=1)
    fence = Fence(place.connect, place.names)
    assert asyncio.run(fence.unbind_port(Port("rack", 1))) == [Binding("rack", 1, 0, 1)]
    assert place.bound() == ["rack.left.0 0.0"]
    assert asyncio.run(fence.unbind_port(Port("rack", 1))) == []


def test_a_switch_that_says_no_is_no_fence(place):
    fence = Fence(place.connect, place.names)
    place.switch.bind(1, 0, port=1)

    class Objector:
        def before(self, change):
            raise RuntimeError("not now")

        def after(self, change, code):
            pass

    place.switch.observers.append(Objector())
    with pytest.raises(CommandRefused, match=r"Unbind vPPB \(5202h\)"):
        asyncio.run(fence.unbind(Binding("rack", 1, 0, 1)))
    assert asyncio.run(fence.bound(Binding("rack", 1, 0, 1)))


def test_a_host_that_does_not_let_go_in_time_is_not_fenced(place):
    class Keeper:
        link_up = True

        def plug(self, vppb, function):
            pass

        def unplug(self, vppb, function, option, done):
            pass  # and never says so

        def link(self, vppb, *, up):
            pass

    place.switch.virtual[1].tenant = Keeper()
    place.switch.bind(1, 0, port=1)
    fence = Fence(place.connect, place.names, patience=0.2)
    with pytest.raises(NotFenced, match=r"is not unbound after 0.2 s"):
        asyncio.run(fence.unbind(Binding("rack", 1, 0, 1)))
