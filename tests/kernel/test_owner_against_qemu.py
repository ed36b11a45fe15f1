"""A fabric manager's commands for dynamic capacity to our device and to QEMU's cxl-type3, which takes them by a tunnel
through its switch's mailbox CCI: each difference is explained in docs/spec-errata.md, whose table is read here.

Beside them the host answers, by the device's own mailbox.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.type3 import Type3
from softcxl.lab.parts import Parts
from softcxl.testing.driver import Driver
from tests.kernel.peer import QemuBelowSwitch
from tests.kernel.test_against_qemu import CODES, VERSION, Answer, explained, told

MIB = 1 << 20
OBJECTS = ["memory-backend-ram,id=v,size=256M", "memory-backend-ram,id=d,size=512M"]
PROPERTIES = "volatile-memdev=v,volatile-dc-memdev=d,num-dc-regions=2,sn=0x1234"
BASE, BLOCK = 256 * MIB, 2 * MIB
SECOND = 512 * MIB
TAG = bytes(range(16))
FREE, CONTIGUOUS, PRESCRIPTIVE = range(3)
BY_TAG, BY_EXTENT, FORCED = 0, 1, 1 << 4

Step = tuple[str, str, int, bytes]
"""What it is about, by whom ("fm" or "host"), opcode, payload."""


def extents(*given: tuple[int, ...]) -> bytes:
    """uint32_t ext_count, then start_dpa, len, tag, shared_seq, rsvd each (api-types.h of libcxlmi)."""
    records = (struct.pack("<QQ16sH6x", one[0], one[1], bytes(16), 0) for one in given)
    return struct.pack("<I", len(given)) + b"".join(records)


def add(label: str, policy: int, *given: tuple[int, int], host: int = 0, length: int = 0) -> Step:
    return label, "fm", 0x5604, struct.pack("<HBBQ16s", host, policy, 0, length, bytes(16)) + extents(*given)


def release(label: str, flags: int, *given: tuple[int, int]) -> Step:
    return label, "fm", 0x5605, struct.pack("<HBxQ16s", 0, flags, 0, bytes(16)) + extents(*given)


def lists(label: str, count: int = 9, start: int = 0, host: int = 0) -> Step:
    return label, "fm", 0x5603, struct.pack("<H2xII", host, count, start)


def configure(label: str, region: int, size: int, flags: int = 0) -> Step:
    return label, "fm", 0x5602, struct.pack("<B3xQB3x", region, size, flags)


def answer(label: str, opcode: int, *given: tuple[int, int]) -> Step:
    payload = struct.pack("<I4x", len(given)) + b"".join(struct.pack("<QQ8x", *one) for one in given)
    return label, "host", opcode, payload


ACCEPT, GIVE_BACK = 0x4802, 0x4803

SCENARIOS: dict[str, list[Step]] = {
    "owner, regions": [
        ("information", "fm", 0x5600, b""),
        ("information, with a payload", "fm", 0x5600, b"\0"),
        ("the configuration", "fm", 0x5601, struct.pack("<HBB", 0, 8, 0)),
        ("one region of it", "fm", 0x5601, struct.pack("<HBB", 0, 1, 1)),
        ("none of it", "fm", 0x5601, struct.pack("<HBB", 0, 0, 0)),
        ("a region that is not there", "fm", 0x5601, struct.pack("<HBB", 0, 1, 2)),
        ("too short", "fm", 0x5601, b"\0\0\1"),
        configure("configured as it is", 0, BLOCK),
        configure("no power of two", 0, 3 * MIB),
        configure("blocks of nothing", 0, 0),
        configure("another setting of what is erased", 1, BLOCK, 1),
    ],
    "owner, adding": [
        lists("an empty list"),
        lists("a list beyond its end", start=1),
        lists("a host that is not there", host=1),
        add("two extents", PRESCRIPTIVE, (BASE, 2 * BLOCK), (BASE + 8 * BLOCK, BLOCK)),
        add("what is offered", PRESCRIPTIVE, (BASE + BLOCK, BLOCK)),
        add("twice the same", PRESCRIPTIVE, (BASE + 20 * BLOCK, BLOCK), (BASE + 20 * BLOCK, BLOCK)),
        add("off the blocks", PRESCRIPTIVE, (BASE + 20 * BLOCK + 4096, BLOCK)),
        add("of no length", PRESCRIPTIVE, (BASE + 20 * BLOCK, 0)),
        add("before the regions", PRESCRIPTIVE, (0, BLOCK)),
        add("after the regions", PRESCRIPTIVE, (768 * MIB, BLOCK)),
        add("over the end of a region", PRESCRIPTIVE, (SECOND - BLOCK, 2 * BLOCK)),
        add("by a policy that there is not", 9),
        lists("the list as long as nobody answers"),
        answer("the host takes both", ACCEPT, (BASE, 2 * BLOCK), (BASE + 8 * BLOCK, BLOCK)),
        lists("the list then"),
        lists("its second one", 9, 1),
        lists("its end", 9, 2),
        add("what the host has", PRESCRIPTIVE, (BASE, BLOCK)),
        configure("a region with extents", 0, BLOCK),
        ("the configuration", "fm", 0x5601, struct.pack("<HBB", 0, 8, 0)),
    ],
    "owner, taking": [
        add("an extent", PRESCRIPTIVE, (BASE, 4 * BLOCK)),
        release("what is only offered", BY_EXTENT, (BASE, BLOCK)),
        answer("the host takes it", ACCEPT, (BASE, 4 * BLOCK)),
        release("what nobody has", BY_EXTENT, (BASE + 8 * BLOCK, BLOCK)),
        release("more than the host has", BY_EXTENT, (BASE + 3 * BLOCK, 2 * BLOCK)),
        release("off the blocks", BY_EXTENT, (BASE + 4096, BLOCK)),
        release("before the regions", BY_EXTENT, (0, BLOCK)),
        release("twice the same", BY_EXTENT, (BASE, BLOCK), (BASE, BLOCK)),
        release("by a policy that there is not", 7),
        release("a part", BY_EXTENT, (BASE + BLOCK, BLOCK)),
        lists("the list until the host gives it back"),
        answer("the host gives it back", GIVE_BACK, (BASE + BLOCK, BLOCK)),
        lists("the list then"),
    ],
}


@pytest.fixture
def ours() -> Iterator[Type3]:
    device = Type3(
        "mem0",
        volatile=256 * MIB,
        dynamic=[DynamicRegion(length=256 * MIB), DynamicRegion(length=256 * MIB)],
        serial=0x1234,
        clock=ManualClock(),
    )
    yield device
    device.close()


class Tunnel:
    """A fabric manager's way to QEMU's device: commands in commands, to the port below which it is (opcode 5300h:
    port, target type, size, then a CCI message)."""

    def __init__(self, peer: QemuBelowSwitch) -> None:
        self._driver = Driver(peer.cci)

    def send(self, opcode: int, payload: bytes) -> tuple[int, bytes]:
        message = struct.pack("<BBxHHBHH", 0, 1, opcode, len(payload), 0, 0, 0) + payload
        code, reply = self._driver.send(0x5300, struct.pack("<BBH", 0, 0, len(message)) + message)
        assert code == 0, f"the tunnel answers {CODES[code]}"
        (size,) = struct.unpack_from("<H", reply)
        category, tag, echoed, code = struct.unpack_from("<BBxH3xH", reply, 4)
        assert (category, tag, echoed, size) == (1, 1, opcode, len(reply) - 4)
        return code, reply[16:]


def words(code: int, reply: bytes) -> Answer:
    return CODES[code], reply


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_differences_are_explained(scenario: str, ours: Type3, parts: Parts) -> None:
    if parts.qemu.version != VERSION:
        pytest.skip(f"the table is of QEMU {VERSION}, and this is {parts.qemu.version}")
    door, differences = ours.management(lambda notification: None), {}
    with QemuBelowSwitch(parts, OBJECTS, PROPERTIES) as peer:
        tunnel, host, own = Tunnel(peer), Driver(peer), Driver(ours)
        for label, who, opcode, payload in SCENARIOS[scenario]:
            if who == "host":
                mine, other = words(*own.send(opcode, payload)), words(*host.send(opcode, payload))
            else:
                reply = door.execute(opcode, payload)
                mine, other = words(reply.code, reply.payload), words(*tunnel.send(opcode, payload))
            if mine != other:
                differences[label] = told((mine, other))
    assert differences == explained(scenario)
