"""Two devices under one bridge: found, interleaved in both ways and at two granularities, used, given back."""

from __future__ import annotations

import pytest

from softcxl.lab.errors import GuestGone
from tests.kernel.conftest import Linux
from tests.kernel.listing import Scene, Wanted, check_listing, comparable
from tests.kernel.regions import (
    MIB,
    Geometry,
    check_as_system_ram,
    check_by_device,
    check_pieces,
    committed,
    dax_online,
    destroy,
    devdax,
    seen_through,
)

pytestmark = pytest.mark.usefixtures("tidy")

TOPOLOGY = "two-devices.yaml"
PAIR = Geometry(["mem0", "mem1"], 256)


def test_the_listing_field_by_field(guest: Linux) -> None:
    listing = check_listing(guest, "two-devices")
    (root,) = comparable(listing)
    (window,) = root["decoders:root0"]
    assert (window["resource"], window["size"]) == (4 << 30, 1 << 30)  # q35: windows begin above 4 GiB
    assert window["interleave_ways"] == 1
    assert window["pmem_capable"]
    assert window["volatile_capable"]
    assert [target["id"] for target in window["targets"]] == [12]  # the first bridge's bus is its UID
    (bridge,) = root["ports:root0"]
    assert (bridge["host"], bridge["depth"], bridge["decoders_committed"]) == ("pci0000:0c", 1, 0)
    assert {one["id"]: one["dport"] for one in bridge["dports"]} == {0: "0000:0c:00.0", 1: "0000:0c:01.0"}
    for number, endpoint in enumerate(bridge["endpoints:port-of-pci0000:0c"]):
        memdev = endpoint["memdev"]
        assert memdev["serial"] == 0xC0FFEE01 + number
        assert memdev["host"] == f"0000:{13 + number:02x}:00.0"  # a bus below each root port
        assert endpoint["parent_dport"] == f"0000:0c:{number:02x}.0"
        assert memdev["ram_size"] == memdev["partition_info"]["total_size"] == 256 * MIB
        assert memdev["partition_info"]["persistent_only_size"] == 0
        assert "pmem_size" not in memdev
        decoders = endpoint[f"decoders:endpoint-of-memdev-{memdev['serial']:#x}"]
        assert len(decoders) == 4  # what a device has if its topology says nothing


def test_how_far_the_memory_is(guest: Linux) -> None:
    """The window is a NUMA node of its own, and its distance is what platform, link and device say together."""
    region = guest.create_region(PAIR.order, granularity=256)
    assert "qos_class_mismatch" not in region
    # Linux works the region's distance out when its memory comes to the node
    assert dax_online(guest, region)["target_node"] == 1
    told = guest.fabric.devices["mem0"].cdat.performance
    at = f"/sys/bus/cxl/devices/{region['region']}/access0"
    read, write = int(guest.sh(f"cat {at}/read_latency")), int(guest.sh(f"cat {at}/write_latency"))
    speed = float(guest.sh("cat /sys/bus/pci/devices/0000:0c:00.0/current_link_speed").split()[0])
    # what a 68-byte flit takes: Linux adds these picoseconds as they are (drivers/cxl/core/pci.c, cxl_pci_get_latency)
    link = 68 * 1_000_000 // int(speed * 1000 / 8)
    assert read == 20 + link + told.read_latency  # 20 ns: softcxl.lab.affinity.PORT_LATENCY
    assert write == 20 + link + told.write_latency
    for memdev in map(guest.memdev, PAIR.order):
        assert guest.sh(f"cat /sys/bus/cxl/devices/{memdev}/ram/qos_class") == "0\n"
    destroy(guest, region)


def test_a_region_in_the_listing_field_by_field(guest: Linux) -> None:
    scene = Scene([Wanted(PAIR.order, granularity=256)], used=True)
    check_listing(guest, "two-devices+region", scene)


@pytest.mark.parametrize("granularity", [256, 4096])
@pytest.mark.parametrize("order", [["mem0"], ["mem0", "mem1"], ["mem1", "mem0"]], ids="-".join)
def test_a_region_holds_each_byte_where_its_geometry_says(
    guest: Linux, order: list[str], granularity: int
) -> None:
    region = guest.create_region(order, granularity=granularity)
    assert (region["interleave_ways"], region["interleave_granularity"]) == (len(order), granularity)
    assert region["size"] == len(order) * 256 * MIB
    check_by_device(guest, devdax(guest, region), Geometry(order, granularity))
    destroy(guest, region)
    assert committed(guest) == {}


@pytest.mark.parametrize(
    "geometry", [Geometry(["mem0"], 256), PAIR, Geometry(["mem1", "mem0"], 4096)], ids=str
)
def test_as_system_ram_then_again(guest: Linux, geometry: Geometry) -> None:
    for _ in range(2):
        region = guest.create_region(geometry.order, granularity=geometry.granularity)
        check_as_system_ram(guest, region, geometry)
        destroy(guest, region)


@pytest.mark.parametrize(
    "second", [Geometry(["mem1", "mem0"], 256), Geometry(PAIR.order, 16384), Geometry(["mem1"], 256)], ids=str
)
def test_bytes_follow_the_devices_into_another_geometry(guest: Linux, second: Geometry) -> None:
    length = 32 << 10
    region = guest.create_region(PAIR.order, granularity=256)
    guest.sh(f"softcxl-memory fill {devdax(guest, region)} 0 {length} 9")
    destroy(guest, region)
    region = guest.create_region(second.order, granularity=second.granularity)
    check_pieces(guest, devdax(guest, region), seen_through(PAIR, second, length, 9))
    destroy(guest, region)


def test_a_reset_of_the_machine_takes_the_decoders_and_leaves_the_bytes(guest: Linux) -> None:
    region = guest.create_region(PAIR.order, granularity=256)
    check_by_device(guest, devdax(guest, region), PAIR, seed=41)
    guest.machine.reboot()
    assert_nothing_is_committed(guest)
    region = guest.create_region(PAIR.order, granularity=256)
    guest.sh(f"softcxl-memory check {devdax(guest, region)} 0 {MIB} 42")
    destroy(guest, region)


def test_a_reboot_by_the_guest_itself(guest: Linux) -> None:
    guest.create_region(["mem1"])
    with pytest.raises(GuestGone, match="restarted by itself"):
        guest.run("reboot -f")
    assert_nothing_is_committed(guest)
    region = guest.create_region(["mem1"])
    check_by_device(guest, devdax(guest, region), Geometry(["mem1"], 256), seed=51)
    destroy(guest, region)


def assert_nothing_is_committed(guest: Linux) -> None:
    assert guest.json("cxl list -R") == []
    assert committed(guest) == {}
    # four of the bridge, four of each device
    assert guest.sh("""cxl list -D -i | grep -c '"state":"disabled"'""") == "12\n"
