"""Event notifications over MCTP: struct cxlmi_cmd_get_mctp_event_interrupt_policy of libcxlmi is one 16-bit word, with
bits 0 to 4 for the logs and bit 15 for background operations."""

import struct

import pytest

from softcxl.device.cci import Background, Cci, CommandSet, Reply, command
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.notification import NotificationPolicy
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.events import (
    EVENT_NOTIFICATION,
    GET_MCTP_EVENT_INTERRUPT_POLICY,
    SET_MCTP_EVENT_INTERRUPT_POLICY,
    EventLog,
)
from softcxl.spec.command.media import SANITIZE
from softcxl.spec.cxl.events import GeneralMediaEvent
from softcxl.wire import Reset

MIB = 1 << 20


class Work(CommandSet):
    @command(SANITIZE)
    def sanitize(self):
        return Background(5, lambda: ReturnCode.SUCCESS)


class Door:
    """A CCI beside the mailbox, and what it sent."""

    def __init__(self, device, clock):
        self.sent: list[bytes] = []
        self.policy = NotificationPolicy(device.events, lambda request: self.sent.append(request.pack()))
        self.cci = Cci(clock, device.lock, payload_max=4096)
        self.cci.add([self.policy, Work()])
        self.cci.ended = self.policy.background_ended

    def ask(self, settings):
        return self.cci.execute(SET_MCTP_EVENT_INTERRUPT_POLICY.opcode, struct.pack("<H", settings))

    def asked(self):
        reply = self.cci.execute(GET_MCTP_EVENT_INTERRUPT_POLICY.opcode)
        assert reply.code == 0
        return struct.unpack("<H", reply.payload)[0]

    def taken(self):
        sent, self.sent = self.sent, []
        return [struct.unpack("<H", one)[0] for one in sent]


@pytest.fixture
def door(device, clock):
    return Door(device, clock)


def test_the_mailbox_has_none_of_it(device, send):
    for declared in (GET_MCTP_EVENT_INTERRUPT_POLICY, SET_MCTP_EVENT_INTERRUPT_POLICY, EVENT_NOTIFICATION):
        assert send(declared, b"\0\0") == (0x03, b"")


def test_policy(door):
    assert door.asked() == 0
    assert door.ask(0x8005) == Reply(ReturnCode.SUCCESS, b"\x05\x80")
    assert door.asked() == 0x8005


@pytest.mark.parametrize("settings", [1 << bit for bit in (4, 5, 8, 14)])
def test_what_the_device_does_not_have(door, settings):
    """Bit 4 is the dynamic capacity log's."""
    door.ask(1)
    assert door.ask(settings) == Reply(ReturnCode.INVALID_INPUT)
    assert door.asked() == 1


@pytest.mark.parametrize("payload", [b"", b"\0", b"\0\0\0"])
def test_lengths(door, payload):
    assert door.cci.execute(0x0105, payload) == Reply(ReturnCode.INVALID_PAYLOAD_LENGTH)


def test_a_log_is_told_of_when_it_was_empty(device, door):
    device.record_event(EventLog.WARNING, GeneralMediaEvent())
    assert door.taken() == []
    door.ask(1 << EventLog.FAILURE | 1 << EventLog.FATAL)
    for log in (EventLog.FAILURE, EventLog.FAILURE, EventLog.INFORMATIONAL, EventLog.FATAL):
        device.record_event(log, GeneralMediaEvent())
    assert door.taken() == [1 << EventLog.FAILURE, 1 << EventLog.FATAL]
    device.reset(Reset.COLD)  # empties the logs
    device.record_event(EventLog.FATAL, GeneralMediaEvent())
    assert door.taken() == [1 << EventLog.FATAL]
    door.policy.reset()
    device.reset(Reset.COLD)
    device.record_event(EventLog.FATAL, GeneralMediaEvent())
    assert door.taken() == []


def test_the_end_of_background_operations(door, clock):
    for settings, expected in ((0, []), (0x8000, [0x8000])):
        door.ask(settings)
        assert door.cci.execute(SANITIZE.opcode).code is ReturnCode.BACKGROUND_STARTED
        assert door.taken() == []
        clock.advance(5)
        assert door.taken() == expected


def test_dynamic_capacity(make, clock):
    device = make(dynamic=[DynamicRegion(length=64 * MIB)])
    door = Door(device, clock)
    assert door.ask(1 << 4).code is ReturnCode.SUCCESS
    device.dynamic.add(length=2 * MIB)
    device.dynamic.add(length=2 * MIB)
    assert door.taken() == [1 << 4]


def test_a_closed_door_hears_nothing(device, door):
    door.ask(0xF)
    door.policy.close()
    device.record_event(EventLog.FATAL, GeneralMediaEvent())
    assert door.taken() == []
