"""What a function shows of its address spaces to whoever plugs it in."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from softcxl.wire import RegisterFile

CONFIG_REGION = 7
"""Index of configuration space; 0 to 5 are the BARs, 6 the expansion ROM (as vfio numbers them)."""

REGION_COUNT = 9

INTX, MSI, MSIX, ERROR, REQUEST = range(5)
"""Kinds of interrupt (as vfio numbers them)."""


@dataclass(frozen=True, slots=True)
class Region:
    """A BAR, or configuration space, as it is seen from outside.

    `size` is in bytes; `mappable` holds the page-aligned (offset, size) pairs that may be mapped as memory from
    the file `fd`, which holds the region from its offset 0.
    """

    size: int
    readable: bool = True
    writable: bool = True
    mappable: tuple[tuple[int, int], ...] = ()
    fd: int | None = None


class Bus(Protocol):
    """What a function can do to the machine it is plugged into."""

    def interrupt(self, kind: int, vector: int) -> None: ...

    def dma_read(self, address: int, size: int) -> bytes: ...

    def dma_write(self, address: int, data: bytes) -> None: ...


class SharedRegisters(RegisterFile):
    """A register file whose bytes lie in a memfd, so that parts of it can be mapped by a guest."""

    def __init__(self, size: int, name: str) -> None:
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self._map = mmap.mmap(self.fd, size)
        super().__init__(size, self._map)

    def close(self) -> None:
        """Give the memory back. Placed registers must not be used any more."""
        self._map.close()
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Bar:
    """A 64-bit memory BAR: `file` behind it, and which pages of it a guest may map."""

    index: int
    file: RegisterFile
    mappable: Sequence[tuple[int, int]] = ()

    def region(self) -> Region:
        fd = self.file.fd if self.mappable and isinstance(self.file, SharedRegisters) else None
        return Region(self.file.size, mappable=tuple(self.mappable), fd=fd)
