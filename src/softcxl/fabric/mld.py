"""Multi-logical devices in a topology: what the standard does not allow of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from softcxl.fabric import dynamic
from softcxl.fabric.keys import MultiLogicalDevice, Topology, split
from softcxl.fabric.limits import Fault, Path, closest
from softcxl.spec.fm.mld import MAX_LDS
from softcxl.wire.sizes import format_size


def counted(count: int, what: str) -> str:
    """
    >>> counted(1, "head"), counted(2, "head")
    ('1 head', '2 heads')
    """
    return f"{count} {what}" + ("s" if count != 1 else "")


def numbered(device: str, count: int) -> str:
    """How many logical devices a device has, and their names."""
    names = f"{device}.0" if count == 1 else f"{device}.0 to {device}.{count - 1}"
    return f"{device} has {counted(count, 'logical device')}, {names}"


def single(topology: Topology, name: str, taken: Mapping[str, Sequence[str]]) -> str:
    """What is wrong with plugging the logical device `name` into a root port; nothing if it can be. `taken` is what is
    plugged in already, and where."""
    device, ld = split(name)
    pool = topology.pools.get(device)
    if pool is None:
        return f"{device} is no device with logical devices" + closest(device, topology.pools)
    count = len(pool.logical_devices)
    if ld is None or ld >= count:
        return numbered(device, count)
    own = pool.logical_devices[ld]
    if name not in topology.single:
        heads = f"{counted(pool.heads, 'head')} (`heads`) for {counted(count, 'logical device')}"
        return f"{name} has no head of its own: {device} has {heads}; plug {device} into a switch, which binds it"
    if not own.volatile + own.persistent and not pool.dynamic:
        return f"{name} has no capacity at first; give it some (`logical_devices`)"
    there = [*taken.get(device, ()), *taken.get(name, ())]
    return f"{name} is plugged in already, at {' and '.join(there)}" if there else ""


def faults(device: MultiLogicalDevice, at: Path) -> Iterator[Fault]:
    """What cannot be of the capacity of one device and of how it is divided."""
    capacity = ((*at, "volatile"), (*at, "persistent"))
    if device.volatile + device.persistent == 0 and not device.dynamic:
        yield Fault(at, "has no capacity; give `volatile`, `persistent` or `dynamic`", capacity)
    yield from dynamic.faults(device, at)
    count = len(device.logical_devices)
    if device.heads > count:
        message = f"{device.heads} heads, and there are {count} logical devices; each head needs one"
        yield Fault((*at, "heads"), message, ((*at, "logical_devices"),))
    if count > MAX_LDS * device.heads:
        message = (
            f"{count} logical devices; at most {MAX_LDS} for each of the {device.heads} heads are allowed"
        )
        yield Fault((*at, "logical_devices"), message, ((*at, "heads"),))
    unit = format_size(device.granularity)
    for kind in ("volatile", "persistent"):
        whole, sizes = getattr(device, kind), [getattr(one, kind) for one in device.logical_devices]
        if whole % device.granularity:
            message = f"{format_size(whole)} is no multiple of `granularity`, {unit}"
            yield Fault((*at, kind), message, ((*at, "granularity"),))
        for number, size in enumerate(sizes):
            if size % device.granularity:
                message = f"{format_size(size)} is no multiple of `granularity`, {unit}"
                yield Fault((*at, "logical_devices", number, kind), message, ((*at, "granularity"),))
        if sum(sizes) > whole:
            taken, there = format_size(sum(sizes)), format_size(whole) if whole else "none"
            message = f"{taken} of {kind} capacity are given out, and there is {there}"
            yield Fault((*at, "logical_devices"), message, ((*at, kind),), ((*at, "logical_devices"),))
