"""Windows with XOR arithmetic over two bridges: bytes by an own model of it, and addresses as Linux works them out.

The maps are those of Linux's CXL tests (tools/testing/cxl/test/cxl.c, mock_cxims): with two targets the first map of
the window's granularity is in use, and a byte is behind the bridge that the parity of the masked address says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernel.conftest import Linux, pattern
from tests.kernel.listing import Scene, Wanted, check_listing
from tests.kernel.regions import MIB, Geometry, check_addresses, committed, destroy, devdax

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
      - {size: 1GiB, targets: [hb0, hb1], granularity: 256, arithmetic: xor}
      - {size: 1GiB, targets: [hb0, hb1], granularity: 4KiB, arithmetic: xor}
      - {size: 512MiB, targets: [hb0, hb1], granularity: 256}
"""
MAPS = {256: 0x404100, 4096: 0x4041000}
WINDOWS = {256: "decoder0.0", 4096: "decoder0.1"}
PLACES = {256: (0, 3 * MIB + MIB // 2), 4096: (0, 63 * MIB + MIB // 2)}
"""Where to look, besides the beginning: across the highest bit of the map."""


def test_the_listing_field_by_field(guest: Linux) -> None:
    regions = [Wanted(["mem2", "mem3"], "decoder0.0"), Wanted(["mem0", "mem1"], "decoder0.1")]
    check_listing(guest, "test_xor_windows+regions", Scene(regions, [("mem3", 256), ("mem0", 4096 + 64)]))


def parity(value: int) -> int:
    return value.bit_count() & 1


def place(offset: int, base: int, geometry: Geometry) -> tuple[str, int]:
    """The device and the address in its part of a byte at `offset` of a region at `base`.

    Bit 0 of the position is the bridge's, by XOR; what is above is the port's below it, by the address as it is.
    Position bits are left out of the device's address.
    """
    card, within = divmod(offset, geometry.granularity)
    turn, plain = divmod(card, geometry.ways)
    position = plain & ~1 | parity((base + offset) & MAPS[geometry.granularity])
    return geometry.order[position], turn * geometry.granularity + within


def check(guest: Linux, path: str, region: dict[str, Any], geometry: Geometry, seed: int) -> None:
    step = geometry.granularity
    for start in PLACES[step]:
        guest.sh(f"softcxl-memory fill {path} {start} {MIB} {seed}")
        for shift, writing in ((0, False), (1, True)):
            data = pattern(MIB, seed + shift).tobytes()
            shares: dict[str, dict[int, bytes]] = {name: {} for name in geometry.order}
            for offset in range(0, MIB, step):
                name, dpa = place(start + offset, region["resource"], geometry)
                shares[name][dpa] = data[offset : offset + step]
            for name, share in shares.items():
                first = min(share)
                assert sorted(share) == list(range(first, first + MIB // geometry.ways, step))
                wanted = b"".join(share[dpa] for dpa in sorted(share))
                space = guest.fabric.devices[name].space
                if writing:
                    space.write(first, wanted)
                else:
                    assert space.read(first, len(wanted)) == wanted, f"{name} at {first:#x}"
        guest.sh(f"softcxl-memory check {path} {start} {MIB} {seed + 1}")


@pytest.mark.parametrize("granularity", WINDOWS)
@pytest.mark.parametrize("order", [["mem0", "mem1"], ["mem0", "mem1", "mem2", "mem3"]], ids="-".join)
def test_bytes_are_where_the_parity_of_their_address_says(
    guest: Linux, order: list[str], granularity: int
) -> None:
    geometry = Geometry(order, granularity)
    region = guest.create_region(order, granularity=granularity, decoder=WINDOWS[granularity])
    check(guest, devdax(guest, region), region, geometry, seed=7)
    destroy(guest, region)
    assert committed(guest) == {}


@pytest.mark.parametrize("granularity", WINDOWS)
@pytest.mark.parametrize("order", [["mem0", "mem1"], ["mem0", "mem1", "mem2", "mem3"]], ids="-".join)
def test_linux_comes_to_the_same_addresses(guest: Linux, order: list[str], granularity: int) -> None:
    geometry = Geometry(order, granularity)
    region = guest.create_region(order, granularity=granularity, decoder=WINDOWS[granularity])
    mask = MAPS[granularity]
    bits = [1 << bit for bit in range(mask.bit_length()) if mask >> bit & 1]
    offsets = sorted({0, 2 * granularity, sum(bits), *bits, *(bit | bits[0] for bit in bits)})
    check_addresses(guest, region, offsets, lambda offset: place(offset, region["resource"], geometry))
    destroy(guest, region)


def test_bytes_follow_the_devices_out_of_the_xor_window(guest: Linux) -> None:
    first, plain, length = Geometry(["mem0", "mem1"], 256), Geometry(["mem0", "mem1"], 256), 64 << 10
    region = guest.create_region(first.order, granularity=256)
    guest.sh(f"softcxl-memory fill {devdax(guest, region)} 0 {length} 9")
    stored = {place(offset, region["resource"], first): offset for offset in range(0, length, 256)}
    destroy(guest, region)
    region = guest.create_region(plain.order, granularity=256, decoder="decoder0.2")
    path = devdax(guest, region)
    seeds = pattern(length, 9)[:: 256 // 8]
    commands = []
    for offset in range(0, length, 256):
        seed = int(seeds[stored[plain.place(offset)] // 256])
        commands.append(f"softcxl-memory check {path} {offset} 256 {np.uint64(seed)}")
    assert any(stored[plain.place(offset)] != offset for offset in range(0, length, 256))
    guest.sh(" && ".join(commands))
    destroy(guest, region)
