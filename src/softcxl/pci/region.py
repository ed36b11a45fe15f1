"""What a function shows of its address spaces to whoever plugs it in."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from softcxl.wire import RegisterFile

CONFIG_REGION = 7
"""Index of configuration space; 0 to 5 are the BARs, 6 the expansion ROM (as vfio numbers them)."""

REGION_COUNT = 9

_MAP_FIXED = 0x10  # asm-generic/mman-common.h; the mmap module has no name for it

INTX, MSI, MSIX, ERROR, REQUEST = range(5)
"""Kinds of interrupt (as vfio numbers them)."""


@dataclass(frozen=True, slots=True)
class Region:
    """A BAR, or configuration space, as it is seen from outside.

    `size` is in bytes; `mappable` holds the page-aligned (offset, size) pairs that may be mapped as memory from
    the file `fd`, which holds the region from its offset `start`.
    """

    size: int
    readable: bool = True
    writable: bool = True
    mappable: tuple[tuple[int, int], ...] = ()
    fd: int | None = None
    start: int = 0


class Bus(Protocol):
    """What a function can do to the machine it is plugged into."""

    def interrupt(self, kind: int, vector: int) -> None: ...

    def dma_read(self, address: int, size: int) -> bytes: ...

    def dma_write(self, address: int, data: bytes) -> None: ...


class Registers(Protocol):
    """What answers in a region."""

    def read(self, offset: int, size: int) -> bytes: ...

    def write(self, offset: int, data: bytes) -> None: ...


class Silence:
    """Nobody answers: reads end with all ones, writes go nowhere (PCIe 6.0 §2.3.2)."""

    def read(self, offset: int, size: int) -> bytes:
        return b"\xff" * size

    def write(self, offset: int, data: bytes) -> None:
        """It is lost."""


class SharedRegisters(RegisterFile):
    """A register file of which a guest can map parts.

    From the first time that `fd` is asked for its bytes lie in a memfd, at the place in this process where they were:
    a device that no guest maps has no file descriptor.
    """

    def __init__(self, size: int, name: str) -> None:
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        super().__init__(size, self._map)
        self._name, self._fd = name, -1

    @property
    def fd(self) -> int:
        """The file that holds them from its offset 0. Nobody writes the registers while it is made: the function's
        lock is held. Raises `OSError`."""
        if self._fd < 0:
            self._fd = _move(self._map, self._name)
        return self._fd

    def close(self) -> None:
        """Give the memory back. Placed registers must not be used any more."""
        self._map.close()
        if self._fd >= 0:
            os.close(self._fd)


def _move(memory: mmap.mmap, name: str) -> int:
    """Have the bytes of a mapping lie in a memfd from now on, in place."""
    fd, size = os.memfd_create(name, os.MFD_CLOEXEC), len(memory)
    try:
        os.ftruncate(fd, size)
        os.pwrite(fd, memory, 0)
        library = ctypes.CDLL(None, use_errno=True)
        library.mmap.restype = ctypes.c_void_p
        library.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED
        if library.mmap(address, size, protection, flags, fd, 0) != address:
            error = ctypes.get_errno()
            raise OSError(error, f"registers {name}: {os.strerror(error)}")
    except BaseException:
        os.close(fd)
        raise
    return fd


@dataclass(frozen=True, slots=True)
class Bar:
    """A 64-bit memory BAR: `file` behind it, which pages of it a guest may map, and whether reads of it have no side
    effects and writes may be merged."""

    index: int
    file: RegisterFile
    mappable: Sequence[tuple[int, int]] = ()
    prefetchable: bool = False

    def region(self) -> Region:
        fd = self.file.fd if self.mappable and isinstance(self.file, SharedRegisters) else None
        return Region(self.file.size, mappable=tuple(self.mappable), fd=fd)
