"""Two devices behind a switch of QEMU's and one beside it: what Linux finds, and regions at depth three."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.conftest import Linux
from tests.kernel.listing import Scene, Wanted, check_listing, comparable
from tests.kernel.regions import (
    MIB,
    Geometry,
    check_as_system_ram,
    check_by_device,
    check_pieces,
    committed,
    destroy,
    devdax,
    seen_through,
)

pytestmark = pytest.mark.usefixtures("tidy")

TOPOLOGY = "behind-switch.yaml"


def test_the_listing_field_by_field(guest: Linux) -> None:
    listing = check_listing(guest, "behind-switch")
    (root,) = comparable(listing)
    (window,) = root["decoders:root0"]
    assert (window["resource"], window["size"]) == (4 << 30, 1 << 30)  # q35: windows begin above 4 GiB
    (bridge,) = root["ports:root0"]
    assert (bridge["host"], bridge["nr_dports"]) == ("pci0000:0c", 2)  # bus 12; sw0 and mem2
    assert [one["dport"] for one in bridge["dports"]] == ["0000:0c:00.0", "0000:0c:01.0"]
    (switch,) = bridge["ports:port-of-pci0000:0c"]
    # bus 13 is below root port 0 and has the upstream port, 14 the downstream ports, 15 to 17 are below those
    assert (switch["host"], switch["parent_dport"], switch["depth"]) == ("0000:0d:00.0", "0000:0c:00.0", 2)
    places = {
        endpoint["memdev"]["serial"]: (
            endpoint["parent_dport"],
            endpoint["memdev"]["host"],
            endpoint["depth"],
        )
        for port in (bridge, switch)
        for key, endpoints in port.items()
        if key.startswith("endpoints:")
        for endpoint in endpoints
    }
    assert places == {
        0xC0FFEE01: ("0000:0e:00.0", "0000:0f:00.0", 3),
        0xC0FFEE02: ("0000:0e:01.0", "0000:10:00.0", 3),
        0xC0FFEE03: ("0000:0c:01.0", "0000:12:00.0", 2),
    }
    assert all(memdev["ram_size"] == 256 * MIB for memdev in _memdevs(root))
    check_listing(
        guest, "behind-switch+regions", Scene([Wanted(["mem1", "mem0"], granularity=1024), Wanted(["mem2"])])
    )


def _memdevs(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [found for one in value for found in _memdevs(one)]
    if not isinstance(value, dict):
        return []
    own = [value["memdev"]] if isinstance(value.get("memdev"), dict) else []
    return own + [found for one in value.values() for found in _memdevs(one)]


@pytest.mark.parametrize("granularity", [256, 4096])
@pytest.mark.parametrize(
    "order", [["mem1"], ["mem0", "mem1"], ["mem1", "mem0"], ["mem0", "mem2"]], ids="-".join
)
def test_a_region_below_the_switch(guest: Linux, order: list[str], granularity: int) -> None:
    region = guest.create_region(order, granularity=granularity)
    assert region["size"] == len(order) * 256 * MIB
    check_by_device(guest, devdax(guest, region), Geometry(order, granularity))
    destroy(guest, region)
    assert committed(guest) == {}


def test_as_system_ram_then_again(guest: Linux) -> None:
    geometry = Geometry(["mem1", "mem0"], 4096)
    for _ in range(2):
        region = guest.create_region(geometry.order, granularity=4096)
        check_as_system_ram(guest, region, geometry)
        destroy(guest, region)


def test_two_regions_at_once_stay_apart(guest: Linux) -> None:
    pair, single = Geometry(["mem0", "mem1"], 256), Geometry(["mem2"], 256)
    first = guest.create_region(pair.order, granularity=256)
    first_path = devdax(guest, first)
    second = guest.create_region(single.order, granularity=256)
    assert second["resource"] == first["resource"] + first["size"]
    second_path = devdax(guest, second)
    check_by_device(guest, second_path, single, seed=21)
    check_by_device(guest, first_path, pair, seed=31)
    guest.sh(f"softcxl-memory check {second_path} 0 {MIB} 22")
    destroy(guest, second)
    destroy(guest, first)


def test_bytes_follow_the_devices_into_another_geometry(guest: Linux) -> None:
    first, length = Geometry(["mem0", "mem1"], 256), 16 << 10
    region = guest.create_region(first.order, granularity=256)
    guest.sh(f"softcxl-memory fill {devdax(guest, region)} 0 {length} 5")
    destroy(guest, region)
    for second in (Geometry(["mem1", "mem0"], 1024), Geometry(["mem1"], 256)):
        region = guest.create_region(second.order, granularity=second.granularity)
        check_pieces(guest, devdax(guest, region), seen_through(first, second, length, 5))
        destroy(guest, region)
