"""Interleaving above the host bridges: two ways over two bridges, and four ways over two ports of each."""

from __future__ import annotations

import pytest

from tests.kernel.conftest import Linux
from tests.kernel.listing import Scene, Wanted, check_listing
from tests.kernel.regions import (
    MIB,
    Geometry,
    check_addresses,
    check_as_system_ram,
    check_by_device,
    check_pieces,
    committed,
    destroy,
    devdax,
    seen_through,
)

pytestmark = pytest.mark.usefixtures("tidy")

TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, serial: 0xC0FFEE01}
  mem1: {volatile: 256MiB, serial: 0xC0FFEE02}
  mem2: {volatile: 256MiB, serial: 0xC0FFEE03}
  mem3: {volatile: 256MiB, serial: 0xC0FFEE04}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, mem2]}, hb1: {ports: [mem1, mem3]}}
    windows:
      - {size: 1GiB, targets: [hb0, hb1], granularity: 256}
      - {size: 1GiB, targets: [hb0, hb1], granularity: 4KiB}
      - {size: 512MiB, targets: [hb1]}
"""
WINDOWS = {256: "decoder0.0", 4096: "decoder0.1"}
ORDERS = [
    ["mem0", "mem1"],
    ["mem2", "mem3"],
    ["mem0", "mem1", "mem2", "mem3"],
    ["mem2", "mem3", "mem0", "mem1"],
]


def test_the_listing_field_by_field(guest: Linux) -> None:
    regions = [Wanted(["mem2", "mem1"], "decoder0.0"), Wanted(["mem0", "mem3"], "decoder0.1")]
    check_listing(guest, "test_two_bridges+regions", Scene(regions, [("mem1", 8192), ("mem3", 64)]))
    four = Wanted(["mem0", "mem1", "mem2", "mem3"], "decoder0.0")
    check_listing(guest, "test_two_bridges+four", Scene([four], used=True))


@pytest.mark.parametrize("granularity", WINDOWS)
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_region_over_both_bridges(guest: Linux, order: list[str], granularity: int) -> None:
    geometry = Geometry(order, granularity)
    region = guest.create_region(order, granularity=granularity, decoder=WINDOWS[granularity])
    assert region["size"] == len(order) * 256 * MIB
    assert (region["interleave_ways"], region["interleave_granularity"]) == (len(order), granularity)
    members = {one["position"]: one["memdev"] for one in region["mappings"]}
    assert [members[position] for position in range(len(order))] == [guest.memdev(name) for name in order]
    check_by_device(guest, devdax(guest, region), geometry)
    destroy(guest, region)
    assert committed(guest) == {}


@pytest.mark.parametrize("granularity", WINDOWS)
def test_linux_comes_to_the_same_addresses(guest: Linux, granularity: int) -> None:
    geometry = Geometry(["mem2", "mem3", "mem0", "mem1"], granularity)
    region = guest.create_region(geometry.order, granularity=granularity, decoder=WINDOWS[granularity])
    offsets = [turn * granularity for turn in (0, 1, 2, 3, 4, 7, 1029)] + [region["size"] - 64]
    check_addresses(guest, region, offsets, geometry.place)
    destroy(guest, region)


def test_as_system_ram_then_again(guest: Linux) -> None:
    geometry = Geometry(["mem0", "mem1", "mem2", "mem3"], 256)
    for _ in range(2):
        region = guest.create_region(geometry.order, granularity=256)
        check_as_system_ram(guest, region, geometry)
        destroy(guest, region)


def test_bytes_follow_the_devices_into_another_window(guest: Linux) -> None:
    first, second, third = (
        Geometry(["mem2", "mem3"], 256),
        Geometry(["mem2", "mem3"], 4096),
        Geometry(["mem3"], 256),
    )
    length = 32 << 10
    region = guest.create_region(first.order, granularity=256)
    guest.sh(f"softcxl-memory fill {devdax(guest, region)} 0 {length} 9")
    destroy(guest, region)
    for other, decoder in ((second, "decoder0.1"), (third, "decoder0.2")):
        region = guest.create_region(other.order, granularity=other.granularity, decoder=decoder)
        check_pieces(guest, devdax(guest, region), seen_through(first, other, length, 9))
        destroy(guest, region)
