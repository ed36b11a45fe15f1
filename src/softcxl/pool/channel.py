"""Channels: records from one program to another, through the pool's memory.

A ring goes from one producer to one consumer; a queue from any number of either. Both keep order, hold what has
not been taken yet, and make whoever is too fast wait. What is large stays where it is: a `Reference` to it goes
through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from softcxl.pool.errors import Closed, Empty, Full, TooLong
from softcxl.pool.native import Exchanger, Receiver, Sender
from softcxl.pool.native import Queue as NativeQueue
from softcxl.pool.native import Ring as NativeRing
from softcxl.pool.part import Part, checked
from softcxl.pool.protocol import ChannelKind, Role
from softcxl.pool.reference import REFERENCE, Record, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from softcxl.pool.region import Region
    from softcxl.pool.session import Pool

__all__ = [
    "Consumer",
    "Producer",
    "Queue",
    "Ring",
]


class _Sending(Part):
    """A part that records go from: what is done where the C core does not do it at once."""

    _core: NativeRing | NativeQueue
    _append_core: Callable[[Any, int, float | None], None]
    _shut: ClassVar[str]
    """Why it takes no more, where it was not closed here."""
    _holds: Callable[[], str]
    """What it has room for, in words."""

    def _send(self, data: Any, kind: int = 0, timeout: float | None = None) -> None:
        if not self._life:
            self._check()
        self._append(data, kind and checked(kind), timeout)

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
        self._refer(self._append, region, offset, size, give, kind, timeout)

    def _append(self, data: Any, kind: int, timeout: float | None) -> None:
        try:
            self._append_core(data, kind, timeout)
        except Full:
            raise Full(f"{self!r}: no room in time") from None
        except TooLong:
            length = memoryview(data).nbytes
            raise TooLong(f"{self!r}: a record of {length} bytes, where {self._holds()}") from None
        except Closed:
            if not self._life:
                self._check()
            raise Closed(f"{self!r}{' was closed here' if self._core.left else self._shut}") from None


class _Receiving(Part):
    """A part that records come to: what is done where none is there yet."""

    _core: NativeRing | NativeQueue
    _over_with: ClassVar[str]
    """Why none comes any more, where it was not closed here."""

    def _receive(self, timeout: float | None = None) -> bytes:
        if not self._life:
            self._check()
        try:
            data, kind = self._core.take(timeout)
        except (Empty, Closed) as error:
            raise self._told(error) from None
        return data if kind < REFERENCE else self._bytes(data, kind)

    def _receive_record(self, timeout: float | None = None) -> Record:
        if not self._life:
            self._check()
        try:
            data, kind = self._core.take(timeout)
        except (Empty, Closed) as error:
            raise self._told(error) from None
        return self._read(data, kind)

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, Empty):
            return Empty(f"{self!r}: nothing came in time")
        if not self._life:
            self._check()
        return Closed(f"{self!r}{' was closed here' if self._core.left else self._over_with}")


class Producer(_Sending, Sender):
    """The end of a ring that sends. One thread at a time."""

    _core: NativeRing
    _shut = ": there is no room, and its consumer has gone"

    def __init__(self, pool: Pool, name: str, size: int = 0) -> None:
        super().__init__(pool, ChannelKind.RING, Role.PRODUCER, name, size)
        self._core = NativeRing(pool.directory, self.place.at, self.place.size, True, self._life)
        self._append_core = self._core.send
        self._over(self._life, self._core)

    def __repr__(self) -> str:
        return f"<producer of ring {self.name!r}>"

    @property
    def size(self) -> int:
        """Bytes that the ring holds: each record takes 8 more than it has, in multiples of 8."""
        return self._core.size

    def _holds(self) -> str:
        return f"it has {self.size} for all of them"

    def _leave(self) -> None:
        self._core.close()

    def stop(self) -> None:
        self._core.leave()


class Consumer(_Receiving, Receiver):
    """The end of a ring that receives. One thread at a time. Iterates over records until the producer has gone."""

    _core: NativeRing
    _over_with = ": the producer has gone, and nothing is left"

    def __init__(self, pool: Pool, name: str, size: int = 0) -> None:
        super().__init__(pool, ChannelKind.RING, Role.CONSUMER, name, size)
        self._core = NativeRing(pool.directory, self.place.at, self.place.size, False, self._life)
        self._over(self._life, self._core)
        self._opens(None, 0, 0, 0, Record, Reference)

    def __repr__(self) -> str:
        return f"<consumer of ring {self.name!r}>"

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                yield self.receive()
            except Closed:
                return

    def _leave(self) -> None:
        self._core.close()

    def stop(self) -> None:
        self._core.leave()
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


class Queue(_Sending, _Receiving, Exchanger):
    """A queue, from many to many: each record is got by one. From any thread. Iterates until it is finished."""

    _core: NativeQueue
    _shut = " was finished"
    _over_with = " was finished, and nothing is left"

    # What the core calls where it does not do it at once
    _put, _put_reference = _Sending._send, _Sending._send_reference
    _get, _get_record = _Receiving._receive, _Receiving._receive_record

    def __init__(self, pool: Pool, name: str, cells: int = 0, size: int = 0) -> None:
        super().__init__(pool, ChannelKind.QUEUE, Role.USER, name, size, cells)
        place = self.place
        self._core = NativeQueue(pool.directory, place.at, place.size, pool.slot, self._life)
        self._append_core = self._core.put
        self._over(self._life, self._core)
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

    def _holds(self) -> str:
        return f"one has {self.room}"

    def finish(self) -> None:
        """Say that nothing more comes: who gets, gets what is left, and then `Closed`. For all of its users."""
        if not self._life:
            self._check()
        self._core.close()

    def stop(self) -> None:
        self._core.leave()
        self._opens(None, 0, 0, 0, Record, Reference)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                yield self.get()
            except Closed:
                return
