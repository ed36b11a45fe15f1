"""Scrubs and scans: latent poison is found when they come to it, and list, events, results and reads agree."""

import struct

import pytest

from softcxl.spec.command.events import EventLog
from softcxl.spec.command.logs import GET_LOG
from softcxl.spec.command.poison import (
    GET_POISON_LIST,
    GET_SCAN_MEDIA_CAPABILITIES,
    GET_SCAN_MEDIA_RESULTS,
    SCAN_MEDIA,
)
from softcxl.testing.driver import Driver
from softcxl.wire import Reset
from tests.device.conftest import MIB

STARTED, INVALID_INPUT, UNSUPPORTED, BUSY, INVALID_ADDRESS, ABORTED = 1, 2, 3, 6, 0x0F, 0x12
TOTAL, HOUR = 512 * MIB, 3600
HOST_READ, SCAN, SCRUB = 1, 3, 5
ECS_LOG = bytes.fromhex("f1720d60a7a94306a00311948f9e077c")


def listed(send):
    code, payload = send(GET_POISON_LIST, struct.pack("<QQ", 0, TOTAL // 64))
    assert code == 0
    return payload[0], [(where & ~63, where & 7) for where, _ in struct.iter_unpack("<QI4x", payload[0x20:])]


def told(device):
    """(address, transaction type) of the uncorrectable errors logged."""
    found = []
    for one in device.events.logs[EventLog.FAILURE].records:
        where, descriptor, _, by = struct.unpack_from("<QBBB", one.pack(), 0x30)
        assert descriptor & 1
        found.append((where & ~63, by))
    return found


def scan(send, start=0, length=TOTAL, flags=0):
    return send(SCAN_MEDIA, struct.pack("<QQB", start, length // 64, flags))[0]


def results(send):
    code, payload = send(GET_SCAN_MEDIA_RESULTS)
    assert code == 0
    restart, left, flags, count = struct.unpack_from("<QQBxH12x", payload)
    records = [(where & ~63, 64 * size) for where, size in struct.iter_unpack("<QI4x", payload[0x20:])]
    assert len(records) == count
    return restart, 64 * left, flags, records


def set_scrub(device, hours, on=1):
    head = device.patrol_scrub.identifier.bytes + struct.pack("<IHB9x", 0, 0, 1)
    assert Driver(device).send(0x0502, head + bytes((hours, on)))[0] == 0


# -- patrol scrub ------------------------------------------------------------------------------------------------


def test_patrol_scrub_finds_what_it_comes_to(device, clock, send):
    """All memory in 12 hours: half of it in six."""
    device.poison.spoil(TOTAL // 2)
    device.poison.spoil(TOTAL // 4)
    assert listed(send) == (0, [])
    clock.advance(3 * HOUR - 1)
    assert listed(send) == (0, [])
    clock.advance(2)
    assert listed(send) == (0, [(TOTAL // 4, 2)])
    assert device.patrol_scrub.position == pytest.approx(TOTAL // 4, rel=1e-3)
    clock.advance(3 * HOUR)
    assert listed(send) == (0, [(TOTAL // 4, 2), (TOTAL // 2, 2)])
    assert told(device) == [(TOTAL // 4, SCRUB), (TOTAL // 2, SCRUB)]
    device.poison.spoil(0)  # behind it: in the next cycle
    clock.advance(6 * HOUR - 2)
    assert len(listed(send)[1]) == 2
    clock.advance(4)
    assert len(listed(send)[1]) == 3


def test_the_rate_can_be_changed_in_its_midst(device, clock, send):
    device.poison.spoil(TOTAL // 2)
    clock.advance(3 * HOUR)
    set_scrub(device, 4)  # the second quarter takes an hour now
    clock.advance(HOUR - 1)
    assert listed(send)[1] == []
    clock.advance(2)
    assert listed(send)[1] == [(TOTAL // 2, 2)]


def test_a_scrub_that_is_off_finds_nothing(device, clock, send):
    set_scrub(device, 1, on=0)
    device.poison.spoil(TOTAL // 2)
    clock.advance(48 * HOUR)
    assert listed(send)[1] == []
    set_scrub(device, 1)
    clock.advance(HOUR)
    assert listed(send)[1] == [(TOTAL // 2, 2)]


def test_what_is_healed_before_is_never_found(device, clock, send):
    device.poison.spoil(TOTAL // 2)
    assert device.clear_poison(TOTAL // 2) == 1
    device.poison.spoil(TOTAL // 4)
    device.inject_poison(TOTAL // 4)
    clock.advance(24 * HOUR)
    assert listed(send)[1] == [(TOTAL // 4, 2)]
    assert [by for _, by in told(device)] == [0]  # by injection alone


def test_a_full_list_leaves_it_latent(make, clock):
    device = make(poison_list_max=1)
    driver = Driver(device)

    def send(command, payload=b""):
        return driver.send(command.opcode, payload)

    for address in (0x1000, 0x2000):
        device.poison.spoil(address)
    clock.advance(12 * HOUR)
    assert listed(send) == (2, [(0x1000, 2)])  # overflow
    assert device.poison.met(0x2000, 64) == 0x2000
    assert device.events.logs[EventLog.FAILURE].records[1].data[8] == 1 | 1 << 2  # poison list overflow
    device.clear_poison(0x1000)
    clock.advance(12 * HOUR)
    assert listed(send) == (0, [(0x2000, 2)])


# -- scan media --------------------------------------------------------------------------------------------------


def test_a_scan_finds_lists_and_tells(device, driver, clock, send):
    """16 GiB a second: 512 MiB in 1/32 s."""
    assert send(GET_SCAN_MEDIA_RESULTS) == (UNSUPPORTED, b"")
    assert send(GET_SCAN_MEDIA_CAPABILITIES, struct.pack("<QQ", 0, TOTAL // 64)) == (0, struct.pack("<I", 32))
    device.inject_poison(0x1000)
    for address in (0x2000, 0x2040, TOTAL - 64):
        device.poison.spoil(address)
    assert scan(send) == STARTED
    assert scan(send) == BUSY
    assert send(GET_SCAN_MEDIA_RESULTS) == (UNSUPPORTED, b"")
    clock.advance(1 / 64)
    assert driver.background()[:3] == (True, 0x4304, 50)
    assert listed(send) == (4, [(0x1000, 2), (0x2000, 2)])  # scan in progress; found so far
    clock.advance(1 / 64)
    assert driver.background() == (False, 0x4304, 100, 0)
    assert listed(send) == (0, [(0x1000, 2), (0x2000, 2), (TOTAL - 64, 2)])
    assert results(send) == (0, 0, 0, [(0x1000, 64), (0x2000, 128), (TOTAL - 64, 64)])
    assert told(device)[1:] == [(0x2000, SCAN), (0x2040, SCAN), (TOTAL - 64, SCAN)]
    device.reset(Reset.HOT)
    assert send(GET_SCAN_MEDIA_RESULTS) == (UNSUPPORTED, b"")


def test_a_scan_of_a_range_without_events(device, clock, send):
    set_scrub(device, 1, on=0)
    for address in (0x1000, 0x2000, 0x3000):
        device.poison.spoil(address)
    assert scan(send, 0x2000, 0x1000, flags=1) == STARTED
    clock.advance(1)
    assert results(send) == (0, 0, 0, [(0x2000, 64)])
    assert listed(send) == (0, [(0x2000, 2)])
    assert told(device) == []


def test_results_in_parts(make, clock):
    device = make(payload=256)  # room for 14 records
    driver = Driver(device)

    def send(command, payload=b""):
        return driver.send(command.opcode, payload)

    addresses = [0x1000 * number for number in range(30)]
    for address in addresses:
        device.poison.spoil(address)
    assert scan(send) == STARTED
    clock.advance(1)
    for _ in range(2):
        parts = [results(send) for _ in range(3)]
        assert [(len(records), flags) for _, _, flags, records in parts] == [(14, 1), (14, 1), (2, 0)]
        assert [where for *_, records in parts for where, _ in records] == addresses


def test_a_scan_that_runs_out_of_room_tells_where_to_go_on(make, clock):
    device = make(poison_list_max=2)
    driver = Driver(device)

    def send(command, payload=b""):
        return driver.send(command.opcode, payload)

    for address in (0x1000, 0x2000, 0x3000):
        device.poison.spoil(address)
    assert scan(send) == STARTED
    clock.advance(1)
    assert results(send) == (0x3000, TOTAL - 0x3000, 2, [(0x1000, 64), (0x2000, 64)])
    assert listed(send)[0] == 2
    device.clear_poison(0x1000, 0x2000)
    assert scan(send, 0x3000, TOTAL - 0x3000) == STARTED
    clock.advance(1)
    assert results(send) == (0, 0, 0, [(0x3000, 64)])


def test_an_aborted_scan(device, driver, clock, send):
    device.poison.spoil(0x1000)
    device.poison.spoil(TOTAL - 64)
    assert scan(send) == STARTED
    clock.advance(1 / 64)
    assert driver.send(0x0005) == (0, b"")
    assert driver.background() == (False, 0x4304, 50, ABORTED)
    assert results(send) == (TOTAL // 2, TOTAL // 2, 2, [(0x1000, 64)])
    clock.advance(1)
    assert listed(send) == (0, [(0x1000, 2)])


@pytest.mark.parametrize(
    ("start", "length", "code"),
    [
        (1, 64, INVALID_INPUT),
        (0, 0, INVALID_INPUT),
        (0, TOTAL + 64, INVALID_ADDRESS),
        (TOTAL, 64, INVALID_ADDRESS),
        ((1 << 64) - 64, 64 * ((1 << 58) - 1), INVALID_ADDRESS),
    ],
)
def test_ranges_that_cannot_be_scanned(device, send, start, length, code):
    assert scan(send, start, length) == code
    if length:
        assert send(GET_SCAN_MEDIA_CAPABILITIES, struct.pack("<QQ", start, length // 64))[0] == code
    assert not device.cci.busy


# -- error check scrub -------------------------------------------------------------------------------------------


def ecs(send):
    """(FRU, configuration, error found, count, worst row's errors, its address) of each entry of the ECS log."""
    code, log = send(GET_LOG, ECS_LOG + struct.pack("<II", 0, 4 + 2 * 34))
    assert code == 0
    assert struct.unpack_from("<I", log) == (2 | 1 << 11,)  # two entries, each of a media FRU
    found = []
    for fru, configuration, flags, count, most, row in struct.iter_unpack("<16sHBHBQ4x", log[4:]):
        found.append((fru[0], configuration, flags, count, most, row))
    return found


def test_errors_are_counted_by_fru_row_and_line(device, send):
    for dpa, count in ((0x0, 1), (0x100, 2), (0x100, 1), (MIB, 5), (0x40, 1)):
        device.faults.correct(dpa, count)
    # channel 0: rows at 0 (4 errors, in 2 lines) and at 1 MiB (5); channel 1: one
    assert ecs(send) == [(0, 3, 1, 2, 5, MIB), (1, 3, 1, 1, 1, 0x40)]
    head = device.ecs.identifier.bytes + struct.pack("<IHB9x", 0, 0, 1)
    by_codewords = b"\1" + struct.pack("<HH", 3 | 8, 3 | 16)  # and the second one's counters begin again
    assert Driver(device).send(0x0502, head + by_codewords)[0] == 0
    assert ecs(send) == [(0, 3 | 8, 1, 3, 5, MIB), (1, 3, 0, 0, 0, 0)]


def test_the_ecs_threshold_is_for_each_gigabit(device):
    """256 MiB a channel: two gigabits, of 256 errors each."""
    device.faults.correct(0, 512)
    assert len(device.events.logs[EventLog.WARNING].records) == 0
    device.faults.correct(0x100)
    device.faults.correct(0x100)
    [record] = device.events.logs[EventLog.WARNING].records
    descriptor, kind, by = record.pack()[0x38:0x3B]
    assert (descriptor, kind, by) == (2, 5, 7)  # threshold; CME counter expiration; error check scrub
