"""Two hosts, one device with a head for each of its logical devices, and no switch: a real Linux has one of them, and
what happens to the others it does not notice."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from softcxl import Fabric, boot
from softcxl.lab.parts import Parts
from softcxl.testing.driver import CONFIG
from tests.kernel.conftest import MOVABLE, Linux, quick

MIB = 1 << 20
TOPOLOGY = """
devices:
  pool: {type: mld, volatile: 2GiB, heads: 3, logical_devices: [256MiB, 512MiB, 256MiB], serial: 0xC0FFEE01}
hosts:
  alpha: {bridges: {hb0: {ports: [pool.1]}}, windows: [{size: 512MiB, targets: [hb0]}]}
  beta: {bridges: {hb0: {ports: [pool.0]}}, windows: [{size: 256MiB, targets: [hb0]}]}
"""


@pytest.fixture(scope="module")
def guest(fabric: Fabric, parts: Parts) -> Iterator[Linux]:
    with boot(fabric, "alpha", parts=parts, append=MOVABLE) as running:
        yield Linux(quick(running), fabric)


def test_one_logical_device_in_a_guest(guest: Linux, fabric: Fabric) -> None:
    pool = fabric.mlds["pool"]
    (memdev,) = guest.json("cxl list -M")
    assert (memdev["ram_size"], memdev["serial"]) == (512 * MIB, 0x2_0000_C0FFEE01)
    region = guest.create_region(["pool.1"])
    assert region["size"] == 512 * MIB
    (mapping,) = pool.logical[1].decoders.mappings
    assert (mapping.size, mapping.ways) == (512 * MIB, 1)

    other = fabric.hosts["beta"].boot()
    other.create_region(size=256 * MIB)
    door = pool.management(lambda notification: None)
    for ld, code in ((2, 0), (1, 2), (0, 2)):  # those that hosts have are Invalid Input
        assert door.execute(0x5402, struct.pack("<BBxxQQ", 1, ld, 3, 0)).code == code
    owned = pool.pool.fm_owned
    owned.write(CONFIG, owned.dvsec.base + 0x0C, b"\x05\0")  # LD-ID Hot Reset Vector: both others
    assert not pool.logical[0].decoders.committed
    assert pool.logical[1].decoders.committed
    assert guest.json("cxl list -R")[0]["decode_state"] == "commit"
    guest.sh("cxl disable-region region0 && cxl destroy-region region0")
    assert not pool.logical[1].decoders.committed
