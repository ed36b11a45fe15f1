"""Buffers: where a client puts what is too long for a cell, to be read there.

A buffer is a region of the arena, and its maker's: it alone writes there, and the server takes it back when its
maker dies. Others are told where bytes are (`Spot`), copy them, and look then whether the buffer has been there all
the while. A buffer is used again once the call that it was for is over, which its cell says.
"""

from __future__ import annotations

import struct
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from softcxl.pool import layout
from softcxl.pool.errors import Corrupt, Stale
from softcxl.pool.layout import Mode, RegionFlag, RegionRecord, RegionState
from softcxl.pool.protocol import Allocate, Located, Named, Opcode

if TYPE_CHECKING:
    from softcxl.pool.session import Pool

SPOT: Final = struct.Struct("<QQQQ")
"""A `Spot` in a request, an answer or a record."""
_LEAST: Final = 1 << 16
"""Bytes of a buffer, at least; a larger one has the next power of two."""
_KEPT: Final = 1 << 26
"""Bytes of buffers that are kept for later, at most."""


class Spot(NamedTuple):
    """Bytes in a region: index and generation of its record, offset and length in bytes."""

    region: int
    generation: int
    offset: int
    length: int

    def pack(self) -> bytes:
        """As 32 bytes."""
        return SPOT.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Spot:
        """The spot that those 32 bytes name. Raises `Corrupt` where they are something else."""
        if len(data) != SPOT.size:
            raise Corrupt(f"a reference has {SPOT.size} bytes, this has {len(data)}")
        return cls(*SPOT.unpack(data))


class Buffer(NamedTuple):
    """A buffer of one's own: its record's index and generation, where it is in the arena, and its size in bytes."""

    region: int
    generation: int
    at: int
    size: int

    def spot(self, length: int) -> Spot:
        """Its first bytes."""
        return Spot(self.region, self.generation, 0, length)


def record_of(pool: Pool, spot: Spot) -> RegionRecord:
    """The record of the region that the spot is in. Raises `Stale` where it has gone, `Corrupt` where it cannot be."""
    if spot.region >= pool.header.regions:
        raise Corrupt(f"region {spot.region}: there are {pool.header.regions}")
    at = pool.header.regions_at + 256 * spot.region
    check(pool, spot)
    record = RegionRecord.unpack(pool.map(layout.ARENA)[at : at + 256])
    check(pool, spot)
    if spot.offset > record.size or spot.length > record.size - spot.offset:
        raise Corrupt(
            f"{spot.length} bytes at {spot.offset} of region {spot.region}, which has {record.size}"
        )
    return record


def check(pool: Pool, spot: Spot) -> None:
    """Raises `Stale` where the region is not what it was any more."""
    word = pool.directory.load(pool.header.regions_at + 256 * spot.region)
    if word != spot.generation << 24 | RegionState.LIVE:
        raise Stale("who had these bytes has gone, and they with it")


def copy(pool: Pool, spot: Spot) -> bytes:
    """The bytes in a buffer, whole as they were sent. Raises as `record_of` does."""
    record = record_of(pool, spot)
    source, start = layout.split(record.extent0)
    arena = pool.map(layout.ARENA)
    if source != layout.ARENA or not record.flags & RegionFlag.CHANNEL or start + record.size > len(arena):
        raise Corrupt(f"region {spot.region} is no buffer")
    data = arena[start + spot.offset : start + spot.offset + spot.length]
    check(pool, spot)
    return data


class Buffers:
    """One's own buffers, used again and again. From any thread."""

    def __init__(self, pool: Pool) -> None:
        self._pool: Pool = weakref.proxy(pool)  # which has this
        self._lock = threading.Lock()
        self._free: dict[int, list[Buffer]] = {}
        self._held: deque[tuple[int, int, Buffer]] = deque()
        self._kept = 0

    def put(self, data: bytes | bytearray | memoryview) -> Buffer:
        """Copy those bytes to a buffer. Raises `NoRoom` where the arena has none."""
        flat = memoryview(data).cast("B")
        one = self._take(flat.nbytes)
        self._pool.map(layout.ARENA)[one.at : one.at + flat.nbytes] = flat
        return one

    def _take(self, length: int) -> Buffer:
        size = max(_LEAST, 1 << (length - 1).bit_length())
        with self._lock:
            self._sweep()
            free = self._free.get(size)
            if free:
                self._kept -= size
                return free.pop()
        asked = Allocate(
            size=size,
            request=0,
            copies=1,
            policy=0,
            separate=0,
            mode=Mode.READ,
            flags=RegionFlag.CHANNEL,
            source=0,
            lease=0,
            reserved0=b"",
            name=b"",
        )
        made = Located.unpack(self._pool.ask(Opcode.ALLOCATE, asked.pack()))
        source, at = layout.split(record_of(self._pool, Spot(made.index, made.generation, 0, length)).extent0)
        if source != layout.ARENA or at + size > len(self._pool.map(layout.ARENA)):
            raise Corrupt(f"a buffer of {size} bytes at {at} of source {source}")
        return Buffer(made.index, made.generation, at, size)

    def give_back(self, one: Buffer) -> None:
        """It is not needed any more."""
        with self._lock:
            self._put_by(one)

    def give_back_after(self, one: Buffer, word_at: int, number: int) -> None:
        """It is not needed any more once the call of that number has left its cell, whose word is there."""
        # No lock: this also happens where a pending call is collected, wherever that may be
        self._held.append((word_at, number, one))

    def _sweep(self) -> None:
        for _ in range(len(self._held)):
            word_at, number, one = self._held.popleft()
            word = self._pool.directory.load(word_at)
            if word >> 24 == number and word & 0xFF:
                self._held.append((word_at, number, one))
            else:
                self._put_by(one)

    def _put_by(self, one: Buffer) -> None:
        if self._kept + one.size <= _KEPT:
            self._kept += one.size
            self._free.setdefault(one.size, []).append(one)
        else:
            self._drop(one)

    def _drop(self, one: Buffer) -> None:
        self._pool.ask(Opcode.FREE, Named(index=one.region, generation=one.generation, name=b"").pack())

    def close(self) -> None:
        """Give all of them up that no call uses."""
        with self._lock:
            self._sweep()
            free, self._free, self._kept = self._free, {}, 0
        for ones in free.values():
            for one in ones:
                self._drop(one)
