"""A program's connection to a pool: `softcxl.connect()`.

>>> import softcxl
>>> pool = softcxl.connect("unix:/run/softcxl/pool.sock")            # doctest: +SKIP
>>> with pool.allocate("64MiB", name="model", replicas=2) as region:  # doctest: +SKIP
...     region.write(0, b"weights")
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from softcxl.pool import address as addresses
from softcxl.pool import layout, native
from softcxl.pool.channel import Queue, Ring
from softcxl.pool.coherence import Cache
from softcxl.pool.connection import Connection
from softcxl.pool.errors import Closed, Corrupt, NativeMissing, Refused, Stale
from softcxl.pool.exchange import Exchange
from softcxl.pool.info import RegionInfo
from softcxl.pool.layout import HEADER, Mode, RegionFlag
from softcxl.pool.link import Coherence, Link
from softcxl.pool.managed import ManagedRegion
from softcxl.pool.native import Memory
from softcxl.pool.opened import Opened
from softcxl.pool.protocol import (
    MANY,
    Allocate,
    AllocateMany,
    Hold,
    ListAnswer,
    ListQuery,
    Located,
    Named,
    Opcode,
    Policy,
    Separate,
    TellAnswer,
    TellQuery,
)
from softcxl.pool.region import Region
from softcxl.wire import WireError
from softcxl.wire.sizes import parse_size

if TYPE_CHECKING:
    from softcxl.pool.rpc import Client
    from softcxl.pool.service import Service

PATIENCE = 30.0
"""Seconds for which a client waits for a server that has gone, unless it is told otherwise."""

_ALLOCATE, _CLOSE = int(Opcode.ALLOCATE), int(Opcode.CLOSE)
_LOCATED = struct.Struct("<3Q")
_NAMED = struct.Struct("<2Q64x")
_PLAIN = 64
_OPENED, _PINS, _OPENED_TOLD, _PINS_TOLD = 0, 1, 3, 4
_TOLD = 3
assert _LOCATED.size == Located.__layout__.size
assert _NAMED.size == Named.__layout__.size
assert layout.offsets(Allocate)["request"] == 8

_MODES = {"private": Mode.PRIVATE, "read": Mode.READ, "write": Mode.WRITE}
_POLICIES = {"spread": Policy.SPREAD, "pack": Policy.PACK}
_SEPARATE = {"device": Separate.DEVICE, "switch": Separate.SWITCH}


def connect(
    address: str | None = None,
    *,
    name: str | None = None,
    patience: float = PATIENCE,
    coherence: Coherence | None = None,
    drop_unflushed: bool = False,
) -> Pool:
    """Connect to the pool at `address`, `unix:PATH`; without one to that of $SOFTCXL_POOL, or to the one whose server
    runs here and has its socket in $XDG_RUNTIME_DIR.

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
    return Pool(addresses.link(address), name or _program(), patience, coherence, drop_unflushed)


class Pool:
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
        try:
            layout.encode_name(name)
        except ValueError as error:
            raise Refused(f"the client's name: {error}") from None
        if coherence not in (None, "host", "managed"):
            raise Refused(f"coherence={coherence!r}: it is 'host' or 'managed'")
        if coherence == "host" and link.coherence == "managed":
            raise Refused(
                f"coherence='host': caches do not keep the memory of {link.address} the same for all"
            )
        self.name = name
        self.identity = layout.identity(name)
        self.coherence: Coherence = "managed" if drop_unflushed else coherence or link.coherence
        self.drop_unflushed = drop_unflushed
        self._requests = itertools.count(time.monotonic_ns() << 8 & (1 << 63) - 1 | 1)
        self._lock = threading.Lock()
        self._made: weakref.WeakSet[Opened] = weakref.WeakSet()
        self._caches: weakref.WeakValueDictionary[tuple[int, int], Cache] = weakref.WeakValueDictionary()
        self._held: dict[tuple[int, int], list[int]] = {}
        """How often a region is open here, how many views of it there are, whether it is this client's own, and how
        often the server takes it for open and for looked at: it hears of the last one that closes alone, since who is
        told twice, over a server's death, would take what is open yet for closed."""
        self._plain: dict[tuple[object, ...], tuple[bytes, bytes]] = {}
        """What is asked for without a name, packed: what is before the request's number, and what behind it."""
        self._callbacks: list[Callable[[], object]] = []
        self._connection = Connection(
            link, name, _within(patience, 0, 1e9, "patience"), _weakly(self, Pool._returned)
        )
        self._exchange = Exchange(self)
        _pools.add(self)

    # -- who and where ---------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where its server is."""
        return self._connection.link.address

    @property
    def slot(self) -> int:
        """The client's number."""
        return self._connection.place.slot

    @property
    def epoch(self) -> int:
        """How often that number was given to a client."""
        return self._connection.place.epoch

    @property
    def lease(self) -> float:
        """For how long, in seconds, a client that cannot be watched may be silent."""
        return self._connection.mapped.lease

    @property
    def header(self) -> layout.Header:
        """What the arena's header said when this client came; checked against the arena's size."""
        return self._connection.header

    @property
    def directory(self) -> Memory:
        """The arena for the C core."""
        return self._connection.directory

    @property
    def health(self) -> int:
        """A count that goes up when a source's state changes, or a region's copies do."""
        return self._connection.directory.load(HEADER["health"])

    @property
    def sources(self) -> frozenset[int]:
        """Numbers of the sources that are mapped here; 0 is the arena."""
        return frozenset(self._connection.mapped.maps)

    def map(self, source: int) -> mmap.mmap:
        """All of a source's memory. Raises `Corrupt` for one that is not mapped here."""
        try:
            return self._connection.mapped.maps[source]
        except KeyError:
            self.check()
            raise Corrupt(f"source {source} is not mapped here") from None

    def memory(self, source: int) -> Memory:
        """The same for the C core."""
        found = self.memories()
        one = found[source] if 0 <= source < len(found) else None
        if one is None:
            self.check()
            raise Corrupt(f"source {source} is not mapped here")
        return one

    def memories(self) -> list[Memory | None]:
        """The memory of every source by number; None where there is none."""
        return self._connection.memories

    def record(self, index: int) -> layout.RegionRecord:
        """A region's record. Raises `Corrupt` where there is none of that number."""
        header = self._connection.header
        if not 0 <= index < header.regions:
            raise Corrupt(f"there is no record {index}: there are {header.regions}")
        at = header.regions_at + 256 * index
        return layout.RegionRecord.unpack(self.map(layout.ARENA)[at : at + 256])

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
        plain = self._plain.get(how) if name is None and not lease else None
        if plain is None:
            data = self._asking(size, name, replicas, policy, separate, atomic, mode, lease)
            if name is None and not lease:
                if len(self._plain) >= _PLAIN:
                    self._plain.clear()
                self._plain[how] = data[:8], data[16:]
        else:
            data = plain[0] + next(self._requests).to_bytes(8, "little") + plain[1]
        return self._located(self._connection.ask_twice(_ALLOCATE, data), own=True)

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
        try:
            while len(made) < _within(count, 0, 1 << 32, "count"):
                each = self._asking(size, None, replicas, policy, separate, atomic, mode, 0)
                asked = AllocateMany(count=min(count - len(made), MANY), each=each)
                places = self._connection.ask_twice(Opcode.ALLOCATE_MANY, asked.pack())
                bytes_each = int.from_bytes(each[:8], "little")
                for index, generation in struct.iter_unpack("<2Q", places):
                    made.append(self._region(index, generation, bytes_each, own=True))
        except BaseException:
            for region in made:
                region.close()
            raise
        return made

    def _asking(
        self,
        size: int | str,
        name: str | None,
        replicas: int,
        policy: str,
        separate: str,
        atomic: bool,
        mode: str,
        lease: float,
    ) -> bytes:
        return Allocate(
            size=_size(size),
            request=next(self._requests),
            copies=_within(replicas, 1, layout.MAX_COPIES, "replicas"),
            policy=_one_of(policy, _POLICIES, "policy"),
            separate=_one_of(separate, _SEPARATE, "separate"),
            mode=_one_of(mode, _MODES, "mode"),
            flags=RegionFlag.ATOMIC if atomic else 0,
            source=0,
            lease=round(_within(lease, 0, 1e9, "lease") * 1000),
            reserved0=b"",
            name=_encoded(name) if name is not None else b"",
        ).pack()

    def open(self, name: str) -> Region:
        """The region of that name. Raises `NoSuchName`, `Denied`."""
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
        """What the server tells of `"sources"`, `"clients"`, `"server"` and more, as from JSON."""
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
        """Remove a channel that nobody has open, with what is left in it. Raises `NoSuchName`, `Busy`."""
        self._exchange.remove(ring, queue)

    def service(self, name: str, *, workers: int = 1) -> Service:
        """The service of that name, which this client serves with the functions that it is given:

        >>> @pool.service("index")                        # doctest: +SKIP
        ... def lookup(key: int) -> bytes: ...

        Other clients may serve it, too. `workers` are the threads here.
        """
        return self._exchange.service(name, workers)

    def client(self, name: str, *, timeout: float | None = None) -> Client:
        """The functions of a service: `pool.client("index").lookup(7)`.

        `timeout` is for how long a call waits, in seconds, None for ever. Raises `NoWorker` where nobody serves it.
        """
        return self._exchange.client(name, timeout)

    def referred(self, index: int, generation: int) -> Region:
        """The region of that record, as `open`. Raises `Stale` where it has gone, `Denied`."""
        return self._located(self.ask(Opcode.OPEN, named(index, generation).pack()), own=False)

    def adopted(self, index: int, generation: int, size: int) -> Region:
        """A region that was given to this client, and has been taken."""
        return self._located(Located(index=index, generation=generation, size=size).pack(), own=True)

    # -- asking ----------------------------------------------------------------------------------------------

    def ask(self, opcode: int, data: bytes) -> bytes:
        """Ask the server. Waits for one that has gone, up to the patience of this client.

        Raises what the answer says, `NoServer`, or `Stale` where the pool has forgotten this client.
        """
        return self._connection.ask(opcode, data)

    def later(self, work: Callable[[], object]) -> None:
        """Have that done by a thread that may ask the server, soon: for finalizers. What of `PoolError` it raises is
        ignored."""
        self._connection.later(work)

    def on_return(self, callback: Callable[[], object]) -> None:
        """Have `callback()` called, as by `later`, each time that this client has come to another server."""
        self._callbacks.append(callback)

    def renew(self) -> None:
        """Have memory mapped that the server has got since this client came."""
        self._connection.renew()

    def await_server(self) -> None:
        """Wait for a server that is known to have gone, up to this client's patience. Raises `NoServer`, `Stale`."""
        self._connection.await_server()

    def check(self) -> None:
        """Raise `Stale` where this connection has ended, or belongs to a process that has forked."""
        self._connection.check()

    # -- what regions ask of it ------------------------------------------------------------------------------

    def made(self, region: Opened) -> None:
        """A region has found its memory, and has to hear when that is mapped elsewhere."""
        with self._lock:
            self._made.add(region)

    def pin(self, region: Region) -> None:
        """The region stays where it is until `unpin_later`."""
        # Counted first: a server that comes in between is told of it, rather than of none
        index, generation = region.index, region.generation
        self._count(index, generation, pins=1)
        try:
            self.ask(Opcode.PIN, region.named().pack())
        except BaseException:
            self.unpin_later(index, generation)
            raise
        with self._lock:
            self._held[index, generation][_PINS_TOLD] += 1

    def unpin_later(self, index: int, generation: int) -> None:
        """One view of a region less. From any thread, finalizers too."""
        self.later(partial(self.unpin, index, generation))

    def unpin(self, index: int, generation: int) -> None:
        """One view of a region less."""
        for _ in range(self._less(index, generation, _PINS)):
            self.ask(Opcode.UNPIN, named(index, generation).pack())

    def close_later(self, index: int, generation: int) -> None:
        """Close a region that nobody has any more. From finalizers, too."""
        self.later(partial(self.close_region, index, generation))

    def close_region(self, index: int, generation: int) -> None:
        """One that has a region open less."""
        try:
            for _ in range(self._less(index, generation, _OPENED)):
                self._connection.post(_CLOSE, _NAMED.pack(index, generation))
        except Stale:
            pass  # the pool has forgotten this client: then it is closed

    def forget(self, index: int, generation: int) -> None:
        """A region was freed, or given away."""
        self._less(index, generation, _OPENED)

    def views_of(self, index: int, generation: int) -> int:
        """How many views this client has of a region."""
        counts = self._held.get((index, generation))
        return 0 if counts is None else counts[_PINS]

    def cache(
        self, index: int, generation: int, memory: Callable[[], memoryview], evict: float, seed: int
    ) -> Cache:
        """What this client would have in its caches of a region, for tests."""
        with self._lock:
            one = self._caches.get((index, generation))
        if one is None:
            one = Cache(memory(), evict, seed)
            with self._lock:
                one = self._caches.setdefault((index, generation), one)
        return one

    def _count(self, index: int, generation: int, opened: int = 0, pins: int = 0, own: bool = False) -> None:
        with self._lock:
            counts = self._held.setdefault((index, generation), [0, 0, own, 0, 0])
            counts[_OPENED] += opened
            counts[_OPENED_TOLD] += opened
            counts[_PINS] += pins

    def _less(self, index: int, generation: int, what: int) -> int:
        """One less. Returns how often the server is to be told so: not before it is the last one."""
        with self._lock:
            counts = self._held.get((index, generation))
            if counts is None or not counts[what]:
                return 0
            counts[what] -= 1
            if counts[what]:
                return 0
            told, counts[what + _TOLD] = counts[what + _TOLD], 0
            if not counts[_OPENED] and not counts[_PINS]:
                del self._held[index, generation]
            return told

    def _located(self, answer: bytes, own: bool) -> Region:
        if len(answer) != _LOCATED.size:
            _unpacked(Located, answer)  # raises what is told of it
        index, generation, size = _LOCATED.unpack(answer)
        record_size = self._connection.directory.load(self._record_at(index) + 8)
        if not size or size != record_size:
            raise Corrupt(f"the server says that region {index} has {size} bytes, its record {record_size}")
        return self._region(index, generation, size, own)

    def _region(self, index: int, generation: int, size: int, own: bool) -> Region:
        if own and (index, generation) not in self._held:
            self._held[index, generation] = [1, 0, True, 1, 0]  # nobody else knows of it yet
        else:
            self._count(index, generation, opened=1, own=own)
        try:
            region = Region if self.coherence == "host" else ManagedRegion
            return region(self, index, generation, size, own)
        except BaseException:
            self.close_later(index, generation)
            raise

    def _record_at(self, index: int) -> int:
        header = self.header
        if not 0 <= index < header.regions:
            raise Corrupt(f"the server tells of region {index}: there are records for {header.regions}")
        return header.regions_at + 256 * index

    def _returned(self, anew: bool) -> None:
        """Back at a server: say what this client holds, if it is another one, and look where memory is mapped."""
        link = self._connection.link
        with self._lock:
            made, held = (
                list(self._made),
                self._held.copy(),
            )  # in one step: what is new comes without the lock
            said = [(*key, *counts[:_OPENED_TOLD]) for key, counts in held.items()]
            for counts in held.values() if anew else ():
                counts[_OPENED_TOLD:] = counts[_OPENED], counts[_PINS]
        for region in made:
            region.remap()
        if not anew:
            return
        for index, generation, opened, pins, own in [*said, (0, 0, 0, 0, False)]:
            if own and opened == 1 and not pins:
                continue  # that is what a server takes for so
            hold = Hold(index=index, generation=generation, opened=opened, pins=pins)
            link.ask(Opcode.HOLD, hold.pack(), 10.0)  # what was freed is told when it is used
        for callback in self._callbacks:
            self.later(callback)

    # -- ending ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave. Regions without a name are freed, views of any region are void, and nothing of the pool may be used
        here any more. Its memory is mapped no longer than there are views, ends of channels or clients of services
        that somebody keeps."""
        if not self._connection.ended:
            self._exchange.close()
        closed = Closed("this connection to the pool was closed")
        with self._lock:
            made = list(self._made)
        for region in made:
            region.end(closed)
        self._exchange.release()
        self._connection.close()

    def forked(self) -> None:
        """This is the child of a fork: nothing of the parent's is its."""
        self._lock = threading.Lock()
        self._connection.forked()
        self._exchange.forked()
        for region in list(self._made):
            region.end(Stale(self._connection.ended))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Pool {self.address} as {self.name!r}, slot {self.slot}>"


def named(index: int = 0, generation: int = 0, name: str = "") -> Named:
    """A region's name in requests."""
    return Named(index=index, generation=generation, name=_encoded(name) if not generation else b"")


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forked() -> None:
    for pool in list(_pools):
        pool.forked()


os.register_at_fork(after_in_child=_forked)


def _weakly(pool: Pool, method: Callable[[Pool, bool], None]) -> Callable[[bool], None]:
    one = weakref.ref(pool)

    def call(anew: bool) -> None:
        if (found := one()) is not None:
            method(found, anew)

    return call


def _unpacked(kind: Any, answer: bytes) -> Any:
    try:
        return kind.unpack(answer)
    except WireError as error:
        raise Corrupt(f"the server's answer cannot be: {error}") from None


def _program() -> str:
    name = Path(sys.argv[0]).name if sys.argv else ""
    kept = "".join(letter for letter in name if letter.isprintable())
    return kept.encode(errors="replace")[: layout.MAX_NAME].decode(errors="ignore") or "python"


def _encoded(name: str) -> bytes:
    try:
        return layout.encode_name(name)
    except ValueError as error:
        raise Refused(str(error)) from None


def _size(size: int | str) -> int:
    try:
        found = parse_size(size) if isinstance(size, str) else int(size)
    except (ValueError, OverflowError) as error:
        raise Refused(f"size={size!r}: {error}") from None
    return int(_within(found, 1, 1 << 55, "size"))


def _within(value: float, least: float, most: float, what: str) -> Any:
    if not least <= value <= most:
        raise Refused(f"{what}={value!r}: it is between {least} and {most:g}")
    return value


def _one_of(value: str, allowed: dict[str, Any], what: str) -> Any:
    if value not in allowed:
        raise Refused(f"{what}={value!r}: it is one of {', '.join(allowed)}")
    return allowed[value]


__all__ = ["Pool", "connect"]
