"""A directory in plain memory, written by hand from the layout's tables: what a server would make."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from softcxl.pool.native import Memory, Region

SLOTS_AT, REGIONS_AT, HEAP_AT = 8192, 12288, 1 << 16
SLOTS, REGIONS = 8, 8
ARENA = 4 << 20
SOURCE = 4 << 20
LIVE, DEAD = 1, 2
EPOCH = 5
GENERATION = 3
KEPT, ATOMIC = 1, 2


def started(process: int | str = "self") -> int:
    """When a process began, in the kernel's ticks: field 22 of its stat."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[19])


class Directory:
    """An arena with slots 0 and on, all of them live, and `copies` sources, one for each copy of each region."""

    def __init__(
        self, sources: int = 3, host: bytes = b"here", journal: int = 1 << 20, source: int = SOURCE
    ) -> None:
        self.buffers = [mmap.mmap(-1, ARENA), *(mmap.mmap(-1, source) for _ in range(sources))]
        self.memories: list[Memory | None] = [Memory(buffer) for buffer in self.buffers]
        self.arena = self.buffers[0]
        struct.pack_into(
            "<QII5Q", self.arena, 0, 0x4C4F4F504C584353, 2, 1, ARENA, 77, 1, 1, SLOTS << 32 | sources + 1
        )
        struct.pack_into("<QQQQ", self.arena, 0x38, REGIONS, 4096, SLOTS_AT, REGIONS_AT)
        struct.pack_into("<QQI", self.arena, 0x78, HEAP_AT, 0, 10_000)
        for slot in range(SLOTS):
            at = SLOTS_AT + 256 * slot
            self.slot_of_this_process(slot)
            if journal:
                struct.pack_into(
                    "<QQ", self.arena, at + 80, HEAP_AT + slot * (256 << 10), min(journal, 256 << 10)
                )
            struct.pack_into("64s", self.arena, at + 192, host)

    @property
    def directory(self) -> Memory:
        assert self.memories[0] is not None
        return self.memories[0]

    def region(
        self, index: int = 0, size: int = 1 << 16, copies: int = 1, healthy: int = -1, flags: int = 0
    ) -> int:
        """Make a record; returns where it is."""
        at = REGIONS_AT + 256 * index
        every = (1 << copies) - 1
        struct.pack_into("<QQIII", self.arena, at, GENERATION << 24 | LIVE, size, 1, flags, copies)
        struct.pack_into("<II", self.arena, at + 96, healthy & every, 0)
        extents = [(copy + 1) << 56 | index * (256 << 10) for copy in range(copies)]
        struct.pack_into(f"<{copies}Q", self.arena, at + 128, *extents)
        return at

    def open(self, index: int = 0, slot: int = 1) -> Region:
        return Region(self.directory, index, GENERATION, self.memories, slot, EPOCH)

    def slot(self, number: int, *, state: int = LIVE, pid: int = 0, flags: int = 0, start: int = 0) -> None:
        at = SLOTS_AT + 256 * number
        struct.pack_into("<QIIQ", self.arena, at, EPOCH << 24 | state, pid, flags, start)

    def slot_of_this_process(self, number: int) -> None:
        self.slot(number, pid=os.getpid(), start=started())

    def copy(self, number: int, size: int, index: int = 0) -> bytes:
        """The bytes of one copy of a region, past all protocol."""
        at = index * (256 << 10)
        return self.buffers[number + 1][at : at + size]
