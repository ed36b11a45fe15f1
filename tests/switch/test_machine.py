"""The machine under faults and changes: poison, devices that do not serve, resets, hot plug, what ports show."""

from __future__ import annotations

import struct

import pytest

from softcxl.device.type3 import Type3
from softcxl.memory import Medium, Window
from softcxl.memory.errors import GeometryError
from softcxl.spec.command.events import EventLog
from softcxl.switch.errors import AccessFault, DecodeError, DeviceFault, LinkDown, PoisonError
from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.machine import HostMachine
from softcxl.switch.route import CxlWindow
from softcxl.switch.upstream import UpstreamPort
from softcxl.testing.driver import Driver
from softcxl.wire import Reset
from tests.switch.fabrics import BASE, BLOCK, Fabric, Level, Plan
from tests.switch.programmer import Found, Programmer

TWO = Plan((Level(1, 256), Level(2, 256)))
TREE = Plan((Level(1, 256), Level(2, 512), Level(2, 256)))
EXTENSIONS, GPF, FLEX_BUS = 3, 4, 7
UNMASK_SBR = 1


@pytest.fixture
def two():
    with Fabric(TWO) as fabric:
        fabric.program()
        yield fabric


@pytest.fixture
def tree():
    with Fabric(TREE) as fabric:
        fabric.program()
        yield fabric


# -- faults


def test_poison_is_found_where_its_address_leads(two: Fabric) -> None:
    machine, device = two.machine, two.devices[1]
    machine.store(BASE + 0x100, bytes(range(256)))
    device.inject_poison(0x40)
    assert machine.poisoned(BASE, 0x400) == [BASE + 0x140]
    assert machine.poisoned(BASE + 0x17F, 1) == [BASE + 0x140]
    assert machine.poisoned(BASE + 0x180, 0x400) == []
    assert machine.load(BASE + 0x100, 0x40) == bytes(range(0x40))
    with pytest.raises(PoisonError, match="DPA 0x40 of mem1") as caught:
        machine.load(BASE + 0x100, 0x100)
    assert (caught.value.hpa, caught.value.dpa, caught.value.device) == (BASE + 0x140, 0x40, "mem1")
    machine.store(BASE + 0x140, bytes(63))  # not the whole line
    with pytest.raises(PoisonError):
        machine.load(BASE + 0x140, 1)
    machine.store(BASE + 0x13F, bytes(66))
    assert machine.load(BASE + 0x140, 0x40) == bytes(64)
    assert machine.poisoned(BASE, 2 * BLOCK) == []


def test_a_read_meets_poison_that_nobody_has_noticed(two: Fabric) -> None:
    machine, device = two.machine, two.devices[1]
    for line in (0x40, 0x80):
        device.poison.spoil(line)
    assert machine.poisoned(BASE, 0x400) == [BASE + 0x140, BASE + 0x180]
    assert len(device.poison.map) == 0
    with pytest.raises(PoisonError, match="DPA 0x40 of mem1"):
        machine.load(BASE + 0x100, 0x100)
    assert list(device.poison.map.runs(0, 0x400)) == [(0x40, 0x40, 2)]
    machine.store(BASE + 0x180, bytes(64))  # healed before it was ever noticed
    assert machine.poisoned(BASE, 0x400) == [BASE + 0x140]
    with pytest.raises(PoisonError, match="DPA 0x40 of mem1"):
        machine.load(BASE + 0x140, 1)
    [record] = device.events.logs[EventLog.FAILURE].records
    assert record.data[10] == 1  # met by a host's read, once


def test_a_device_that_does_not_serve_says_so(two: Fabric) -> None:
    machine, device = two.machine, two.devices[0]
    machine.store(BASE, b"kept")
    device.media_disabled = True
    with pytest.raises(DeviceFault, match="media of mem0"):
        machine.load(BASE, 4)
    assert machine.view(BASE, 256) is None
    device.media_disabled = False
    device.dvsec.control.mem_enable = False
    with pytest.raises(DeviceFault, match="Mem_Enable"):
        machine.store(BASE, b"lost")
    device.dvsec.control.mem_enable = True
    device.decoders.registers.global_control.hdm_decoder_enable = False
    with pytest.raises(DeviceFault, match="decoders disabled"):
        machine.load(BASE, 4)
    device.decoders.registers.global_control.hdm_decoder_enable = True
    assert machine.load(BASE, 4) == b"kept"


def test_locked_persistent_memory_does_not_serve() -> None:
    memory, bridge = Type3("mem0", volatile=BLOCK, persistent=BLOCK), HostBridge("hb0", 1)
    bridge.ports[0].plug(memory)
    window = Window(BASE, 2 * BLOCK, Medium.memfd("window", 2 * BLOCK))
    machine = HostMachine([bridge], [CxlWindow(window, (bridge,))])
    assert bridge.decoders
    bridge.decoders.program(0, hpa=BASE, size=2 * BLOCK, targets=[0])
    memory.dvsec.control.mem_enable = True
    for number in range(2):
        memory.decoders.program(number, hpa=BASE + number * BLOCK, size=BLOCK, ways=1, granularity=256)
    machine.store(BASE + BLOCK, b"secret")
    memory.security.locked = True
    machine.store(BASE, b"volatile")
    assert machine.load(BASE, 8) == b"volatile"
    for forbidden in (
        lambda: machine.load(BASE + BLOCK, 6),
        lambda: machine.store(BASE + BLOCK, b"public"),
    ):
        with pytest.raises(DeviceFault, match="persistent memory of mem0 is locked"):
            forbidden()
    assert machine.view(BASE, BLOCK) is not None
    assert machine.view(BASE + BLOCK, BLOCK) is None
    memory.security.locked = False
    assert machine.load(BASE + BLOCK, 6) == b"secret"
    memory.close()


def test_a_trace_names_every_decoder(tree: Fabric) -> None:
    found = tree.machine.trace(BASE + 256 * 7 + 5)
    assert [(hop.component, hop.decoder, hop.ways, hop.granularity, hop.position) for hop in found.hops] == [
        ("window 0x400000000", None, 1, 256, 0),
        ("hb0", 0, 2, 512, 1),
        ("hb0 port 1/sw", 0, 2, 256, 1),
    ]
    assert found.hops[-1].target == "mem3"
    assert (found.device.name, found.decoder, found.dpa) == ("mem3", 0, 0x105)
    assert tree.machine.hpa_of(tree.devices[3], 0x105) == BASE + 256 * 7 + 5
    with pytest.raises(DecodeError):
        tree.machine.trace(BASE - 1)


def test_addresses_that_nothing_maps_have_no_hpa(two: Fabric) -> None:
    device = two.devices[0]
    assert two.machine.hpa_of(device, BLOCK - 1) == BASE + 2 * BLOCK - 257
    two.machine.reset()
    assert two.machine.hpa_of(device, 0) is None


# -- changes


def test_bytes_follow_their_dpa_when_decoders_change(two: Fabric) -> None:
    machine, it = two.machine, two.programmer
    machine.store(BASE, b"A" * 256 + b"B" * 256)
    assert machine.view(BASE, 512) is not None  # the bytes rest in the window now
    it.decommit(it.bridge(0), 0)
    with pytest.raises(DecodeError):
        machine.load(BASE, 8)
    it.decoder(it.bridge(0), 0, hpa=BASE, size=2 * BLOCK, ways=2, targets=[1, 0])
    assert machine.load(BASE, 512) == b"B" * 256 + b"A" * 256


def test_a_view_lets_go_with_its_decoders(two: Fabric) -> None:
    machine, it, device = two.machine, two.programmer, two.devices[0]
    seen = machine.view(BASE, 2 * BLOCK)
    assert seen is not None
    seen[:4] = 9
    assert device.space.commitments
    endpoint = it.endpoints()[0]
    it.decommit(endpoint.block, 0)
    assert device.space.commitments == ()
    assert device.space.read(0, 4) == b"\x09" * 4
    assert machine.view(BASE, 256) is None
    with pytest.raises(DecodeError, match="no decoder of mem0"):
        machine.load(BASE, 4)
    assert machine.view(BASE - 1, 256) is None
    assert machine.view(BASE, 0) is None


def test_a_device_pulled_in_use_and_put_back(two: Fabric) -> None:
    machine, port = two.machine, two.bridges[0].ports[0]
    machine.store(BASE, b"gone")
    [pulled] = port.remove()
    assert pulled is two.devices[0]
    with pytest.raises(LinkDown, match="hb0 port 0"):
        machine.load(BASE, 4)
    assert machine.load(BASE + 256, 4) == bytes(4)
    assert machine.view(BASE, 512) is None
    port.insert(pulled)
    with pytest.raises(DecodeError, match="no decoder of mem0"):
        machine.load(BASE, 4)
    two.programmer = Programmer(machine)
    endpoint = two.programmer.endpoints()[0]
    two.programmer.decoder(endpoint.block, 0, hpa=BASE, size=2 * BLOCK, ways=2)
    two.programmer.enable(endpoint)
    assert machine.load(BASE, 4) == bytes(4)  # volatile memory does not outlive its power


def test_a_device_comes_to_an_empty_port(two: Fabric) -> None:
    port = two.bridges[0].ports[2]
    with Medium.memfd("added", BLOCK) as medium:
        added = Type3("added", volatile=BLOCK, medium=medium)
        port.insert(added)
        assert two.machine.devices == [*two.devices, added]
        [found] = [one for one in Programmer(two.machine).roots[0][2].below if one.endpoint]
        assert found.device == 0
        port.remove()
        assert added not in two.machine.devices
        added.close()


def test_something_without_memory_answers_no_address(two: Fabric) -> None:
    two.bridges[0].ports[0].remove()
    two.bridges[0].ports[0].insert(UpstreamPort("sw", 2))
    with pytest.raises(DecodeError, match="no decoder of sw"):
        two.machine.load(BASE, 4)


def sbr(it: Programmer, port: Found, on: bool) -> None:
    it.write(port.bus, port.device, 0x3E, 0x40 if on else 0, 2)


def test_secondary_bus_reset_is_masked_while_the_link_runs_cxl(two: Fabric) -> None:
    it, machine = two.programmer, two.machine
    port = it.roots[0][0]
    machine.store(BASE, b"here")
    sbr(it, port, True)
    assert machine.load(BASE, 4) == b"here"
    sbr(it, port, False)
    at = it.dvsec(port.bus, port.device, EXTENSIONS) + 0x0C
    it.write(port.bus, port.device, at, UNMASK_SBR, 2)
    sbr(it, port, True)
    with pytest.raises(LinkDown):
        machine.load(BASE, 4)
    sbr(it, port, False)
    with pytest.raises(DecodeError, match="no decoder of mem0"):
        machine.load(BASE, 4)


def test_a_switch_that_is_reset_forgets_its_decoders(tree: Fabric) -> None:
    it, machine = tree.programmer, tree.machine
    port = it.roots[0][1]
    it.write(port.bus, port.device, it.dvsec(port.bus, port.device, EXTENSIONS) + 0x0C, UNMASK_SBR, 2)
    sbr(it, port, True)
    sbr(it, port, False)
    assert machine.load(BASE, 8) == bytes(8)
    with pytest.raises(DecodeError, match="no decoder of hb0 port 1/sw"):
        machine.load(BASE + 512, 8)
    machine.reset(Reset.COLD)
    with pytest.raises(DecodeError, match="no decoder of hb0 takes it"):
        machine.load(BASE, 8)


# -- what ports show


def test_ports_have_the_dvsecs_of_their_kind(tree: Fabric) -> None:
    it = tree.programmer
    root = it.roots[0][0]
    [upstream] = root.below
    down = upstream.below[1]
    assert [one.kind for one in (root, upstream, down)] == [4, 5, 6]
    assert [one.number for one in upstream.below] == [0, 1, 2]
    for one in (root, upstream, down):
        it.dvsec(one.bus, one.device, EXTENSIONS)
        flex = it.dvsec(one.bus, one.device, FLEX_BUS)
        assert it.read(one.bus, one.device, flex + 0x0E, 2) & 0x5 == 0x4  # mem, not cache
        assert it.read32(one.block + 0x1000) & 0xFFFF == 1
    it.dvsec(root.bus, root.device, GPF)
    with pytest.raises(LookupError):
        it.dvsec(upstream.bus, upstream.device, GPF)
    empty = upstream.below[2]
    flex = it.dvsec(empty.bus, empty.device, FLEX_BUS)
    assert it.read(empty.bus, empty.device, flex + 0x0E, 2) & 0x5 == 0
    with pytest.raises(LookupError):
        it.hdm(root.block)
    assert it.read32(it.hdm(upstream.block)) & 0xFF == 0x44  # 8 decoders of 4 targets


def test_a_switch_tells_its_latencies() -> None:
    """Byte by byte as Linux reads them: drivers/cxl/core/cdat.c, cdat_sslbis_handler, and struct acpi_cdat_sslbis."""
    reader = Driver.__new__(Driver)
    reader.port = UpstreamPort("sw", 3)
    table = reader.cdat()
    assert sum(table) % 256 == 0
    assert int.from_bytes(table[:4], "little") == len(table)
    at, seen = 16, {}
    while at < len(table):
        kind, length, data_type, unit = struct.unpack_from("<BxHB3xQ", table, at)
        entries = [struct.unpack_from("<HHH", table, place) for place in range(at + 16, at + length, 8)]
        assert kind == 5
        assert [(x, y) for x, y, _ in entries] == [(0x0100, port) for port in range(3)]
        seen[data_type] = unit * entries[0][2]
        at += length
    assert seen == {1: 50_000, 2: 50_000, 4: 32_000, 5: 32_000}


def test_what_cannot_be_is_refused() -> None:
    one, other = HostBridge("one", 1), HostBridge("other", 1)
    with Medium.memfd("window", BLOCK) as medium:
        window = Window(BASE, BLOCK, medium)
        with pytest.raises(ValueError, match="other is no host bridge"):
            HostMachine([one], [CxlWindow(window, (other,))])
        with pytest.raises(ValueError, match="overlap"):
            HostMachine([HostBridge("hb", 1)], [CxlWindow(window, (one,)), CxlWindow(window, (one,))])
        with pytest.raises(GeometryError, match="once"):
            CxlWindow(window, (one, one))
        with pytest.raises(GeometryError, match="ways"):
            CxlWindow(window, ())
    with pytest.raises(ValueError, match="1 to 32"):
        UpstreamPort("sw", 33)


def test_a_bridge_without_decoders_passes_all_on_to_its_port() -> None:
    bridge, device = HostBridge("hb", 1, decoders=0), Type3("mem", volatile=BLOCK)
    bridge.ports[0].plug(device)
    with Medium.memfd("window", BLOCK) as medium:
        machine = HostMachine([bridge], [CxlWindow(Window(BASE, BLOCK, medium), (bridge,))])
        it = Programmer(machine)
        with pytest.raises(LookupError):
            it.hdm(it.bridge(0))
        [endpoint] = it.endpoints()
        it.decoder(endpoint.block, 0, hpa=BASE, size=BLOCK)
        it.enable(endpoint)
        machine.store(BASE + BLOCK - 4, b"last")
        assert device.space.read(BLOCK - 4, 4) == b"last"
        with pytest.raises(AccessFault):
            machine.store(BASE + BLOCK - 4, b"last and beyond")
        assert [hop.decoder for hop in machine.trace(BASE).hops] == [None, None]
    device.close()


def test_many_bridges_go_on_in_further_segments() -> None:
    bridges = [HostBridge(f"hb{number}", 31, uid=number) for number in range(9)]
    machine = HostMachine(bridges)
    buses = [bus for _, bus in machine.host_bridges]
    assert buses == [0, 32, 64, 96, 128, 160, 192, 224, 256]
    assert [len(ports) for ports in Programmer(machine).roots] == [31] * 9
