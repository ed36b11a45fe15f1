"""The fabric of Linux's own mock: 10 devices below 5 switches and 3 bridges, and regions over them by cxl-cli.

Expected numbers are those of tools/testing/cxl/test/cxl.c, but for the decoders of bridges and switches, which are
QEMU's and 4 (hw/cxl/cxl-component-utils.c).
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.conftest import Linux, dealt, pattern
from tests.kernel.listing import Scene, Wanted, check_listing
from tests.kernel.regions import MIB, Geometry, check_by_device, committed, destroy, devdax

pytestmark = pytest.mark.usefixtures("tidy")

TOPOLOGY = "cxl-test.yaml"
GIB = 1 << 30
KIB4 = 4096
EIGHT = [f"mem{number}" for number in range(8)]


def check_pmem(guest: Linux, region: dict[str, Any], geometry: Geometry, dpa: int, seed: int) -> None:
    """What is written to a raw namespace over the region rests in each device from `dpa` on; then back."""
    number = region["region"].removeprefix("region")
    made = guest.json(f"ndctl create-namespace -t pmem -m raw -r region{number}")
    block = f"/dev/{made['blockdev']}"
    words = pattern(MIB, seed), pattern(MIB, seed + 1)
    guest.machine.output(
        f"cat > /tmp/data && dd if=/tmp/data of={block} bs=64k oflag=direct", given=words[0].tobytes()
    )
    for position, name in enumerate(geometry.order):
        space = guest.fabric.devices[name].space
        old, new = (dealt(one, geometry.ways, geometry.granularity, position).tobytes() for one in words)
        assert space.read(dpa, len(old)) == old, f"{name} at {dpa:#x}"
        space.write(dpa, new)
    assert guest.run(f"dd if={block} bs=64k count=16 iflag=direct").stdout == words[1].tobytes()
    guest.sh(f"ndctl destroy-namespace -f {made['dev']}")


def test_how_many_there_are_of_each(guest: Linux) -> None:
    memdevs = guest.json("cxl list -M")
    assert sorted(one["serial"] for one in memdevs) == list(range(1, 11))
    assert all(one["ram_size"] == one["pmem_size"] == GIB for one in memdevs)
    ports = guest.json("cxl list -P -T")
    assert (
        sorted((one["depth"], one["nr_dports"]) for one in _ports(ports))
        == [(1, 1)] + [(1, 2)] * 2 + [(2, 2)] * 5
    )
    assert len(guest.json("cxl list -E")) == 10
    below = {"root": 0, "port": 0, "endpoint": 0}
    names = guest.sh("cd /sys/bus/cxl/devices && for one in decoder*; do readlink $one; done").split()
    for path in names:
        (kind,) = [kind for kind in ("endpoint", "port", "root") if f"/{kind}" in path][:1]
        below[kind] += 1
    assert below == {"root": 5, "port": 8 * 4, "endpoint": 10 * 8}


def test_the_listing_field_by_field(guest: Linux) -> None:
    check_listing(guest, "cxl-test")
    half = 512 * MIB
    regions = [
        Wanted(["mem0", "mem2"], "decoder0.0", size=half),
        Wanted(["mem4", "mem5"], "decoder0.1", size=half),
        Wanted(["mem2", "mem6"], "decoder0.2", type="pmem", size=half),
        Wanted(["mem0", "mem1"], "decoder0.3", type="pmem", size=half),
        Wanted(["mem9"], "decoder0.4", type="pmem", size=half),
        Wanted(["mem8"], "decoder0.4", type="pmem", size=half),
    ]
    check_listing(
        guest, "cxl-test+regions", Scene(regions, [("mem2", GIB + 64), ("mem5", 4096), ("mem7", 0)])
    )
    eight = Wanted(EIGHT, "decoder0.3", type="pmem")
    check_listing(guest, "cxl-test+eight", Scene([eight], used=True))


def _ports(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [found for one in value for found in _ports(one)]
    if not isinstance(value, dict):
        return []
    own = [value] if "port" in value and "depth" in value else []
    return own + [found for one in value.values() for found in _ports(one)]


def test_windows(guest: Linux) -> None:
    windows = guest.json("cxl list -D -d root -T")
    assert [(one["size"] // GIB, one["interleave_ways"]) for one in windows] == [
        (1, 1),
        (2, 2),
        (1, 1),
        (2, 2),
        (1, 1),
    ]
    assert [one.get("pmem_capable", False) for one in windows] == [False, False, True, True, True]
    assert [one.get("volatile_capable", False) for one in windows] == [True, True, False, False, False]
    assert {one["qos_class"] for one in windows} == {42}
    assert [len(one["targets"]) for one in windows] == [1, 2, 1, 2, 1]


def test_eight_ways_of_persistent_memory(guest: Linux) -> None:
    region = guest.create_region(EIGHT, type="pmem", decoder="decoder0.3", more=f"-s {2 * GIB}")
    assert (region["size"], region["interleave_ways"], region["interleave_granularity"]) == (2 * GIB, 8, KIB4)
    members = {one["position"]: one["memdev"] for one in region["mappings"]}
    assert [members[position] for position in range(8)] == [guest.memdev(name) for name in EIGHT]
    # persistent capacity begins where the volatile gigabyte ends
    assert {name: (one.dpa, one.skip) for name, (one,) in committed(guest).items()} == dict.fromkeys(
        EIGHT, (GIB, GIB)
    )
    check_pmem(guest, region, Geometry(EIGHT, KIB4), GIB, seed=71)
    destroy(guest, region)
    assert committed(guest) == {}


def test_regions_of_every_window_at_once(guest: Linux) -> None:
    half = 512 * MIB
    plain = [
        ("decoder0.0", ["mem0", "mem2"], 0),
        ("decoder0.1", ["mem4", "mem5"], 0),
    ]
    lasting = [
        ("decoder0.2", ["mem2", "mem6"], GIB),
        ("decoder0.3", ["mem0", "mem1"], GIB),
        ("decoder0.4", ["mem9", "mem8"], GIB),
    ]
    regions = []
    for decoder, order, dpa in plain:
        region = guest.create_region(order, granularity=KIB4, decoder=decoder, more=f"-s {half}")
        regions.append(region)
        check_by_device(guest, devdax(guest, region), Geometry(order, KIB4), dpa=dpa, seed=81)
    for decoder, order, dpa in lasting:
        region = guest.create_region(order, granularity=KIB4, type="pmem", decoder=decoder, more=f"-s {half}")
        regions.append(region)
        check_pmem(guest, region, Geometry(order, KIB4), dpa, seed=91)
    assert all("qos_class_mismatch" in region for region in regions)  # QEMU's _DSM says 0, the windows 42
    for region in reversed(regions):
        destroy(guest, region)
    assert committed(guest) == {}


@pytest.mark.parametrize("size", [256, 512, 1024])
def test_a_region_in_parts_of_a_bridge(guest: Linux, size: int) -> None:
    region = guest.create_region(["mem8"], type="pmem", decoder="decoder0.4", more=f"-s {size}M")
    assert region["size"] == size * MIB
    check_pmem(guest, region, Geometry(["mem8"], KIB4), GIB, seed=size)
    destroy(guest, region)
