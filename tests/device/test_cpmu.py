"""Performance counters, driven as Linux does: offsets and bits are those of its drivers/perf/cxl_pmu.c."""

import pytest

from softcxl.device.type3 import Type3
from softcxl.testing.driver import CONFIG, MSIX, Driver, Machine
from softcxl.wire import Reset

CAP, OVERFLOW, FREEZE = 0x0, 0x10, 0x18
ENABLE, INTERRUPT, FREEZE_ON_OVERFLOW, EDGE, INVERT = 1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12
M2S_REQ, M2S_RWD, S2M_NDR, S2M_DRS, CLOCK, DDR = 0x20, 0x21, 0x24, 0x25, 0x00, 0x8000
MEM_WR, CLOCK_COUNTER, COMMANDS, OBJECTS, FREE = 4, 8, 9, 10, 11
EVERYTHING = (1 << 64) - 1
FULL = (1 << 48) - 1


class Pmu:
    def __init__(self, device: Type3) -> None:
        self.driver = Driver(device)
        self.bar, self.base = self.driver.blocks[4]

    def __getitem__(self, offset: int) -> int:
        return self.driver.read64(self.bar, self.base + offset)

    def __setitem__(self, offset: int, value: int) -> None:
        self.driver.write64(self.bar, self.base + offset, value)

    def configuration(self, counter: int) -> int:
        return self[0x200 + 8 * counter]

    def group(self, gid: int) -> int:
        """The place of a group of CXL's."""
        for place in range((self[CAP] >> 20 & 0x1F) + 1):
            if self[0x100 + 8 * place] >> 32 == 0x1E98 << 16 | gid:
                return place
        raise LookupError(gid)

    def start(self, counter: int, gid: int = 0, events: int = 0, flags: int = ENABLE, threshold: int = 0):
        """As cxl_pmu_event_start, between a freeze and its end."""
        self[FREEZE] = EVERYTHING
        what = self.group(gid) << 59 | events << 24
        self[0x200 + 8 * counter] = what | threshold << 16 | flags
        self[0xC00 + 8 * counter] = 0
        self[FREEZE] = 0

    def value(self, counter: int) -> int:
        return self[0xC00 + 8 * counter]

    def filter(self, counter: int, decoder: int) -> None:
        self.driver.write32(self.bar, self.base + 0x400 + 32 * counter, decoder)


@pytest.fixture
def device(make):
    return make(cpmu=True, interrupts="msix")


@pytest.fixture
def pmu(device):
    return Pmu(device)


def test_a_device_has_none_unless_asked(make):
    assert 4 not in Driver(make()).blocks


def test_it_describes_itself(pmu):
    capability = pmu[CAP]
    assert (capability & 0x3F) + 1 == 12
    assert capability >> 8 & 0xFF == 48
    assert capability >> 32 & 0xFF == 1  # the HDM decoder filter
    assert 0 < capability >> 44 & 0xF < 16  # Linux refuses vector 0
    assert capability >> 48 & 7 == 7  # writable when frozen, freeze, interrupt
    assert [pmu.configuration(counter) & 3 for counter in range(12)] == [2] * 4 + [1] * 7 + [0]
    groups = [pmu[0x100 + 8 * place] for place in range((capability >> 20 & 0x1F) + 1)]
    assert [(one >> 32 & 0xFFFF, one & 0xFFFF_FFFF) for one in groups] == [
        (M2S_REQ, 1 << 1),  # MemRd
        (M2S_RWD, 1 << 1 | 1 << 2),  # MemWr, MemWrPtl
        (S2M_NDR, 1 << 0),  # Cmp
        (S2M_DRS, 1 << 0),  # MemData
        (CLOCK, 1 << 0),
        (0xFF00, 3),
    ]
    assert pmu[0x128] >> 48 == pmu.driver.read16(CONFIG, 0)


def test_the_vendors_group_is_the_vendors(make):
    pmu = Pmu(make(cpmu=True, vendor_id=0x1AF4))
    assert pmu[0x128] >> 48 == 0x1AF4


def test_reads_and_writes_by_lines(device, pmu):
    pmu.start(0, M2S_REQ, 1 << 1)
    pmu.start(1, M2S_RWD, 1 << 1)
    pmu.start(2, M2S_RWD, 1 << 1 | 1 << 2)
    pmu.start(3, S2M_NDR, 1 << 0)
    device.cpmu.read(0, 0x1000, 256)
    device.cpmu.read(0, 0x103F, 2)
    device.cpmu.write(0, 0x1000, 128)
    device.cpmu.write(0, 0x1020, 64)
    assert [pmu.value(counter) for counter in range(4)] == [4 + 2, 2, 2 + 2, 2 + 2]


def test_each_event_has_a_counter_of_its_own(device, pmu):
    for counter in range(MEM_WR, CLOCK_COUNTER):
        pmu[0x200 + 8 * counter] = pmu.configuration(counter) | ENABLE
    device.cpmu.read(0, 0, 128)
    device.cpmu.write(0, 0, 3 * 64 + 32)
    assert [pmu.value(counter) for counter in range(MEM_WR, CLOCK_COUNTER)] == [3, 1, 4, 2]


def test_nobody_counts_traffic_while_no_counter_does(device, pmu):
    assert not device.traffic
    pmu.start(0, S2M_DRS, 1)
    assert device.traffic is device.cpmu
    pmu[FREEZE] = 1
    assert not device.traffic
    pmu[FREEZE] = 0
    device.cpmu.read(0, 0, 64)
    pmu[0x200] = pmu[0x200] & ~ENABLE
    assert device.traffic is None
    assert pmu.value(0) == 1


def test_the_decoder_filter(device, pmu):
    pmu.filter(0, 2)
    pmu.start(0, M2S_REQ, 1 << 1)
    for decoder in (0, 2, 3, 2):
        device.cpmu.read(decoder, 0, 64)
    assert pmu.value(0) == 2
    pmu.filter(0, 0xFFFF_FFFF)
    device.cpmu.read(0, 0, 64)
    assert pmu.value(0) == 3


def test_mailbox_commands_and_data_objects(device, pmu):
    pmu[0x200 + 8 * COMMANDS] = pmu.configuration(COMMANDS) | ENABLE
    pmu[0x200 + 8 * OBJECTS] = pmu.configuration(OBJECTS) | ENABLE
    for opcode in (0x4000, 0xFFFF, 0x4000):
        pmu.driver.send(opcode)
    doe = next(at for ident, at in pmu.driver.extended_capabilities() if ident == 0x2E)
    for dword in (0x0000_0001, 3, 0):  # discovery
        pmu.driver.write32(CONFIG, doe + 0x10, dword)
    pmu.driver.write32(CONFIG, doe + 0x08, 1 << 31)
    assert (pmu.value(COMMANDS), pmu.value(OBJECTS)) == (3, 1)
    pmu[FREEZE] = 1 << COMMANDS
    pmu.driver.send(0x4000)
    assert pmu.value(COMMANDS) == 3


def test_what_a_fixed_counter_counts_is_not_to_be_written(pmu):
    pmu[0x200 + 8 * COMMANDS] = EVERYTHING
    found = pmu.configuration(COMMANDS)
    assert (found & 3, found >> 24 & 0xFFFF_FFFF, found >> 59) == (1, 1, 5)
    assert found >> 8 & 0x1F == 0x1F


def test_clock_ticks(clock, pmu):
    pmu[0x200 + 8 * CLOCK_COUNTER] = pmu.configuration(CLOCK_COUNTER) | ENABLE
    pmu.start(0, CLOCK, 1)
    clock.advance(2.0)
    assert pmu.value(CLOCK_COUNTER) == pmu.value(0) == 2_000_000_000
    pmu[FREEZE] = 1
    clock.advance(1.0)
    assert (pmu.value(CLOCK_COUNTER), pmu.value(0)) == (3_000_000_000, 2_000_000_000)


def test_the_free_running_counter_cannot_be_stopped(clock, pmu):
    before = pmu.value(FREE)
    pmu[FREEZE] = EVERYTHING
    pmu[0x200 + 8 * FREE] = 0
    pmu[0xC00 + 8 * FREE] = 0
    clock.advance(1.0)
    assert pmu.value(FREE) - before == 1_000_000_000
    assert pmu.configuration(FREE) & ENABLE
    assert pmu[FREEZE] == 0xFFF


@pytest.mark.parametrize(
    ("flags", "threshold", "expected"),
    [
        (0, 0, 3),
        (0, 1, 3),
        (0, 2, 0),
        (INVERT, 0, 0),
        (INVERT, 1, 1_000_000_000 - 3),
        (INVERT, 2, 1_000_000_000),
        (EDGE, 1, 3),
        (EDGE | INVERT, 1, 3),
        (EDGE | INVERT, 2, 0),
    ],
)
def test_threshold_inversion_and_edge(clock, device, pmu, flags, threshold, expected):
    """Three cycles of a thousand million have an event."""
    pmu.start(0, M2S_REQ, 1 << 1, ENABLE | flags, threshold)
    if device.traffic is not None:
        device.cpmu.read(0, 0, 192)
    clock.advance(1.0)
    assert pmu.value(0) == expected


def test_an_overflow_interrupts_and_freezes(device, pmu):
    machine = Machine()
    device.attach(machine)
    pmu.start(0, M2S_REQ, 1 << 1, ENABLE | INTERRUPT | FREEZE_ON_OVERFLOW)
    pmu.start(1, S2M_DRS, 1)
    pmu[0xC00] = FULL - 1
    device.cpmu.read(0, 0, 128)
    assert pmu.value(0) == 0
    assert pmu[OVERFLOW] == 1
    assert pmu[FREEZE] == 0xFFF
    assert machine.taken() == [(MSIX, pmu[CAP] >> 44 & 0xF)]
    assert device.traffic is None
    pmu[OVERFLOW] = 1
    pmu[FREEZE] = 0
    assert pmu[OVERFLOW] == 0
    device.cpmu.read(0, 0, 64)
    assert (pmu.value(0), pmu[OVERFLOW], machine.taken()) == (1, 0, [])


def test_an_overflow_without_either_is_only_in_the_status(device, pmu):
    machine = Machine()
    device.attach(machine)
    pmu.start(0, M2S_REQ, 1 << 1)
    pmu[0xC00] = FULL
    device.cpmu.read(0, 0, 128)
    assert (pmu.value(0), pmu[OVERFLOW], pmu[FREEZE], machine.taken()) == (1, 1, 0, [])


def test_a_clock_counter_overflows_when_it_is_time(clock, device, pmu):
    machine = Machine()
    device.attach(machine)
    pmu[0x200 + 8 * CLOCK_COUNTER] = pmu.configuration(CLOCK_COUNTER) | ENABLE | INTERRUPT
    pmu[0xC00 + 8 * CLOCK_COUNTER] = FULL - 1_500_000_000
    clock.advance(1.0)
    assert machine.taken() == []
    clock.advance(1.0)
    assert machine.taken() == [(MSIX, pmu[CAP] >> 44 & 0xF)]
    assert pmu[OVERFLOW] == 1 << CLOCK_COUNTER
    assert pmu.value(CLOCK_COUNTER) == 500_000_000 - 1


@pytest.mark.parametrize(("kind", "kept"), [(Reset.HOT, False), (Reset.CXL, False), (Reset.FLR, True)])
def test_resets(device, pmu, kind, kept):
    pmu.start(0, M2S_REQ, 1 << 1)
    device.cpmu.read(0, 0, 64)
    device.reset(kind)
    again = Pmu(device)
    assert again.value(0) == int(kept)
    assert bool(again.configuration(0) & ENABLE) is kept
    assert (device.traffic is not None) is kept
    assert again.configuration(COMMANDS) == 5 << 59 | 1 << 24 | 1


def test_an_unknown_group_counts_nothing(device, pmu):
    pmu[0x200] = 31 << 59 | 0xFFFF_FFFF << 24 | ENABLE
    pmu.driver.send(0x4000)
    assert pmu.value(0) == 0
