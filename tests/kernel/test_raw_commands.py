"""Commands that no driver of the kernel has: given raw, as a vendor's program would, by softcxl-mailbox in the guest.

The kernel fetches no events of dynamic capacity, so a program that answers offers fetches them itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from uuid import UUID

import pytest

from softcxl import Fabric, Type3
from softcxl.device.dynamic.selection import Selection
from tests.kernel.conftest import Linux

TOPOLOGY = "dynamic-capacity.yaml"
KERNEL = "own"
MIB = 1 << 20
BASE = 256 * MIB
"""Where region 0 of dynamic capacity begins."""

SUCCESS, INPUT, UNSUPPORTED, ADDRESS, EXTENT_LIST, LENGTH = 0x0, 0x2, 0x3, 0xF, 0x1E, 0x16
"""Return codes, as include/cxl/mailbox.h has them (CMD_CMD_RC_TABLE counts from 0)."""
EPERM = -1
ADD_CAPACITY, RELEASE_CAPACITY, FORCED = 0, 1, 2
ADD_RESPONSE, RELEASE = 0x4802, 0x4803
DYNAMIC_CAPACITY_LOG = 4
EFFECTS_LOG = UUID("0da9c0b5-bf41-4b78-8f79-96b1623b3f17").bytes


@pytest.fixture
def device(guest: Linux, fabric: Fabric) -> Iterator[Type3]:
    """The device, without extents and without events of dynamic capacity before and after."""
    device = fabric.devices["mem0"]
    yield device
    if device.dynamic.extents or device.dynamic.pending:
        device.dynamic.release(forced=True)
    events(guest)
    assert device.dynamic.free(0) == [(BASE, BASE + 512 * MIB)]


def raw(guest: Linux, opcode: int, payload: bytes = b"") -> tuple[int, bytes]:
    """Give a command; its return code, or the kernel's error as a negative number, and its answer."""
    words = guest.run(f"softcxl-mailbox /dev/cxl/mem0 {opcode:#x} '{payload.hex()}'").stdout.split()
    return int(words[0]), bytes.fromhex(words[1].decode()) if len(words) > 1 else b""


def extents(*given: tuple[int, int]) -> bytes:
    """The input payload of Add Dynamic Capacity Response and Release Dynamic Capacity: (DPA, bytes) each."""
    return struct.pack("<IB3x", len(given), 0) + b"".join(struct.pack("<QQ8x", *one) for one in given)


def accepted(guest: Linux) -> list[tuple[int, int]]:
    """(DPA, bytes) of the extents that the device lists."""
    code, answer = raw(guest, 0x4801, struct.pack("<II", 100, 0))
    assert code == SUCCESS
    count, total, _generation = struct.unpack_from("<III", answer)
    assert count == total
    return [struct.unpack_from("<QQ", answer, 16 + 40 * number) for number in range(count)]


def events(guest: Linux) -> list[tuple[int, int, int, bool]]:
    """The (type, DPA, bytes, more follow) of all events of dynamic capacity, which are cleared then."""
    found: list[tuple[int, int, int, bool]] = []
    while True:
        code, answer = raw(guest, 0x0100, bytes([DYNAMIC_CAPACITY_LOG]))
        assert code == SUCCESS
        (count,) = struct.unpack_from("<H", answer, 20)
        if not count:
            return found
        records = [answer[32 + 128 * number :][:128] for number in range(count)]
        for one in records:
            assert one[:16].hex() == "ca95afa7f18340188c2f95268e101a2a"  # UUID of the record, as printed
            start, length = struct.unpack_from("<QQ", one, 0x30 + 8)
            found.append((one[0x30], start, length, bool(one[0x35] & 1)))
        handles = b"".join(one[20:22] for one in records)
        cleared = struct.pack("<BBB3x", DYNAMIC_CAPACITY_LOG, 0, count) + handles
        assert raw(guest, 0x0101, cleared) == (SUCCESS, b"")


def test_an_offer_is_seen_and_answered(guest: Linux, device: Type3) -> None:
    offer = device.dynamic.add(length=64 * MIB)
    assert events(guest) == [(ADD_CAPACITY, BASE, 64 * MIB, False)]
    assert accepted(guest) == []
    assert raw(guest, ADD_RESPONSE, extents((BASE, 64 * MIB))) == (SUCCESS, b"")
    assert offer.state.value == "answered"
    assert accepted(guest) == [(BASE, 64 * MIB)]
    assert [(one.start, one.length) for one in device.dynamic.extents] == [(BASE, 64 * MIB)]


def test_a_part_of_an_offer_is_taken_and_what_was_asked_for_given_back(guest: Linux, device: Type3) -> None:
    device.dynamic.add(length=64 * MIB)
    events(guest)
    assert raw(guest, ADD_RESPONSE, extents((BASE, 2 * MIB), (BASE + 32 * MIB, 4 * MIB))) == (SUCCESS, b"")
    assert accepted(guest) == [(BASE, 2 * MIB), (BASE + 32 * MIB, 4 * MIB)]
    device.space.write(BASE, b"secret")
    asked = device.dynamic.release(extents=[(BASE, 2 * MIB)])
    assert events(guest) == [(RELEASE_CAPACITY, BASE, 2 * MIB, False)]
    assert accepted(guest)[0] == (BASE, 2 * MIB)  # until the host gives it back
    assert raw(guest, RELEASE, extents((BASE, 2 * MIB))) == (SUCCESS, b"")
    assert asked.state.value == "released"
    assert accepted(guest) == [(BASE + 32 * MIB, 4 * MIB)]
    assert device.space.read(BASE, 6) == bytes(6)  # region 0 sanitizes on release


def test_offers_are_declined(guest: Linux, device: Type3) -> None:
    offers = [device.dynamic.add(length=2 * MIB) for _ in range(3)]
    assert [one[1] for one in events(guest)] == [BASE, BASE + 2 * MIB, BASE + 4 * MIB]
    for _ in offers:
        assert raw(guest, ADD_RESPONSE, extents()) == (SUCCESS, b"")
    assert [one.accepted for one in offers] == [(), (), ()]
    assert accepted(guest) == []


def test_what_is_taken_by_force_is_told(guest: Linux, device: Type3) -> None:
    device.dynamic.add(length=8 * MIB)
    raw(guest, ADD_RESPONSE, extents((BASE, 8 * MIB)))
    events(guest)
    device.dynamic.release(forced=True)
    assert events(guest) == [(FORCED, BASE, 8 * MIB, False)]
    assert accepted(guest) == []


def test_more_events_than_a_log_holds_all_come(guest: Linux, device: Type3) -> None:
    """15 records is the log's depth; the others wait for room, which the guest makes."""
    pieces = [(BASE + 4 * number * MIB, 2 * MIB) for number in range(20)]
    offer = device.dynamic.add(selection=Selection.PRESCRIPTIVE, extents=pieces)
    assert events(guest) == [(ADD_CAPACITY, *piece, piece != pieces[-1]) for piece in pieces]
    assert raw(guest, ADD_RESPONSE, extents(*pieces)) == (SUCCESS, b"")
    assert accepted(guest) == pieces
    assert [(one.start, one.length) for one in offer.accepted] == pieces


@pytest.mark.parametrize(
    ("opcode", "payload", "code"),
    [
        (ADD_RESPONSE, extents((BASE, 2 * MIB)), ADDRESS),  # nothing was offered
        (RELEASE, extents((BASE, 2 * MIB)), ADDRESS),  # nothing was accepted
        (RELEASE, extents(), INPUT),
        (ADD_RESPONSE, extents((BASE, 2 * MIB))[:-1], LENGTH),
        (0x4800, b"\1", LENGTH),
        (0x4800, b"\1\2", INPUT),  # there are regions 0 and 1
        (0x4801, struct.pack("<II", 1, 1), INPUT),
        (0x4804, b"", UNSUPPORTED),
        (0xC000, b"", UNSUPPORTED),
    ],
)
def test_what_cannot_be_has_its_return_code(
    guest: Linux, device: Type3, opcode: int, payload: bytes, code: int
) -> None:
    assert raw(guest, opcode, payload) == (code, b"")


def test_what_the_kernel_keeps_for_itself(guest: Linux, device: Type3) -> None:
    """cxl_disabled_raw_commands, and all commands of security, until raw_allow_all says otherwise."""
    assert [raw(guest, opcode)[0] for opcode in (0x0202, 0x4101, 0x4103, 0x4204, 0x4305, 0x4500)] == [
        EPERM
    ] * 6
    guest.sh("echo Y > /sys/kernel/debug/cxl/mbox/raw_allow_all")
    assert raw(guest, 0x4500) == (SUCCESS, bytes(4))
    guest.sh("echo N > /sys/kernel/debug/cxl/mbox/raw_allow_all")


def test_raw_commands_are_those_of_the_effects_log(guest: Linux, device: Type3) -> None:
    """Of all opcodes of the standard's ranges that change nothing, those in the log are there, and no others."""
    logs = raw(guest, 0x0400)[1]
    sizes = {logs[at : at + 16]: struct.unpack_from("<I", logs, at + 16)[0] for at in range(8, len(logs), 20)}
    code, log = raw(guest, 0x0401, EFFECTS_LOG + struct.pack("<II", 0, sizes[EFFECTS_LOG]))
    assert code == SUCCESS
    logged = {opcode for (opcode, _effects) in struct.iter_unpack("<HH", log)}
    asked = (
        0x0001,
        0x0102,
        0x0200,
        0x0300,
        0x0400,
        0x4000,
        0x4200,
        0x4201,
        0x4203,
        0x4303,
        0x4800,
        0x4804,
        0x5600,
    )
    found = {opcode for opcode in asked if raw(guest, opcode)[0] != UNSUPPORTED}
    assert found == logged.intersection(asked)
    assert {0x0102, 0x4800} < found < set(asked)
