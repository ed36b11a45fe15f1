"""Rules of regions that firmware has made: which devices may be interleaved in which window, and how much.

The order of a region's devices is that of their positions, and at each level (window, bridge, switch)
positions take turns: CXL 3.1 §9.13.1, and what Linux accepts (drivers/cxl/core/region.c,
cxl_port_attach_region and cxl_region_attach).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from softcxl.fabric.keys import WAYS, FirmwareRegion, Host, Topology, Window
from softcxl.fabric.limits import Fault, Path, closest
from softcxl.fabric.routes import Route, routes
from softcxl.spec.command.memory import CAPACITY_UNIT
from softcxl.wire.sizes import format_size, shorten

_RESTRICTION = {"ram": "volatile", "pmem": "persistent"}


class _Room:
    """What regions have left of a host's windows and of its devices' capacity, in bytes."""

    def __init__(self, topology: Topology, host: Host) -> None:
        self.windows = [window.size for window in host.windows]
        self.volatile = {name: device.volatile for name, device in topology.memory.items()}
        self.persistent = {name: device.persistent for name, device in topology.memory.items()}

    def of(self, region: FirmwareRegion) -> dict[str, int]:
        return self.volatile if region.type == "ram" else self.persistent

    def size(self, region: FirmwareRegion) -> int:
        """The region's size as given, or as much as its devices have left alike."""
        if region.size is not None:
            return region.size
        return min(self.of(region)[name] for name in region.devices) * len(region.devices)

    def take(self, region: FirmwareRegion) -> int:
        size = self.size(region)
        self.windows[region.window] -= size
        for name in region.devices:
            self.of(region)[name] -= size // len(region.devices)
        return size


def regions(topology: Topology) -> Iterator[Fault]:
    """Every region's window, devices, order of positions, granularity and size."""
    for host_name, host in topology.hosts.items():
        room = _Room(topology, host)
        reached = routes(topology, host)
        for number, region in enumerate(host.regions):
            at: Path = ("hosts", host_name, "regions", number)
            found = list(_names(topology, host, region, at))
            if not found:
                window = host.windows[region.window]
                found = list(_window(region, window, at)) or list(_order(region, window, reached, at))
            if not found:
                found = list(_size(region, room, at))
            yield from found
            if not found:
                room.take(region)


def settled(topology: Topology, host: Host) -> list[FirmwareRegion]:
    """The host's regions, which hold, with their granularity and size filled in."""
    room = _Room(topology, host)
    return [
        msgspec.structs.replace(
            region,
            granularity=region.granularity or host.windows[region.window].granularity,
            size=room.take(region),
        )
        for region in host.regions
    ]


def _names(topology: Topology, host: Host, region: FirmwareRegion, at: Path) -> Iterator[Fault]:
    count = len(host.windows)
    if not 0 <= region.window < count:
        because = ((*at[:2], "windows"),)
        yield Fault(
            (*at, "window"),
            f"{region.window} is not a window of this host; it has {count}, counted from 0",
            because,
        )
    for index, name in enumerate(region.devices):
        if name in topology.pool_memory:
            message = (
                f"{name} has the pool's memory; the guest makes the region, so that Linux does not take it"
            )
            yield Fault((*at, "devices", index), message, (("devices",),))
        elif name not in topology.memory:
            hint = closest(name, topology.memory)
            yield Fault((*at, "devices", index), f"{shorten(name)} is not a device{hint}", (("devices",),))
        elif name in region.devices[:index]:
            yield Fault((*at, "devices", index), f"{name} is in this region twice")
    if len(region.devices) not in WAYS:
        ways = ", ".join(map(str, WAYS))
        message = f"{len(region.devices)} devices cannot be interleaved; allowed are {ways}"
        yield Fault((*at, "devices"), message)


def _window(region: FirmwareRegion, window: Window, at: Path) -> Iterator[Fault]:
    its: Path = (*at[:2], "windows", region.window)
    if window.shared is not None:
        message = f"window {region.window} is the dynamic capacity of {window.shared}, and of nothing else"
        yield Fault((*at, "window"), message, ((*its, "shared"),))
    needed = _RESTRICTION.get(region.type, "volatile")
    if needed not in window.restrictions:
        message = f"window {region.window} allows {', '.join(window.restrictions) or 'nothing'}, not {needed}"
        yield Fault((*at, "type"), message, within=((*its, "restrictions"),))
    given = region.granularity
    if len(window.targets) > 1 and given is not None and given != window.granularity:
        message = (
            f"{given} differs from the {window.granularity} of window {region.window}; "
            "where a window interleaves bridges, its regions have its granularity"
        )
        yield Fault((*at, "granularity"), message, ((*its, "granularity"),), ((*its, "targets"),))


def _order(region: FirmwareRegion, window: Window, reached: dict[str, Route], at: Path) -> Iterator[Fault]:
    places = ((*at[:2], "bridges"), ("switches",), (*at[:2], "windows", region.window, "targets"))

    def fault(message: str, *position: int) -> Fault:
        return Fault((*at, "devices", *position), message, within=places)

    targets = window.targets
    for position, name in enumerate(region.devices):
        route = reached.get(name)
        if route is None:
            yield fault(f"{name} is not plugged into this host", position)
            return
        if route[0] not in targets:
            leads = f"window {region.window} leads to {', '.join(targets) or 'nothing'}"
            yield fault(f"{name} is behind {route[0]}; {leads}", position)
            return
        due = targets[position % len(targets)]
        if due != route[0]:
            yield fault(f"position {position} belongs to {due}, and {name} is behind {route[0]}", position)
            return
    if len(region.devices) % len(targets):
        yield fault(f"{len(region.devices)} devices cannot share {len(targets)} targets evenly")
        return
    below = [(reached[name][1:], name) for name in region.devices]
    for first, target in enumerate(targets):
        out = _out_of_turn(below[first :: len(targets)])
        if out:
            yield fault(f"below {target}, {out}")


def _out_of_turn(below: Sequence[tuple[Route, str]]) -> str:
    """What is wrong with the order of these devices below one bridge or switch; nothing if it is right."""
    if len(below) < 2:
        return ""
    turns = list(dict.fromkeys(route[0] for route, _ in below))
    for position, (route, name) in enumerate(below):
        expected = turns[position % len(turns)]
        if route[0] != expected:
            return f"ports must take turns: {name} is at port {route[0]} where port {expected} is due"
    if len(below) % len(turns):
        return f"{len(below)} devices cannot share {len(turns)} ports evenly"
    for first in range(len(turns)):
        out = _out_of_turn([(route[1:], name) for route, name in below[first :: len(turns)]])
        if out:
            return out
    return ""


def _size(region: FirmwareRegion, room: _Room, at: Path) -> Iterator[Fault]:
    needed = _RESTRICTION.get(region.type, "volatile")
    ways = len(region.devices)
    if region.size is not None and region.size % (CAPACITY_UNIT * ways):
        given, step = format_size(region.size), format_size(CAPACITY_UNIT * ways)
        message = f"{given} is not a multiple of {step} (256MiB for each of {ways} devices)"
        yield Fault((*at, "size"), message)
        return
    share = CAPACITY_UNIT if region.size is None else region.size // ways
    for index, name in enumerate(region.devices):
        left = room.of(region)[name]
        if left < share:
            has = format_size(left) if left else "none"
            message = f"{name} has {has} left of its {needed} capacity, {format_size(share)} is needed"
            yield Fault((*at, "devices", index), message, (("devices", name, needed),))
            return
    size = room.size(region)
    left = room.windows[region.window]
    if size > left:
        has = format_size(left) if left else "nothing"
        message = f"{format_size(size)} does not fit in window {region.window}, which has {has} left"
        capacities = tuple(("devices", name, needed) for name in region.devices)
        its = (*at[:2], "windows", region.window, "size")
        yield Fault((*at, "size"), message, (*capacities, its))
