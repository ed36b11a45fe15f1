"""A guest at a host's virtual switches, without a guest: who connects to the doors here stands for QEMU."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from softcxl.device.cci import CommandError
from softcxl.device.clock import ManualClock
from softcxl.device.mld.errors import LdInUse
from softcxl.fabric.build import Fabric
from softcxl.fabric.errors import BuildError
from softcxl.fabric.hosts import Call, Hosts
from softcxl.fabric.visitor import GRACE, Order, Visitor
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import BindingStatus, UnbindOption
from softcxl.switch.binding import BindingError, Unbind
from softcxl.switch.physical import PhysicalSwitch
from softcxl.switch.tenant import Nobody
from softcxl.testing.vfio_client import Client
from softcxl.wire import Reset

MIB = 1 << 20
BASE = 1 << 32
TOPOLOGY = """
devices:
  pool: {type: mld, volatile: 1GiB, logical_devices: [256MiB, 256MiB]}
  box-device: {volatile: 256MiB}
  single: {volatile: 256MiB}
switches:
  rack: {ports: [pool, box, single, null], virtual: {left: {ports: [pool.0, null]}, right: {ports: [null]}}}
  box: {ports: [box-device]}
hosts:
  a: {bridges: {h: {ports: [left]}}, windows: [{size: 1GiB, targets: [h]}]}
  b: {bridges: {h: {ports: [right]}}, windows: [{size: 1GiB, targets: [h]}]}
"""
LEFT, RIGHT, POOL, BOX, SLD = 0, 1, 0, 1, 2
SURPRISE = UnbindOption.SURPRISE_HOT_REMOVE
SOON = 60.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def fabric(clock: ManualClock) -> Iterator[Fabric]:
    with Fabric.loads(TOPOLOGY, clock=clock) as live:
        yield live


@pytest.fixture
def rack(fabric: Fabric) -> PhysicalSwitch:
    return fabric.switches["rack"]


@pytest.fixture
def visitor(fabric: Fabric, tmp_path: Path) -> Iterator[Visitor]:
    with Visitor(fabric, "a", tmp_path) as visitor:
        yield visitor


def here(visitor: Visitor) -> list[Order]:
    """The orders that there are."""
    return visitor.take(lambda: True)


def acts(visitor: Visitor) -> list[tuple[str, str, str]]:
    return [(one.act, one.device, one.port) for one in here(visitor)]


def connected(visitor: Visitor, device: str) -> Client:
    """A machine that has the device."""
    client = Client(visitor.doors[device].path)
    client.negotiate()
    return client


def over(operation: Unbind) -> ReturnCode | None:
    return operation.wait(SOON)


def test_what_is_bound_has_a_door(fabric: Fabric, visitor: Visitor) -> None:
    assert visitor.begin() == {"left": ["pool.0", None]}
    assert list(visitor.doors) == ["pool.0"]
    assert visitor.slots == {"left-port0": "pool.0", "left-port1": None}
    assert here(visitor) == []


def test_what_changes_later_is_an_order(visitor: Visitor, rack: PhysicalSwitch, tmp_path: Path) -> None:
    visitor.begin()
    visitor.arrive()
    rack.bind(LEFT, 1, POOL, 1)
    (order,) = here(visitor)
    assert order == Order(order.number, "add", "pool.1", "left-port1", str(tmp_path / "pool.1.sock"))
    assert visitor.doors["pool.1"].path.is_socket()
    operation = rack.unbind(LEFT, 0)
    assert acts(visitor) == [("remove", "pool.0", "left-port0")]
    assert rack.virtual[LEFT].vppbs[0].status is BindingStatus.IN_PROGRESS
    assert operation.code is None
    with pytest.raises(BindingError):
        rack.bind(RIGHT, 0, POOL, 0)


def test_a_device_has_gone_when_the_machine_leaves_its_door(visitor: Visitor, rack: PhysicalSwitch) -> None:
    visitor.begin()
    visitor.arrive()
    machine = connected(visitor, "pool.0")
    operation = rack.unbind(LEFT, 0)
    assert operation.code is None
    machine.close()
    assert over(operation) is ReturnCode.SUCCESS
    assert visitor.doors == {}
    rack.bind(RIGHT, 0, POOL, 0)


def test_a_device_has_gone_when_it_is_said(visitor: Visitor, rack: PhysicalSwitch) -> None:
    visitor.begin()
    visitor.arrive()
    operation = rack.unbind(LEFT, 0)
    (order,) = here(visitor)
    visitor.told(order.number)
    assert over(operation) is ReturnCode.SUCCESS
    visitor.told(order.number)  # again, and what never was: nothing
    visitor.told(4711, "nonsense")


def test_what_cannot_be_ends_the_unbinding_with_all_as_it_was(visitor: Visitor, rack: PhysicalSwitch) -> None:
    visitor.begin()
    visitor.arrive()
    operation = rack.unbind(LEFT, 0)
    (order,) = here(visitor)
    visitor.told(order.number, "no such port")
    assert over(operation) is ReturnCode.RETRY_REQUIRED
    assert rack.virtual[LEFT].vppbs[0].status is BindingStatus.BOUND_LD
    assert list(visitor.doors) == ["pool.0"]


def test_patience_has_an_end_and_a_device_that_goes_after_it_comes_back(
    visitor: Visitor, rack: PhysicalSwitch, clock: ManualClock
) -> None:
    visitor.begin()
    visitor.arrive()
    machine = connected(visitor, "pool.0")
    operation = rack.unbind(LEFT, 0)
    clock.advance(rack.patience)
    assert over(operation) is ReturnCode.RETRY_REQUIRED
    assert acts(visitor) == [("remove", "pool.0", "left-port0"), ("keep", "pool.0", "left-port0")]
    machine.close()
    (order,) = visitor.take(lambda: False)
    assert (order.act, order.device) == ("add", "pool.0")


def test_an_arrival_that_is_told_of_late_is_no_departure(visitor: Visitor, rack: PhysicalSwitch) -> None:
    """A machine that has just plugged a device in, which is to go already, has it until the guest lets go."""
    visitor.begin()
    visitor.arrive()
    rack.bind(LEFT, 1, POOL, 1)
    machine = connected(visitor, "pool.1")
    operation = rack.unbind(LEFT, 1)
    add, remove = here(visitor)
    assert (add.act, remove.act) == ("add", "remove")
    visitor.told(add.number)
    assert operation.wait(0.05) is None
    assert list(visitor.doors) == ["pool.0", "pool.1"]
    machine.close()
    assert over(operation) is ReturnCode.SUCCESS


def test_an_arrival_that_failed_ends_no_removal(visitor: Visitor, rack: PhysicalSwitch) -> None:
    visitor.begin()
    visitor.arrive()
    rack.bind(LEFT, 1, POOL, 1)
    operation = rack.unbind(LEFT, 1)
    add, remove = here(visitor)
    visitor.told(add.number, "QEMU has no port left-port1")
    assert operation.code is None
    visitor.told(remove.number)
    assert over(operation) is ReturnCode.SUCCESS


def test_a_device_that_is_going_is_not_kept(
    fabric: Fabric, visitor: Visitor, rack: PhysicalSwitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience that ends as the device is taken out does not leave a binding to a device that is nowhere."""
    visitor.begin()
    visitor.arrive()
    device = fabric.devices["pool.0"]
    going, go, reset = threading.Event(), threading.Event(), device.reset

    def slow(*kind: Reset) -> None:
        going.set()
        assert go.wait(SOON)
        reset(*kind)

    monkeypatch.setattr(device, "reset", slow)
    operation = rack.unbind(LEFT, 0)
    visitor.told(here(visitor)[0].number)
    assert going.wait(SOON)
    operation.give_up(ReturnCode.RETRY_REQUIRED)
    go.set()
    assert over(operation) is ReturnCode.SUCCESS
    assert rack.virtual[LEFT].vppbs[0].status is BindingStatus.UNBOUND
    assert visitor.doors == {}


def test_what_came_and_went_is_forgotten(visitor: Visitor, rack: PhysicalSwitch) -> None:
    """While no machine is there, too, which would take the orders."""
    doors = []
    for _ in range(2):
        rack.bind(LEFT, 1, POOL, 1)
        doors.append(weakref.ref(visitor.doors["pool.1"]))
        assert over(rack.unbind(LEFT, 1)) is ReturnCode.SUCCESS
    until = time.monotonic() + SOON
    while doors[0]() is not None:  # a thread may have the last one at hand yet
        assert time.monotonic() < until
        gc.collect()


def test_a_guest_that_lets_go_by_itself_changes_no_binding(visitor: Visitor, rack: PhysicalSwitch) -> None:
    visitor.begin()
    visitor.arrive()
    connected(visitor, "pool.0").close()
    assert rack.virtual[LEFT].vppbs[0].status is BindingStatus.BOUND_LD
    connected(visitor, "pool.0").close()


def test_a_surprise_is_silence_and_then_time_is_short(
    fabric: Fabric, visitor: Visitor, rack: PhysicalSwitch, clock: ManualClock
) -> None:
    visitor.begin()
    visitor.arrive()
    machine = connected(visitor, "pool.0")
    device = fabric.devices["pool.0"]
    operation = rack.unbind(LEFT, 0, SURPRISE)
    assert acts(visitor) == [("pull", "pool.0", "left-port0")]
    assert device.silent
    assert operation.code is None
    clock.advance(GRACE)
    assert over(operation) is ReturnCode.SUCCESS
    assert not device.silent
    assert not device.attached
    machine.close()


def test_a_pull_that_fails_has_its_time_all_the_same(
    visitor: Visitor, rack: PhysicalSwitch, clock: ManualClock
) -> None:
    visitor.begin()
    visitor.arrive()
    machine = connected(visitor, "pool.0")
    operation = rack.unbind(LEFT, 0, SURPRISE)
    visitor.told(here(visitor)[0].number, "QEMU does not answer")
    assert operation.code is None
    clock.advance(GRACE)
    assert over(operation) is ReturnCode.SUCCESS
    assert visitor.doors == {}
    machine.close()


def test_a_device_that_is_pulled_and_put_back_comes_when_the_machine_has_let_go(
    visitor: Visitor, rack: PhysicalSwitch
) -> None:
    visitor.begin()
    visitor.arrive()
    machine = connected(visitor, "pool.0")
    rack.ports[POOL].insert(rack.ports[POOL].remove())
    assert acts(visitor) == [("pull", "pool.0", "left-port0")]
    machine.close()
    (order,) = visitor.take(lambda: False)
    assert (order.act, order.device) == ("add", "pool.0")
    connected(visitor, "pool.0").close()


def test_nobody_there_and_nothing_connected_takes_no_time(visitor: Visitor, rack: PhysicalSwitch) -> None:
    visitor.begin()
    assert not rack.ports[rack.virtual[LEFT].upstream].link_up
    assert over(rack.unbind(LEFT, 0)) is ReturnCode.SUCCESS
    assert here(visitor) == []


def test_a_machine_that_goes_lets_go_of_what_it_was_to(visitor: Visitor, rack: PhysicalSwitch) -> None:
    visitor.begin()
    visitor.arrive()
    assert rack.ports[rack.virtual[LEFT].upstream].link_up
    operation = rack.unbind(LEFT, 0)
    visitor.leave()
    assert over(operation) is ReturnCode.SUCCESS
    assert not rack.ports[rack.virtual[LEFT].upstream].link_up


def test_the_end_of_the_visit_leaves_bindings_as_they_are(
    fabric: Fabric, rack: PhysicalSwitch, tmp_path: Path
) -> None:
    threads = set(threading.enumerate())
    with Visitor(fabric, "a", tmp_path) as visitor:
        visitor.arrive()
        machine = connected(visitor, "pool.0")
        rack.bind(LEFT, 1, POOL, 1)
        operation = rack.unbind(LEFT, 1)
    assert over(operation) is ReturnCode.SUCCESS
    machine.close()
    assert isinstance(fabric.virtual["left"].tenant, Nobody)
    assert fabric.open_doors == {}
    assert list(tmp_path.glob("*.sock")) == []
    assert [one.status for one in rack.virtual[LEFT].vppbs] == [BindingStatus.BOUND_LD, BindingStatus.UNBOUND]
    assert set(threading.enumerate()) <= threads


def test_the_end_of_the_visit_closes_doors_of_what_was_pulled(
    fabric: Fabric, rack: PhysicalSwitch, tmp_path: Path
) -> None:
    """A machine that has not let go yet of a device that left its slot."""
    threads = set(threading.enumerate())
    with Visitor(fabric, "a", tmp_path) as visitor:
        visitor.arrive()
        machine = connected(visitor, "pool.0")
        rack.ports[POOL].remove()
        assert list(visitor.doors) == ["pool.0"]
    assert fabric.open_doors == {}
    assert set(threading.enumerate()) <= threads
    assert not fabric.devices["pool.0"].attached
    machine.close()


def test_orders_are_of_the_machine_that_is_made_after_them(visitor: Visitor, rack: PhysicalSwitch) -> None:
    """Those for one that has gone are not for the next; one that is there keeps its own."""
    visitor.begin()
    rack.bind(LEFT, 1, POOL, 1)
    assert visitor.begin() == {"left": ["pool.0", "pool.1"]}
    assert here(visitor) == []
    visitor.arrive()
    rack.unbind(LEFT, 1)
    visitor.begin()
    assert acts(visitor) == [("remove", "pool.1", "left-port1")]


def test_who_looks_at_the_doors_takes_no_orders(fabric: Fabric, rack: PhysicalSwitch, tmp_path: Path) -> None:
    """A machine that starts has its orders when it is up, whoever has looked meanwhile."""
    hosts = Hosts(fabric, "the test", tmp_path)
    with closing(hosts):
        call = Call(hosts, "a", lambda text: None, lambda text: None)
        assert call.doors(begins=True)["virtual"] == {"left": ["pool.0", None]}
        rack.bind(LEFT, 1, POOL, 1)
        assert call.doors()["virtual"] == {"left": ["pool.0", "pool.1"]}
        hosts.visitors["a"].arrive()
        assert acts(hosts.visitors["a"]) == [("add", "pool.1", "left-port1")]


def test_what_a_guest_cannot_have_is_not_bound(visitor: Visitor, rack: PhysicalSwitch) -> None:
    with pytest.raises(BindingError) as caught:
        rack.bind(LEFT, 1, BOX)
    assert caught.value.code is ReturnCode.UNSUPPORTED
    assert rack.virtual[LEFT].vppbs[1].status is BindingStatus.UNBOUND


def test_a_link_that_is_down_is_an_empty_port(visitor: Visitor, rack: PhysicalSwitch) -> None:
    visitor.begin()
    visitor.arrive()
    rack.ports[POOL].assert_perst()
    assert acts(visitor) == [("pull", "pool.0", "left-port0")]
    assert visitor.begin() == {"left": [None, None]}
    rack.ports[POOL].deassert_perst()
    assert acts(visitor) == [("add", "pool.0", "left-port0")]
    assert rack.virtual[LEFT].vppbs[0].status is BindingStatus.BOUND_LD


def test_a_decoder_of_one_host_says_nothing_to_the_other(
    fabric: Fabric, visitor: Visitor, rack: PhysicalSwitch
) -> None:
    """What the device holds leaves the window of the host that had it, and is the next one's only as it is said."""
    device = fabric.devices["pool.0"]
    device.decoders.program(0, hpa=BASE, size=256 * MIB, ways=1, granularity=256)
    window = fabric.hosts["a"].memory.windows[0]
    window.medium.write(64, b"of a")
    assert device.space.read(64, 4) == b"of a"
    assert over(rack.unbind(LEFT, 0)) is ReturnCode.SUCCESS
    assert fabric.hosts["a"].memory.members(BASE) == []
    window.medium.write(64, b"late")
    assert device.space.read(64, 4) == bytes(4)


def test_a_device_without_logical_devices_leaves_the_windows_too(
    fabric: Fabric, visitor: Visitor, rack: PhysicalSwitch
) -> None:
    rack.bind(LEFT, 1, SLD)
    device = fabric.devices["single"]
    device.decoders.program(0, hpa=BASE, size=256 * MIB, ways=1, granularity=256)
    window = fabric.hosts["a"].memory.windows[0]
    device.space.write(64, b"kept?")
    assert window.medium.read(64, 5) == b"kept?"
    assert over(rack.unbind(LEFT, 1)) is ReturnCode.SUCCESS
    window.medium.write(64, b"late!")
    assert device.space.read(64, 5) == bytes(5)  # its power is turned off and on
    assert device.space.windows == ()


def test_what_is_unbound_after_the_visit_leaves_the_windows(
    fabric: Fabric, rack: PhysicalSwitch, tmp_path: Path
) -> None:
    """A device that the next host has is not in the memory of one whose guest went before it was unbound."""
    rack.bind(LEFT, 1, SLD)
    device = fabric.devices["single"]
    window = fabric.hosts["a"].memory.windows[0]
    with Visitor(fabric, "a", tmp_path):
        device.decoders.program(0, hpa=BASE, size=256 * MIB, ways=1, granularity=256)
    assert over(rack.unbind(LEFT, 1)) is ReturnCode.SUCCESS
    rack.bind(RIGHT, 0, SLD)
    window.medium.write(64, b"late")
    assert device.space.read(64, 4) == bytes(4)


def test_what_left_its_slot_leaves_the_windows(
    fabric: Fabric, visitor: Visitor, rack: PhysicalSwitch
) -> None:
    visitor.begin()
    visitor.arrive()
    machine = connected(visitor, "pool.0")
    device = fabric.devices["pool.0"]
    device.decoders.program(0, hpa=BASE, size=256 * MIB, ways=1, granularity=256)
    window = fabric.hosts["a"].memory.windows[0]
    pool = rack.ports[POOL].remove()
    window.medium.write(64, b"late")
    assert device.space.read(64, 4) == bytes(4)
    machine.close()
    assert over(rack.unbind(LEFT, 0)) is ReturnCode.SUCCESS
    rack.ports[POOL].insert(pool)
    rack.bind(RIGHT, 0, POOL, 0)


def test_what_a_machine_has_yet_is_not_dealt_out(
    fabric: Fabric, visitor: Visitor, rack: PhysicalSwitch
) -> None:
    """A device that left its slot, whose door is there until the machine has let go of it."""
    visitor.begin()
    visitor.arrive()
    rack.ports[POOL].remove()
    with pytest.raises(LdInUse):
        fabric.mlds["pool"].allocate({0: 512 * MIB})
    visitor.told(here(visitor)[0].number)
    visitor.close()
    fabric.mlds["pool"].allocate({0: 512 * MIB})


def test_a_guest_that_comes_again_finds_its_memory_where_it_was(
    fabric: Fabric, rack: PhysicalSwitch, tmp_path: Path
) -> None:
    device = fabric.devices["pool.0"]
    window = fabric.hosts["a"].memory.windows[0]
    with Visitor(fabric, "a", tmp_path):
        device.decoders.program(0, hpa=BASE, size=256 * MIB, ways=1, granularity=256)
        device.space.write(64, b"still")
    assert not device.decoders.mappings
    assert window.medium.read(64, 5) == b"still"
    with Visitor(fabric, "a", tmp_path):
        device.decoders.program(0, hpa=BASE, size=256 * MIB, ways=1, granularity=256)
        assert device.space.read(64, 5) == b"still"


def test_a_host_has_one_guest(visitor: Visitor) -> None:
    visitor.arrive()
    with pytest.raises(BuildError, match=r"^a: a guest of it is there already$"):
        visitor.arrive()
    visitor.leave()
    visitor.arrive()


def test_a_virtual_switch_has_one_guest(fabric: Fabric, visitor: Visitor, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"^left: is in use by a already$"), Visitor(fabric, "a", tmp_path):
        pass
    assert list(visitor.doors) == ["pool.0"]


def test_an_error_is_an_order_for_whoever_is_there(visitor: Visitor, rack: PhysicalSwitch) -> None:
    tenant = rack.virtual[LEFT].tenant
    with pytest.raises(CommandError) as caught:
        tenant.error(0, "receiver", correctable=True, header=0)
    assert caught.value.code is ReturnCode.RETRY_REQUIRED
    visitor.arrive()
    visitor.begin()
    here(visitor)
    tenant.error(0, "bad_tlp", correctable=True, header=0)
    tenant.error(None, "completion_timeout", correctable=False, header=4 << 96 | 3 << 64 | 2 << 32 | 1)
    first, second = here(visitor)
    assert (first.act, first.port, first.correctable, first.status) == ("error", "left-port0", True, 1 << 6)
    assert (second.port, second.status, second.header) == ("left", 1 << 14, (1, 2, 3, 4))
