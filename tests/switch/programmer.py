"""A little firmware: enumerates a machine and programs its decoders, through registers and by numbers of its own.

Offsets and bits are those of Linux's pci_regs.h and drivers/cxl/cxl.h, so that what it reaches is a second opinion.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from softcxl.switch.machine import HostMachine

MIB = 1 << 20
_WAYS = {1: 0, 2: 1, 4: 2, 8: 3, 16: 4, 3: 8, 6: 9, 12: 10}
_DVSEC, _CXL, _LOCATOR, _DEVICE_DVSEC = 0x23, 0x1E98, 8, 0
COMMIT, COMMITTED, ERROR, LOCK, HOST_ONLY = 1 << 9, 1 << 10, 1 << 11, 1 << 8, 1 << 12


@dataclass
class Found:
    """A function that enumeration found, by its place; `block` is the address of its component registers."""

    bus: int
    device: int
    kind: int  # PCI_EXP_TYPE_*
    number: int  # of the port, in its link capabilities
    block: int = 0
    below: list[Found] = field(default_factory=list)

    @property
    def endpoint(self) -> bool:
        return self.kind == 0


class Programmer:
    """Enumerates `machine` at once: `roots` holds the root ports of each bridge, in order."""

    def __init__(self, machine: HostMachine) -> None:
        self.machine = machine
        self.at = machine.mmio_ranges[0][0]
        self.next_bus = 0
        self.roots: list[list[Found]] = []
        for _, bus in machine.host_bridges:
            self.next_bus = bus + 1
            self.roots.append(self.scan(bus))

    def read(self, bus: int, device: int, offset: int, size: int = 4) -> int:
        return int.from_bytes(self.machine.config_read(bus, device, 0, offset, size), "little")

    def write(self, bus: int, device: int, offset: int, value: int, size: int = 4) -> None:
        self.machine.config_write(bus, device, 0, offset, value.to_bytes(size, "little"))

    def scan(self, bus: int) -> list[Found]:
        found = []
        for device in range(32):
            if self.read(bus, device, 0) == 0xFFFF_FFFF:
                continue
            express = self.capability(bus, device, 0x10)
            one = Found(
                bus,
                device,
                self.read(bus, device, express + 2, 2) >> 4 & 0xF,
                self.read(bus, device, express + 0x0C) >> 24,
            )
            bridge = self.read(bus, device, 0x0E, 1) & 0x7F == 1
            bars = {}
            for bar in (0,) if bridge else (0, 2, 4):
                self.write(bus, device, 0x10 + 4 * bar, 0xFFFF_FFFF)
                size = -(self.read(bus, device, 0x10 + 4 * bar) & ~0xF) & 0xFFFF_FFFF
                if size:
                    self.at = -(-self.at // size) * size
                    self.write(bus, device, 0x10 + 4 * bar, self.at)
                    bars[bar] = self.at
                    self.at += size
            self.write(bus, device, 0x04, 0x6, 2)
            if bridge:
                self.descend(one)
            bar, offset = self.component(bus, device)
            one.block = bars[bar] + offset
            found.append(one)
        return found

    def descend(self, one: Found) -> None:
        secondary, self.next_bus = self.next_bus, self.next_bus + 1
        self.write(one.bus, one.device, 0x18, one.bus & 0xFF | (secondary & 0xFF) << 8 | 0xFF << 16)
        start = self.at = -(-self.at // MIB) * MIB
        one.below = self.scan(secondary)
        self.at = -(-self.at // MIB) * MIB
        self.write(one.bus, one.device, 0x1A, self.next_bus - 1 & 0xFF, 1)
        self.write(one.bus, one.device, 0x20, start >> 16 | (self.at - 1 >> 16 << 16))

    def capability(self, bus: int, device: int, ident: int) -> int:
        at = self.read(bus, device, 0x34, 1)
        while self.read(bus, device, at, 1) != ident:
            at = self.read(bus, device, at + 1, 1)
            assert at
        return at

    def dvsec(self, bus: int, device: int, number: int) -> int:
        at = 0x100
        while True:
            header = self.read(bus, device, at)
            if (
                header & 0xFFFF == _DVSEC
                and self.read(bus, device, at + 4, 2) == _CXL
                and self.read(bus, device, at + 8, 2) == number
            ):
                return at
            at = header >> 20
            if not at:
                raise LookupError(number)

    def component(self, bus: int, device: int) -> tuple[int, int]:
        at = self.dvsec(bus, device, _LOCATOR)
        for entry in range(at + 0x0C, at + (self.read(bus, device, at + 4) >> 20), 8):
            low = self.read(bus, device, entry)
            if low >> 8 & 0xFF == 1:
                return low & 7, low & 0xFFFF_0000
        raise LookupError("component registers")

    # -- registers

    def read32(self, address: int) -> int:
        return int.from_bytes(self.machine.mmio_read(address, 4), "little")

    def write32(self, address: int, value: int) -> None:
        self.machine.mmio_write(address, value.to_bytes(4, "little"))

    def hdm(self, block: int) -> int:
        """Where the HDM decoder capability of a component register block is."""
        array = block + 0x1000
        for number in range(1, (self.read32(array) >> 24) + 1):
            entry = self.read32(array + 4 * number)
            if entry & 0xFFFF == 5:
                return array + (entry >> 20)
        raise LookupError("HDM decoders")

    def bridge(self, number: int) -> int:
        """The component registers of a host bridge, where ACPI would say they are."""
        return self.machine.registers[self.machine.bridges[number].name]

    def decoder(
        self,
        block: int,
        number: int,
        *,
        hpa: int,
        size: int,
        ways: int = 1,
        granularity: int = 256,
        targets: list[int] | None = None,
        skip: int = 0,
        flags: int = 0,
        code: int | None = None,
    ) -> int:
        """Program one decoder and ask for its commit; returns its control register then."""
        at = self.hdm(block) + 0x10 + 0x20 * number
        self.write32(at + 0x00, hpa & 0xFFFF_FFFF)
        self.write32(at + 0x04, hpa >> 32)
        self.write32(at + 0x08, size & 0xFFFF_FFFF)
        self.write32(at + 0x0C, size >> 32)
        low = int.from_bytes(bytes(targets), "little") if targets is not None else skip
        self.write32(at + 0x14, low & 0xFFFF_FFFF)
        self.write32(at + 0x18, low >> 32)
        eiw = _WAYS[ways] if code is None else code
        self.write32(at + 0x10, granularity.bit_length() - 9 | eiw << 4 | COMMIT | HOST_ONLY | flags)
        return self.read32(at + 0x10)

    def decommit(self, block: int, number: int) -> int:
        at = self.hdm(block) + 0x10 + 0x20 * number + 0x10
        self.write32(at, self.read32(at) & ~COMMIT)
        return self.read32(at)

    def enable(self, endpoint: Found) -> None:
        """Mem_Enable, and HDM Decoder Enable."""
        at = self.dvsec(endpoint.bus, endpoint.device, _DEVICE_DVSEC)
        self.write(endpoint.bus, endpoint.device, at + 0x0C, 4, 2)
        self.write32(self.hdm(endpoint.block) + 4, 2)

    def endpoints(self) -> list[Found]:
        found: list[Found] = []

        def walk(ones: list[Found]) -> None:
            for one in ones:
                if one.endpoint:
                    found.append(one)
                walk(one.below)

        for ports in self.roots:
            walk(ports)
        return found


def committed(control: int) -> bool:
    """Committed, and not refused."""
    assert bool(control & COMMITTED) != bool(control & ERROR)
    return bool(control & COMMITTED)
