"""Four host bridges of four ports: 3, 4, 6, 8, 12 and 16 ways over bridges and ports, by modulo and by XOR.

The XOR maps are those of Linux's CXL tests (tools/testing/cxl/test/cxl.c, mock_cxims); the arithmetic is done here
once more.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.conftest import Linux, pattern
from tests.kernel.listing import Scene, Wanted, check_listing
from tests.kernel.regions import (
    MIB,
    Geometry,
    check_addresses,
    check_by_device,
    committed,
    destroy,
    devdax,
)

pytestmark = pytest.mark.usefixtures("tidy")

BRIDGES, PORTS = 4, 4
NAMES = [f"mem{number:x}" for number in range(BRIDGES * PORTS)]
"""By position in a 16-way region: mem0 to mem3 are at port 0 of each bridge, mem4 to mem7 at port 1."""


def _topology() -> str:
    devices = "\n".join(f"  {name}: {{volatile: 256MiB, serial: {at + 1}}}" for at, name in enumerate(NAMES))
    bridges = "\n".join(
        f"      hb{at}: {{ports: [{', '.join(NAMES[at::BRIDGES])}]}}" for at in range(BRIDGES)
    )
    return f"""
devices:
{devices}
hosts:
  alpha:
    bridges:
{bridges}
    windows:
      - {{size: 4GiB, targets: [hb0, hb1, hb2, hb3], granularity: 256, qtg: 1}}
      - {{size: 2GiB, targets: [hb0, hb1, hb2, hb3], granularity: 4KiB}}
      - {{size: 3GiB, targets: [hb0, hb1, hb2], granularity: 256, qtg: 3}}
      - {{size: 4GiB, targets: [hb0, hb1, hb2, hb3], granularity: 256, arithmetic: xor}}
      - {{size: 1536MiB, targets: [hb3, hb1, hb2], granularity: 512, arithmetic: xor}}
      - {{size: 2GiB, targets: [hb1], granularity: 1KiB, qtg: 2}}
      - {{size: 768MiB, targets: [hb0, hb1, hb2], granularity: 256}}
"""


TOPOLOGY = _topology()
OVER_THREE = [name for at, name in enumerate(NAMES) if at % BRIDGES < 3]
XOR_MAPS = (0x404100, 0x808200)


def test_windows_and_their_groups(guest: Linux) -> None:
    windows = guest.json("cxl list -D -d root")
    assert [one["qos_class"] for one in windows] == [1, 0, 3, 0, 0, 2, 0]
    assert [one["interleave_ways"] for one in windows] == [4, 4, 3, 4, 3, 1, 3]


def test_the_listing_field_by_field(guest: Linux) -> None:
    some = [
        Wanted(OVER_THREE[:6], "decoder0.2"),
        Wanted(["mem8", "mem9", "mema", "mem3"], "decoder0.3"),
        Wanted(["mem7", "memd", "meme"], "decoder0.4"),
    ]
    check_listing(guest, "test_four_bridges+some", Scene(some))
    twelve, sixteen = Wanted(OVER_THREE, "decoder0.2"), Wanted(NAMES, "decoder0.0")
    check_listing(guest, "test_four_bridges+twelve", Scene([twelve], used=True))
    check_listing(guest, "test_four_bridges+sixteen", Scene([sixteen], used=True))


def dealt_by_xor(offset: int, region: dict[str, Any], order: list[str]) -> tuple[str, int]:
    """The device and the address in its part of a byte at `offset` of a region in the XOR window of four bridges.

    A bridge is chosen by the parity of the address bits of each map, a port by the bits above the bridges'.
    """
    granularity, ways = region["interleave_granularity"], len(order)
    address = region["resource"] + offset
    bridge = sum((address & one).bit_count() % 2 << bit for bit, one in enumerate(XOR_MAPS))
    port = address // (granularity * BRIDGES) % (ways // BRIDGES)
    turn = offset // granularity // ways
    return order[bridge + BRIDGES * port], turn * granularity + offset % granularity


def check_shuffled(guest: Linux, region: dict[str, Any], order: list[str], starts: tuple[int, ...]) -> None:
    """Fill memory in the guest, find it in the devices, then the other way round: 1 MiB from each of `starts` on."""
    path, step = devdax(guest, region), region["interleave_granularity"]
    for start in starts:
        guest.sh(f"softcxl-memory fill {path} {start} {MIB} 7")
        for seed in (7, 8):
            data = pattern(MIB, seed).tobytes()
            shares: dict[str, dict[int, bytes]] = {name: {} for name in order}
            for offset in range(0, MIB, step):
                name, dpa = dealt_by_xor(start + offset, region, order)
                shares[name][dpa] = data[offset : offset + step]
            for name, share in shares.items():
                space, dpas = guest.fabric.devices[name].space, sorted(share)
                assert dpas == list(range(dpas[0], dpas[0] + len(dpas) * step, step))
                wanted = b"".join(share[dpa] for dpa in dpas)
                if seed == 7:
                    assert space.read(dpas[0], len(wanted)) == wanted, f"{name} at {dpas[0]:#x}"
                else:
                    space.write(dpas[0], wanted)
        guest.sh(f"softcxl-memory check {path} {start} {MIB} 8")


def create(guest: Linux, decoder: str, granularity: int, order: list[str]) -> dict[str, Any]:
    region = guest.create_region(order, granularity=granularity, decoder=decoder)
    assert region["size"] == len(order) * 256 * MIB
    assert (region["interleave_ways"], region["interleave_granularity"]) == (len(order), granularity)
    members = {one["position"]: one["memdev"] for one in region["mappings"]}
    assert [members[position] for position in range(len(order))] == [guest.memdev(name) for name in order]
    return region


@pytest.mark.parametrize(
    ("decoder", "granularity", "order"),
    [
        ("decoder0.0", 256, NAMES[:4]),
        ("decoder0.0", 256, ["mem8", "mem1", "mem6", "mem3"]),
        ("decoder0.0", 256, NAMES[:8]),
        ("decoder0.0", 256, NAMES),
        ("decoder0.1", 4096, NAMES[4:8]),
        ("decoder0.1", 4096, NAMES[8:]),
        ("decoder0.5", 1024, ["mem1", "mem5", "mem9", "memd"]),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, list) else str(value),
)
def test_cards_are_dealt(guest: Linux, decoder: str, granularity: int, order: list[str]) -> None:
    region = create(guest, decoder, granularity, order)
    check_by_device(guest, devdax(guest, region), Geometry(order, granularity))
    destroy(guest, region)
    assert committed(guest) == {}


@pytest.mark.parametrize(
    ("decoder", "granularity", "order"),
    [
        ("decoder0.2", 256, OVER_THREE[:6]),
        ("decoder0.2", 256, OVER_THREE),
        ("decoder0.4", 512, ["mem3", "mem5", "mem2"]),
        ("decoder0.6", 256, OVER_THREE[3:6]),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, list) else str(value),
)
def test_over_three_bridges(guest: Linux, decoder: str, granularity: int, order: list[str]) -> None:
    geometry = Geometry(order, granularity)
    region = create(guest, decoder, granularity, order)
    assert region["resource"] % (3 << 30) == 0  # where the first bridge's turn is
    check_addresses(guest, region, [0, granularity, 5 * granularity + 64, 100 << 20], geometry.place)
    check_by_device(guest, devdax(guest, region), geometry)
    destroy(guest, region)
    assert committed(guest) == {}


@pytest.mark.parametrize("ways", [4, 8, 16])
def test_xor_over_four_bridges(guest: Linux, ways: int) -> None:
    order = NAMES[:ways]
    region = create(guest, "decoder0.3", 256, order)
    # across bit 14 at the start, and across bits 22 and 23, the highest of the maps
    starts = (0, 3 * MIB + MIB // 2, 7 * MIB + MIB // 2)
    check_shuffled(guest, region, order, starts)
    destroy(guest, region)
    assert committed(guest) == {}


def test_three_ways_at_a_bridge_are_refused_by_linux(guest: Linux) -> None:
    # QEMU's bridges say that they cannot; `softcxl check` says so before
    names = " ".join(map(guest.memdev, ["mem1", "mem5", "mem9"]))
    assert guest.run(f"cxl create-region -t ram -d decoder0.5 -w 3 -m {names}").status != 0
    assert committed(guest) == {}
