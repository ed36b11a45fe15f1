"""Faults of the media and their repair: what decays, what a repair changes, and until when.

Payload layouts are those of drivers/cxl/core/edac.c (PPR, sparing) and include/cxl/event.h (records).
"""

import struct

import pytest

from softcxl.device.geometry import Scope
from softcxl.spec.command.events import EventLog
from softcxl.spec.command.maintenance import PERFORM_MAINTENANCE
from softcxl.spec.command.poison import CLEAR_POISON
from softcxl.testing.driver import Driver
from softcxl.wire import Reset
from tests.device.conftest import MIB

STARTED, INVALID_INPUT, INVALID_ADDRESS, BUSY, PERMANENT, LENGTH, EXHAUSTED = 1, 2, 0x0F, 6, 0x11, 0x16, 0x1D
PPR, SPARING = 1, 2
SOFT, HARD = 0, 1
CACHELINE, ROW, BANK, RANK = range(4)
QUERY, HARD_SPARING, SUB_CHANNEL_VALID, NIBBLES_VALID = 1, 2, 4, 8
DRAM = bytes.fromhex("601dcbb39c064eabb8af4e9bfb5c9624")
SPARED = bytes.fromhex("e71f3a402d2940928a394d1c966c7c65")
HOUR = 3600
DPA = 0x123400  # channel 0, rank 0, bank group 0, bank 1, row 1, column 16 * 13, sub-channel 0; see test_geometry


def ppr(send, dpa, kind=SOFT, *, nibbles=0, flags=0):
    body = struct.pack("<BBBQ", PPR, kind, flags, dpa) + nibbles.to_bytes(3, "little")
    return send(PERFORM_MAINTENANCE, body)[0]


def sparing(send, place, scope, flags=0, *, nibbles=0):
    body = struct.pack("<BBBBB", SPARING, scope, flags, place.channel, place.rank) + nibbles.to_bytes(
        3, "little"
    )
    body += struct.pack("<BB", place.bank_group, place.bank) + place.row.to_bytes(3, "little")
    return send(PERFORM_MAINTENANCE, body + struct.pack("<HB", place.column, place.sub_channel))[0]


def records(device, log):
    found = [one.pack() for one in device.events.logs[log].records]
    device.events.logs[log].clear(len(found))
    return found


def clear(send, dpa):
    return send(CLEAR_POISON, struct.pack("<Q", dpa) + bytes(64))[0]


def test_a_row_decays_until_it_is_lost(device, clock, send):
    device.faults.add(DPA, endurance=4, nibbles=0b100)
    for hour in range(1, 5):
        clock.advance(HOUR)
        assert device.health.info.corrected_volatile_error_count == hour
    clock.advance(100 * HOUR)
    assert device.health.info.corrected_volatile_error_count == 4
    first = records(device, EventLog.INFORMATIONAL)
    assert len(first) == 1
    [record] = first
    assert record[:16] == DRAM
    assert struct.unpack_from("<Q", record, 0x30) == (DPA | 1,)  # volatile
    place = device.faults.geometry.place(DPA)
    assert struct.unpack_from("<BBBHBB", record, 0x38) == (0, 0, 0, 0x47F, place.channel, place.rank)
    assert record[0x3F:0x4B] == b"\4\0\0" + struct.pack("<BB", place.bank_group, place.bank) + (
        place.row.to_bytes(3, "little") + struct.pack("<HH", place.column, 0)
    )
    # from half its endurance on it asks for maintenance: soft post package repair
    asking = records(device, EventLog.WARNING)
    assert len(asking) == 3
    assert {
        (one[0x11] & 1 << 3, one[0x11] & 1 << 6, one[0x20], one[0x21]) for one in asking if len(one)
    } != set()


def test_what_a_record_asks_for(device, clock):
    device.faults.add(DPA, endurance=2)
    clock.advance(HOUR)
    [record] = records(device, EventLog.WARNING)
    flags = int.from_bytes(record[0x11:0x14], "little")
    assert flags == 1 | 1 << 3 | 1 << 6  # a warning; maintenance needed; the subclass holds
    assert record[0x20:0x22] == bytes((PPR, SOFT))


def test_worn_out_media_lose_what_is_stored_until_repaired(device, clock, send):
    device.faults.add(DPA, endurance=0)
    clock.advance(HOUR)
    assert device.poison.met(DPA, 64) == DPA
    assert DPA in device.poison.map
    [record] = records(device, EventLog.FAILURE)
    assert record[:16] == DRAM
    assert struct.unpack_from("<BBB", record, 0x38) == (1, 0, 1)  # uncorrectable, ECC, met by a host's read
    assert clear(send, DPA) == PERMANENT
    assert device.clear_poison(DPA) == 1  # as a store of a whole line does
    assert DPA not in device.poison.map
    assert device.poison.met(DPA, 64) == DPA
    assert ppr(send, DPA + 256) == 0  # a line of the same row
    assert device.poison.met(DPA, 64) == DPA  # repaired, and the data are still lost
    assert clear(send, DPA) == 0
    assert device.poison.met(DPA, 64) is None


def test_a_repaired_row_decays_no_more(device, clock, send):
    fault = device.faults.add(DPA)
    clock.advance(HOUR)
    assert ppr(send, DPA) == 0
    clock.advance(100 * HOUR)
    assert (fault.errors, fault.spared) == (1, True)
    assert device.health.info.corrected_volatile_error_count == 1
    device.reset(Reset.FLR)
    assert fault.spared
    device.reset(Reset.HOT)  # which soft repair does not outlive
    clock.advance(HOUR)
    assert (fault.errors, fault.spared) == (2, False)


def test_soft_repair_of_worn_media_ends_with_a_reset(device, clock, send):
    device.faults.add(DPA, endurance=0)
    clock.advance(HOUR)
    assert ppr(send, DPA) == 0
    assert clear(send, DPA) == 0
    device.reset(Reset.HOT)
    assert device.poison.met(DPA, 64) == DPA


def test_hard_repair_takes_its_time_and_lasts(device, clock, send, driver):
    fault = device.faults.add(DPA)
    assert ppr(send, DPA) == 0  # softly first
    assert ppr(send, DPA, HARD) == STARTED
    assert driver.background()[:3] == (True, 0x0600, 0)
    assert ppr(send, DPA) == BUSY
    clock.advance(0.5)
    assert driver.background()[:3] == (True, 0x0600, 50)
    assert device.repair.spares["ppr"] == 3
    clock.advance(0.5)
    assert driver.background() == (False, 0x0600, 100, 0)
    assert device.repair.spares["ppr"] == 2
    device.reset(Reset.COLD)
    assert fault.spared
    assert device.repair.spares["ppr"] == 3  # the soft one is there again


def test_repairs_that_miss(device, send):
    fault = device.faults.add(DPA, nibbles=0b11)
    place = fault.place
    missed = [
        ppr(send, DPA + MIB),  # the next row
        ppr(send, DPA + 128),  # the other sub-channel
        ppr(send, DPA, nibbles=0b01),
        sparing(send, place, CACHELINE),  # less than what is faulty
        sparing(send, place.__class__(channel=1), RANK),
    ]
    assert missed == [0] * len(missed)
    assert not fault.spared
    assert sparing(send, place, ROW, NIBBLES_VALID, nibbles=0b111) == 0
    assert fault.spared


@pytest.mark.parametrize("scope", list(Scope))
def test_sparing_of_each_scope(device, send, scope):
    fault = device.faults.add(DPA, scope=scope)
    for less in range(scope):
        assert sparing(send, fault.place, less) == 0
        assert not fault.spared
    assert sparing(send, fault.place, scope) == 0
    assert fault.spared


def test_spares_run_out(make, clock, tmp_path):
    device = make(state=tmp_path / "state")
    driver = Driver(device)

    def send(command, payload=b""):
        return driver.send(command.opcode, payload)

    place = device.faults.geometry.place(DPA)
    assert device.repair.spares == {"ppr": 4, "cacheline": 16, "row": 8, "bank": 2, "rank": 1}
    assert sparing(send, place, BANK, QUERY) == 0
    assert device.repair.spares["bank"] == 2
    assert sparing(send, place, BANK) == 0
    assert sparing(send, place, BANK, HARD_SPARING) == STARTED
    clock.advance(1)
    for flags in (0, QUERY, HARD_SPARING):
        assert sparing(send, place, BANK, flags) == EXHAUSTED
    told = [struct.unpack_from("<BBBBH6xH", one, 0x30) for one in records(device, EventLog.INFORMATIONAL)]
    valid = 0b11111  # channel, rank, nibble mask, bank group, bank
    assert told == [
        (SPARING, BANK, QUERY, 0, valid, 2),
        (SPARING, BANK, 0, 0, valid, 1),
        (SPARING, BANK, HARD_SPARING, 0, valid, 0),
    ]
    refused = [struct.unpack_from("<BBBBH6xH", one, 0x30) for one in records(device, EventLog.WARNING)]
    assert refused == [(SPARING, BANK, flags, 1, valid, 0) for flags in (0, QUERY, HARD_SPARING)]
    again = make(state=tmp_path / "state")
    assert again.repair.spares["bank"] == 1  # what was repaired for good has used one up


def test_a_sparing_record(device, send):
    place = device.faults.geometry.place(DPA + 128)
    assert sparing(send, place, CACHELINE, SUB_CHANNEL_VALID | NIBBLES_VALID, nibbles=0x3F) == 0
    [record] = records(device, EventLog.INFORMATIONAL)
    assert record[:16] == SPARED
    assert struct.unpack_from("<BBBBH6xH", record, 0x30) == (SPARING, CACHELINE, 0, 0, 0b1001111111, 3)
    assert record[0x3E:0x4A] == struct.pack("<BB", place.channel, place.rank) + b"\x3f\0\0" + (
        struct.pack("<BB", place.bank_group, place.bank)
        + place.row.to_bytes(3, "little")
        + struct.pack("<H", place.column)
    )
    assert record[0x5A] == 1  # the sub-channel


def test_ppr_tells_where_it_was_asked_to(device, send):
    assert ppr(send, DPA) == ppr(send, DPA, flags=QUERY) == 0
    assert records(device, EventLog.INFORMATIONAL) == []
    soft = device.repair.soft_ppr.identifier.bytes
    assert Driver(device).send(0x0502, soft + struct.pack("<IHB9x", 0, 0, 3) + b"\0\0\1")[0] == 0
    assert ppr(send, DPA) == 0
    [record] = records(device, EventLog.INFORMATIONAL)
    assert struct.unpack_from("<BBBB", record, 0x30) == (PPR, SOFT, 0, 0)


@pytest.mark.parametrize("feature", ["row_sparing", "soft_ppr"])
def test_the_device_repairs_by_itself_where_it_may(device, clock, feature):
    which = device.repair.sparing[Scope.ROW] if feature == "row_sparing" else device.repair.soft_ppr
    value = b"\1\0" + (b"\1" if feature == "soft_ppr" else b"")
    head = which.identifier.bytes + struct.pack("<IHB9x", 0, 0, which.version)
    assert Driver(device).send(0x0502, head + value)[0] == 0
    fault = device.faults.add(DPA, endurance=4)
    clock.advance(HOUR)
    assert not fault.spared
    clock.advance(HOUR)
    assert fault.spared
    clock.advance(100 * HOUR)
    assert fault.errors == 2
    told = [one for one in records(device, EventLog.INFORMATIONAL) if one[:16] == SPARED]
    assert [one[0x32] for one in told] == [1 << 2]  # initiated by the device


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\0\0", INVALID_INPUT),
        (b"\1\2" + bytes(12), INVALID_INPUT),
        (b"\2\4" + bytes(14), INVALID_INPUT),
        (b"\3\0", INVALID_INPUT),
        (b"\1\0", LENGTH),
        (b"\1\0" + bytes(11), LENGTH),
        (b"\1\1" + bytes(13), LENGTH),
        (b"\2\0" + bytes(13), LENGTH),
        (b"\2\3" + bytes(15), LENGTH),
        (b"\1\0\0" + struct.pack("<Q", 512 * MIB) + bytes(3), INVALID_ADDRESS),
        (b"\2\1\0\2" + bytes(12), INVALID_INPUT),  # no such channel
    ],
)
def test_what_is_refused(device, send, body, code):
    before = device.repair.spares
    assert send(PERFORM_MAINTENANCE, body) == (code, b"")
    assert device.repair.spares == before


def test_faults_that_cannot_be(device):
    for dpa, more in (
        (512 * MIB, {}),
        (-1, {}),
        (0, {"nibbles": 0}),
        (0, {"every": 0}),
        (0, {"endurance": -1}),
    ):
        with pytest.raises(ValueError, match=r"allowed|DPA"):
            device.faults.add(dpa, **more)
    for count in (0, 1 << 24):
        with pytest.raises(ValueError, match="allowed"):
            device.faults.correct(0, count)


def test_nothing_decays_in_a_device_that_is_closed(make, clock):
    device = make()
    fault = device.faults.add(DPA)
    device.poison.spoil(0x4000)
    device.close()
    clock.advance(100 * HOUR)
    assert fault.errors == 0
    assert len(device.poison.map) == 0
