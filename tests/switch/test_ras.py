"""A protocol error on its way to the root port: offsets and bits are those of Linux's pci_regs.h and cxl.h."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from softcxl.pci.aer import Kind
from softcxl.pci.complex import Interrupt
from softcxl.switch.machine import HostMachine
from softcxl.wire import Reset
from tests.switch.fabrics import Fabric, Level, Plan
from tests.switch.programmer import Found, Programmer

AER, ROOT_COMMAND, ROOT_STATUS, ROOT_SOURCE = 1, 0x2C, 0x30, 0x34
MASKS = (0x08, 0x14)
DEVCTL, BRIDGE_CONTROL, SERR, BRIDGE_SERR = 0x08, 0x3E, 0x100, 0x2


class Reporting:
    """A tree in which every function reports, and no root port is without its interrupt."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.interrupts: list[Interrupt] = []
        self.machine: HostMachine = fabric.machine
        self.machine.interrupted = self.interrupts.append
        self.it: Programmer = fabric.programmer
        for roots in self.it.roots:
            for root in roots:
                self.prepare(root)

    def prepare(self, one: Found) -> None:
        it, aer = self.it, self.aer(one)
        it.write(one.bus, one.device, 0x04, 0x6 | SERR, 2)
        it.write(one.bus, one.device, it.capability(one.bus, one.device, 0x10) + DEVCTL, 0x7, 2)
        for mask in MASKS:
            it.write(one.bus, one.device, aer + mask, 0)
        if not one.endpoint:
            it.write(one.bus, one.device, BRIDGE_CONTROL, BRIDGE_SERR, 2)
        if one.kind == 4:
            it.write(one.bus, one.device, aer + ROOT_COMMAND, 0x7)
            msi = it.capability(one.bus, one.device, 0x05)
            it.write(one.bus, one.device, msi + 4, 0xFEE0_0000)
            it.write(one.bus, one.device, msi + 0x0C, 0x41, 2)
            it.write(one.bus, one.device, msi + 2, 1, 2)
        for below in one.below:
            self.prepare(below)

    def aer(self, one: Found) -> int:
        at = 0x100
        while (header := self.it.read(one.bus, one.device, at)) & 0xFFFF != AER:
            at = header >> 20
            assert at
        return at

    def root(self, one: Found, offset: int) -> int:
        return self.it.read(one.bus, one.device, self.aer(one) + offset)

    def ras(self, one: Found) -> int:
        """The address of a function's RAS capability."""
        start = one.block + 0x1000
        for place in range(1, 1 + (self.it.read32(start) >> 24)):
            if (header := self.it.read32(start + 4 * place)) & 0xFFFF == 2:
                return start + (header >> 20)
        raise LookupError("RAS")

    def unmask(self, one: Found) -> None:
        for mask in (0x04, 0x10):
            self.it.write32(self.ras(one) + mask, 0)


@pytest.fixture
def reporting() -> Iterator[Reporting]:
    with Fabric(Plan((Level(1, 256), Level(1, 256), Level(2, 256)))) as fabric:
        yield Reporting(fabric)


def test_a_devices_error_reaches_the_root_port_and_interrupts(reporting: Reporting) -> None:
    it, device = reporting, reporting.fabric.devices[1]
    root = it.it.roots[0][0]
    found = it.it.endpoints()[1]
    it.unmask(found)
    assert device.ras.inject("mem_data_ecc", correctable=True) is Kind.CORRECTABLE
    assert it.root(root, ROOT_STATUS) & 0x7F == 0x01
    assert it.root(root, ROOT_SOURCE) & 0xFFFF == found.bus << 8 | found.device << 3
    assert len(it.interrupts) == 1
    assert device.ras.inject("receiver_overflow", header=[0xABCD]) is Kind.FATAL
    assert it.root(root, ROOT_STATUS) & 0x7F == 0x01 | 0x04 | 0x10 | 0x40  # first is fatal
    assert it.root(root, ROOT_SOURCE) >> 16 == found.bus << 8 | found.device << 3
    assert len(it.interrupts) == 2
    assert it.it.read32(it.ras(found) + 0x18) == 0xABCD


def test_a_port_has_errors_of_its_own(reporting: Reporting) -> None:
    it = reporting
    root, port = it.it.roots[0][0], it.fabric.bridges[0].ports[0]
    assert port.cxl is not None
    it.unmask(root)
    assert port.cxl.ras.inject("crc_threshold", correctable=True) is Kind.CORRECTABLE
    assert it.it.read32(it.ras(root) + 0x0C) == 0x04
    assert it.root(root, ROOT_SOURCE) & 0xFFFF == root.bus << 8 & 0xFFFF | root.device << 3
    assert len(it.interrupts) == 1
    port.cxl.ras.inject("internal", header=[1])
    port.cxl.ras.inject("ide_tx", header=[2])
    port.reset(Reset.COLD)
    assert int(port.cxl.ras.registers.uncorrectable_status) == 0
    assert int(port.cxl.ras.registers.header_log) == 0
