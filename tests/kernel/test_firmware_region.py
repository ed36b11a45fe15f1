"""A region that firmware has programmed: Linux takes it over as it is, at every boot, and may undo it."""

from __future__ import annotations

import pytest

from softcxl.lab.errors import GuestGone
from tests.kernel.conftest import Linux
from tests.kernel.listing import check_listing
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

TOPOLOGY = "firmware-region.yaml"
PROGRAMMED = Geometry(["mem0", "mem1"], 256)


def test_the_region_is_there_by_itself(guest: Linux) -> None:
    (region,) = guest.json("cxl list -R --targets")
    assert (region["resource"], region["size"]) == (4 << 30, 512 * MIB)
    assert (region["interleave_ways"], region["interleave_granularity"]) == (2, 256)
    assert region["decode_state"] == "commit"
    members = {one["position"]: one["memdev"] for one in region["mappings"]}
    assert members == {position: guest.memdev(name) for position, name in enumerate(PROGRAMMED.order)}
    assert "qos_class_mismatch" not in region
    # the bridge's decoder, which QEMU has: its ports in the order of the region's devices
    (decoder,) = guest.json("cxl list -D -T -p pci0000:0c -S")
    assert {one["position"]: one["id"] for one in decoder["targets"]} == {0: 0, 1: 1}
    assert dax_online(guest, region)["size"] == 512 * MIB


def test_it_is_system_ram_and_then_a_programs(guest: Linux) -> None:
    (region,) = guest.json("cxl list -R")
    check_as_system_ram(guest, region, PROGRAMMED)
    check_by_device(guest, devdax(guest, region), PROGRAMMED, seed=61)


def test_the_listing_field_by_field(guest: Linux) -> None:
    (region,) = guest.json("cxl list -R")
    devdax(guest, region)
    check_listing(guest, "firmware-region")


@pytest.mark.parametrize("by", ["machine", "guest"])
def test_it_comes_back_with_its_bytes_after_a_reboot(guest: Linux, by: str) -> None:
    (region,) = guest.json("cxl list -R")
    # beyond what the kernel puts first into memory that is put online
    offset, seed = 384 * MIB, 71
    guest.sh(f"softcxl-memory fill {devdax(guest, region)} {offset} {MIB} {seed}")
    if by == "machine":
        guest.machine.reboot()
    else:
        with pytest.raises(GuestGone, match="restarted by itself"):
            guest.run("reboot -f")
    (again,) = guest.json("cxl list -R")
    dax_online(guest, again)
    assert {key: again[key] for key in region} == region
    guest.sh(f"softcxl-memory check {devdax(guest, again)} {offset} {MIB} {seed}")


def test_linux_can_make_other_regions_of_its_devices(guest: Linux) -> None:
    length = 16 << 10
    (region,) = guest.json("cxl list -R")
    guest.sh(f"softcxl-memory fill {devdax(guest, region)} 0 {length} 81")
    destroy(guest, region)
    assert committed(guest) == {}
    for other in (Geometry(["mem1", "mem0"], 256), Geometry(["mem1"], 256), Geometry(["mem0", "mem1"], 4096)):
        region = guest.create_region(other.order, granularity=other.granularity)
        path = devdax(guest, region)
        check_pieces(guest, path, seen_through(PROGRAMMED, other, length, 81))
        destroy(guest, region)


def test_firmware_programs_it_again_when_linux_has_left_another(guest: Linux) -> None:
    region = guest.create_region(["mem1"])
    guest.sh(f"softcxl-memory fill {devdax(guest, region)} {128 * MIB} {MIB} 91")
    guest.machine.reboot()
    (again,) = guest.json("cxl list -R")
    dax_online(guest, again)
    assert (again["size"], again["interleave_ways"]) == (512 * MIB, 2)
    single = Geometry(["mem1"], 256)
    pieces = (
        (256 * MIB + offset, size, seed) for offset, size, seed in seen_through(single, PROGRAMMED, 8192, 91)
    )
    check_pieces(guest, devdax(guest, again), pieces)
