"""One device with volatile and persistent capacity, on a bridge of one port, below several windows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.conftest import Linux, pattern
from tests.kernel.listing import Scene, Wanted, check_listing
from tests.kernel.regions import (
    MIB,
    Geometry,
    check_as_system_ram,
    check_by_device,
    committed,
    destroy,
    devdax,
)

pytestmark = pytest.mark.usefixtures("tidy")

TOPOLOGY = """
devices:
  mem0: {volatile: 512MiB, persistent: 512MiB, serial: 0xC0FFEE01}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0]}}
    windows:
      - {size: 512MiB, targets: [hb0], restrictions: [volatile]}
      - {size: 512MiB, targets: [hb0], restrictions: [persistent]}
      - {size: 1GiB, targets: [hb0], qtg: 1}
"""
ALONE = Geometry(["mem0"], 256)
GIB = 1 << 30


def test_the_listing_field_by_field(guest: Linux) -> None:
    regions = [
        Wanted(["mem0"], "decoder0.0", size=256 * MIB),
        Wanted(["mem0"], "decoder0.1", type="pmem"),
    ]
    check_listing(guest, "test_windows+regions", Scene(regions))


def test_what_linux_finds(guest: Linux) -> None:
    (memdev,) = guest.json("cxl list -M -I -v")[0]["ports:root0"][0]["endpoints:port1"]
    memdev = memdev["memdev"]
    assert (memdev["ram_size"], memdev["pmem_size"]) == (512 * MIB, 512 * MIB)
    assert (memdev["ram_qos_class"], memdev["pmem_qos_class"]) == (0, 0)
    assert memdev["partition_info"] == {
        "total_size": GIB,
        "volatile_only_size": 512 * MIB,
        "persistent_only_size": 512 * MIB,
        "partition_alignment_size": 0,
    }
    windows = guest.json("cxl list -D -d root")
    # each begins at a multiple of 1 GiB, the first where q35 leaves room: 4 GiB
    assert [(one["resource"], one["size"]) for one in windows] == [
        (4 * GIB, 512 * MIB),
        (5 * GIB, 512 * MIB),
        (6 * GIB, GIB),
    ]
    capable = [(one.get("volatile_capable", False), one.get("pmem_capable", False)) for one in windows]
    assert capable == [(True, False), (False, True), (True, True)]
    assert [one["qos_class"] for one in windows] == [0, 0, 1]


def test_both_kinds_at_once_with_a_dpa_skip_between(guest: Linux) -> None:
    ram = guest.create_region(["mem0"], decoder="decoder0.0", more="-s 256M")
    pmem = guest.create_region(["mem0"], decoder="decoder0.1", type="pmem", more="-s 256M")
    other = guest.create_region(["mem0"], decoder="decoder0.2", type="pmem", more="-s 256M")
    # firmware (QEMU's _DSM) recommends group 0 for all memory, and the third window is of group 1
    mismatches = ["qos_class_mismatch" in region for region in (ram, pmem, other)]
    assert mismatches == [False, False, True]
    mappings = committed(guest)["mem0"]
    assert [(one.hpa, one.dpa, one.skip, one.size) for one in mappings] == [
        (4 * GIB, 0, 0, 256 * MIB),
        (5 * GIB, 512 * MIB, 256 * MIB, 256 * MIB),  # persistent capacity begins where the volatile one ends
        (6 * GIB, 768 * MIB, 0, 256 * MIB),
    ]
    check_by_device(guest, devdax(guest, ram), ALONE, seed=11)
    check_pmem(guest, pmem, 512 * MIB, seed=21)
    check_pmem(guest, other, 768 * MIB, seed=31)
    for region in (other, pmem, ram):
        destroy(guest, region)
    assert committed(guest) == {}


def check_pmem(guest: Linux, region: dict[str, Any], dpa: int, seed: int) -> None:
    """A raw namespace over the region: what is written to its block device rests in the device from `dpa` on."""
    number = region["region"].removeprefix("region")
    made = guest.json(f"ndctl create-namespace -t pmem -m raw -r region{number}")
    block = f"/dev/{made['blockdev']}"
    space = guest.fabric.devices["mem0"].space
    data = pattern(MIB, seed).tobytes()
    guest.machine.output(f"cat > /tmp/data && dd if=/tmp/data of={block} bs=64k oflag=direct", given=data)
    assert space.read(dpa, MIB) == data
    answer = pattern(MIB, seed + 1).tobytes()
    space.write(dpa, answer)
    assert guest.run(f"dd if={block} bs=64k count=16 iflag=direct").stdout == answer
    guest.sh(f"ndctl destroy-namespace -f {made['dev']}")


def test_volatile_capacity_in_two_windows(guest: Linux) -> None:
    first = guest.create_region(["mem0"], decoder="decoder0.0", more="-s 256M")
    second = guest.create_region(["mem0"], decoder="decoder0.2", more="-s 256M")
    assert [(one.hpa, one.dpa) for one in committed(guest)["mem0"]] == [(4 * GIB, 0), (6 * GIB, 256 * MIB)]
    paths = [devdax(guest, region) for region in (first, second)]
    check_by_device(guest, paths[0], ALONE, dpa=0, seed=41)
    check_by_device(guest, paths[1], ALONE, dpa=256 * MIB, seed=51)
    guest.sh(f"softcxl-memory check {paths[0]} 0 {MIB} 42")
    for region in (second, first):
        destroy(guest, region)


@pytest.mark.parametrize("decoder", ["decoder0.0", "decoder0.2"])
def test_each_window_is_a_numa_node(guest: Linux, decoder: str) -> None:
    region = guest.create_region(["mem0"], decoder=decoder)
    assert region["size"] == 512 * MIB
    check_as_system_ram(guest, region, ALONE)
    destroy(guest, region)


def test_bytes_go_along_from_one_window_to_another(guest: Linux) -> None:
    for decoder, seed in (("decoder0.0", 61), ("decoder0.2", 62), ("decoder0.0", 63)):
        region = guest.create_region(["mem0"], decoder=decoder, more="-s 256M")
        path = devdax(guest, region)
        if seed > 61:
            guest.sh(f"softcxl-memory check {path} 0 {MIB} {seed - 1}")
        guest.sh(f"softcxl-memory fill {path} 0 {MIB} {seed}")
        destroy(guest, region)
    assert guest.fabric.devices["mem0"].space.read(0, MIB) == pattern(MIB, 63).tobytes()
