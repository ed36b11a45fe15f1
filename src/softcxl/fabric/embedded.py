"""A topology's host in this process: bridges, switches and devices as one machine, with its firmware's work done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from softcxl.device.decoder import CommitError
from softcxl.fabric import keys
from softcxl.fabric.errors import BuildError
from softcxl.fabric.host import HostWindow, xor_maps
from softcxl.fabric.routes import Route
from softcxl.host import firmware
from softcxl.memory.errors import GeometryError
from softcxl.memory.xor import maps_for
from softcxl.pci.function import Function
from softcxl.spec.acpi.cedt import WindowRestrictions
from softcxl.spec.fm.vcs import UnbindOption
from softcxl.switch.hierarchy import Hierarchy
from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.machine import HostMachine
from softcxl.switch.route import CxlWindow
from softcxl.switch.tenant import Done
from softcxl.switch.upstream import UpstreamPort

if TYPE_CHECKING:
    from softcxl.fabric.build import Fabric
    from softcxl.fabric.live_host import LiveHost

Component = HostBridge | UpstreamPort


def build(live: LiveHost, windows: Sequence[HostWindow]) -> HostMachine:
    """The machine of a host, everything plugged in and its ACPI tables written.

    The devices and virtual switches are its own from then on: they answer to it, and to no door. Raises `BuildError`.
    """
    fabric, host = live.fabric, live.key
    bridges: dict[str, HostBridge] = {}
    for uid, (name, key) in enumerate(host.bridges.items()):
        bridges[name] = HostBridge(name, len(key.ports), uid=uid)
        plug(fabric, bridges[name], key.ports, live)
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


def plug(
    fabric: Fabric, component: Component, ports: Sequence[str | None], live: LiveHost | None = None
) -> None:
    """Plug what they name into the ports of a bridge or a switch, of `live` if it is a host's."""
    for number, name in enumerate(ports):
        if name is not None:
            component.ports[number].plug(made(fabric, name, live))


def made(fabric: Fabric, name: str, live: LiveHost | None = None) -> Function:
    """The function that is plugged in where a port names it: a device, or the upstream port of a switch, made with all
    that is below, or of a virtual switch, of which a host in this process is the tenant from now on."""
    if name in fabric.devices:
        return fabric.devices[name]
    if name in fabric.ccis:
        return fabric.ccis[name]
    if name in fabric.access:
        return fabric.access[name].control
    if name in fabric.virtual:
        virtual = fabric.virtual[name]
        hierarchy = _Slots(live, name, len(virtual.vppbs), serial=virtual.switch.serial)
        virtual.tenant = hierarchy
        return hierarchy.upstream
    key = fabric.topology.switches[name]
    upstream = UpstreamPort(name, len(key.ports))
    plug(fabric, upstream, key.ports, live)
    return upstream


class _Slots(Hierarchy):
    """Whoever runs the host is told when a slot has something to tell."""

    def __init__(self, live: LiveHost | None, name: str, vppbs: int, *, serial: int) -> None:
        super().__init__(name, vppbs, serial=serial)
        self._live = live

    def plug(self, vppb: int, function: Function) -> None:
        super().plug(vppb, function)
        self._tell()

    def unplug(self, vppb: int, function: Function, option: UnbindOption, done: Done) -> None:
        super().unplug(vppb, function, option, done)
        self._tell()

    def link(self, vppb: int, *, up: bool) -> None:
        super().link(vppb, up=up)
        self._tell()

    def _tell(self) -> None:
        for tell in self._live.attention if self._live is not None else ():
            tell()


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
