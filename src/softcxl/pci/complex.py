"""The root complex: root buses, the ECAM, and the routing of requests from processors.

Bus numbers go on over segments: bus *b* of segment *s* is 256 *s* + *b*, and the ECAM of one segment follows that of
the one before. Where requests lead is remembered until a register on the way is written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from softcxl.pci.bus import Claim, LogicalBus
from softcxl.pci.function import Function
from softcxl.pci.region import CONFIG_REGION, MSI, Bus
from softcxl.spec.pci.header import CONFIG_SPACE_SIZE
from softcxl.wire import RegisterFile

BUSES = 256
"""Buses of a segment."""

_PAGE = 0x1000
_BUS_SHIFT, _FUNCTION_SHIFT = 20, 12  # of an ECAM address (PCIe 6.0 §7.2.2)


class Interrupt(NamedTuple):
    """A message-signalled interrupt: the function that sent it, its vector, and the write that it is."""

    function: Function
    vector: int
    address: int
    data: int


class RootBus(NamedTuple):
    """A root bus, and the numbers of the buses from it on that belong to it: `first` to `last`."""

    bus: LogicalBus
    first: int
    last: int


class RootComplex:
    """Root buses behind one ECAM at `ecam`, and registers of the platform's own.

    `interrupt` is called for each message-signalled interrupt, with locks held: it notes it and returns. All of
    what processors ask for takes `lock`.
    """

    def __init__(self, ecam: int, interrupt: Callable[[Interrupt], None] | None = None) -> None:
        self.ecam = ecam
        self.lock: AbstractContextManager[object] = threading.RLock()
        self.roots: list[RootBus] = []
        self.interrupted = interrupt or (lambda interrupt: None)
        self._fixed: list[Claim] = []
        self._buses: dict[int, LogicalBus | None] = {}
        self._pages: dict[int, Claim | None] = {}

    # -- building ------------------------------------------------------------------------------------------------

    def add_root(self, bus: LogicalBus, first: int, last: int) -> None:
        """Put a root bus at numbers `first` to `last`. Raises `ValueError` where they are taken or cross segments."""
        if not 0 <= first <= last or first // BUSES != last // BUSES:
            raise ValueError(f"buses {first:#x} to {last:#x}: they lie in one segment, in order")
        for other in self.roots:
            if other.first <= last and first <= other.last:
                raise ValueError(
                    f"buses {first:#x} to {last:#x}: {other.first:#x} to {other.last:#x} are taken"
                )
        self.roots.append(RootBus(bus, first, last))
        bus.rise(self)
        self.changed()

    def add_registers(self, base: int, file: RegisterFile) -> None:
        """Put registers of the platform at the address `base`, where nothing routes to or from them."""

        def read(offset: int, size: int) -> bytes:
            return file.read(offset, size)

        def write(offset: int, data: bytes) -> None:
            file.write(offset, data)

        self._fixed.append(Claim(base, base + file.size, read, write))
        self.changed()

    @property
    def segments(self) -> int:
        """Segments in use, from 0 on."""
        return max((root.last // BUSES + 1 for root in self.roots), default=1)

    # -- what functions ask --------------------------------------------------------------------------------------

    def changed(self) -> None:
        self._buses.clear()
        self._pages.clear()

    def reclaimed(self) -> None:
        self._pages.clear()

    def bus_of(self, function: Function) -> Bus:
        return _Lines(self, function)

    def gone(self, function: Function) -> None:
        pass

    # -- configuration space -------------------------------------------------------------------------------------

    def function(self, bus: int, device: int, number: int) -> Function | None:
        """Who answers there, as the bridges' bus numbers stand."""
        try:
            found = self._buses[bus]
        except KeyError:
            found = self._buses[bus] = self._find(bus)
        return None if found is None else found.at(device, number)

    def _find(self, bus: int) -> LogicalBus | None:
        for root in self.roots:
            if root.first <= bus <= root.last:
                return root.bus.find(bus % BUSES)
        return None

    def config_read(self, bus: int, device: int, function: int, offset: int, size: int) -> bytes:
        """`size` bytes of configuration space; all ones where no function answers."""
        with self.lock:
            found = self.function(bus, device, function)
            if found is None or not 0 <= offset <= CONFIG_SPACE_SIZE - size:
                return b"\xff" * size
            return found.read(CONFIG_REGION, offset, size)

    def config_write(self, bus: int, device: int, function: int, offset: int, data: bytes) -> None:
        """Write configuration space; dropped where no function answers."""
        with self.lock:
            found = self.function(bus, device, function)
            if found is not None and 0 <= offset <= CONFIG_SPACE_SIZE - len(data):
                found.write(CONFIG_REGION, offset, data)

    # -- memory requests -----------------------------------------------------------------------------------------

    def claim(self, address: int) -> Claim | None:
        """Who answers at an address of memory-mapped registers."""
        page = address // _PAGE
        try:
            return self._pages[page]
        except KeyError:
            found = self._pages[page] = self._claim(address)
            return found

    def _claim(self, address: int) -> Claim | None:
        for claim in self._fixed:
            if claim.start <= address < claim.end:
                return claim
        for root in self.roots:
            found = root.bus.claim(address)
            if found is not None:
                return found
        return None

    def mmio_read(self, address: int, size: int) -> bytes:
        """`size` bytes from an address; all ones where nothing claims it, and in the ECAM what is there."""
        with self.lock:
            read = b""
            while size:
                part = min(size, _PAGE - address % _PAGE)
                read += self._read(address, part)
                address, size = address + part, size - part
            return read

    def mmio_write(self, address: int, data: bytes) -> None:
        """Write to an address; dropped where nothing claims it."""
        with self.lock:
            while data:
                part = min(len(data), _PAGE - address % _PAGE)
                self._write(address, data[:part])
                address, data = address + part, data[part:]

    def _read(self, address: int, size: int) -> bytes:
        if (where := self._in_ecam(address)) is not None:
            return self.config_read(*where, size)
        claim = self.claim(address)
        return b"\xff" * size if claim is None else claim.read(address - claim.start, size)

    def _write(self, address: int, data: bytes) -> None:
        if (where := self._in_ecam(address)) is not None:
            self.config_write(*where, data)
            return
        claim = self.claim(address)
        if claim is not None:
            claim.write(address - claim.start, data)

    def _in_ecam(self, address: int) -> tuple[int, int, int, int] | None:
        """An ECAM address as bus, device, function and offset."""
        offset = address - self.ecam
        if not 0 <= offset < self.segments * BUSES << _BUS_SHIFT:
            return None
        number = offset >> _FUNCTION_SHIFT
        return offset >> _BUS_SHIFT, number >> 3 & 31, number & 7, offset & CONFIG_SPACE_SIZE - 1


class _Lines:
    """What one function can do to the machine: interrupts. It has no memory to reach but its own."""

    def __init__(self, root: RootComplex, function: Function) -> None:
        self._root, self._function = root, function

    def interrupt(self, kind: int, vector: int) -> None:
        function = self._function
        if not function.header.command.bus_master_enable:
            return
        if kind == MSI and function.msi is not None:
            msi = function.msi
            vector &= (1 << msi.control.multiple_message_enable) - 1
            if not msi.control.enable:
                return
            if msi.mask.vectors >> vector & 1:
                msi.pending.vectors |= 1 << vector
                return
            address = int(msi.address_high) << 32 | int(msi.address_low)
            self._root.interrupted(Interrupt(function, vector, address, msi.data.value | vector))
        elif function.msix_table is not None and function.msix is not None:
            entry, control = function.msix_table.entries[vector], function.msix.control
            if control.enable and not control.function_mask and not entry.vector_control.mask:
                address = int(entry.address_high) << 32 | int(entry.address_low)
                self._root.interrupted(Interrupt(function, vector, address, entry.data.value))

    def dma_read(self, address: int, size: int) -> bytes:
        return b"\xff" * size

    def dma_write(self, address: int, data: bytes) -> None:
        pass
