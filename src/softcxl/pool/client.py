"""A client of a pool, as its regions, channels and services have it: its memory, the server to ask, what it has open.

`softcxl.pool.session.Pool` is what programs have of it.
"""

from __future__ import annotations

import atexit
import mmap
import os
import struct
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from softcxl.pool import arguments, holdings, layout
from softcxl.pool.calls import Calls
from softcxl.pool.coherence import Cache
from softcxl.pool.connection import Connection
from softcxl.pool.errors import Corrupt, Refused, Stale
from softcxl.pool.holdings import Holdings
from softcxl.pool.layout import HEADER
from softcxl.pool.link import Coherence, Link
from softcxl.pool.native import Life, Memory
from softcxl.pool.protocol import Named, Opcode
from softcxl.pool.watch import Watch

if TYPE_CHECKING:
    from softcxl.pool.opened import Opened

_CLOSE = int(Opcode.CLOSE)
_NAMED = struct.Struct("<2Q64x")
assert _NAMED.size == Named.__layout__.size

_HOLDING = 10.0
"""Seconds in which a server that is new is to answer to what it is told."""


class PoolClient:
    """A client of a pool. From any thread."""

    def __init__(
        self, link: Link, name: str, patience: float, coherence: Coherence | None, drop_unflushed: bool
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
        self._lock = threading.Lock()
        self._made: weakref.WeakSet[Opened] = weakref.WeakSet()
        self._caches: weakref.WeakValueDictionary[tuple[int, int], Cache] = weakref.WeakValueDictionary()
        self._holdings = Holdings()
        self._callbacks: list[Callable[[], object]] = []
        self._connection = Connection(
            link,
            name,
            arguments.seconds(patience, "patience"),
            _weakly(self, PoolClient._returned),
        )
        self._mapping = self._connection.mapping
        self._calls = Calls(self._connection)
        self._watch = Watch(self._calls)
        _clients.add(self)

    # -- who and where ---------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where its server is."""
        return self._connection.link.address

    @property
    def slot(self) -> int:
        """The client's number."""
        return self._mapping.mapped.place.slot

    @property
    def epoch(self) -> int:
        """How often that number was given to a client."""
        return self._mapping.mapped.place.epoch

    @property
    def lease(self) -> float:
        """For how long, in seconds, a client that cannot be watched may be silent."""
        return self._mapping.mapped.lease

    # -- memory ----------------------------------------------------------------------------------------------

    @property
    def header(self) -> layout.Header:
        """What the arena's header said when this client came; checked against the arena's size."""
        return self._mapping.header

    @property
    def directory(self) -> Memory:
        """The arena for the C core."""
        return self._mapping.directory

    @property
    def health(self) -> int:
        """A count that goes up when a source's state changes, or a region's copies do."""
        return self._mapping.directory.load(HEADER["health"])

    @property
    def sources(self) -> frozenset[int]:
        """Numbers of the sources that are mapped here; 0 is the arena."""
        return frozenset(self._mapping.mapped.maps)

    def map(self, source: int) -> mmap.mmap:
        """All of a source's memory. Raises `Corrupt` for one that is not mapped here."""
        try:
            return self._mapping.mapped.maps[source]
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
        return self._mapping.memories

    def life(self) -> Life:
        """True for as long as this client has its slot, and until who has this ends it: what it has in the arena may be
        somebody else's from then on."""
        place = self._mapping.mapped.place
        at = self._mapping.header.slots_at + 256 * place.slot
        return Life(self._mapping.directory, at, place.epoch << 24 | layout.SlotState.LIVE)

    def record(self, index: int) -> layout.RegionRecord:
        """A region's record. Raises `Corrupt` where there is none of that number."""
        header = self._mapping.header
        if not 0 <= index < header.regions:
            raise Corrupt(f"there is no record {index}: there are {header.regions}")
        at = header.regions_at + 256 * index
        return layout.RegionRecord.unpack(self.map(layout.ARENA)[at : at + 256])

    # -- the server ------------------------------------------------------------------------------------------

    def ask(self, opcode: int, data: bytes) -> bytes:
        """Ask the server. Waits for one that has gone, up to the patience of this client.

        Raises what the answer says, `NoServer`, or `Stale` where the pool has forgotten this client.
        """
        return self._calls.ask(opcode, data)

    def later(self, work: Callable[[], object]) -> None:
        """Have that done by a thread that may ask the server, soon: for finalizers. What of `PoolError` it raises is
        ignored."""
        self._watch.later(work)

    def on_return(self, callback: Callable[[], object]) -> None:
        """Have `callback()` called, as by `later`, each time that this client has come to another server."""
        self._callbacks.append(callback)

    def renew(self) -> None:
        """Have memory mapped that the server has got since this client came. Raises `NoServer`, `Stale`."""
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

    def close_region(self, index: int, generation: int) -> None:
        """One that has a region open less."""
        try:
            for _ in range(self._holdings.less(index, generation, holdings.OPENED)):
                self._calls.post(_CLOSE, _NAMED.pack(index, generation))
        except Stale:
            pass  # the pool has forgotten this client: then it is closed

    def close_later(self, index: int, generation: int) -> None:
        """Close a region that nobody has any more. From finalizers, too."""
        self.later(partial(self.close_region, index, generation))

    def forget(self, index: int, generation: int) -> None:
        """A region was freed, or given away."""
        self._holdings.less(index, generation, holdings.OPENED)

    def pin(self, index: int, generation: int) -> None:
        """A region stays where it is until `unpin_later`."""
        # Counted first: a server that comes in between is told of it, rather than of none
        self._holdings.view(index, generation)
        try:
            self.ask(Opcode.PIN, named(index, generation).pack())
        except BaseException:
            self.unpin_later(index, generation)
            raise
        self._holdings.view_told(index, generation)

    def unpin(self, index: int, generation: int) -> None:
        """One view of a region less."""
        for _ in range(self._holdings.less(index, generation, holdings.VIEWS)):
            self.ask(Opcode.UNPIN, named(index, generation).pack())

    def unpin_later(self, index: int, generation: int) -> None:
        """One view of a region less. From any thread, finalizers too."""
        self.later(partial(self.unpin, index, generation))

    def views_of(self, index: int, generation: int) -> int:
        """How many views this client has of a region."""
        return self._holdings.views(index, generation)

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

    # -- another server --------------------------------------------------------------------------------------

    def _returned(self, anew: bool) -> None:
        """Back at a server: look where memory is mapped, and say what this client holds if it is another one."""
        said = self._holdings.told() if anew else []
        for region in self._regions():
            region.remap()
        for hold in said:
            self._connection.link.ask(
                Opcode.HOLD, hold.pack(), _HOLDING
            )  # what was freed is told when it is used
        for callback in self._callbacks if anew else ():
            self.later(callback)

    # -- ending ----------------------------------------------------------------------------------------------

    def _regions(self) -> list[Opened]:
        with self._lock:
            return list(self._made)

    def _leave(self) -> None:
        """Be no client any more. Memory stays mapped for as long as views of it need it."""
        self._connection.leave()
        self._watch.end()
        self._connection.release()
        self._calls.release()

    def forked(self) -> None:
        """This is the child of a fork: nothing of the parent's is its."""
        self._lock = threading.Lock()
        self._holdings.forked()
        self._connection.forked()
        for region in list(self._made):
            region.end(Stale(self._connection.ended))


def named(index: int = 0, generation: int = 0, name: str = "") -> Named:
    """A region's name in requests. Raises `Refused` for what is no name."""
    return Named(index=index, generation=generation, name=arguments.name(name) if not generation else b"")


_clients: weakref.WeakSet[PoolClient] = weakref.WeakSet()


def _leave_all() -> None:
    for client in list(_clients):
        client._leave()


def _forked() -> None:
    for client in list(_clients):
        client.forked()


atexit.register(_leave_all)
os.register_at_fork(after_in_child=_forked)


def _weakly(client: PoolClient, method: Callable[[PoolClient, bool], None]) -> Callable[[bool], None]:
    """The connection is the client's, and does not keep it."""
    one = weakref.ref(client)

    def call(anew: bool) -> None:
        if (found := one()) is not None:
            method(found, anew)

    return call
