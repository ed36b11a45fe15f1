"""Functions of a pool access device that have memory in their BARs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from softcxl.device.access.server import Memory
from softcxl.pci.function import Function
from softcxl.pci.region import Region
from softcxl.spec.cxl.dvsec import VENDOR_CXL
from softcxl.spec.pool_access import ACCESS_MEMORY_ID, BARS, CLASS_OTHER_MEMORY
from softcxl.wire import RangeError, RegisterFile

_LEAST = 4096


class Windows(Function):
    """A function with up to three memories, in 64-bit prefetchable BARs. It never interrupts.

    A guest maps each memory whole, and its loads and stores never come here. A BAR's size is a power of two; what is
    behind the end of the memory reads as zero.
    """

    vectors: ClassVar = {"none": 0}

    def __init__(self, name: str, memories: Sequence[Memory]) -> None:
        super().__init__(
            vendor_id=VENDOR_CXL,
            device_id=ACCESS_MEMORY_ID,
            class_code=CLASS_OTHER_MEMORY,
            interrupts="none",
        )
        self.name = name
        self._open = [_File(memory) for memory in memories]
        for index, file in zip(BARS, self._open, strict=False):
            self.add_bar(index, file, prefetchable=True)
        self.finish()

    def __repr__(self) -> str:
        return f"<memory of {self.name}: {len(self._open)}>"

    def irqs(self) -> list[int]:
        return [0, 0, 0, 0, 0]

    def regions(self) -> list[Region | None]:
        """As of any function; guests may map the memories, which are not the function's own to clear."""
        found = super().regions()
        for index, file in zip(BARS, self._open, strict=False):
            found[index] = Region(file.size, mappable=((0, file.there),), fd=file.fd, start=file.start)
        return found

    @property
    def fds(self) -> list[int]:
        """Of the memories."""
        return [file.fd for file in self._open]

    def close(self) -> None:
        """Let go of the files. It must not be attached."""
        for file in self._open:
            file.close()


class _File(RegisterFile):
    """A memory as what answers in a BAR, for whoever does not map it."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(_LEAST)  # nothing is placed in it
        self.size = max(_LEAST, 1 << (memory.size - 1).bit_length())
        self.there = memory.size
        self.start = memory.offset
        self.fd = os.dup(memory.fd)

    def read(self, offset: int, size: int) -> bytes:
        self._inside(offset, size)
        there = max(0, min(size, self.there - offset))
        return os.pread(self.fd, there, self.start + offset).ljust(size, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        self._inside(offset, len(data))
        there = max(0, min(len(data), self.there - offset))
        os.pwrite(self.fd, data[:there], self.start + offset)

    def close(self) -> None:
        os.close(self.fd)

    def _inside(self, offset: int, size: int) -> None:
        if offset < 0 or offset + size > self.size:
            raise RangeError(f"{size} bytes at {offset:#x} lie outside {self.size:#x} bytes")
