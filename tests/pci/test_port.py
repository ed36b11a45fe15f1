"""Slots with hot plug, links, error messages and containment, as Linux's pciehp, aer and dpc drivers see them."""

from __future__ import annotations

import pytest

from softcxl.pci.aer import Kind, Message, report
from tests.pci import hierarchy as h
from tests.pci.functions import Plain

NEAR, EMPTY = 0x41, 1
HPIE, PDCE, DLLSCE, ABPE, CCIE, PCC = 0x20, 0x08, 0x1000, 0x01, 0x10, 0x400
UNCOR_STATUS, UNCOR_MASK, UNCOR_SEVER, COR_STATUS, COR_MASK, AER_CAP = 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18
ROOT_COMMAND, ROOT_STATUS, ROOT_SOURCE = 0x2C, 0x30, 0x34
DPC_CTL, DPC_STATUS, DPC_SOURCE = 0x06, 0x08, 0x0A
AER, DPC = 0x01, 0x1D
SERR_FORWARD = 0x02
COMPLETION_TIMEOUT, DLP = 0x4000, 0x10


@pytest.fixture
def it() -> h.Hierarchy:
    made = h.Hierarchy()
    made.number()
    return made


def slot(it: h.Hierarchy, device: int = EMPTY) -> int:
    return it.express(h.ROOT, device)


def status(it: h.Hierarchy, device: int = EMPTY) -> int:
    return it.read(h.ROOT, device, slot(it, device) + h.SLTSTA)


def test_a_slot_tells_what_it_has(it: h.Hierarchy) -> None:
    assert it.read(h.ROOT, EMPTY, slot(it) + 0x14, 4) == 2 << 19 | 0x7B  # ABP PCP AIP PIP HPS HPC
    assert it.read(h.ROOT, EMPTY, slot(it) + 2) >> 8 & 1 == 1
    assert (status(it, 0), status(it)) == (h.PDS, 0)
    assert it.read(h.ROOT, 0, slot(it, 0) + h.LNKSTA) & h.DLLLA
    assert not it.read(h.ROOT, EMPTY, slot(it) + h.LNKSTA) & h.DLLLA


def test_a_device_is_added_to_a_running_machine(it: h.Hierarchy) -> None:
    it.enable_msi(h.ROOT, EMPTY)
    it.write(h.ROOT, EMPTY, slot(it) + h.SLTCTL, HPIE | PDCE | DLLSCE)
    it.write(h.ROOT, EMPTY, slot(it) + h.SLTSTA, 0xFFFF)
    it.interrupts.clear()
    added = Plain()
    it.ports[EMPTY].insert(added)
    assert status(it) == h.PDC | h.DLLSC | h.PDS
    assert it.read(h.ROOT, EMPTY, slot(it) + h.LNKSTA) & h.DLLLA
    assert [(one.vector, one.address, one.data) for one in it.interrupts] == [(0, 0xFEE0_0000, 0x41)] * 2
    assert it.read(0x46, 0, 0, 4) == 0x56781234
    with pytest.raises(ValueError, match="taken"):
        it.ports[EMPTY].insert(Plain())


def test_a_device_is_pulled_out_in_use(it: h.Hierarchy) -> None:
    it.window(h.ROOT, 0, 0xC000_0000, 0xC00F_FFFF)
    it.bar(NEAR, 0, 0xC000_0000)
    assert it.complex.mmio_read(0xC000_0000, 4) == bytes(4)
    assert it.ports[0].remove() == [it.near]
    assert status(it, 0) == h.PDC | h.DLLSC
    assert it.read(NEAR, 0, 0, 4) == 0xFFFF_FFFF
    assert it.complex.mmio_read(0xC000_0000, 4) == b"\xff" * 4
    assert not it.near.attached
    with pytest.raises(ValueError, match="empty"):
        it.ports[0].remove()
    it.ports[EMPTY].insert(it.near)  # and put elsewhere: it has forgotten all
    assert it.read(0x46, 0, h.COMMAND) == 0


def test_a_whole_switch_is_pulled_and_put_back(it: h.Hierarchy) -> None:
    it.ports[2].remove()
    assert it.read(0x44, 0, 0, 4) == 0xFFFF_FFFF
    assert not it.left.attached
    it.ports[2].insert(it.upstream)
    it.number()
    assert it.read(0x44, 0, 0, 4) == 0x56781234
    assert it.left.attached


def test_a_disabled_interrupt_is_not_sent(it: h.Hierarchy) -> None:
    it.write(h.ROOT, EMPTY, slot(it) + h.SLTCTL, HPIE | PDCE | DLLSCE)
    it.ports[EMPTY].insert(Plain())
    assert it.interrupts == []  # no MSI
    it.enable_msi(h.ROOT, EMPTY)
    it.write(h.ROOT, EMPTY, slot(it) + h.SLTCTL, PDCE)
    it.ports[EMPTY].remove()
    assert it.interrupts == []  # no hot-plug interrupts
    it.write(h.ROOT, EMPTY, slot(it) + h.SLTCTL, HPIE)
    it.ports[EMPTY].insert(Plain())
    assert it.interrupts == []  # none of these events
    msi = it.capability(h.ROOT, EMPTY, 5)
    it.write(h.ROOT, EMPTY, slot(it) + h.SLTCTL, HPIE | PDCE)
    it.write(h.ROOT, EMPTY, msi + 0x10, 1, 4)
    it.ports[EMPTY].remove()
    assert it.interrupts == []  # masked, and pending
    assert it.read(h.ROOT, EMPTY, msi + 0x14, 4) == 1
    it.write(h.ROOT, EMPTY, msi + 0x10, 0, 4)
    assert len(it.interrupts) == 1
    assert it.read(h.ROOT, EMPTY, msi + 0x14, 4) == 0


def test_the_attention_button_and_commands(it: h.Hierarchy) -> None:
    it.enable_msi(h.ROOT, 0)
    it.write(h.ROOT, 0, slot(it, 0) + h.SLTCTL, HPIE | ABPE | CCIE)
    assert status(it, 0) == h.PDS | h.CC
    it.write(h.ROOT, 0, slot(it, 0) + h.SLTSTA, h.CC)
    assert status(it, 0) == h.PDS
    it.interrupts.clear()
    it.ports[0].press()
    assert status(it, 0) == h.PDS | h.ABP
    assert len(it.interrupts) == 1


def test_power_off_takes_the_device_away_and_power_on_brings_it_back_new(it: h.Hierarchy) -> None:
    it.bar(NEAR, 0, 0xC000_0000)
    it.write(h.ROOT, 0, slot(it, 0) + h.SLTCTL, PCC)
    assert it.read(NEAR, 0, 0, 4) == 0xFFFF_FFFF
    assert status(it, 0) == h.PDS | h.CC | h.DLLSC
    it.write(h.ROOT, 0, slot(it, 0) + h.SLTCTL, 0)
    assert it.read(NEAR, 0, h.COMMAND) == 0
    assert it.read(NEAR, 0, h.BAR0, 4) == 4


def test_link_disable_resets_the_device(it: h.Hierarchy) -> None:
    it.bar(NEAR, 0, 0xC000_0000)
    it.write(h.ROOT, 0, slot(it, 0) + h.LNKCTL, 0x10)
    assert it.read(NEAR, 0, 0, 4) == 0xFFFF_FFFF
    it.write(h.ROOT, 0, slot(it, 0) + h.LNKCTL, 0x20)  # retrain reads as zero
    assert it.read(h.ROOT, 0, slot(it, 0) + h.LNKCTL) == 0
    assert it.read(NEAR, 0, h.COMMAND) == 0


def prepare(it: h.Hierarchy, *path: tuple[int, int]) -> None:
    """Enable error messages from the bridges of a path to the root port, and interrupts of the root."""
    bus, device = path[0]
    it.enable_msi(bus, device)
    it.write(bus, device, it.extended(bus, device, AER) + ROOT_COMMAND, 7, 4)
    for bus, device in path:
        it.write(bus, device, h.BRIDGE_CONTROL, SERR_FORWARD)
        it.write(bus, device, h.COMMAND, h.MEMORY | h.MASTER | h.SERR)


@pytest.fixture
def errors(it: h.Hierarchy) -> h.Hierarchy:
    prepare(it, (h.ROOT, 2), (0x42, 0), (0x43, 1))
    it.write(0x43, 1, it.express(0x43, 1) + h.DEVCTL, 7)
    return it


def root(it: h.Hierarchy, register: int) -> int:
    return it.read(h.ROOT, 2, it.extended(h.ROOT, 2, AER) + register, 4)


def test_an_error_reaches_the_root_port_and_interrupts(errors: h.Hierarchy) -> None:
    it = errors
    assert report(it.down[1], "completion_timeout", header=0x11223344) is Kind.NON_FATAL
    aer = it.extended(0x43, 1, AER)
    assert it.read(0x43, 1, aer + UNCOR_STATUS, 4) == COMPLETION_TIMEOUT
    assert it.read(0x43, 1, aer + AER_CAP, 4) & 0x1F == 14
    assert it.read(0x43, 1, aer + 0x1C, 4) == 0x11223344
    assert it.read(0x43, 1, it.express(0x43, 1) + h.DEVSTA) & 0x2
    assert root(it, ROOT_STATUS) == 0x24
    assert root(it, ROOT_SOURCE) == (0x43 << 8 | 1 << 3) << 16
    assert len(it.interrupts) == 1
    assert report(it.down[1], "data_link_protocol") is Kind.FATAL
    assert root(it, ROOT_STATUS) == 0x6C  # multiple, the first was not fatal
    assert it.read(0x43, 1, aer + AER_CAP, 4) & 0x1F == 14
    assert it.read(h.ROOT, 2, 0x1E) & 0x4000
    assert report(it.down[1], "receiver", correctable=True) is Kind.CORRECTABLE
    assert report(it.down[1], "bad_tlp", correctable=True) is Kind.CORRECTABLE
    assert root(it, ROOT_STATUS) == 0x6F
    assert root(it, ROOT_SOURCE) & 0xFFFF == 0x43 << 8 | 1 << 3


def test_masks_and_enables_keep_messages(errors: h.Hierarchy) -> None:
    it, port = errors, errors.down[1]
    aer = it.extended(0x43, 1, AER)
    it.write(0x43, 1, aer + UNCOR_MASK, COMPLETION_TIMEOUT, 4)
    assert report(port, "completion_timeout") is None
    assert it.read(0x43, 1, aer + UNCOR_STATUS, 4) == COMPLETION_TIMEOUT
    assert report(port, "internal", correctable=True) is None  # masked after reset
    it.write(0x43, 1, it.express(0x43, 1) + h.DEVCTL, 0)
    assert report(port, "receiver", correctable=True) is None
    assert report(port, "ecrc") is Kind.NON_FATAL  # SERR# enables it, too
    it.write(0x43, 1, h.COMMAND, 0)
    assert report(port, "ecrc") is None
    with pytest.raises(ValueError, match="known are"):
        report(port, "spilt_coffee")


def test_a_bridge_that_does_not_forward_ends_a_message(errors: h.Hierarchy) -> None:
    it = errors
    it.write(0x42, 0, h.BRIDGE_CONTROL, 0)
    report(it.down[1], "completion_timeout")
    assert root(it, ROOT_STATUS) == 0
    it.write(0x42, 0, h.BRIDGE_CONTROL, SERR_FORWARD)
    it.write(0x42, 0, h.COMMAND, h.MEMORY)
    report(it.down[1], "completion_timeout")
    assert root(it, ROOT_STATUS) == 0


def test_a_root_port_reports_its_own_errors(errors: h.Hierarchy) -> None:
    it = errors
    assert report(it.ports[2], "data_link_protocol") is Kind.FATAL
    assert root(it, ROOT_STATUS) == 0x54
    assert root(it, ROOT_SOURCE) >> 16 == h.ROOT << 8 | 2 << 3


def contain(it: h.Hierarchy, bus: int, device: int) -> int:
    return it.extended(bus, device, DPC)


def test_containment_takes_the_link_down_and_keeps_the_message(errors: h.Hierarchy) -> None:
    it = errors
    dpc = contain(it, h.ROOT, 2)
    it.write(h.ROOT, 2, dpc + DPC_CTL, 1 | 8)
    report(it.down[1], "completion_timeout")  # not fatal: it passes
    assert root(it, ROOT_STATUS) == 0x24
    it.interrupts.clear()
    report(it.down[1], "data_link_protocol")
    assert root(it, ROOT_STATUS) == 0x24
    assert it.read(h.ROOT, 2, dpc + DPC_STATUS) == 0x1 | 2 << 1 | 8
    assert it.read(h.ROOT, 2, dpc + DPC_SOURCE) == 0x43 << 8 | 1 << 3
    assert len(it.interrupts) == 1
    assert it.read(0x42, 0, 0, 4) == 0xFFFF_FFFF
    it.write(h.ROOT, 2, dpc + DPC_STATUS, 0x9)
    assert it.read(h.ROOT, 2, dpc + DPC_STATUS) & 1 == 0
    assert it.read(0x42, 0, 0, 4) == 0x0001ABCD
    assert it.read(0x42, 0, h.SECONDARY, 1) == 0  # a link that was down has reset what is below


def test_containment_by_a_switchs_port_of_messages_that_are_not_fatal(errors: h.Hierarchy) -> None:
    it = errors
    dpc = contain(it, 0x43, 1)
    it.write(0x43, 1, dpc + DPC_CTL, 2)
    it.down[1].receive(Message(Kind.NON_FATAL, 0x4500))
    assert it.read(0x43, 1, dpc + DPC_STATUS) == 0x1 | 1 << 1
    assert it.read(0x43, 1, dpc + DPC_SOURCE) == 0x4500
    assert it.read(0x45, 0, 0, 4) == 0xFFFF_FFFF
    assert it.read(0x44, 0, 0, 4) == 0x56781234


def test_software_triggers_containment(it: h.Hierarchy) -> None:
    dpc = contain(it, h.ROOT, 0)
    it.write(h.ROOT, 0, dpc + DPC_CTL, 0x40)
    assert it.read(h.ROOT, 0, dpc + DPC_STATUS) == 0  # not enabled
    it.write(h.ROOT, 0, dpc + DPC_CTL, 0x41)
    assert it.read(h.ROOT, 0, dpc + DPC_STATUS) == 0x1 | 3 << 1 | 1 << 5
    assert it.read(h.ROOT, 0, dpc + DPC_CTL) == 1
    assert it.read(NEAR, 0, 0, 4) == 0xFFFF_FFFF
