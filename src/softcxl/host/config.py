"""One function's configuration space as a driver sees it: words, capabilities, CXL DVSECs.

Lists are walked as hostile input: a list that runs in circles or out of its area ends there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from softcxl.host.errors import ProbeError
from softcxl.host.machine import Machine
from softcxl.spec.cxl.dvsec import VENDOR_CXL, DvsecId
from softcxl.spec.pci.capability import CapabilityId
from softcxl.spec.pci.extended import ExtendedCapabilityId

ABSENT = 0xFFFF
"""The vendor ID that is read where no function answers."""

_VENDOR_ID, _STATUS, _CAPABILITIES_POINTER = 0x00, 0x06, 0x34
_CAPABILITIES_LIST = 1 << 4
_FIRST_EXTENDED, _END = 0x100, 0x1000


@dataclass(eq=False, slots=True)
class Config:
    """The configuration space of the function at `bus`, `device`, `function`; `bus` is 256 x segment + bus."""

    machine: Machine
    bus: int
    device: int
    function: int
    _extended: list[tuple[int, int]] | None = field(default=None, repr=False)
    _dvsecs: dict[int, int] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The function's name as operating systems write it: ``0000:0c:00.0``."""
        return f"{self.bus >> 8:04x}:{self.bus & 0xFF:02x}:{self.device:02x}.{self.function:x}"

    @property
    def present(self) -> bool:
        """A function answers here."""
        return self.read(_VENDOR_ID, 2) != ABSENT

    def read(self, offset: int, size: int = 4) -> int:
        """The little-endian word of `size` bytes at `offset`."""
        data = self.machine.config_read(self.bus, self.device, self.function, offset, size)
        return int.from_bytes(data, "little")

    def write(self, offset: int, value: int, size: int = 4) -> None:
        """Write a word of `size` bytes."""
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self.machine.config_write(self.bus, self.device, self.function, offset, data)

    def capabilities(self) -> Iterator[tuple[int, int]]:
        """(ID, offset) of each capability in the first 256 bytes, in the order of the list."""
        if not self.read(_STATUS, 2) & _CAPABILITIES_LIST:
            return
        offset, seen = self.read(_CAPABILITIES_POINTER, 1) & ~3, set[int]()
        while offset >= 0x40 and offset not in seen:
            seen.add(offset)
            header = self.read(offset, 2)
            yield header & 0xFF, offset
            offset = header >> 8 & ~3

    def extended(self) -> list[tuple[int, int]]:
        """(ID, offset) of each extended capability, in the order of the list. They are looked for once: capabilities
        do not move."""
        if self._extended is None:
            self._extended = list(self._walk_extended())
        return self._extended

    def _walk_extended(self) -> Iterator[tuple[int, int]]:
        offset, seen = _FIRST_EXTENDED, set[int]()
        while _FIRST_EXTENDED <= offset < _END and offset not in seen:
            seen.add(offset)
            header = self.read(offset)
            if header in (0, 0xFFFFFFFF):
                return
            yield header & 0xFFFF, offset
            offset = header >> 20 & ~3

    def express(self) -> int | None:
        """Where the PCI Express capability is."""
        return next((at for kind, at in self.capabilities() if kind == CapabilityId.PCI_EXPRESS), None)

    def dvsec(self, kind: DvsecId) -> int | None:
        """Where the CXL DVSEC of that ID is."""
        if self._dvsecs is None:
            self._dvsecs = {}
            for capability, at in self.extended():
                if capability == ExtendedCapabilityId.DVSEC and self.read(at + 4, 2) == VENDOR_CXL:
                    self._dvsecs.setdefault(self.read(at + 8, 2), at)
        return self._dvsecs.get(kind)

    def require(self, kind: DvsecId) -> int:
        """`dvsec`, or `ProbeError` where there is none."""
        found = self.dvsec(kind)
        if found is None:
            raise ProbeError(f"{self.name}: no CXL DVSEC {int(kind)} ({kind.name.lower().replace('_', ' ')})")
        return found
