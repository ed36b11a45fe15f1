"""Random fabrics, programmed through registers: routed accesses find the bytes where a slow model says they are."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softcxl.switch.errors import AccessFault, DecodeError
from tests.switch.fabrics import BLOCK, Fabric, Level, Plan
from tests.switch.programmer import Found


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """1 to 4 bridges, 0 to 3 levels of switches, up to 16 ways, granularities dealt out in any order that the
    standard allows: where three divides, it does so above all others."""
    first = draw(st.sampled_from([1, 2, 3, 4]))
    depth = draw(st.integers(1, 4))
    ways, total = [first], first
    for level in range(depth):
        possible = [count for count in (1, 2, 4, 8)[: 4 if level == 0 else 3] if total * count <= 16]
        ways.append(draw(st.sampled_from(possible)))
        total *= ways[-1]
    order = draw(st.permutations(range(len(ways))))
    if first == 3:
        order = [number for number in order if number] + [0]
    coarsest = total // ways[order[-1]] * 256  # the last level's granularity, for 256 B at the first
    granularity = draw(st.sampled_from([256 << step for step in range(7) if coarsest << step <= 16384]))
    levels: dict[int, Level] = {}
    for number in order:
        levels[number] = Level(ways[number], granularity)
        granularity *= ways[number]
    xor = first in (2, 4) and draw(st.booleans())
    return Plan(tuple(levels[number] for number in range(len(ways))), xor, draw(st.integers(0, 3)))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
        seen = machine.view(fabric.base, total)
        assert seen is not None
        start = across - fabric.base
        assert bytes(seen[start : start + len(pattern)]) == pattern
        seen[start : start + 4] = 7
        assert machine.load(across, 4) == b"\7\7\7\7"
        assert machine.load(across, len(pattern)) == b"\7\7\7\7" + pattern[4:]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
