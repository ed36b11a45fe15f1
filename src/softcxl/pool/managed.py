"""Regions of memory that several hosts share, and whose caches do not keep it the same for them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from softcxl.pool.errors import Corrupt
from softcxl.pool.native import Memory
from softcxl.pool.region import Region


class ManagedRegion(Region):
    """A region whose memory several hosts share, which caches do not keep the same for them.

    Each read and write is made within the region's lock: a write is flushed before that is given back, a read
    invalidates first. What is atomic is what is for any region. The directory, where locks are, has to be memory that
    is the same for all hosts (CXL 3.1 §2.4.4: HDM-DB), as the header file says.
    """

    __slots__ = ()

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        if size is None:
            size = self.size - offset
        with self._within():
            self._each(Memory.invalidate, offset, size)
            return super().read(offset, size)

    def read_into(self, offset: int, buffer: Any) -> None:
        with self._within():
            self._each(Memory.invalidate, offset, memoryview(buffer).nbytes)
            super().read_into(offset, buffer)

    def write(self, offset: int, data: Any, timeout: float | None = None) -> None:
        with self._within(timeout):
            super().write(offset, data, timeout)
            self._each(Memory.flush, offset, memoryview(data).nbytes)

    def load(self, offset: int) -> int:
        self._check_word(offset)
        return int.from_bytes(self.read(offset, 8), "little")

    def swap(self, offset: int, old: int, new: int) -> bool:
        self._check_word(offset)
        with self._within():
            self._each(Memory.invalidate, offset, 8)
            done = super().swap(offset, old, new)
            self._each(Memory.flush, offset, 8)
            return done

    def add(self, offset: int, by: int) -> int:
        self._check_word(offset)
        with self._within():
            self._each(Memory.invalidate, offset, 8)
            found = super().add(offset, by)
            self._each(Memory.flush, offset, 8)
            return found

    def _within(self, timeout: float | None = None) -> Any:
        return contextlib.nullcontext() if self._holder == threading.get_ident() else self.locked(timeout)

    def _each(self, do: Callable[[Memory, int, int], None], offset: int, size: int) -> None:
        """For this range of each copy that is mapped here."""
        if not 0 <= offset <= self.size or not 0 <= size <= self.size - offset:
            self._outside(offset, size)
        memories = self._pool.memories()
        for copy in self.info.copies:
            memory = memories[copy.source] if copy.source < len(memories) else None
            if memory is not None:
                try:
                    do(memory, copy.offset + offset, size)
                except IndexError as error:
                    raise Corrupt(f"{self._called()}: a copy is outside of its source: {error}") from None
