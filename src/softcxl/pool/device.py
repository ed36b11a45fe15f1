"""The way to the pool inside a guest: a pool access device, a PCI slot whose memory is the pool's.

Function 0 has registers to ask and ring by, and interrupts; the memory is in the BARs of the other functions, and
programs map it. All of it is user space: sysfs and UIO (`softcxl.pool.uio`). It takes root, or the rights to these
files.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import struct
import time
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softcxl.pool import layout, processor
from softcxl.pool.errors import Foreign, NoServer
from softcxl.pool.link import Mapped, Place, hello, welcomed
from softcxl.pool.protocol import Opcode
from softcxl.pool.uio import Function, Interrupts, Registers
from softcxl.spec.pool_access import (
    ACCESS_CONTROL_ID,
    ENTRY_SIZE,
    MAGIC,
    PAYLOAD_OFFSET,
    PAYLOAD_SIZE,
    TABLE_OFFSET,
    VERSION,
    AccessRegisters,
    vector_of,
)

log = logging.getLogger(__name__)

SYSFS: Final = Path("/sys/bus/pci/devices")

_VENDOR: Final = 0x1E98
"""The CXL Consortium's, as PCI has it."""
_ENTRY: Final = struct.Struct("<QI4x48s")
_ALL_ONES: Final = (1 << 32) - 1
"""What a register reads as whose function has gone."""
_REST: Final = 0.1
"""Seconds asleep at most: an interrupt that has gone astray costs no more."""
_NAP: Final = 0.0005
"""Seconds between looks where there are no interrupts."""

_version = AccessRegisters.version.__layout__.offset
_status = AccessRegisters.status.__layout__.offset
_capabilities = AccessRegisters.capabilities.__layout__.offset
_doorbell = AccessRegisters.doorbell.__layout__.offset
_acknowledge = AccessRegisters.acknowledge.__layout__.offset
_enable = AccessRegisters.enable.__layout__.offset
_command = AccessRegisters.command.__layout__.offset
_result = AccessRegisters.result.__layout__.offset
_slot = AccessRegisters.slot.__layout__.offset
_length = AccessRegisters.length.__layout__.offset


@dataclass(frozen=True)
class Window:
    """Where a source's memory is in the device: its number and size in bytes, and the BAR of which function."""

    source: int
    size: int
    function: int
    bar: int
    name: str


def slots(sysfs: Path = SYSFS) -> list[str]:
    """The PCI addresses (`0000:0d:00.0`) of all pool access devices of this machine, sorted."""
    found = []
    for path in sysfs.glob("*.0"):
        with contextlib.suppress(OSError, ValueError):
            function = Function(path)
            if (int(function.word("vendor"), 16), int(function.word("device"), 16)) == (
                _VENDOR,
                ACCESS_CONTROL_ID,
            ):
                found.append(path.name)
    return sorted(found)


class DeviceLink:
    """The pool access device at the PCI address `slot`; without one the only one of this machine. All guests of a host
    see the same memory.

    Raises `NoServer` where there is none, or may not be used, and `Refused` as `softcxl.pool.processor.check`.
    """

    coherence: Final = "host"

    def __init__(self, slot: str | None = None, *, sysfs: Path = SYSFS, devices: Path = Path("/dev")) -> None:
        processor.check()
        known = slots(sysfs)
        if slot is None and len(known) != 1:
            which = f"; say which: {', '.join(f'device:{one}' for one in known)}" if known else ""
            raise NoServer(f"this machine has {len(known)} pool access devices{which}")
        if slot is not None and slot not in known:
            raise NoServer(f"{slot} is no pool access device; there are {', '.join(known) or 'none'}")
        self.slot = slot or known[0]
        self._sysfs, self._devices = sysfs, devices
        self._given = Place()
        self._vectors = 0
        self._interrupts: Interrupts | None = None
        self._polls = self._closed = False
        control = Function(sysfs / self.slot)
        try:
            control.enable()
            self._registers = Registers(control)
        except (OSError, ValueError) as error:
            raise NoServer(f"the registers of {self.slot} cannot be mapped: {error}") from error
        magic = int.from_bytes(self._registers.take(0, 8), "little")
        version = self._registers.load(_version)
        if magic != MAGIC or version != VERSION:
            self._registers.close()
            raise Foreign(
                f"{self.slot} begins with {magic:#x}, version {version}: not what this client knows"
            )

    @property
    def address(self) -> str:
        return f"device:{self.slot}"

    # -- the memory --------------------------------------------------------------------------------------------------

    def memories(self) -> list[Window]:
        """What the device has; the arena first."""
        count = self._registers.load(_capabilities) & 0xFF
        found = []
        for number in range(count):
            data = self._registers.take(TABLE_OFFSET + number * ENTRY_SIZE, ENTRY_SIZE)
            size, place, name = _ENTRY.unpack(data)
            found.append(Window(place >> 16, size, place & 7, place >> 8 & 7, layout.decode_name(name)))
        return found

    def map(self, memory: Window) -> mmap.mmap:
        """A memory of the device, mapped. Raises `NoServer`."""
        function = Function(self._sysfs / f"{self.slot[:-1]}{memory.function}")
        try:
            function.enable()
            return function.map(memory.bar, memory.size)
        except (OSError, ValueError) as error:
            raise NoServer(f"{memory.name} of {self.slot} cannot be mapped: {error}") from error

    # -- the link ----------------------------------------------------------------------------------------------------

    def attach(self, name: str, place: Place) -> Mapped:
        if self.gone():
            raise NoServer(f"no server is behind {self.slot}")
        welcome = welcomed(*self._ask(0, Opcode.HELLO, hello(name, place)), f" behind {self.slot}")
        self._given = Place(welcome.slot, welcome.epoch, welcome.token)
        wanted = {layout.ARENA, *(one.number for one in welcome.sources)}
        maps = {one.source: self.map(one) for one in self.memories() if one.source in wanted}
        if maps.keys() != wanted:
            raise Foreign(f"{self.slot} has no memory of the sources {sorted(wanted - maps.keys())}")
        files: dict[int, Hashable] = {number: (self.slot, number) for number in maps}
        return Mapped(self._given, welcome.server, welcome.lease / 1000, maps, files)

    def gone(self) -> bool:
        try:
            return self._registers.load(_status) in (0, _ALL_ONES)
        except ValueError:
            return True  # it is closed

    def fileno(self) -> int:
        return -1

    def ask(self, opcode: int, data: bytes, timeout: float | None = None) -> tuple[int, bytes]:
        return self._ask(self._given.slot, opcode, data, timeout)

    def _ask(self, slot: int, opcode: int, data: bytes, timeout: float | None = None) -> tuple[int, bytes]:
        if len(data) > PAYLOAD_SIZE:
            raise ValueError(f"a request of {len(data)} bytes; {PAYLOAD_SIZE} are the most")
        registers = self._registers
        until = None if timeout is None else time.monotonic() + timeout
        with registers.alone(until):
            self._result(until)  # of one that ran out of time: its answer is not taken for this one's
            registers.put(PAYLOAD_OFFSET, data)
            registers.store(_length, len(data))
            registers.store(_slot, slot)
            registers.store(_command, opcode)
            result, length = self._result(until), registers.load(_length)
            if length > PAYLOAD_SIZE:
                raise NoServer(f"the pool behind {self.slot} does not answer")
            return result >> 16, registers.take(PAYLOAD_OFFSET, length)

    def _result(self, until: float | None) -> int:
        """How the last command went, once it is over."""
        while (result := self._registers.load(_result)) & 1:
            if result == _ALL_ONES or (until is not None and time.monotonic() > until):
                raise NoServer(f"the pool behind {self.slot} does not answer")
            time.sleep(_NAP)
        return result

    # -- sleeping and waking -------------------------------------------------------------------------------------------

    def ring(self, offset: int) -> None:
        """Wake who sleeps on the word of the arena at `offset`, wherever they are."""
        with contextlib.suppress(ValueError):  # it is closed
            self._registers.store(_doorbell, offset // 8)

    def rest(self, offset: int, seconds: float) -> None:
        """Sleep until the word of the arena at `offset` is rung, for so long at most; or wake earlier, for nothing."""
        interrupts = self._waited()
        if interrupts is None:
            time.sleep(min(seconds, _NAP))
            return
        vector = 1 << vector_of(offset)
        if not self._vectors & vector:
            self._vectors |= vector
            self._registers.store(_enable, vector)
        elif not interrupts.wait(min(seconds, _REST)):
            return
        self._registers.store(_acknowledge, 1)
        interrupts.unmask()

    def _waited(self) -> Interrupts | None:
        """The device's interrupts; None where they cannot be had: then one looks again and again."""
        if self._interrupts is None and not self._polls:
            with self._registers.alone():
                try:
                    self._interrupts = Interrupts(Function(self._sysfs / self.slot), self._devices)
                except (NoServer, OSError) as error:
                    log.warning("%s: waiting takes processor time: %s", self.address, error)
                    self._polls = True
        return self._interrupts

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._interrupts = None  # whoever waits by it has it until he has done
            self._registers.close()
