"""Any component: identity, limits, logs, events, tunnels, and endpoints that answer what they should not."""

import asyncio
import struct
from contextlib import aclosing
from uuid import UUID

import pytest

from softcxl.fm.component import Component
from softcxl.fm.device import Device
from softcxl.fm.errors import BadAnswer, CommandRefused, FmError
from softcxl.fm.switch import Switch
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.events import EventLog, MctpEventInterrupts
from softcxl.spec.command.information import IDENTIFY, ComponentType, IdentifyResponse, ResponseMessageLimit
from softcxl.spec.cxl.events import EventRecord
from softcxl.spec.fm.events import VirtualSwitchEvent
from softcxl.transport.mctp import Dialect
from tests.fm.scripted import switch_of, tunnelled

IDENTITY = struct.pack("<HHHHQBB", 0x1AF4, 2, 3, 4, 5, 12, 3)


def test_identity():
    component, link = switch_of({0x0001: IDENTITY}, Component)
    found = asyncio.run(component.identify())
    assert (found.vendor_id, found.serial_number, found.max_message_size) == (0x1AF4, 5, 12)
    assert found.component_type == ComponentType.TYPE_3
    assert link.asked == [(0x0001, b"")]


def test_identity_of_a_component_of_cxl_2():
    component, _ = switch_of({0x0001: IDENTITY[:17]}, Component)
    assert asyncio.run(component.identify()).component_type == 0xFF


def test_output_that_a_later_revision_has_more_of():
    component, _ = switch_of({0x0001: IDENTITY + b"more"}, Component)
    assert asyncio.run(component.identify()).serial_number == 5


@pytest.mark.parametrize("size", [0, 1, 16])
def test_output_that_is_too_short(size):
    component, _ = switch_of({0x0001: IDENTITY[:size]}, Component)
    with pytest.raises(
        BadAnswer, match=rf"^endpoint: Identify \(0001h\): IdentifyResponse: {size} bytes given"
    ):
        asyncio.run(component.identify())


def test_any_command():
    component, _ = switch_of({0xC123: lambda payload: (0x1234, payload[::-1])}, Component)
    answer = asyncio.run(component.execute(0xC123, b"abc"))
    assert (answer.code, answer.payload) == (0x1234, b"cba")


def test_any_command_as_records():
    component, link = switch_of({0x0001: IDENTITY, 0x0004: b"\x0a"}, Component)

    async def ask():
        identity = await component.request(0x0001)
        same = await component.request(IDENTIFY)
        assert isinstance(identity, IdentifyResponse)
        assert identity == same
        return await component.request(0x0004, ResponseMessageLimit(limit=10))

    assert asyncio.run(ask()) == ResponseMessageLimit(limit=10)
    assert link.inputs(0x0004) == ["0a"]


@pytest.mark.parametrize(("opcode", "given"), [(0x0004, None), (0x0001, ResponseMessageLimit(limit=8))])
def test_a_command_with_the_wrong_record(opcode, given):
    component, link = switch_of({}, Component)
    with pytest.raises(TypeError, match=r"takes (ResponseMessageLimit|no input), not"):
        asyncio.run(component.request(opcode, given))
    assert link.asked == []


def test_a_command_that_nobody_declares():
    component, _ = switch_of({}, Component)
    with pytest.raises(FmError, match=r"command \(C000h\) is not declared; execute\(\) sends what is not"):
        asyncio.run(component.request(0xC000))


def test_a_refusal_says_what_was_asked_and_what_came():
    component, _ = switch_of({0x0004: 0x0042}, Component, vendor_status=0x0102)
    with pytest.raises(CommandRefused) as refused:
        asyncio.run(component.set_response_message_limit(1024))
    assert (refused.value.code, refused.value.vendor_status) == (0x42, 0x0102)
    assert str(refused.value) == (
        "endpoint: Set Response Message Limit (0004h) of limit 10: a return code that is not known (0042h), "
        "vendor status 0102h"
    )


def test_message_limits():
    component, link = switch_of({0x0003: b"\x0c", 0x0004: b"\x0b"}, Component)
    assert asyncio.run(component.response_message_limit()) == 4096
    assert asyncio.run(component.set_response_message_limit(2048)) == 2048
    assert link.inputs(0x0004) == ["0b"]
    for size in (0, 255, 300, 1 << 21):
        with pytest.raises(ValueError, match="a power of two from 256 to 1048576"):
            asyncio.run(component.set_response_message_limit(size))


def test_a_message_limit_that_cannot_be():
    component, _ = switch_of({0x0003: b"\x40"}, Component)
    with pytest.raises(BadAnswer, match=r"2\^64 bytes"):
        asyncio.run(component.response_message_limit())


def test_the_clock():
    component, link = switch_of({0x0300: struct.pack("<Q", 77), 0x0301: b""}, Component)
    assert asyncio.run(component.timestamp()) == 77
    asyncio.run(component.set_timestamp(0x0102030405060708))
    assert link.inputs(0x0301) == ["0807060504030201"]


# -- logs ----------------------------------------------------------------------------------------------------

CEL = "0da9c0b5-bf41-4b78-8f79-96b1623b3f17"


def logs(entries, size=None):
    data = b"".join(struct.pack("<HH", opcode, effects) for opcode, effects in entries)

    def get(payload):
        identifier, offset, length = payload[:16], *struct.unpack_from("<II", payload, 16)
        assert identifier == UUID(CEL).bytes
        return 0, data[offset : offset + length]

    listed = UUID(CEL).bytes + struct.pack("<I", len(data) if size is None else size)
    return {0x0400: struct.pack("<H6x", 1) + listed, 0x0401: get}


def test_command_effects():
    component, _ = switch_of(logs([(0x0001, 0), (0x5201, 0x40)]), Component)
    found = asyncio.run(component.command_effects())
    assert [(one.opcode, bool(one.effects.background_operation)) for one in found] == [
        (1, False),
        (0x5201, True),
    ]


def test_a_log_comes_in_pieces():
    entries = [(opcode, opcode & 0xFFF) for opcode in range(0x4000, 0x4800)]
    component, link = switch_of(logs(entries), Component)
    assert [one.opcode for one in asyncio.run(component.command_effects())] == [one for one, _ in entries]
    assert len(link.inputs(0x0401)) == 3  # 8 KiB in pieces of 4 KiB less a header


def test_a_log_that_is_shorter_than_said():
    component, _ = switch_of(logs([(1, 0)], size=4096), Component)
    assert len(asyncio.run(component.command_effects())) == 1


@pytest.mark.parametrize(
    ("size", "says"), [(8, "8 bytes, 4 were asked for"), (3, "of 3 bytes, which is no multiple")]
)
def test_a_log_of_a_wrong_size(size, says):
    listed = UUID(CEL).bytes + struct.pack("<I", 4)
    component, _ = switch_of({0x0400: struct.pack("<H6x", 1) + listed, 0x0401: [bytes(size), b""]}, Component)
    with pytest.raises(BadAnswer, match=says):
        asyncio.run(component.command_effects())


def test_a_log_that_may_not_be_read():
    handlers = {one: handler for one, handler in logs([(1, 0)]).items() if one == 0x0400}
    component, _ = switch_of(handlers, Component)
    with pytest.raises(CommandRefused, match=rf"Get Log \(0401h\) of identifier {CEL}, offset 0, length 4"):
        asyncio.run(component.log(UUID(CEL)))


def test_a_log_that_there_is_not():
    component, _ = switch_of(logs([]), Component)
    with pytest.raises(FmError, match=f"there is no log {UUID(int=1)}; there are {CEL}"):
        asyncio.run(component.log(UUID(int=1)))


# -- events --------------------------------------------------------------------------------------------------

VIRTUAL_SWITCH = UUID("40d26425-3396-4c4d-a5da-3d47263af425")


def record(handle, identifier=VIRTUAL_SWITCH, data=b"\1\2\0\3\4\5"):
    return struct.pack("<16sB3sHHQ16x", identifier.bytes, 0x80, b"\0\0\0", handle, 0, 77) + data.ljust(
        0x50, b"\0"
    )


class Log:
    """Event logs behind Get and Clear Event Records, which returns two at a time."""

    def __init__(self, *records, page=2, keeps=False):
        self.records, self.page, self.keeps, self.overflow = list(records), page, keeps, 0

    def get(self, payload):
        assert payload == b"\1"
        shown = self.records[: self.page]
        flags = bool(self.overflow) | (len(self.records) > len(shown)) << 1
        return 0, struct.pack("<BxHQQH10x", flags, self.overflow, 5, 6, len(shown)) + b"".join(shown)

    def clear(self, payload):
        log, flags, count = payload[:3]
        handles = struct.unpack_from(f"<{count}H", payload, 6)
        assert log == 1
        if self.keeps:
            return 0, b""
        first = [struct.unpack_from("<H", one, 20)[0] for one in self.records[:count]]
        if flags & 1:
            self.records = []
        elif list(handles) != first:
            return ReturnCode.INVALID_HANDLE, b""
        else:
            self.records = self.records[count:]
        return 0, b""

    @property
    def handlers(self):
        return {0x0100: self.get, 0x0101: self.clear}


def test_events_are_read_as_what_they_are():
    log = Log(record(1), record(2, UUID(int=9)))
    log.overflow = 3
    component, _ = switch_of(log.handlers, Component)
    batch = asyncio.run(component.events(EventLog.WARNING))
    known, unknown = batch.records
    assert isinstance(known, VirtualSwitchEvent)
    assert (known.vcs, known.vppb, known.event_type, known.binding_status) == (1, 2, 0, 3)
    assert (known.bound_port, known.bound_ld, known.header.timestamp) == (4, 5, 77)
    assert isinstance(unknown, EventRecord)
    assert (batch.more, batch.lost, batch.first_lost, batch.last_lost) == (False, 3, 5, 6)


def test_taking_all_events_empties_the_log():
    log = Log(*map(record, range(1, 6)))
    component, _ = switch_of(log.handlers, Component)
    assert [one.header.handle for one in asyncio.run(component.take_events(EventLog.WARNING))] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert log.records == []
    assert asyncio.run(component.take_events(EventLog.WARNING)) == []


def test_a_log_that_does_not_empty():
    log = Log(*map(record, range(1, 6)), keeps=True)
    component, _ = switch_of(log.handlers, Component)
    with pytest.raises(BadAnswer, match="records of the warning log were cleared and are still there"):
        asyncio.run(component.take_events(EventLog.WARNING))


def test_clearing_events():
    log = Log(*map(record, range(1, 400)))
    component, link = switch_of(log.handlers, Component)
    asyncio.run(component.clear_events(EventLog.WARNING, range(1, 301)))
    assert len(log.records) == 99
    assert [int(one[4:6], 16) for one in link.inputs(0x0101)] == [255, 45]
    asyncio.run(component.clear_log(EventLog.WARNING))
    assert log.records == []
    assert link.inputs(0x0101)[-1] == "010100000000"


class Policy:
    """Get and Set MCTP Event Interrupt Policy."""

    def __init__(self, allowed=0xFFFF):
        self.value, self.allowed = 0x8000, allowed

    def set(self, payload):
        self.value = int.from_bytes(payload, "little") & self.allowed
        return 0, self.value.to_bytes(2, "little")

    @property
    def handlers(self):
        return {0x0104: lambda payload: (0, self.value.to_bytes(2, "little")), 0x0105: self.set}


def note(events):
    return 0x0106, events.to_bytes(2, "little")


def test_notifications():
    component, link = switch_of({}, Component)

    async def hear():
        for one in (note(0x0002), (0x0001, b""), note(0x8001), None):
            link.coming.put_nowait(one)
        return [int(events) async for events in component.notifications()]

    assert asyncio.run(hear()) == [0x0002, 0x8001]


def test_a_notification_that_is_cut_short():
    component, link = switch_of({}, Component)

    async def hear():
        link.coming.put_nowait((0x0106, b"\1"))
        return [one async for one in component.notifications()]

    with pytest.raises(BadAnswer, match=r"Event Notification \(0106h\): .*1 bytes given"):
        asyncio.run(hear())


def test_the_policy_of_notifications():
    policy = Policy(allowed=0x000F)
    component, _ = switch_of(policy.handlers, Component)
    asked = MctpEventInterrupts.make(warning=True, background_operation=True)
    assert int(asyncio.run(component.set_notification_policy(asked))) == 0x0002
    assert int(asyncio.run(component.notification_policy())) == 0x0002


def test_following_events_by_notification():
    log, policy = Log(record(1)), Policy()
    component, link = switch_of(log.handlers | policy.handlers, Component)

    async def follow():
        found = []
        async with aclosing(component.follow_events([EventLog.WARNING])) as events:
            found.append(await anext(events))
            log.records.append(record(2))
            link.coming.put_nowait(note(0x0002))
            found.append(await anext(events))
            link.coming.put_nowait(None)
            return found + [one async for one in events]

    found = asyncio.run(follow())
    assert [(log, event.header.handle) for log, event in found] == [
        (EventLog.WARNING, 1),
        (EventLog.WARNING, 2),
    ]
    assert policy.value == 0x8002  # what was asked for before stays


@pytest.mark.parametrize("handlers", [{}, Policy(allowed=0).handlers], ids=["unsupported", "not kept"])
def test_following_events_of_an_endpoint_that_notifies_of_none(handlers):
    log, asked = Log(record(1)), []

    async def pause(seconds):
        asked.append(seconds)
        log.records.append(record(1 + len(asked)))

    component, _ = switch_of(log.handlers | handlers, Component)
    component.pause = pause

    async def follow():
        async with aclosing(component.follow_events([EventLog.WARNING], every=0.5)) as events:
            return [(await anext(events))[1].header.handle for _ in range(3)]

    assert asyncio.run(follow()) == [1, 2, 3]
    assert asked == [0.5, 0.5]


def test_there_are_no_notifications_through_a_tunnel():
    switch, _ = switch_of({}, Switch)
    with pytest.raises(FmError, match="port 2 of endpoint: notifications come from the endpoint itself"):
        switch.port(2).notifications()


# -- tunnels -------------------------------------------------------------------------------------------------


def test_a_tunnel_to_a_device_and_another_one_to_its_logical_device():
    inner = tunnelled({0x0001: IDENTITY})
    seen = []

    def behind(payload):
        seen.append(payload[:2].hex())
        return inner(payload)

    def outer(payload):
        seen.append(payload[:2].hex())
        return tunnelled({0x5300: behind})(payload)

    switch, link = switch_of({0x5300: outer}, Switch)
    device = switch.port(2).ld(5)
    assert device.name == "LD 5 of port 2 of endpoint"
    assert asyncio.run(device.identify()).serial_number == 5
    assert seen == ["0200", "0500"]
    assert [opcode for opcode, _ in link.asked] == [0x5300]


def test_the_pool_of_a_multi_headed_device_is_another_target_type():
    device, link = switch_of({0x5300: tunnelled({0x0001: IDENTITY})}, Device)
    asyncio.run(device.pool.identify())
    assert link.inputs(0x5300)[0].startswith("0001")


def test_a_tunnelled_message_of_the_older_dialect_begins_with_its_type():
    handlers = {0x5300: tunnelled({0x0001: IDENTITY}, lead=b"\x08", category=0x10)}
    switch, link = switch_of(handlers, Switch, dialect=Dialect.CXL2)
    assert asyncio.run(switch.port(1).identify()).serial_number == 5
    # port, target type, 13 bytes, type 08h
    assert link.inputs(0x5300)[0].startswith("01000d0008")


def test_a_refused_tunnel_is_the_tunnels_refusal():
    switch, _ = switch_of({0x5300: ReturnCode.INVALID_INPUT}, Switch)
    with pytest.raises(CommandRefused) as refused:
        asyncio.run(switch.port(9).identify())
    assert refused.value.code == ReturnCode.INVALID_INPUT
    assert str(refused.value) == (
        "endpoint: Tunnel Management Command (5300h) to port 9 with Identify (0001h): Invalid Input (0002h)"
    )


def test_a_refusal_inside_a_tunnel_is_the_devices():
    switch, _ = switch_of({0x5300: tunnelled({})}, Switch)
    with pytest.raises(
        CommandRefused, match=r"^port 9 of endpoint: Identify \(0001h\): Unsupported \(0003h\)$"
    ):
        asyncio.run(switch.port(9).identify())


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "TunnelResponse: 0 bytes given"),
        (struct.pack("<HH", 40, 0) + bytes(10), "has 10 bytes, its size is said to be 40"),
    ],
)
def test_a_tunnel_that_lies(payload, says):
    switch, _ = switch_of({0x5300: payload}, Switch)
    with pytest.raises(BadAnswer, match=f"^port 1 of endpoint: .*{says}") as error:
        asyncio.run(switch.port(1).identify())
    assert error.value.exit_code == 3


@pytest.mark.parametrize(
    ("bend", "says"),
    [
        (lambda data: b"", "has 0 bytes, its header alone 12"),
        (lambda data: data[:11], "has 11 bytes, its header alone 12"),
        (lambda data: b"\0" + data[1:], "has category byte 00h, which is no response's"),
        (lambda data: b"\x10" + data[1:], "has category byte 10h, which is no response's"),
        (lambda data: data[:1] + b"\x99" + data[2:], "has tag 99h, the request 00h"),
        (
            lambda data: data[:3] + b"\x02" + data[4:],
            r"says that it is one to Background Operation Status \(0002h\)",
        ),
        (lambda data: data[:-1], "has a payload of 17 bytes, its header says 18"),
        (lambda data: data[:5] + b"\x13" + data[6:], "has a payload of 18 bytes, its header says 19"),
        (lambda data: data + b"!", "has a payload of 19 bytes, its header says 18"),
    ],
)
def test_a_component_behind_a_tunnel_that_lies(bend, says):
    switch, _ = switch_of({0x5300: tunnelled({0x0001: IDENTITY}, bend=bend)}, Switch)
    with pytest.raises(BadAnswer, match=rf"^port 1 of endpoint: the response to Identify \(0001h\) {says}$"):
        asyncio.run(switch.port(1).identify())


def test_a_tunnelled_message_of_the_older_dialect_without_its_type():
    handlers = {
        0x5300: tunnelled({0x0001: IDENTITY}, lead=b"\x08", category=0x10, bend=lambda data: data[1:])
    }
    switch, _ = switch_of(handlers, Switch, dialect=Dialect.CXL2)
    with pytest.raises(BadAnswer, match="begins with message type 10h, not 08h"):
        asyncio.run(switch.port(1).identify())


def test_each_tunnelled_request_has_a_tag_of_its_own():
    tags = []

    def bend(data):
        tags.append(data[1])
        return data

    handler = tunnelled({0x0001: IDENTITY}, bend=bend)
    switch, _ = switch_of({0x5300: handler}, Switch)
    device = switch.port(1)

    async def many():
        await asyncio.gather(*(device.identify() for _ in range(257)))

    asyncio.run(many())
    assert tags == [*range(256), 0]


def test_a_device_that_answers_garbage_to_what_it_has_not_is_taken_for_an_ordinary_one():
    # As CSE does through tunnels: what was in its buffer before.
    outer = {0x5300: tunnelled({}, bend=lambda data: b"\0" + data[1:]), 0x0001: IDENTITY, 0x0003: b"\x0c"}
    device, _ = switch_of(outer, Device)
    assert asyncio.run(device.ld(1).room()) == 4096 - 12 - 4 - 12


def test_a_tunnel_has_less_room():
    device, _ = switch_of({0x5300: tunnelled({0x0001: IDENTITY}), 0x0001: IDENTITY, 0x0003: b"\x0b"}, Device)
    # 2^12 of the inner one, 2^11 of the outer one: less its header, the tunnel's 4 and the inner header
    assert asyncio.run(device.ld(1).room()) == 2048 - 12 - 4 - 12
