"""The bytes of regions' copies: from one to another within a region's lock, compared by checksum.

All of it is done by one thread of the server, which holds a region's lock in the name of slot 0.
"""

from __future__ import annotations

import mmap
import threading
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from softcxl.pool.errors import Failed
from softcxl.pool.layout import ARENA, SERVER, SourceState, split
from softcxl.pool.native import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from softcxl.fm.pool.copies import Copies
    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.health import Health
    from softcxl.fm.pool.regions import Known
    from softcxl.fm.pool.sources import Sources

CHUNK = 256 << 10
"""Bytes that are copied within one lock: writers wait as long as that and its checksums take."""

PATIENCE = 1.0
"""Seconds for which a region's lock is waited for; then others come first."""

_LINE = 64


@dataclass
class Progress:
    """A copy that is being made."""

    region: int
    name: str
    copy: int
    source: str
    size: int
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    def told(self) -> dict[str, Any]:
        """For people and programs."""
        return {
            "region": self.region,
            "name": self.name,
            "copy": self.copy,
            "source": self.source,
            "size": self.size,
            "done": self.done,
            "seconds": round(time.monotonic() - self.started, 3),
        }


class Copier:
    """Copies regions of a server, whose lock is `lock`.

    `refuse` is called with a copy, and where in it, that does not hold what was written to it: nothing is copied there
    any more. `stopping` is set to have it stop after the chunk that it is at.
    """

    def __init__(
        self,
        directory: Directory,
        sources: Sources,
        health: Health,
        lock: Any,
        refuse: Callable[[Copies, int, int], None],
    ) -> None:
        self._directory = directory
        self._sources = sources
        self._health = health
        self._lock = lock
        self._refuse = refuse
        self._maps: dict[int, memoryview] = {}
        self.stopping = threading.Event()

    def open(self, index: int, one: Known) -> Region:
        """A region, as the server's slot has it. Raises `Stale`."""
        memories = self._sources.memories()
        arena = memories[ARENA]
        assert arena is not None
        return Region(arena, index, one.generation, memories, SERVER, self._directory.epoch & (1 << 40) - 1)

    def give_back(self, capacity: int, place: int) -> None:
        """Clear an extent, and give it to others. Without the server's lock."""
        if place:
            cleaning = self._sources.cleaning
            stains = cleaning.clear([([place], capacity)])
            with self._lock:
                cleaning.free([place], stains)

    def bytes(self, extent: int, at: int, length: int) -> memoryview:
        """Bytes of an extent (a pool address), as they are mapped."""
        number, offset = split(extent)
        if number not in self._maps:
            held = self._sources.all[number]
            self._maps[number] = memoryview(mmap.mmap(held.fd, held.size, offset=held.offset))
        return self._maps[number][offset + at : offset + at + length]

    def copy(self, region: Region, copies: Copies, copy: int, progress: Progress) -> bool:
        """Copy a region to a copy that joins. False: that has failed meanwhile, or the server stops.

        Raises `Busy`, `Stale`, `Failed` and `Poisoned` where no copy is there to copy from.
        """
        for at in range(0, copies.size, CHUNK):
            if self.stopping.is_set():
                return False
            length = min(CHUNK, copies.size - at)
            with locked(region):
                if not self.copy_chunk(region, copies, copy, at, length):
                    return False
            progress.done = at + length
        return True

    def copy_chunk(self, region: Region, copies: Copies, copy: int, at: int, length: int) -> bool:
        """Copy a part of a region, within its lock, and compare what is there then. False: the copy has failed."""
        while copies.joining >> copy & 1 and copies.healthy:
            good = self.good(copies, copy, at, length)
            if good is None:
                if not any(
                    copies.healthy >> one & 1 and self.answers(copies, one) for one in range(copies.count)
                ):
                    raise Failed("no copy is healthy")
                raise Failed(f"a part of it is poisoned in every copy, from byte {at:#x} on")
            if copies.poisoned:
                self.bytes(copies.extent(copy), at, length)[:] = self.bytes(copies.extent(good), at, length)
            else:
                region.rebuild(copy, at, length)
            found, wanted = (self.checksum(copies, one, at, length) for one in (copy, good))
            if not copies.joining >> copy & 1 or good not in self.holders(copies, at, length):
                continue  # it has gone bad while it was read: what differs says nothing
            if found == wanted:
                return True
            self._refuse(copies, copy, at)
        return False

    def holders(self, copies: Copies, at: int, length: int) -> list[int]:
        """The healthy copies that have these bytes, and are not about to lose them. That a source has failed is not in
        all records at once."""
        healthy, poisoned = copies.healthy, copies.poisoned
        return [
            one for one in range(copies.count)
            if healthy >> one & 1 and self.answers(copies, one)
            and (not poisoned >> one & 1 or self._has(copies, one, at, length))
        ]  # fmt: skip

    def answers(self, copies: Copies, copy: int) -> bool:
        """Whether the memory of a copy can be read."""
        return self._sources.all[split(copies.extent(copy))[0]].state is SourceState.HEALTHY

    def _has(self, copies: Copies, copy: int, at: int, length: int) -> bool:
        number, offset = split(copies.extent(copy))
        held = self._sources.all[number]
        with self._lock:  # first what was told: as soon as it is so it is the source's to say
            told = held.source is not None and self._health.about_to_be(held, offset + at, length)
        return not told and not self.poison(copies, copy, at, length)

    def good(self, copies: Copies, but: int, at: int, length: int) -> int | None:
        """A healthy copy that has these bytes, but not that one."""
        return next((one for one in self.holders(copies, at, length) if one != but), None)

    def checksum(self, copies: Copies, copy: int, at: int, length: int) -> int:
        """The CRC-32 of a part of a copy."""
        return zlib.crc32(self.bytes(copies.extent(copy), at, length))

    def poison(
        self, copies: Copies, copy: int, at: int = 0, length: int | None = None
    ) -> list[tuple[int, int]]:
        """The poisoned lines of a copy, by offset from its start and length: whole lines, the last one of which may go
        beyond its bytes."""
        number, offset = split(copies.extent(copy))
        source = self._sources.all[number].source
        if source is None:
            return []
        end = copies.size if length is None else at + length
        first, last = (offset + at) // _LINE * _LINE, -(-(offset + end) // _LINE) * _LINE
        return [(start - offset, size) for start, size in source.poisoned(first, last - first)]

    def clean(self, extent: int, capacity: int) -> None:
        """Free an extent that is about to be used of poison."""
        number, offset = split(extent)
        held = self._sources.all[number]
        if held.source is not None:
            for at, length in held.source.poisoned(offset, capacity):
                self._health.clear(held, at, length)


@contextmanager
def locked(region: Region) -> Iterator[None]:
    """A region's lock. Raises `Busy` where it is not to be had soon, `Stale` where the region was freed."""
    region.lock(PATIENCE)
    try:
        yield
    finally:
        region.unlock()
