"""Two devices under one bridge: found, interleaved in both ways and at two granularities, used, given back."""

from __future__ import annotations

import pytest

from softcxl import Fabric
from tests.kernel.conftest import Linux, dealt, pattern

TOPOLOGY = "two-devices.yaml"
MIB = 1 << 20


def test_linux_finds_both_devices_with_what_they_say_of_themselves(guest: Linux) -> None:
    found = {one["serial"]: one for one in guest.json("cxl list -M")}
    assert set(found) == {0xC0FFEE01, 0xC0FFEE02}
    assert all(one["ram_size"] == 256 * MIB for one in found.values())
    assert all("pmem_size" not in one for one in found.values())


@pytest.mark.parametrize("granularity", [256, 4096])
@pytest.mark.parametrize("order", [["mem0"], ["mem0", "mem1"], ["mem1", "mem0"]])
def test_a_region_holds_each_byte_where_its_geometry_says(
    guest: Linux, fabric: Fabric, order: list[str], granularity: int
) -> None:
    region = guest.create_region(order, granularity=granularity)
    assert (region["interleave_ways"], region["interleave_granularity"]) == (len(order), granularity)
    assert region["size"] == len(order) * 256 * MIB
    device = guest.devdax()
    guest.sh(f"softcxl-memory fill {device} 0 {MIB} 7")
    for position, name in enumerate(order):
        wanted = dealt(pattern(MIB, 7), len(order), granularity, position).tobytes()
        assert fabric.devices[name].space.read(0, len(wanted)) == wanted
        fabric.devices[name].space.write(
            0, dealt(pattern(MIB, 8), len(order), granularity, position).tobytes()
        )
    guest.sh(f"softcxl-memory check {device} 0 {MIB} 8")
    guest.sh(f"cxl destroy-region -f {region['region']}")
    assert all(not fabric.devices[name].decoders.committed for name in order)
