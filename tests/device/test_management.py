"""A door beside the mailbox: layouts of struct cxlmi_cmd_identify_rsp, cxlmi_cmd_bg_op_status_rsp,
cxlmi_cmd_get_response_msg_limit_rsp and cxlmi_cmd_get_mctp_event_interrupt_policy_rsp of libcxlmi."""

import struct

import pytest

from softcxl.device.cci import Reply
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import GeneralMediaEvent
from softcxl.wire import Reset

SUCCESS, STARTED, INVALID_INPUT, UNSUPPORTED, BUSY, ABORTED, LENGTH = 0x00, 0x01, 0x02, 0x03, 0x06, 0x12, 0x16
CEL = bytes.fromhex("0da9c0b5bf414b788f7996b1623b3f17")
DUMP = bytes.fromhex("b3fab4cf01b64332943e5e9962f23567")
OWN = {0x0001, 0x0002, 0x0003, 0x0004, 0x0104, 0x0105}
OF_MAILBOXES = {0x0102, 0x0103}


class Door:
    def __init__(self, device):
        self.sent: list[bytes] = []
        self.cci = device.management(lambda request: self.sent.append(request.pack()))

    def send(self, opcode, payload=b""):
        reply = self.cci.execute(opcode, payload)
        return reply.code, reply.payload

    def effects(self):
        listed = self.send(0x0400)[1]
        sizes = dict(struct.iter_unpack("<16sI", listed[8:]))
        return self.send(0x0401, CEL + struct.pack("<II", 0, sizes[CEL]))[1]

    def background(self):
        code, payload = self.send(0x0002)
        assert (code, len(payload)) == (SUCCESS, 8)
        status, opcode, result, vendor = struct.unpack("<BxHHH", payload)
        return status & 1, status >> 1, opcode, result, vendor


@pytest.fixture
def door(device):
    return Door(device)


def test_the_mailbox_has_none_of_it(door, driver):
    for opcode in OWN:
        assert driver.send(opcode, b"")[0] == UNSUPPORTED


def test_identify(make):
    door = Door(make(vendor_id=0x1234, device_id=0xABCD, payload=1024))
    assert door.send(0x0001) == (SUCCESS, struct.pack("<HHHHQBB", 0x1234, 0xABCD, 0, 0, 0xC0FFEE01, 10, 3))


def test_response_message_limit(door):
    assert door.send(0x0003) == (SUCCESS, b"\x0c")
    for wanted in (12, 13, 20):
        assert door.send(0x0004, bytes([wanted])) == (SUCCESS, b"\x0c")
    for wanted in (0, 7, 8, 11, 21, 255):
        assert door.send(0x0004, bytes([wanted])) == (INVALID_INPUT, b"")
    assert door.send(0x0003) == (SUCCESS, b"\x0c")
    assert door.send(0x0004) == (LENGTH, b"")


def test_commands(door, driver):
    """Those of the mailbox, without its interrupts, and its own; each interface's log tells of itself."""
    size = dict(struct.iter_unpack("<16sI", driver.send(0x0400)[1][8:]))[CEL]
    mailbox = driver.send(0x0401, CEL + struct.pack("<II", 0, size))[1]
    theirs, ours = (dict(struct.iter_unpack("<HH", log)) for log in (mailbox, door.effects()))
    assert set(ours) == set(theirs) - OF_MAILBOXES | OWN
    assert {opcode: ours[opcode] for opcode in set(ours) - OWN} == {
        opcode: theirs[opcode] for opcode in set(theirs) - OF_MAILBOXES
    }
    assert [ours[opcode] for opcode in sorted(OWN)] == [0, 0, 0, 0, 0, 1 << 3]
    for opcode in (*OF_MAILBOXES, 0x0106, 0x5100, 0xC000):
        assert door.send(opcode) == (UNSUPPORTED, b"")
    for opcode in (0x4000, 0x4200, 0x4700):
        assert door.send(opcode) == driver.send(opcode)
    assert door.send(0x4701, bytes([0, 20, 40, 4])) == (SUCCESS, b"")
    assert driver.send(0x4700) == (SUCCESS, bytes([0, 20, 40, 4]))
    assert door.send(0x4103, bytes(4097)) == (LENGTH, b"")


def test_one_background_operation(door, driver, clock):
    assert door.background() == (0, 0, 0, 0, 0)
    for first, second in ((door, driver), (driver, door)):
        assert first.send(0x0404, DUMP) == (STARTED, b"")
        clock.advance(0.0625)
        assert door.background() == (1, 62, 0x0404, 0, 0)
        assert second.send(0x0404, DUMP) == (BUSY, b"")
        clock.advance(1)
        assert door.background() == (0, 100, 0x0404, 0, 0)
        assert driver.background() == (False, 0x0404, 100, SUCCESS)
    driver.send(0x0404, DUMP)
    assert door.send(0x0005) == (SUCCESS, b"")
    assert door.background() == (0, 0, 0x0404, ABORTED, 0)


def test_notifications(device, door, driver, clock):
    other = Door(device)
    assert door.send(0x0105, b"\x08\x80") == (SUCCESS, b"\x08\x80")
    assert (door.send(0x0104), other.send(0x0104)) == ((SUCCESS, b"\x08\x80"), (SUCCESS, b"\0\0"))
    device.record_event(EventLog.FATAL, GeneralMediaEvent())
    driver.send(0x0404, DUMP)
    assert door.sent == [b"\x08\0"]
    clock.advance(1)
    assert (door.sent, other.sent) == ([b"\x08\0", b"\0\x80"], [])
    device.reset(Reset.FLR)
    assert door.send(0x0104) == (SUCCESS, b"\x08\x80")
    device.reset(Reset.HOT)
    assert door.send(0x0104) == (SUCCESS, b"\0\0")


def test_a_closed_door_hears_nothing(device, door, driver, clock):
    door.send(0x0105, b"\x08\x80")
    door.cci.close()
    device.record_event(EventLog.FATAL, GeneralMediaEvent())
    driver.send(0x0404, DUMP)
    clock.advance(1)
    assert door.sent == []


def test_faults_are_met_at_this_door_too(device, door):
    device.inject.fail(0x4000, ReturnCode.RETRY_REQUIRED, times=1)
    assert door.cci.execute(0x4000) == Reply(ReturnCode.RETRY_REQUIRED)
    assert door.send(0x4000)[0] == SUCCESS
