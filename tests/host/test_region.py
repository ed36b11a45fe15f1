"""Regions: what decoders are set to, against numbers by hand and Linux's rules, and what is refused."""

import itertools
from typing import Any

import pytest

from softcxl.host.errors import CommitError, RegionError
from softcxl.host.system import System
from tests.host.fake import GIB, MIB, Port, machine, switch

SHARE = 256 * MIB


def word(decoders, number, register):
    return decoders.word(number, register)


def test_one_device(made):
    (device,) = made(1, volatile=512 * MIB)
    fake = machine([device], windows=[{}])
    region = System(fake).create_region()
    assert (region.name, region.type, region.hpa, region.size) == ("region0", "ram", 4 * GIB, 512 * MIB)
    (mapping,) = device.decoders.mappings
    assert (mapping.hpa, mapping.size, mapping.ways, mapping.dpa) == (4 * GIB, 512 * MIB, 1, 0)
    # the host bridge: base, size, committed | commit | host only
    bridge = fake.bridges[0].component
    assert [word(bridge, 0, at) for at in (0, 4, 8, 12)] == [0, 1, 512 * MIB, 0]
    assert word(bridge, 0, 0x10) & 0x1F00 == 0x1600


def test_levels_of_linux_eight_way(made):
    """Two bridges, two switches each, two devices each: granularities 256, 512, 1024 (cxl_port_setup_targets)."""
    d = made(8)
    fake = machine(
        [switch(d[0], d[1]), switch(d[2], d[3])],
        [switch(d[4], d[5]), switch(d[6], d[7])],
        windows=[{"targets": (0, 1), "size": 4 * GIB}],
    )
    system = System(fake)
    region = system.create_region()
    assert [one.serial - 0xC0 for one in region.memdevs if one] == [0, 4, 2, 6, 1, 5, 3, 7]
    for bridge in fake.bridges:
        assert word(bridge.component, 0, 0x10) & 0xFF == 0x11  # 2 ways at 512
        assert word(bridge.component, 0, 0x14) == 0x0100  # to ports 0 and 1
        for root_port in bridge.ports:
            upstream = root_port.below[0]
            assert isinstance(upstream, Port)
            assert word(upstream.component, 0, 0x10) & 0xFF == 0x12  # 2 ways at 1024
    for device in d:
        (mapping,) = device.decoders.mappings
        assert (mapping.ways, mapping.granularity) == (8, 256)
    # and the tree really deals out so
    found = [fake.route(region.hpa + 256 * n)[0] for n in range(8)]
    assert found == [d[n] for n in (0, 4, 2, 6, 1, 5, 3, 7)]


@pytest.mark.parametrize("granularity", [256, 1024, 16384])
@pytest.mark.parametrize("ways", [1, 2, 4, 8])
def test_every_granularity_of_one_bridge(made, ways, granularity):
    devices = made(ways)
    fake = machine(devices, windows=[{"size": 4 * GIB}])
    region = (
        System(fake).create_region(ways=ways, granularity=granularity)
        if granularity * ways <= 32768
        else None
    )
    if region is None:
        with pytest.raises(RegionError, match=r"need address bit 1[56]"):
            System(fake).create_region(ways=ways, granularity=granularity)
        return
    assert [fake.route(region.hpa + granularity * n)[0] for n in range(ways)] == devices


MODULO = [(3, 1), (3, 2), (6, 1), (3, 4), (6, 2), (2, 8), (4, 4), (8, 2)]
XOR = [(bridges, below) for bridges, below in MODULO if bridges != 3]  # of three ways there are no XOR maps


@pytest.mark.parametrize(
    ("bridges", "below", "xor"), [(*one, False) for one in MODULO] + [(*one, True) for one in XOR]
)
def test_many_bridges(made, bridges, below, xor):
    devices = made(bridges * below)
    given: dict[str, Any] = {"targets": tuple(range(bridges)), "size": bridges * below * SHARE * 2}
    if xor:
        maps = (0x404100, 0x808200, 0x1010400, 0x2020800)
        given |= {"xor": True, "maps": maps[: (bridges & -bridges).bit_length() - 1]}
    fake = machine(*(devices[n * below : (n + 1) * below] for n in range(bridges)), windows=[given])
    system = System(fake)
    region = system.create_region()
    assert region.ways == bridges * below
    # every round goes once to each device
    for start in (0, 3 * 256 * region.ways, region.size - 256 * region.ways):
        found = [fake.route(region.hpa + start + 256 * n)[0] for n in range(region.ways)]
        assert len(set(found)) == region.ways
    region.write(12345, bytes(range(256)) * 64)
    assert region.load(12345, 4096) == bytes(range(256)) * 16
    region.store(region.size - 5, b"hello")
    assert region.read(region.size - 5) == b"hello"


def test_default_order_takes_turns_and_others_are_refused_with_one_that_works(made):
    a, b, c, d = made(4)
    system = System(machine([switch(a, b), switch(c, d)], windows=[{"size": 2 * GIB}]))
    # of the 24 orders those hold in which the two switches take turns
    good, refusals = [], set()
    for order in itertools.permutations(["mem0", "mem1", "mem2", "mem3"]):
        try:
            system.destroy_region(system.create_region(order))
            good.append(order)
        except RegionError as error:
            refusals.add(str(error))
    assert all("must take turns" in one for one in refusals)
    assert all("an order that works: mem0, mem2, mem1, mem3" in one for one in refusals)
    switches = {"mem0": 0, "mem1": 0, "mem2": 1, "mem3": 1}
    assert good == [
        one
        for one in itertools.permutations(switches)
        if switches[one[0]] == switches[one[2]] and switches[one[1]] == switches[one[3]]
    ]
    assert len(good) == 8


def test_two_windows_interleaved_bridges_position(made):
    a, b = made(2)
    system = System(machine([a], [b], windows=[{"targets": (1, 0)}]))
    with pytest.raises(RegionError) as caught:
        system.create_region(["mem0", "mem1"])
    assert str(caught.value) == (
        "decoder0.0: position 0 of 2 belongs to pci0000:2c, and mem0 is behind pci0000:0c;"
        " an order that works: mem1, mem0"
    )
    assert system.create_region(["mem1", "mem0"]).ways == 2


def _refusals():
    yield {"memdevs": []}, "at least one memory device"
    yield {"memdevs": ["mem0", "mem0"]}, "mem0 is given twice, at positions 0 and 1"
    yield {"memdevs": ["mem0", "mem1", "mem2"]}, "3 ways are not a power of two times the 1 of its window"
    yield (
        {"memdevs": ["mem0", "mem1", "mem2", "mem3", "mem0"]},
        "5 ways: allowed are 1, 2, 3, 4, 6, 8, 12, 16",
    )
    yield {"memdevs": ["mem0"], "granularity": 300}, "granularity 300: allowed are"
    yield {"memdevs": ["mem0"], "granularity": 32768}, "granularity 32768: allowed are"
    yield {"memdevs": ["mem0"], "ways": 2}, "2 ways and 1 memory devices were given"
    yield {"memdevs": ["mem0"], "size": 100 * MIB}, "size 0x6400000 is not a multiple of 0x10000000"
    yield (
        {"memdevs": ["mem0", "mem1"], "size": SHARE},
        "not a multiple of 0x20000000 \\(256 MiB for each of 2 devices",
    )
    yield (
        {"memdevs": ["mem0"], "size": 2 * SHARE},
        "mem0: 0x20000000 bytes of ram are needed, and 0x10000000 of its",
    )
    yield {"memdevs": ["mem0"], "type": "pmem"}, "its window takes ram, not pmem"
    yield {"memdevs": ["mem0"], "type": "tape"}, "tape is no type of region; types are ram and pmem"
    yield {"ways": 3}, "3 ways are not a power of two"
    yield {"ways": 16}, "cannot be arranged in 16 ways"


@pytest.mark.parametrize(("given", "reason"), list(_refusals()))
def test_refused_with_the_reason_and_nothing_changed(made, given, reason):
    devices = made(4)
    fake = machine(devices, windows=[{"restrictions": 0b0110}])
    system = System(fake)
    with pytest.raises(RegionError, match=reason):
        system.create_region(**given)
    assert system.regions == {}
    assert not any(device.decoders.committed for device in devices)
    assert not word(fake.bridges[0].component, 0, 0x10) & 1 << 10
    assert all(one.available("ram") == SHARE for one in system.memdevs.values())
    assert system.create_region().ways == 4


def test_granularity_of_interleaved_bridges_is_the_windows(made):
    a, b = made(2)
    system = System(machine([a], [b], windows=[{"targets": (0, 1), "granularity": 1024}]))
    with pytest.raises(
        RegionError, match=r"granularity 512 differs from the 1024 at which its window deals out to 2"
    ):
        system.create_region(["mem0", "mem1"], granularity=512)
    assert system.create_region().granularity == 1024


def test_three_ports_of_a_bridge(made):
    devices = made(6)
    system = System(machine(devices[:3], devices[3:], windows=[{"targets": (0, 1), "size": 3 * GIB}]))
    order = ["mem0", "mem3", "mem1", "mem4", "mem2", "mem5"]
    with pytest.raises(RegionError, match=r"6 ways are not a power of two times the 2"):
        system.create_region(order)


def test_uneven_below_two_switches(made):
    a, b, c, d = made(4)
    system = System(machine([switch(a, b, c), switch(d)], windows=[{}]))
    with pytest.raises(
        RegionError, match=r"mem2 is behind 0000:0e:02.0 where 0000:0e:00.0 is due|must take turns"
    ):
        system.create_region(["mem0", "mem3", "mem1", "mem2"])


def test_granularity_grows_too_large_for_a_level_below(made):
    a, b, c, d = made(4)
    fake = machine([switch(a, b)], [switch(c, d)], windows=[{"targets": (0, 1), "granularity": 16384}])
    system = System(fake)
    with pytest.raises(
        RegionError, match=r"need address bit 15, on which it cannot|granularity of 32768, the largest"
    ):
        system.create_region(["mem0", "mem2", "mem1", "mem3"])
    assert system.create_region(["mem0", "mem2"]).granularity == 16384


def test_decoders_run_out(made):
    (device,) = made(1, volatile=2 * GIB, decoders=2)
    system = System(machine([device], windows=[{"size": 2 * GIB}]))
    for _ in range(2):
        system.create_region(["mem0"], size=SHARE)
    with pytest.raises(
        RegionError, match=r"its 2 HDM decoders are all in use or below one that is \(region0, region1\)"
    ):
        system.create_region(["mem0"], size=SHARE)


def test_the_bridges_decoders_run_out(made):
    devices = made(5)
    system = System(machine(devices, windows=[{"size": 2 * GIB}]))
    for number in range(4):
        system.create_region([f"mem{number}"])
    with pytest.raises(RegionError, match=r"port1 \(pci0000:0c\): its 4 HDM decoders are all in use"):
        system.create_region(["mem4"])


def test_skip_from_volatile_to_persistent(made):
    (device,) = made(1, volatile=512 * MIB, persistent=512 * MIB)
    system = System(machine([device], windows=[{"size": 2 * GIB}]))
    system.create_region(["mem0"], type="ram", size=SHARE)
    region = system.create_region(["mem0"], type="pmem", size=SHARE)
    first, second = device.decoders.mappings
    assert (first.dpa, first.skip) == (0, 0)
    assert (second.dpa, second.skip) == (512 * MIB, SHARE)
    with pytest.raises(RegionError, match=r"ram at DPA 0x10000000 lies below DPA 0x30000000"):
        system.create_region(["mem0"], type="ram", size=SHARE)
    with pytest.raises(
        RegionError, match=r"region0: decoder2.0 of mem0 cannot be freed before decoder2.1 \(region1\)"
    ):
        system.destroy_region("region0")
    system.destroy_region(region)
    system.destroy_region("region0")
    assert device.decoders.mappings == []
    assert system.create_region(["mem0"], type="pmem").size == 512 * MIB
    assert device.decoders.mappings[0].skip == 512 * MIB


def test_addresses_go_up_in_order(made):
    a, b = made(2, volatile=512 * MIB)
    system = System(machine([a, b], windows=[{}, {}]))
    system.create_region(["mem0"], decoder="decoder0.1", size=SHARE)
    with pytest.raises(
        RegionError, match=r"no 0x10000000 free bytes of its window lie above 0x150000000, where decoder"
    ):
        system.create_region(["mem1"], decoder="decoder0.0", size=SHARE)
    assert system.create_region(["mem1"], decoder="decoder0.1").hpa == 5 * GIB + SHARE


def test_names_are_reused_as_linux_does(made):
    a, b = made(2, volatile=512 * MIB)
    system = System(machine([a, b], windows=[{}, {}]))
    # a root decoder keeps the next number in hand: 0 and 1 are the two decoders' own
    first = system.create_region(["mem0"], decoder="decoder0.0", size=SHARE)
    second = system.create_region(["mem1"], decoder="decoder0.0", size=SHARE)
    assert (first.name, second.name) == ("region0", "region2")
    system.destroy_region(second)
    assert system.create_region(["mem1"], decoder="decoder0.0", size=SHARE).name == "region2"


def test_out_of_order_release_blocks_the_port(made):
    a, b, c = made(3)
    system = System(machine([a, b, c], windows=[{}]))
    first, second = system.create_region(["mem0"]), system.create_region(["mem1"])
    system.destroy_region(first)
    with pytest.raises(
        RegionError, match=r"decoder1.0 is next, and decoder1.1 is still region[0-9]'s: .* in order"
    ):
        system.create_region(["mem2"])
    system.destroy_region(second)
    assert system.create_region(["mem2"]).enabled


def test_a_decoder_that_refuses(made):
    a, b = made(2)
    fake = machine([a, b], windows=[{}])
    system = System(fake)
    fake.bridges[0].component.refuse = True
    with pytest.raises(
        CommitError, match=r"pci0000:0c: HDM decoder 0 refused 0x20000000 bytes at 0x100000000, 2 ways"
    ):
        system.create_region(["mem0", "mem1"])
    assert not a.decoders.committed
    fake.bridges[0].component.refuse = False
    assert system.create_region(["mem0", "mem1"]).enabled


def test_a_fixed_window_is_not_taken_apart(made):
    (device,) = made(1)
    system = System(machine([device], windows=[{"restrictions": 0b10110}]))
    region = system.create_region()
    with pytest.raises(RegionError, match=r"region0: decoder0.0 is locked"):
        system.destroy_region(region)


def test_no_window_takes_it(made):
    a, b = made(2)
    system = System(
        machine([a], [b], windows=[{"targets": (0,)}, {"targets": (0, 1), "restrictions": 0b1010}])
    )
    with pytest.raises(RegionError) as caught:
        system.create_region(["mem0", "mem1"], type="ram")
    assert str(caught.value) == (
        "no window takes it: decoder0.0: position 1 of 2 belongs to pci0000:0c, and mem1 is behind pci0000:2c;"
        " decoder0.1: its window takes pmem, not ram"
    )


def test_no_windows(made):
    with pytest.raises(RegionError, match=r"no CXL memory window"):
        System(machine(made(1))).create_region()
