"""A small driver: finds a memory device's registers as an operating system does, and sends mailbox commands.

It knows a `Function` only by its regions, and the layouts only as numbers of its own, so that what it finds
is a second opinion on what `softcxl.spec` declares.

>>> from softcxl.device.type3 import Type3
>>> driver = Driver(Type3("mem0", volatile=256 << 20))
>>> code, payload = driver.send(0x4000)
>>> code, len(payload)
(0, 69)

`Machine` is what the function is plugged into: it notes interrupts and has memory for DMA.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

CONFIG = 7
MSI, MSIX = 1, 2
_CXL_VENDOR = 0x1E98
_DVSEC, _DOE = 0x0023, 0x002E
_LOCATOR_DVSEC = 8
_COMPONENT_BLOCK, _DEVICE_BLOCK = 1, 3
_PRIMARY, _SECONDARY = 2, 3
_CACHE_MEM = 0x1000
_HDM = 5
_WAYS = {1: 0, 2: 1, 4: 2, 8: 3, 16: 4, 3: 8, 6: 9, 12: 10}
_LOCK_ON_COMMIT, _COMMIT, _COMMITTED, _ERROR, _HOST_ONLY = (1 << bit for bit in (8, 9, 10, 11, 12))


class Port(Protocol):
    """A function, seen from outside."""

    def read(self, region: int, offset: int, size: int) -> bytes: ...

    def write(self, region: int, offset: int, data: bytes) -> None: ...


class Machine:
    """A machine that a function is plugged into, by `function.attach(machine)`.

    `interrupts` are those that came, as (kind, vector); `memory` is what DMA reaches, from address 0.
    """

    def __init__(self, memory: int = 0x1000) -> None:
        self.interrupts: list[tuple[int, int]] = []
        self.memory = bytearray(memory)

    def interrupt(self, kind: int, vector: int) -> None:
        self.interrupts.append((kind, vector))

    def dma_read(self, address: int, size: int) -> bytes:
        return bytes(self.memory[address : address + size])

    def dma_write(self, address: int, data: bytes) -> None:
        self.memory[address : address + len(data)] = data

    def taken(self) -> list[tuple[int, int]]:
        """The interrupts since the last call."""
        taken, self.interrupts = self.interrupts, []
        return taken


class Driver:
    """Drives the memory device behind `port`. Raises `LookupError` where it lacks what a driver needs.

    Commands go by its primary mailbox, or by its secondary one, if that is `secondary`.
    """

    def __init__(self, port: Port, *, secondary: bool = False) -> None:
        self.port = port
        self.blocks = dict(self._located())
        self.capabilities = dict(self._device_capabilities())
        if secondary and _SECONDARY not in self.capabilities:
            raise LookupError("no secondary mailbox")
        self.mailbox = self.capabilities.get(_SECONDARY if secondary else _PRIMARY, (0, 0))[0]
        bar, base = self.blocks[_DEVICE_BLOCK]
        self._bar = bar
        self._mailbox = base + self.mailbox
        self.payload_max = 1 << (self.read32(bar, self._mailbox) & 0x1F)

    # -- accesses --------------------------------------------------------------------------------------------

    def read16(self, region: int, offset: int) -> int:
        return int.from_bytes(self.port.read(region, offset, 2), "little")

    def read32(self, region: int, offset: int) -> int:
        return int.from_bytes(self.port.read(region, offset, 4), "little")

    def read64(self, region: int, offset: int) -> int:
        return int.from_bytes(self.port.read(region, offset, 8), "little")

    def write16(self, region: int, offset: int, value: int) -> None:
        self.port.write(region, offset, value.to_bytes(2, "little"))

    def write32(self, region: int, offset: int, value: int) -> None:
        self.port.write(region, offset, value.to_bytes(4, "little"))

    def write64(self, region: int, offset: int, value: int) -> None:
        self.port.write(region, offset, value.to_bytes(8, "little"))

    # -- discovery -------------------------------------------------------------------------------------------

    def capability_list(self) -> Iterator[tuple[int, int]]:
        """(ID, offset) of each capability in the first 256 bytes, in the order of the list."""
        offset, seen = self.port.read(CONFIG, 0x34, 1)[0], set()
        while offset and offset not in seen:
            seen.add(offset)
            header = self.read16(CONFIG, offset)
            yield header & 0xFF, offset
            offset = header >> 8

    def extended_capabilities(self) -> Iterator[tuple[int, int]]:
        """(ID, offset) of each extended capability, in the order of the list."""
        offset, seen = 0x100, set()
        while offset and offset not in seen:
            seen.add(offset)
            header = self.read32(CONFIG, offset)
            if not header:
                return
            yield header & 0xFFFF, offset
            offset = header >> 20

    def dvsec(self, number: int) -> int:
        """Configuration-space offset of the CXL DVSEC with this ID. Raises `LookupError`."""
        for capability, offset in self.extended_capabilities():
            if (
                capability == _DVSEC
                and self.read32(CONFIG, offset + 4) & 0xFFFF == _CXL_VENDOR
                and self.read32(CONFIG, offset + 8) & 0xFFFF == number
            ):
                return offset
        raise LookupError(f"no CXL DVSEC {number}")

    def _located(self) -> Iterator[tuple[int, tuple[int, int]]]:
        locator = self.dvsec(_LOCATOR_DVSEC)
        length = self.read32(CONFIG, locator + 4) >> 20
        for entry in range(0x0C, length, 8):
            low, high = (self.read32(CONFIG, locator + entry + half) for half in (0, 4))
            yield low >> 8 & 0xFF, (low & 7, high << 32 | low & 0xFFFF0000)

    def _device_capabilities(self) -> Iterator[tuple[int, tuple[int, int]]]:
        bar, base = self.blocks[_DEVICE_BLOCK]
        count = self.read64(bar, base) >> 32 & 0xFFFF
        for number in range(1, count + 1):
            header = base + 16 * number
            capability = self.read32(bar, header) & 0xFFFF
            yield capability, (self.read32(bar, header + 4), self.read32(bar, header + 8))

    def component_capability(self, number: int) -> tuple[int, int]:
        """(BAR, offset) of the component capability with this ID. Raises `LookupError`."""
        bar, base = self.blocks[_COMPONENT_BLOCK]
        start = base + _CACHE_MEM
        for index in range(1, (self.read32(bar, start) >> 24) + 1):
            header = self.read32(bar, start + 4 * index)
            if header & 0xFFFF == number:
                return bar, start + (header >> 20)
        raise LookupError(f"no component capability {number}")

    # -- HDM decoders ----------------------------------------------------------------------------------------

    def decoder(self, number: int) -> tuple[int, int]:
        """(BAR, offset) of an HDM decoder's registers."""
        bar, offset = self.component_capability(_HDM)
        return bar, offset + 0x10 + 0x20 * number

    def commit(
        self,
        number: int,
        base: int,
        size: int,
        *,
        ways: int = 1,
        granularity: int = 256,
        skip: int = 0,
        lock: bool = False,
    ) -> bool:
        """Program a decoder in the order in which Linux does, and commit it; whether it says COMMITTED.

        A decoder with its error bit set is taken back, as Linux does.
        """
        bar, at = self.decoder(number)
        control = _WAYS[ways] << 4 | (granularity // 256).bit_length() - 1
        control |= _COMMIT | _HOST_ONLY | (_LOCK_ON_COMMIT if lock else 0)
        for offset, value in ((0x04, base >> 32), (0x00, base), (0x0C, size >> 32), (0x08, size)):
            self.write32(bar, at + offset, value & 0xFFFFFFFF)
        self.write32(bar, at + 0x18, skip >> 32)
        self.write32(bar, at + 0x14, skip & 0xFFFFFFFF)
        self.write32(bar, at + 0x10, control)
        seen = self.read32(bar, at + 0x10)
        if seen & _ERROR:
            self.write32(bar, at + 0x10, seen & ~_COMMIT)
        return bool(seen & _COMMITTED)

    def decommit(self, number: int) -> bool:
        """Take a decoder out of effect; whether COMMITTED has gone."""
        bar, at = self.decoder(number)
        self.write32(bar, at + 0x10, self.read32(bar, at + 0x10) & ~_COMMIT)
        gone = not self.read32(bar, at + 0x10) & _COMMITTED
        for offset in (0x0C, 0x08, 0x04, 0x00):
            self.write32(bar, at + offset, 0)
        return gone

    # -- the mailbox -----------------------------------------------------------------------------------------

    def send(self, opcode: int, payload: bytes = b"") -> tuple[int, bytes]:
        """Send one command; returns its return code and output payload. Raises `TimeoutError`.

        A payload longer than the mailbox takes is announced as it is, and only what fits is written.
        """
        bar, mailbox = self._bar, self._mailbox
        self.write64(bar, mailbox + 0x08, len(payload) << 16 | opcode)
        if payload:
            self.port.write(bar, mailbox + 0x20, payload[: self.payload_max])
        self.write32(bar, mailbox + 0x04, 1)
        if self.read32(bar, mailbox + 0x04) & 1:
            raise TimeoutError(f"command {opcode:04X}h: the doorbell did not clear")
        code = self.read64(bar, mailbox + 0x10) >> 32 & 0xFFFF
        length = self.read64(bar, mailbox + 0x08) >> 16 & 0xFFFFF
        return code, self.port.read(bar, mailbox + 0x20, length) if length else b""

    def background(self) -> tuple[bool, int, int, int]:
        """(running, opcode, percent, return code) of the background operation."""
        running = self.read64(self._bar, self._mailbox + 0x10) & 1
        status = self.read64(self._bar, self._mailbox + 0x18)
        return bool(running), status & 0xFFFF, status >> 16 & 0x7F, status >> 32 & 0xFFFF

    # -- data object exchange --------------------------------------------------------------------------------

    def exchange(self, vendor: int, kind: int, body: bytes, instance: int = 0) -> bytes | None:
        """Send a data object through a DOE mailbox; returns the response's body, None if there is none."""
        found = [offset for capability, offset in self.extended_capabilities() if capability == _DOE]
        doe = found[instance]
        body += bytes(-len(body) % 4)
        request = struct.pack("<HBxI", vendor, kind, 2 + len(body) // 4) + body
        for at in range(0, len(request), 4):
            self.port.write(CONFIG, doe + 0x10, request[at : at + 4])
        self.write32(CONFIG, doe + 0x08, 1 << 31)
        received = b""
        while self.read32(CONFIG, doe + 0x0C) >> 31:
            received += self.port.read(CONFIG, doe + 0x14, 4)
            self.write32(CONFIG, doe + 0x14, 0)
        return received[8:] if received else None

    def cdat(self) -> bytes:
        """The whole CDAT, fetched entry by entry."""
        table, handle = b"", 0
        while handle != 0xFFFF:
            body = self.exchange(_CXL_VENDOR, 2, struct.pack("<BBH", 0, 0, handle))
            if body is None:
                raise LookupError("no CDAT data object")
            handle = int.from_bytes(body[2:4], "little")
            table += body[4:]
        return table
