"""Firmware: transfers in parts, what is taken and what is rejected, what runs when.

Order, timeout and slot rules are those of QEMU (hw/cxl/cxl-mailbox-utils.c, cmd_firmware_update_*), parts are made as
Linux makes them (drivers/cxl/core/memdev.c, cxl_fw_write).
"""

import hashlib
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softcxl.device.firmware import FirmwareRejected, check_image, image
from softcxl.device.persist import StateDamaged
from softcxl.device.type3 import Type3
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.firmware import ACTIVATE_FW, GET_FW_INFO, TRANSFER_FW
from softcxl.testing.driver import Driver
from softcxl.wire import Reset

SUCCESS, STARTED, INPUT, BUSY = 0, 1, 2, 6
IN_PROGRESS, OUT_OF_ORDER, REJECTED, SLOT, ROLLED_BACK, COLD_NEEDED = 8, 9, 0x0A, 0x0B, 0x0C, 0x0D
FULL, INITIATE, CONTINUE, END, ABORT = range(5)
ONLINE, COLD = 0, 1
ACTIVE_1 = (1, 0)
NEW = image("acme 2", bytes(range(256)) * 40)
PARTS = [(at, NEW[at : at + 0x400]) for at in range(0, len(NEW), 0x400)]


class Loader:
    def __init__(self, device, clock):
        self.driver, self.clock = Driver(device), clock

    def part(self, action, offset=0, data=b"", slot=0):
        assert offset % 128 == 0
        head = struct.pack("<BBxxI", action, slot, offset // 128).ljust(128, b"\0")
        return self.driver.send(TRANSFER_FW.opcode, head + data)[0]

    def verified(self):
        """The end of the work in the background."""
        running, opcode, _, _ = self.driver.background()
        assert (running, opcode) == (True, 0x0201)
        self.clock.advance(10)
        return self.driver.background()[3]

    def load(self, data, slot=2):
        """As Linux does: all at once where it fits, else in parts that fill the payload."""
        size = 4096 - 128
        if len(data) <= size:
            assert self.part(FULL, 0, data, slot) == STARTED
            return self.verified()
        for at in range(0, len(data), size):
            piece, rest = data[at : at + size], len(data) - at - size
            if rest <= 0:
                assert self.part(END, at, piece, slot) == STARTED
            else:
                assert self.part(CONTINUE if at else INITIATE, at, piece) == SUCCESS
        return self.verified()

    def activate(self, slot, action=ONLINE):
        return self.driver.send(ACTIVATE_FW.opcode, bytes([action, slot]))[0]

    def info(self):
        """(active, staged), revisions."""
        code, payload = self.driver.send(GET_FW_INFO.opcode)
        slots, info, capabilities, *revisions = struct.unpack("<BBB13x16s16s16s16s", payload)
        assert (code, capabilities) == (SUCCESS, 1)
        return (info & 7, info >> 3 & 7), [one.rstrip(b"\0").decode() for one in revisions][:slots]

    def identity(self):
        return self.driver.send(0x4000)[1][:16].rstrip(b"\0").decode()


@pytest.fixture
def loader(device, clock):
    return Loader(device, clock)


def test_the_container_is_what_it_says():
    """Magic, revision, size, SHA-256, content: by hand."""
    content = b"content"
    by_hand = b"SoftCXL\0" + b"v1".ljust(16, b"\0") + struct.pack("<Q", 7) + hashlib.sha256(content).digest()
    assert image("v1", content) == by_hand + content
    assert check_image(by_hand + content) == "v1"


@pytest.mark.parametrize("size", [0, 1, 3904, 3905, 20000])
def test_a_firmware_is_loaded_and_activated(loader, device, size):
    assert loader.load(image("acme 2", bytes(size))) == SUCCESS
    assert loader.info() == (ACTIVE_1, ["softcxl 1", "acme 2"])
    assert loader.identity() == "softcxl 1"
    assert loader.activate(2, COLD) == SUCCESS
    assert loader.info()[0] == (1, 2)
    for kind in (Reset.FLR, Reset.HOT):
        device.reset(kind)
        assert loader.identity() == "softcxl 1"
    device.reset(Reset.COLD)
    assert loader.info() == ((2, 0), ["softcxl 1", "acme 2"])
    assert loader.identity() == "acme 2"
    assert loader.load(image("acme 3"), slot=1) == SUCCESS
    assert loader.activate(1) == SUCCESS
    assert loader.info() == (ACTIVE_1, ["acme 3", "acme 2"])
    assert loader.identity() == "acme 3"


def test_activation_online_takes_back_what_was_staged(loader, device):
    device.firmware.validate = lambda data: data.decode()
    loader.load(b"two")
    assert loader.activate(2, COLD) == SUCCESS
    assert loader.activate(2) == SUCCESS
    assert loader.info()[0] == (2, 0)


@pytest.mark.parametrize("slot", [0, 1, 3, 255])
def test_slots_that_cannot_be_written_or_run(loader, slot):
    assert loader.part(FULL, 0, NEW[:0x400], slot) == SLOT
    assert loader.part(INITIATE, 0, NEW[:0x400]) == SUCCESS
    assert loader.part(END, 0x400, NEW[0x400:0x800], slot) == SLOT
    assert loader.activate(slot) == loader.activate(slot, COLD) == SLOT
    assert loader.info() == (ACTIVE_1, ["softcxl 1", ""])


def test_an_empty_slot_does_not_run(loader):
    assert loader.activate(2) == loader.activate(2, COLD) == SLOT


def test_any_part_may_come_twice_in_a_row(loader):
    for at, data in PARTS[:-1]:
        assert loader.part(CONTINUE if at else INITIATE, at, data) == SUCCESS
        if at:
            assert loader.part(CONTINUE, at, data) == SUCCESS
    at, data = PARTS[-1]
    assert loader.part(END, at, data, 2) == STARTED
    assert loader.verified() == SUCCESS


@pytest.mark.parametrize("offset", [0, 0x400, 0xC00, 0x1000])
def test_a_part_out_of_order_ends_the_transfer(loader, offset):
    loader.part(INITIATE, 0, bytes(0x400))
    loader.part(CONTINUE, 0x400, bytes(0x400))
    size = 0x200 if offset == 0x400 else 0x400  # not the last part again
    assert loader.part(CONTINUE, offset, bytes(size)) == OUT_OF_ORDER
    assert loader.part(CONTINUE, 0x800, bytes(0x400)) == INPUT
    assert loader.part(INITIATE, 0, bytes(0x400)) == SUCCESS


def test_one_transfer_at_a_time(loader):
    loader.part(INITIATE, 0, NEW[:0x400])
    assert loader.part(INITIATE, 0, NEW[:0x400]) == loader.part(FULL, 0, NEW[:0x400], 2) == IN_PROGRESS
    assert loader.part(CONTINUE, 0x400, NEW[0x400:0x800]) == SUCCESS
    assert loader.part(ABORT) == loader.part(ABORT) == SUCCESS
    assert loader.part(CONTINUE, 0x800, NEW[0x800:0xC00]) == loader.part(END, 0x800, b"", 2) == INPUT
    assert loader.load(NEW) == SUCCESS


def test_parts_that_cannot_be(loader, device):
    assert loader.part(INITIATE, 0x400, bytes(0x400)) == INPUT
    assert loader.part(INITIATE, 0, bytes(0x401)) == INPUT
    assert loader.part(CONTINUE, 0, bytes(0x400)) == loader.part(END, 0, bytes(0x400), 2) == INPUT
    assert loader.part(5) == loader.part(255) == INPUT
    loader.part(INITIATE, 0, bytes(0x400))
    assert loader.part(CONTINUE, 0x400, bytes(0x7F)) == INPUT
    assert loader.part(CONTINUE, (1 << 32) * 128 - 128, bytes(128)) == INPUT  # beyond the largest image
    assert loader.part(CONTINUE, 0x400, bytes(0x80)) == SUCCESS


def test_thirty_seconds_between_parts(loader, clock):
    loader.part(INITIATE, 0, NEW[:0x400])
    clock.advance(30)
    assert loader.part(CONTINUE, 0x400, NEW[0x400:0x800]) == SUCCESS
    clock.advance(30.1)
    assert loader.part(CONTINUE, 0x800, NEW[0x800:0xC00]) == INPUT
    assert loader.part(INITIATE, 0, NEW[:0x400]) == SUCCESS
    clock.advance(30.1)
    assert loader.part(INITIATE, 0, NEW[:0x400]) == SUCCESS


@pytest.mark.parametrize("kind", [Reset.COLD, Reset.HOT, Reset.CXL])
def test_a_reset_ends_a_transfer(loader, device, kind):
    loader.part(INITIATE, 0, NEW[:0x400])
    device.reset(kind)
    assert loader.part(CONTINUE, 0x400, NEW[0x400:0x800]) == INPUT


def test_a_function_level_reset_does_not(loader, device):
    loader.part(INITIATE, 0, NEW[:0x400])
    device.reset(Reset.FLR)
    assert loader.part(CONTINUE, 0x400, NEW[0x400:0x800]) == SUCCESS


@pytest.mark.parametrize("end", ["reset", "abort"])
def test_what_is_interrupted_while_it_is_examined_is_not_saved(loader, device, clock, end):
    loader.part(FULL, 0, image("acme 2"), 2)
    assert loader.part(INITIATE, 0, bytes(128)) == BUSY
    if end == "reset":
        device.reset(Reset.HOT)
    else:
        assert loader.driver.send(0x0005) == (SUCCESS, b"")
    clock.advance(10)
    assert loader.info() == (ACTIVE_1, ["softcxl 1", ""])


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"x",
        bytes(64),
        NEW[:-1],
        NEW + b"\0",
        NEW[:-1] + b"x",
        image(""),
        b"\0" + NEW[1:],
        NEW[:8] + b"\xff" * 16 + NEW[24:],
    ],
    ids=["empty", "one byte", "zeros", "short", "long", "changed", "no revision", "magic", "no ASCII"],
)
def test_a_rejected_image_is_not_saved(loader, device, bad):
    with pytest.raises(FirmwareRejected):
        check_image(bad)
    assert loader.load(image("acme 2")) == SUCCESS
    assert loader.load(bad) == REJECTED
    assert loader.info() == (ACTIVE_1, ["softcxl 1", "acme 2"])
    assert b"firmware for slot 2 is rejected" in device.logs.debug.data


def test_a_check_of_ones_own(loader, device):
    def refuse_odd(data):
        if len(data) % 2:
            raise FirmwareRejected("odd")
        return f"even {len(data)}"

    device.firmware.validate = refuse_odd
    assert loader.load(b"odd") == REJECTED
    assert loader.load(b"even") == SUCCESS
    assert loader.info()[1] == ["softcxl 1", "even 4"]


@pytest.mark.parametrize("code", [ReturnCode.FW_ROLLED_BACK, ReturnCode.COLD_RESET_REQUIRED])
def test_firmware_that_does_not_start_is_rolled_back(loader, device, code):
    loader.load(NEW)
    device.firmware.start = lambda revision: code
    assert loader.activate(2) == code
    assert (loader.info()[0], loader.identity()) == (ACTIVE_1, "softcxl 1")
    needed = loader.driver.read64(2, loader.driver.capabilities[0x4000][0]) >> 5 & 7
    assert needed == (1 if code == COLD_NEEDED else 0)
    assert loader.activate(2, COLD) == SUCCESS
    device.reset(Reset.COLD)
    assert (loader.info()[0], loader.identity()) == (ACTIVE_1, "softcxl 1")
    assert b"firmware of slot 2 did not start" in device.logs.debug.data
    assert loader.driver.read64(2, loader.driver.capabilities[0x4000][0]) >> 5 & 7 == 0


def test_slots_outlive_the_process(make, clock, tmp_path):
    page = tmp_path / "mem0.state"
    loader = Loader(make(state=page), clock)
    loader.load(NEW)
    loader.activate(2, COLD)
    assert loader.info()[0] == (1, 2)
    again = Loader(make(state=page), clock)  # its power has come on: a cold reset
    assert again.info() == ((2, 0), ["softcxl 1", "acme 2"])
    assert again.identity() == "acme 2"


@pytest.mark.parametrize(
    "change",
    [
        {"active": 0},
        {"active": 3},
        {"active": 2},
        {"staged": 3},
        {"staged": 2},
        {"revisions": []},
        {"revisions": [None] * 3},
    ],
)
def test_slots_that_cannot_have_been(make, tmp_path, change):
    page = tmp_path / "mem0.state"
    device = make(state=page)
    device.page.put("firmware", **({"revisions": [None, None], "active": 1, "staged": 0} | change))
    with pytest.raises(StateDamaged, match="firmware cannot have been"):
        make(state=page)


@pytest.mark.parametrize("slots", [0, 5, -1])
def test_numbers_of_slots_that_cannot_be(slots):
    class Many(Type3):
        fw_slots = slots

    with pytest.raises(ValueError, match="1 to 4 are allowed"):
        Many("mem0", volatile=1 << 28)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2, 2, 2, 3, 4]), st.integers(0, 4), st.sampled_from([0, 64, 128, 256, 384])
        ),
        max_size=12,
    )
)
def test_any_order_of_parts(make, clock, steps):
    """Beside a model that knows only what has been taken: what is saved is that, and nothing else ever is."""
    device = make()
    device.firmware.validate = lambda data: hashlib.sha256(data).hexdigest()[:16]
    loader = Loader(device, clock)
    taken: bytes | None = None
    last = None
    for number, (action, unit, size) in enumerate(steps):
        data = bytes([number + 1]) * size
        code = loader.part(action, unit * 128, data, slot=2)
        if code == STARTED:
            whole = data
            if action == END:
                assert taken is not None
                assert (unit * 128, size, action) == last or unit * 128 == len(taken)
                whole = taken[: unit * 128] + data
            assert loader.verified() == SUCCESS
            assert loader.info()[1][1] == hashlib.sha256(whole).hexdigest()[:16]
            taken = None
        elif code == SUCCESS and action == INITIATE:
            assert taken is None
            taken = data
        elif code == SUCCESS and action == CONTINUE:
            assert taken is not None
            again = (unit * 128, size, action) == last
            assert again or unit * 128 == len(taken)
            taken = taken[: unit * 128] + data
        elif code == SUCCESS:
            taken = None
        else:
            assert code in (INPUT, IN_PROGRESS, OUT_OF_ORDER)
            if code == OUT_OF_ORDER:
                taken = None
            continue
        last = (unit * 128, size, action) if taken is not None else None
