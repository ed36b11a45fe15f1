"""A device with dynamic capacity under a kernel that knows nothing of it: the rest of it works, its CDAT is read, and
offers that nobody answers expire."""

from __future__ import annotations

from softcxl import Fabric
from tests.kernel.conftest import Linux
from tests.kernel.traces import until

TOPOLOGY = "dynamic-capacity.yaml"
MIB = 1 << 20


def test_the_kernel_reads_the_cdat_with_its_regions(guest: Linux, fabric: Fabric) -> None:
    """Three DSMAS: type 0, length 24. Handles 2 and 3 are the dynamic ones, 512 MiB and 256 MiB at 256 and 768 MiB."""
    text = guest.sh("od -An -v -tx1 /sys/bus/cxl/devices/endpoint*/CDAT")
    table = bytes.fromhex("".join(text.split()))
    assert table == b"".join(fabric.devices["mem0"].cdat.entries)
    found, at = [], 16
    while at < len(table):
        length = int.from_bytes(table[at + 2 : at + 4], "little")
        if table[at] == 0:
            ends = (int.from_bytes(table[at + place : at + place + 8], "little") for place in (8, 16))
            found.append((table[at + 4], *ends))
        at += length
    assert found == [(0, 0, 256 * MIB), (2, 256 * MIB, 512 * MIB), (3, 768 * MIB, 256 * MIB)]


def test_static_capacity_is_used_as_ever(guest: Linux, fabric: Fabric) -> None:
    [memdev] = guest.json("cxl list -M")
    assert memdev["ram_size"] == 256 * MIB
    made = guest.create_region(["mem0"])
    assert made["size"] == 256 * MIB
    guest.sh(f"cxl destroy-region -f {made['region']}")


def test_offers_expire(guest: Linux, fabric: Fabric) -> None:
    dynamic = fabric.devices["mem0"].dynamic
    offers = [dynamic.add(length=2 * MIB, timeout=0.05) for _ in range(20)]  # more than the log takes
    states = until(lambda: {one.state.value for one in offers}, lambda found: found == {"expired"})
    assert states == {"expired"}
    assert dynamic.free(0) == [(256 * MIB, 768 * MIB)]
    assert guest.json("cxl list -M")
    assert "cxl" not in guest.sh("dmesg | grep -iE 'cxl.*(fail|error|unexpected)' || true")
