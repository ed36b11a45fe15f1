"""What there is where the C core could not be built: rings, in Python alone, for processors of x86-64.

A ring needs no compare-and-swap: one side writes the records and the other the index, and processors of x86-64 let
others see stores in the order in which they were made. The layout is that of `softcxl_pool.h`, so that the other side
may have the C core. What waits here looks again and again, and sleeps for a moment between; it wakes who sleeps on the
other side. Queues, calls and regions take compare-and-swap: they say what is missing.
"""

from __future__ import annotations

import ctypes
import itertools
import platform
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Never

from softcxl.pool.errors import Closed, Corrupt, Empty, Foreign, Full, NativeMissing, PoolError, TooLong

_LINE: Final = 64
_RING: Final = 0x474E4952
_VERSION: Final = 2
_HEADER: Final = 256
_THERE: Final = 1 << 31
_MOST: Final = (1 << 64) - 1
# Offsets in a ring's header.
_TAIL, _HEAD, _CONSUMER, _PRODUCER, _CLOSED = 64, 128, 192, 200, 208
_HERE, _REMOTE, _WOKEN = 1, 2, 4

_SPIN: Final = 0.00005
_SLEEPS: Final = (0.00005, 0.0001, 0.0002, 0.0005, 0.001)
_FUTEX: Final = 202
_FUTEX_WAKE: Final = 1


def _missing(what: str) -> Never:
    raise NativeMissing(f"{what}: {NativeMissing.sentence}")


def emulated() -> bool:
    """Nothing here takes atomic operations."""
    return False


class Memory:
    """Shared memory, a writable buffer that begins on a line of 64 bytes: its words can be read and written."""

    def __init__(
        self,
        buffer: Any,
        /,
        *,
        ring: Callable[[int], object] | None = None,
        rest: Callable[[int, float], object] | None = None,
    ) -> None:
        self.view = memoryview(buffer).cast("B")
        if self.view.readonly:
            raise BufferError("shared memory is writable")
        if rest is not None and ring is None:
            raise ValueError("who rests behind a device needs its doorbell, too: ring is missing")
        self.ring = ring
        self.rest = rest

    def reach(self, offset: int, size: int, align: int) -> memoryview:
        """`size` bytes at `offset`. Raises IndexError where they are not there."""
        if not (0 <= offset <= len(self.view) and 0 <= size <= len(self.view) - offset) or offset % align:
            raise IndexError(
                f"{size} bytes at {offset}: there are {len(self.view)}, and an offset is a multiple of {align}"
            )
        return self.view[offset : offset + size]

    def load(self, offset: int, /) -> int:
        """The 64-bit word there."""
        return self.reach(offset, 8, 8).cast("Q")[0]

    def store(self, offset: int, value: int, /) -> None:
        """Write a 64-bit word."""
        self.reach(offset, 8, 8).cast("Q")[0] = value & _MOST

    def swap(self, offset: int, old: int, new: int, /) -> bool:
        """Raises `NativeMissing`."""
        _missing("compare-and-swap")

    def add(self, offset: int, by: int, /) -> int:
        """Raises `NativeMissing`."""
        _missing("adding to a shared word")

    def wait(self, offset: int, value: int, timeout: float | None = None, /) -> bool:
        """Raises `NativeMissing`."""
        _missing("sleeping on a shared word")

    def wake(self, offset: int, count: int = 0, /) -> int:
        """Raises `NativeMissing`."""
        _missing("waking from a shared word")

    def flush(self, offset: int, size: int, /) -> None:
        """Raises `NativeMissing`."""
        _missing("flushing cache lines")

    def invalidate(self, offset: int, size: int, /) -> None:
        """Raises `NativeMissing`."""
        _missing("invalidating cache lines")


_LEAVING = 0.2
"""Seconds for which one that leaves waits for another thread: it may be this one, in a signal's handler."""


class Ring:
    """One end of a ring. One thread at a time."""

    def __init__(self, memory: Memory, offset: int, size: int, producer: bool, /) -> None:
        _only_in_order()
        view = memory.reach(offset, size, _LINE)
        if size < _HEADER + 64:
            raise TooLong
        self.size: int
        magic, version, self.size = struct.unpack_from("<IH2xQ", view)
        if magic != _RING or version != _VERSION:
            raise Foreign
        if self.size < 64 or self.size & (self.size - 1) or self.size > size - _HEADER:
            raise Corrupt
        self.kind = 0
        self.left = False
        self._own: int
        self._seen: int
        self._memory = memory
        self._offset = offset
        self._producer = bool(producer)
        self._head = view[:_HEADER].cast("Q")
        self._half = view[:_HEADER].cast("I")
        self._data = view[_HEADER : _HEADER + self.size]
        self._words = self._data.cast("Q")
        self._mask = self.size - 1
        self._busy = threading.Lock()
        self._fence = threading.Lock()
        self._seen = self._own = self._head[_HEAD // 8]
        tail = self._head[_TAIL // 8]
        if self._own % 8 or tail % 8:
            raise Corrupt
        if producer:
            self._own = self._end_of(tail)

    @staticmethod
    def make(memory: Memory, offset: int, size: int, /) -> None:
        """Make a ring, as large as fits."""
        view = memory.reach(offset, size, _LINE)
        if size < _HEADER + 64:
            raise TooLong
        view[: _HEADER + 8] = bytes(_HEADER + 8)
        struct.pack_into("<HxxQ", view, 4, _VERSION, 1 << (size - _HEADER).bit_length() - 1)
        view[:4].cast("I")[0] = _RING

    def send(self, data: Any, kind: int = 0, timeout: float | None = None, /) -> None:
        """Append a record, whole; wait while there is no room."""
        data = data if isinstance(data, bytes) else memoryview(data).cast("B")
        if not 0 <= kind < 1 << 32:
            raise OverflowError(f"kind {kind}: it has 32 bits")
        length = len(data)
        room = 8 + (length + 7 & ~7)
        if length >= _THERE or room + 8 > self.size:
            raise TooLong
        self._enter(True)
        try:
            if self.left or self.size - (self._own - self._seen) < room + 8:
                _wait(lambda: self._has_room(room), timeout, Full)
            self._put(data, length)
            self._words[(self._own + room & self._mask) >> 3] = 0
            self._words[(self._own & self._mask) >> 3] = kind << 32 | length | _THERE
            self._own = self._own + room & _MOST
            self._head[_TAIL // 8] = self._own
        finally:
            self._busy.release()
        self._wake(_CONSUMER)

    def receive(self, timeout: float | None = None, /) -> bytes:
        """The next record; its kind is in `kind`."""
        return self.take(timeout)[0]

    def take(self, timeout: float | None = None, /) -> tuple[bytes, int]:
        """The next record, and its kind."""
        self._enter(False)
        try:
            header = self._next()
            if not header:
                _wait(self._next, timeout, Empty)
                header = self._next()
            length = header & 0xFFFFFFFF & ~_THERE
            room = 8 + (length + 7 & ~7)
            if not header & _THERE or room >= self.size:
                raise Corrupt
            data = self._get(length)
            self._own = self._own + room & _MOST
            self._head[_HEAD // 8] = self._own
            self.kind = header >> 32
        finally:
            self._busy.release()
        self._wake(_PRODUCER)
        return data, header >> 32

    def close(self, producer: bool | None = None, /) -> None:
        """Say that an end has gone, one's own or, for who has died, the other."""
        own = self._producer if producer is None else producer
        self._half[_CLOSED // 4] |= 1 if own else 2
        self._wake(_CONSUMER)
        self._wake(_PRODUCER)

    def leave(self) -> None:
        """Send and receive nothing by this any more; who waits is told that it is closed."""
        self.left = True
        if self._busy.acquire(timeout=_LEAVING):
            self._busy.release()

    def _enter(self, producer: bool) -> None:
        if producer != self._producer:
            raise TypeError(f"this end of the ring {'receives' if producer else 'sends'}")
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("another thread is at this end of the ring")

    def _end_of(self, tail: int) -> int:
        """Where the next record goes: the last producer may have died between a record and the index."""
        start = tail
        while header := self._words[(tail & self._mask) >> 3]:
            room = 8 + ((header & 0xFFFFFFFF & ~_THERE) + 7 & ~7)
            if not header & _THERE or room > self.size - (tail - start):
                raise Corrupt
            tail += room
        if (tail - self._seen & _MOST) > self.size:
            raise Corrupt
        return tail & _MOST

    def _has_room(self, room: int) -> bool:
        if self.left:
            raise Closed
        self._seen = self._head[_HEAD // 8]
        taken: int = self._own - self._seen & _MOST
        if taken > self.size:
            raise Corrupt
        if self._half[_CLOSED // 4] & 2:
            raise Closed
        return self.size - taken >= room + 8

    def _next(self) -> int:
        if self.left:
            raise Closed
        at = (self._own & self._mask) >> 3
        header: int = self._words[at]
        if not header and self._half[_CLOSED // 4] & 1:
            header = self._words[at]
            if not header:
                raise Closed
        return header

    def _put(self, data: bytes | memoryview, length: int) -> None:
        at = self._own + 8 & self._mask
        first = min(length, self.size - at)
        self._data[at : at + first] = data[:first]
        if first < length:
            self._data[: length - first] = data[first:]

    def _get(self, length: int) -> bytes:
        at = self._own + 8 & self._mask
        first = min(length, self.size - at)
        data = bytes(self._data[at : at + first])
        return data if first == length else data + bytes(self._data[: length - first])

    def _wake(self, at: int) -> None:
        """Wake who sleeps there, with the C core."""
        # To take a lock is a fence: what was stored is seen before this looks who sleeps.
        with self._fence:
            pass
        sleeping = self._half[at // 4]
        how = sleeping & (_HERE | _REMOTE)
        if not how:
            return
        self._half[at // 4] = (sleeping - how + _WOKEN) % (1 << 32)
        word = ctypes.c_char.from_buffer(self._memory.view, self._offset + at)
        if how & _HERE and self._memory.rest is None:
            ctypes.CDLL(None).syscall(_FUTEX, ctypes.byref(word), _FUTEX_WAKE, (1 << 31) - 1, None, None, 0)
        if self._memory.ring is not None and (how & _REMOTE or self._memory.rest is not None):
            self._memory.ring(self._offset + at)


def _only_in_order() -> None:
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64") or sys.byteorder != "little":
        raise NativeMissing(
            f"a ring on a processor of {machine}, which may show others its stores in another order: "
            f"{NativeMissing.sentence}"
        )


def _wait(there: Callable[[], object], timeout: float | None, late: type[PoolError]) -> None:
    """Look until something is there: at once for as long as waking somebody takes, then ever less often."""
    if timeout is not None and not timeout >= 0:
        raise ValueError("a timeout is 0 or more seconds, or None")
    start = time.perf_counter()
    end = None if timeout is None else start + timeout
    pauses = itertools.chain(_SLEEPS, itertools.repeat(_SLEEPS[-1]))
    while not there():
        now = time.perf_counter()
        if end is not None and now >= end:
            raise late
        if now - start > _SPIN:
            time.sleep(next(pauses))


class Life:
    """True while the 64-bit word at an offset is a value, and it was not ended here."""

    def __init__(self, memory: Memory, offset: int, value: int, /) -> None:
        self._word = memory.reach(offset, 8, 8).cast("Q")
        self._value = value
        self.ended = False

    def __bool__(self) -> bool:
        return not self.ended and self._word[0] == self._value

    def end(self) -> None:
        """It is over here, whatever the word says."""
        self.ended = True


class Pointed:
    """Where bytes of a region are."""

    __slots__ = ("_lent", "given", "length", "offset")

    def __init__(self, lent: Any, offset: int, length: int, given: bool, /) -> None:
        self._lent = lent
        self.offset = offset
        self.length = length
        self.given = given


class Sender:
    """The end of a ring that sends."""

    _send: Callable[..., None]
    _send_reference: Callable[..., None]

    def _over(self, life: Life, ring: Ring, /) -> None: ...

    def _refers(self, *known: object) -> None: ...

    def send(self, data: Any, kind: int = 0, timeout: float | None = None) -> None:
        """Append a record: any bytes. Waits while there is no room; with `timeout=0` it does not."""
        self._send(data, kind, timeout)

    def send_reference(self, *given: Any, **named: Any) -> None:
        """Send where bytes of a region are, and not the bytes."""
        self._send_reference(*given, **named)


class Receiver:
    """The end of a ring that receives."""

    _receive: Callable[..., bytes]
    _receive_record: Callable[..., Any]

    def _over(self, life: Life, ring: Ring, /) -> None: ...

    def _opens(self, *known: object) -> None: ...

    def receive(self, timeout: float | None = None) -> bytes:
        """The next record's bytes. With `timeout=0` it does not wait."""
        return self._receive(timeout)

    def receive_record(self, timeout: float | None = None) -> Any:
        """The next record, with its kind; a reference as such."""
        return self._receive_record(timeout)


class Exchanger:
    """Of no use without the C core, which has the queue."""


class Asking:
    """Of no use without the C core, which has the table of calls."""


class Queue:
    """Not without the C core: making one raises `NativeMissing`."""

    def __init__(self, *given: object) -> None:
        _missing("a queue")

    @staticmethod
    def make(*given: object) -> None:
        """Raises `NativeMissing`."""
        _missing("a queue")


class Caller:
    """Not without the C core: making one raises `NativeMissing`."""

    def __init__(self, *given: object) -> None:
        _missing("a table of calls")

    @staticmethod
    def make(*given: object) -> None:
        """Raises `NativeMissing`."""
        _missing("a table of calls")


class Worker:
    """Not without the C core: making one raises `NativeMissing`."""

    def __init__(self, *given: object) -> None:
        _missing("a worker")


class Region:
    """Not without the C core: making one raises `NativeMissing`."""

    def __init__(self, *given: object) -> None:
        _missing("a region")
