"""Four host bridges of four ports: 3, 4, 6, 8, 12 and 16 ways over bridges and ports, by modulo and by XOR.

The XOR maps are those of Linux's CXL tests (tools/testing/cxl/test/cxl.c, mock_cxims); the arithmetic is done here
once more.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.conftest import Linux, pattern
from tests.kernel.regions import MIB, Geometry, check_by_device, committed, destroy, devdax

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


def place(
    offset: int, region: dict[str, Any], order: list[str], targets: int, xor: tuple[int, ...] = ()
) -> tuple[str, int]:
    """The device and the address in its part of a byte at `offset` of a region: by its way through the bridges.

    A window of 3 targets divides whole addresses by 3, one of 4 looks at two bits, or at the parity of more of them;
    ports are chosen by the bits above those.
    """
    granularity, ways = region["interleave_granularity"], len(order)
    address = region["resource"] + offset
    if xor:
        bridge = sum((address & one).bit_count() % 2 << bit for bit, one in enumerate(xor))
    else:
        bridge = address // granularity % targets
    port = address // (granularity * (targets & -targets)) % (ways // targets)
    turn = offset // granularity // ways
    return order[bridge + targets * port], turn * granularity + offset % granularity


def check(
    guest: Linux,
    region: dict[str, Any],
    order: list[str],
    targets: int,
    xor: tuple[int, ...] = (),
    starts: tuple[int, ...] = (0,),
) -> None:
    path, step = devdax(guest, region), region["interleave_granularity"]
    for start in starts:
        guest.sh(f"softcxl-memory fill {path} {start} {MIB} 7")
        for seed in (7, 8):
            data = pattern(MIB, seed).tobytes()
            shares: dict[str, dict[int, bytes]] = {name: {} for name in order}
            for offset in range(0, MIB, step):
                name, dpa = place(start + offset, region, order, targets, xor)
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
        ("decoder0.2", 256, OVER_THREE[:3]),
        ("decoder0.2", 256, OVER_THREE[:6]),
        ("decoder0.2", 256, OVER_THREE),
        ("decoder0.4", 512, ["mem3", "mem5", "mem2"]),
        ("decoder0.6", 256, OVER_THREE[3:6]),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, list) else str(value),
)
def test_over_three_bridges(guest: Linux, decoder: str, granularity: int, order: list[str]) -> None:
    region = create(guest, decoder, granularity, order)
    # windows 2 and 4 begin inside a round of three
    inside = region["resource"] // granularity % 3 != 0
    assert inside == (decoder != "decoder0.6")
    check(guest, region, order, targets=3)
    destroy(guest, region)
    assert committed(guest) == {}


@pytest.mark.parametrize(("decoder", "granularity"), [("decoder0.2", 256), ("decoder0.6", 256)])
def test_linux_comes_to_the_same_addresses_for_three_ways(
    guest: Linux, decoder: str, granularity: int
) -> None:
    order = OVER_THREE[:3]
    region = create(guest, decoder, granularity, order)
    debug = f"/sys/kernel/debug/cxl/{region['region']}"
    for offset in (0, 256, 2 * 256 + 64, 3 * 256, 40 * 256, 100 << 20):
        guest.sh(f"echo {offset:#x} > {debug}/inject_poison")
        name, dpa = place(offset, region, order, targets=3)
        assert dpa in guest.fabric.devices[name].poison.map, f"{offset:#x} is {name}'s {dpa:#x}"
        guest.sh(f"echo {offset:#x} > {debug}/clear_poison")
    destroy(guest, region)


@pytest.mark.parametrize("ways", [4, 8, 16])
def test_xor_over_four_bridges(guest: Linux, ways: int) -> None:
    order = NAMES[:ways]
    region = create(guest, "decoder0.3", 256, order)
    # across bit 14 at the start, and across bits 22 and 23, the highest of the maps
    starts = (0, 3 * MIB + MIB // 2, 7 * MIB + MIB // 2)
    check(guest, region, order, targets=4, xor=XOR_MAPS, starts=starts)
    destroy(guest, region)
    assert committed(guest) == {}


def test_three_ways_at_a_bridge_are_refused_by_linux(guest: Linux) -> None:
    # QEMU's bridges say that they cannot; `softcxl check` says so before
    names = " ".join(map(guest.memdev, ["mem1", "mem5", "mem9"]))
    assert guest.run(f"cxl create-region -t ram -d decoder0.5 -w 3 -m {names}").status != 0
    assert committed(guest) == {}
