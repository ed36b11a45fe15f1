"""Every region that the host makes, of x1 to x16 over 1 to 16 bridges: explained, routed, copied and by hand alike.

The arithmetic by hand is that of CXL 3.1 §8.2.4.20.13 and §9.18.1.5, a bit at a time, with Linux's choice of a
granularity for each level (drivers/cxl/core/region.c, cxl_port_setup_targets).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import softcxl
from softcxl.host.errors import RegionError
from softcxl.switch.errors import AccessFault

MIB = 1 << 20
SHARE = 256 * MIB
MAPS = (0x404100, 0x808200, 0x1010400, 0x2020800)  # Linux, tools/testing/cxl/test/cxl.c, went on


@dataclass(frozen=True)
class Shape:
    """`levels` are the bridges, the root ports of each, the ports of each switch below, and so on."""

    levels: tuple[int, ...]
    granularity: int = 256
    xor: bool = False

    @property
    def count(self) -> int:
        return prod(self.levels)

    @property
    def highest(self) -> int:
        """The highest address bit that a position depends on; decoders have bits 8 to 14 (CXL 3.1 §8.2.4.20.1)."""
        return self.granularity.bit_length() + (self.count & -self.count).bit_length() - 3

    @property
    def order(self) -> list[str]:
        """The memory devices by position: every level takes turns, from the window down."""
        found = []
        for position in range(self.count):
            leaf = 0
            for ways in self.levels:
                position, place = divmod(position, ways)
                leaf = leaf * ways + place
            found.append(f"mem{leaf}")
        return found

    def topology(self) -> str:
        switches: list[str] = []
        numbers = iter(range(self.count))

        def ports(depth: int) -> str:
            names = []
            for _ in range(self.levels[depth]):
                if depth == len(self.levels) - 1:
                    names.append(f"d{next(numbers)}")
                    continue
                below = ports(depth + 1)
                switches.append(f"s{len(switches)}: {{ports: [{below}]}}")
                names.append(f"s{len(switches) - 1}")
            return ", ".join(names)

        bridges = ", ".join(f"hb{number}: {{ports: [{ports(1)}]}}" for number in range(self.levels[0]))
        devices = ", ".join(f"d{number}: {{volatile: 768MiB}}" for number in range(self.count))
        targets = ", ".join(f"hb{number}" for number in range(self.levels[0]))
        return f"""
devices: {{{devices}}}
switches: {{{", ".join(switches)}}}
hosts:
  alpha:
    bridges: {{{bridges}}}
    windows: [{{size: {768 * self.count}MiB, targets: [{targets}], granularity: {self.granularity},
               arithmetic: {"xor" if self.xor else "modulo"}}}]
"""

    def by_hand(self, hpa: int, start: int) -> tuple[int, int]:
        """(number of the device, offset in its part) of an address of a region that begins at `start`."""
        leaf, bit = 0, self.granularity.bit_length() - 1
        for depth, ways in enumerate(self.levels):
            place, bits = 0, (ways & -ways).bit_length() - 1
            for number in range(bits):
                lines = 1 << bit + number
                if self.xor and depth == 0:
                    lines = MAPS[number] << self.granularity.bit_length() - 9
                place |= bin(hpa & lines).count("1") % 2 << number
            if ways % 3 == 0:
                place += (hpa >> bit + bits) % 3 << bits
            leaf, bit = leaf * ways + place, bit + bits
        turn = (hpa - start) // (self.granularity * self.count)
        return leaf, turn * self.granularity + (hpa - start) % self.granularity


@st.composite
def shapes(draw: st.DrawFn, bridges: int) -> Shape:
    levels, total = [bridges], bridges
    for _ in range(draw(st.integers(1, 3))):
        possible = [ways for ways in (1, 2, 4, 8) if total * ways <= 16]
        levels.append(draw(st.sampled_from(possible)))
        total *= levels[-1]
    granularity = draw(st.sampled_from([256 << step for step in range(7)]))
    xor = bridges not in (1, 3) and draw(st.booleans())
    return Shape(tuple(levels), granularity, xor)


@pytest.mark.parametrize("bridges", [1, 2, 3, 4, 6, 8, 12, 16])
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_all_agree(bridges: int, data: st.DataObject) -> None:
    shape = data.draw(shapes(bridges))
    with softcxl.Fabric.loads(shape.topology()) as fabric:
        host = fabric.hosts["alpha"]
        system = host.boot()
        assert system.problems == []
        if shape.highest > 14:
            with pytest.raises(RegionError, match=r"need address bit 1\d, on which it cannot"):
                system.create_region(shape.order, type="ram", granularity=shape.granularity)
            return
        size = shape.count * SHARE
        region = system.create_region(type="ram", size=size, granularity=shape.granularity)
        assert (region.ways, region.granularity) == (shape.count, shape.granularity)
        rng = random.Random(data.draw(st.integers(0, 1 << 32)))
        span = 5 * shape.count * shape.granularity
        offset = rng.randrange(size - span)
        payload = rng.randbytes(span)
        region.write(offset, payload)
        assert region.read(offset, span) == payload
        for _ in range(25):
            at = offset + rng.randrange(span)
            hpa, byte = region.hpa + at, payload[at - offset : at - offset + 1]
            number, dpa = shape.by_hand(hpa, region.hpa)
            device = fabric.devices[f"d{number}"]
            assert device.space.read(dpa, 1) == region.load(at, 1) == byte
            traced, told = host.machine.trace(hpa), system.explain(hpa)
            assert (traced.device, traced.dpa) == (device, dpa)
            assert (told.memdev.serial, told.dpa) == (device.serial, dpa)
            assert system.translate(told.memdev, dpa) == host.machine.hpa_of(device, dpa) == hpa
        again = host.boot()
        assert again.problems == []
        assert [one.ways for one in again.regions.values()] == [shape.count]


@pytest.mark.parametrize("bridges", [3, 6, 12])
@pytest.mark.parametrize("lead", [1, 2])
def test_regions_that_begin_inside_a_round_of_three(bridges: int, lead: int) -> None:
    """256 MiB are no multiple of three: a region that begins after others may begin with any device."""
    shape = Shape((bridges, 1))
    with softcxl.Fabric.loads(shape.topology()) as fabric:
        system = fabric.hosts["alpha"].boot()
        region = [system.create_region(type="ram", size=shape.count * SHARE) for _ in range(lead + 1)][-1]
        for block in range(2 * bridges):
            region.store(256 * block, bytes([block + 1]))
            number, dpa = shape.by_hand(region.hpa + 256 * block, region.hpa)
            assert fabric.devices[f"d{number}"].space.read(lead * SHARE + dpa, 1) == bytes([block + 1])
        assert region.read(0, 512 * bridges)[::256] == bytes(range(1, 2 * bridges + 1))


@pytest.mark.parametrize(
    ("levels", "granularity", "why"),
    [
        ((1, 3), 256, "3 ways are not a power of two times the 1 of its window"),
        ((1, 16), 256, "16 of its ports are used, and its decoders have 8 targets"),
        ((2, 2), 16384, "mem0: 4 ways at 16384 need address bit 15, on which it cannot interleave"),
        ((1, 2, 2), 16384, "mem0: 4 ways at 16384 need address bit 15, on which it cannot interleave"),
        ((6, 2), 16384, "mem0: 12 ways at 16384 need address bit 15, on which it cannot interleave"),
        ((1, 5), 256, "5 ways: allowed are 1, 2, 3, 4, 6, 8, 12, 16"),
        ((3, 3), 256, "9 ways: allowed are 1, 2, 3, 4, 6, 8, 12, 16"),
        ((2, 3), 256, "not a power of two times the 2 of its window"),
        ((4, 3), 256, "not a power of two times the 4 of its window"),
        ((8, 4), 256, "32 ways: allowed are 1, 2, 3, 4, 6, 8, 12, 16"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    levels: tuple[int, ...], granularity: int, why: str
) -> None:
    shape = Shape(levels, granularity)
    with softcxl.Fabric.loads(shape.topology()) as fabric:
        host = fabric.hosts["alpha"]
        system = host.boot()
        with pytest.raises(RegionError, match=why):
            system.create_region(shape.order, type="ram", granularity=shape.granularity)
        assert system.regions == {}
        assert not any(one.decoders.committed for one in fabric.devices.values())
        with pytest.raises(AccessFault):
            host.machine.load(fabric.hosts["alpha"].memory.windows[0].base, 8)


def test_blocks_of_six_ways_over_three_bridges_do_not_come_in_the_order_of_positions() -> None:
    """Block n goes to bridge n mod 3 and, as Linux programs it, to port n mod 2. Linux's own cxl_dpa_to_hpa takes
    block n for position n (docs/spec-errata.md)."""
    shape = Shape((3, 2))
    with softcxl.Fabric.loads(shape.topology()) as fabric:
        system = fabric.hosts["alpha"].boot()
        region = system.create_region(shape.order, type="ram", size=6 * SHARE)
        bridge = system.ports[0].decoders[0].setting
        assert (bridge.ways, bridge.granularity) == (2, 256)
        positions = {one: number for number, one in enumerate(region.memdevs)}
        blocks = [positions[system.explain(region.hpa + 256 * block).memdev] for block in range(6)]
        assert blocks == [0, 4, 2, 3, 1, 5]
        for block, position in enumerate(blocks):
            memdev = region.memdevs[position]
            assert memdev is not None
            assert system.translate(memdev, 0x40) == region.hpa + 256 * block + 0x40
