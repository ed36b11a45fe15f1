"""Channels: records from one program to another, through the pool's memory.

A ring goes from one producer to one consumer; a queue from any number of either. Both keep order, hold what has
not been taken yet, and make whoever is too fast wait. What is large stays where it is: a `Reference` to it goes
through.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from softcxl.pool import buffer, layout
from softcxl.pool.buffer import Spot
from softcxl.pool.errors import Closed, Empty, Full, Refused, Stale
from softcxl.pool.native import Queue as NativeQueue
from softcxl.pool.native import Ring as NativeRing
from softcxl.pool.protocol import Adopt, Attach, Attached, ChannelKind, Detach, Give, Opcode, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from softcxl.pool.region import Region
    from softcxl.pool.session import Pool

MOST_KIND: Final = (1 << 30) - 1
REFERENCE: Final = 1 << 31
GIVEN: Final = 1 << 30
_OPEN: Final = 16
"""Regions of others that are kept open for the next reference to them."""
_numbers = itertools.count(time.monotonic_ns() << 8 & (1 << 63) - 1 | 1)


class Record(NamedTuple):
    """What was received: the bytes, or a reference to them, and the kind that the sender gave it."""

    data: bytes
    kind: int
    reference: Reference | None = None


class Lent:
    """A region that references are to, and a view of it once one is asked for."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.view: memoryview | None = None

    def whole(self) -> memoryview:
        """All of it."""
        if self.view is None:
            self.view = self.region.view()
        return self.view


class Reference:
    """Bytes of a region, where they are.

    One that was *lent* is the sender's: it is there as long as the sender's region is. One that was *given* is the
    receiver's from the moment that he took it: `free` it, or leave a `with`; if he dies it is freed. Raises `Stale`
    where the region has gone.
    """

    def __init__(self, pool: Pool, spot: Spot, lent: Lent, *, given: bool) -> None:
        self._pool = pool
        self._lent = lent
        self.spot = spot
        self.given = given

    @property
    def region(self) -> Region:
        """The region that they are in."""
        return self._lent.region

    def __len__(self) -> int:
        return self.spot.length

    def __repr__(self) -> str:
        how = "given" if self.given else "lent"
        return f"<Reference to {self.spot.length} bytes at {self.spot.offset} of region {self.spot.region}, {how}>"

    def view(self) -> memoryview:
        """The bytes themselves, without a copy. See `Region.view`."""
        buffer.check(self._pool, self.spot)
        return self._lent.whole()[self.spot.offset : self.spot.offset + self.spot.length]

    def read(self) -> bytes:
        """A copy of the bytes."""
        return self.region.read(self.spot.offset, self.spot.length)

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
        try:
            encoded = layout.encode_name(name)
        except ValueError as error:
            raise Refused(str(error)) from None
        request = next(_numbers)
        asked = Attach(kind=kind, role=role, flags=0, cells=cells, size=size, request=request, name=encoded)
        self._pool = pool
        self._role = role
        self.place = Attached.unpack(pool.ask(Opcode.ATTACH, asked.pack()))
        self.name = name
        self._open = True
        self._slot_at = pool.header.slots_at + 256 * pool.slot
        self._live = pool.epoch << 24 | layout.SlotState.LIVE
        self._load = pool.directory.load
        self._regions: dict[tuple[int, int], Lent] = {}

    def close(self) -> None:
        """Take part no more. A channel that nobody has open any more goes once it is empty."""
        if not self._open:
            return
        self._open = False
        regions, self._regions = self._regions, {}
        if self._load(self._slot_at) != self._live:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if not self._open:
            raise Closed(f"{self!r} was closed here")
        if self._load(self._slot_at) != self._live:
            self._pool.check()

    def end(self) -> None:
        """It is this client's no more, and somebody else sees to it."""
        self._open = False

    # -- references ------------------------------------------------------------------------------------------

    def _refer(self, region: Region, offset: int, size: int | None, give: bool) -> Spot:
        if size is None:
            size = region.size - offset
        if offset < 0 or size < 0 or offset + size > region.size:
            raise Refused(f"{size} bytes at {offset}: the region has {region.size}")
        if region.closed:
            raise Stale(f"region {region.index} is not this client's any more")
        spot = Spot(region.index, region.generation, offset, size)
        buffer.check(self._pool, spot)
        if give:
            self._pool.ask(Opcode.GIVE, self._gift(Give, spot))
        return spot

    def _gift(self, kind: type[Give | Adopt], spot: Spot) -> bytes:
        return kind(
            index=spot.region,
            generation=spot.generation,
            channel=self.place.index,
            channel_generation=self.place.generation,
        ).pack()

    def _opened(self, spot: Spot, kind: int) -> Reference:
        record = buffer.record_of(self._pool, spot)
        if kind & GIVEN:
            self._pool.ask(Opcode.ADOPT, self._gift(Adopt, spot))
            own = self._pool.adopted(spot.region, spot.generation, record.size)
            return Reference(self._pool, spot, Lent(own), given=True)
        key = spot.region, spot.generation
        lent = self._regions.get(key)
        if lent is None:
            if len(self._regions) >= _OPEN:
                self._regions.pop(next(iter(self._regions)))
            lent = self._regions[key] = Lent(self._pool.referred(*key))
        return Reference(self._pool, spot, lent, given=False)

    def _sent(
        self,
        put: Callable[..., None],
        region: Region,
        spot: Spot,
        kind: int,
        give: bool,
        timeout: float | None,
    ) -> None:
        try:
            put(spot.pack(), kind | REFERENCE | (GIVEN if give else 0), timeout)
        except BaseException:
            if give:
                self._pool.ask(Opcode.ADOPT, self._gift(Adopt, spot))  # it stays the sender's
            raise
        if give:
            region.let_go()

    def _read(self, data: bytes, kind: int) -> Record:
        if not kind & REFERENCE:
            return Record(data, kind)
        return Record(b"", kind & MOST_KIND, self._opened(Spot.unpack(data), kind))

    def _bytes(self, data: bytes, kind: int) -> bytes:
        if not kind & REFERENCE:
            return data
        with self._opened(Spot.unpack(data), kind) as reference:
            return reference.read()


def _kind(kind: int) -> int:
    if not 0 <= kind <= MOST_KIND:
        raise Refused(f"kind {kind}: it is between 0 and {MOST_KIND}")
    return kind


class Producer(_Part):
    """The end of a ring that sends. One thread at a time."""

    def __init__(self, pool: Pool, name: str, size: int = 0) -> None:
        super().__init__(pool, ChannelKind.RING, Role.PRODUCER, name, size)
        self._ring = NativeRing(pool.directory, self.place.at, self.place.size, True)

    def __repr__(self) -> str:
        return f"<producer of ring {self.name!r}>"

    @property
    def size(self) -> int:
        """Bytes that the ring holds: each record takes 8 more than it has, in multiples of 8."""
        return self._ring.size

    def send(self, data: Any, kind: int = 0, timeout: float | None = None) -> None:
        """Append a record: any bytes. Waits while there is no room; with `timeout=0` it does not.

        Raises `Full` where there is no room in time, `Closed` where there is none and the consumer has gone,
        `TooLong` for what the ring can never hold.
        """
        self._check()
        try:
            self._ring.send(data, _kind(kind), timeout)
        except Full:
            raise Full(f"{self!r}: no room in time") from None
        except Closed:
            raise Closed(f"{self!r}: there is no room, and its consumer has gone") from None

    def send_reference(
        self,
        region: Region,
        offset: int = 0,
        size: int | None = None,
        *,
        give: bool = False,
        kind: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Send where bytes of a region are, and not the bytes.

        Lent, the region stays yours, to keep until the receiver needs it no more. Given (`give=True`; a region of
        your own without a name) it is the channel's as soon as this returns, and then that of who receives it: it is
        freed when he does so or dies, and where nobody receives it when the channel goes. Raises as `send` does, and
        `Denied` for what cannot be given.
        """
        self._check()
        spot = self._refer(region, offset, size, give)
        self._sent(self._ring.send, region, spot, _kind(kind), give, timeout)

    def _leave(self) -> None:
        self._ring.close()


class Consumer(_Part):
    """The end of a ring that receives. One thread at a time. Iterates over records until the producer has gone."""

    def __init__(self, pool: Pool, name: str, size: int = 0) -> None:
        super().__init__(pool, ChannelKind.RING, Role.CONSUMER, name, size)
        self._ring = NativeRing(pool.directory, self.place.at, self.place.size, False)

    def __repr__(self) -> str:
        return f"<consumer of ring {self.name!r}>"

    def receive(self, timeout: float | None = None) -> bytes:
        """The next record's bytes; of a reference, what it refers to. With `timeout=0` it does not wait.

        Raises `Empty` where nothing comes in time, `Closed` where the producer has gone and all of his is taken.
        """
        self._check()
        try:
            data, kind = self._ring.take(timeout)
        except (Empty, Closed) as error:
            raise self._told(error) from None
        return data if kind < REFERENCE else self._bytes(data, kind)

    def receive_record(self, timeout: float | None = None) -> Record:
        """The next record, with its kind; a reference as such. Raises as `receive` does."""
        self._check()
        try:
            return self._read(*self._ring.take(timeout))
        except (Empty, Closed) as error:
            raise self._told(error) from None

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, Empty):
            return Empty(f"{self!r}: nothing came in time")
        return Closed(f"{self!r}: the producer has gone, and nothing is left")

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                yield self.receive()
            except Closed:
                return

    def _leave(self) -> None:
        self._ring.close()


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


class Queue(_Part):
    """A queue, from many to many: each record is got by one. From any thread. Iterates until it is finished."""

    def __init__(self, pool: Pool, name: str, cells: int = 0, size: int = 0) -> None:
        super().__init__(pool, ChannelKind.QUEUE, Role.USER, name, size, cells)
        self._queue = NativeQueue(pool.directory, self.place.at, self.place.size, pool.slot)
        self._lock = threading.Lock()

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

    def put(self, data: Any, kind: int = 0, timeout: float | None = None) -> None:
        """Append a record: any bytes. Waits while there is no room; with `timeout=0` it does not.

        Raises `Full` where there is no room in time, `Closed` where the queue was finished, `TooLong`.
        """
        self._check()
        try:
            self._queue.put(data, _kind(kind), timeout)
        except Full:
            raise Full(f"{self!r}: no room in time") from None
        except Closed:
            raise Closed(f"{self!r} was finished") from None

    def put_reference(
        self,
        region: Region,
        offset: int = 0,
        size: int | None = None,
        *,
        give: bool = False,
        kind: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Put where bytes of a region are, and not the bytes. See `Producer.send_reference`."""
        self._check()
        spot = self._refer(region, offset, size, give)
        self._sent(self._queue.put, region, spot, _kind(kind), give, timeout)

    def get(self, timeout: float | None = None) -> bytes:
        """Take the next record's bytes; of a reference, what it refers to. With `timeout=0` it does not wait.

        Raises `Empty` where nothing comes in time, `Closed` where the queue was finished and all is taken.
        """
        self._check()
        try:
            data, kind = self._queue.take(timeout)
        except (Empty, Closed) as error:
            raise self._told(error) from None
        if kind < REFERENCE:
            return data
        with self._lock:
            return self._bytes(data, kind)

    def get_record(self, timeout: float | None = None) -> Record:
        """Take the next record, with its kind; a reference as such. Raises as `get` does."""
        self._check()
        try:
            data, kind = self._queue.take(timeout)
        except (Empty, Closed) as error:
            raise self._told(error) from None
        with self._lock:
            return self._read(data, kind)

    def finish(self) -> None:
        """Say that nothing more comes: who gets, gets what is left, and then `Closed`. For all of its users."""
        self._check()
        self._queue.close()

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, Empty):
            return Empty(f"{self!r}: nothing came in time")
        return Closed(f"{self!r} was finished, and nothing is left")

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                yield self.get()
            except Closed:
                return
