"""Erasure: what it destroys, what is refused while it runs, how it ends. QEMU (hw/cxl/cxl-mailbox-utils.c:
cxl_process_cci_message's list of refused commands, what it says of an interrupted sanitize, its media operations) is
the second source."""

import struct
from uuid import UUID

import pytest

from softcxl.device.clock import ManualClock
from softcxl.spec.command.events import EventLog
from softcxl.spec.command.media import MEDIA_OPERATIONS, SANITIZE, SECURE_ERASE
from softcxl.spec.cxl.events import GeneralMediaEvent
from softcxl.testing.driver import MSI, Driver
from softcxl.wire import Reset
from tests.device.conftest import MIB

STARTED, BUSY, MEDIA_DISABLED, INTERNAL = 0x01, 0x06, 0x07, 0x04
READY, DISABLED = 1, 3
CEL = UUID("0da9c0b5-bf41-4b78-8f79-96b1623b3f17").bytes + struct.pack("<II", 0, 4)
REFUSED = {
    0x0100: b"\0",
    0x4100: b"",
    0x4102: bytes(8),
    0x4103: bytes(8),
    0x4300: bytes(16),
    0x4301: bytes(8),
    0x4302: bytes(72),
}
ALLOWED = {
    0x0102: b"", 0x0200: b"", 0x0300: b"", 0x0400: b"", 0x0401: CEL, 0x4000: b"", 0x4200: b"", 0x4201: b"", 0x4203: b"",
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
    assert driver.read32(2, driver.capabilities[1][0]) == 1  # one event, informational: that it has ended
    records = driver.send(0x0100, b"\0")[1]
    assert struct.unpack_from("<H", records, 20) == (1,)
    assert UUID(bytes=records[32:48]) == UUID("fe927475-dd59-4339-a586-79bab113b774")  # memory module
    assert records[32 + 48] == 1  # media status change
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
def test_interrupted_by_a_reset_the_media_stay_disabled(full, driver, clock, send, kind):
    """Until another one has been completed; only that one is let through."""
    send(SANITIZE)
    full.reset(kind)
    assert driver.background() == (False, 0, 0, 0)
    clock.advance(10)
    full.reset(kind)
    assert media_status(driver) == DISABLED
    assert send(SECURE_ERASE) == (MEDIA_DISABLED, b"")
    assert driver.send(0x4102, bytes(8)) == (MEDIA_DISABLED, b"")
    assert send(SANITIZE) == (STARTED, b"")
    clock.advance(1)
    assert_erased(full, driver)
    full.space.write(0, b"fresh")
    full.reset(Reset.HOT)
    assert media_status(driver) == READY
    assert full.space.read(0, 5) == b"fresh"


def test_interrupted_by_the_end_of_the_process(make, tmp_path):
    page = tmp_path / "mem0.state"
    Driver(make(state=page)).send(SANITIZE.opcode)
    clock = ManualClock()
    driver = Driver(make(state=page, clock=clock))
    assert media_status(driver) == DISABLED
    assert driver.send(SANITIZE.opcode) == (STARTED, b"")
    clock.advance(1)
    assert media_status(driver) == READY
    assert media_status(Driver(make(state=page))) == READY


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
    assert driver.read32(2, driver.capabilities[1][0]) & 4  # told as a failure
    monkeypatch.undo()
    assert send(SANITIZE) == (STARTED, b"")
    clock.advance(1)
    assert_erased(full, driver)


def test_only_a_cold_reset_loses_volatile_data(full):
    for kind in (Reset.FLR, Reset.HOT):
        full.reset(kind)
        assert full.space.read(0, 6) == b"secret"
    full.reset(Reset.COLD)
    assert full.space.read(0, 6) == bytes(6)
    assert full.space.read(300 * MIB, 6) == b"secret"
    assert Driver(full).send(0x4102, struct.pack("<II", 0, 5)) == (0, b"label")


def test_secure_erase(full, driver, send):
    """The data go; labels (`ndctl sanitize-dimm --crypto-erase` says so), poison and event records stay."""
    assert send(SECURE_ERASE) == (0, b"")
    assert full.space.read(0, 6) == full.space.read(300 * MIB, 6) == bytes(6)
    assert driver.send(0x4102, struct.pack("<II", 0, 5)) == (0, b"label")
    assert len(full.poison.map) == 1
    assert driver.read32(2, driver.capabilities[1][0]) == 0b1100
    assert media_status(driver) == READY


# -- media operations ----------------------------------------------------------------------------------------

ERASE, ZERO = (1, 0), (1, 1)
INVALID, UNSUPPORTED, LENGTH, LOCKED = 0x02, 0x03, 0x16, 0x13


def operation(kind, *ranges, count=None, more=b""):
    head = struct.pack("<BBxxI", *kind, len(ranges) if count is None else count)
    return head + b"".join(struct.pack("<QQ", *one) for one in ranges) + more


def test_discovery(send):
    """Discovery itself is not listed, as it is not in QEMU."""
    found = struct.pack("<QHHBBBB", 64, 2, 2, *ERASE, *ZERO)
    assert send(MEDIA_OPERATIONS, operation((0, 0), more=struct.pack("<HH", 0, 0xFFFF))) == (0, found)
    second = struct.pack("<QHHBB", 64, 2, 1, *ZERO)
    assert send(MEDIA_OPERATIONS, operation((0, 0), more=struct.pack("<HH", 1, 1))) == (0, second)
    none = struct.pack("<QHH", 64, 2, 0)
    assert send(MEDIA_OPERATIONS, operation((0, 0), more=bytes(4))) == (0, none)
    assert send(MEDIA_OPERATIONS, operation((0, 0), more=struct.pack("<HH", 2, 1))) == (INVALID, b"")
    assert send(MEDIA_OPERATIONS, operation((0, 0), (0, 64), more=bytes(4))) == (INVALID, b"")
    for more in (b"", bytes(3), bytes(5)):
        assert send(MEDIA_OPERATIONS, operation((0, 0), more=more)) == (LENGTH, b"")


@pytest.mark.parametrize("kind", [ERASE, ZERO])
def test_ranges_are_cleared_and_nothing_else(full, driver, clock, send, kind):
    full.space.write(0x3FC0, b"x" * 192)
    assert send(MEDIA_OPERATIONS, operation(kind, (0x4000, 64), (300 * MIB, 128))) == (STARTED, b"")
    assert media_status(driver) == READY
    clock.advance(0.5)
    assert driver.background() == (True, 0x4402, 50, 0)
    assert full.space.read(0x4000, 1) == b"x"
    clock.advance(0.5)
    assert driver.background() == (False, 0x4402, 100, 0)
    assert full.space.read(0x3FC0, 192) == b"x" * 64 + bytes(64) + b"x" * 64
    assert full.space.read(300 * MIB, 6) == bytes(6)
    assert full.space.read(0, 6) == b"secret"
    assert len(full.poison.map) == 0
    assert driver.send(0x4102, struct.pack("<II", 0, 5)) == (0, b"label")


def test_a_reset_carries_them_to_their_end(full, send):
    send(MEDIA_OPERATIONS, operation(ZERO, (300 * MIB, 64)))
    full.reset(Reset.HOT)
    assert full.space.read(300 * MIB, 6) == bytes(6)


@pytest.mark.parametrize(
    "bad",
    [(1, 64), (0, 63), (0, 0), (512 * MIB, 64), (512 * MIB - 64, 128), (2**64 - 64, 64), (64, 2**64 - 64)],
)
def test_ranges_that_cannot_be(full, send, bad):
    assert send(MEDIA_OPERATIONS, operation(ZERO, (0, 64), bad)) == (INVALID, b"")
    assert full.space.read(0, 6) == b"secret"


def test_other_operations(send, device):
    for kind in ((0, 1), (1, 2), (2, 0), (255, 255)):
        assert send(MEDIA_OPERATIONS, operation(kind)) == (UNSUPPORTED, b"")
    assert send(MEDIA_OPERATIONS, operation(ZERO)) == (0, b"")
    for count in (2, 0xFFFFFFFF):
        assert send(MEDIA_OPERATIONS, operation(ZERO, (0, 64), count=count)) == (LENGTH, b"")
    assert send(MEDIA_OPERATIONS, operation(ZERO, (0, 64), more=b"x")) == (LENGTH, b"")
    device.security.locked = True
    assert send(MEDIA_OPERATIONS, operation(ZERO, (0, 64), (256 * MIB, 64))) == (LOCKED, b"")
    assert send(MEDIA_OPERATIONS, operation(ZERO, (0, 64))) == (STARTED, b"")
