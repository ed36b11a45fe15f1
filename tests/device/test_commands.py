"""Every command of a memory device: what it answers, byte by byte, and what it makes of bad payloads.

Layouts are those of libcxlmi (src/cxlmi/api-types.h), return codes and effects those of QEMU
(hw/cxl/cxl-mailbox-utils.c) and Linux (include/cxl/mailbox.h, drivers/cxl/cxlmem.h).
"""

import json
import struct
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softcxl.spec.command.events import EventLog
from softcxl.spec.command.firmware import GET_FW_INFO
from softcxl.spec.command.health import (
    GET_ALERT_CONFIGURATION,
    GET_HEALTH_INFO,
    GET_SHUTDOWN_STATE,
    SET_ALERT_CONFIGURATION,
    SET_SHUTDOWN_STATE,
)
from softcxl.spec.command.label import GET_LSA, SET_LSA, GetLsaRequest
from softcxl.spec.command.logs import (
    CLEAR_LOG,
    GET_LOG,
    GET_LOG_CAPABILITIES,
    GET_SUPPORTED_LOGS,
    GET_SUPPORTED_LOGS_SUB_LIST,
    POPULATE_LOG,
)
from softcxl.spec.command.memory import GET_PARTITION_INFO, IDENTIFY_MEMORY_DEVICE
from softcxl.spec.command.security import GET_SECURITY_STATE
from softcxl.spec.command.timestamp import GET_TIMESTAMP, SET_TIMESTAMP
from softcxl.spec.cxl.events import GeneralMediaEvent
from softcxl.testing.driver import Driver
from softcxl.wire import Reset
from tests.device.conftest import MIB

CEL = UUID("0da9c0b5-bf41-4b78-8f79-96b1623b3f17").bytes
STATE_DUMP = UUID("b3fab4cf-01b6-4332-943e-5e9962f23567").bytes
VENDOR_DEBUG = UUID("5e1819d9-11a9-400c-811f-d60719403d86").bytes

SUCCESS, STARTED, INVALID_INPUT, UNSUPPORTED, INTERNAL = 0x00, 0x01, 0x02, 0x03, 0x04
INVALID_HANDLE, INVALID_ADDRESS, LENGTH, INVALID_LOG = 0x0E, 0x0F, 0x16, 0x17
MEDIA_DISABLED, SECURITY_STATE, PASSPHRASE = 0x07, 0x13, 0x14
IN_PROGRESS, OUT_OF_ORDER, NOT_VERIFIED, INVALID_SLOT = 0x08, 0x09, 0x0A, 0x0B
REFUSALS = {INVALID_INPUT, INVALID_HANDLE, INVALID_ADDRESS, 0x10, LENGTH, INVALID_LOG}
BUSY, EXHAUSTED = 0x06, 0x1D
REFUSALS |= {0x19, 0x1A, 0x1B, 0x1C, EXHAUSTED}  # features and repairs
REFUSALS |= {INVALID_SLOT, OUT_OF_ORDER, IN_PROGRESS, UNSUPPORTED, MEDIA_DISABLED, SECURITY_STATE, PASSPHRASE}

CONFIG, DATA, POLICY, LOG, SECURITY, BACKGROUND = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6
COLD, ABORT = 1 << 0, 1 << 8
# opcode: its effects, and the payload length that it takes (None: any above the one listed)
COMMANDS = {
    0x0005: (0, 0),
    0x0100: (0, 1),
    0x0101: (LOG, 6),
    0x0102: (0, 0),
    0x0103: (POLICY, 4),
    0x0200: (0, 0),
    0x0201: (COLD | BACKGROUND | ABORT, 128),
    0x0202: (COLD | CONFIG, 2),
    0x0300: (0, 0),
    0x0301: (POLICY, 8),
    0x0400: (0, 0),
    0x0401: (0, 24),
    0x0402: (0, 16),
    0x0403: (LOG, 16),
    0x0404: (LOG | BACKGROUND | ABORT, 16),
    0x0405: (0, 2),
    0x0500: (0, 8),
    0x0501: (0, 21),
    0x0502: (CONFIG | 1 << 9, 32),
    0x0600: (CONFIG | BACKGROUND, 2),
    0x4000: (0, 0),
    0x4100: (0, 0),
    0x4102: (0, 8),
    0x4103: (CONFIG | DATA, 8),
    0x4200: (0, 0),
    0x4201: (0, 0),
    0x4202: (POLICY, 12),
    0x4203: (0, 0),
    0x4204: (POLICY, 1),
    0x4300: (0, 16),
    0x4301: (DATA, 8),
    0x4302: (DATA, 72),
    0x4303: (0, 16),
    0x4304: (BACKGROUND | ABORT, 17),
    0x4305: (0, 0),
    0x4400: (DATA | SECURITY | BACKGROUND, 0),
    0x4401: (DATA | SECURITY, 0),
    0x4402: (DATA | BACKGROUND, 8),
    0x4500: (0, 0),
    0x4501: (SECURITY, 96),
    0x4502: (SECURITY, 64),
    0x4503: (SECURITY, 32),
    0x4504: (SECURITY, 0),
    0x4505: (DATA | SECURITY, 64),
    0x4600: (0, 8),
    0x4601: (0, 8),
    0x4700: (0, 0),
    0x4701: (POLICY, 4),
    0x4702: (0, 0),
}
VARYING = {0x0101, 0x0103, 0x4103, 0x4402, 0x4600, 0x0201, 0x0502, 0x0600}


def test_command_effects_log(send):
    """Fetched in pieces, as cxl_xfer_log does."""
    code, payload = send(GET_SUPPORTED_LOGS)
    assert code == SUCCESS
    (count,) = struct.unpack_from("<H6x", payload)
    sizes = dict(struct.iter_unpack("<16sI", payload[8:]))
    assert len(sizes) == count == 4
    log, step = b"", 24
    while len(log) < sizes[CEL]:
        length = min(step, sizes[CEL] - len(log))
        code, piece = send(GET_LOG, CEL + struct.pack("<II", len(log), length))
        assert (code, len(piece)) == (SUCCESS, length)
        log += piece
    entries = list(struct.iter_unpack("<HH", log))
    assert entries == [(opcode, effects) for opcode, (effects, _) in COMMANDS.items()]


def test_log_bounds(send):
    size = 4 * len(COMMANDS)
    assert send(GET_LOG, CEL + struct.pack("<II", size, 0)) == (SUCCESS, b"")
    for offset, length in ((size, 1), (0, size + 1), (0xFFFFFFFF, 1), (0, 0xFFFFFFFF), (0, 4097)):
        assert send(GET_LOG, CEL + struct.pack("<II", offset, length)) == (INVALID_INPUT, b"")
    assert send(GET_LOG, bytes(16) + struct.pack("<II", 0, 4)) == (INVALID_LOG, b"")


def test_vendor_debug_log(device, send):
    device.logs.debug.note("link trained at 32 GT/s")
    assert send(GET_LOG, VENDOR_DEBUG + struct.pack("<II", 0, 4096)) == (
        SUCCESS,
        b"link trained at 32 GT/s\n",
    )
    assert send(GET_LOG, VENDOR_DEBUG + struct.pack("<II", 5, 7)) == (SUCCESS, b"trained")
    assert send(GET_LOG_CAPABILITIES, VENDOR_DEBUG) == (SUCCESS, b"\5\0\0\0")
    assert send(GET_LOG_CAPABILITIES, CEL) == (SUCCESS, b"\0\0\0\0")
    assert send(GET_LOG_CAPABILITIES, bytes(16)) == (INVALID_LOG, b"")
    assert send(CLEAR_LOG, CEL) == (INVALID_INPUT, b"")
    assert send(CLEAR_LOG, bytes(16)) == (INVALID_LOG, b"")
    assert send(CLEAR_LOG, VENDOR_DEBUG) == (SUCCESS, b"")
    assert send(GET_LOG, VENDOR_DEBUG + struct.pack("<II", 0, 4096)) == (SUCCESS, b"")
    for number in range(10000):
        device.logs.debug.note(f"line {number}")
    assert len(device.logs.debug.data) == 64 << 10


def test_component_state_dump(device, driver, clock, send):
    """Layout of CXL 3.2 Table 8-89: length, automatic fillings, event log and handle, time, format, flags."""
    assert send(GET_LOG_CAPABILITIES, STATE_DUMP) == (SUCCESS, b"\7\0\0\0")
    whole = STATE_DUMP + struct.pack("<II", 0, 4096)
    assert send(GET_LOG, whole) == (SUCCESS, b"")
    send(SET_TIMESTAMP, struct.pack("<Q", 5_000_000_000))
    assert send(POPULATE_LOG, STATE_DUMP) == (STARTED, b"")
    assert send(POPULATE_LOG, STATE_DUMP) == (BUSY, b"")
    clock.advance(1)
    assert driver.background() == (False, 0x0404, 100, SUCCESS)
    dump = send(GET_LOG, whole)[1]
    head = struct.unpack_from("<IBBHQ16sI28x", dump)
    assert head == (len(dump) - 0x40, 0, 0, 0, 5_100_000_000, bytes(16), 0)
    assert json.loads(dump[0x40:])["poison"] == {"listed": 0, "latent": 0}
    assert send(CLEAR_LOG, STATE_DUMP) == (SUCCESS, b"")
    assert send(GET_LOG, whole) == (SUCCESS, b"")
    # by itself, when the media fail, and then no more until it is cleared
    for address in (0x4000, 0x8000):
        device.poison.spoil(address)
        device.poison.met(address, 64)
    dump = send(GET_LOG, whole)[1]
    assert struct.unpack_from("<IBBHQ16sI28x", dump)[1:4] == (2, EventLog.FAILURE, 1)
    assert struct.unpack_from("<I", dump, 0x20) == (1,)
    assert json.loads(dump[0x40:])["poison"] == {"listed": 1, "latent": 0}
    device.reset(Reset.HOT)
    assert send(GET_LOG, whole)[1] == dump
    device.reset(Reset.COLD)
    assert send(GET_LOG, whole) == (SUCCESS, b"")
    for log, code in ((CEL, INVALID_INPUT), (VENDOR_DEBUG, INVALID_INPUT), (bytes(16), INVALID_LOG)):
        assert send(POPULATE_LOG, log) == (code, b"")


def test_supported_logs_sub_list(send):
    code, payload = send(GET_SUPPORTED_LOGS_SUB_LIST, b"\1\1")
    assert code == SUCCESS
    assert struct.unpack_from("<BxHB3x16s", payload) == (1, 4, 1, VENDOR_DEBUG)
    assert struct.unpack_from("<BxHB3x16s", send(GET_SUPPORTED_LOGS_SUB_LIST, b"\0\0")[1]) == (4, 4, 0, CEL)
    assert send(GET_SUPPORTED_LOGS_SUB_LIST, b"\1\4") == (INVALID_INPUT, b"")


def test_identify(send):
    code, payload = send(IDENTIFY_MEMORY_DEVICE)
    assert (code, len(payload)) == (SUCCESS, 0x45)
    found = struct.unpack("<16sQQQQHHHHI3sHBBH", payload)
    assert found == (
        b"softcxl 1".ljust(16, b"\0"),
        *(2, 1, 1, 0),  # capacities in multiples of 256 MiB; cannot be partitioned
        *(15, 15, 15, 15),
        4096,
        (1024).to_bytes(3, "little"),
        0,
        1,
        *(3, 0),  # both kinds of QoS telemetry
    )


def test_partition_info(send):
    assert send(GET_PARTITION_INFO) == (SUCCESS, struct.pack("<QQQQ", 1, 1, 0, 0))


def test_firmware_info(send):
    code, payload = send(GET_FW_INFO)
    assert (code, len(payload)) == (SUCCESS, 0x50)
    slots, info, activation, revision, rest = struct.unpack("<BBB13x16s48s", payload)
    assert (slots, info, activation) == (2, 1, 1)
    assert revision == b"softcxl 1".ljust(16, b"\0")
    assert rest == bytes(48)


def test_security_state(send):
    assert send(GET_SECURITY_STATE) == (SUCCESS, bytes(4))


def test_timestamp(device, clock, send):
    assert send(GET_TIMESTAMP) == (SUCCESS, bytes(8))
    clock.advance(5)
    assert send(GET_TIMESTAMP) == (SUCCESS, bytes(8))
    assert send(SET_TIMESTAMP, struct.pack("<Q", 1_700_000_000_000_000_000)) == (SUCCESS, b"")
    clock.advance(1.5)
    assert send(GET_TIMESTAMP) == (SUCCESS, struct.pack("<Q", 1_700_000_001_500_000_000))
    device.reset(Reset.FLR)
    assert send(GET_TIMESTAMP) == (SUCCESS, struct.pack("<Q", 1_700_000_001_500_000_000))
    device.reset()
    assert send(GET_TIMESTAMP) == (SUCCESS, bytes(8))
    send(SET_TIMESTAMP, b"\xff" * 8)
    clock.advance(1)
    assert send(GET_TIMESTAMP) == (SUCCESS, struct.pack("<Q", 999_999_999))


# -- labels --------------------------------------------------------------------------------------------------


def test_labels(send):
    assert send(GET_LSA, struct.pack("<II", 0, 4096)) == (SUCCESS, bytes(4096))
    assert send(SET_LSA, struct.pack("<II", 100, 0) + b"label") == (SUCCESS, b"")
    assert send(GET_LSA, struct.pack("<II", 98, 9)) == (SUCCESS, b"\0\0label\0\0")
    assert send(SET_LSA, struct.pack("<II", 4091, 0) + b"label") == (SUCCESS, b"")
    assert send(SET_LSA, struct.pack("<II", 4092, 0) + b"label") == (INVALID_INPUT, b"")
    assert send(GET_LSA, struct.pack("<II", 4091, 5)) == (SUCCESS, b"label")
    assert send(GET_LSA, struct.pack("<II", 4091, 6)) == (INVALID_INPUT, b"")
    assert send(GET_LSA, struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF)) == (INVALID_INPUT, b"")
    assert send(GET_LSA, struct.pack("<II", 0, 0)) == (SUCCESS, b"")
    assert send(SET_LSA, struct.pack("<II", 0, 0)) == (SUCCESS, b"")


def test_labels_longer_than_the_mailbox(make):
    driver = Driver(make(payload=256))
    assert driver.send(0x4102, struct.pack("<II", 0, 256))[0] == SUCCESS
    assert driver.send(0x4102, struct.pack("<II", 0, 257)) == (INVALID_INPUT, b"")
    assert driver.send(0x4103, struct.pack("<II", 0, 0) + bytes(248)) == (SUCCESS, b"")
    # The rest of it never reached the device, which must not make it up.
    assert driver.send(0x4103, struct.pack("<II", 0, 0) + b"x" * 249) == (LENGTH, b"")
    assert driver.send(0x4102, struct.pack("<II", 0, 256)) == (SUCCESS, bytes(256))


def test_a_device_without_labels(make):
    driver = Driver(make(label_storage=0))
    assert struct.unpack_from("<I", driver.send(0x4000)[1], 0x38) == (0,)
    assert driver.send(0x4102, struct.pack("<II", 0, 0)) == (INVALID_INPUT, b"")
    assert driver.send(0x4103, struct.pack("<II", 0, 0) + b"x") == (INVALID_INPUT, b"")


# -- health --------------------------------------------------------------------------------------------------

HEALTH = "<BBBBhIII"
ALERTS = "<BBBBhhhhHH"
SET_ALERTS = "<BBBxhhHH"


def health(send):
    code, payload = send(GET_HEALTH_INFO)
    assert (code, len(payload)) == (SUCCESS, 0x12)
    return struct.unpack(HEALTH, payload)


def test_health(device, send):
    assert health(send) == (0, 0, 0, 0, 25, 0, 0, 0)
    device.set_health(media_status=6, life_used=39, device_temperature=-5, dirty_shutdown_count=3)
    assert health(send) == (0, 6, 0, 39, -5, 3, 0, 0)
    with pytest.raises(TypeError):
        device.set_health(temper=1)


def test_critical_thresholds_are_always_on(device, send):
    """Additional Status: life used in bits 1:0, temperature in 3:2; 1 is a warning, 2 critical."""
    for changes, expected in (
        ({"life_used": 74}, 0),
        ({"life_used": 75}, 2),
        ({"life_used": 0, "device_temperature": 90}, 2 << 2),
        ({"device_temperature": 89}, 0),
        ({"device_temperature": -20}, 2 << 2),
        ({"device_temperature": 0x7FFF}, 0),  # not reported
        ({"device_temperature": 25, "life_used": 0xFF}, 0),  # not reported
    ):
        device.set_health(**changes)
        assert health(send)[2] == expected, changes


def test_alert_configuration(device, send):
    code, payload = send(GET_ALERT_CONFIGURATION)
    assert code == SUCCESS
    assert struct.unpack(ALERTS, payload) == (0, 0x1F, 75, 40, 90, -20, 70, 0, 0, 0)
    device.set_health(life_used=50, device_temperature=75, corrected_volatile_error_count=9)
    assert health(send)[2] == 0
    assert send(SET_ALERT_CONFIGURATION, struct.pack(SET_ALERTS, 0x1F, 0x1F, 50, 75, 10, 9, 5)) == (
        SUCCESS,
        b"",
    )
    assert struct.unpack(ALERTS, send(GET_ALERT_CONFIGURATION)[1]) == (
        *(0x1F, 0x1F, 75, 50, 90, -20, 75, 10, 9, 5),
    )
    assert health(send)[2] == 1 | 1 << 2 | 1 << 4
    # Only what Valid names changes: the temperature's warning goes.
    assert send(SET_ALERT_CONFIGURATION, struct.pack(SET_ALERTS, 2, 0, 1, 1, 1, 1, 1)) == (SUCCESS, b"")
    assert struct.unpack(ALERTS, send(GET_ALERT_CONFIGURATION)[1])[:4] == (0x1D, 0x1F, 75, 50)
    assert health(send)[2] == 1 | 1 << 4
    device.set_health(device_temperature=10, corrected_persistent_error_count=5)
    assert health(send)[2] == 1 | 1 << 2 | 1 << 4 | 1 << 5


@pytest.mark.parametrize(
    "request_",
    [(1, 1, 75, 0, 0, 0, 0), (1, 1, 0, 0, 0, 0, 0), (2, 2, 0, 90, 0, 0, 0), (4, 4, 0, 0, -20, 0, 0)],
)
def test_warnings_come_before_the_critical_threshold(send, request_):
    before = send(GET_ALERT_CONFIGURATION)
    assert send(SET_ALERT_CONFIGURATION, struct.pack(SET_ALERTS, *request_)) == (INVALID_INPUT, b"")
    assert send(GET_ALERT_CONFIGURATION) == before


def test_shutdown_state(send):
    assert send(GET_SHUTDOWN_STATE) == (SUCCESS, b"\0")
    assert send(SET_SHUTDOWN_STATE, b"\1") == (SUCCESS, b"")
    assert send(GET_SHUTDOWN_STATE) == (SUCCESS, b"\1")
    assert send(SET_SHUTDOWN_STATE, b"\2") == (INVALID_INPUT, b"")
    assert send(GET_SHUTDOWN_STATE) == (SUCCESS, b"\1")


# -- payloads that are not what they should be ---------------------------------------------------------------


def state(device):
    """Everything that a command could have changed."""
    return (
        [(list(log.records), log.overflow_count) for log in device.events.logs.values()],
        dict(device.events._modes),
        list(device.poison.map.runs(0, device.capacity.total)),
        list(device.poison.bad()),
        device.poison.scanning,
        [(one.value, one.saved, one.pending) for one in device.features.features.values()],
        device.features.transfer,
        device.repair.spares,
        [(one.errors, one.spared) for one in device.faults.all],
        device.scan._results,
        device.logs.dump.read(),
        device.ecs.log(),
        device.label_bytes(),
        device.health.info,
        device.health.alerts.pack(),
        device.shutdown.state,
        (device.timestamp._set, device.timestamp._at),
        bytes(device.logs.debug.data),
        device.media_disabled,
        int(device.security.state),
        device.security._passphrases,
        device.firmware._slots,
        device.cci.busy,
        device.qos.control.pack(),
    )


@pytest.fixture
def busy_device(make):
    """A device with something in every place, which can tell its labels' bytes."""
    device = make()
    device.label_bytes = lambda: device.labels.get_lsa(GetLsaRequest(offset=0, length=4096)).data
    driver = Driver(device)
    driver.send(0x4103, bytes(8) + bytes(range(200)))
    driver.send(0x0301, struct.pack("<Q", 1 << 60))
    device.record_event(EventLog.FATAL, GeneralMediaEvent())
    device.inject_poison(0x4000)
    device.poison.spoil(0x8000)
    device.faults.add(0x10000, every=1e9)
    device.faults.correct(0x10040)
    device.logs.debug.note("hello")
    return device


@pytest.mark.parametrize("opcode", COMMANDS, ids="{:04X}".format)
def test_wrong_lengths_change_nothing(busy_device, opcode):
    driver, (_, length) = Driver(busy_device), COMMANDS[opcode]
    before = state(busy_device)
    wrong = {0, 1, length - 1, length + 1, length + 7, 4097, 0xFFFFF} - {length, -1}
    if opcode == 0x4101:
        wrong.remove(10)  # what Linux sends
    for size in sorted(wrong):
        if opcode in VARYING and length < size <= 4096:
            continue
        assert driver.send(opcode, bytes(size)) == (LENGTH, b""), size
        assert state(busy_device) == before


@pytest.mark.parametrize("opcode", COMMANDS, ids="{:04X}".format)
def test_any_payload_is_answered(busy_device, clock, caplog, opcode):
    """Whatever the bytes: a code of the standard, never a traceback, and nothing changes where it is refused."""
    driver, (_, length) = Driver(busy_device), COMMANDS[opcode]
    exact = st.binary(min_size=length, max_size=length)
    small = st.lists(st.sampled_from((0, 0, 0, 1, 2, 3, 0x40, 0xFF)), min_size=length, max_size=length).map(
        bytes
    )
    longer = st.binary(max_size=150)

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(st.one_of(exact, small, longer))
    def check(payload):
        before = state(busy_device)
        code, reply = driver.send(opcode, payload)
        if code == STARTED:
            clock.advance(100)
            assert driver.background()[:3] == (False, opcode, 100)
            assert driver.background()[3] in (SUCCESS, NOT_VERIFIED)
        elif code != SUCCESS:
            assert code in REFUSALS
            assert reply == b""
            if code not in (PASSPHRASE, EXHAUSTED):  # which are counted, and logged
                assert state(busy_device) == before

    check()
    assert caplog.records == []


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(0, 0xFFFF), st.binary(max_size=64))
def test_any_opcode_is_answered(device, opcode, payload):
    code, _ = Driver(device).send(opcode, payload)
    if opcode not in COMMANDS:
        assert code == UNSUPPORTED


def test_capacities_that_cannot_be(make):
    for volatile, persistent in ((0, 0), (1, 0), (256 * MIB, 100 * MIB), (-256 * MIB, 512 * MIB)):
        with pytest.raises(ValueError, match="capacity"):
            make(volatile=volatile, persistent=persistent)
