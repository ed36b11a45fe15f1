"""Enumeration: numbers, sizes and windows, looked at in the bytes of configuration space."""

import itertools

import pytest

from softcxl.host.enumerate import enumerate_all, rescan
from softcxl.host.errors import EnumerationError
from softcxl.host.placement import Need, Pool, stacked
from softcxl.spec.cxl.dvsec import DvsecId
from tests.host.fake import MIB, Port, machine, switch


def test_buses_depth_first(made):
    a, b, c, d = made(4)
    fake = machine([switch(a, switch(b, c)), None], [d])
    first, second = enumerate_all(fake)
    names = [node.name for node in first.walk()]
    assert names == [
        "0000:0c:00.0",  # root port 0
        "0000:0d:00.0",  # upstream port
        "0000:0e:00.0",  # downstream port 0, and its device
        "0000:0f:00.0",
        "0000:0e:01.0",  # downstream port 1: a switch
        "0000:10:00.0",
        "0000:11:00.0",
        "0000:12:00.0",
        "0000:11:01.0",
        "0000:13:00.0",
        "0000:0c:01.0",  # the empty root port has a bus, too
    ]
    root = fake.bridges[0].ports[0]
    assert bytes(root.config[0x18:0x1B]) == bytes([0x0C, 0x0D, 0x13])
    assert bytes(fake.bridges[0].ports[1].config[0x18:0x1B]) == bytes([0x0C, 0x14, 0x14])
    assert [node.name for node in second.walk()] == ["0000:2c:00.0", "0000:2d:00.0"]


def test_bars_are_sized_placed_and_answer(made):
    devices = made(3)
    fake = machine([switch(*devices)], windows=[{}])
    (root,) = enumerate_all(fake)
    ranges = []
    for node in root.walk():
        for bar in node.bars.values():
            assert bar.size == 0x10000
            assert bar.address % bar.size == 0
            ranges.append((bar.address, bar.address + bar.size))
    assert len(ranges) == 2 * 3 + 5  # two of each device, one of each port
    for one, other in itertools.combinations(sorted(ranges), 2):
        assert one[1] <= other[0]
    for device in devices:
        assert device.header.command.memory_space_enable
        assert device.header.command.bus_master_enable
        address = int.from_bytes(device.read(7, 0x10, 8), "little") & ~0xF
        # through every bridge: the component registers' capability array
        assert fake.mmio_read(address + 0x1000, 4) == device.read(0, 0x1000, 4)


def test_windows_hold_what_is_below_and_nothing_else(made):
    fake = machine([switch(*made(2)), *made(1)])
    (root,) = enumerate_all(fake)
    for node in root.walk():
        if not node.bridge:
            continue
        base, size = node.windows[False]
        assert base % MIB == 0
        assert size % MIB == 0
        inside = [found for one in node.below for below in one.walk() for found in below.bars.values()]
        assert all(base <= bar.address and bar.address + bar.size <= base + size for bar in inside)
        assert size < MIB + sum(bar.size for bar in inside) + 3 * MIB
    first, second = (node.windows[False] for node in root.below)
    assert first[0] + first[1] <= second[0] or second[0] + second[1] <= first[0]


def test_a_window_with_nothing_below_is_closed(made):
    fake = machine([None])
    enumerate_all(fake)
    config = fake.bridges[0].ports[0].config
    assert int.from_bytes(config[0x20:0x22], "little") > int.from_bytes(config[0x22:0x24], "little")


def test_hot_added(made):
    (device,) = made(1)
    fake = machine([None, None], hot_plug=True)
    (root,) = enumerate_all(fake)
    port = root.below[1]
    assert port.windows[False][1] == 2 * MIB  # Linux's pci=hpmmiosize
    fake.bridges[0].ports[1].below[0] = device
    (node,) = rescan(port)
    assert node.name == "0000:0e:00.0"
    assert fake.mmio_read(node.bars[0].address + 0x1000, 4) == device.read(0, 0x1000, 4)
    fake.bridges[0].ports[1].below[0] = None
    assert rescan(port) == []


def test_a_switch_does_not_fit_one_bus(made):
    fake = machine([None], hot_plug=True)
    (root,) = enumerate_all(fake)
    fake.bridges[0].ports[0].below[0] = switch(*made(2))
    with pytest.raises(
        EnumerationError, match=r"0000:0d:00.0: bus 0xe is needed below it, and buses end at 0xd"
    ):
        rescan(root.below[0])
    assert root.below[0].below == []


def test_buses_run_out_at_the_next_bridge(made):
    fake = machine([switch(*[None] * 31)], [])
    with pytest.raises(EnumerationError, match=r"bus 0x2c is needed below it, and buses end at 0x2b"):
        enumerate_all(fake)


def test_addresses_run_out(made):
    fake = machine([switch(*made(2))])
    fake.mmio_ranges = [(0xC000_0000, MIB)]
    with pytest.raises(EnumerationError, match=r"pci0000:0c: 0x[0-9a-f]+ bytes .* below 4 GiB"):
        enumerate_all(fake)


def test_room_for_what_may_come_is_given_up_for_what_is_there(made):
    fake = machine([*made(2), None], hot_plug=True)
    fake.mmio_ranges = [(0xC000_0000, 3 * MIB)]
    (root,) = enumerate_all(fake)
    assert [node.windows[False][1] for node in root.below] == [MIB, MIB, 0]


def test_garbage_in_configuration_space_ends_the_walk(made):
    fake = machine([None])
    port = fake.bridges[0].ports[0]
    (root,) = enumerate_all(fake)
    config = root.below[0].config
    port.config[0x41] = 0x40  # a capability that follows itself
    assert list(config.capabilities()) == [(0x10, 0x40)]
    port.config[0x142:0x144] = b"\x01\x10"  # an extended one whose successor is the first
    assert [at for _, at in config.extended()] == [0x100, 0x140]
    assert config.dvsec(DvsecId.REGISTER_LOCATOR) == 0x140
    port.config[0x0E] = 2
    with pytest.raises(EnumerationError, match=r"header type 0x2"):
        enumerate_all(fake)


def test_two_bridges_on_one_bus():
    fake = machine([None], [None])
    fake.bridges[1].bus = fake.bridges[0].bus
    with pytest.raises(EnumerationError, match=r"same root bus"):
        enumerate_all(fake)


def test_stacks_have_no_overlap_and_hardly_a_gap():
    needs = [Need(0x1000, 0x1000), Need(0x200000, 0x100000), Need(0, MIB), Need(0x10000, 0x10000)]
    stack = stacked(needs)
    assert stack.size == 0x211000
    assert stack.places(0x40000000) == [0x40210000, 0x40000000, 0x40000000, 0x40200000]


def test_pool_takes_low_and_high():
    pool = Pool([(0xF000_0000, 0x2000_0000), (1 << 40, 1 << 20)])
    assert pool.take(stacked([Need(0x1000_0000, 0x1000_0000)]), "x", low=True) == 0xF000_0000
    with pytest.raises(EnumerationError, match=r"x: 0x1000 bytes aligned to 0x1000 are needed below 4 GiB"):
        pool.take(stacked([Need(0x1000, 0x1000)]), "x", low=True)
    assert pool.take(stacked([Need(0x1000, 0x1000)]), "x", low=False) == 1 << 40


def test_port_is_found_by_its_type():
    assert Port(5).config[0x42] >> 4 == 5
