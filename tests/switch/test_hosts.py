"""What hosts in this process see through a physical switch: resets, errors, switches below switches, races."""

import threading

import pytest

import softcxl
from softcxl.device.clock import ManualClock
from softcxl.pci.aer import report
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import UnbindOption
from softcxl.switch.binding import BindingError
from softcxl.switch.errors import LinkDown
from softcxl.switch.hierarchy import Hierarchy
from softcxl.switch.physical import PhysicalSwitch
from tests.switch.manager import SUCCESS, Manager

MIB = 1 << 20

HOST = """
devices: {spare: {volatile: 256MiB}}
hosts: {alpha: {bridges: {hb0: {ports: [null]}}, windows: [{size: 1GiB, targets: [hb0]}]}}
"""


@pytest.fixture
def host():
    with softcxl.Fabric.loads(HOST) as fabric:
        yield fabric.hosts["alpha"]


@pytest.fixture
def tenant(switch, host):
    """The host's root port leads to virtual switch 0."""
    tenant = switch.virtual[0].tenant = Hierarchy("left", 3)
    host.machine.bridges[0].ports[0].plug(tenant.upstream)
    return tenant


def slots(system):
    return [(one.event, [memdev.serial for memdev in one.memdevs]) for one in system.service_slots()]


def test_perst_is_a_link_that_goes_and_comes(switch, tenant, host, memory):
    switch.bind(0, 0, 0)
    system = host.boot()
    region = system.create_region(["mem0"], type="ram")
    switch.ports[0].assert_perst()
    with pytest.raises(LinkDown):
        region.read(0, 64)
    assert slots(system)[0][0] == "lost"
    assert not region.enabled
    switch.ports[0].deassert_perst()
    assert slots(system) == [("added", [memory.serial])]
    system.destroy_region(region)
    assert system.create_region(["mem0"], type="ram").enabled


def test_a_reset_of_one_host_is_no_others(switch, tenant, host, pool):
    """Each logical device has its own resets: what host 0 does with its bus, LD 1 does not notice."""
    switch.bind(0, 0, 1, 0)
    switch.bind(1, 0, 1, 1)
    system = host.boot()
    pool.logical[1].dvsec.control.mem_enable = True
    pool.logical[1].space.write(0, b"another host's")
    system.create_region(["mem0"], type="ram")
    system.reset("mem0", "cxl_bus")
    host.machine.reset()
    assert pool.logical[1].dvsec.control.mem_enable
    assert pool.logical[1].space.read(0, 14) == b"another host's"


def test_errors_come_to_the_host_and_are_noted(switch, tenant, host, pool):
    """An error message of a logical device goes up to its own root port; the manager has a record of the MLD port
    (CXL 3.1 §7.6.8.3): type, port, and how the message began: 30h, routed to the root, code 30h or 33h at byte 7.
    """
    switch.bind(0, 1, 1, 0)
    host.boot()
    root = host.machine.bridges[0].ports[0]
    fm, function = Manager(switch), pool.logical[0]
    for one in (root, tenant.upstream, tenant.slots[1]):
        one.express.device_control.fatal_error_reporting = True
        one.header.bridge_control.serr_enable = True
    function.express.device_control.correctable_error_reporting = True
    function.express.device_control.fatal_error_reporting = True
    source = function.seat.requester_id
    report(function, "bad_tlp", correctable=True)
    report(function, "data_link_protocol")
    assert root.aer.root_status.correctable
    assert root.aer.root_status.fatal
    assert root.aer.error_source.correctable == source
    wire = source.to_bytes(2, "big")
    assert [one[48:60] for one in fm.events(1)] == [
        bytes([0, 1, 0, 0, 0x30, 0, 0, 0]) + wire + bytes([0, 0x30])
    ]
    assert [one[48:60] for one in fm.events(2)] == [
        bytes([2, 1, 0, 0, 0x30, 0, 0, 0]) + wire + bytes([0, 0x33])
    ]


def test_errors_of_what_no_host_here_has_are_noted(switch, pool, fm):
    """Of an LD whose host is elsewhere, and of the FM-owned LD, which has none: the source is not known."""
    switch.bind(1, 0, 1, 1)
    for function in (pool.logical[1], pool.fm_owned, pool.logical[0]):
        function.express.device_control.correctable_error_reporting = True
        report(function, "bad_tlp", correctable=True)
    assert [one[48:60] for one in fm.events(1)] == [bytes([0, 1, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 0x30])] * 2
    switch.unbind(1, 0)
    switch.ports[1].remove()
    fm.events()
    for function in (pool.logical[1], pool.fm_owned):
        function.express.device_control.correctable_error_reporting = True
        report(function, "bad_tlp", correctable=True)
    assert fm.events(1) == []


def test_aer_events_go_up(switch, tenant, host):
    host.boot()
    root, fm = host.machine.bridges[0].ports[0], Manager(switch)
    tenant.slots[2].express.device_control.correctable_error_reporting = True
    tenant.upstream.header.bridge_control.serr_enable = True
    root.header.bridge_control.serr_enable = True
    assert fm.send(0x5203, bytes([0, 3, 0, 0]) + (6).to_bytes(4, "little") + bytes(32)) == (SUCCESS, b"")
    assert root.aer.error_source.correctable == tenant.slots[2].seat.requester_id != 0


def test_an_upstream_port_is_up_with_its_host(switch, tenant, host):
    fm = Manager(switch)
    assert fm.ports(3)[0][11] == 4  # L0
    host.machine.bridges[0].ports[0].cut()
    assert fm.ports(3)[0][7:12] == bytes([0, 0x1F, 5, 0, 0])


def test_switches_below_switches(switch, tenant, host, memory, pool):
    """A virtual switch of one in a port of another: a device two levels down, bound at both."""
    lower = PhysicalSwitch("lower", ports=1, virtual=[("within", 1)], clock=ManualClock())
    within = lower.virtual[0].tenant = Hierarchy("within", 1)
    lower.ports[0].insert(switch.ports[0].remove())
    switch.ports[2].insert(within.upstream)
    switch.bind(0, 2, 2)
    system = host.boot()
    assert system.memdevs == {}
    lower.bind(0, 0, 0)
    assert slots(system) == [("added", [memory.serial])]
    region = system.create_region(["mem0"], type="ram")
    region.write(0, b"two levels down")
    assert memory.space.read(0, 15) == b"two levels down"
    assert [hop.component for hop in host.machine.trace(region.hpa).hops][-2:] == ["left", "within"]
    removal = switch.unbind(0, 2)
    assert slots(system) == [("removed", [])]
    assert removal.code is ReturnCode.SUCCESS
    assert memory.seat.bus.bridge is within.slots[0]
    assert lower.ports[0].link_up
    # The host of the upper switch is gone from there: nobody has numbered the buses below.
    assert lower.unbind(0, 0, UnbindOption.SURPRISE_HOT_REMOVE).code is ReturnCode.SUCCESS


def test_binding_races(switch, pool):
    """Of many that want the same vPPB, or the same logical device, each time one has it."""
    start, won, codes = threading.Barrier(8), [], set()

    def run(number):
        for turn in range(40):
            start.wait()
            try:
                switch.bind(number % 2, turn % 2, 1, number // 2 % 2)
            except BindingError as refused:
                codes.add(refused.code)
            else:
                won.append((turn, number % 2, number // 2 % 2))
            start.wait()
            if number < 2 and switch.virtual[number].vppbs[turn % 2].port is not None:
                assert switch.unbind(number, turn % 2).code is ReturnCode.SUCCESS

    threads = [threading.Thread(target=run, args=[number]) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert codes <= {ReturnCode.INVALID_INPUT, ReturnCode.BUSY}
    assert not any(port.bindings for port in switch.ports.values())
    assert all(device.holder is None for device in pool.logical.values())
    for turn in range(40):
        found = [(vcs, ld) for where, vcs, ld in won if where == turn]
        assert len(found) == len({vcs for vcs, _ in found}) == len({ld for _, ld in found})
        assert found


def test_a_removal_and_its_abort_race(switch, tenant, host, memory):
    """The host turns the slot off just as the manager gives up: the binding ends, or stays; never by half."""
    switch.bind(0, 0, 0)
    system = host.boot()
    for _ in range(20):
        removal = switch.unbind(0, 0)
        other = threading.Thread(target=lambda removal=removal: removal.give_up(ReturnCode.ABORTED))
        other.start()
        slots(system)
        other.join()
        vppb = switch.virtual[0].vppbs[0]
        if removal.code is ReturnCode.SUCCESS:
            assert (vppb.port, vppb.function, memory.seat) == (None, None, None)
            switch.bind(0, 0, 0)
        else:
            assert removal.code is ReturnCode.ABORTED
            assert (vppb.port, vppb.function) == (switch.ports[0], memory)
            assert memory.seat.bus.bridge is tenant.slots[0]
            tenant.slots[0].press()
        slots(system)
        assert len(system.memdevs) == 1
