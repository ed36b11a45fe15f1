"""Tunnel Management Command into an MLD: libcxlmi's layout, and jack's, which is that of CXL 2.0: the message begins
with its MCTP type, and has its category in bits 7:4. Refusals are those of QEMU's cmd_tunnel_management_cmd."""

import struct

from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import GeneralMediaEvent
from tests.device.mld.conftest import GIB, Door

SUCCESS, STARTED, INPUT, UNSUPPORTED, LENGTH = 0x00, 0x01, 0x02, 0x03, 0x16
FM_OWNED, POOL = 0xFF, 1
DUMP = bytes.fromhex("b3fab4cf01b64332943e5e9962f23567")


def message(opcode, payload=b"", *, tag=0x5A, category=0, length=None):
    length = len(payload) if length is None else length
    return struct.pack("<BBxH3s4x", category, tag, opcode, length.to_bytes(3, "little")) + payload


def tunnel(to, inner, *, target=0, size=None):
    return struct.pack("<BBH", to, target, len(inner) if size is None else size) + inner


def through(door, to, opcode, payload=b"", **options):
    """(return code, payload) of the inner command, whose response is checked byte by byte."""
    code, answer = door.send(0x5300, tunnel(to, message(opcode, payload), **options))
    assert code == SUCCESS
    size, category, tag, echoed, length, inner, vendor = struct.unpack_from("<HxxBBxH3sHH", answer)
    length = int.from_bytes(length, "little")
    assert (category, tag, echoed, vendor) == (1, 0x5A, opcode, 0)
    assert length >> 23 == (inner == STARTED)
    assert (size, length & 0x1FFFFF) == (len(answer) - 4, len(answer) - 16)
    return inner, answer[16:]


def test_to_logical_devices(door):
    for ld, volatile, persistent in ((0, 4, 0), (1, 2, 1)):
        code, identity = through(door, ld, 0x4000)
        assert (code, len(identity)) == (SUCCESS, 69)
        assert struct.unpack_from("<16xQQQ", identity) == (volatile + persistent, volatile, persistent)
        code, identity = through(door, ld, 0x0001)
        assert struct.unpack("<HHHHQBB", identity)[4] == 0xC0FFEE01 ^ (ld + 1) << 48
        assert through(door, ld, 0x5400) == (UNSUPPORTED, b"")
        assert through(door, ld, 0x4102, struct.pack("<II", 0, 8)) == (
            (SUCCESS, bytes(8)) if ld else (INPUT, b"")
        )


def test_as_in_cxl_2(door):
    """jack's bytes: type 08h before the header, which the size counts, and the category of the answer is 10h."""
    inner = b"\x08" + message(0x4000)
    code, answer = door.send(0x5300, tunnel(0, inner))
    assert (code, answer[:6]) == (SUCCESS, struct.pack("<HHBB", 1 + 12 + 69, 0, 8, 0x10))
    assert answer[5:17] == struct.pack("<BBxHHBHH", 0x10, 0x5A, 0x4000, 69, 0, 0, 0)


def test_to_nothing(door):
    for to, target in ((2, 0), (4, 0), (16, 0), (254, 0), (FM_OWNED, 0), (0, POOL), (0, 2), (0, 15)):
        assert door.send(0x5300, tunnel(to, message(0x4000), target=target)) == (INPUT, b"")


def test_what_is_no_message(door):
    whole = message(0x4000)
    for inner, code in (
        (b"", LENGTH),
        (whole[:-1], LENGTH),
        (b"\x08" + whole[:-1], LENGTH),
        (message(0x4000, length=1), LENGTH),
        (message(0x4000, b"abc", length=2), LENGTH),
        (message(0x4000, category=1), INPUT),
        (message(0x4000, category=0x10), INPUT),
    ):
        assert door.send(0x5300, tunnel(0, inner)) == (code, b"")
    assert door.send(0x5300, tunnel(0, whole, size=13)) == (LENGTH, b"")
    assert door.send(0x5300, b"\0\0\0") == (LENGTH, b"")
    assert through(door, 0, 0x4000)[0] == SUCCESS


def test_three_layers(make):
    """By way of the pool of heads, which can be reached from itself: a device processes three layers, and no fourth."""
    door = Door(make(heads=2).heads[0].management)
    inner = message(0x5400)
    for layers in range(1, 5):
        code, answer = door.send(0x5300, tunnel(0, inner, target=POOL))
        assert code == SUCCESS
        for _ in range(layers):
            (result,) = struct.unpack_from("<H", answer, 12)
            answer = answer[16:]
            if result:
                break
        assert result == (SUCCESS if layers < 4 else UNSUPPORTED)
        assert answer == (struct.pack("<QHB", 6 * GIB, 4, 3) if layers < 4 else b"")
        inner = message(0x5300, tunnel(0, inner, target=POOL))
    assert through(door, 0, 0x4000)[0] == SUCCESS


def test_a_logical_device_that_is_another_one_now(door, pool):
    through(door, 0, 0x4000)
    pool.allocate({0: 0})
    assert door.send(0x5300, tunnel(0, message(0x4000))) == (INPUT, b"")
    pool.allocate({0: (0, GIB)})
    assert struct.unpack_from("<16xQQQ", through(door, 0, 0x4000)[1]) == (4, 0, 4)
    assert pool.logical[0].doors != []


def test_background_work_of_a_logical_device(door, clock):
    assert through(door, 0, 0x0404, DUMP) == (STARTED, b"")
    clock.advance(0.0625)
    assert through(door, 0, 0x0002)[1][:4] == struct.pack("<BxH", 62 << 1 | 1, 0x0404)
    assert door.send(0x0002) == (SUCCESS, bytes(8))
    assert through(door, 1, 0x0404, DUMP) == (STARTED, b"")
    clock.advance(1)
    assert through(door, 0, 0x0002)[1][:4] == struct.pack("<BxH", 100 << 1, 0x0404)


def test_events_of_logical_devices(door, pool):
    assert through(door, 1, 0x0105, b"\x08\0") == (SUCCESS, b"\x08\0")
    for device in pool.logical.values():
        device.record_event(EventLog.FATAL, GeneralMediaEvent())
    assert door.sent == [b"\x08\0"]
    assert through(door, 1, 0x0100, b"\x03")[1][20:22] == b"\1\0"
    assert door.send(0x0100, b"\x03")[1][20:22] == b"\0\0"


def test_a_closed_door_hears_nothing(door, pool):
    through(door, 1, 0x0105, b"\x08\0")
    door.cci.close()
    pool.logical[1].record_event(EventLog.FATAL, GeneralMediaEvent())
    assert (door.sent, pool.logical[1].doors) == ([], [])


def test_to_the_pool_of_heads(make):
    pool = make(heads=4)
    head = Door(pool.heads[0].management)
    told = struct.pack("<BBxxBBxx", 4, 4, 0, 4) + bytes(range(4))
    assert through(head, 0, 0x5500, b"\0\xff", target=POOL) == (SUCCESS, told)
    inner = message(0x5300, tunnel(1, message(0x4000)))
    code, answer = head.send(0x5300, tunnel(0, inner, target=POOL))
    assert (code, struct.unpack_from("<16x16xQ", answer[16:])[0]) == (SUCCESS, 3)
    head.cci.close()
    assert pool.logical[1].doors == []
