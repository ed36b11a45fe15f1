"""Rules of a topology that see more than one key, and the defaults that depend on more than one.

Each rule yields its faults; none raises, whatever the values are, as long as their Python types are right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path as FilePath

import msgspec

from softcxl.fabric import dynamic, mld, pool_rules, vendor, virtual
from softcxl.fabric.keys import (
    LABEL_STORAGE,
    WAYS,
    Host,
    MultiLogicalDevice,
    PoolAccess,
    PoolMemory,
    Switch,
    SwitchCci,
    Topology,
    Type3,
    Window,
    split,
)
from softcxl.fabric.limits import Fault, Path, closest, spell
from softcxl.fabric.regions import settled
from softcxl.spec.command.memory import CAPACITY_UNIT
from softcxl.wire.sizes import format_size, shorten


def serial_of(name: str, device: Type3 | MultiLogicalDevice | PoolMemory | Switch) -> int:
    """The serial number of a device or switch: as given, or one made from its name, whatever others there are."""
    if device.serial is not None:
        return device.serial
    digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=4).digest()
    return 0x5C << 32 | int.from_bytes(digest, "big")


def devices(topology: Topology) -> Iterator[Fault]:
    """Capacity, serial numbers, label storage and files."""
    serials: dict[int, str] = {}
    files: dict[str, str] = {}
    for name, device in topology.devices.items():
        at: Path = ("devices", name)
        if isinstance(device, SwitchCci):
            yield from virtual.managed(topology, name, device)
            continue
        if isinstance(device, PoolAccess):
            yield from pool_rules.access(topology, name)
            continue
        serial = serial_of(name, device)
        if serial in serials:
            other = serials[serial]
            message = f"{serial:#x} is also the serial number of {other}; each device needs its own"
            yield Fault((*at, "serial"), message, (("devices", other, "serial"),))
        serials.setdefault(serial, name)
        if isinstance(device, PoolMemory):
            yield from pool_rules.memory(topology, name)
            continue
        if isinstance(device, MultiLogicalDevice):
            yield from mld.faults(device, at)
            continue
        capacity = ((*at, "volatile"), (*at, "persistent"))
        if device.volatile + device.persistent == 0 and not device.dynamic:
            message = "has no capacity; give `volatile`, `persistent` or `dynamic`"
            yield Fault(at, message, (*capacity, (*at, "dynamic")))
        yield from dynamic.faults(device, at)
        yield from vendor.faults(device, at)
        if device.partition_alignment:
            for kind in ("volatile", "persistent"):
                size = getattr(device, kind)
                if size % device.partition_alignment:
                    unit = format_size(device.partition_alignment)
                    message = f"{format_size(size)} is no multiple of `partition_alignment`, {unit}"
                    yield Fault((*at, kind), message, ((*at, "partition_alignment"),))
        if device.label_storage and device.label_storage < LABEL_STORAGE:
            label, least = format_size(device.label_storage), format_size(LABEL_STORAGE)
            yield Fault((*at, "label_storage"), f"{label} is too small; allowed are 0 and from {least} on")
        if device.file is None:
            continue
        if not (device.persistent or device.partition_alignment or dynamic.non_volatile(device)):
            message = "a file holds persistent capacity, and this device has none; give `persistent`"
            yield Fault((*at, "file"), message, (*capacity, (*at, "dynamic")))
        if device.file in files:
            yield Fault((*at, "file"), f"{shorten(device.file)} is also the file of {files[device.file]}")
        files.setdefault(device.file, name)


def ports(topology: Topology) -> Iterator[Fault]:
    """What is plugged in is there, and plugged in once; switches do not go round in a circle."""
    for name in topology.switches:
        if name in topology.devices:
            yield Fault(("switches", name), f"{name} is a device already; ports tell them apart by name")
    yield from virtual.names(topology)
    known = [*topology.devices, *topology.switches, *topology.virtual]
    taken: dict[str, list[str]] = {}
    for path, name in _plugs(topology):
        before = taken.setdefault(name, [])
        pool = topology.pools.get(name)
        if split(name)[1] is not None:
            wrong = mld.single(topology, name, taken)
            if wrong:
                yield Fault(path, wrong, (("devices",),))
            before.append(spell(path))
        elif name not in known:
            listing = "" if closest(name, known) else f"; there are {_listed(known)}"
            message = f"{shorten(name)} is neither a device nor a switch{closest(name, known)}{listing}"
            yield Fault(path, message, (("devices",), ("switches",)))
        elif name in topology.shared:
            message = f"{name} is shared by hosts; plug in one of its virtual switches: "
            yield Fault(path, message + _listed(list(topology.switches[name].virtual)))
        elif pool is not None and not (path[0] == "switches" and path[1] in topology.shared):
            message = (
                f"{name} has logical devices; plug it into a switch with `virtual` switches, which bind them"
            )
            yield Fault(path, message, (("switches",),))
        elif name in topology.pool_memory and path[0] == "switches" and path[1] in topology.shared:
            yield Fault(path, f"{name} is for a port of a host, which has a window for it; plug it in there")
        elif name in topology.ccis and path[0] == "switches" and path[1] in topology.shared:
            yield Fault(path, f"{name} is for a host to manage a switch; plug it into a port of the host")
        elif len(before) >= (1 if pool is None else pool.heads):
            heads = "" if pool is None else f"; it has {mld.counted(pool.heads, 'head')} (`heads`)"
            yield Fault(path, f"{name} is plugged in already, at {' and '.join(before)}{heads}")
        else:
            before.append(spell(path))
    yield from virtual.bindings(topology)
    for name in topology.switches:
        circle = _circle(topology, name)
        if circle:
            yield Fault(("switches", name), f"is plugged into itself: {' > '.join(circle)}")


def windows(topology: Topology) -> Iterator[Fault]:
    """A window's targets are bridges of its host, and its size can be interleaved over them."""
    for host_name, host in topology.hosts.items():
        for number, window in enumerate(host.windows):
            at: Path = ("hosts", host_name, "windows", number)
            wrong = list(_targets(host, window.targets, (*at, "targets")))
            yield from wrong
            ways = len(window.targets)
            step = CAPACITY_UNIT * max(ways, 1)
            if not wrong and window.size % step:
                size = format_size(window.size)
                message = (
                    f"{size} is not a multiple of {format_size(step)} (256MiB for each of {ways} targets)"
                )
                yield Fault((*at, "size"), message, ((*at, "targets"),))
            for index, word in enumerate(window.restrictions):
                if word in window.restrictions[:index]:
                    yield Fault((*at, "restrictions", index), f"{word} is given twice")
            if window.shared is not None:
                yield from _shared(topology, window, at)


def _shared(topology: Topology, window: Window, at: Path) -> Iterator[Fault]:
    """A window of a device's dynamic capacity shows all of it, each byte at its place."""
    name = window.shared or ""
    device = topology.devices.get(name)
    if isinstance(device, PoolMemory):
        if not any(pool_rules.memory(topology, name)) and window.size != (size := pool_rules.span(topology)):
            message = f"{format_size(window.size)}; {name}, with all of the pool's memory, takes {format_size(size)}"
            yield Fault((*at, "size"), message, ((*at, "shared"), ("pool", "memory"), ("pool", "arena")))
    elif not isinstance(device, MultiLogicalDevice) or not device.dynamic:
        message = f"{shorten(name)} is no device of type `mld` with `dynamic`, and none of type `pool-memory`"
        yield Fault((*at, "shared"), message, (("devices",),))
    elif any(dynamic.faults(device, ())):
        return  # what its regions are is not known
    elif window.size != (size := dynamic.size(device)):
        message = f"{format_size(window.size)}; the regions of {name} take {format_size(size)}"
        yield Fault((*at, "size"), message, ((*at, "shared"), ("devices", name, "dynamic")))
    if len(window.targets) != 1:
        message = "a window of shared memory is not interleaved: give one target"
        yield Fault((*at, "targets"), message, ((*at, "shared"),))


def _targets(host: Host, targets: list[str], at: Path) -> Iterator[Fault]:
    for index, name in enumerate(targets):
        if name not in host.bridges:
            hint = closest(name, host.bridges) or f"; there are {_listed(list(host.bridges))}"
            message = f"{shorten(name)} is not a bridge of this host{hint}"
            yield Fault((*at, index), message, ((*at[:2], "bridges"),))
        elif name in targets[:index]:
            yield Fault((*at, index), f"{name} is a target twice")
    if targets and len(targets) not in WAYS:
        yield Fault(at, f"{len(targets)} targets cannot be interleaved; allowed are {_listed(WAYS)}")


def _plugs(topology: Topology) -> Iterator[tuple[Path, str]]:
    for switch_name, switch in topology.switches.items():
        for number, name in enumerate(switch.ports):
            if name is not None:
                yield ("switches", switch_name, "ports", number), name
    for host_name, host in topology.hosts.items():
        for bridge_name, bridge in host.bridges.items():
            for number, name in enumerate(bridge.ports):
                if name is not None:
                    yield ("hosts", host_name, "bridges", bridge_name, "ports", number), name


def _circle(topology: Topology, start: str) -> list[str]:
    """The way from `start` back to itself, if `start` is the first name on it in the file; else nothing."""
    order = list(topology.switches)
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        for port in topology.switches[way[-1]].ports:
            name = port if port in topology.devices else topology.virtual.get(port or "", (port, 0))[0]
            if name == start:
                return [*way, start]
            # Through an earlier switch the circle is that switch's, and was reported there.
            if name in topology.switches and name not in seen and order.index(name) > order.index(start):
                seen.add(name)
                ways.append([*way, name])
    return []


def _listed(names: list[str] | tuple[int, ...]) -> str:
    shown = [str(name)[:40] for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"


def filled(topology: Topology, folder: FilePath) -> Topology:
    """`topology`, which holds, with every default filled in and every path absolute."""

    def device(name: str, given: Type3) -> Type3:
        labels = given.label_storage
        if labels is None:
            labels = LABEL_STORAGE if given.persistent or given.partition_alignment else 0
        file = None if given.file is None else str(folder / given.file)
        return msgspec.structs.replace(given, serial=serial_of(name, given), label_storage=labels, file=file)

    def either(
        name: str, given: Type3 | MultiLogicalDevice | SwitchCci | PoolAccess | PoolMemory
    ) -> Type3 | MultiLogicalDevice | SwitchCci | PoolAccess | PoolMemory:
        if isinstance(given, Type3):
            return device(name, given)
        if isinstance(given, SwitchCci | PoolAccess):
            return given
        return msgspec.structs.replace(given, serial=serial_of(name, given))

    def switch(name: str, given: Switch) -> Switch:
        return msgspec.structs.replace(given, serial=serial_of(name, given)) if given.virtual else given

    def host(given: Host) -> Host:
        return msgspec.structs.replace(given, regions=settled(topology, given))

    return msgspec.structs.replace(
        topology,
        devices={name: either(name, one) for name, one in topology.devices.items()},
        switches={name: switch(name, one) for name, one in topology.switches.items()},
        hosts={name: host(one) for name, one in topology.hosts.items()},
        state=None if topology.state is None else str(folder / topology.state),
    )
