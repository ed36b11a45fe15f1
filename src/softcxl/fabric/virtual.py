"""Switches with virtual switches: what a topology may say of them."""

from __future__ import annotations

from collections.abc import Iterator

from softcxl.fabric.keys import PoolAccess, PoolMemory, Switch, SwitchCci, Topology, Type3, split
from softcxl.fabric.limits import Fault, Path, closest
from softcxl.fabric.mld import numbered
from softcxl.wire.sizes import shorten


def names(topology: Topology) -> Iterator[Fault]:
    """A virtual switch's name is that of nothing else: ports tell devices, switches and virtual switches by name."""
    taken: dict[str, str] = {}
    for switch_name, switch in topology.switches.items():
        for name in switch.virtual:
            at: Path = ("switches", switch_name, "virtual", name)
            if name in topology.devices or name in topology.switches:
                kind = "device" if name in topology.devices else "switch"
                yield Fault(at, f"{name} is a {kind} already; ports tell them apart by name")
            elif name in taken:
                yield Fault(at, f"{name} is also a virtual switch of {taken[name]}")
            taken.setdefault(name, switch_name)


def managed(topology: Topology, name: str, cci: SwitchCci) -> Iterator[Fault]:
    """A mailbox CCI is of a switch that can be managed."""
    if cci.switch in topology.shared:
        return
    at: Path = ("devices", name, "switch")
    if cci.switch in topology.switches:
        message = f"{cci.switch} has no `virtual` switches: there is nothing to manage"
        yield Fault(at, message, (("switches", cci.switch, "virtual"),))
    else:
        hint = closest(cci.switch, topology.shared)
        listing = hint or f"; there are {', '.join(topology.shared) or 'none with `virtual` switches'}"
        yield Fault(at, f"{shorten(cci.switch)} is no switch{listing}", within=(("switches",),))


def bindings(topology: Topology) -> Iterator[Fault]:
    """What vPPBs are bound to at first is in a port of their switch, has memory, and is bound once."""
    taken: dict[str, str] = {}
    for switch_name, switch in topology.shared.items():
        for virtual_name, virtual in switch.virtual.items():
            for number, name in enumerate(virtual.ports):
                if name is None:
                    continue
                at: Path = ("switches", switch_name, "virtual", virtual_name, "ports", number)
                wrong = _target(topology, switch_name, switch, name)
                if wrong:
                    yield Fault(at, wrong, (("switches", switch_name, "ports"),), (("devices",),))
                elif name in taken:
                    yield Fault(at, f"{name} is bound already, at {taken[name]}")
                taken.setdefault(name, f"{virtual_name}.ports[{number}]")


def _target(topology: Topology, switch_name: str, switch: Switch, name: str) -> str:
    """What is wrong with binding a vPPB of the switch to that; nothing if it can be bound."""
    device, ld = split(name)
    key = topology.devices.get(device)
    if key is None:
        known = [one for one in switch.ports if one in topology.devices]
        listing = ", ".join(map(str, known)) or "none"
        hint = closest(device, known) or f"; there are {listing}"
        return f"{shorten(name)} is no device in a port of {switch_name}{hint}"
    if isinstance(key, SwitchCci):
        return f"{device} is a switch's mailbox CCI, and nothing to bind"
    if isinstance(key, PoolMemory):
        return f"{device} is for a port of a host, which has a window for it, and nothing to bind"
    if device not in switch.ports:
        return f"{device} is in no port of {switch_name}; plug it in there first (`ports`)"
    if isinstance(key, Type3 | PoolAccess):
        return f"{device} has no logical devices; say {device}" if ld is not None else ""
    if ld is None:
        return f"{device} has several logical devices; say which one, as {device}.0"
    count = len(key.logical_devices)
    if ld >= count:
        return numbered(device, count)
    own = key.logical_devices[ld]
    if not own.volatile + own.persistent and not key.dynamic:
        return f"{name} has no capacity at first; give it some (`logical_devices`), or bind it later"
    return ""
