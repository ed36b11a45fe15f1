"""What a port's decoder commits and what it refuses, by registers; and that no way of programming gives wrong data."""

from __future__ import annotations

import pytest

from softcxl.device.decoder import CommitError
from softcxl.switch.errors import AccessFault, DecodeError
from softcxl.switch.host_bridge import HostBridge
from tests.switch.fabrics import BASE, BLOCK, Fabric, Level, Plan
from tests.switch.programmer import COMMIT, ERROR, LOCK, Programmer, committed

TWO = Plan((Level(1, 256), Level(2, 256)))


class Bench:
    """A fabric of two devices below one host bridge of three ports; nothing is programmed yet."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric, self.it = fabric, fabric.programmer
        self.bridge = self.it.bridge(0)

    def commit(self, number: int = 0, **values: object) -> int:
        given: dict[str, object] = {"hpa": BASE, "size": 2 * BLOCK, "ways": 2, "targets": [0, 1]}
        return self.it.decoder(self.bridge, number, **(given | values))  # type: ignore[arg-type]

    def refusal(self) -> str:
        decoders = self.fabric.bridges[0].decoders
        assert decoders is not None
        return decoders.refusals[-1]


@pytest.fixture
def bench():
    with Fabric(TWO) as fabric:
        yield Bench(fabric)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"targets": [0, 7]}, "target 7 is no port"),
        ({"targets": [1, 1]}, "one port has two positions"),
        ({"size": 3 * BLOCK}, "not a multiple of 2 x 256 MiB"),
        ({"ways": 3, "targets": [0, 1, 2], "size": 3 * BLOCK}, "3 ways: a power of two"),
        ({"ways": 16, "targets": [0, 1], "size": 16 * BLOCK}, "16 ways: a power of two up to 4"),
        ({"ways": 8, "targets": [0, 1, 2], "size": 8 * BLOCK}, "8 ways: a power of two up to 4"),
        ({"code": 5}, "interleave ways encoding 5"),
        ({"granularity": 256 << 7}, "granularity encoding 7"),
        ({"hpa": (1 << 52) - BLOCK}, "beyond 52 bits"),
        ({"flags": 1 << 13}, "back-invalidate"),
        ({"flags": 1 << 14}, "UIO"),
        ({"number": 1}, "decoder 0 is not committed"),
    ],
)
def test_a_refused_commit_sets_its_error_and_says_why(
    bench: Bench, values: dict[str, object], why: str
) -> None:
    control = bench.commit(**values)  # type: ignore[arg-type]
    assert control & ERROR
    assert not committed(control)
    assert why in bench.refusal()
    with pytest.raises(DecodeError):
        bench.fabric.machine.load(BASE, 8)
    if values.get("number") is None:
        assert not bench.it.decommit(bench.bridge, 0) & ERROR
        assert committed(bench.commit())


def test_low_bits_of_bases_and_sizes_do_not_exist(bench: Bench) -> None:
    assert committed(bench.commit(hpa=BASE + 0x1000, size=2 * BLOCK + 0xFFF))
    at = bench.it.hdm(bench.bridge) + 0x10
    assert (bench.it.read32(at), bench.it.read32(at + 8)) == (BASE & 0xFFFF_FFFF, 2 * BLOCK)


def test_decoders_go_up_without_overlap_and_in_order(bench: Bench) -> None:
    assert committed(bench.commit())
    assert not committed(bench.commit(1, hpa=BASE + BLOCK))
    assert "not above the decoders below it" in bench.refusal()
    assert not committed(bench.commit(2, hpa=BASE + 4 * BLOCK))
    bench.it.decommit(bench.bridge, 2)
    bench.it.decommit(bench.bridge, 1)
    assert committed(bench.commit(1, hpa=BASE + 2 * BLOCK))
    bench.it.decommit(bench.bridge, 0)
    assert not committed(bench.commit())
    assert "a decoder above 0 is committed" in bench.refusal()


def test_a_committed_decoder_takes_no_changes_until_it_is_decommitted(bench: Bench) -> None:
    control = bench.commit()
    at = bench.it.hdm(bench.bridge) + 0x10
    bench.it.write32(at, 0)
    bench.it.write32(at + 0x14, 0x0001)
    bench.it.write32(at + 0x10, control | 0x5)
    assert bench.it.read32(at) == BASE & 0xFFFF_FFFF
    assert bench.it.read32(at + 0x14) == 0x0100
    assert bench.it.read32(at + 0x10) == control
    assert not bench.it.decommit(bench.bridge, 0) & COMMIT
    assert committed(bench.commit(targets=[1, 0]))


def test_a_locked_decoder_stays_until_a_reset(bench: Bench) -> None:
    control = bench.commit(flags=LOCK)
    assert committed(control)
    assert bench.it.decommit(bench.bridge, 0) == control
    assert bench.commit(targets=[1, 0]) == control
    bench.fabric.machine.reset()
    assert bench.it.read32(bench.it.hdm(bench.bridge) + 0x20) == 0
    assert committed(bench.commit(targets=[1, 0]))


def test_enables_that_are_for_devices_read_as_zero(bench: Bench) -> None:
    at = bench.it.hdm(bench.bridge)
    bench.it.write32(at + 4, 3)
    assert bench.it.read32(at + 4) == 0
    assert (
        bench.it.read32(at) & 0x1BFF == 0x344
    )  # 8 decoders, 4 targets, both runs of address bits, no 3-6-12, no 16


def test_a_bridge_has_the_decoders_that_the_registers_can_count() -> None:
    with pytest.raises(ValueError, match="possible are 1, 2, 4"):
        HostBridge("hb", 2, decoders=3)
    with pytest.raises(ValueError, match="one root port, not 2"):
        HostBridge("hb", 2, decoders=0)
    for count in (0, 33):
        with pytest.raises(ValueError, match="1 to 32"):
            HostBridge("hb", count)


def test_firmware_programs_by_the_same_rules() -> None:
    bridge = HostBridge("hb", 2)
    assert bridge.decoders is not None
    bridge.decoders.program(0, hpa=BASE, size=2 * BLOCK, targets=[1, 0], lock=True)
    with pytest.raises(CommitError, match="committed already"):
        bridge.decoders.program(0, hpa=BASE, size=2 * BLOCK, targets=[1, 0])
    with pytest.raises(CommitError, match="is no port"):
        bridge.decoders.program(1, hpa=BASE + 2 * BLOCK, size=BLOCK, targets=[5])


# -- ways that contradict each other: an access is refused, and no two addresses share a byte -------------------


def endpoints(it: Programmer, **values: int) -> None:
    for endpoint in it.endpoints():
        it.decoder(endpoint.block, 0, **({"hpa": BASE, "size": 2 * BLOCK, "ways": 2} | values))  # type: ignore[arg-type]
        it.enable(endpoint)


def never_shared(fabric: Fabric, blocks: int = 64) -> int:
    """Write every block that can be written, then find each again; returns how many there were."""
    machine, written = fabric.machine, {}
    for block in range(blocks):
        hpa, value = fabric.base + 256 * block, block.to_bytes(8, "little")
        try:
            machine.store(hpa, value)
        except AccessFault:
            continue
        written[hpa] = value
    for hpa, value in written.items():
        assert machine.load(hpa, 8) == value
    return len(written)


@pytest.mark.parametrize(
    ("bridge", "endpoint", "reachable"),
    [
        ({}, {}, 64),
        ({"granularity": 1024}, {"granularity": 1024}, 64),
        ({"granularity": 1024}, {}, 0),  # blocks of a round would meet in one device
        ({}, {"granularity": 512}, 0),
        ({}, {"ways": 1}, 0),
        ({}, {"ways": 4, "size": 4 * BLOCK}, 0),
        ({"ways": 1, "targets": [0]}, {}, 0),
        ({"ways": 1, "targets": [0]}, {"ways": 1, "size": BLOCK}, 64),
        ({"targets": [0, 2]}, {}, 32),  # nothing is in port 2
        ({"hpa": BASE + 2 * BLOCK}, {}, 0),
        ({}, {"hpa": BASE + 2 * BLOCK}, 0),
    ],
)
def test_decoders_that_disagree_serve_nothing(
    bench: Bench, bridge: dict[str, object], endpoint: dict[str, int], reachable: int
) -> None:
    bench.commit(**bridge)  # type: ignore[arg-type]
    endpoints(bench.it, **endpoint)
    assert never_shared(bench.fabric) == reachable
    assert (bench.fabric.machine.view(BASE, 2 * BLOCK) is not None) == (
        reachable == 64 and "ways" not in bridge
    )


def test_a_level_with_the_wrong_ways_serves_nothing() -> None:
    plan = Plan((Level(2, 1024), Level(2, 512), Level(2, 256)))
    with Fabric(plan) as fabric:
        fabric.program()
        assert never_shared(fabric) == 64
        it, fixed = fabric.programmer, fabric.bridges[1].decoders
        assert fixed is not None
        it.decommit(it.bridge(1), 0)
        assert never_shared(fabric) == 32
        wrong = it.decoder(it.bridge(1), 0, hpa=BASE, size=plan.size, ways=2, granularity=256, targets=[0, 1])
        assert committed(wrong)
        assert never_shared(fabric) == 32
        with pytest.raises(DecodeError, match="blocks of a round meet"):
            fabric.machine.load(BASE + 1024, 8)


def test_every_refusal_of_an_access_says_where(bench: Bench) -> None:
    machine = bench.fabric.machine
    with pytest.raises(DecodeError, match="0x1000: no window holds it"):
        machine.load(0x1000, 8)
    with pytest.raises(DecodeError, match="no decoder of hb0 takes it"):
        machine.load(BASE, 8)
    bench.commit()
    with pytest.raises(DecodeError, match="no decoder of mem0 takes it"):
        machine.load(BASE, 8)
    with pytest.raises(DecodeError, match="no decoder of mem1 takes it"):
        machine.store(BASE + 256, b"lost")
    endpoint = bench.it.endpoints()[0]
    bench.it.decoder(endpoint.block, 0, hpa=BASE, size=2 * BLOCK, ways=2)
    bench.it.enable(endpoint)
    assert machine.load(BASE + 252, 4) == bytes(4)
    with pytest.raises(DecodeError, match=r"0x400000100: no decoder of mem1"):
        machine.load(BASE + 252, 8)
