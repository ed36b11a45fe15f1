"""HDM decoders: what commits, what does not, and what the registers say then (CXL 3.1 §8.2.4.20.12).

The driver programs them in Linux's order (drivers/cxl/core/hdm.c). The model below counts blocks of 256 MiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcxl.device.clock import ManualClock
from softcxl.device.decoder import CommitError, Mapping
from softcxl.device.type3 import Type3
from softcxl.memory.errors import MediumFull
from softcxl.testing.driver import Driver
from softcxl.wire import Reset
from tests.device.conftest import GIB, MIB

BLOCK = 256 * MIB
CAPACITY = 8 * BLOCK
COMMIT, COMMITTED, ERROR = 1 << 9, 1 << 10, 1 << 11


class Host:
    """Notes what is mapped; refuses what `refuse` says."""

    def __init__(self) -> None:
        self.mapped: list[Mapping] = []
        self.refuse: Exception | None = None

    def commit(self, mapping: Mapping) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.mapped.append(mapping)

    def release(self, mapping: Mapping) -> None:
        self.mapped.remove(mapping)


@pytest.fixture
def device(make: Callable[..., Type3]) -> Type3:
    return make(volatile=CAPACITY, persistent=0, decoders=4)


@pytest.fixture
def host(device: Type3) -> Host:
    host = device.decoders.host = Host()
    return host


def control(driver, number):
    bar, at = driver.decoder(number)
    return driver.read32(bar, at + 0x10)


def test_commit_maps(driver, device, host):
    assert driver.commit(0, 4 * GIB, 4 * BLOCK, ways=2, granularity=4096)
    assert control(driver, 0) & (COMMIT | COMMITTED | ERROR) == COMMIT | COMMITTED
    (mapping,) = host.mapped
    assert (mapping.hpa, mapping.size, mapping.ways, mapping.granularity) == (4 * GIB, 4 * BLOCK, 2, 4096)
    assert (mapping.dpa, mapping.dpa_size) == (0, 2 * BLOCK)
    assert device.decoders.committed


def test_next_decoder_goes_on_where_the_last_ended(driver, host):
    assert driver.commit(0, 4 * GIB, 2 * BLOCK, ways=2)
    assert driver.commit(1, 8 * GIB, 2 * BLOCK, skip=BLOCK)
    assert [(one.dpa, one.dpa_size) for one in host.mapped] == [(0, BLOCK), (2 * BLOCK, 2 * BLOCK)]


@pytest.mark.parametrize("ways", [1, 2, 4, 8, 16, 3, 6, 12])
@pytest.mark.parametrize("granularity", [256, 4096, 16384])
def test_every_geometry_commits(driver, host, ways, granularity):
    assert driver.commit(0, 16 * GIB, ways * BLOCK, ways=ways, granularity=granularity)
    assert (host.mapped[0].ways, host.mapped[0].granularity) == (ways, granularity)


REFUSALS = {
    "order": (1, {"base": 4 * GIB, "size": BLOCK}, "decoder 0 is not committed"),
    "alignment": (0, {"base": 4 * GIB, "size": 3 * BLOCK, "ways": 2}, "not a multiple of 2 x 256 MiB"),
    "three ways": (0, {"base": 4 * GIB, "size": 4 * BLOCK, "ways": 3}, "not a multiple of 3 x 256 MiB"),
    "capacity": (0, {"base": 4 * GIB, "size": 9 * BLOCK}, "do not fit"),
    "skip": (0, {"base": 4 * GIB, "size": 8 * BLOCK, "skip": BLOCK}, "do not fit"),
    "52 bits": (0, {"base": (1 << 52) - BLOCK, "size": 2 * BLOCK}, "beyond 52 bits"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_set_the_error_bit_and_say_why(driver, device, host, case):
    number, geometry, reason = REFUSALS[case]
    bar, at = driver.decoder(number)
    assert not driver.commit(number, **geometry)
    assert reason in device.decoders.refusals[-1]
    assert device.decoders.refusals[-1].startswith(f"decoder {number}: ")
    assert host.mapped == []
    assert control(driver, number) & (COMMIT | COMMITTED | ERROR) == 0  # taken back by the driver
    again = control(driver, number) | COMMIT
    driver.write32(bar, at + 0x10, again)
    assert control(driver, number) == again | ERROR


@pytest.mark.parametrize(
    "value",
    [
        0x1000 | COMMIT | 0x7,  # granularity codes end at 6
        0x1000 | COMMIT | 0x50,  # ways code 5 is reserved
        0x1000 | COMMIT | 0xB0,
        COMMIT,  # device coherent
        0x3000 | COMMIT,  # back-invalidate
        0x5000 | COMMIT,  # UIO
    ],
)
def test_control_values_that_the_device_cannot_do(driver, host, value):
    bar, at = driver.decoder(0)
    driver.write32(bar, at + 0x08, BLOCK)
    driver.write32(bar, at + 0x10, value)
    assert control(driver, 0) == value | ERROR
    assert host.mapped == []


def test_overlap(driver, device, host):
    assert driver.commit(0, 4 * GIB, 2 * BLOCK)
    assert not driver.commit(1, 4 * GIB + BLOCK, BLOCK)
    assert "not above" in device.decoders.refusals[-1]
    assert not driver.commit(1, 2 * GIB, BLOCK)
    assert driver.commit(1, 4 * GIB + 2 * BLOCK, BLOCK)


def test_a_zero_sized_decoder_commits_and_maps_nothing(driver, host):
    assert driver.commit(0, 0, 0)
    assert host.mapped == []
    assert driver.commit(1, 4 * GIB, BLOCK)
    assert host.mapped[0].dpa == 0
    assert driver.decommit(1)
    assert driver.decommit(0)


def test_the_host_may_refuse(driver, device, host):
    host.refuse = CommitError("no window there")
    assert not driver.commit(0, 4 * GIB, BLOCK)
    assert device.decoders.refusals[-1] == "decoder 0: no window there"
    host.refuse = MediumFull("no room")
    assert not driver.commit(0, 4 * GIB, BLOCK)
    host.refuse = None
    assert driver.commit(0, 4 * GIB, BLOCK)


def test_committed_registers_take_no_writes(driver, host):
    driver.commit(0, 4 * GIB, BLOCK)
    bar, at = driver.decoder(0)
    before = driver.port.read(bar, at, 0x20)
    for offset in (0x00, 0x04, 0x08, 0x0C, 0x14, 0x18):
        driver.write32(bar, at + offset, 0xFFFF_FFFF)
    driver.write32(bar, at + 0x10, 0xFFFF_FFFF)
    driver.port.write(bar, at + 0x10, b"\x66")
    assert driver.port.read(bar, at, 0x20) == before
    assert len(host.mapped) == 1


def test_an_error_stays_until_commit_is_cleared(driver, host):
    bar, at = driver.decoder(0)
    driver.write32(bar, at + 0x08, 0)
    driver.write32(bar, at + 0x0C, 0x100)
    driver.write32(bar, at + 0x10, 0x1000 | COMMIT)
    assert control(driver, 0) & ERROR
    driver.write32(bar, at + 0x0C, 0)
    driver.write32(bar, at + 0x08, BLOCK)
    driver.write32(bar, at + 0x10, 0x1000 | COMMIT)  # no edge
    assert control(driver, 0) & (ERROR | COMMITTED) == ERROR
    driver.write32(bar, at + 0x10, 0x1000)
    assert control(driver, 0) == 0x1000
    driver.write32(bar, at + 0x10, 0x1000 | COMMIT)
    assert control(driver, 0) & (ERROR | COMMITTED) == COMMITTED


def test_decommit_in_any_order(driver, host):
    for number in range(4):
        assert driver.commit(number, (4 + number) * GIB, BLOCK)
    for number in (1, 0, 3, 2):
        assert driver.decommit(number)
    assert host.mapped == []
    assert driver.commit(0, 4 * GIB, 2 * BLOCK)


def test_a_gap_is_not_filled_below_what_is_committed(driver, host):
    driver.commit(0, 4 * GIB, BLOCK)
    driver.commit(1, 5 * GIB, BLOCK)
    driver.decommit(0)
    assert not driver.commit(0, 4 * GIB, BLOCK)
    driver.decommit(1)
    assert driver.commit(0, 4 * GIB, BLOCK)


def test_lock_on_commit_holds_until_a_conventional_reset(driver, device, host):
    assert driver.commit(0, 4 * GIB, BLOCK, lock=True)
    assert not driver.decommit(0)
    assert len(host.mapped) == 1
    device.reset(Reset.FLR)
    assert not driver.decommit(0)
    device.reset()
    assert host.mapped == []
    assert control(driver, 0) == 0x1000  # host-only, nothing else
    assert driver.commit(0, 8 * GIB, BLOCK)
    assert driver.decommit(0)


def test_function_level_reset_leaves_decoders_alone(driver, device, host):
    driver.commit(0, 4 * GIB, BLOCK)
    bar, hdm = driver.component_capability(5)
    driver.write32(bar, hdm + 4, 2)
    before = device.read(bar, hdm, 0x90)
    device.reset(Reset.FLR)
    assert device.read(bar, hdm, 0x90) == before
    assert len(host.mapped) == 1
    driver.write32(bar, hdm + 0x10, 0)
    assert device.read(bar, hdm, 0x90) == before


@pytest.mark.parametrize("kind", [Reset.HOT, Reset.COLD])
def test_conventional_resets_forget_all(driver, device, host, kind):
    driver.commit(0, 4 * GIB, BLOCK)
    driver.commit(1, 8 * GIB, BLOCK)
    device.reset(kind)
    assert host.mapped == []
    bar, at = driver.decoder(0)
    assert device.read(bar, at, 0x20) == bytes(0x10) + (0x1000).to_bytes(4, "little") + bytes(0xC)


def test_firmware_programs_after_each_conventional_reset(driver, device, host):
    def platform() -> None:
        device.decoders.program(0, hpa=4 * GIB, size=2 * BLOCK, ways=2, granularity=256, lock=True)
        device.decoders.program(1, hpa=8 * GIB, size=BLOCK, ways=1, granularity=256, skip=BLOCK)

    device.platform = platform
    platform()
    with pytest.raises(CommitError, match="committed already"):
        platform()
    for _ in range(2):
        assert [one.dpa for one in host.mapped] == [0, 2 * BLOCK]
        bar, hdm = driver.component_capability(5)
        assert driver.read32(bar, hdm + 4) & 2  # enabled
        assert control(driver, 0) & (COMMITTED | 1 << 8) == COMMITTED | 1 << 8
        device.reset()
    device.reset(Reset.FLR)
    assert len(host.mapped) == 2


def test_firmware_that_fails_does_not_stop_a_reset(driver, device, host, caplog):
    device.platform = lambda: device.decoders.program(0, hpa=0, size=99 * BLOCK, ways=1, granularity=256)
    device.reset()
    assert "cannot program it again" in caplog.text
    assert driver.send(0x4000)[0] == 0


def test_what_firmware_cannot_program_is_raised(device, host):
    with pytest.raises(CommitError, match="do not fit"):
        device.decoders.program(0, hpa=4 * GIB, size=9 * BLOCK, ways=1, granularity=256)


# -- against a model -----------------------------------------------------------------------------------------

Blocks = range


class Model:
    """Which decoders are committed, over host and device blocks of 256 MiB."""

    def __init__(self) -> None:
        self.host: dict[int, Blocks] = {}
        self.device_end: dict[int, int] = {}
        self.locked: set[int] = set()

    def commit(self, number: int, base: int, size: int, ways: int, skip: int, lock: bool) -> bool:
        wanted = range(base, base + size)
        start = self.device_end[number - 1] if number and number - 1 in self.host else 0
        allowed = (
            size % ways == 0
            and (not number or number - 1 in self.host)
            and not any(other > number for other in self.host)
            and (not size or all(base > max(held, default=-1) for held in self.host.values()))
            and start + skip + size // ways <= CAPACITY // BLOCK
        )
        if allowed:
            self.host[number], self.device_end[number] = wanted, start + skip + size // ways
            if lock:
                self.locked.add(number)
        return allowed

    def decommit(self, number: int) -> None:
        if number not in self.locked:
            self.host.pop(number, None)

    def reset(self) -> None:
        self.host.clear()
        self.locked.clear()


class Step(NamedTuple):
    """One thing to do. Most numbers are relative to what would be right, so that many commits succeed."""

    what: str
    number: int | None  # None: the next free decoder
    above: int  # blocks from where the highest decoder ends
    rounds: int
    odd: int  # blocks too many for whole rounds
    ways: int
    skip: int
    lock: bool


def steps() -> st.SearchStrategy[list[Step]]:
    return st.lists(
        st.builds(
            Step,
            what=st.sampled_from(("commit",) * 7 + ("decommit", "decommit", "reset", "flr", "scribble")),
            number=st.sampled_from((None, None, None, 0, 1, 2, 3)),
            above=st.sampled_from((0, 0, 0, 1, 5, -1, -2)),
            rounds=st.sampled_from((1, 1, 1, 2, 4, 0)),
            odd=st.sampled_from((0, 0, 0, 0, 1)),
            ways=st.sampled_from((1, 1, 2, 3, 4, 16)),
            skip=st.sampled_from((0, 0, 0, 1, 2)),
            lock=st.sampled_from((False,) * 7 + (True,)),
        ),
        max_size=25,
    )


@pytest.fixture(scope="module")
def bench() -> Iterator[tuple[Type3, Driver, Host]]:
    device = Type3("mem0", volatile=CAPACITY, decoders=4, clock=ManualClock())
    host = device.decoders.host = Host()
    yield device, Driver(device), host
    device.close()


@settings(max_examples=200, deadline=None)
@given(steps=steps())
def test_commits_follow_the_rules(bench, steps):
    device, driver, host = bench
    device.reset()
    model = Model()
    for step in steps:
        number = step.number if step.number is not None else min(3, max(model.host, default=-1) + 1)
        if step.what == "commit" and number not in model.host:
            top = max((max(held, default=-1) for held in model.host.values()), default=15) + 1
            base, size = max(0, top + step.above), step.rounds * step.ways + step.odd
            done = driver.commit(
                number, base * BLOCK, size * BLOCK, ways=step.ways, skip=step.skip * BLOCK, lock=step.lock
            )
            allowed = model.commit(number, base, size, step.ways, step.skip, step.lock)
            assert done == allowed, device.decoders.refusals
        elif step.what == "decommit":
            driver.decommit(number)
            model.decommit(number)
        elif step.what == "reset":
            device.reset()
            model.reset()
        elif step.what == "flr":
            device.reset(Reset.FLR)
        elif step.what == "scribble" and number in model.host:
            bar, at = driver.decoder(number)
            device.write(bar, at, b"\xa5" * 0x10)
            device.write(bar, at + 0x14, b"\xa5" * 8)
        committed = {n for n in range(4) if control(driver, n) & COMMITTED}
        assert committed == model.host.keys()
        assert not any(control(driver, n) & ERROR for n in range(4))
        for n in committed:
            bar, at = driver.decoder(n)
            held = model.host[n]
            assert driver.read64(bar, at) == held.start * BLOCK
            assert driver.read64(bar, at + 8) == len(held) * BLOCK
        shown = sorted((one.decoder, one.hpa, one.dpa + one.dpa_size) for one in host.mapped)
        assert shown == sorted(
            (n, held.start * BLOCK, model.device_end[n] * BLOCK) for n, held in model.host.items() if held
        )
