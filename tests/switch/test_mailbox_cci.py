"""The mailbox CCI of a switch, found and driven by its registers.

Class, locator and capabilities as QEMU's cxl-switch-mailbox-cci has them (hw/cxl/switch-mailbox-cci.c); layouts of
answers by hand from struct cxlmi_cmd_fmapi_identify_sw_device_rsp and its neighbours in libcxlmi.
"""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Iterator

import pytest

from softcxl.device.clock import ManualClock, SystemClock
from softcxl.device.type3 import Type3
from softcxl.switch.mailbox_cci import SwitchMailboxCci
from softcxl.switch.physical import PhysicalSwitch
from softcxl.testing.driver import CONFIG, MSI, MSIX, Driver, Machine
from softcxl.wire import Reset

SERIAL = 0xC0FFEE0123456789
SUCCESS, STARTED, INVALID_INPUT, UNSUPPORTED, BUSY, LENGTH = 0x00, 0x01, 0x02, 0x03, 0x06, 0x16
AER, DSN, DVSEC = 0x01, 0x03, 0x23
CEL = bytes.fromhex("0da9c0b5bf414b788f7996b1623b3f17")
BIND, UNBIND = 0x5201, 0x5202
DOORBELL_INTERRUPT, BACKGROUND_INTERRUPT = 2, 4


class Patient:
    """A function as software sees it that waits a moment after each write."""

    def __init__(self, function: SwitchMailboxCci, clock: ManualClock) -> None:
        self.function, self.clock = function, clock

    def read(self, region: int, offset: int, size: int) -> bytes:
        return self.function.read(region, offset, size)

    def write(self, region: int, offset: int, data: bytes) -> None:
        self.function.write(region, offset, data)
        self.clock.advance(0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def switch(clock: ManualClock) -> Iterator[PhysicalSwitch]:
    device = Type3("mem0", volatile=256 << 20, serial=7, clock=clock)
    switch = PhysicalSwitch("rack", ports=2, virtual=[("left", 2), ("right", 1)], serial=SERIAL, clock=clock)
    switch.ports[0].insert(device)
    yield switch
    device.close()


@pytest.fixture(params=["msi", "msix"])
def cci(request: pytest.FixtureRequest, switch: PhysicalSwitch) -> Iterator[SwitchMailboxCci]:
    function = SwitchMailboxCci("cci", switch, interrupts=request.param)
    yield function
    function.close()


@pytest.fixture
def driver(cci: SwitchMailboxCci, clock: ManualClock) -> Driver:
    return Driver(Patient(cci, clock))


@pytest.fixture
def machine(cci: SwitchMailboxCci) -> Machine:
    machine = Machine()
    cci.attach(machine)
    return machine


def kind(cci: SwitchMailboxCci) -> int:
    return MSI if cci.msi is not None else MSIX


def test_what_lspci_shows(driver: Driver) -> None:
    assert driver.port.read(CONFIG, 9, 3) == bytes([0x00, 0x0B, 0x0C])  # prog-if, sub-class, class
    capabilities = dict(driver.extended_capabilities())
    assert capabilities.keys() == {AER, DSN, DVSEC}
    assert driver.read64(CONFIG, capabilities[DSN] + 4) == SERIAL


def test_device_registers(driver: Driver) -> None:
    assert driver.blocks == {3: (2, 0)}
    array = driver.read64(2, 0)
    assert (array & 0xFFFF, array >> 16 & 0xFF, array >> 24 & 0xF, array >> 32) == (0, 1, 2, 3)
    assert driver.capabilities.keys() == {1, 2, 0x4000}
    status = driver.read64(2, driver.capabilities[0x4000][0])
    assert status & 0x10  # mailbox interfaces ready
    mailbox = driver.read32(2, driver.mailbox)
    assert mailbox & 0x1F == 13  # 8 KiB
    assert mailbox >> 5 & 3 == 3  # both interrupts
    assert mailbox >> 19 & 0xF == 2  # of a switch


def test_identify_switch_device(driver: Driver) -> None:
    code, answer = driver.send(0x5100)
    assert (code, len(answer)) == (SUCCESS, 0x49)
    assert answer[2:4] == bytes([4, 2])  # ports, virtual switches
    assert struct.unpack_from("<HHB", answer, 0x44) == (3, 0, 8)  # vPPBs, bound ones, decoders


def test_identify(driver: Driver) -> None:
    code, answer = driver.send(0x0001)
    assert (code, len(answer)) == (SUCCESS, 0x12)
    vendor, _device, _subvendor, _subsystem, serial, size, component = struct.unpack("<HHHHQBB", answer)
    assert (vendor, serial, size, component) == (0x1E98, SERIAL, 13, 0)


def test_a_host_names_its_domain(driver: Driver, switch: PhysicalSwitch, clock: ManualClock) -> None:
    """By the mailbox of the host that is below a virtual switch, and by no other (CXL 3.1 §7.6.7.1.6)."""
    function, secret = SwitchMailboxCci("own", switch, vcs=1), bytes(range(16))
    own = Driver(Patient(function, clock))
    assert own.send(0x5100)[1][0] == 3  # by which port it asks
    assert own.send(0x5105, secret) == (SUCCESS, b"")
    assert own.send(0x5104) == driver.send(0x5106, b"\1") == (SUCCESS, b"\1")
    assert driver.send(0x5107, b"\1") == (SUCCESS, secret)
    assert driver.send(0x5104)[0] == driver.send(0x5105, secret)[0] == UNSUPPORTED
    function.close()


def test_the_doorbell_clears_a_moment_later(cci: SwitchMailboxCci, clock: ManualClock) -> None:
    driver = Driver(cci)
    with pytest.raises(TimeoutError):
        driver.send(0x5100)
    clock.advance(0)
    assert not driver.read32(2, driver.mailbox + 4) & 1
    assert driver.read64(2, driver.mailbox + 8) >> 16 == 0x49


def test_bind_in_the_background(
    driver: Driver, cci: SwitchMailboxCci, switch: PhysicalSwitch, clock: ManualClock, machine: Machine
) -> None:
    mailbox = driver.mailbox
    driver.write32(2, mailbox + 4, BACKGROUND_INTERRUPT)
    code, answer = driver.send(BIND, struct.pack("<BBBxH", 0, 1, 0, 0xFFFF))
    assert (code, answer) == (STARTED, b"")
    clock.advance(1)
    assert driver.background() == (False, BIND, 100, SUCCESS)
    assert switch.virtual[0].vppbs[1].port is switch.ports[0]
    assert machine.taken() == [(kind(cci), 0)]
    assert driver.send(BIND, struct.pack("<BBBxH", 1, 0, 0, 0xFFFF)) == (INVALID_INPUT, b"")
    assert driver.send(UNBIND, bytes([0, 1, 2]))[0] == STARTED  # surprise
    clock.advance(1)
    assert driver.background() == (False, UNBIND, 100, SUCCESS)
    assert switch.virtual[0].vppbs[1].port is None


def test_a_doorbell_that_interrupts(
    driver: Driver, cci: SwitchMailboxCci, machine: Machine, clock: ManualClock
) -> None:
    driver.write64(2, driver.mailbox + 8, 0x5100)
    driver.write32(2, driver.mailbox + 4, DOORBELL_INTERRUPT | 1)
    assert machine.taken() == [(kind(cci), 0)]


def test_events_interrupt_where_software_asked(
    driver: Driver, cci: SwitchMailboxCci, switch: PhysicalSwitch, machine: Machine, clock: ManualClock
) -> None:
    vectors = [1, 2, 3, 4] if cci.msix is not None else [0, 0, 0, 0]
    assert driver.send(0x0102) == (SUCCESS, bytes([*(vector << 4 for vector in vectors), 0]))
    switch.bind(0, 0, 0)
    clock.advance(0)
    assert machine.taken() == []  # not asked for
    assert driver.read64(2, driver.capabilities[1][0]) == 1  # the informational log has a record
    code, answer = driver.send(0x0100, b"\x00")
    assert code == SUCCESS
    count = struct.unpack_from("<H", answer, 0x14)[0]
    handles = b"".join(answer[0x20 + 128 * n + 0x14 :][:2] for n in range(count))
    assert driver.send(0x0101, bytes([0, 0, count, 0, 0, 0]) + handles) == (SUCCESS, b"")
    assert driver.read64(2, driver.capabilities[1][0]) == 0
    assert driver.send(0x0103, bytes([1, 1, 1, 1]))[0] == SUCCESS
    switch.unbind(0, 0)
    clock.advance(0)
    assert machine.taken() == [(kind(cci), vectors[0])]
    assert driver.send(0x0103, bytes([3, 0, 0, 0]))[0] == INVALID_INPUT
    assert driver.send(0x0103, bytes(3))[0] == LENGTH
    assert driver.send(0x0103, bytes(6))[0] == LENGTH


def test_commands_of_messages_are_not_there_nor_in_its_effects_log(driver: Driver) -> None:
    code, answer = driver.send(0x0400)
    assert (code, answer[:2], answer[8:24]) == (SUCCESS, b"\x01\x00", CEL)
    (size,) = struct.unpack_from("<I", answer, 24)
    code, log = driver.send(0x0401, CEL + struct.pack("<II", 0, size))
    assert (code, len(log)) == (SUCCESS, size)
    listed = {opcode for opcode, _effects in struct.iter_unpack("<HH", log)}
    assert {0x0001, 0x0100, 0x0102, 0x0103, 0x0401, 0x5100, 0x5200, BIND, UNBIND} <= listed
    for opcode in (0x0003, 0x0004, 0x0104, 0x0105, 0x0106):
        assert opcode not in listed
        assert driver.send(opcode, b"")[0] == UNSUPPORTED
    for opcode in listed - {BIND, UNBIND}:
        assert driver.send(opcode, b"")[0] in (SUCCESS, LENGTH), hex(opcode)


def test_resets_leave_the_switch_alone(
    driver: Driver, cci: SwitchMailboxCci, switch: PhysicalSwitch, clock: ManualClock, machine: Machine
) -> None:
    assert driver.send(BIND, struct.pack("<BBBxH", 0, 0, 0, 0xFFFF))[0] == STARTED
    driver.send(0x0103, bytes([1, 1, 1, 1]))
    cci.reset(Reset.COLD)
    assert driver.send(0x0102)[1][0] & 3 == 0
    clock.advance(1)
    assert switch.virtual[0].vppbs[0].port is switch.ports[0]
    assert driver.send(0x5100)[0] == SUCCESS
    assert machine.taken() == []


def test_a_reset_forgets_the_command_that_waits(cci: SwitchMailboxCci, clock: ManualClock) -> None:
    driver = Driver(cci)
    with pytest.raises(TimeoutError):
        driver.send(0x5100)
    cci.reset(Reset.FLR)
    with pytest.raises(TimeoutError):
        driver.send(0x0001)
    clock.advance(0)
    assert not driver.read32(2, driver.mailbox + 4) & 1
    assert driver.read64(2, driver.mailbox + 8) >> 16 == 0x12  # the answer of the second


def test_two_of_them_manage_one_switch(switch: PhysicalSwitch, clock: ManualClock) -> None:
    first, second = (SwitchMailboxCci(name, switch) for name in ("a", "b"))
    try:
        for driver in (Driver(Patient(one, clock)) for one in (first, second)):
            assert driver.send(0x5100)[0] == SUCCESS
    finally:
        first.close()
        second.close()


def test_another_kind_of_interrupt(switch: PhysicalSwitch) -> None:
    with pytest.raises(ValueError, match="'intx' is neither 'msi' nor 'msix'"):
        SwitchMailboxCci("cci", switch, interrupts="intx")


@pytest.mark.parametrize("seed", range(4))
def test_software_may_do_anything(
    cci: SwitchMailboxCci,
    switch: PhysicalSwitch,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    seed: int,
) -> None:
    """Accesses of any size anywhere, and any commands, are survived, and it works afterwards."""
    numbers = random.Random(seed)
    sizes = {index: region.size for index, region in enumerate(cci.regions()) if region}
    places = [(region, offset) for region, file in cci._files.items() for offset in file.registers]
    opcodes = [0x5100, 0x5101, 0x5200, BIND, UNBIND, 0x0100, 0x0101, 0x0103, 0x0401, 0x5300, 0xFFFF]
    mailbox = Driver(cci).mailbox
    for _ in range(2000):
        region, offset = numbers.choice(places)
        size = numbers.choice((1, 2, 4, 4, 8, 16))
        offset = max(0, min(offset + numbers.choice((0, 0, 0, 1, -1)), sizes[region] - size))
        if numbers.random() < 0.3:
            assert len(cci.read(region, offset, size)) == size
        elif numbers.random() < 0.5:
            cci.write(region, offset, numbers.choice((numbers.randbytes(size), b"\xff" * size, bytes(size))))
        else:
            length = numbers.randrange(12)
            cci.write(2, mailbox + 0x20, numbers.randbytes(length) if length else bytes(4))
            cci.write(2, mailbox + 8, (numbers.choice(opcodes) | length << 16).to_bytes(8, "little"))
            cci.write(2, mailbox + 4, bytes([numbers.randrange(8), 0, 0, 0]))
        if numbers.random() < 0.3:
            clock.advance(numbers.random())
    clock.advance(switch.patience)
    assert caplog.records == []
    cci.reset(Reset.COLD)
    code, answer = Driver(Patient(cci, clock)).send(0x5100)
    assert (code, answer[2:4]) == (SUCCESS, bytes([4, 2]))
    assert all(one.operation is None for virtual in switch.virtual.values() for one in virtual.vppbs)


def test_two_at_once_and_a_third_that_closes() -> None:
    """In real time, each from a thread of its own: bindings that race are refused, and no command is lost."""
    clock = SystemClock()
    switch = PhysicalSwitch("rack", ports=2, virtual=[("left", 2), ("right", 2)], serial=SERIAL, clock=clock)
    functions = [SwitchMailboxCci(str(number), switch) for number in range(3)]
    codes: list[int] = []

    class Looking:
        """Software that looks until the doorbell has cleared."""

        def __init__(self, function: SwitchMailboxCci) -> None:
            self.read, self._function = function.read, function

        def write(self, region: int, offset: int, data: bytes) -> None:
            self._function.write(region, offset, data)
            until = clock.now() + 300
            while self._function.mailbox.held:
                assert clock.now() < until, "the doorbell did not clear"

    def work(number: int) -> None:
        driver = Driver(Looking(functions[number]))
        for _ in range(50):
            codes.append(driver.send(BIND, struct.pack("<BBBxH", number, 0, 0, 0xFFFF))[0])
            codes.append(driver.send(UNBIND, bytes([number, 0, 2]))[0])
            assert driver.send(0x5100)[0] == SUCCESS

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    functions[2].close()
    for thread in threads:
        thread.join(500)
        assert not thread.is_alive()
    assert len(codes) == 200
    assert set(codes) <= {STARTED, INVALID_INPUT, BUSY}
    for one in functions[:2]:
        one.close()
    clock.close()
