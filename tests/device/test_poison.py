"""Poison: list, injection, clearing and their events, as drivers/cxl/core/mbox.c and memdev.c use them."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcxl.device.poison import PoisonMap
from softcxl.spec.command.events import GET_EVENT_RECORDS
from softcxl.spec.command.poison import CLEAR_POISON, GET_POISON_LIST, INJECT_POISON, PoisonSource
from softcxl.spec.command.timestamp import SET_TIMESTAMP
from softcxl.testing.driver import MSI, Driver, Machine
from softcxl.wire import Reset
from tests.device.conftest import MIB

INVALID_INPUT, INVALID_ADDRESS, LIMIT = 0x02, 0x0F, 0x10
MORE, OVERFLOW = 1, 2
UNKNOWN, EXTERNAL, INTERNAL, INJECTED = 0, 1, 2, 3
TOTAL = 512 * MIB
GENERAL_MEDIA = bytes.fromhex("fbcd0a77c260417f85a9088b1621eba6")


def listed(send, start=0, length=TOTAL):
    """(flags, overflow time, [(address, bytes, source)]) of one Get Poison List."""
    code, payload = send(GET_POISON_LIST, struct.pack("<QQ", start, length // 64))
    assert code == 0
    flags, overflow, count = struct.unpack_from("<BxQH20x", payload)
    records = list(struct.iter_unpack("<QI4x", payload[0x20:]))
    assert len(records) == count
    return flags, overflow, [(where & ~63, 64 * size, where & 7) for where, size in records]


def inject(send, address):
    return send(INJECT_POISON, struct.pack("<Q", address))[0]


def test_inject_list_clear(device, send):
    assert listed(send) == (0, 0, [])
    assert inject(send, 0x4000) == 0
    assert inject(send, 0x4000) == 0
    assert listed(send) == (0, 0, [(0x4000, 64, INJECTED)])
    assert 0x4000 in device.poison.map
    assert 0x403F in device.poison.map
    assert 0x4040 not in device.poison.map
    device.space.write(0x4000, b"\xee" * 64)
    assert send(CLEAR_POISON, struct.pack("<Q", 0x4000) + bytes(range(64))) == (0, b"")
    assert listed(send) == (0, 0, [])
    assert device.space.read(0x4000, 64) == bytes(range(64))


def test_clearing_what_is_not_poisoned_stores_too(device, send):
    assert send(CLEAR_POISON, struct.pack("<Q", TOTAL - 64) + b"y" * 64) == (0, b"")
    assert device.space.read(TOTAL - 64, 64) == b"y" * 64


@pytest.mark.parametrize(
    ("address", "code"),
    [
        (1, INVALID_INPUT),
        (0x4020, INVALID_INPUT),
        (TOTAL, INVALID_ADDRESS),
        ((1 << 64) - 64, INVALID_ADDRESS),
    ],
)
def test_addresses_that_are_not_the_device_s(device, send, address, code):
    assert inject(send, address) == code
    assert send(CLEAR_POISON, struct.pack("<Q", address) + bytes(64)) == (code, b"")
    assert send(GET_POISON_LIST, struct.pack("<QQ", address, 1)) == (code, b"")
    assert listed(send)[2] == []


def test_ranges_of_a_list(send):
    for address in (0, 64, 0x8000, TOTAL - 64):
        inject(send, address)
    assert listed(send)[2] == [(0, 128, INJECTED), (0x8000, 64, INJECTED), (TOTAL - 64, 64, INJECTED)]
    assert listed(send, 64, 64)[2] == [(64, 64, INJECTED)]
    assert listed(send, 128, 0x8000 - 128)[2] == []
    assert listed(send, 0x8000, TOTAL - 0x8000)[2] == [(0x8000, 64, INJECTED), (TOTAL - 64, 64, INJECTED)]
    assert listed(send, 0, 0)[2] == []
    assert send(GET_POISON_LIST, struct.pack("<QQ", 64, TOTAL // 64))[0] == INVALID_ADDRESS
    assert send(GET_POISON_LIST, struct.pack("<QQ", 0, (1 << 64) - 1))[0] == INVALID_ADDRESS


def test_sources(device, send):
    device.inject_poison(0x1000, PoisonSource.EXTERNAL)
    device.inject_poison(0x1040, PoisonSource.INTERNAL)
    device.inject_poison(0x1080)
    device.inject_poison(0x1040, PoisonSource.EXTERNAL)  # it is poisoned already
    assert listed(send)[2] == [(0x1000, 64, EXTERNAL), (0x1040, 128, INTERNAL)]
    assert device.clear_poison(0x1000, 128) == 2
    assert device.clear_poison(0x1000, 128) == 0
    assert listed(send)[2] == [(0x1080, 64, INTERNAL)]
    for dpa in (-1, TOTAL):
        with pytest.raises(ValueError, match="DPA"):
            device.inject_poison(dpa)


def test_a_long_list_comes_in_parts(make):
    device = make(payload=256)  # room for 14 records
    driver = Driver(device)

    def send(command, payload=b""):
        return driver.send(command.opcode, payload)

    addresses = [0x1000 * number for number in range(40)]
    for address in addresses:
        inject(send, address)
    seen = []
    for count, more in ((14, MORE), (14, MORE), (12, 0)):
        flags, _, records = listed(send)
        assert (len(records), flags) == (count, more)
        seen += [address for address, _, _ in records]
    assert seen == addresses
    # It begins anew: after the end, after another request, after a reset.
    assert listed(send)[2][0][0] == 0
    listed(send, 0x1000, 0x1000)
    assert listed(send)[2][0][0] == 0
    device.reset()
    assert listed(send)[2][0][0] == 0


def test_a_list_that_changes_between_its_parts(make):
    device = make(payload=256)
    driver = Driver(device)

    def send(command, payload=b""):
        return driver.send(command.opcode, payload)

    for number in range(20):
        device.inject_poison(0x1000 * number)
    listed(send)
    device.clear_poison(0, 0x1000 * 10)
    device.inject_poison(0x1000 * 30)
    flags, _, records = listed(send)
    assert flags == 0
    assert [address // 0x1000 for address, _, _ in records] == [14, 15, 16, 17, 18, 19, 30]


def test_a_full_list(make, clock):
    device = make(poison_list_max=3)
    driver = Driver(device)

    def send(command, payload=b""):
        return driver.send(command.opcode, payload)

    assert driver.send(0x4000)[1][0x3C:0x3F] == b"\3\0\0"
    send(SET_TIMESTAMP, struct.pack("<Q", 77_000_000_000))
    for address in (0, 64, 128):
        assert inject(send, address) == 0
    assert listed(send)[0] == 0
    assert inject(send, 192) == LIMIT
    assert inject(send, 64) == 0
    clock.advance(1)
    assert not device.inject_poison(192)
    assert listed(send) == (OVERFLOW, 77_000_000_000, [(0, 192, INJECTED)])
    send(CLEAR_POISON, struct.pack("<Q", 0) + bytes(64))
    assert listed(send) == (0, 0, [(64, 128, INJECTED)])
    assert inject(send, 192) == 0


def test_injection_is_an_informational_event_and_interrupts(device, machine, send):
    send(SET_TIMESTAMP, struct.pack("<Q", 5_000_000_000))
    assert Driver(device).send(0x0103, b"\1\1\1\1")[0] == 0
    inject(send, 0x4000)
    assert machine.taken() == [(MSI, 0)]
    inject(send, 0x4000)
    code, payload = send(GET_EVENT_RECORDS, b"\0")
    assert code == 0
    assert struct.unpack_from("<H", payload, 0x14) == (1,)
    record = payload[0x20:]
    assert record[:16] == GENERAL_MEDIA
    assert struct.unpack_from("<Q", record, 0x30) == (0x4000 | 1,)  # volatile
    descriptor, event_type, transaction = record[0x38:0x3B]
    assert (descriptor & 1, event_type, transaction) == (1, 0, 4)  # uncorrectable, ECC, host inject poison


def test_poison_of_persistent_media_is_a_failure(make):
    device, machine = make(), Machine()
    device.attach(machine)
    device.inject_poison(256 * MIB, PoisonSource.INTERNAL)
    driver = Driver(device)
    assert driver.read32(2, driver.capabilities[1][0]) == 1 << 2
    record = driver.send(0x0100, b"\2")[1][0x20:]
    assert struct.unpack_from("<Q", record, 0x30) == (256 * MIB,)


@pytest.mark.parametrize("kind", list(Reset))
def test_poison_stays_over_resets(device, send, kind):
    """Identify says so: Injects Persistent Poison."""
    inject(send, 0x4000)
    device.reset(kind)
    assert listed(send)[2] == [(0x4000, 64, INJECTED)]


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(("add", "add", "remove")), st.integers(0, 40), st.integers(1, 5)),
        max_size=40,
    ),
    st.integers(0, 40),
    st.integers(0, 40),
    st.sampled_from((1, 2, 3, 512)),
)
def test_map_against_a_dictionary(steps, start, length, chunk):
    lines = PoisonMap()
    lines.chunk = chunk
    held: dict[int, int] = {}
    for step, line, number in steps:
        if step == "add":
            lines.add(64 * line + 17, number % 3)
            held.setdefault(line, number % 3)
        else:
            gone = [one for one in held if line <= one < line + number]
            assert lines.remove(64 * line, 64 * number) == len(gone)
            for one in gone:
                del held[one]
    assert len(lines) == len(held)
    inside = {one: source for one, source in held.items() if start <= one < start + length}
    assert lines.any_in(64 * start, 64 * length) == (64 * min(inside) if inside else None)
    expanded = {
        (first // 64 + step): source
        for first, size, source in lines.runs(64 * start, 64 * length)
        for step in range(size // 64)
    }
    assert expanded == inside
    runs = list(lines.runs(64 * start, 64 * length))
    for (first, size, source), (following, _, other) in pairwise(runs):
        assert first + size < following or source != other


@pytest.mark.parametrize("order", [1, -1, 7919])
def test_whatever_the_number_of_lines_little_is_moved_to_add_one(order):
    """Ascending, descending, and all over the place."""
    lines = PoisonMap()
    for number in range(20_000):
        lines.add(64 * (number * order % 20_011), 1)
    sizes = [len(one) for one in lines._chunks]
    assert sum(sizes) == len(lines) == 20_000
    assert max(sizes) <= PoisonMap.chunk
    assert len(sizes) <= 2 * 20_000 // PoisonMap.chunk + 2
    assert lines.remove(0, 64 * 20_011) == 20_000
    assert (lines._chunks, lines._first) == ([[]], [0])
