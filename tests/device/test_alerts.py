"""Thresholds and conditions: what crosses or changes is one event, in the right log, and only once."""

import struct

import pytest

from softcxl.spec.command.events import EventLog
from softcxl.spec.command.health import SET_ALERT_CONFIGURATION
from tests.device.conftest import MIB

MODULE = bytes.fromhex("fe927475dd594339a58679bab113b774")
SET_ALERTS = "<BBBxhhHH"
INFO, WARNING, FAILURE, FATAL = range(4)
HEALTH, MEDIA, LIFE, TEMPERATURE = range(4)


@pytest.fixture
def told(device):
    """(log, event type, health status, additional status) of what was logged since."""

    def take():
        found = []
        for log in EventLog:
            if log in device.events.logs:
                for one in device.events.logs[log].records:
                    record = one.pack()
                    if record[:16] == MODULE:
                        found.append((int(log), record[0x30], record[0x31], record[0x33]))
                device.events.logs[log].clear(len(device.events.logs[log].records))
        return found

    return take


def test_temperature(device, send, told):
    send(SET_ALERT_CONFIGURATION, struct.pack(SET_ALERTS, 6, 6, 0, 70, 5, 0, 0))
    steps = [
        (69, []),
        (70, [(WARNING, TEMPERATURE, 0, 1 << 2)]),
        (75, []),
        (90, [(FAILURE, TEMPERATURE, 0, 2 << 2)]),
        (71, [(WARNING, TEMPERATURE, 0, 1 << 2)]),
        (25, [(INFO, TEMPERATURE, 0, 0)]),
        (5, [(WARNING, TEMPERATURE, 0, 1 << 2)]),
        (-20, [(FAILURE, TEMPERATURE, 0, 2 << 2)]),
    ]
    for temperature, expected in steps:
        device.set_health(device_temperature=temperature)
        assert told() == expected, temperature


def test_life_used(device, send, told):
    device.set_health(life_used=50)
    assert told() == []
    send(SET_ALERT_CONFIGURATION, struct.pack(SET_ALERTS, 1, 1, 45, 0, 0, 0, 0))  # a threshold already passed
    assert told() == [(WARNING, LIFE, 0, 1)]
    device.set_health(life_used=75)
    assert told() == [(FAILURE, LIFE, 0, 2)]


def test_health_and_media_status(device, told):
    device.set_health(health_status=device.health.info.health_status.make(maintenance_needed=True))
    assert told() == [(WARNING, HEALTH, 1, 0)]
    device.set_health(health_status=device.health.info.health_status.make(maintenance_needed=True))
    assert told() == []
    device.set_health(health_status=device.health.info.health_status.make())
    assert told() == [(INFO, HEALTH, 0, 0)]
    device.set_health(media_status=3)
    assert told() == [(FAILURE, MEDIA, 0, 0)]
    device.set_health(media_status=0)
    assert told() == [(INFO, MEDIA, 0, 0)]
    device.set_health(dirty_shutdown_count=7, corrected_volatile_error_count=9)
    assert told() == []


def test_corrected_errors_that_pass_the_programmed_threshold(device, send):
    send(SET_ALERT_CONFIGURATION, struct.pack(SET_ALERTS, 0x18, 0x18, 0, 0, 0, 3, 2))
    logs = device.events.logs
    for dpa, threshold in ((0, 3), (256 * MIB, 2)):
        for _ in range(threshold + 1):
            device.faults.correct(dpa)
        [passed] = logs[EventLog.WARNING].records
        descriptor, count, flags = passed.data[8], passed.pack()[0x7B:0x7E], passed.pack()[0x7A]
        assert (descriptor, flags) == (2, 2)  # threshold; the programmed one
        assert count == b"\1\0\0"
        assert len(logs[EventLog.INFORMATIONAL].records) == threshold
        for log in logs.values():
            log.clear(len(log.records))
    info = device.health.info
    assert (info.corrected_volatile_error_count, info.corrected_persistent_error_count) == (4, 3)


def test_a_count_that_is_set_past_its_threshold_is_a_change_of_health(device, send, told):
    send(SET_ALERT_CONFIGURATION, struct.pack(SET_ALERTS, 8, 8, 0, 0, 0, 3, 0))
    device.set_health(corrected_volatile_error_count=3)
    assert told() == [(WARNING, HEALTH, 0, 1 << 4)]
    device.set_health(corrected_volatile_error_count=0)
    assert told() == [(INFO, HEALTH, 0, 0)]
