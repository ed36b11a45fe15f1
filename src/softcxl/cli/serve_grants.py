"""What `softcxl serve` does for memory that hosts have for themselves: leases, by its own door for fabric managers."""

from __future__ import annotations

from softcxl.fabric.build import Fabric
from softcxl.fabric.hosts import Hosts
from softcxl.fm.connection import Connection
from softcxl.fm.pool.fence import Fence, Port
from softcxl.fm.pool.grants import Grants
from softcxl.fm.pool.leases import Leases
from softcxl.transport.mctp import Dialect


def leases_of(hosts: Hosts) -> Leases:
    """The leases of what hosts of virtual switches are granted; begun when there is a door for fabric managers."""
    pool = hosts.fabric.topology.pool
    if pool is None or not pool.fence_guests:
        return Leases(lambda: _grants(hosts))
    return Leases(lambda: _grants(hosts), lambda host: ways(hosts.fabric, host))


def ways(fabric: Fabric, host: str) -> list[Port]:
    """The ports of switches with the slots by which a host's guest reaches the pool."""
    return [
        Port(name, number)
        for name, switch in fabric.switches.items()
        for number, port in switch.ports.items()
        for slot in fabric.access.values()
        if slot.control is port.device and slot.host == host
    ]


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
