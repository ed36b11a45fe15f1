"""What commands do, as their Command Effects Log says it: configuration, data, policy or logs, at once, and nothing
more after a reset of whatever kind (CXL 3.1 §8.2.9.5.2.1)."""

import struct

import pytest

from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import GeneralMediaEvent
from softcxl.wire import Reset
from tests.device.mld.conftest import Door
from tests.device.mld.test_owner import CEL, COMMANDS
from tests.device.mld.test_tunnels import message, tunnel

CONFIGURATION, DATA, POLICY, LOGS = (1 << bit for bit in (1, 2, 3, 4))
AFTER_RESETS = 1 | 1 << 10 | 1 << 11
SUCCESS = 0

DOING = {
    0x0101: struct.pack("<BBBxxxH", 3, 0, 1, 1),
    0x0105: b"\x02\0",
    0x0301: struct.pack("<Q", 10**18),
    0x5402: struct.pack("<BBxxQQQQ", 2, 1, 0, 0, 1, 1),
    0x5404: struct.pack("<BBBBHB", 1, 20, 40, 4, 7, 9),
    0x5407: b"\1\0\x40",
    0x5409: b"\1\0\x80",
}
ASKING = {
    0x0004: b"\x0d",
    0x0100: b"\3",
    0x0401: CEL + struct.pack("<II", 0, 4),
    0x5300: tunnel(0, message(0x4000)),
    **dict.fromkeys((0x5406, 0x5408), b"\1\0"),
    0x5401: b"\0\1",
}


def facets(pool, door):
    """What there is of each kind that effects are about."""
    configuration = [
        door.send(*one) for one in ((0x5400,), (0x5401, b"\0\xff"), (0x5406, b"\4\0"), (0x5408, b"\4\0"))
    ]
    return {
        CONFIGURATION: (configuration, sorted(pool.logical)),
        DATA: {ld: device.space.read(0, 6) for ld, device in pool.logical.items()},
        POLICY: [door.send(opcode) for opcode in (0x0104, 0x0300, 0x5403)],
        LOGS: door.send(0x0100, b"\3"),
    }


@pytest.fixture
def effects(door):
    return dict(
        struct.iter_unpack("<HH", door.send(0x0401, CEL + struct.pack("<II", 0, 4 * len(COMMANDS)))[1])
    )


@pytest.mark.parametrize("opcode", sorted(COMMANDS))
def test_at_once(pool, door, effects, opcode):
    for device in pool.logical.values():
        device.space.write(0, b"secret")
    pool.record_event(EventLog.FATAL, GeneralMediaEvent())
    before = facets(pool, door)
    assert door.send(opcode, DOING.get(opcode, ASKING.get(opcode, b"")))[0] == SUCCESS
    after = facets(pool, door)
    assert {one for one in after if after[one] != before[one]} == {
        one for one in before if effects[opcode] & one
    }


@pytest.mark.parametrize("kind", [Reset.HOT, Reset.COLD], ids=lambda kind: kind.name)
@pytest.mark.parametrize("opcode", sorted(DOING))
def test_a_reset_adds_nothing(make, opcode, kind):
    """A device that has had the command, and one that has not, differ after a reset in what differed before, but for
    what the reset takes back."""

    def after(*, had):
        pool = make()
        door = Door(pool.management)
        pool.record_event(EventLog.FATAL, GeneralMediaEvent())
        if had:
            door.send(opcode, DOING[opcode])
        first = facets(pool, door)
        pool.reset(kind)
        return door, first, facets(pool, door)

    (door, one, then), (_, other, as_well) = after(had=True), after(had=False)
    assert {name for name in then if then[name] != as_well[name]} <= {
        name for name in one if one[name] != other[name]
    }
    assert then[CONFIGURATION] == one[CONFIGURATION]
    entries = dict(
        struct.iter_unpack("<HH", door.send(0x0401, CEL + struct.pack("<II", 0, 4 * len(COMMANDS)))[1])
    )
    assert not entries[opcode] & AFTER_RESETS
