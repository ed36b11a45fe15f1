"""CXL Reset and viral, as software sees them: bits of the DVSEC by number (Linux's pci_regs.h and CXL 3.1 §8.1.3)."""

import threading

import pytest

from softcxl.testing.driver import CONFIG, Driver
from softcxl.wire import Reset
from tests.device.conftest import MIB

CAPABILITY, CONTROL, STATUS, CONTROL2, STATUS2, LOCK = 0x0A, 0x0C, 0x0E, 0x10, 0x12, 0x14
MEM_ENABLE, VIRAL = 1 << 2, 1 << 14
INITIATE, CLEAR, DESIRED = 1 << 2, 1 << 3, 1 << 4
COMPLETE, ERROR = 1 << 1, 1 << 2
COMMITTED = 1 << 10
BASE, SIZE = 1 << 32, 256 * MIB


@pytest.fixture
def at(driver):
    return driver.dvsec(0)


@pytest.fixture
def used(driver, device, at):
    """A device in use: memory enabled, one decoder committed, bytes in both its partitions."""
    driver.write16(CONFIG, at + CONTROL, MEM_ENABLE)
    assert driver.commit(0, BASE, SIZE)
    bar, hdm = driver.component_capability(5)
    driver.write32(bar, hdm + 4, 2)  # HDM Decoder Enable
    device.space.write(0, b"volatile")
    device.space.write(SIZE, b"persists")
    return device


def control(driver, number):
    bar, at = driver.decoder(number)
    return driver.read32(bar, at + 0x10)


def test_what_it_says_it_can(driver, at):
    found = driver.read16(CONFIG, at + CAPABILITY)
    assert found & (1 << 7 | 1 << 11 | VIRAL) == 1 << 7 | 1 << 11 | VIRAL
    assert found >> 8 & 7 == 0  # 10 ms


@pytest.mark.parametrize("clear", [0, CLEAR])
def test_a_reset_ends_cxl_mem_and_keeps_what_is_not_its_own(driver, used, at, clear):
    driver.write16(CONFIG, at + CONTROL2, clear | DESIRED)
    driver.write16(CONFIG, at + CONTROL2, INITIATE | clear | DESIRED)
    assert driver.read16(CONFIG, at + STATUS2) & (COMPLETE | ERROR) == COMPLETE
    assert driver.read16(CONFIG, at + CONTROL2) == DESIRED  # the bit is sticky; the request reads as zero
    assert not driver.read16(CONFIG, at + CONTROL) & MEM_ENABLE
    assert not control(driver, 0) & COMMITTED
    assert used.decoders.mappings == []
    assert used.space.read(0, 8) == (bytes(8) if clear else b"volatile")
    assert used.space.read(SIZE, 8) == b"persists"
    again = Driver(used)
    assert again.commit(0, BASE, SIZE)


def test_what_is_locked_stays_until_a_conventional_reset(driver, used, at):
    assert driver.commit(1, BASE + SIZE, SIZE, lock=True)
    driver.write16(CONFIG, at + LOCK, 1)
    driver.write16(CONFIG, at + CONTROL2, INITIATE)
    assert not control(driver, 0) & COMMITTED
    assert control(driver, 1) & COMMITTED
    assert [(one.hpa, one.dpa) for one in used.decoders.mappings] == [(BASE + SIZE, SIZE)]
    assert used.decoders.enabled
    assert driver.read16(CONFIG, at + CONTROL) & MEM_ENABLE
    driver.write16(CONFIG, at + CONTROL, 0)
    assert driver.read16(CONFIG, at + CONTROL) & MEM_ENABLE
    bar, decoder = driver.decoder(1)
    driver.write32(bar, decoder, 0)
    assert driver.read32(bar, decoder) == BASE + SIZE & 0xFFFFFFFF
    used.reset(Reset.HOT)
    assert used.decoders.mappings == []
    assert not driver.read16(CONFIG, at + CONTROL) & MEM_ENABLE


def test_a_reset_that_fails_says_so_and_clears_nothing(driver, used, at):
    used.fail_cxl_reset = True
    driver.write16(CONFIG, at + CONTROL2, INITIATE | CLEAR)
    assert driver.read16(CONFIG, at + STATUS2) & (COMPLETE | ERROR) == COMPLETE | ERROR
    assert used.space.read(0, 8) == b"volatile"
    used.fail_cxl_reset = False
    driver.write16(CONFIG, at + CONTROL2, INITIATE)
    assert driver.read16(CONFIG, at + STATUS2) & (COMPLETE | ERROR) == COMPLETE


def test_sticky_registers_and_the_mailbox_live_through_it(driver, used, at):
    ras, status = driver.component_capability(2)
    driver.write32(ras, status + 4, 0x3)  # the uncorrectable mask is sticky
    driver.write16(CONFIG, at + CONTROL2, INITIATE)
    assert driver.read32(ras, status + 4) == 0x3
    assert Driver(used).send(0x4000)[0] == 0


def test_viral_is_for_those_that_are_enabled_and_ends_with_a_reset(driver, used, at):
    told = []

    def tell():
        """Others' locks are taken from here on, so the device's own must be free."""

        def other():
            told.append(used.lock.acquire(timeout=300))
            used.lock.release()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    used.tell_viral = tell
    assert not used.enter_viral()
    driver.write16(CONFIG, at + CONTROL, MEM_ENABLE | VIRAL)
    assert used.enter_viral()
    assert told == [True]
    assert used.enter_viral(told=True)
    assert told == [True]
    assert driver.read16(CONFIG, at + STATUS) & VIRAL
    used.reset(Reset.FLR)
    assert used.viral
    used.reset(Reset.HOT)
    assert not used.viral
    assert driver.read16(CONFIG, at + STATUS) & VIRAL  # sticky: what happened can still be read
    driver.write16(CONFIG, at + STATUS, VIRAL)
    assert not driver.read16(CONFIG, at + STATUS) & VIRAL
