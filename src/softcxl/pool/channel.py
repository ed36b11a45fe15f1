"""Channels: records from one program to another, through the pool's memory.

A ring goes from one producer to one consumer; a queue from any number of either. Both keep order, hold what has
not been taken yet, and make whoever is too fast wait. What is large stays where it is: a `Reference` to it goes
through.
"""

from __future__ import annotations

import struct
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Self

from softcxl.pool import arguments, buffer, layout
from softcxl.pool.buffer import SPOT as _SPOT
from softcxl.pool.buffer import Spot
from softcxl.pool.errors import Closed, Corrupt, Empty, Full, Refused, Stale, TooLong
from softcxl.pool.native import Exchanger, Life, Pointed, Receiver, Sender
from softcxl.pool.native import Queue as NativeQueue
from softcxl.pool.native import Ring as NativeRing
from softcxl.pool.protocol import (
    Adopt,
    Attach,
    Attached,
    ChannelKind,
    Detach,
    Give,
    Opcode,
    Role,
    request_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from softcxl.pool.region import Region
    from softcxl.pool.session import Pool

__all__ = [
    "Consumer",
    "Producer",
    "Queue",
    "Record",
    "Reference",
    "Ring",
]

MOST_KIND: Final = (1 << 30) - 1
REFERENCE: Final = 1 << 31
GIVEN: Final = 1 << 30
_OPEN: Final = 16
"""Regions of others that are kept open for the next reference to them."""
_numbers = request_numbers()


class Record(NamedTuple):
    """What was received: the bytes, or a reference to them, and the kind that the sender gave it."""

    data: bytes
    kind: int
    reference: Reference | None = None


class Lent:
    """A region that references are to, and a view of it once one is asked for."""

    __slots__ = ("life", "region", "size", "view")

    def __init__(self, pool: Pool, region: Region) -> None:
        self.region = region
        self.size = region.size
        self.view: memoryview | None = None
        word_at = pool.header.regions_at + 256 * region.index
        self.life = Life(pool.directory, word_at, region.generation << 24 | layout.RegionState.LIVE)

    def whole(self) -> memoryview:
        """All of it. Raises `Stale` where it has gone."""
        if not self.life:
            raise Stale(f"region {self.region.index} was freed, or who had it has gone")
        view = self.view
        if view is None:
            view = self.view = self.region.view()
        return view


class Reference(Pointed):
    """Bytes of a region, where they are: `offset` and `length` in bytes.

    One that was *lent* is the sender's: it is there until the sender frees it, or dies. One that was *given* is the
    receiver's from the moment that he took it: `free` it, or leave a `with`; if he dies it is freed. Raises `Stale`
    where the region has gone.
    """

    __slots__ = ()
    _lent: Lent

    @property
    def region(self) -> Region:
        """The region that they are in."""
        return self._lent.region

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        how = "given" if self.given else "lent"
        return f"<Reference to {self.length} bytes at {self.offset} of region {self.region.index}, {how}>"

    def view(self) -> memoryview:
        """The bytes themselves, without a copy. See `Region.view`."""
        return self._lent.whole()[self.offset : self.offset + self.length]

    def read(self) -> bytes:
        """A copy of the bytes."""
        return self.region.read(self.offset, self.length)

    def free(self) -> None:
        """Be through with it: a region that was given goes back to the pool."""
        if self.given:
            self.given = False
            self._lent.view = None
            self.region.free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()


class _Part:
    """This client's part in a channel."""

    def __init__(
        self, pool: Pool, kind: ChannelKind, role: Role, name: str, size: int = 0, cells: int = 0
    ) -> None:
        asked = Attach(
            kind=kind,
            role=role,
            flags=0,
            cells=cells,
            size=size,
            request=next(_numbers),
            name=arguments.name(name),
        )
        self._pool = pool
        self._role = role
        self.place = Attached.unpack(pool.ask(Opcode.ATTACH, asked.pack()))
        self.name = name
        # It ends with the client, and where this has no part in the channel any more
        slot_at = pool.header.slots_at + 256 * pool.slot
        self._life = Life(pool.directory, slot_at, pool.epoch << 24 | layout.SlotState.LIVE)
        self._regions_at = pool.header.regions_at
        self._regions: dict[tuple[int, int], Lent] = {}

    def close(self) -> None:
        """Take part no more. A channel that nobody has open any more goes once it is empty."""
        if self._life.ended:
            return
        lived = bool(self._life)
        self._life.end()
        self.stop()
        regions, self._regions = self._regions, {}
        if not lived:
            return  # the pool has taken this client for dead, and given its part to others
        self._leave()
        for lent in regions.values():
            lent.region.close()
        asked = Detach(index=self.place.index, generation=self.place.generation, role=self._role)
        try:
            self._pool.ask(Opcode.DETACH, asked.pack())
        except Stale:
            pass  # the pool has forgotten this client, and so its part

    def _leave(self) -> None: ...

    def stop(self) -> None:
        """Have those of this client's threads come back that wait in it: they raise `Closed`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> NoReturn:
        self._pool.check()
        raise Closed(f"{self!r} was closed here")

    def end(self) -> None:
        """It is this client's no more, and somebody else sees to it."""
        self._life.end()

    # What the core is told: the region that is referred to, and what references are to that come

    _refers: Callable[[Callable[[], Region | None] | None, Life, int, int, int], None]
    _opens: Callable[[Lent | None, int, int, int, type[Record], type[Reference]], None]

    # -- references ------------------------------------------------------------------------------------------

    def _refer(
        self,
        put: Callable[..., None],
        region: Region,
        offset: int,
        size: int | None,
        give: bool,
        kind: int,
        timeout: float | None,
    ) -> None:
        if not self._life:
            self._check()
        if size is None:
            size = region.size - offset
        if offset < 0 or size < 0 or offset + size > region.size:
            raise Refused(f"{size} bytes at {offset}: the region has {region.size}")
        index, generation = region.index, region.generation
        word = generation << 24 | layout.RegionState.LIVE
        life = Life(self._pool.directory, self._regions_at + 256 * index, word)
        if region.closed or not life:
            raise Stale(f"region {index} is not this client's any more")
        self._refers(weakref.ref(region), life, index, generation, region.size)
        data = _SPOT.pack(index, generation, offset, size)
        if not give:
            put(data, (kind and _kind(kind)) | REFERENCE, timeout)
            return
        gift = self._gift(Give, index, generation)
        self._pool.ask(Opcode.GIVE, gift)
        try:
            put(data, _kind(kind) | REFERENCE | GIVEN, timeout)
        except BaseException:
            self._pool.ask(Opcode.ADOPT, gift)  # it stays the sender's
            raise
        region.let_go()

    def _gift(self, kind: type[Give | Adopt], index: int, generation: int) -> bytes:
        channel, of = self.place.index, self.place.generation
        return kind(index=index, generation=generation, channel=channel, channel_generation=of).pack()

    def _opened(self, data: bytes, kind: int) -> Reference:
        try:
            index, generation, offset, length = _SPOT.unpack(data)
        except struct.error:
            raise Corrupt(f"a reference has {_SPOT.size} bytes, this has {len(data)}") from None
        lent = self._regions.get((index, generation))
        if lent is None or kind & GIVEN:
            lent = self._open_region(Spot(index, generation, offset, length), bool(kind & GIVEN))
        if offset + length > lent.size:
            raise Corrupt(f"{length} bytes at {offset} of a region that has {lent.size}")
        if not kind & GIVEN:
            self._opens(lent, index, generation, lent.size, Record, Reference)
        return Reference(lent, offset, length, bool(kind & GIVEN))

    def _open_region(self, spot: Spot, given: bool) -> Lent:
        record = buffer.record_of(self._pool, spot)
        key = spot.region, spot.generation
        if given:
            self._pool.ask(Opcode.ADOPT, self._gift(Adopt, *key))
            return Lent(self._pool, self._pool.adopted(*key, record.size))
        if len(self._regions) >= _OPEN:
            self._regions.pop(next(iter(self._regions)))
        lent = self._regions[key] = Lent(self._pool, self._pool.referred(*key))
        return lent

    def _read(self, data: bytes, kind: int) -> Record:
        if kind < REFERENCE:
            return Record(data, kind)
        return Record(b"", kind & MOST_KIND, self._opened(data, kind))

    def _bytes(self, data: bytes, kind: int) -> bytes:
        with self._opened(data, kind) as reference:
            return reference.read()


def _length(data: Any) -> int:
    return memoryview(data).nbytes


def _kind(kind: int) -> int:
    if not 0 <= kind <= MOST_KIND:
        raise Refused(f"kind {kind}: it is between 0 and {MOST_KIND}")
    return kind


class Producer(_Part, Sender):
    """The end of a ring that sends. One thread at a time."""

    def __init__(self, pool: Pool, name: str, size: int = 0) -> None:
        super().__init__(pool, ChannelKind.RING, Role.PRODUCER, name, size)
        self._ring = NativeRing(pool.directory, self.place.at, self.place.size, True, self._life)
        self._over(self._life, self._ring)

    def __repr__(self) -> str:
        return f"<producer of ring {self.name!r}>"

    @property
    def size(self) -> int:
        """Bytes that the ring holds: each record takes 8 more than it has, in multiples of 8."""
        return self._ring.size

    def _send(self, data: Any, kind: int = 0, timeout: float | None = None) -> None:
        """What `send` does where it is not done at once."""
        if not self._life:
            self._check()
        self._append(data, kind and _kind(kind), timeout)

    def _append(self, data: Any, kind: int, timeout: float | None) -> None:
        try:
            self._ring.send(data, kind, timeout)
        except TooLong:
            raise TooLong(
                f"{self!r}: a record of {_length(data)} bytes, where it has {self.size} for all of them"
            ) from None
        except Full:
            raise Full(f"{self!r}: no room in time") from None
        except Closed:
            if not self._life:
                self._check()
            if self._ring.left:
                raise Closed(f"{self!r} was closed here") from None
            raise Closed(f"{self!r}: there is no room, and its consumer has gone") from None

    def _send_reference(
        self,
        region: Region,
        offset: int = 0,
        size: int | None = None,
        *,
        give: bool = False,
        kind: int = 0,
        timeout: float | None = None,
    ) -> None:
        """What `send_reference` does where it is not done at once."""
        self._refer(self._append, region, offset, size, give, kind, timeout)

    def _leave(self) -> None:
        self._ring.close()

    def stop(self) -> None:
        self._ring.leave()


class Consumer(_Part, Receiver):
    """The end of a ring that receives. One thread at a time. Iterates over records until the producer has gone."""

    def __init__(self, pool: Pool, name: str, size: int = 0) -> None:
        super().__init__(pool, ChannelKind.RING, Role.CONSUMER, name, size)
        self._ring = NativeRing(pool.directory, self.place.at, self.place.size, False, self._life)
        self._over(self._life, self._ring)
        self._opens(None, 0, 0, 0, Record, Reference)

    def __repr__(self) -> str:
        return f"<consumer of ring {self.name!r}>"

    def _receive(self, timeout: float | None = None) -> bytes:
        """What `receive` does where nothing has come."""
        if not self._life:
            self._check()
        try:
            data, kind = self._ring.take(timeout)
        except (Empty, Closed) as error:
            raise self._told(error) from None
        return data if kind < REFERENCE else self._bytes(data, kind)

    def _receive_record(self, timeout: float | None = None) -> Record:
        """What `receive_record` does where nothing has come."""
        if not self._life:
            self._check()
        try:
            data, kind = self._ring.take(timeout)
        except (Empty, Closed) as error:
            raise self._told(error) from None
        return self._read(data, kind)

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, Empty):
            return Empty(f"{self!r}: nothing came in time")
        if not self._life:
            self._check()
        if self._ring.left:
            return Closed(f"{self!r} was closed here")
        return Closed(f"{self!r}: the producer has gone, and nothing is left")

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                yield self.receive()
            except Closed:
                return

    def _leave(self) -> None:
        self._ring.close()

    def stop(self) -> None:
        self._ring.leave()
        self._opens(None, 0, 0, 0, Record, Reference)


class Ring:
    """A ring by name: take the end that you are at. It is made with the first end that is taken."""

    def __init__(self, pool: Pool, name: str, size: int, made: Callable[[Producer | Consumer], None]) -> None:
        self._pool = pool
        self.name = name
        self._size = size
        self._made = made

    def __repr__(self) -> str:
        return f"<ring {self.name!r}>"

    def producer(self) -> Producer:
        """The end that sends. Raises `Busy` where somebody has it, and says who."""
        end = Producer(self._pool, self.name, self._size)
        self._made(end)
        return end

    def consumer(self) -> Consumer:
        """The end that receives. Raises `Busy` where somebody has it, and says who."""
        end = Consumer(self._pool, self.name, self._size)
        self._made(end)
        return end


class Queue(_Part, Exchanger):
    """A queue, from many to many: each record is got by one. From any thread. Iterates until it is finished."""

    def __init__(self, pool: Pool, name: str, cells: int = 0, size: int = 0) -> None:
        super().__init__(pool, ChannelKind.QUEUE, Role.USER, name, size, cells)
        place = self.place
        self._queue = NativeQueue(pool.directory, place.at, place.size, pool.slot, self._life)
        self._lock = threading.Lock()
        self._over(self._life, self._queue)
        self._opens(None, 0, 0, 0, Record, Reference)

    def __repr__(self) -> str:
        return f"<queue {self.name!r}>"

    @property
    def cells(self) -> int:
        """How many records it holds."""
        return self.place.cells

    @property
    def room(self) -> int:
        """Bytes of the longest record."""
        return (self.place.size - 256) // self.place.cells - 16

    def _put(self, data: Any, kind: int = 0, timeout: float | None = None) -> None:
        """What `put` does where it is not done at once."""
        if not self._life:
            self._check()
        self._append(data, kind and _kind(kind), timeout)

    def _append(self, data: Any, kind: int, timeout: float | None) -> None:
        try:
            self._queue.put(data, kind, timeout)
        except TooLong:
            raise TooLong(f"{self!r}: a record of {_length(data)} bytes, where one has {self.room}") from None
        except Full:
            raise Full(f"{self!r}: no room in time") from None
        except Closed:
            if not self._life:
                self._check()
            raise Closed(f"{self!r} was {'closed here' if self._queue.left else 'finished'}") from None

    def _put_reference(
        self,
        region: Region,
        offset: int = 0,
        size: int | None = None,
        *,
        give: bool = False,
        kind: int = 0,
        timeout: float | None = None,
    ) -> None:
        """What `put_reference` does where it is not done at once."""
        self._refer(self._append, region, offset, size, give, kind, timeout)

    def _get(self, timeout: float | None = None) -> bytes:
        """What `get` does where nothing has come."""
        if not self._life:
            self._check()
        try:
            data, kind = self._queue.take(timeout)
        except (Empty, Closed) as error:
            raise self._told(error) from None
        return data if kind < REFERENCE else self._bytes(data, kind)

    def _get_record(self, timeout: float | None = None) -> Record:
        """What `get_record` does where nothing has come."""
        if not self._life:
            self._check()
        try:
            data, kind = self._queue.take(timeout)
        except (Empty, Closed) as error:
            raise self._told(error) from None
        with self._lock:
            return self._read(data, kind)

    def finish(self) -> None:
        """Say that nothing more comes: who gets, gets what is left, and then `Closed`. For all of its users."""
        if not self._life:
            self._check()
        self._queue.close()

    def stop(self) -> None:
        self._queue.leave()
        self._opens(None, 0, 0, 0, Record, Reference)

    def _bytes(self, data: bytes, kind: int) -> bytes:
        with self._lock:
            return super()._bytes(data, kind)

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, Empty):
            return Empty(f"{self!r}: nothing came in time")
        if not self._life:
            self._check()
        if self._queue.left:
            return Closed(f"{self!r} was closed here")
        return Closed(f"{self!r} was finished, and nothing is left")

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                yield self.get()
            except Closed:
                return
