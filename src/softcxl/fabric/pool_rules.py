"""What a topology may say of its pool: which memory it has, and what its clients may have of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from softcxl.fabric.keys import (
    SPAN,
    MultiLogicalDevice,
    Pool,
    PoolAccess,
    PoolMemory,
    SwitchCci,
    Topology,
    split,
)
from softcxl.fabric.limits import Fault, Path, closest
from softcxl.fabric.mld import numbered
from softcxl.fabric.routes import routes
from softcxl.spec import pool_region
from softcxl.spec.pool_access import MOST_MEMORIES
from softcxl.wire.sizes import format_size, shorten

SHORTEST, LONGEST = 0.1, 86400.0
"""Seconds of a lease."""


def pool(topology: Topology) -> Iterator[Fault]:
    """Its memory is there, is given once, and no host has it; leases and quotas can be kept."""
    given = topology.pool
    if given is None:
        return
    if re.fullmatch(SPAN, given.lease) and not SHORTEST <= given.lease_seconds <= LONGEST:
        yield Fault(("pool", "lease"), f"{shorten(given.lease)} is not from 100ms to a day, 86400 seconds")
    whole, known = 0, True
    used = _used(topology)
    for number, name in enumerate(given.memory):
        at: Path = ("pool", "memory", number)
        wrong = _memory(topology, name)
        first = given.memory.index(name)
        if wrong:
            yield Fault(at, wrong, within=(("devices",),))
        elif first < number:
            yield Fault(at, f"{name} is given twice, first at pool.memory[{first}]")
        elif name in used:
            message = f"{name} is a host's, at {used[name]}; what the pool has no host sees"
            yield Fault(at, message, within=(("devices",), ("switches",), ("hosts",)))
        else:
            whole += capacity(topology, name)
            continue
        known = False
    if known:
        yield from _quotas(given, whole)


def access(topology: Topology, name: str) -> Iterator[Fault]:
    """A slot by which guests reach the pool: there is one, and all of its memory has room in the slot's functions."""
    at: Path = ("devices", name)
    if topology.pool is None:
        yield Fault(at, "there is no pool to reach; give one (`pool`)")
    elif len(topology.pool.memory) >= MOST_MEMORIES:
        count = len(topology.pool.memory)
        message = (
            f"the pool's memory is {count} devices; a slot has room for {MOST_MEMORIES - 1} beside the arena"
        )
        yield Fault(at, message, (("pool", "memory"),))


def memory(topology: Topology, name: str) -> Iterator[Fault]:
    """A device whose memory is the pool's: there is one, in pieces that can be mapped one by one."""
    at: Path = ("devices", name)
    if topology.pool is None:
        yield Fault(at, "there is no pool whose memory it could have; give one (`pool`)")
    elif topology.pool.arena % pool_region.ALIGNMENT:
        size, unit = format_size(topology.pool.arena), format_size(pool_region.ALIGNMENT)
        message = f"a guest maps the pool's arena in whole {unit}, and it is {size}"
        yield Fault(at, message, (("pool", "arena"),))


def sizes(topology: Topology) -> dict[str, int]:
    """Bytes of the pool's memory at first, by name, in order."""
    assert topology.pool is not None, "of a topology with a pool"
    return {name: capacity(topology, name) for name in topology.pool.memory if not _memory(topology, name)}


def span(topology: Topology) -> int:
    """Bytes of a device whose memory is the pool's."""
    assert topology.pool is not None, "of a topology with a pool"
    return pool_region.capacity([topology.pool.arena, *sizes(topology).values()])


def capacity(topology: Topology, name: str) -> int:
    """Bytes that a device, or a logical device at first, has of its own."""
    device, ld = split(name)
    key = topology.devices[device]
    if isinstance(key, MultiLogicalDevice):
        own = key.logical_devices[ld or 0]
        return own.volatile + own.persistent
    return 0 if isinstance(key, SwitchCci | PoolAccess | PoolMemory) else key.volatile + key.persistent


def _memory(topology: Topology, name: str) -> str:
    """What is wrong with memory of that name; nothing if the pool can have it."""
    device, ld = split(name)
    key = topology.devices.get(device)
    if key is None:
        listing = ", ".join(list(topology.memory | topology.pools)[:12]) or "none"
        return f"{shorten(device)} is no device" + (
            closest(device, topology.devices) or f"; there are {listing}"
        )
    if isinstance(key, SwitchCci):
        return f"{device} is a switch's mailbox CCI, and has no memory"
    if isinstance(key, PoolAccess):
        return f"{device} is a slot by which guests reach the pool, and has no memory"
    if isinstance(key, PoolMemory):
        return f"{device} is a device by which guests reach the pool, and has no memory but the pool's"
    if isinstance(key, MultiLogicalDevice):
        if ld is None:
            return f"{device} has several logical devices; say which one, as {device}.0"
        if ld >= len(key.logical_devices):
            return numbered(device, len(key.logical_devices))
        if not capacity(topology, name):
            return f"{name} has no capacity at first; give it some (`logical_devices`)"
        return ""
    if ld is not None:
        return f"{device} has no logical devices; say {device}"
    if not capacity(topology, name):
        return f"{name} has dynamic capacity only; the pool takes `volatile` and `persistent` capacity"
    if key.file is not None:
        return f"{name} has a `file`; the pool keeps its memory itself, in `state` if that is given"
    return ""


def _used(topology: Topology) -> dict[str, str]:
    """What hosts have at first, and where."""
    found = {
        name: f"hosts.{host}"
        for host, key in topology.hosts.items()
        for name in reversed(routes(topology, key))
    }
    for switch in topology.shared.values():
        for name, virtual in switch.virtual.items():
            for number, port in enumerate(virtual.ports):
                if port is not None:
                    found.setdefault(port, f"{name}.ports[{number}]")
    return found


def _quotas(given: Pool, whole: int) -> Iterator[Fault]:
    for name, size in given.quotas.items():
        if size > whole:
            message = f"{format_size(size)} is more than the pool has, {format_size(whole)}"
            yield Fault(("pool", "quotas", name), message, (("pool", "memory"),), (("devices",),))
