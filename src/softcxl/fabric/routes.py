"""How a host reaches its devices: through which bridge, which ports, which switches."""

from __future__ import annotations

from collections.abc import Iterator

from softcxl.fabric.keys import Host, Topology

#: A bridge's name, then the number of each port on the way down: the root port, then switches' ports.
Route = tuple[str | int, ...]


def routes(topology: Topology, host: Host) -> dict[str, Route]:
    """Every device that `host` reaches by itself and its route, in the order of bridges and ports: not what virtual
    switches bind.

    A circle of switches is walked once; `softcxl.fabric.rules` refuses it.
    """
    memory = topology.memory.keys() | topology.single.keys() | topology.pool_memory.keys()
    return {name: route for name, route in _reached(topology, host).items() if name in memory}


def cci_routes(topology: Topology, host: Host) -> dict[str, Route]:
    """Every mailbox CCI of a switch that `host` reaches, and its route."""
    return {name: route for name, route in _reached(topology, host).items() if name in topology.ccis}


def access_routes(topology: Topology, host: Host) -> dict[str, Route]:
    """Every pool access device that `host` reaches, and its route."""
    return {name: route for name, route in _reached(topology, host).items() if name in topology.access}


def virtual_routes(topology: Topology, host: Host) -> dict[str, Route]:
    """Every virtual switch that `host` reaches, and its route."""
    return {name: route for name, route in _reached(topology, host).items() if name in topology.virtual}


def virtual_switch_of(topology: Topology, cci: str, switch: str) -> int | None:
    """The VCS ID of the virtual switch of `switch` below which the host of that mailbox CCI is, if it is below one."""
    for host in topology.hosts.values():
        if cci in cci_routes(topology, host):
            below = [topology.virtual[name] for name in virtual_routes(topology, host)]
            found = [vcs for above, vcs in below if above == switch]
            return found[0] if len(found) == 1 else None
    return None


def _reached(topology: Topology, host: Host) -> dict[str, Route]:
    found: dict[str, Route] = {}
    for name, bridge in host.bridges.items():
        for device, route in _below(topology, bridge.ports, (name,), frozenset()):
            found.setdefault(device, route)
    return found


def _below(
    topology: Topology, ports: list[str | None], route: Route, above: frozenset[str]
) -> Iterator[tuple[str, Route]]:
    for number, name in enumerate(ports):
        if name is None:
            continue
        if name in topology.devices or name in topology.virtual or name in topology.single:
            yield name, (*route, number)
        elif name in topology.switches and name not in above:
            yield from _below(topology, topology.switches[name].ports, (*route, number), above | {name})
