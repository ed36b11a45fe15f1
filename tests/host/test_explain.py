"""Addresses explained: sums by hand, the inverse, and how far an address comes that leads nowhere."""

import random

import pytest

from softcxl.host import media
from softcxl.host.errors import AccessError
from softcxl.host.system import System
from tests.host.fake import GIB, machine, switch

LAST = "4 ways at 256: offset 0x1700 is turn 0x5 and 0x0; DPA 0x0 + 0x5 x 0x100 + 0x0: DPA 0x500"


@pytest.fixture
def system(made):
    a, b, c, d = made(4)
    return System(machine([switch(a, b)], [switch(c, d)], windows=[{"targets": (0, 1)}, {}]))


def test_every_step_with_its_sum(system):
    region = system.create_region()
    found = system.explain(region.hpa + 0x1700)
    assert str(found).splitlines() == [
        "HPA 0x100001700, offset 0x1700 of region0, is DPA 0x500 of mem3",
        "  window 0 (decoder0.0): 2 ways at 256, modulo: 0x100001700 >> 8 = 0x1000017, mod 2 = 1: pci0000:2c",
        "  decoder2.0 of port2 (pci0000:2c): 1 way, port 0: 0000:2c:00.0",
        "  decoder6.0 of port6 (0000:2d:00.0): 2 ways at 512: (0x100001700 >> 9) mod 2 = 1, port 1: 0000:2e:01.0",
        "  decoder8.0 of mem3 (0000:30:00.0): " + LAST,
    ]


def test_as_the_tree_routes_and_back(system):
    region = system.create_region(size=GIB // 2 * 2)
    rng = random.Random(3)
    for _ in range(200):
        hpa = region.hpa + rng.randrange(region.size)
        device, dpa = system.machine.route(hpa)
        found = system.explain(hpa)
        assert (found.memdev.serial, found.dpa) == (device.serial, dpa)
        assert system.translate(found.memdev, dpa) == hpa


@pytest.mark.parametrize(
    ("hpa", "reason"),
    [
        (0, r"in no CXL window; windows are 0x100000000 to 0x13fffffff, 0x140000000 to"),
        (5 * GIB, r"no decoder of port1 \(pci0000:0c\) has it"),
    ],
)
def test_how_far_it_comes(system, hpa, reason):
    system.create_region()
    with pytest.raises(AccessError, match=reason):
        system.explain(hpa)


def test_what_is_not_mapped_has_no_address(system):
    assert system.translate("mem0", 0) is None


def test_poison_by_region(system):
    region = system.create_region()
    media.inject(system, region, 0x1740)
    media.inject(system, region, 0)
    assert [
        (one.memdev.name, one.dpa, one.hpa, one.source) for one in media.region_poison(system, region)
    ] == [
        ("mem0", 0, region.hpa, "Injected"),
        ("mem3", 0x540, region.hpa + 0x1740, "Injected"),
    ]
    media.clear(system, region, 0, b"c" * 64)
    assert region.read(0, 64) == b"c" * 64
    assert len(media.region_poison(system, region)) == 1
    with pytest.raises(AccessError, match="offset 0x1 is not a multiple of 64"):
        media.inject(system, region, 1)


def test_a_long_stretch_is_cut_at_granules(system):
    region = system.create_region()
    device = system.machine.devices()[0]
    for dpa in range(192, 320, 64):
        device.inject_poison(dpa)
    assert [(one.dpa, one.length, one.hpa - region.hpa) for one in media.region_poison(system, region)] == [
        (192, 64, 192),
        (256, 64, 1024),
    ]


def test_xor_is_spelt_out(made):
    a, b = made(2)
    window = {"targets": (0, 1), "xor": True, "maps": (0x404100,), "size": GIB}
    system = System(machine([a], [b], windows=[window]))
    region = system.create_region()
    step = system.explain(region.hpa + 0x4000).steps[0]
    assert str(step) == (
        "window 0 (decoder0.0): 2 ways at 256, xor maps 0x404100 make it 0x100004100:"
        " 0x100004100 >> 8 = 0x1000041, mod 2 = 1: pci0000:2c"
    )
