"""What `softcxl serve` does for the pool of a topology: the fabric has the memory, the fabric manager's server has it
shared, and neither knows the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from softcxl.fabric.build import Fabric
from softcxl.fabric.errors import BuildError
from softcxl.fabric.pool import sources
from softcxl.fm.pool.door import PoolDoor
from softcxl.fm.pool.errors import ArenaUnfit
from softcxl.fm.pool.guests import Guests
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.layout import Plan
from softcxl.transport.errors import DoorError


@contextmanager
def serve_pool(fabric: Fabric, control: Path) -> Iterator[str]:
    """Serve the pool of a fabric, which has one; yields its address, a socket beside the one at `control`."""
    given, files = fabric.topology.pool, fabric.pool_files
    assert given is not None, "of a topology with a pool"
    assert files is not None, "who serves has loaded it so"
    path = control.with_suffix(".pool")
    plan = Plan.within(os.fstat(files.arena.fd).st_size)
    try:
        server = PoolServer(
            files.arena.fd, sources(fabric), plan=plan, lease=given.lease_seconds, quotas=given.quotas
        )
    except ArenaUnfit as error:
        raise BuildError(f"pool: {error}") from error
    with server, ExitStack() as slots:
        guests = Guests(server)
        for access in fabric.access.values():
            access.serve(guests)
            slots.callback(access.leave)
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
