"""Who sees what one has written: views of memory that several hosts share.

On one host caches see to it: what one program writes, all others see, at once (`"host"`). Between hosts they do not,
where the hardware has no back-invalidation (CXL 3.1 §3.3.3: HDM-DB): what was written is there for others when its
cache lines were flushed, and others see it when they have invalidated theirs (`"managed"`). SoftCXL runs on one host,
so a missing flush would go unnoticed here and lose data on hardware. Hence views say what they are, and `drop` makes
one behave like the worst hardware that there could be:

    writer = region.view(coherence="managed", drop=True)
    writer.buffer[:5] = b"hello"
    region.read(0, 5)                  # bytes(5): nobody sees it
    writer.flush(0, 5)
    region.read(0, 5)                  # b"hello"
"""

from __future__ import annotations

import ctypes
import mmap
import random
import threading
from collections.abc import Callable
from typing import Any, Final, Self

from softcxl.pool.errors import Closed, Refused
from softcxl.pool.layout import LINE
from softcxl.pool.native import Memory

_PORTION: Final = 64 * LINE


def exported(memory: mmap.mmap, offset: int, size: int) -> Any:
    """A buffer over part of a mapping that lives for as long as any view of it, and can be weakly referred to."""
    return (ctypes.c_uint8 * size).from_buffer(memory, offset)


def lines(offset: int, size: int) -> tuple[int, int]:
    """The first byte of the cache lines that hold a range, and the first one behind them."""
    return offset // LINE * LINE, -(-(offset + size) // LINE) * LINE


def _nothing(offset: int, size: int) -> None:
    """What a closed view would do."""


class Managed:
    """A region's memory as one host of several has it: `buffer` is its bytes, `flush` and `invalidate` move them.

    Offsets and sizes are bytes in the region; whole cache lines of 64 bytes are moved. `close` it, or use it as a
    context: what was not flushed by then may or may not reach the memory. Every method raises `Closed` after that, and
    `Refused` outside of the region.
    """

    coherence: Final = "managed"

    def __init__(
        self, whole: memoryview, flush: Callable[[int, int], None], drop: Callable[[int, int], None]
    ) -> None:
        self._whole = whole
        self._flush = flush
        self._drop = drop
        self._open = True
        self.size = whole.nbytes

    @property
    def buffer(self) -> memoryview:
        """The bytes. Read-only where the region is, or has several copies."""
        self._check(0, 0)
        return self._whole

    def flush(self, offset: int = 0, size: int | None = None) -> None:
        """Write back what was written in a range: when this returns it is in memory, for who invalidates."""
        self._flush(*self._check(offset, size))

    def invalidate(self, offset: int = 0, size: int | None = None) -> None:
        """Forget what caches hold of a range: what is read next is what is in memory.

        Flush first what was written there: whether it is written back or dropped is the hardware's affair.
        """
        self._drop(*self._check(offset, size))

    def close(self) -> None:
        """Be through with it: what is left of it holds no memory."""
        self._open = False
        self._whole = memoryview(b"")
        self._flush = self._drop = _nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, offset: int, size: int | None) -> tuple[int, int]:
        if not self._open:
            raise Closed("this view was closed")
        if size is None:
            size = self.size - offset
        if not 0 <= offset <= self.size or not 0 <= size <= self.size - offset:
            raise Refused(f"{size} bytes at {offset}: the region has {self.size}")
        return offset, size


class Cache:
    """What a host of its own would have in its caches of a region, for tests: see `Shadow`."""

    def __init__(self, memory: memoryview, evict: float, seed: int) -> None:
        if not 0 <= evict <= 1:
            raise Refused(f"evict={evict!r}: it is a share, from 0 to 1")
        self._memory = memory
        self.held = bytearray(memory)
        self._clean = bytearray(self.held)
        self._evict = evict
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def readonly(self) -> bool:
        """Whether nothing may be written."""
        return self._memory.readonly

    def changed(self, offset: int, size: int) -> list[int]:
        """Where the lines of a range begin that were written, and are not in memory."""
        start, end = lines(offset, size)
        found = []
        for at in range(start, end, _PORTION):
            portion = min(at + _PORTION, end)
            if self.held[at:portion] != self._clean[at:portion]:
                found += [line for line in range(at, portion, LINE) if self._differs(line)]
        return found

    def flush(self, offset: int, size: int) -> None:
        """Write a range's changed lines to memory."""
        with self._lock:
            for line in self.changed(offset, size):
                self._store(line)
            self._come_and_go()

    def invalidate(self, offset: int, size: int) -> None:
        """Have a range's lines as they are in memory."""
        with self._lock:
            self._load(*lines(offset, size))
            self._come_and_go()

    def evict(self) -> None:
        """Let some lines come and go, as caches do at any time."""
        with self._lock:
            self._come_and_go()

    def _differs(self, line: int) -> bool:
        return self.held[line : line + LINE] != self._clean[line : line + LINE]

    def _store(self, line: int) -> None:
        end = min(line + LINE, len(self.held))
        self._memory[line:end] = self._clean[line:end] = self.held[line:end]

    def _load(self, start: int, end: int) -> None:
        end = min(end, len(self.held))
        self.held[start:end] = self._clean[start:end] = self._memory[start:end]

    def _come_and_go(self) -> None:
        count = -(-len(self.held) // LINE)
        for number in self._random.sample(range(count), round(count * self._evict)):
            line = number * LINE
            if self._differs(line):
                self._store(line)
            else:
                self._load(line, line + LINE)


class Shadow(Managed):
    """A `Managed` view for tests: what is written stays in a cache, and is lost unless it is flushed.

    All views that one client has of a region share one cache, as programs on one host do; it is there for as long as
    one of them is. Only `flush` moves bytes to memory: whole lines, over what others have written in the same lines
    meanwhile. Only `invalidate` fetches them, and drops what was not flushed. On hardware lines also come and go by
    themselves: with `evict` above 0 each call does that to such a share of all lines, as a generator seeded with `seed`
    chooses them; a changed one is written back, another is fetched again. A program that is right without them, or
    under one seed only, is wrong.
    """

    def __init__(self, cache: Cache) -> None:
        whole = memoryview(cache.held)
        super().__init__(whole.toreadonly() if cache.readonly else whole, cache.flush, cache.invalidate)
        self._changed, self._evict = cache.changed, cache.evict

    @property
    def unflushed(self) -> list[int]:
        """Offsets of the lines that were written and not flushed: nobody else will ever see them."""
        return self._changed(*self._check(0, None))

    def evict(self) -> None:
        """Let lines come and go now."""
        self._check(0, 0)
        self._evict()

    def close(self) -> None:
        if self._open:
            del self._changed, self._evict
        super().close()


def over(memory: Memory, at: int, whole: memoryview) -> Managed:
    """A `Managed` view of `whole`, which begins at byte `at` of a source's memory."""

    def flush(offset: int, size: int) -> None:
        memory.flush(at + offset, size)

    def drop(offset: int, size: int) -> None:
        memory.invalidate(at + offset, size)

    return Managed(whole, flush, drop)
