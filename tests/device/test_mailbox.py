"""The mailbox as drivers/cxl/pci.c uses it: offsets of cxl.h, return codes of include/cxl/mailbox.h."""

import logging

import pytest

from softcxl.device.cci import Background, CommandError, CommandSet, command
from softcxl.device.clock import SystemClock
from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects, ReturnCode
from softcxl.spec.command.information import REQUEST_ABORT_BACKGROUND_OPERATION
from softcxl.spec.command.memory import IDENTIFY_MEMORY_DEVICE
from softcxl.testing.driver import MSI, Driver, Machine
from softcxl.wire import Record, Reset, tail, u16

CAPABILITIES, CONTROL, COMMAND, STATUS, BACKGROUND, PAYLOAD = 0x00, 0x04, 0x08, 0x10, 0x18, 0x20
SUCCESS, STARTED, INVALID_INPUT, UNSUPPORTED, INTERNAL, BUSY, ABORTED, LENGTH, NO_ABORT = (
    0x00, 0x01, 0x02, 0x03, 0x04, 0x06, 0x12, 0x16, 0x20,
)  # fmt: skip


class Numbers(Record, size=4):
    """Two numbers and what follows."""

    first: int = u16()
    second: int = u16()
    rest: bytes = tail()


BACKGROUND_EFFECT = CommandEffects.make(background_operation=True)
WORK = Command(0xC001, "Work", None, None, BACKGROUND_EFFECT, "vendor")
FAIL = Command(0xC002, "Fail", None, None, NO_EFFECT, "vendor")
LONG = Command(0xC003, "Long", Numbers, None, NO_EFFECT, "vendor")
WRONG = Command(0xC004, "Wrong", None, None, NO_EFFECT, "vendor")
LATE = Command(0xC005, "Late", None, None, BACKGROUND_EFFECT, "vendor")
REFUSE = Command(0xC006, "Refuse", None, None, NO_EFFECT, "vendor")
STUBBORN = Command(0xC007, "Stubborn", None, None, BACKGROUND_EFFECT, "vendor")


class Vendor(CommandSet):
    """Commands that go every way that a command can."""

    def __init__(self):
        self.done = []

    @command(WORK)
    def work(self):
        return Background(10.0, self._finish, lambda: self.done.append("aborted"))

    def _finish(self):
        self.done.append("finished")
        return ReturnCode.SUCCESS

    @command(STUBBORN)
    def stubborn(self):
        return Background(10.0, self._finish)

    @command(FAIL)
    def fail(self):
        raise ZeroDivisionError("inside")

    @command(LONG)
    def long(self, request):
        return bytes(request.second)

    @command(WRONG)
    def wrong(self):
        return Numbers(first=-1)

    @command(LATE)
    def late(self):
        def finish():
            raise CommandError(ReturnCode.PERMANENT_MEDIA_FAILURE)

        return Background(1.0, finish)

    @command(REFUSE)
    def refuse(self):
        raise CommandError(ReturnCode.RETRY_REQUIRED, vendor_status=0x1234)


@pytest.fixture
def vendor(device):
    vendor = Vendor()
    device.cci.add([vendor])
    return vendor


def test_whole_exchange_byte_by_byte(device, driver):
    """The eight steps of __cxl_pci_mbox_send_cmd, with a command register written in halves."""
    at = driver.mailbox
    assert driver.read32(2, at + CONTROL) & 1 == 0
    driver.write32(2, at + COMMAND, 0x4000)
    driver.write32(2, at + COMMAND + 4, 0)
    driver.write32(2, at + CONTROL, 1)
    assert driver.read32(2, at + CONTROL) & 1 == 0
    assert driver.read32(2, at + STATUS + 4) & 0xFFFF == SUCCESS
    assert driver.read64(2, at + STATUS) == 0
    assert driver.read32(2, at + COMMAND) == 0x4000 | 0x45 << 16
    assert driver.read32(2, at + COMMAND + 4) == 0
    assert device.read(2, at + PAYLOAD, 9) == b"softcxl 1"


def test_registers_that_only_the_device_writes(driver):
    at = driver.mailbox
    before = driver.port.read(2, at, 0x20)
    driver.write32(2, at + CAPABILITIES, 0xFFFF_FFFF)
    driver.write64(2, at + STATUS, 0xFFFF_FFFF_FFFF_FFFF)
    driver.write64(2, at + BACKGROUND, 0xFFFF_FFFF_FFFF_FFFF)
    assert driver.port.read(2, at, 0x20) == before


def test_length_field_has_twenty_bits(driver):
    at = driver.mailbox
    driver.write64(2, at + COMMAND, 0xFFFF_FFFF_FFFF_FFFF)
    assert driver.read64(2, at + COMMAND) == 0xF_FFFF_FFFF
    driver.write32(2, at + CONTROL, 1)
    assert driver.read64(2, at + STATUS) >> 32 & 0xFFFF == LENGTH
    assert driver.read64(2, at + COMMAND) == 0xFFFF


@pytest.mark.parametrize("opcode", [0x0000, 0x0001, 0x0002, 0x0106, 0x5100, 0xBFFF, 0xC000, 0xFFFF])
def test_unsupported_opcodes(driver, opcode):
    assert driver.send(opcode) == (UNSUPPORTED, b"")
    assert driver.send(opcode, bytes(16)) == (UNSUPPORTED, b"")


def test_a_refused_command_has_no_payload(driver):
    assert driver.send(0x4000)[1]
    assert driver.send(0x4000, b"x") == (LENGTH, b"")


def test_doorbell_not_rung(device, driver):
    at = driver.mailbox
    driver.write64(2, at + COMMAND, 0x4000)
    driver.write32(2, at + CONTROL, 6)
    assert driver.read32(2, at + CONTROL) == 6
    assert driver.read64(2, at + COMMAND) == 0x4000


def test_byte_wide_doorbell(driver):
    at = driver.mailbox
    driver.write64(2, at + COMMAND, 0x4000)
    driver.port.write(2, at + CONTROL, b"\1")
    assert driver.read64(2, at + COMMAND) >> 16 == 0x45


# -- interrupts ----------------------------------------------------------------------------------------------


def test_doorbell_interrupt(driver, machine):
    at = driver.mailbox
    driver.send(0x4000)
    assert machine.taken() == []
    driver.write64(2, at + COMMAND, 0x4000)
    driver.write32(2, at + CONTROL, 3)
    assert machine.taken() == [(MSI, 0)]
    assert driver.read32(2, at + CONTROL) == 2


def test_background_interrupt_survives_linux_ringing_with_a_bare_one(driver, machine, vendor, clock):
    """Linux sets bit 2 once, then writes 1 to ring; its completion interrupt must come all the same."""
    at = driver.mailbox
    driver.write32(2, at + CONTROL, driver.read32(2, at + CONTROL) | 4)
    assert driver.send(WORK.opcode) == (STARTED, b"")
    assert driver.read32(2, at + CONTROL) == 4
    assert machine.taken() == []
    clock.advance(10)
    assert machine.taken() == [(MSI, 0)]
    driver.write32(2, at + CONTROL, 0)
    assert driver.read32(2, at + CONTROL) == 0
    driver.send(WORK.opcode)
    clock.advance(10)
    assert machine.taken() == []


# -- background ----------------------------------------------------------------------------------------------


def test_background_progress(driver, vendor, clock):
    """cxl_mbox_background_complete() looks for 100 percent."""
    assert driver.send(WORK.opcode) == (STARTED, b"")
    assert driver.background() == (True, 0xC001, 0, 0)
    clock.advance(2.5)
    assert driver.background() == (True, 0xC001, 25, 0)
    clock.advance(7.49)
    assert driver.background() == (True, 0xC001, 99, 0)
    assert vendor.done == []
    clock.advance(0.02)
    assert driver.background() == (False, 0xC001, 100, 0)
    assert vendor.done == ["finished"]
    assert driver.send(IDENTIFY_MEMORY_DEVICE.opcode)[0] == SUCCESS
    assert driver.background() == (False, 0xC001, 100, 0)


def test_one_background_operation_at_a_time(driver, vendor, clock):
    driver.send(WORK.opcode)
    for opcode in (WORK.opcode, LATE.opcode, 0x4400):
        assert driver.send(opcode) == (BUSY, b"")
    assert driver.send(0x4400, b"x") == (LENGTH, b"")
    assert driver.send(0x4000)[0] == SUCCESS
    assert driver.background()[0]
    clock.advance(10)
    assert driver.send(WORK.opcode) == (STARTED, b"")
    assert driver.background() == (True, 0xC001, 0, 0)


def test_background_failure(driver, vendor, clock):
    driver.send(LATE.opcode)
    clock.advance(1)
    assert driver.background() == (False, 0xC005, 100, 0x11)


def test_background_bug_is_an_internal_error(driver, device, clock, caplog):
    class Broken(CommandSet):
        @command(WORK)
        def work(self):
            return Background(1.0, self.finish)

        def finish(self):
            raise ZeroDivisionError("inside")

    device.cci.add([Broken()])
    driver.send(WORK.opcode)
    clock.advance(1)
    assert driver.background() == (False, 0xC001, 100, INTERNAL)
    assert "background command C001h failed" in caplog.text


def test_abort(driver, machine, vendor, clock, send):
    driver.write32(2, driver.mailbox + CONTROL, 4)
    driver.send(WORK.opcode)
    clock.advance(4)
    assert send(REQUEST_ABORT_BACKGROUND_OPERATION) == (SUCCESS, b"")
    assert driver.background() == (False, 0xC001, 40, ABORTED)
    assert vendor.done == ["aborted"]
    assert machine.taken() == [(MSI, 0)]
    driver.send(WORK.opcode)
    clock.advance(9)  # the first operation's time has come and gone
    assert driver.background() == (True, 0xC001, 90, 0)
    clock.advance(1)
    assert vendor.done == ["aborted", "finished"]


def test_abort_with_nothing_under_way(driver, send):
    assert send(REQUEST_ABORT_BACKGROUND_OPERATION) == (SUCCESS, b"")
    assert driver.background() == (False, 0, 0, 0)


def test_what_cannot_be_aborted_goes_on(driver, vendor, clock, send):
    driver.send(STUBBORN.opcode)
    assert send(REQUEST_ABORT_BACKGROUND_OPERATION) == (NO_ABORT, b"")
    clock.advance(10)
    assert vendor.done == ["finished"]


@pytest.mark.parametrize(("opcode", "done"), [(WORK.opcode, ["aborted"]), (STUBBORN.opcode, ["finished"])])
@pytest.mark.parametrize("kind", [Reset.HOT, Reset.COLD])
def test_conventional_reset_settles_background_work(
    device, driver, machine, vendor, clock, opcode, done, kind
):
    driver.write32(2, driver.mailbox + CONTROL, 4)
    driver.send(opcode)
    device.reset(kind)
    assert vendor.done == done
    assert driver.background() == (False, 0, 0, 0)
    clock.advance(100)
    assert vendor.done == done
    assert driver.background() == (False, 0, 0, 0)
    assert machine.taken() == []


def test_function_level_reset_lets_background_work_go_on(device, driver, vendor, clock):
    driver.send(WORK.opcode)
    clock.advance(5)
    device.reset(Reset.FLR)
    assert driver.background() == (True, 0xC001, 50, 0)
    clock.advance(5)
    assert driver.background() == (False, 0xC001, 100, 0)


def test_background_work_of_a_closed_device_is_settled(make, clock):
    device, vendor = make(), Vendor()
    device.cci.add([vendor])
    Driver(device).send(STUBBORN.opcode)
    device.close()
    assert vendor.done == ["finished"]
    clock.advance(100)
    assert vendor.done == ["finished"]


def test_a_real_clock(make):
    """The timer's thread ends the operation and interrupts, without anybody reading a register."""
    import threading

    ended = threading.Event()

    class Waiting(Machine):
        def interrupt(self, kind, vector):
            super().interrupt(kind, vector)
            ended.set()

    clock = SystemClock()
    device, machine = make(clock=clock), Waiting()

    class Quick(CommandSet):
        @command(WORK)
        def work(self):
            return Background(0.0, lambda: ReturnCode.SUCCESS)

    device.cci.add([Quick()])
    device.attach(machine)
    driver = Driver(device)
    driver.write32(2, driver.mailbox + CONTROL, 4)
    assert driver.send(WORK.opcode) == (STARTED, b"")
    assert ended.wait(300)
    assert driver.background() == (False, 0xC001, 100, 0)
    assert machine.taken() == [(MSI, 0)]
    clock.close()


# -- handlers ------------------------------------------------------------------------------------------------


def test_a_handler_that_fails_answers_internal_error(driver, vendor, caplog):
    assert driver.send(FAIL.opcode) == (INTERNAL, b"")
    assert "command C002h failed" in caplog.text
    assert driver.send(WRONG.opcode) == (INTERNAL, b"")
    assert driver.send(0x4000)[0] == SUCCESS


def test_a_handler_may_refuse(driver, vendor, caplog):
    assert driver.send(REFUSE.opcode) == (0x05, b"")
    assert driver.read64(2, driver.mailbox + STATUS) == 0x1234 << 48 | 0x05 << 32
    driver.send(0x4000)
    assert driver.read64(2, driver.mailbox + STATUS) == 0
    assert caplog.records == []


def test_replies_fill_the_payload_and_no_more(driver, vendor, caplog):
    caplog.set_level(logging.ERROR)
    assert driver.send(LONG.opcode, b"\0\0\x00\x10") == (SUCCESS, bytes(4096))
    assert driver.send(LONG.opcode, b"\0\0\x01\x10") == (INTERNAL, b"")
    assert "too long" in caplog.text


def test_request_lengths_of_a_record_with_a_tail(driver, vendor):
    assert driver.send(LONG.opcode, b"\0\0\0") == (LENGTH, b"")
    assert driver.send(LONG.opcode, bytes(4096)) == (SUCCESS, b"")
    assert driver.send(LONG.opcode, bytes(4097)) == (LENGTH, b"")


def test_an_overriding_handler_wins_and_effects_can_be_told(device):
    class Base(CommandSet):
        @command(WORK)
        def work(self):
            return b"base"

    class Derived(Base):
        @command(WORK, effects=NO_EFFECT)
        def work_otherwise(self):
            return b"derived"

    (declared, handler), *rest = Derived().commands()
    assert rest == []
    assert handler() == b"derived"
    assert int(declared.effects) == 0
    assert declared.opcode == 0xC001
    device.cci.add([Derived(), Base()])
    assert device.cci.execute(0xC001).payload == b"derived"


@pytest.mark.parametrize("kind", list(Reset))
def test_reset_clears_the_payload_and_the_registers(device, driver, kind):
    """A payload may hold a passphrase."""
    at = driver.mailbox
    device.write(2, at + PAYLOAD, b"secret" * 100)
    driver.write32(2, at + CONTROL, 6)
    driver.write64(2, at + COMMAND, 0x4400)
    device.reset(kind)
    assert device.read(2, at + PAYLOAD, 4096) == bytes(4096)
    assert driver.read32(2, at + CONTROL) == 0
    assert driver.read64(2, at + COMMAND) == 0
