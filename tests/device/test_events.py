"""Event logs: records, handles, overflow, More, clearing, interrupts. Layouts: libcxlmi src/cxlmi/api-types.h."""

import struct
from uuid import UUID

import pytest

from softcxl.device.dynamic.region import DynamicRegion
from softcxl.spec.command.events import (
    CLEAR_EVENT_RECORDS,
    GET_EVENT_INTERRUPT_POLICY,
    GET_EVENT_RECORDS,
    SET_EVENT_INTERRUPT_POLICY,
    EventLog,
)
from softcxl.spec.command.timestamp import SET_TIMESTAMP
from softcxl.spec.cxl.events import (
    DramEvent,
    DynamicCapacityEvent,
    EventHeader,
    GeneralMediaEvent,
    MemoryModuleEvent,
)
from softcxl.testing.driver import MSI, MSIX, Driver, Machine
from softcxl.wire import Reset

LOGS = list(EventLog)[:4]
INVALID_INPUT, INVALID_HANDLE, LENGTH = 0x02, 0x0E, 0x16
OVERFLOW, MORE = 1, 2
IDENTIFIER = UUID("12345678-9abc-def0-1234-56789abcdef0")


def event(number=0):
    return GeneralMediaEvent(header=EventHeader(identifier=IDENTIFIER, related_handle=number))


class Reply:
    """Get Event Records output, taken apart by libcxlmi's struct cxlmi_cmd_get_event_records_rsp."""

    def __init__(self, payload):
        (self.flags, self.overflow, self.first, self.last, self.count) = struct.unpack_from(
            "<BxHQQH10x", payload
        )
        self.records = [payload[at : at + 0x80] for at in range(0x20, len(payload), 0x80)]
        assert len(self.records) == self.count
        self.handles = [struct.unpack_from("<H", record, 0x14)[0] for record in self.records]
        self.related = [struct.unpack_from("<H", record, 0x16)[0] for record in self.records]


def get(send, log):
    code, payload = send(GET_EVENT_RECORDS, bytes([log]))
    assert code == 0
    return Reply(payload)


def clear(send, log, *handles, flags=0):
    return send(
        CLEAR_EVENT_RECORDS, struct.pack(f"<BBB3x{len(handles)}H", log, flags, len(handles), *handles)
    )


def status(driver):
    return driver.read32(2, driver.capabilities[1][0])


@pytest.mark.parametrize("log", LOGS)
def test_a_record_as_drivers_read_it(device, driver, send, log):
    send(SET_TIMESTAMP, struct.pack("<Q", 1_700_000_000_000_000_000))
    made = event(7)
    made.address.dpa = 0x1000 // 64
    made.address.volatile = True
    assert device.record_event(log, made)
    assert status(driver) == 1 << log
    reply = get(send, log)
    assert (reply.flags, reply.overflow, reply.count) == (0, 0, 1)
    (record,) = reply.records
    identifier, length, flags, handle, related, timestamp = struct.unpack_from("<16sB3sHHQ", record)
    assert UUID(bytes=identifier) == IDENTIFIER
    assert length == 0x80
    assert int.from_bytes(flags, "little") & 3 == log  # severity
    assert (handle, related) == (1, 7)
    assert timestamp == 1_700_000_000_000_000_000
    assert struct.unpack_from("<Q", record, 0x30) == (0x1001,)
    for other in LOGS:
        assert get(send, other).count == (other == log)
    assert clear(send, log, handle) == (0, b"")
    assert status(driver) == 0
    assert get(send, log).count == 0


def test_records_of_all_kinds_are_128_bytes(device, send):
    for made in (GeneralMediaEvent(), DramEvent(), MemoryModuleEvent()):
        device.record_event(EventLog.WARNING, made)
    assert get(send, EventLog.WARNING).count == 3


def test_there_is_no_dynamic_capacity_log(device, send):
    assert send(GET_EVENT_RECORDS, b"\4") == (INVALID_INPUT, b"")
    assert clear(send, 4) == (INVALID_INPUT, b"")
    with pytest.raises(ValueError, match="INFORMATIONAL, WARNING, FAILURE, FATAL"):
        device.record_event(EventLog.DYNAMIC_CAPACITY, event())


def test_logs_that_the_standard_does_not_have(send):
    for log in (5, 0xFF):
        assert send(GET_EVENT_RECORDS, bytes([log])) == (INVALID_INPUT, b"")
        assert clear(send, log) == (INVALID_INPUT, b"")


def test_more_is_set_while_a_reply_does_not_hold_all(make):
    device = make(payload=512, event_log_depth=10)  # room for three records
    driver = Driver(device)

    def send(command, payload=b""):
        return driver.send(command.opcode, payload)

    for number in range(7):
        device.record_event(EventLog.FATAL, event(number))
    seen = []
    for count, flags in ((3, MORE), (3, MORE), (1, 0)):
        reply = get(send, EventLog.FATAL)
        assert (reply.count, reply.flags) == (count, flags)
        seen += reply.related
        clear(send, EventLog.FATAL, *reply.handles)
    assert seen == list(range(7))
    assert status(driver) == 0


def test_overflow(device, clock, send):
    """cxl_test's mock has logs 15 deep too (tools/testing/cxl/test/mem.c)."""
    send(SET_TIMESTAMP, struct.pack("<Q", 10_000_000_000))
    for number in range(15):
        assert device.record_event(EventLog.INFORMATIONAL, event(number))
    assert get(send, EventLog.INFORMATIONAL).flags == 0
    for _ in range(3):
        clock.advance(1)
        assert not device.record_event(EventLog.INFORMATIONAL, event(99))
    reply = get(send, EventLog.INFORMATIONAL)
    assert (reply.flags, reply.overflow) == (OVERFLOW, 3)
    assert (reply.first, reply.last) == (11_000_000_000, 13_000_000_000)
    assert reply.related == list(range(15))
    assert clear(send, EventLog.INFORMATIONAL, reply.handles[0])[0] == 0
    reply = get(send, EventLog.INFORMATIONAL)
    assert (reply.flags, reply.overflow, reply.first, reply.last, reply.count) == (0, 0, 0, 0, 14)
    assert device.record_event(EventLog.INFORMATIONAL, event(100))


def test_overflow_count_stays_at_its_largest(device, send):
    device.events.logs[EventLog.FATAL].depth = 1
    for _ in range(0x10005):
        device.record_event(EventLog.FATAL, event())
    assert get(send, EventLog.FATAL).overflow == 0xFFFF


def test_clear_all_only_after_an_overflow(device, driver, send):
    for _ in range(15):
        device.record_event(EventLog.WARNING, event())
    assert clear(send, EventLog.WARNING, flags=1) == (INVALID_INPUT, b"")
    device.record_event(EventLog.WARNING, event())
    assert clear(send, EventLog.WARNING, 1, flags=1) == (INVALID_INPUT, b"")
    assert get(send, EventLog.WARNING).count == 15
    assert clear(send, EventLog.WARNING, flags=1) == (0, b"")
    reply = get(send, EventLog.WARNING)
    assert (reply.count, reply.flags) == (0, 0)
    assert status(driver) == 0


@pytest.mark.parametrize(
    "handles", [(2,), (1, 3), (2, 1), (3, 2, 1), (1, 1), (0,), (1, 2, 3, 4), (0xFFFF,)], ids=str
)
def test_handles_are_cleared_oldest_first(device, send, handles):
    """An older record would be left: Invalid Handle, and nothing is cleared (CXL 3.1 §8.2.9.2.3)."""
    for _ in range(3):
        device.record_event(EventLog.FAILURE, event())
    assert clear(send, EventLog.FAILURE, *handles) == (INVALID_HANDLE, b"")
    assert get(send, EventLog.FAILURE).handles == [1, 2, 3]
    assert clear(send, EventLog.FAILURE) == (0, b"")
    assert get(send, EventLog.FAILURE).count == 3
    assert clear(send, EventLog.FAILURE, 1, 2, 3) == (0, b"")


def test_the_number_of_handles_and_the_length_agree(send):
    for payload in (bytes(5), bytes(7), b"\0\0\2\0\0\0\1\0", b"\0\0\0\0\0\0\1\0", b"\0\0\1\0\0\0\1"):
        assert send(CLEAR_EVENT_RECORDS, payload) == (LENGTH, b"")


def test_handles_wrap_past_zero(device, send):
    device.events.logs[EventLog.FATAL]._handle = 0xFFFE
    device.record_event(EventLog.FATAL, event())
    device.record_event(EventLog.FATAL, event())
    assert get(send, EventLog.FATAL).handles == [0xFFFF, 1]


# -- interrupts ----------------------------------------------------------------------------------------------


def test_policy_as_linux_sets_it(send):
    """cxl_event_config_msgnums sends four bytes and reads four back; five are the standard's."""
    assert send(GET_EVENT_INTERRUPT_POLICY) == (0, bytes(5))
    assert send(SET_EVENT_INTERRUPT_POLICY, b"\1\1\1\1") == (0, b"")
    code, payload = send(GET_EVENT_INTERRUPT_POLICY)
    assert (code, payload) == (0, b"\1\1\1\1\0")
    assert send(SET_EVENT_INTERRUPT_POLICY, b"\0\2\0\1\1") == (0, b"")
    assert send(GET_EVENT_INTERRUPT_POLICY)[1] == b"\0\2\0\1\1"


def test_message_numbers_are_the_device_s(make):
    driver = Driver(make(interrupts="msix"))
    assert driver.send(0x0103, b"\xf1\xf1\xf1\xf1\xf1")[0] == 0
    # one vector for each log; dynamic capacity has the informational log's
    assert driver.send(0x0102) == (0, b"\x11\x21\x31\x41\x11")


@pytest.mark.parametrize("payload", [b"\3\0\0\0", b"\0\0\0\3", b"\0\0\0\0\3"])
def test_reserved_modes(send, payload):
    assert send(SET_EVENT_INTERRUPT_POLICY, payload) == (INVALID_INPUT, b"")
    assert send(GET_EVENT_INTERRUPT_POLICY)[1] == bytes(5)


@pytest.mark.parametrize("length", [0, 1, 3, 6, 16])
def test_policies_of_other_lengths(send, length):
    assert send(SET_EVENT_INTERRUPT_POLICY, bytes(length)) == (LENGTH, b"")


def test_a_log_interrupts_when_it_was_empty(device, machine, send):
    device.record_event(EventLog.FATAL, event())
    assert machine.taken() == []
    clear(send, EventLog.FATAL, 1)
    send(SET_EVENT_INTERRUPT_POLICY, b"\0\0\0\1")
    for log in LOGS:
        device.record_event(log, event())
    assert machine.taken() == [(MSI, 0)]
    for _ in range(20):
        device.record_event(EventLog.FATAL, event())
    assert machine.taken() == []
    handles = get(send, EventLog.FATAL).handles
    clear(send, EventLog.FATAL, *handles[:-1])
    device.record_event(EventLog.FATAL, event())
    assert machine.taken() == []
    clear(send, EventLog.FATAL, *get(send, EventLog.FATAL).handles)
    device.record_event(EventLog.FATAL, event())
    assert machine.taken() == [(MSI, 0)]


def test_each_log_has_its_vector(make):
    device, machine = make(interrupts="msix"), Machine()
    device.attach(machine)
    Driver(device).send(0x0103, b"\1\1\1\1")
    for log in LOGS:
        device.record_event(log, event())
    assert machine.taken() == [(MSIX, 1), (MSIX, 2), (MSIX, 3), (MSIX, 4)]


# -- resets --------------------------------------------------------------------------------------------------


def test_resets(device, driver, send):
    device.record_event(EventLog.FAILURE, event())
    send(SET_EVENT_INTERRUPT_POLICY, b"\1\1\1\1")
    device.reset(Reset.FLR)
    assert status(driver) == 1 << EventLog.FAILURE
    assert send(GET_EVENT_INTERRUPT_POLICY)[1] == b"\1\1\1\1\0"
    device.reset()
    assert status(driver) == 1 << EventLog.FAILURE
    assert get(send, EventLog.FAILURE).count == 1
    assert send(GET_EVENT_INTERRUPT_POLICY)[1] == bytes(5)
    device.reset(Reset.COLD)
    assert status(driver) == 0
    assert get(send, EventLog.FAILURE).count == 0


@pytest.mark.parametrize("depth", [0, 0x10000, -1])
def test_depths_that_cannot_be(make, depth):
    with pytest.raises(ValueError, match="event log depth"):
        make(event_log_depth=depth)


# -- dynamic capacity ----------------------------------------------------------------------------------------


@pytest.fixture
def dynamic(make):
    return make(interrupts="msix", dynamic=[DynamicRegion(length=64 << 20)])


def test_the_fifth_log_is_one_like_the_others(dynamic, clock):
    driver = Driver(dynamic)

    def send(command, payload=b""):
        return driver.send(command.opcode, payload)

    assert clear(send, 4) == (0, b"")
    send(SET_TIMESTAMP, struct.pack("<Q", 10_000_000_000))
    for _ in range(15):
        assert dynamic.record_event(EventLog.DYNAMIC_CAPACITY, DynamicCapacityEvent())
    clock.advance(1)
    assert not dynamic.record_event(EventLog.DYNAMIC_CAPACITY, DynamicCapacityEvent())
    assert status(driver) == 1 << 4
    reply = get(send, 4)
    assert (reply.flags, reply.overflow, reply.count) == (OVERFLOW, 1, 15)
    assert reply.first == reply.last == 11_000_000_000
    assert {record[0x11] & 3 for record in reply.records} == {0}  # Informational
    assert clear(send, 4, 2) == (INVALID_HANDLE, b"")
    assert clear(send, 4, flags=1) == (0, b"")
    assert status(driver) == 0


def test_its_interrupt_is_the_informational_log_s(dynamic):
    machine = Machine()
    dynamic.attach(machine)
    driver = Driver(dynamic)
    dynamic.record_event(EventLog.DYNAMIC_CAPACITY, DynamicCapacityEvent())
    assert machine.taken() == []
    assert driver.send(0x0101, struct.pack("<BBB3xH", 4, 0, 1, 1))[0] == 0
    assert driver.send(0x0103, b"\1\0\0\0\1")[0] == 0
    dynamic.record_event(EventLog.DYNAMIC_CAPACITY, DynamicCapacityEvent())
    assert machine.taken() == [(MSIX, 1)]
    assert driver.send(0x0103, b"\1\0\0\0")[0] == 0  # four bytes leave the fifth as it is
    assert driver.send(0x0102)[1][4] & 3 == 1
