"""A topology's host in this process: bridges, switches and devices as one machine, with its firmware's work done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from softcxl.device.decoder import CommitError
from softcxl.device.type3 import Type3
from softcxl.fabric import keys
from softcxl.fabric.errors import BuildError
from softcxl.fabric.host import HostWindow, xor_maps
from softcxl.fabric.routes import Route
from softcxl.host import firmware
from softcxl.memory.errors import GeometryError
from softcxl.memory.xor import maps_for
from softcxl.spec.acpi.cedt import WindowRestrictions
from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.machine import HostMachine
from softcxl.switch.route import CxlWindow
from softcxl.switch.upstream import UpstreamPort

Component = HostBridge | UpstreamPort


def build(
    topology: keys.Topology, host: keys.Host, windows: Sequence[HostWindow], devices: Mapping[str, Type3]
) -> HostMachine:
    """The machine of `host`, everything plugged in and its ACPI tables written.

    The devices are its own from then on: they answer to it, and to no door. Raises `BuildError`.
    """
    bridges: dict[str, HostBridge] = {}
    for uid, (name, key) in enumerate(host.bridges.items()):
        bridges[name] = HostBridge(name, len(key.ports), uid=uid)
        _plug(topology, devices, bridges[name], key.ports)
    try:
        machine = HostMachine(
            list(bridges.values()),
            [
                CxlWindow(
                    one.window,
                    tuple(bridges[target] for target in one.key.targets),
                    one.key.granularity,
                    _maps(one.key),
                )
                for one in windows
            ],
        )
    except (ValueError, GeometryError) as error:
        raise BuildError(str(error)) from error
    buses = dict(machine.host_bridges)
    machine.tables = firmware.tables(
        [firmware.Bridge(one.uid, buses[one.uid], machine.registers[one.name]) for one in bridges.values()],
        [_described(one, bridges) for one in windows],
        ecam=machine.layout.ecam,
        memory=[(0, host.memory)],
        cpus=host.cpus,
    )
    return machine


def program(
    machine: HostMachine,
    hpa: int,
    size: int,
    granularity: int,
    routes: Sequence[Route],
    ways: int,
) -> None:
    """Set the decoders above a region that firmware makes; `routes` are those of its devices by position, `ways` the
    window's. Raises `BuildError` where one cannot be committed."""
    bridges = {one.name: one for one in machine.bridges}
    power = ways // 3 if ways % 3 == 0 else ways
    try:
        for first in range(ways):
            below = routes[first::ways]
            _program(bridges[str(below[0][0])], hpa, size, granularity * power, [one[1:] for one in below])
    except CommitError as error:
        raise BuildError(f"the firmware's region at {hpa:#x}: {error}") from error


def _plug(
    topology: keys.Topology, devices: Mapping[str, Type3], component: Component, ports: Sequence[str | None]
) -> None:
    for number, name in enumerate(ports):
        if name is None:
            continue
        if name in devices:
            component.ports[number].plug(devices[name])
            continue
        below = UpstreamPort(name, len(topology.switches[name].ports))
        component.ports[number].plug(below)
        _plug(topology, devices, below, topology.switches[name].ports)


def _program(component: Component, hpa: int, size: int, granularity: int, routes: Sequence[Route]) -> None:
    turns = list(dict.fromkeys(int(one[0]) for one in routes))
    decoders = component.decoders
    if decoders is not None:
        number = next(at for at, one in enumerate(decoders.decoders) if one.effect is None)
        decoders.program(number, hpa=hpa, size=size, targets=turns, granularity=min(granularity, 16384))
    for at, turn in enumerate(turns):
        below = component.ports[turn].occupant
        if isinstance(below, UpstreamPort):
            _program(
                below, hpa, size, granularity * len(turns), [one[1:] for one in routes[at :: len(turns)]]
            )


def _maps(key: keys.Window) -> tuple[int, ...]:
    return maps_for(len(key.targets), xor_maps(key.granularity)) if key.arithmetic == "xor" else ()


def _described(one: HostWindow, bridges: Mapping[str, HostBridge]) -> firmware.Window:
    key = one.key
    restrictions = WindowRestrictions.make(
        host_only=True,
        volatile="volatile" in key.restrictions,
        persistent="persistent" in key.restrictions,
        fixed="fixed" in key.restrictions,
    )
    return firmware.Window(
        base=one.base,
        size=one.window.size,
        targets=tuple(bridges[target].uid for target in key.targets),
        granularity=key.granularity,
        xor=key.arithmetic == "xor",
        maps=xor_maps(key.granularity) if key.arithmetic == "xor" else (),
        restrictions=int(restrictions),
        qtg=key.qtg,
    )
