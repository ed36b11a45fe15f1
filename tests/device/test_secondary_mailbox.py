"""The secondary mailbox: beside the primary one, into the same commands, without background operations.

Its capability ID is that of Linux's drivers/cxl/cxl.h (CXLDEV_CAP_CAP_ID_SECONDARY_MAILBOX), the return code that of
include/cxl/mailbox.h, the log's bit that of CXL 3.1 Table 8-75.
"""

import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from softcxl import Fabric
from softcxl.testing.driver import Driver, Machine
from softcxl.wire import Reset
from tests.device import effects

SUCCESS, STARTED, BUSY, WRONG_MAILBOX = 0x00, 0x01, 0x06, 0x15
BACKGROUND, SECONDARY = 1 << 6, 1 << 7
ROUNDS = 150


@pytest.fixture
def device(make):
    return make(secondary_mailbox=True)


@pytest.fixture
def second(device):
    return Driver(device, secondary=True)


def log(driver, device):
    size = 4 * len(device.cci.handlers)
    code, entries = driver.send(0x0401, effects.CEL + struct.pack("<II", 0, size))
    assert code == SUCCESS
    return dict(struct.iter_unpack("<HH", entries))


def test_it_is_there_where_it_is_asked_for(make, device, second):
    assert 3 not in Driver(make()).capabilities
    with pytest.raises(LookupError, match="no secondary mailbox"):
        Driver(make(), secondary=True)
    offset, length = second.capabilities[3]
    assert offset % 4096 == 0
    assert length == 0x20 + 4096
    assert second.payload_max == 4096
    primary = Driver(device).capabilities[2]
    assert primary[0] + primary[1] <= offset
    (mapped,) = device.regions()[2].mappable
    assert sum(mapped) <= offset  # nobody but the guest that rings it touches it, and each access is seen


@pytest.mark.parametrize("payload", [256, 4096, 1 << 20])
def test_payloads_of_any_size(make, payload):
    device = make(payload=payload, secondary_mailbox=True)
    second = Driver(device, secondary=True)
    assert second.payload_max == payload
    assert second.send(0x4000) == Driver(device).send(0x4000)
    assert device.read(2, sum(second.capabilities[3]) - 1, 1) == b"\0"


def test_each_has_registers_and_a_payload_of_its_own(device, driver, second):
    _, identity = driver.send(0x4000)
    assert second.send(0x0103, b"\1\0\0\0") == (SUCCESS, b"")
    assert driver.read64(2, driver.mailbox + 0x08) == 0x4000 | 0x45 << 16
    assert device.read(2, driver.mailbox + 0x20, 0x45) == identity
    assert driver.send(0x0102)[1][0] & 3 == 1  # what one sets, the other sees


def test_the_log_says_what_it_takes(device, driver, second):
    entries = log(driver, device)
    assert log(second, device) == entries
    for opcode, bits in entries.items():
        assert bool(bits & SECONDARY) != bool(bits & BACKGROUND), f"{opcode:04X}"
        refused = second.send(opcode, bytes(3))[0] == WRONG_MAILBOX
        assert refused == (not bits & SECONDARY), f"{opcode:04X}"
    assert not driver.background()[0]
    assert second.send(0xC0FE) == (3, b"")


def test_without_it_no_entry_has_the_bit(make):
    device = make()
    assert not any(bits & SECONDARY for bits in log(Driver(device), device).values())


def test_background_operations_are_the_primary_ones(device, driver, second, clock):
    assert second.send(0x4400) == (WRONG_MAILBOX, b"")
    assert driver.send(0x4400) == (STARTED, b"")
    clock.advance(0.5)
    assert driver.background() == (True, 0x4400, 50, 0)
    assert second.background() == (False, 0, 0, 0)
    assert second.send(0x4200)[0] == SUCCESS
    assert second.send(0x4400) == (WRONG_MAILBOX, b"")
    assert driver.send(0x4400) == (BUSY, b"")
    clock.advance(1)
    assert driver.background() == (False, 0x4400, 100, 0)
    assert second.background() == (False, 0, 0, 0)


def test_it_is_polled(device, second):
    machine = Machine()
    device.attach(machine)
    assert second.read32(2, second.mailbox) & 0x60 == 0
    second.write64(2, second.mailbox + 8, 0x4000)
    second.write32(2, second.mailbox + 4, 3)
    assert second.read32(2, second.mailbox + 4) & 1 == 0
    assert machine.taken() == []


@pytest.mark.parametrize("kind", list(Reset))
def test_resets_clear_it(device, second, kind):
    device.write(2, second.mailbox + 0x20, b"secret" * 100)
    second.write64(2, second.mailbox + 8, 0x4400)
    device.reset(kind)
    assert device.read(2, second.mailbox + 0x20, 4096) == bytes(4096)
    assert second.read64(2, second.mailbox + 8) == 0
    assert second.send(0x4000)[0] == SUCCESS


def test_both_rung_at_once(device, driver, second, caplog):
    """Each has its answers, and no other's: the commands run one after the other."""
    gate = threading.Barrier(2)

    def labels(one, offset, byte):
        gate.wait(300)
        for number in range(ROUNDS):
            text = bytes([byte, number % 256]) * 20
            assert one.send(0x4103, struct.pack("<I4x", offset) + text) == (SUCCESS, b"")
            assert one.send(0x4102, struct.pack("<II", offset, 40)) == (SUCCESS, text)
            code, identity = one.send(0x4000)
            assert (code, len(identity)) == (SUCCESS, 0x45)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(labels, driver, 0, 0xAA), pool.submit(labels, second, 2000, 0xBB)]:
            done.result(500)
    assert caplog.records == []


def test_a_command_that_hangs_in_one_leaves_the_other(device, driver, second):
    device.inject.hang(0x4200)
    with pytest.raises(TimeoutError):
        second.send(0x4200)
    device.inject.clear()
    assert second.read32(2, second.mailbox + 4) & 1 == 0
    assert driver.send(0x4200)[0] == SUCCESS


def test_by_topology():
    text = "devices: {m: {type: type3, volatile: 256MiB, secondary_mailbox: true}}"
    with Fabric.loads(text) as fabric:
        assert Driver(fabric.devices["m"], secondary=True).send(0x4000)[0] == SUCCESS
