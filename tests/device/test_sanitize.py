"""Sanitize: what it destroys, what is refused while it runs, how it ends. QEMU's list of refused commands
(hw/cxl/cxl-mailbox-utils.c, cxl_process_cci_message) is the second source."""

import struct

import pytest

from softcxl.spec.command.events import EventLog
from softcxl.spec.command.media import SANITIZE
from softcxl.spec.cxl.events import GeneralMediaEvent
from softcxl.testing.driver import MSI, Driver
from softcxl.wire import Reset
from tests.device.conftest import MIB

STARTED, BUSY, MEDIA_DISABLED, INTERNAL = 0x01, 0x06, 0x07, 0x04
READY, DISABLED = 1, 3
REFUSED = {
    0x0100: b"\0",
    0x0401: bytes(24),
    0x4100: b"",
    0x4102: bytes(8),
    0x4103: bytes(8),
    0x4300: bytes(16),
    0x4301: bytes(8),
    0x4302: bytes(72),
}
ALLOWED = {
    0x0102: b"", 0x0200: b"", 0x0300: b"", 0x0400: b"", 0x4000: b"", 0x4200: b"", 0x4201: b"", 0x4203: b"",
    0x4500: b"",
}  # fmt: skip


def media_status(driver):
    return driver.read64(2, driver.capabilities[0x4000][0]) >> 2 & 3


@pytest.fixture
def full(device, driver):
    """The device with data, labels, poison and events."""
    device.space.write(0, b"secret")
    device.space.write(300 * MIB, b"secret")
    driver.send(0x4103, bytes(8) + b"label")
    device.inject_poison(0x4000)
    device.record_event(EventLog.FATAL, GeneralMediaEvent())
    return device


def assert_erased(device, driver):
    assert device.space.read(0, 6) == device.space.read(300 * MIB, 6) == bytes(6)
    assert driver.send(0x4102, struct.pack("<II", 0, 5)) == (0, bytes(5))
    assert len(device.poison.map) == 0
    assert driver.read32(2, driver.capabilities[1][0]) == 0
    assert media_status(driver) == READY


def test_sanitize(full, driver, machine, clock, send):
    driver.write32(2, driver.mailbox + 4, 4)
    assert send(SANITIZE) == (STARTED, b"")
    assert media_status(driver) == DISABLED
    assert driver.background() == (True, 0x4400, 0, 0)
    assert full.space.read(0, 6) == b"secret"
    clock.advance(0.5)
    assert driver.background() == (True, 0x4400, 50, 0)
    assert machine.taken() == []
    clock.advance(0.5)
    assert machine.taken() == [(MSI, 0)]
    assert driver.background() == (False, 0x4400, 100, 0)
    assert_erased(full, driver)


def test_what_is_refused_meanwhile(full, driver, clock, send):
    send(SANITIZE)
    for opcode, payload in REFUSED.items():
        assert driver.send(opcode, payload) == (MEDIA_DISABLED, b""), hex(opcode)
    for opcode, payload in ALLOWED.items():
        assert driver.send(opcode, payload)[0] == 0, hex(opcode)
    assert send(SANITIZE) == (BUSY, b"")
    clock.advance(1)
    for opcode in (0x0100, 0x4100, 0x4300):
        assert driver.send(opcode, REFUSED[opcode])[0] == 0


def test_media_disabled_by_a_script(device, driver, send):
    device.media_disabled = True
    assert media_status(driver) == DISABLED
    assert send(SANITIZE) == (MEDIA_DISABLED, b"")
    assert driver.send(0x4301, bytes(8)) == (MEDIA_DISABLED, b"")
    device.reset(Reset.FLR)
    assert device.media_disabled
    device.media_disabled = False
    assert driver.send(0x4301, bytes(8)) == (0, b"")
    device.media_disabled = True
    device.reset()
    assert media_status(driver) == READY


@pytest.mark.parametrize("kind", [Reset.HOT, Reset.COLD])
def test_a_reset_in_its_midst_does_not_save_the_data(full, driver, clock, send, kind):
    send(SANITIZE)
    full.reset(kind)
    assert_erased(full, driver)
    assert driver.background() == (False, 0, 0, 0)
    full.space.write(0, b"fresh")
    clock.advance(10)
    assert full.space.read(0, 5) == b"fresh"


def test_a_function_level_reset_changes_nothing(full, driver, clock, send):
    send(SANITIZE)
    full.reset(Reset.FLR)
    assert media_status(driver) == DISABLED
    assert driver.background() == (True, 0x4400, 0, 0)
    clock.advance(1)
    assert_erased(full, driver)


def test_media_stay_disabled_where_it_fails(full, driver, clock, send, monkeypatch, caplog):
    def fail(start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(full.space, "clear", fail)
    send(SANITIZE)
    clock.advance(1)
    assert driver.background() == (False, 0x4400, 100, INTERNAL)
    assert media_status(driver) == DISABLED
    assert "background command 4400h failed" in caplog.text


def test_only_a_cold_reset_loses_volatile_data(full):
    for kind in (Reset.FLR, Reset.HOT):
        full.reset(kind)
        assert full.space.read(0, 6) == b"secret"
    full.reset(Reset.COLD)
    assert full.space.read(0, 6) == bytes(6)
    assert full.space.read(300 * MIB, 6) == b"secret"
    assert Driver(full).send(0x4102, struct.pack("<II", 0, 5)) == (0, b"label")
