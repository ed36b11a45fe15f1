"""What hurts no command: reserved bits, places past the end, two who ring at once, memory that changes under it.

A refusal is a return code of the standard (CXL 3.1 Table 8-34) and changes nothing that software can see; reserved bits
are ignored, as the standard asks of who receives them.
"""

import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from softcxl.device.cci import CommandSet, command
from softcxl.spec.command import registry
from softcxl.spec.command.base import NO_EFFECT, Command
from softcxl.testing.driver import Driver
from softcxl.wire import Record, u64
from tests.device import effects
from tests.device.effects import CASES, CEL, DEBUG, DYNAMIC, MIB, QUESTIONS, UNIT, changed, extents

SUCCESS, INPUT, UNSUPPORTED, SLOT, HANDLE, ADDRESS, LENGTH, LOG = 0, 2, 3, 0x0B, 0x0E, 0x0F, 0x16, 0x17
SELECTION, EXTENTS = 0x1A, 0x1E
STATIC, END = 4 * UNIT, 5 * UNIT
TOP64, TOP32 = (1 << 64) - 64, (1 << 32) - 1


@pytest.fixture
def bench():
    made = []

    def build(before=effects.nothing):
        made.append(effects.bench())
        before(made[-1])
        return made[-1]

    yield build
    for one in made:
        one.device.close()


# -- reserved bits ---------------------------------------------------------------------------------------------


def reserved(record, payload):
    """A mask, as long as `payload`, of what `record` declares as reserved: bytes, and bits of words."""
    mask = b""
    for item in record.__layout__.fields:
        if item.kind == "reserved":
            mask += b"\xff" * item.size
        elif item.kind == "word":
            named = sum(field.mask for field in item.of.__layout__.fields)
            mask += ((1 << 8 * item.size) - 1 ^ named).to_bytes(item.size, "little")
        elif item.kind == "nested":
            mask += reserved(item.of, bytes(item.of.__layout__.size))
        elif item.kind == "counted" and isinstance(item.of, type) and issubclass(item.of, Record):
            of = reserved(item.of, bytes(item.of.__layout__.size))
            mask += of * ((len(payload) - len(mask)) // len(of))
        elif item.size is not None:
            mask += bytes(item.size)
    return mask.ljust(len(payload), b"\0")[: len(payload)]


def all_payloads():
    for opcode, cases in CASES.items():
        for case in cases:
            yield opcode, case
    for opcode, payload in QUESTIONS.items():
        yield opcode, effects.Case("question", payload)


WITH_RESERVED = [
    pytest.param(opcode, case, mask, id=f"{opcode:04X}-{case.name}")
    for opcode, case in all_payloads()
    if (record := registry.COMMANDS[opcode].request) and any(mask := reserved(record, case.payload))
]


def test_what_is_reserved_is_what_libcxlmi_has_as_reserved():
    """Offsets and sizes of the fields named rsvd in its structures (src/cxlmi/api-types.h), and bits by hand."""
    of = {
        f"{opcode:04X}": reserved(registry.COMMANDS[opcode].request, case.payload)
        for opcode, case in all_payloads()
        if registry.COMMANDS[opcode].request
    }
    assert of["0101"][:6] == b"\0\xfe\0\xff\xff\xff"
    assert of["0201"][:128] == b"\0\0\xff\xff" + bytes(4) + b"\xff" * 0x78
    assert of["4103"][:8] == bytes(4) + b"\xff" * 4
    assert of["4202"] == b"\xe0\xe0\0\xff" + bytes(8)
    assert of["4302"] == bytes(72)
    assert of["4501"] == b"\0" + b"\xff" * 31 + bytes(64)
    assert of["4802"][:8] == bytes(4) + b"\xfe\xff\xff\xff"
    assert of["4802"][8:] == bytes(16) + b"\xff" * 8


@pytest.mark.parametrize(("opcode", "case", "mask"), WITH_RESERVED)
def test_reserved_bits_are_ignored(bench, opcode, case, mask):
    device, control = bench(case.before), bench(case.before)
    noisy = bytes(one | extra for one, extra in zip(case.payload, mask, strict=True))
    assert device.send(opcode, noisy) == control.send(opcode, case.payload)
    for one in (device, control):
        one.settle()
    assert device.driver.background() == control.driver.background()
    assert changed(control.seen(), device.seen()) == set()


# -- past the end ----------------------------------------------------------------------------------------------


def passphrase(kind):
    return effects.passphrase(kind, b"", effects.SECRET)


BEYOND = [
    *(("log", 0x0100, bytes([log]), INPUT) for log in (5, 0x80, 0xFF)),
    *(("log", 0x0101, struct.pack("<BBB3xH", log, 0, 1, 1), INPUT) for log in (5, 0xFF)),
    *(("handle", 0x0101, struct.pack("<BBB3xH", 3, 0, 1, one), HANDLE) for one in (0, 2, 0xFFFF)),
    ("more handles than records", 0x0101, struct.pack("<BBB3xHH", 3, 0, 2, 1, 2), HANDLE),
    ("more handles than there are", 0x0101, struct.pack("<BBB3xH", 3, 0, 2, 1), LENGTH),
    *(("slot", 0x0201, bytes([0, slot]).ljust(128, b"\0") + b"image", SLOT) for slot in (0, 1, 3, 255)),
    *(("action", 0x0201, bytes([action, 2]).ljust(128, b"\0") + b"image", INPUT) for action in (5, 255)),
    *(("offset", 0x0201, struct.pack("<BBxxI", 1, 2, at).ljust(128, b"\0"), INPUT) for at in (1, TOP32)),
    *(("slot", 0x0202, bytes([0, slot]), SLOT) for slot in (0, 1, 2, 3, 255)),
    *(("action", 0x0202, bytes([action, 2]), INPUT) for action in (2, 255)),
    *(
        ("end", 0x0401, CEL + struct.pack("<II", at, n), INPUT)
        for at, n in ((4096, 1), (TOP32, 1), (1, TOP32))
    ),
    *(("end", 0x0401, DEBUG + struct.pack("<II", at, n), INPUT) for at, n in ((65536, 1), (TOP32, TOP32))),
    *(
        ("log", opcode, bytes(16) + more, LOG)
        for opcode, more in ((0x0401, bytes(8)), (0x0402, b""), (0x0403, b""))
    ),
    *(("index", 0x0405, bytes([1, index]), INPUT) for index in (9, 255)),
    *(
        ("capacity", 0x4101, struct.pack("<QB", n, when), INPUT)
        for n in (5, 1 << 36, TOP64)
        for when in (0, 1)
    ),
    *(
        ("end", 0x4102, struct.pack("<II", at, n), INPUT)
        for at, n in ((4096, 1), (4095, 2), (TOP32, 1), (0, TOP32))
    ),
    *(("end", 0x4103, struct.pack("<I4x", at) + b"ab", INPUT) for at in (4095, 4096, TOP32)),
    *(("state", 0x4204, bytes([state]), INPUT) for state in (2, 255)),
    *(("end", 0x4300, struct.pack("<QQ", at, n), ADDRESS) for at, n in ((END, 1), (END - 64, 2), (TOP64, 1))),
    ("length", 0x4300, struct.pack("<QQ", 0, (1 << 64) - 1), ADDRESS),
    *(("inside a line", 0x4300, struct.pack("<QQ", at, 1), INPUT) for at in (8, 63)),
    *(("end", 0x4301, struct.pack("<Q", at), ADDRESS) for at in (END, TOP64)),
    *(("inside a line", 0x4301, struct.pack("<Q", at), INPUT) for at in (1, 32, END - 1, (1 << 64) - 1)),
    *(("end", 0x4302, struct.pack("<Q", at) + bytes(64), ADDRESS) for at in (END, TOP64)),
    *(("inside a line", 0x4302, struct.pack("<Q", at) + bytes(64), INPUT) for at in (1, END + 1)),
    *(
        ("range", 0x4402, struct.pack("<BB2xIQQ", 1, 1, 1, at, n), INPUT)
        for at, n in ((END, 64), (END - 64, 128), (TOP64, 64), (0, TOP64), (0, 0), (32, 64), (0, 32))
    ),
    ("a range that is not there", 0x4402, struct.pack("<BB2xI", 1, 1, 1), LENGTH),
    ("as many as there are numbers", 0x4402, struct.pack("<BB2xIQQ", 1, 1, TOP32, 0, 64), LENGTH),
    *(
        ("operation", 0x4402, struct.pack("<BB2xI", *one, 0), UNSUPPORTED)
        for one in ((0, 1), (1, 2), (2, 0), (255, 255))
    ),
    *(("whose", 0x4501, passphrase(kind), INPUT) for kind in (2, 255)),
    *(("whose", 0x4502, effects.passphrase(kind, b""), INPUT) for kind in (2, 255)),
    *(("whose", 0x4505, effects.passphrase(kind, b""), INPUT) for kind in (2, 255)),
    *(("protocol", 0x4600, struct.pack("<BH5x", *one), INPUT) for one in ((0, 0), (1, 0), (0xEF, 1))),
    *(("protocol", 0x4601, struct.pack("<BH5x", *one), INPUT) for one in ((0, 3), (1, 0), (0xFF, 0xFFFF))),
    *(("region", 0x4800, bytes([1, index]), INPUT) for index in (1, 8, 255)),
    *(("index", 0x4801, struct.pack("<II", 1, index), INPUT) for index in (2, TOP32)),
    *(
        ("extent", opcode, extents(one), ADDRESS if one[0] >= END or one[0] < DYNAMIC else EXTENTS)
        for opcode in (0x4802, 0x4803)
        for one in ((0, 2 * MIB), (END, 2 * MIB), (DYNAMIC + 1, 2 * MIB), (DYNAMIC, 1), (DYNAMIC, 0))
    ),
    *(
        ("an extent that is not there", one, extents((DYNAMIC, 2 * MIB))[:-1], LENGTH)
        for one in (0x4802, 0x4803)
    ),
]


@pytest.mark.parametrize(
    ("opcode", "payload", "code"),
    [
        pytest.param(opcode, payload, code, id=f"{opcode:04X}-{what}-{number}")
        for number, (what, opcode, payload, code) in enumerate(BEYOND)
    ],
)
def test_past_the_end(bench, opcode, payload, code):
    device = bench()
    before = device.seen()
    assert device.send(opcode, payload) == (code, b"")
    assert not device.driver.background()[0]
    assert device.seen() == before


def test_the_last_place_is_there(bench):
    """One step less than what is refused above."""
    device = bench()
    for opcode, payload in (
        (0x4102, struct.pack("<II", 4095, 1)),
        (0x4103, struct.pack("<I4x", 4095) + b"a"),
        (0x4103, struct.pack("<I4x", 4096)),
        (0x4300, struct.pack("<QQ", END - 64, 1)),
        (0x4301, struct.pack("<Q", STATIC - 64)),
        (0x4302, struct.pack("<Q", STATIC - 64) + bytes(64)),
        (0x0405, b"\1\1"),
        (0x4800, b"\1\0"),
        (0x4101, struct.pack("<QB", 4, 0)),
    ):
        assert device.send(opcode, payload)[0] == SUCCESS, f"{opcode:04X}"


# -- doorbells at once -----------------------------------------------------------------------------------------

ROUNDS = 200


def together(*works):
    gate = threading.Barrier(len(works))

    def run(work):
        gate.wait(300)
        work()

    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(run, work) for work in works]:
            done.result(500)


class Number(Record, size=8):
    """A number."""

    number: int = u64()


ECHO = Command(0xC100, "Echo", Number, Number, NO_EFFECT, "vendor")
WAIT = Command(0xC101, "Wait", Number, Number, NO_EFFECT, "vendor")


class Vendor(CommandSet):
    """Commands that show what they were given, one of them after it was waited for."""

    def __init__(self):
        self.entered, self.go = threading.Event(), threading.Event()
        self.inside, self.most = 0, 0
        self.during = lambda: None

    @command(ECHO)
    def echo(self, request):
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.during()
        self.inside -= 1
        return request

    @command(WAIT)
    def wait(self, request):
        self.entered.set()
        assert self.go.wait(300)
        return request


@pytest.fixture
def vendor(device):
    vendor = Vendor()
    device.cci.add([vendor])
    return vendor


def test_two_who_ring_one_mailbox(device, vendor, caplog):
    """Neither waits for the doorbell, as nobody may do: each gets some answer, and the device runs one at a time."""
    codes = set()

    def work(opcode, payload):
        driver = Driver(device)

        def run():
            for _ in range(ROUNDS):
                codes.add(driver.send(opcode, payload)[0])

        return run

    together(work(ECHO.opcode, bytes(8)), work(0x4000, b""), work(0x0100, b"\1"), work(0x4103, bytes(64)))
    assert codes <= {SUCCESS, INPUT, LENGTH}
    assert SUCCESS in codes
    assert vendor.most == 1
    assert caplog.records == []
    driver = Driver(device)
    assert driver.read32(2, driver.mailbox + 4) & 1 == 0
    assert driver.send(ECHO.opcode, b"12345678") == (SUCCESS, b"12345678")


def test_two_doors_into_one_cci(device, vendor):
    """A mailbox and another door, each with the lock as `Cci` asks for: answers are not mixed up."""
    driver = Driver(device)

    def mailbox():
        for number in range(ROUNDS):
            sent = number.to_bytes(8, "little")
            assert driver.send(ECHO.opcode, sent) == (SUCCESS, sent)

    def other():
        for number in range(ROUNDS):
            sent = (1 << 63 | number).to_bytes(8, "little")
            with device.lock:
                assert device.cci.execute(ECHO.opcode, sent).payload == sent

    together(mailbox, other)
    assert vendor.most == 1


def test_writes_while_a_command_runs_come_after_it(device, vendor):
    """What is written by way of the device waits for the command; it neither changes nor loses its answer."""
    driver, at = Driver(device), Driver(device).mailbox
    answers = []

    def ring():
        driver.write64(2, at + 0x08, 8 << 16 | WAIT.opcode)
        device.write(2, at + 0x20, b"original")
        driver.write32(2, at + 0x04, 1)
        answers.append(True)

    def disturb():
        assert vendor.entered.wait(300)
        started = threading.Event()

        def write():
            started.set()
            device.write(2, at + 0x20, b"replaced")
            driver.write64(2, at + 0x08, 0x4000)
            driver.write32(2, at + 0x04, 1)

        late = threading.Thread(target=write)
        late.start()
        started.wait(300)
        assert not answers
        vendor.go.set()
        late.join(500)

    together(ring, disturb)
    code, payload = driver.read64(2, at + 0x10) >> 32 & 0xFFFF, device.read(2, at + 0x20, 9)
    assert (code, payload) == (SUCCESS, b"softcxl 1")
    assert driver.read64(2, at + 0x08) >> 16 == 0x45


@pytest.mark.parametrize("stored", [0, 0xFFFF_FFFF_FFFF_FFFF, 0x4400, 0xFFFFF << 16 | 0x4000])
def test_a_guest_that_stores_to_its_mapping_while_a_command_runs(device, vendor, stored, caplog):
    """No lock keeps a guest from the pages it has mapped. The command is the one that was rung, with its payload as it
    was then, and what is in the registers afterwards is its answer's."""
    driver, data = Driver(device), device.device_registers.file.data
    at = driver.mailbox

    def store():
        struct.pack_into("<Q", data, at + 0x08, stored)
        data[at + 0x20 : at + 0x28] = b"replaced"

    vendor.during = store
    code, payload = driver.send(ECHO.opcode, b"original")
    assert (code, payload) == (SUCCESS, b"original")
    assert driver.read64(2, at + 0x08) >> 16 & 0xFFFFF == 8
    assert driver.read32(2, at + 0x04) == 0
    assert not device.cci.busy
    assert not device.media_disabled
    assert caplog.records == []


def test_a_handler_that_rings_again(device, vendor, caplog):
    """A doorbell from within a command, as from a hook: the inner command is whole, and the outer one after it."""
    driver, inner = Driver(device), []

    def again():
        vendor.during = lambda: None
        inner.append(Driver(device).send(0x4000))

    vendor.during = again
    code, payload = driver.send(ECHO.opcode, b"original")
    assert inner == [(SUCCESS, driver.send(0x4000)[1])]
    assert (code, payload) == (SUCCESS, b"original")
    assert caplog.records == []


def test_resets_while_a_command_waits(device, vendor):
    """A reset waits for the command that runs, and takes the registers after it."""
    driver, done = Driver(device), []

    def ring():
        driver.send(WAIT.opcode, b"original")
        done.append("command")

    def late():
        device.reset()
        done.append("reset")

    def reset():
        assert vendor.entered.wait(300)
        other = threading.Thread(target=late)
        other.start()
        assert done == []
        vendor.go.set()
        other.join(500)

    together(ring, reset)
    assert sorted(done) == ["command", "reset"]
    assert driver.send(ECHO.opcode, b"12345678") == (SUCCESS, b"12345678")
