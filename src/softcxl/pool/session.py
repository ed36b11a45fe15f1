"""A program's connection to a pool: `softcxl.connect()`.

>>> import softcxl
>>> pool = softcxl.connect("unix:/run/softcxl/pool.sock")            # doctest: +SKIP
>>> with pool.allocate("64MiB", name="model", replicas=2) as region:  # doctest: +SKIP
...     region.write(0, b"weights")
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self

from softcxl.pool import address as addresses
from softcxl.pool import allocation, arguments, layout, native
from softcxl.pool.channel import Queue, Ring
from softcxl.pool.client import PoolClient, named
from softcxl.pool.errors import Closed, Corrupt, NativeMissing, Stale
from softcxl.pool.exchange import Exchange
from softcxl.pool.info import RegionInfo
from softcxl.pool.link import Coherence, Link
from softcxl.pool.managed import ManagedRegion
from softcxl.pool.protocol import (
    MANY,
    AllocateMany,
    ListAnswer,
    ListQuery,
    Located,
    Opcode,
    TellAnswer,
    TellQuery,
)
from softcxl.pool.region import Region
from softcxl.wire import WireError

if TYPE_CHECKING:
    from softcxl.pool.rpc import Client
    from softcxl.pool.service import Service

_MOST: Final = (1 << 32) - 1
PATIENCE = 30.0
"""Seconds for which a client waits for a server that has gone, unless it is told otherwise."""

_ALLOCATE = int(Opcode.ALLOCATE)
_SIZE = layout.REGION["size"]
_LOCATED = struct.Struct("<3Q")
assert _LOCATED.size == Located.__layout__.size


def connect(
    address: str | None = None,
    *,
    name: str | None = None,
    patience: float = PATIENCE,
    coherence: Coherence | None = None,
    drop_unflushed: bool = False,
) -> Pool:
    """Connect to the pool at `address`: `unix:PATH`, or in a guest `device:SLOT` or `dax:PATH`. Without one it is that
    of $SOFTCXL_POOL, or the one pool whose server runs here for this user, or the guest's.

    `name` is the client's, for quotas and permissions: 1 to 63 bytes of UTF-8; without one the program's. `patience`
    is for how long, in seconds, requests wait for a server that has gone and may come again; 0 for not at all.
    `coherence` is `"managed"` for a program that is to run on several hosts: `Region.read` and `write` then flush and
    invalidate, and views have to (`softcxl.pool.coherence`); it is what the connection is without it, which is
    `"host"` on the server's machine. `drop_unflushed` is for tests of such programs: what a view has not flushed is
    lost.

    Raises `Refused`, `NoServer`, `Foreign`, `Corrupt`, `NativeMissing` where the C core could not be built, or what the
    server answers.
    """
    if not native.CORE:
        raise NativeMissing(f"connecting to a pool: {NativeMissing.sentence}")
    client = _program() if name is None else name
    return Pool(addresses.link(address), client, patience, coherence, drop_unflushed)


class Pool(PoolClient):
    """A pool of memory, as one of its clients has it. From any thread.

    A server that ends and starts again finds all as it was, and its clients come back by themselves: a call waits for
    that. After a fork the child's every use of it raises `Stale`, views aside: what the child needs it connects itself.
    """

    def __init__(
        self,
        link: Link,
        name: str,
        patience: float = PATIENCE,
        coherence: Coherence | None = None,
        drop_unflushed: bool = False,
    ) -> None:
        super().__init__(link, name, patience, coherence, drop_unflushed)
        self._requests = allocation.Requests()
        self._exchange = Exchange(self)

    # -- regions ---------------------------------------------------------------------------------------------

    def allocate(
        self,
        size: int | str,
        *,
        name: str | None = None,
        replicas: int = 1,
        policy: Literal["spread", "pack"] = "spread",
        separate: Literal["device", "switch"] = "device",
        atomic: bool = False,
        mode: Literal["private", "read", "write"] = "write",
        lease: float = 0,
    ) -> Region:
        """A new region of `size` bytes (`"64MiB"`, or a number), which is zeros, on `replicas` different devices.

        With a `name` it stays until it is freed, without one until it is closed or this client ends. `separate` is
        what no two copies share. `atomic` makes each write all or nothing where there is one copy, too. `mode` is
        what others may do. With a `lease`, in seconds, a region goes when nobody has had it open for so long.

        Raises `Refused`, `NameTaken`, `NoRoom`, `QuotaExceeded`, `NoServer`.
        """
        how = size, replicas, policy, separate, atomic, mode
        plain = self._requests.plain.get(how) if name is None and not lease else None
        if plain is None:
            data = self._requests.pack(*how, name, lease)
        else:
            data = plain[0] + next(self._requests.numbers).to_bytes(8, "little") + plain[1]
        return self._located(self._calls.ask_twice(_ALLOCATE, data), own=True)

    def allocate_many(
        self,
        size: int | str,
        count: int,
        *,
        replicas: int = 1,
        policy: Literal["spread", "pack"] = "spread",
        separate: Literal["device", "switch"] = "device",
        atomic: bool = False,
        mode: Literal["private", "read", "write"] = "write",
    ) -> list[Region]:
        """`count` regions of `size` bytes each, as of `allocate` without a name: with fewer questions to the server.

        All are made or none. Raises what `allocate` does.
        """
        made: list[Region] = []
        count = arguments.count(count, 0, _MOST, "count")
        try:
            while len(made) < count:
                each = self._requests.pack(size, replicas, policy, separate, atomic, mode)
                asked = AllocateMany(count=min(count - len(made), MANY), each=each)
                places = self._calls.ask_twice(Opcode.ALLOCATE_MANY, asked.pack())
                bytes_each = int.from_bytes(each[:8], "little")
                for index, generation in struct.iter_unpack("<2Q", places):
                    made.append(self._region(index, generation, bytes_each, own=True))
        except BaseException:
            for region in made:
                region.close()
            raise
        return made

    def open(self, name: str) -> Region:
        """The region of that name. Raises `Refused` for what is no name, `NoSuchName`, `Denied`."""
        return self._located(self.ask(Opcode.OPEN, named(name=name).pack()), own=False)

    def free(self, what: str | Region) -> None:
        """Give a region back, by name or as it is. Its memory goes to others, cleared, once nobody is at it.

        Raises `NoSuchName` (also for one that was freed before), `Stale` for a region that was freed, `Denied` where
        it is another's.
        """
        if not isinstance(what, Region):
            self.ask(Opcode.FREE, named(name=what).pack())
            return
        self.ask(Opcode.FREE, what.named().pack())
        what.let_go(Stale(f"region {what.index} was freed"))

    def regions(self) -> Iterator[RegionInfo]:
        """All regions that there are, in order of their index."""
        start = 0
        while True:
            answer = _unpacked(ListAnswer, self.ask(Opcode.LIST, ListQuery(start=start).pack()))
            for index in answer.indices:
                record = self.record(index)
                if record.word & 0xFF == layout.RegionState.LIVE:
                    yield RegionInfo.of(index, record)
            if not answer.next:
                return
            if answer.next <= start:
                raise Corrupt(f"the server lists regions from {start} on, and then from {answer.next} on")
            start = answer.next

    def tell(self, what: str) -> Any:
        """What the server tells of `"sources"`, `"clients"`, `"server"`, `"regions"` or `"quotas"`: lists and
        dictionaries, as from JSON, in which sizes are bytes.

        Raises `NoSuchName` for what it tells nothing of.
        """
        text = b""
        while True:
            query = TellQuery(offset=len(text), what=what.encode()[:40])
            answer = _unpacked(TellAnswer, self.ask(Opcode.TELL, query.pack()))
            text += answer.piece
            if len(text) >= answer.total or not answer.piece:
                try:
                    return json.loads(text)
                except ValueError as error:
                    raise Corrupt(f"what the server tells of {what!r} is no JSON: {error}") from None

    # -- channels and services -------------------------------------------------------------------------------

    def ring(self, name: str, size: int | str | None = None) -> Ring:
        """The ring of that name, which has one producer and one consumer: `ring(...).producer()`, `.consumer()`.

        It is made where there is none, for `size` bytes of records or more, 1 MiB unless told. Raises `Refused`, and
        `NameTaken` for one that is there and smaller.
        """
        return self._exchange.ring(name, size)

    def queue(self, name: str, *, cells: int | None = None, size: int | str | None = None) -> Queue:
        """The queue of that name, of which this client takes part from then on.

        It is made where there is none, for `cells` records (a power of two) of `size` bytes or more; 256 of 1008
        unless told. Raises `Refused`, and `NameTaken` for one that is there and smaller.
        """
        return self._exchange.queue(name, cells, size)

    def remove(self, *, ring: str | None = None, queue: str | None = None) -> None:
        """Remove a channel that nobody has open, with what is left in it.

        Raises `Refused` for what is no name, `NoSuchName`, `Busy`.
        """
        self._exchange.remove(ring, queue)

    def service(self, name: str, *, workers: int = 1) -> Service:
        """The service of that name, which this client serves with the functions that it is given:

        >>> @pool.service("index")                        # doctest: +SKIP
        ... def lookup(key: int) -> bytes: ...

        Other clients may serve it, too. `workers` are the threads here. Raises `Refused` for what is no name, or for
        no workers.
        """
        return self._exchange.service(name, workers)

    def client(self, name: str, *, timeout: float | None = None) -> Client:
        """The functions of a service: `pool.client("index").lookup(7)`.

        `timeout` is for how long a call waits, in seconds, None for ever. Raises `NoWorker` where nobody serves it,
        `Refused` for what is no name.
        """
        return self._exchange.client(name, timeout)

    def referred(self, index: int, generation: int) -> Region:
        """The region of that record, as `open`. Raises `Stale` where it has gone, `Denied`."""
        return self._located(self.ask(Opcode.OPEN, named(index, generation).pack()), own=False)

    def adopted(self, index: int, generation: int, size: int) -> Region:
        """A region that was given to this client, and has been taken."""
        return self._located(Located(index=index, generation=generation, size=size).pack(), own=True)

    # -- regions that the server has told of -----------------------------------------------------------------

    def _located(self, answer: bytes, own: bool) -> Region:
        if len(answer) != _LOCATED.size:
            _unpacked(Located, answer)  # raises what is told of it
        index, generation, size = _LOCATED.unpack(answer)
        mapping = self._mapping
        if not 0 <= index < mapping.header.regions:
            raise Corrupt(
                f"the server tells of region {index}: there are records for {mapping.header.regions}"
            )
        record_size = mapping.directory.load(mapping.header.regions_at + 256 * index + _SIZE)
        if not size or size != record_size:
            raise Corrupt(f"the server says that region {index} has {size} bytes, its record {record_size}")
        return self._region(index, generation, size, own)

    def _region(self, index: int, generation: int, size: int, own: bool) -> Region:
        self._holdings.open(index, generation, own)
        try:
            region = Region if self.coherence == "host" else ManagedRegion
            return region(self, index, generation, size, own)
        except BaseException:
            self.close_later(index, generation)
            raise

    # -- ending ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave. Regions without a name are freed, views of any region are void, and nothing of the pool may be used
        here any more. Its memory is mapped no longer than there are views, ends of channels or clients of services
        that somebody keeps."""
        if not self._connection.ended:
            self._exchange.close()
        closed = Closed("this connection to the pool was closed")
        for region in self._regions():
            region.end(closed)
        self._exchange.release()
        self._leave()

    def forked(self) -> None:
        super().forked()
        self._exchange.forked()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a connection to a pool cannot be copied or pickled: another program connects for itself"
        )

    def __repr__(self) -> str:
        ended = ", ended" if self._connection.ended else ""
        return f"<Pool {self.address} as {self.name!r}, slot {self.slot}{ended}>"


def _unpacked(kind: Any, answer: bytes) -> Any:
    try:
        return kind.unpack(answer)
    except WireError as error:
        raise Corrupt(f"the server's answer cannot be: {error}") from None


def _program() -> str:
    """This program's name, as far as it can be a client's."""
    name = Path(sys.argv[0]).name if sys.argv else ""
    kept = "".join(letter for letter in name if letter.isprintable())
    return kept.encode(errors="replace")[: layout.MAX_NAME].decode(errors="ignore") or "python"


__all__ = ["Pool", "connect"]
