"""Three bridges: three and six ways, whose addresses are divided by three."""

from __future__ import annotations

import pytest

from tests.kernel.conftest import Linux
from tests.kernel.listing import Scene, Wanted, check_listing
from tests.kernel.regions import (
    MIB,
    Geometry,
    check_addresses,
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
  mem4: {volatile: 256MiB, serial: 0xC0FFEE05}
  mem5: {volatile: 256MiB, serial: 0xC0FFEE06}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, mem3]}, hb1: {ports: [mem1, mem4]}, hb2: {ports: [mem2, mem5]}}
    windows:
      - {size: 256MiB, targets: [hb0]}
      - {size: 1536MiB, targets: [hb0, hb1, hb2]}
      - {size: 1536MiB, targets: [hb0, hb1, hb2], granularity: 4KiB}
"""
WINDOWS = {256: "decoder0.1", 4096: "decoder0.2"}
THREE, OTHERS = ["mem0", "mem1", "mem2"], ["mem3", "mem4", "mem5"]


def test_windows_begin_where_the_first_bridges_turn_is(guest: Linux) -> None:
    windows = guest.json("cxl list -D -d root")
    assert [one["interleave_ways"] for one in windows] == [1, 3, 3]
    assert [one["resource"] % (3 << 30) for one in windows[1:]] == [0, 0]


def test_the_listing_field_by_field(guest: Linux) -> None:
    regions = [Wanted(OTHERS, "decoder0.1"), Wanted(THREE, "decoder0.2")]
    check_listing(guest, "test_three_bridges+regions", Scene(regions, [("mem4", 0), ("mem2", 4096)]))


@pytest.mark.parametrize("granularity", WINDOWS)
@pytest.mark.parametrize("order", [THREE, [*OTHERS, *THREE]], ids="-".join)
def test_bytes_and_addresses(guest: Linux, order: list[str], granularity: int) -> None:
    geometry = Geometry(order, granularity)
    region = guest.create_region(order, granularity=granularity, decoder=WINDOWS[granularity])
    assert region["size"] == len(order) * 256 * MIB
    offsets = [turn * granularity for turn in (0, 1, 2, 3, 5, 6, 1021)] + [region["size"] - 64]
    check_addresses(guest, region, offsets, geometry.place)
    check_by_device(guest, devdax(guest, region), geometry)
    destroy(guest, region)
    assert committed(guest) == {}


def test_a_second_region_begins_in_turn_too(guest: Linux) -> None:
    regions = [guest.create_region(order, granularity=256, decoder="decoder0.1") for order in (THREE, OTHERS)]
    for region, order in zip(regions, (THREE, OTHERS), strict=True):
        geometry = Geometry(order, 256)
        check_addresses(guest, region, [0, 256, 512, 768], geometry.place)
        check_by_device(guest, devdax(guest, region), geometry)
    for region in reversed(regions):
        destroy(guest, region)


def test_bytes_follow_the_devices_into_another_geometry(guest: Linux) -> None:
    first, second, length = Geometry(THREE, 256), Geometry(THREE, 4096), 24 << 10
    region = guest.create_region(first.order, granularity=256, decoder="decoder0.1")
    guest.sh(f"softcxl-memory fill {devdax(guest, region)} 0 {length} 9")
    destroy(guest, region)
    region = guest.create_region(second.order, granularity=4096, decoder="decoder0.2")
    check_pieces(guest, devdax(guest, region), seen_through(first, second, length, 9))
    destroy(guest, region)
