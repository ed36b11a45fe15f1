"""Random fabrics, programmed through registers: routed accesses find the bytes where a slow model says they are."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcxl.memory import Interleave
from softcxl.switch.errors import AccessFault, DecodeError
from tests.switch.fabrics import BLOCK, Fabric, Level, Plan
from tests.switch.programmer import Found


@st.composite
def plans(draw: st.DrawFn, windows: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16)) -> Plan:
    """A window over 1 to 16 bridges, 0 to 3 levels of switches, up to 16 ways, and granularities dealt out to the
    levels in any order. A level takes the address bits that its powers of two need, the next ones of its turn; a
    division by three takes none: three and two have no common divisor."""
    first = draw(st.sampled_from(windows))
    depth = draw(st.integers(1, 4))
    ways, total = [first], first
    for _ in range(depth):
        possible = [count for count in (1, 2, 4, 8) if total * count <= 16]
        ways.append(draw(st.sampled_from(possible)))
        total *= ways[-1]
    order = draw(st.permutations(range(len(ways))))
    units, unit = {}, 1
    for number in order:
        units[number] = unit
        unit *= ways[number] & -ways[number]
    highest = max(units[number] for number in order if ways[number] > 1 or number == order[0])
    finest = draw(st.sampled_from([256 << step for step in range(7) if highest * 256 << step <= 16384]))
    levels = tuple(Level(count, min(16384, units[number] * finest)) for number, count in enumerate(ways))
    xor = first not in (1, 3) and draw(st.booleans())
    return Plan(levels, xor, draw(st.integers(0, 3)))


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_routed_accesses_equal_the_slow_model(data: st.DataObject) -> None:
    plan = data.draw(plans())
    with Fabric(plan, regions=2) as fabric:
        fabric.program()
        machine, total = fabric.machine, 2 * plan.size
        written: dict[tuple[str, int], bytes] = {}
        for _ in range(24):
            unit = plan.granularity
            hpa = (
                fabric.base
                + data.draw(st.integers(0, total // unit - 1)) * unit
                + 8 * data.draw(st.integers(0, 31))
            )
            value = data.draw(st.binary(min_size=8, max_size=8))
            device, dpa = fabric.expected(hpa)
            machine.store(hpa, value)
            written[device.name, dpa] = value
            assert device.space.read(dpa, 8) == value
            traced = machine.trace(hpa)
            assert (traced.device, traced.dpa) == (device, dpa)
            assert machine.hpa_of(device, dpa) == hpa
            assert machine.load(hpa, 8) == value
        across = fabric.base + plan.size - 3 * plan.granularity - 5
        pattern = bytes(range(256)) * (6 * plan.granularity // 256)
        machine.store(across, pattern)
        assert machine.load(across, len(pattern)) == pattern
        for at in range(0, len(pattern), 97):
            device, dpa = fabric.expected(across + at)
            assert device.space.read(dpa, 1) == pattern[at : at + 1]
        _vectorised(fabric, data.draw(st.integers(0, 1 << 32)))
        seen = machine.view(fabric.base, total)
        assert seen is not None
        start = across - fabric.base
        assert bytes(seen[start : start + len(pattern)]) == pattern
        seen[start : start + 4] = 7
        assert machine.load(across, 4) == b"\7\7\7\7"
        assert machine.load(across, len(pattern)) == b"\7\7\7\7" + pattern[4:]


def _vectorised(fabric: Fabric, seed: int) -> None:
    """The third model: arrays of addresses by `Interleave`, whose positions the first round of each region names."""
    plan = fabric.plan
    unit, numbers = plan.granularity, np.random.default_rng(seed)
    for region in range(fabric.regions):
        hpa = fabric.hpa(region)
        interleave = Interleave(plan.ways, unit, fabric.maps if plan.ways > 1 else (), hpa)
        devices = {}
        for block in range(plan.ways):
            position, _ = interleave.locate(block * unit)
            devices[position] = fabric.machine.trace(hpa + block * unit).device
        assert len(set(devices.values())) == plan.ways
        offsets = numbers.integers(0, plan.size, 400, np.uint64)
        positions, dpas = interleave.locate_many(offsets)
        for offset, position, dpa in zip(offsets.tolist(), positions.tolist(), dpas.tolist(), strict=True):
            assert (devices[position], region * BLOCK + dpa) == fabric.expected(hpa + offset)
        assert interleave.offsets_of(positions, dpas).tolist() == offsets.tolist()


@pytest.mark.parametrize("first", [1, 2, 3, 4, 6, 8, 12, 16])
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_every_window_with_what_is_possible_below_it(first: int, data: st.DataObject) -> None:
    plan = data.draw(plans((first,)))
    with Fabric(plan, offset=data.draw(st.sampled_from([0, 1, 2])) * BLOCK) as fabric:
        fabric.program()
        _vectorised(fabric, data.draw(st.integers(0, 1 << 32)))


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_no_way_of_programming_gives_two_addresses_one_byte(data: st.DataObject) -> None:
    """Any decoders of a good fabric are set to other values, as registers take them: what can still be stored is
    found again where it was stored, and nowhere else."""
    plan = data.draw(plans())
    with Fabric(plan) as fabric:
        fabric.program()
        it = fabric.programmer
        ports = [it.bridge(number) for number in range(len(it.roots))] + [
            one.block for one in _upstream(it.roots)
        ]
        blocks = [(block, True) for block in ports] + [(one.block, False) for one in it.endpoints()]
        for block, port in data.draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=4)):
            it.decommit(block, 0)
            ways = data.draw(st.sampled_from([1, 2, 4, 8] if port else [1, 2, 3, 4, 6, 8, 12, 16]))
            it.decoder(
                block,
                0,
                hpa=fabric.base + data.draw(st.sampled_from([0, 0, 0, BLOCK])),
                size=data.draw(st.sampled_from([plan.size, plan.size, ways * BLOCK])),
                ways=ways,
                granularity=data.draw(st.sampled_from([256, 512, 1024, 2048, 4096, 8192, 16384])),
                targets=data.draw(st.permutations(range(8)))[:ways] if port else None,
            )
        stored = {}
        for start in (0, BLOCK, plan.size - 12288):
            for block in range(48):
                hpa, value = fabric.base + start + 256 * block, struct.pack("<QQ", start, block)
                try:
                    fabric.machine.store(hpa, value)
                except AccessFault:
                    continue
                stored[hpa] = value
        assert {hpa: fabric.machine.load(hpa, 16) for hpa in stored} == stored


def _upstream(roots: list[list[Found]]) -> list[Found]:
    found, waiting = [], [one for ports in roots for one in ports]
    while waiting:
        one = waiting.pop()
        waiting += one.below
        if one.kind == 5:  # PCI_EXP_TYPE_UPSTREAM
            found.append(one)
    return found


@pytest.mark.parametrize("bridges", [256, 512])
@pytest.mark.parametrize("first", [0, BLOCK, 2 * BLOCK])
def test_three_ways_from_a_base_inside_a_round(first: int, bridges: int) -> None:
    """Three bridges deal by whole addresses, so a region may begin with any of them. By three and by two at one
    granularity blocks are dealt out evenly, too, as three and two have no common divisor."""
    plan = Plan((Level(3, bridges), Level(2, 256)))
    with Fabric(plan, offset=first) as fabric:
        fabric.program()
        for block in range(12):
            hpa = fabric.base + 256 * block
            fabric.machine.store(hpa, bytes([block + 1]))
            device, dpa = fabric.expected(hpa)
            assert device.space.read(dpa, 1) == bytes([block + 1])
        seen = fabric.machine.view(fabric.base, 4096)
        assert seen is not None
        assert bytes(seen[: 12 * 256 : 256]) == bytes(range(1, 13))


def test_three_ways_below_two_meet_in_one_device() -> None:
    """Blocks 1 and 4 of a round of six would both go to bridge 1, port 0: nothing is served."""
    with Fabric(Plan((Level(3, 256), Level(2, 512)))) as fabric:
        fabric.program()
        with pytest.raises(DecodeError, match="blocks of a round meet"):
            fabric.machine.load(fabric.base, 8)
        assert fabric.machine.view(fabric.base, 256) is None
