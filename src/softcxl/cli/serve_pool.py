"""What `softcxl serve` does for the pool of a topology: the fabric has the memory, the fabric manager's server has it
shared, and neither knows the other."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from softcxl.device.access import PoolAccess, machine
from softcxl.device.access.former import FormerSlot
from softcxl.fabric.build import Fabric
from softcxl.fabric.errors import BuildError, StateUnwritable
from softcxl.fabric.journal import Journal
from softcxl.fabric.pool import sources
from softcxl.fm.pool.door import PoolDoor
from softcxl.fm.pool.errors import ArenaUnfit
from softcxl.fm.pool.front import Front
from softcxl.fm.pool.guard import Guard
from softcxl.fm.pool.guests import Guests
from softcxl.fm.pool.leases import Leases
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.layout import Plan
from softcxl.transport.errors import DoorError

log = logging.getLogger(__name__)


@contextmanager
def serve_pool(fabric: Fabric, path: Path, leases: Leases | None = None) -> Iterator[str]:
    """Serve the pool of a fabric, which has one, at a socket; yields its address. A host whose programs are not heard
    of any more loses what `leases` say that it was granted."""
    given, files = fabric.topology.pool, fabric.pool_files
    assert given is not None, "of a topology with a pool"
    assert files is not None, "who serves has loaded it so"
    plan = Plan.within(os.fstat(files.arena.fd).st_size)
    with ExitStack() as slots:
        journal = slots.enter_context(_Journal(fabric.store.journal))
        try:
            server = PoolServer(
                files.arena.fd,
                sources(fabric),
                plan=plan,
                lease=given.lease_seconds,
                quotas=given.quotas,
                fence=None if leases is None else lambda host: fenced(fabric, server, leases, host),
                event=journal.happened,
            )
        except ArenaUnfit as error:
            why = f"{files.folder}: {error}; without that folder the pool begins anew, and empty"
            raise BuildError(f"pool: {why}") from error
        slots.enter_context(server)
        if leases is not None:
            server.on_tick(lambda: _renew(server, leases))
        guard = Guard(server.directory, journal.happened)
        server.on_tick(guard.look)
        guests = Guests(server)
        for access in fabric.access.values():
            access.serve(guests)
            if given.fence_guests:
                access.recall()
            slots.callback(access.leave)
        if given.fence_guests:
            _recall(fabric, guests)
        for way in fabric.pool_memory.values():
            way.show(guests.memories())
            slots.enter_context(Front(guests, way))
        try:
            door = PoolDoor(server, path)
            door.open()
        except DoorError as error:
            raise BuildError(f"pool: {error}") from error
        try:
            yield f"unix:{path}"
        finally:
            door.close()
    files.in_order = True


def _recall(fabric: Fabric, guests: Guests) -> None:
    """Machines may have the pool's memory by slots of an earlier server that are called otherwise now, or are gone."""
    wanted = machine.files([one.fd for one in guests.memories()])
    for former in fabric.former.values():
        if hosts := former.recall(wanted):
            log.warning(
                "a server before this one had a slot %s: machines of %s that came by it map the pool yet, and what "
                "their programs had is given on when they do not",
                former.name,
                ", ".join(hosts),
            )


def _renew(server: PoolServer, leases: Leases) -> None:
    """What hosts were granted they keep while their programs are heard of. With the server's lock held."""
    for host in server.clients.heard():
        leases.heard_of(host)


def fenced(fabric: Fabric, server: PoolServer, leases: Leases, host: str) -> bool:
    """A program of the host is not heard of. The host loses what it was granted, unless others on it are heard of.
    Returns whether it has done: its machine may be stopped, and not have noticed. Those others may be in another
    machine than that, which runs now."""
    with server.lock:
        heard = host in server.clients.heard()
    if not heard and not leases.fence(host):
        return False
    slots: list[PoolAccess | FormerSlot] = [*fabric.access.values(), *fabric.former.values()]
    return not any(one.reached_by(host) for one in slots)


class _Journal:
    """What happens in the pool, on its way into a fabric's journal.

    It is told by threads that hold what whoever writes in the journal may wait for: so another one writes it.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._told: queue.SimpleQueue[tuple[str, str, Mapping[str, Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pool journal", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._told.put(None)
        self._thread.join()

    def happened(self, kind: str, subject: str, detail: Mapping[str, Any]) -> None:
        """Note it: `pool-rebuilt`, of which region, and how."""
        self._told.put((kind, subject, dict(detail)))

    def _run(self) -> None:
        while (told := self._told.get()) is not None:
            kind, subject, detail = told
            try:
                self._journal.add(f"pool-{kind.replace(' ', '-')}", subject, **detail)
            except StateUnwritable as error:
                log.warning("%s of %s is not in the journal: %s", kind, subject, error)
