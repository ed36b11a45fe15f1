"""A physical switch: what it refuses, what hosts see of a binding, in process."""

import pytest

import softcxl
from softcxl.device.clock import ManualClock
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.mld.errors import LdInUse
from softcxl.device.type3 import Type3
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import BindingStatus, UnbindOption
from softcxl.switch.binding import BindingError
from softcxl.switch.hierarchy import Hierarchy
from softcxl.switch.physical import PhysicalSwitch
from softcxl.switch.tenant import Nobody
from softcxl.wire import Reset
from tests.switch.manager import Slow

MIB = 1 << 20


@pytest.fixture
def memory():
    device = Type3("mem0", volatile=256 * MIB, clock=ManualClock())
    yield device
    device.close()


@pytest.fixture
def switch(memory):
    made = PhysicalSwitch("rack", ports=3, virtual=[("left", 2), ("right", 2)], clock=ManualClock())
    made.ports[0].insert(memory)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((2, 0, 0), "no virtual switch 2"),
        ((0, 2, 0), "left has no vPPB 2; there are 2, from 0"),
        ((0, -1, 0), "left has no vPPB -1"),
        ((0, 0, 5), "no physical port 5; there are 5"),
        ((0, 0, 3), "port 3 is an upstream port"),
        ((0, 0, 0, 0), "has no logical devices: LD 0 cannot be bound"),
        ((0, 0, 1, 0), "has no logical devices"),
    ],
)
def test_what_cannot_be_bound(switch, given, message):
    with pytest.raises(BindingError, match=message) as refused:
        switch.bind(*given)
    assert refused.value.code == ReturnCode.INVALID_INPUT
    assert not any(port.bindings for port in switch.ports.values())


def test_a_port_has_one_host_at_a_time(switch):
    switch.bind(0, 1, 0)
    for again in ((0, 1, 0), (0, 1, 1), (1, 0, 0), (0, 0, 0)):
        with pytest.raises(BindingError, match="is bound already"):
            switch.bind(*again)
    assert switch.unbind(0, 1).code is ReturnCode.SUCCESS
    with pytest.raises(BindingError, match="vPPB 1 of left is not bound"):
        switch.unbind(0, 1)
    switch.bind(1, 0, 0)
    assert switch.virtual[1].vppbs[0].status is BindingStatus.BOUND_PORT


HOST = """
devices: {own: {volatile: 256MiB}}
hosts: {alpha: {bridges: {hb0: {ports: [own, null]}}, windows: [{size: 1GiB, targets: [hb0]}]}}
"""


@pytest.fixture
def host():
    """A machine with a device of its own at its first root port, and nothing at the second."""
    with softcxl.Fabric.loads(HOST) as fabric:
        yield fabric.hosts["alpha"]


def attach(switch, host):
    virtual = switch.virtual[0]
    virtual.tenant = Hierarchy(virtual.name, len(virtual.vppbs))
    host.machine.bridges[0].ports[1].plug(virtual.tenant.upstream)
    return host.boot()


def slots(system):
    return [
        (one.event, [memdev.serial for memdev in one.memdevs], one.problem) for one in system.service_slots()
    ]


def test_a_binding_is_a_hot_plug_to_a_host(switch, memory, host):
    system = attach(switch, host)
    assert len(system.memdevs) == 1
    assert slots(system) == []
    switch.bind(0, 1, 0)
    assert slots(system) == [("added", [memory.serial], "")]
    region = system.create_region(["mem1"], type="ram")
    region.write(4000, b"through the switch")
    assert memory.space.read(4000, 18) == b"through the switch"

    unbind = switch.unbind(0, 1, UnbindOption.MANAGED_HOT_REMOVE)
    assert (unbind.code, switch.virtual[0].vppbs[1].status) == (None, BindingStatus.IN_PROGRESS)
    with pytest.raises(BindingError, match="being changed") as refused:
        switch.unbind(0, 1)
    assert refused.value.code == ReturnCode.BUSY
    assert slots(system) == [("removed", [], "")]
    assert (unbind.code, switch.virtual[0].vppbs[1].status) == (ReturnCode.SUCCESS, BindingStatus.UNBOUND)
    assert not region.enabled
    assert memory.seat is None
    assert memory.space.read(4000, 18) == bytes(18)
    assert slots(system) == []

    system.destroy_region(region)
    switch.bind(0, 1, 0)
    assert slots(system) == [("added", [memory.serial], "")]
    switch.unbind(0, 1, UnbindOption.SURPRISE_HOT_REMOVE)
    assert slots(system) == [("lost", [], "")]


def test_what_is_bound_before_a_host_boots_is_there(switch, memory, host):
    switch.bind(0, 0, 0)
    system = attach(switch, host)
    assert [one.serial for one in system.memdevs.values()] == [system.memdevs["mem0"].serial, memory.serial]
    assert slots(system) == []


def test_a_host_that_is_not_there_yet_has_nothing_to_let_go_of(switch, memory, host):
    virtual = switch.virtual[0]
    virtual.tenant = Hierarchy("left", 2)
    switch.bind(0, 0, 0)
    assert switch.unbind(0, 0, UnbindOption.MANAGED_HOT_REMOVE).code is ReturnCode.SUCCESS
    assert memory.seat is None


def test_a_host_that_vanishes_lets_go(switch, memory, host):
    attach(switch, host)
    switch.bind(0, 1, 0)
    unbind = switch.unbind(0, 1)
    switch.virtual[0].tenant = Nobody()
    assert (unbind.code, memory.seat) == (ReturnCode.SUCCESS, None)
    switch.bind(1, 0, 0)


@pytest.fixture
def pool(switch):
    made = MultiLogicalDevice(
        "pool", volatile=1024 * MIB, logical_devices=[256 * MIB, 256 * MIB, 0], clock=ManualClock(), serial=7
    )
    switch.ports[2].insert(made)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("ld", "message"), [(None, "LD ID is needed"), (2, "no LD 2"), (3, "no LD 3"), (255, "no LD 255")]
)
def test_which_logical_devices_cannot_be_bound(switch, pool, ld, message):
    with pytest.raises(BindingError, match=message):
        switch.bind(0, 0, 2, ld)
    assert switch.ports[2].bindings == {}
    assert switch.virtual[0].vppbs[0].status is BindingStatus.UNBOUND


def test_logical_devices_have_a_host_each(switch, pool, host):
    system = attach(switch, host)
    switch.bind(0, 0, 2, 0)
    switch.bind(1, 0, 2, 1)
    with pytest.raises(BindingError, match="is bound already"):
        switch.bind(1, 1, 2, 0)
    with pytest.raises(LdInUse):
        pool.allocate({0: 512 * MIB})
    assert slots(system) == [("added", [pool.logical[0].serial], "")]
    region = system.create_region(["mem1"], type="ram")
    region.write(0, b"of left")
    switch.unbind(0, 0)
    assert slots(system) == [("removed", [], "")]
    pool.allocate({0: 512 * MIB})
    switch.bind(1, 1, 2, 0)
    assert pool.logical[0].space.read(0, 7) == bytes(7)


def test_one_logical_device_through_two_heads(pool):
    """Bound through one port, it is not bound through another, of whatever switch."""
    other = PhysicalSwitch("other", ports=1, virtual=[("only", 1)], clock=ManualClock())
    other.ports[0].insert(pool)
    other.bind(0, 0, 0, 1)
    rack = pool.logical[1].holder
    assert rack == "other.only.0"
    switch = PhysicalSwitch("third", ports=1, virtual=[("only", 1)], clock=ManualClock())
    switch.ports[0].insert(pool)
    with pytest.raises(BindingError, match=r"pool\.1 is bound to other\.only\.0"):
        switch.bind(0, 0, 0, 1)
    assert switch.virtual[0].vppbs[0].status is BindingStatus.UNBOUND
    assert other.unbind(0, 0).code is ReturnCode.SUCCESS
    switch.bind(0, 0, 0, 1)


def test_heads_of_one_device_in_two_switches(host):
    """Head 0 has two logical devices; head 1 a single one, which is bound as a device of its own."""
    device = MultiLogicalDevice(
        "shared",
        volatile=1024 * MIB,
        logical_devices=[256 * MIB] * 3,
        heads=2,
        ld_map=[0, 0, 1],
        clock=ManualClock(),
    )
    one = PhysicalSwitch("one", ports=1, virtual=[("left", 2)], clock=ManualClock())
    two = PhysicalSwitch("two", ports=1, virtual=[("right", 1)], clock=ManualClock())
    one.ports[0].insert(device.heads[0])
    two.ports[0].insert(device.heads[1])
    one.bind(0, 0, 0, 1)
    for ld in (2, None):
        with pytest.raises(BindingError):
            one.bind(0, 1, 0, ld)
    with pytest.raises(BindingError, match="has no logical devices"):
        two.bind(0, 0, 0, 0)
    two.bind(0, 0, 0)
    assert [device.logical[ld].holder for ld in range(3)] == [None, "one.left.0", "two.right.0"]
    device.logical[1].dvsec.control.mem_enable = True
    two.ports[0].assert_perst()
    two.ports[0].deassert_perst()
    assert device.logical[1].dvsec.control.mem_enable
    assert two.unbind(0, 0).code is ReturnCode.SUCCESS
    device.close()


def test_a_host_without_power_takes_none_from_the_device(switch, memory, host):
    switch.bind(0, 1, 0)
    attach(switch, host)
    memory.space.write(0, b"kept")
    host.machine.reset(Reset.COLD)
    assert memory.space.read(0, 4) == b"kept"


def test_why_a_binding_failed(switch):
    slow = switch.virtual[0].tenant = Slow()
    slow.refuses = True
    with pytest.raises(BindingError, match=r"left\.1 .*: its host does not take the device") as refused:
        switch.bind(0, 1, 0)
    assert refused.value.code == ReturnCode.INTERNAL_ERROR
    assert switch.ports[0].bindings == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ports": 255}, "255 downstream and 1 upstream ports; up to 255 in all"),
        ({"ports": -1}, "-1 downstream"),
        ({"virtual": [("v", 0)]}, "v has 0 vPPBs; 1 to 255 are allowed"),
        ({"virtual": [("v", 256)]}, "v has 256 vPPBs"),
        ({"payload": 1000}, "a payload of 1000 bytes; a power of two from 256 to 1 MiB"),
        ({"payload": 128}, "a payload of 128 bytes"),
        ({"event_log_depth": 0}, "event log depth 0"),
    ],
)
def test_switches_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        PhysicalSwitch("rack", **({"ports": 1, "virtual": [("v", 1)], "clock": ManualClock()} | given))


def test_what_cannot_be_pushed_into_a_slot(switch, memory, host):
    own = host.machine.bridges[0].ports[0].occupant
    for port, device, message in (
        (3, memory, "port 3 is an upstream port"),
        (0, memory, "port 0 has mem0 in its slot"),
        (1, memory, "mem0 is plugged in elsewhere"),
        (1, own, "own is plugged in elsewhere"),
    ):
        with pytest.raises(ValueError, match=message):
            switch.ports[port].insert(device)
    for port in (1, 3):
        with pytest.raises(ValueError, match=f"port {port} is empty"):
            switch.ports[port].remove()
