"""DOE mailboxes as Linux's drivers/pci/doe.c uses them: offsets and bits of pci_regs.h."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcxl.pci.doe import DoeMailbox
from softcxl.testing.driver import CONFIG
from softcxl.wire import Reset
from tests.pci.functions import Plain

CONTROL, STATUS, WRITE, READ = 0x08, 0x0C, 0x10, 0x14
ABORT, GO, ERROR, READY = 1 << 0, 1 << 31, 1 << 2, 1 << 31
VENDOR = 0x1DEA


class Bench:
    """A function with a DOE that echoes (type 1), is silent (type 2) and answers at length (type 3)."""

    def __init__(self):
        self.function = Plain()
        self.mailbox = DoeMailbox(
            self.function,
            {
                (VENDOR, 1): lambda body: body,
                (VENDOR, 2): lambda body: None,
                (VENDOR, 3): lambda body: bytes(range(7)),
            },
        )
        self.base = self.mailbox.registers.base
        self.function.finish()

    def read(self, offset):
        return int.from_bytes(self.function.read(CONFIG, self.base + offset, 4), "little")

    def write(self, offset, value):
        self.function.write(CONFIG, self.base + offset, value.to_bytes(4, "little"))

    def put(self, *dwords):
        for dword in dwords:
            self.write(WRITE, dword)

    def take(self):
        taken = []
        while self.read(STATUS) & READY:
            taken.append(self.read(READ))
            self.write(READ, 0)
        return taken


@pytest.fixture
def bench():
    return Bench()


def request(kind, *body, length=None, vendor=VENDOR):
    return kind << 16 | vendor, 2 + len(body) if length is None else length, *body


def test_extended_capability(bench):
    assert bench.function.read(CONFIG, bench.base, 4) == bytes.fromhex("2e000100")
    assert bench.read(0x04) == 0  # no interrupts


def test_exchange(bench):
    bench.put(*request(1, 0xDEADBEEF, 0x12345678))
    assert bench.read(STATUS) == 0
    bench.write(CONTROL, GO)
    assert bench.read(STATUS) == READY
    assert bench.read(CONTROL) == 0
    assert bench.take() == [0x0001_1DEA, 4, 0xDEADBEEF, 0x12345678]
    assert bench.read(STATUS) == 0


def test_write_mailbox_reads_as_zero(bench):
    bench.put(0xFFFFFFFF)
    assert bench.read(WRITE) == 0


def test_body_is_padded_to_dwords(bench):
    bench.put(*request(3))
    bench.write(CONTROL, GO)
    assert bench.take() == [0x0003_1DEA, 4, 0x03020100, 0x00060504]


def test_discovery_in_order(bench):
    """As pci_doe_cache_features walks: index 0 first, on with the next index until it is 0."""
    found, index = [], 0
    while True:
        bench.put(0x0000_0001, 3, 2 << 8 | index)  # version 2 requests too
        bench.write(CONTROL, GO)
        header, length, body = bench.take()
        assert (header, length) == (0x0000_0001, 3)
        found.append((body & 0xFFFF, body >> 16 & 0xFF))
        index = body >> 24
        if not index:
            break
    assert found == [(0x0001, 0), (VENDOR, 1), (VENDOR, 2), (VENDOR, 3)]


def test_discovery_past_the_end(bench):
    bench.put(0x0000_0001, 3, 4)
    bench.write(CONTROL, GO)
    assert bench.take() == [0x0000_0001, 3, 0x00FF_FFFF]


@pytest.mark.parametrize(
    "dwords",
    [
        (),
        (0x0001_1DEA,),
        request(1, 7, length=2),
        request(1, 7, length=4),
        request(1, length=0),
        request(9, 1),
        request(1, vendor=0x1234),
        request(2, 1),
        request(0, vendor=1),  # discovery without its index
        request(0, 1, 2, vendor=1),
    ],
)
def test_what_is_dropped_without_an_answer(bench, dwords):
    bench.put(*dwords)
    bench.write(CONTROL, GO)
    assert bench.read(STATUS) == 0
    bench.put(*request(1, 5))
    bench.write(CONTROL, GO)
    assert bench.take() == [0x0001_1DEA, 3, 5]


def test_responses_queue(bench):
    bench.put(*request(1, 1))
    bench.write(CONTROL, GO)
    bench.put(*request(1, 2))
    bench.write(CONTROL, GO)
    assert bench.take() == [0x0001_1DEA, 3, 1, 0x0001_1DEA, 3, 2]


def test_abort_drops_everything(bench):
    bench.put(*request(1, 1))
    bench.write(CONTROL, GO)
    bench.put(0xABCD)
    bench.write(CONTROL, ABORT)
    assert bench.read(STATUS) == 0
    assert bench.read(CONTROL) == 0
    assert bench.read(READ) == 0
    bench.put(*request(1, 5))
    bench.write(CONTROL, GO)
    assert bench.take() == [0x0001_1DEA, 3, 5]


def test_abort_wins_over_go(bench):
    bench.put(*request(1, 1))
    bench.write(CONTROL, ABORT | GO)
    assert bench.read(STATUS) == 0


def test_reading_on_is_an_error_until_an_abort(bench):
    bench.write(READ, 0)
    assert bench.read(STATUS) == ERROR
    bench.put(*request(1, 1))
    bench.write(CONTROL, GO)
    assert bench.read(STATUS) == ERROR
    bench.write(STATUS, 0xFFFFFFFF)
    assert bench.read(STATUS) == ERROR
    bench.write(CONTROL, ABORT)
    assert bench.read(STATUS) == 0


def test_a_longer_object_than_there_can_be(bench):
    bench.mailbox._written = [0] * (1 << 18)
    bench.put(1)
    assert bench.read(STATUS) == ERROR
    bench.write(CONTROL, ABORT)
    assert bench.read(STATUS) == 0


def test_the_longest_object(bench):
    body = [7] * ((1 << 18) - 2)
    bench.mailbox._written = list(request(1, *body, length=0))
    bench.write(CONTROL, GO)
    assert len(bench.mailbox._waiting) == 1 << 18
    assert bench.read(STATUS) == READY


@pytest.mark.parametrize("kind", list(Reset))
def test_reset_drops_everything(bench, kind):
    bench.put(*request(1, 1))
    bench.write(CONTROL, GO)
    bench.put(0xABCD)
    bench.function.reset(kind)
    assert bench.read(STATUS) == 0
    bench.put(*request(1, 5))
    bench.write(CONTROL, GO)
    assert bench.take() == [0x0001_1DEA, 3, 5]


def test_several_instances_are_independent(bench):
    other = DoeMailbox(bench.function, {(VENDOR, 1): lambda body: b"two!"})
    bench.put(*request(1, 1))
    at = other.registers.base
    for dword in request(1, 2):
        bench.function.write(CONFIG, at + WRITE, dword.to_bytes(4, "little"))
    bench.function.write(CONFIG, at + CONTROL, GO.to_bytes(4, "little"))
    assert bench.read(STATUS) == 0
    bench.write(CONTROL, GO)
    assert bench.take() == [0x0001_1DEA, 3, 1]
    assert bench.function.read(CONFIG, at + STATUS, 4) == READY.to_bytes(4, "little")


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((CONTROL, STATUS, WRITE, READ, 0x00, 0x04)),
            st.one_of(st.integers(0, 0xFFFFFFFF), st.sampled_from((ABORT, GO, 2, 3, 0x0001_1DEA, 1))),
            st.sampled_from((1, 2, 4, 8)),
        ),
        max_size=60,
    )
)
def test_any_accesses_are_survived(accesses):
    bench = Bench()
    for offset, value, size in accesses:
        size = min(size, 0x18 - offset)
        bench.function.write(CONFIG, bench.base + offset, struct.pack("<Q", value)[:size])
        bench.function.read(CONFIG, bench.base + offset, size)
    bench.write(CONTROL, ABORT)
    bench.put(*request(1, 5))
    bench.write(CONTROL, GO)
    assert bench.take() == [0x0001_1DEA, 3, 5]
