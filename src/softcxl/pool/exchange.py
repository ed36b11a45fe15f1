"""A client's channels and services: what `Pool` hands on to here."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING, Final

from softcxl.pool import arguments
from softcxl.pool.buffer import Buffers
from softcxl.pool.channel import Consumer, Producer, Queue, Ring
from softcxl.pool.errors import Refused
from softcxl.pool.protocol import ChannelKind, Opcode, Remove

if TYPE_CHECKING:
    from softcxl.pool.rpc import Client
    from softcxl.pool.service import Service
    from softcxl.pool.session import Pool
    from softcxl.pool.table import Table


_PATIENCE: Final = 10.0
"""Seconds that a function of a service has to come to its end when its client leaves."""
_LARGEST: Final = 1 << 40
"""Bytes of a channel, at most."""
_MOST_CELLS = 1 << 31


class Exchange:
    """What a client takes part in. From any thread."""

    def __init__(self, pool: Pool) -> None:
        # The pool has this: one that nobody has is left without waiting for a collection
        self._whose = weakref.ref(pool)
        self._lock = threading.Lock()
        self._buffers = Buffers(pool)
        self._table: Table | None = None
        self._services: dict[str, Service] = {}
        self._parts: weakref.WeakSet[Queue | Producer | Consumer] = weakref.WeakSet()

    def _pool(self) -> Pool:
        """Whoever asks for something here has it."""
        pool = self._whose()
        assert pool is not None
        return pool

    def ring(self, name: str, size: int | str | None = None) -> Ring:
        """The ring of that name; one that is made holds `size` bytes or more, 1 MiB unless told."""
        return Ring(self._pool(), name, _size(size), self._parts.add)

    def queue(self, name: str, cells: int | None = None, size: int | str | None = None) -> Queue:
        """The queue of that name; one that is made has `cells` cells, a power of two, of `size` bytes or more, 256
        of 1008 unless told."""
        if cells is not None:
            cells = arguments.count(cells, 2, _MOST_CELLS, "cells")
        made = Queue(self._pool(), name, cells or 0, _size(size))
        self._parts.add(made)
        return made

    def remove(self, ring: str | None, queue: str | None) -> None:
        """Remove a channel that nobody has open."""
        if ring is None and queue is None:
            raise Refused("what is to be removed? ring=NAME, queue=NAME, or both")
        for kind, name in ((ChannelKind.RING, ring), (ChannelKind.QUEUE, queue)):
            if name is not None:
                self._pool().ask(Opcode.REMOVE, Remove(kind=kind, name=arguments.name(name)).pack())

    def service(self, name: str, workers: int = 1) -> Service:
        """The service of that name which this client serves, or is going to."""
        from softcxl.pool.service import Service  # with msgspec, which not every guest has

        with self._lock:
            known = self._services.get(name)
            if known is None or known.closed:
                known = self._services[name] = Service(
                    self._pool(), self._buffers, name, workers=workers, before=known
                )
            return known

    def client(self, name: str, timeout: float | None = None) -> Client:
        """The functions of a service."""
        from softcxl.pool.rpc import Client
        from softcxl.pool.table import Table

        with self._lock:
            if self._table is None:
                self._table = Table(self._pool(), self._buffers)
        return Client(self._table, name, timeout=timeout)

    def close(self) -> None:
        """Serve no more."""
        with self._lock:
            services, self._services = self._services, {}
        for service in services.values():
            # A function that never ends keeps nobody here, and neither does a server that has gone
            with contextlib.suppress(TimeoutError):
                service.stop(_PATIENCE)
            service.end()
        for part in list(self._parts):
            part.stop()
        self._end()  # the server frees what there is, as this client leaves

    def release(self) -> None:
        """Let go of memory, but for what ends of channels have that somebody keeps."""
        self._end()
        with self._lock:
            table, self._table = self._table, None
        if table is not None:
            table.release()

    def forked(self) -> None:
        """This is the child of a fork: nothing of the parent's is its."""
        self._lock = threading.Lock()
        self._services = {}
        self._end()

    def _end(self) -> None:
        for part in list(self._parts):
            part.end()
        if self._table is not None:
            self._table.life.end()


def _size(size: int | str | None) -> int:
    return 0 if size is None else arguments.size(size, _LARGEST)
