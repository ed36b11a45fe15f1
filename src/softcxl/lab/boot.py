"""From a live fabric to a guest: what a host's bridges, ports and windows become in QEMU."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from softcxl.fabric import keys
from softcxl.fabric.build import Fabric
from softcxl.fabric.endpoints import serial_lines
from softcxl.fabric.host import xor_maps
from softcxl.fabric.live_host import FirmwareProgram
from softcxl.fabric.routes import Route, routes
from softcxl.fabric.visitor import Order, Visitor
from softcxl.lab import compile as compiled
from softcxl.lab import limits
from softcxl.lab import python as interpreter
from softcxl.lab.errors import MonitorError, PlanError
from softcxl.lab.guest import Guest
from softcxl.lab.parts import Parts
from softcxl.lab.plan import BridgeDecoder, GuestPlan, Piece, Switch, Window
from softcxl.lab.progress import Progress, silent
from softcxl.lab.runtime import runtime_folder
from softcxl.lab.setup import setup
from softcxl.lab.slots import Slots, let_go
from softcxl.memory.assembled import Assembled
from softcxl.memory.media import Medium
from softcxl.memory.xor import maps_for
from softcxl.pci.aer import Kind
from softcxl.spec.acpi.cedt import InterleaveArithmetic, WindowRestrictions
from softcxl.wire import Reset


def plan(
    fabric: Fabric,
    host: str,
    sockets: Mapping[str, Path],
    bound: Mapping[str, Sequence[str | None]] | None = None,
) -> GuestPlan:
    """The guest that `host` becomes; `sockets` has the vfio-user socket of each device that it reaches, and `bound`
    what is bound to each vPPB of its virtual switches: what the topology says, if None.

    Raises `PlanError` for what QEMU cannot do (`softcxl.lab.limits`).
    """
    live = fabric.hosts[host]
    windows = [Backing(one.name, one.base, _backing(one.medium)) for one in live.memory.windows]
    return planned(fabric.topology, host, windows, live.regions, sockets, bound)


@dataclass(frozen=True, slots=True)
class Backing:
    """A window of a live fabric as a guest gets it: its name, its host address, and the file with its bytes, or the
    pieces of several."""

    name: str
    base: int
    files: int | tuple[Piece, ...]


def _backing(medium: Medium) -> int | tuple[Piece, ...]:
    if not isinstance(medium, Assembled):
        return medium.fd
    return tuple(Piece(one.offset, one.size, one.fd, one.start) for one in medium.pieces)


def planned(
    topology: keys.Topology,
    host: str,
    windows: Sequence[Backing],
    regions: Sequence[FirmwareProgram],
    sockets: Mapping[str, Path],
    bound: Mapping[str, Sequence[str | None]] | None = None,
) -> GuestPlan:
    """The same from what a fabric says of a host, wherever it lives; `windows` are in the topology's order."""
    limits.check(topology, host)
    key = topology.hosts[host]
    bridges = limits.bridges(topology, key, sockets, bound)
    buses = {bridge.name: bridge.bus for bridge in bridges}
    ways = routes(topology, key)
    return GuestPlan(
        name=host,
        memory=key.memory,
        cpus=key.cpus,
        bridges=bridges,
        windows=tuple(_window(one, window, buses) for one, window in zip(key.windows, windows, strict=True)),
        decoders=tuple(decoder for region in regions for decoder in _decoders(key, ways, region, buses)),
    )


def _window(key: keys.Window, window: Backing, buses: Mapping[str, int]) -> Window:
    restrictions = WindowRestrictions.make(
        host_only=True,
        volatile="volatile" in key.restrictions,
        persistent="persistent" in key.restrictions,
        fixed="fixed" in key.restrictions,
    )
    return Window(
        name=window.name,
        base=window.base,
        size=key.size,
        backing=window.files,
        targets=tuple(buses[target] for target in key.targets),
        granularity=key.granularity,
        arithmetic=InterleaveArithmetic.XOR if key.arithmetic == "xor" else InterleaveArithmetic.MODULO,
        restrictions=int(restrictions),
        qtg=key.qtg,
        xor_maps=maps_for(len(key.targets), xor_maps(key.granularity)) if key.arithmetic == "xor" else (),
    )


def _decoders(
    host: keys.Host, ways: Mapping[str, Route], region: FirmwareProgram, buses: Mapping[str, int]
) -> Iterator[BridgeDecoder]:
    """The bridges' decoders of a firmware region: of each bridge, its ports in order of position."""
    window = host.windows[region.key.window]
    ports: dict[str, list[int]] = {name: [] for name in window.targets}
    for device in region.key.devices:
        bridge, port = ways[device]
        ports[str(bridge)].append(int(port))
    # a window of 3, 6 or 12 targets is dealt out by division, which leaves more address bits to the bridges
    split = len(ports) & -len(ports)
    for name, numbers in ports.items():
        if numbers:
            yield BridgeDecoder(
                bridge=buses[name],
                base=region.hpa,
                size=region.size,
                granularity=region.granularity * (split if len(numbers) > 1 else 1),
                ports=tuple(numbers),
            )


class Doors:
    """The doors by which one host comes to its devices, each opened and closed by itself."""

    def __init__(self, fabric: Fabric, host: str, folder: Path, spin_us: float) -> None:
        self.fabric = fabric
        self._host, self._folder, self._spin_us = host, folder, spin_us
        self._open: dict[str, ExitStack] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            for device in list(self._open):
                stack.callback(self.close, device)

    def open(self, device: str) -> Path:
        """Open the device's door; returns its socket. Raises `BuildError`."""
        with ExitStack() as stack:
            opened = self.fabric.door(self._host, device, self._folder, spin_us=self._spin_us)
            path = stack.enter_context(opened).path
            self._open[device] = stack.pop_all()
        return path

    def close(self, device: str) -> None:
        """Close the device's door."""
        self._open.pop(device).close()


class Machine(Guest):
    """A guest that is a host of a live fabric: devices are plugged into it and unplugged by name.

    Ports are named after their bridge or switch and number, as in "hb0-port1". `slots` has every port that a
    device can be plugged into, with what is there now; those of virtual switches are the fabric manager's to fill.
    """

    def __init__(
        self, doors: Doors, plan: GuestPlan, parts: Parts, *, visitor: Visitor | None = None, **options: Any
    ) -> None:
        super().__init__(plan, parts, **options)
        self._doors, self._visitor = doors, visitor
        self.slots = dict(_slots(plan, visitor.virtual if visitor else ()))
        root_ports = {port.name for bridge in plan.bridges for port in bridge.ports}
        self._behind_switches = self.slots.keys() - root_ports

    def hot_add(self, device: str, port: str | None = None) -> None:
        """Plug a device of the fabric into an empty port, the first one if None.

        The guest's kernel takes its time to find it. Raises `PlanError` where there is no such empty port,
        `BuildError` for a device that there is not or that is in use, `MonitorError` where QEMU refuses.
        """
        empty = [name for name, there in self.slots.items() if there is None]
        chosen = port or next(iter(empty), None)
        if chosen not in empty:
            wanted = "There is no empty port" if port is None else f"{port} is not an empty port"
            raise PlanError(f"{wanted}; empty are {', '.join(empty) or 'none'}.")
        with ExitStack() as undo:
            sockets = {}
            for name in self._doors.fabric.functions(device):
                sockets[name] = self._doors.open(name)
                undo.callback(self._doors.close, name)
            self.plug(limits.at_sockets(device, sockets), chosen)
            undo.pop_all()
        self.slots[chosen] = device

    def hot_remove(self, device: str, timeout: float = 120.0) -> None:
        """Unplug a device, as by its slot's button; returns when the guest has let go of it. Its power goes.

        Linux waits 5 seconds after the button for a change of mind. Raises `PlanError` for a device that is not
        plugged in, `MonitorError` if the guest keeps it for `timeout` seconds.
        """
        port = self._port_of(device)
        if port in self._behind_switches:
            deadline = time.monotonic() + timeout
            if not let_go(self, device, port, lambda: time.monotonic() > deadline):
                raise MonitorError(f"The guest has not let go of {device} within {timeout:g} seconds.")
        else:
            self.unplug(device, timeout)
        self.slots[port] = None
        fabric = self._doors.fabric
        for name in fabric.functions(device):
            function = fabric.function(name)
            assert function is not None, "it was plugged in"
            function.reset(Reset.COLD)
            self._doors.close(name)

    def signal(self, device: str, kind: Kind) -> None:
        """Have the guest hear of an error that `device.ras.inject` has put into the device's registers.

        QEMU takes no error message from a device of this process, so the port above sends one of its own, after which
        Linux asks every device below. Raises `PlanError` for a device that is not plugged in, `MonitorError` where
        QEMU refuses.
        """
        port = self._port_of(device)
        if kind is not Kind.CORRECTABLE:
            self._raise_error(port, "DLP" if kind is Kind.FATAL else "UNX_COMP")
            return
        # Of several corrected errors Linux does not trust the one source that the root port names
        self.monitor.execute("stop")
        try:
            for _ in range(2):
                self._raise_error(port, "RCVR")
        finally:
            self.monitor.execute("cont")

    def _raise_error(self, port: str, error: str) -> None:
        said = self.monitor.execute(
            "human-monitor-command", command_line=f"pcie_aer_inject_error {port} {error}"
        )
        if not said.startswith("OK"):
            raise MonitorError(f"QEMU refused an error at {port}: {said.strip()}")

    def _port_of(self, device: str) -> str:
        slots = self.slots | (self._visitor.slots if self._visitor else {})
        port = next((name for name, there in slots.items() if there == device), None)
        if port is None:
            plugged = ", ".join(filter(None, self.slots.values())) or "none"
            raise PlanError(f"{device} is not plugged in; devices that are: {plugged}.")
        return port


def _slots(plan: GuestPlan, virtual: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """Every port of the plan that a device may be plugged into, with the device."""
    for bridge in plan.bridges:
        for port in bridge.ports:
            if port.below is not None and port.below.name in virtual:
                continue
            if isinstance(port.below, Switch):
                for downstream in port.below.ports:
                    yield downstream.name, downstream.below.name if downstream.below else None
            else:
                yield port.name, port.below.name if port.below else None


@contextmanager
def boot(
    fabric: Fabric,
    host: str | None = None,
    *,
    parts: Parts | None = None,
    spin_us: float = 0,
    overlays: Sequence[Path] = (),
    mctp_serial: bool = False,
    python: bool = False,
    **options: Any,
) -> Iterator[Machine]:
    """Boot `host` (the only one, if None) with its devices served by this process; yields the running guest.

    `parts` are QEMU, kernel and tools, fetched where they are missing if None; `options` are those of `Guest`.
    `spin_us` is how long, in µs, doors look for a next message before they sleep: it helps where cores are idle, and
    hurts where guest and door would share one. With `mctp_serial` the guest's second serial port, /dev/ttyS1, is a line
    to the fabric's MCTP endpoints (`softcxl.fabric.endpoints`). With `python` it has Python, and `softcxl.pool` in it.
    Devices and windows keep their state when the guest has gone; a device that was hot-added goes back to where
    the topology has it. Raises `LabError`, `BuildError`.

    Example::

        with Fabric.load("two-devices.yaml") as fabric, boot(fabric) as guest:
            print(guest.output("cxl list"))
    """
    name = bootable(fabric.topology, host)
    parts = parts or setup(options.get("progress", silent)).parts()
    tools = (*own_overlays(parts, python, options.get("progress", silent)), *overlays)
    with (
        runtime_folder() as folder,
        Doors(fabric, name, folder, spin_us) as doors,
        Visitor(fabric, name, folder, spin_us=spin_us) as visitor,
        serial_lines(fabric, folder / "mctp.sock") if mctp_serial else nullcontext() as serial,
    ):
        live = fabric.hosts[name]
        sockets = {device: doors.open(device) for device in live.functions}
        bound = visitor.begin()
        sockets |= {device: door.path for device, door in visitor.doors.items()}
        made = plan(fabric, name, sockets, bound)
        with (
            Slots(_Own(visitor)) as slots,
            Machine(doors, made, parts, visitor=visitor, overlays=tools, serial=serial, **options) as guest,
        ):
            if bound:
                slots.start(guest)
            yield guest


def own_overlays(parts: Parts, python: bool, progress: Progress) -> tuple[Path, ...]:
    """What is laid over a guest's root of ours: small programs, and Python where it is wanted. Raises `LabError`."""
    return (compiled.overlay(parts), *(interpreter.overlays(parts, progress) if python else ()))


class _Own:
    """The orders of a fabric in this process."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._stopped = False
        visitor.arrive()

    def take(self) -> list[Order] | None:
        return None if self._stopped else self._visitor.take(lambda: self._stopped)

    def told(self, number: int, problem: str) -> None:
        self._visitor.told(number, problem)

    def stop(self) -> None:
        self._stopped = True
        self._visitor.leave()


def bootable(topology: keys.Topology, host: str | None = None) -> str:
    """The name of the host to boot, the only one if None. Raises `PlanError` where it cannot be booted in QEMU."""
    name = host or only_host(topology)
    if name not in topology.hosts:
        raise PlanError(f"There is no host {name!r}; the topology has {', '.join(topology.hosts) or 'none'}.")
    limits.check(topology, name)
    return name


def only_host(topology: keys.Topology) -> str:
    """The name of the topology's host. Raises `PlanError` where there is none or more than one."""
    if len(topology.hosts) != 1:
        names = ", ".join(topology.hosts) or "none"
        raise PlanError(f"The topology has {len(topology.hosts)} hosts ({names}); say which one to boot.")
    return next(iter(topology.hosts))
