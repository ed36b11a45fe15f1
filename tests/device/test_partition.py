"""Partitions that software moves: at once and at the next cold reset, what that costs, and what follows.

Layouts are those of libcxlmi (src/cxlmi/api-types.h); a change takes the data, as the standard's effect Immediate Data
Change says.
"""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softcxl.device.persist import StateDamaged
from softcxl.spec.command.memory import GET_PARTITION_INFO, IDENTIFY_MEMORY_DEVICE, SET_PARTITION_INFO
from softcxl.testing.driver import Driver
from softcxl.wire import Reset
from tests.device.conftest import MIB

SUCCESS, INPUT, UNSUPPORTED, DISABLED, LENGTH = 0, 2, 3, 7, 0x16
UNIT = 256 * MIB
LATER, NOW = 0, 1


@pytest.fixture
def device(make):
    """1 GiB, half of it volatile, in parts of 256 MiB."""
    return make(volatile=2 * UNIT, persistent=2 * UNIT, partition_alignment=UNIT)


def info(driver):
    code, payload = driver.send(GET_PARTITION_INFO.opcode)
    assert code == SUCCESS
    return struct.unpack("<4Q", payload)


def divide(driver, volatile, when):
    return driver.send(SET_PARTITION_INFO.opcode, struct.pack("<QB", volatile, when))[0]


def ranges(device):
    """(base, size, non-volatile) of each DSMAS in the CDAT, as its bytes say."""
    entries = [one for one in device.cdat.entries[1:] if one[0] == 0]
    return [(*struct.unpack_from("<QQ", one, 8), bool(one[5] & 4)) for one in entries]


def test_what_the_device_says_of_itself(device, driver):
    code, payload = driver.send(IDENTIFY_MEMORY_DEVICE.opcode)
    assert (code, struct.unpack_from("<4Q", payload, 16)) == (SUCCESS, (4, 0, 0, 1))
    assert info(driver) == (2, 2, 0, 0)
    assert ranges(device) == [(0, 2 * UNIT, False), (2 * UNIT, 2 * UNIT, True)]


def test_fixed_partitions_stay(make):
    driver = Driver(make())
    assert divide(driver, 1, NOW) == UNSUPPORTED
    assert info(driver) == (1, 1, 0, 0)


@pytest.mark.parametrize("volatile", [0, 1, 3, 4])
def test_at_once(device, driver, volatile):
    for at in range(4):
        device.space.write(at * UNIT, b"data")
        device.inject_poison(at * UNIT + 64)
    sequence = struct.unpack_from("<I", device.cdat.entries[0], 12)[0]
    assert divide(driver, volatile, NOW) == SUCCESS
    assert info(driver) == (volatile, 4 - volatile, 0, 0)
    kept = [device.space.read(at * UNIT, 4) == b"data" for at in range(4)]
    assert kept == [at < min(volatile, 2) for at in range(4)]
    assert len(device.poison.map) == min(volatile, 2)
    told = [(0, volatile * UNIT, False), (volatile * UNIT, (4 - volatile) * UNIT, True)]
    assert ranges(device) == [one for one in told if one[1]]
    assert struct.unpack_from("<I", device.cdat.entries[0], 12)[0] > sequence


def test_nothing_changes_where_nothing_does(device, driver):
    device.space.write(3 * UNIT, b"data")
    assert divide(driver, 2, NOW) == SUCCESS
    assert device.space.read(3 * UNIT, 4) == b"data"


def test_at_the_next_cold_reset(device, driver):
    device.space.write(3 * UNIT, b"data")
    assert divide(driver, 1, LATER) == SUCCESS
    assert info(driver) == (2, 2, 1, 3)
    for kind in (Reset.FLR, Reset.HOT):
        device.reset(kind)
        assert info(driver) == (2, 2, 1, 3)
    assert device.space.read(3 * UNIT, 4) == b"data"
    device.reset(Reset.COLD)
    assert info(driver) == (1, 3, 0, 0)
    assert device.space.read(3 * UNIT, 4) == bytes(4)
    assert ranges(device) == [(0, UNIT, False), (UNIT, 3 * UNIT, True)]


def test_as_long_as_linux_sends_it(device, driver):
    """drivers/cxl/core/mbox.c: ten bytes, of which struct cxl_mbox_set_partition_info has nine."""
    assert driver.send(SET_PARTITION_INFO.opcode, struct.pack("<QBB", 1, NOW, 0xFF)) == (SUCCESS, b"")
    assert info(driver) == (1, 3, 0, 0)
    for more in (2, 3):
        assert driver.send(SET_PARTITION_INFO.opcode, struct.pack("<QB", 2, NOW) + bytes(more)) == (
            LENGTH,
            b"",
        )
    assert info(driver) == (1, 3, 0, 0)


def test_later_is_taken_back(device, driver):
    divide(driver, 1, LATER)
    assert divide(driver, 2, LATER) == SUCCESS
    assert info(driver) == (2, 2, 0, 0)
    divide(driver, 1, LATER)
    assert divide(driver, 3, NOW) == SUCCESS
    assert info(driver) == (3, 1, 0, 0)
    device.reset(Reset.COLD)
    assert info(driver) == (3, 1, 0, 0)


def test_what_a_decoder_maps_does_not_change(device, driver):
    """Below what changes a decoder is no hindrance."""
    device.decoders.program(0, hpa=1 << 32, size=UNIT, ways=1, granularity=256)
    assert divide(driver, 0, NOW) == INPUT
    assert divide(driver, 1, NOW) == SUCCESS
    device.decoders.program(1, hpa=2 << 32, size=UNIT, ways=1, granularity=256, skip=2 * UNIT)
    device.space.write(3 * UNIT, b"data")
    for volatile in (0, 2, 3, 4):
        assert divide(driver, volatile, NOW) == INPUT
    assert info(driver) == (1, 3, 0, 0)
    assert device.space.read(3 * UNIT, 4) == b"data"
    assert divide(driver, 1, NOW) == SUCCESS
    assert divide(driver, 4, LATER) == SUCCESS


def test_what_cannot_be(make):
    driver = Driver(make(volatile=2 * UNIT, persistent=2 * UNIT, partition_alignment=2 * UNIT))
    for volatile in (1, 3, 5, 6, 1 << 36, (1 << 64) - 1):
        for when in (NOW, LATER):
            assert divide(driver, volatile, when) == INPUT
    assert info(driver) == (2, 2, 0, 0)
    for payload in (b"", bytes(8), bytes(11)):
        assert driver.send(SET_PARTITION_INFO.opcode, payload) == (LENGTH, b"")
    for alignment in (1, -UNIT, UNIT + 1):
        with pytest.raises(ValueError, match="multiples of 256 MiB are allowed"):
            make(partition_alignment=alignment)
    with pytest.raises(ValueError, match="not multiples of their alignment"):
        make(volatile=UNIT, persistent=UNIT, partition_alignment=2 * UNIT)


def test_what_was_persistent_is_locked_and_what_is(device, driver):
    device.security.locked = True
    assert divide(driver, 1, NOW) == divide(driver, 1, LATER) == DISABLED
    device.security.locked = False
    divide(driver, 1, NOW)
    assert device.security.locks(UNIT, 1) is False
    device.security.locked = True
    assert device.security.locks(UNIT, 1)
    assert not device.security.locks(0, UNIT)


def test_over_the_end_of_the_process(make, tmp_path):
    def start():
        return make(
            volatile=2 * UNIT, persistent=2 * UNIT, partition_alignment=UNIT, state=tmp_path / "mem0.state"
        )

    divide(Driver(start()), 1, NOW)
    device = start()
    assert info(Driver(device)) == (1, 3, 0, 0)
    divide(Driver(device), 4, LATER)
    device = start()
    assert info(Driver(device)) == (4, 0, 0, 0)
    assert ranges(device) == [(0, 4 * UNIT, False)]
    assert info(Driver(start())) == (4, 0, 0, 0)


@pytest.mark.parametrize(
    "section",
    [{}, {"volatile": 5 * UNIT, "next": None}, {"volatile": 1, "next": None}, {"volatile": 0, "next": "x"}],
)
def test_partitions_that_cannot_have_been(make, tmp_path, section):
    options = {"partition_alignment": UNIT, "state": tmp_path / "mem0.state"}
    make(**options).page.put("partition", **section)
    with pytest.raises(StateDamaged, match="partition cannot have been"):
        make(**options)


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.one_of(st.tuples(st.integers(0, 6), st.sampled_from([NOW, LATER])), st.just(Reset.COLD)),
        max_size=8,
    )
)
def test_any_sequence(make, steps):
    device = make(volatile=2 * UNIT, persistent=2 * UNIT, partition_alignment=UNIT)
    driver, active, following = Driver(device), 2, None
    for step in steps:
        if step is Reset.COLD:
            device.reset(step)
            active, following = (active, None) if following is None else (following, None)
        else:
            volatile, when = step
            assert divide(driver, volatile, when) == (INPUT if volatile > 4 else SUCCESS)
            if volatile <= 4:
                if when == NOW:
                    active, following = volatile, None
                else:
                    following = None if volatile == active else volatile
        expected = (0, 0) if following is None else (following, 4 - following)
        assert info(driver) == (active, 4 - active, *expected)
