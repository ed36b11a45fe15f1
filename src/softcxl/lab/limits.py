"""What a topology asks for that QEMU cannot give: known from the file alone, before anything starts.

Bridges, ports and switches of a guest are QEMU's own: switches take devices alone, and each bridge or switch has 4
decoders of 1, 2, 4 or 8 ways (QEMU hw/cxl/cxl-component-utils.c, hw/pci-bridge/cxl_upstream.c). The same fabric in
this process has none of these limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

from softcxl.fabric.keys import Host, Topology, split
from softcxl.fabric.layout import window_bases
from softcxl.fabric.routes import routes, virtual_routes
from softcxl.lab.errors import PlanError
from softcxl.lab.plan import (
    Bridge,
    DownstreamPort,
    Endpoint,
    GuestPlan,
    RootPort,
    Switch,
    Window,
    bus_numbers,
)

WAYS = (1, 2, 4, 8)
DECODERS = 4


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that a host of the topology cannot have in QEMU. `boots`: whether there is a guest without it."""

    host: str
    boots: bool
    message: str

    def __str__(self) -> str:
        return f"{'in' if self.boots else 'not bootable in'} QEMU: {self.host}: {self.message}"


def limits(topology: Topology) -> list[Limit]:
    """Every limit of every host, those that keep it from booting first."""
    return [
        Limit(name, boots, message)
        for name, host in topology.hosts.items()
        for boots, messages in ((False, _stops(topology, name, host)), (True, _narrows(topology, host)))
        for message in messages
    ]


def check(topology: Topology, host: str) -> None:
    """Raise `PlanError` with everything that keeps `host` from booting in QEMU."""
    stops = [one.message for one in limits(topology) if one.host == host and not one.boots]
    if stops:
        raise PlanError(f"{host} cannot be booted in QEMU: {' '.join(stops)}")


def bridges(
    topology: Topology,
    host: Host,
    sockets: Path | Mapping[str, Path],
    bound: Mapping[str, Sequence[str | None]] | None = None,
) -> tuple[Bridge, ...]:
    """The host's bridges, ports and switches as QEMU gets them; `sockets` as in `softcxl.lab.boot.plan`. `bound` is
    what the vPPBs of its virtual switches are bound to, by name of the switch; what they are at first, if None.

    Raises `PlanError` where the PCI bus numbers do not suffice. What is below a switch's switch is left out.
    """

    def endpoint(name: str | None) -> Endpoint | None:
        device = split(name)[0] if name else None
        if name is None or device not in topology.devices:
            return None
        if isinstance(sockets, Path):
            return Endpoint(name, sockets)
        return at_sockets(name, sockets)

    def below(name: str | None) -> Endpoint | Switch | None:
        if name is None or split(name)[0] in topology.devices:
            return endpoint(name)
        ports = vppbs(topology, name, bound) if name in topology.virtual else topology.switches[name].ports
        return Switch(
            name,
            tuple(
                DownstreamPort(f"{name}-port{number}", endpoint(port)) for number, port in enumerate(ports)
            ),
        )

    ports = {
        name: tuple(RootPort(f"{name}-port{number}", below(port)) for number, port in enumerate(bridge.ports))
        for name, bridge in host.bridges.items()
    }
    buses = bus_numbers(list(ports.values()))
    return tuple(Bridge(name, bus, ports[name]) for name, bus in zip(ports, buses, strict=True))


def at_sockets(device: str, sockets: Mapping[str, Path]) -> Endpoint:
    """A device with all of its functions: those beside function 0 are called `NAME.1` and so on."""
    more = takewhile(lambda name: name in sockets, (f"{device}.{number}" for number in count(1)))
    return Endpoint(device, sockets[device], tuple(sockets[name] for name in more))


def vppbs(
    topology: Topology, name: str, bound: Mapping[str, Sequence[str | None]] | None = None
) -> Sequence[str | None]:
    """What the vPPBs of the virtual switch `name` are bound to."""
    switch, _ = topology.virtual[name]
    return topology.switches[switch].virtual[name].ports if bound is None else bound[name]


def _stops(topology: Topology, name: str, host: Host) -> Iterator[str]:
    nested = [
        f"the switch {port} is below the switch {switch}"
        for switch in _switches(topology, host)
        for port in topology.switches[switch].ports
        if port in topology.switches or port in topology.virtual
    ]
    if nested:
        yield f"{', '.join(nested)}; QEMU's switches take devices alone."
    yield from _firmware(topology, host)
    try:
        plan = bridges(topology, host, Path("/"))
        buses = {bridge.name: bridge.bus for bridge in plan}
        windows = tuple(
            Window(f"window{at}", base, one.size, Path("/"), tuple(buses[target] for target in one.targets))
            for at, (one, base) in enumerate(zip(host.windows, _bases(host), strict=True))
        )
        GuestPlan(name, host.memory, host.cpus, plan, windows).check()
    except PlanError as error:
        yield str(error).removeprefix(f"{name}: ")


def _firmware(topology: Topology, host: Host) -> Iterator[str]:
    """Regions that firmware makes: QEMU's bridges are programmed for them from outside, its switches cannot be."""
    ways = routes(topology, host)
    used = dict.fromkeys(host.bridges, 0)
    for number, region in enumerate(host.regions):
        behind = [device for device in region.devices if len(ways[device]) > 2]
        if behind:
            yield (
                f"region {number}: {', '.join(behind)} behind a switch; QEMU's switches cannot be programmed before"
                " the kernel starts. Let the guest create the region."
            )
        for bridge in host.bridges:
            count = len({ways[device] for device in region.devices if ways[device][0] == bridge})
            used[bridge] += bool(count)
            if count and not behind and count not in WAYS:
                yield f"region {number}: {count} ways at {bridge}; QEMU's bridges have {_listed(WAYS)}."
    for bridge, count in used.items():
        if count > DECODERS:
            yield f"{count} regions over {bridge}; QEMU's bridges have {DECODERS} decoders."


def _narrows(topology: Topology, host: Host) -> Iterator[str]:
    fans: dict[str, Sequence[str | None]] = {name: bridge.ports for name, bridge in host.bridges.items()}
    fans |= {name: topology.switches[name].ports for name in _switches(topology, host)}
    fans |= {name: vppbs(topology, name) for name in virtual_routes(topology, host)}
    for name, ports in fans.items():
        count = sum(port is not None for port in ports)
        if count in (3, 6) or count > WAYS[-1]:
            yield f"no region over all {count} ports of {name}: {_listed(WAYS)} ways there."
    end = max((base + one.size for base, one in zip(_bases(host), host.windows, strict=True)), default=0)
    pieces = 2 + len(topology.pool.memory) if topology.pool else 1
    room = _ADDRESSES - (
        sum(pieces if one.shared in topology.pool_memory else 1 for one in host.windows) << 30
    )
    if end > room:
        yield f"windows up to {end:#x} take KVM: a processor without it has room for them below {room:#x}."


_ADDRESSES = (1012 - 33) << 30
"""Where windows end at the latest under TCG, with 1 GiB less for each file of one: QEMU's `max` processor has 40
address bits, of which the last 12 GiB are not for memory, and wants 33 GiB above the windows for PCI (hw/i386/pc.c)."""


def _bases(host: Host) -> list[int]:
    windows = host.windows
    return window_bases(host.memory, [one.size for one in windows], [len(one.targets) for one in windows])


def _switches(topology: Topology, host: Host) -> list[str]:
    """The switches below the host, each once."""
    found: list[str] = []
    ports = [port for bridge in host.bridges.values() for port in bridge.ports]
    while ports:
        port = ports.pop(0)
        if port in topology.switches and port not in found:
            found.append(port)
            ports += topology.switches[port].ports
    return found


def _listed(ways: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, ways[:-1]))} or {ways[-1]}"
