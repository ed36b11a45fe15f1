"""A small hierarchy, and accesses to it by numbers of our own: offsets and bits are those of Linux's pci_regs.h.

::

    bus 0x40: root port 0 ── Plain                      root port 1 ── (empty)
              root port 2 ── switch: upstream ── downstream 0 ── Plain, downstream 1 ── Plain
"""

from __future__ import annotations

from typing import Any

from softcxl.pci.bridge import Bridge
from softcxl.pci.bus import LogicalBus
from softcxl.pci.complex import Interrupt, RootComplex
from softcxl.pci.port import DownstreamPort, RootPort
from softcxl.spec.pci.express import PortType
from tests.pci.functions import Plain

ECAM = 0xE000_0000
ROOT = 0x40
IDS: Any = {"vendor_id": 0xABCD, "device_id": 0x0001}
COMMAND, BAR0, PRIMARY, SECONDARY, SUBORDINATE = 0x04, 0x10, 0x18, 0x19, 0x1A
MEMORY_BASE, MEMORY_LIMIT, PREF_BASE, PREF_LIMIT = 0x20, 0x22, 0x24, 0x26
PREF_BASE_UPPER, PREF_LIMIT_UPPER, BRIDGE_CONTROL = 0x28, 0x2C, 0x3E
MEMORY, MASTER, SERR = 0x2, 0x4, 0x100
SLTCTL, SLTSTA, LNKCTL, LNKSTA, DEVCTL, DEVSTA = 0x18, 0x1A, 0x10, 0x12, 0x08, 0x0A
PDC, DLLSC, ABP, CC, PDS, DLLLA = 0x08, 0x100, 0x01, 0x10, 0x40, 0x2000
BUS_RESET = 0x40


class Hierarchy:
    """The hierarchy above, with bus numbers and windows not yet given."""

    def __init__(self) -> None:
        self.interrupts: list[Interrupt] = []
        self.complex = RootComplex(ECAM, self.interrupts.append)
        self.near, self.left, self.right = Plain(), Plain(), Plain()
        self.ports = [RootPort(**IDS, port_number=number, slot=number + 1) for number in range(3)]
        self.upstream = Bridge(**IDS, port_type=PortType.UPSTREAM_PORT)
        self.down = [DownstreamPort(**IDS, port_number=number) for number in range(2)]
        for bridge in (*self.ports, self.upstream, *self.down):
            bridge.finish()
        root = LogicalBus(number=ROOT)
        for number, port in enumerate(self.ports):
            root.plug(port, number)
        self.ports[0].plug(self.near)
        self.ports[2].plug(self.upstream)
        for number, down in enumerate(self.down):
            self.upstream.below.plug(down, number)
        self.down[0].plug(self.left)
        self.down[1].plug(self.right)
        self.complex.add_root(root, ROOT, 0x7F)

    def read(self, bus: int, device: int, offset: int, size: int = 2) -> int:
        return int.from_bytes(self.complex.config_read(bus, device, 0, offset, size), "little")

    def write(self, bus: int, device: int, offset: int, value: int, size: int = 2) -> None:
        self.complex.config_write(bus, device, 0, offset, value.to_bytes(size, "little"))

    def number(self) -> None:
        """Bus 41: near, 42: the switch's inside, 43 and 44: left and right; 45: the empty slot."""
        for device, secondary, subordinate in ((0, 0x41, 0x41), (1, 0x46, 0x46), (2, 0x42, 0x45)):
            self.numbers(ROOT, device, secondary, subordinate)
        self.numbers(0x42, 0, 0x43, 0x45)
        self.numbers(0x43, 0, 0x44, 0x44)
        self.numbers(0x43, 1, 0x45, 0x45)

    def numbers(self, bus: int, device: int, secondary: int, subordinate: int) -> None:
        self.write(bus, device, PRIMARY, bus | secondary << 8 | subordinate << 16, 4)

    def window(self, bus: int, device: int, base: int, limit: int) -> None:
        self.write(bus, device, MEMORY_BASE, base >> 16)
        self.write(bus, device, MEMORY_LIMIT, limit >> 16)
        self.write(bus, device, COMMAND, MEMORY | MASTER)

    def prefetchable(self, bus: int, device: int, base: int, limit: int) -> None:
        self.write(bus, device, PREF_BASE, base >> 16 & 0xFFF0)
        self.write(bus, device, PREF_LIMIT, limit >> 16 & 0xFFF0)
        self.write(bus, device, PREF_BASE_UPPER, base >> 32, 4)
        self.write(bus, device, PREF_LIMIT_UPPER, limit >> 32, 4)
        self.write(bus, device, COMMAND, MEMORY | MASTER)

    def bar(self, bus: int, device: int, address: int) -> None:
        self.write(bus, device, BAR0, address & 0xFFFF_FFFF, 4)
        self.write(bus, device, BAR0 + 4, address >> 32, 4)
        self.write(bus, device, COMMAND, MEMORY | MASTER)

    def capability(self, bus: int, device: int, ident: int) -> int:
        at = self.read(bus, device, 0x34, 1)
        while at:
            if self.read(bus, device, at, 1) == ident:
                return at
            at = self.read(bus, device, at + 1, 1)
        raise LookupError(ident)

    def extended(self, bus: int, device: int, ident: int) -> int:
        at = 0x100
        while at:
            header = self.read(bus, device, at, 4)
            if header & 0xFFFF == ident:
                return at
            at = header >> 20
        raise LookupError(ident)

    def express(self, bus: int, device: int) -> int:
        return self.capability(bus, device, 0x10)

    def enable_msi(self, bus: int, device: int, address: int = 0xFEE0_0000, data: int = 0x41) -> None:
        msi = self.capability(bus, device, 0x05)
        self.write(bus, device, msi + 4, address, 8)
        self.write(bus, device, msi + 0x0C, data)
        self.write(bus, device, msi + 2, 1)
        self.write(bus, device, COMMAND, MEMORY | MASTER)
