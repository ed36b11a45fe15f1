"""What `softcxl serve` does for memory that hosts have for themselves: leases, by its own door for fabric managers."""

from __future__ import annotations

from softcxl.fabric.hosts import Hosts
from softcxl.fm.connection import Connection
from softcxl.fm.pool.fence import Fence
from softcxl.fm.pool.grants import Grants
from softcxl.fm.pool.leases import Leases
from softcxl.transport.mctp import Dialect


def leases_of(hosts: Hosts) -> Leases:
    """The leases of what hosts of virtual switches are granted; begun when there is a door for fabric managers."""
    return Leases(lambda: _grants(hosts))


def _grants(hosts: Hosts) -> Grants:
    fabric, manager = hosts.fabric, hosts.manager
    assert fabric.pool_files is not None, "who serves a pool has them"
    names = {name: int(number) for number, name in manager["endpoints"].items()}
    dialect = Dialect(manager["dialect"])
    fence = Fence(lambda: Connection.open(manager["address"], dialect=dialect), names)
    journal = fabric.store.journal
    return Grants(
        fence,
        {
            name: of
            for name, live in fabric.hosts.items()
            if (of := [fabric.topology.virtual[one] for one in live.virtual])
        },
        fabric.pool_files.folder / "grants.json",
        tell=lambda kind, host, **detail: journal.add(f"grant-{kind}", host, **detail),
    )
