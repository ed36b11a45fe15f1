"""The steps between a region that is only a name and one that is committed, each refused as the kernel refuses it.

The states are Linux's (drivers/cxl/core/region.c, enum cxl_config_state): idle until it has addresses, interleave
active until all of its positions are taken, active until it is committed.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING
from uuid import UUID

from softcxl.host import assembly, labels
from softcxl.host.assembly import UNIT
from softcxl.host.errors import RegionError
from softcxl.host.levels import levels
from softcxl.host.region import Region
from softcxl.host.sysfs.errnos import answered
from softcxl.host.sysfs.node import SysfsError
from softcxl.memory.errors import GeometryError
from softcxl.memory.interleave import encode_granularity, encode_ways

if TYPE_CHECKING:
    from softcxl.host.decoder import EndpointDecoder, RootDecoder
    from softcxl.host.system import System

_UNFINISHED = "it is not committed"


def active(region: Region) -> bool:
    """All of its positions are taken."""
    return bool(region.targets) and len(region.targets) == region.ways and None not in region.targets


def create(system: System, root: RootDecoder, kind: str) -> Region:
    """A region of type `kind` without addresses or members."""
    region = Region(
        system.machine,
        root.next_region,
        root,
        kind,
        hpa=0,
        size=0,
        ways=0,
        granularity=0,
        problem=_UNFINISHED,
    )
    root.next_region = system.region_numbers.take()
    root.regions.append(region)
    return region


def set_uuid(system: System, region: Region, given: UUID) -> None:
    """EBUSY once it has all members, or where another region has it."""
    if region.uuid == given:
        return
    if region.committed or active(region):
        raise SysfsError(errno.EBUSY, f"{region.name} has all of its members")
    other = next((one for one in system.regions.values() if one.uuid == given), None)
    if other is not None:
        raise SysfsError(errno.EBUSY, f"{given} is the UUID of {other.name}")
    region.uuid = given


def set_ways(region: Region, ways: int) -> None:
    """EINVAL for what a window cannot be dealt out to, EBUSY once it has addresses."""
    try:
        encode_ways(ways)
    except GeometryError as error:
        raise SysfsError(errno.EINVAL, str(error)) from None
    quotient, uneven = divmod(ways, region.root.window.ways)
    if uneven or quotient & (quotient - 1) or not quotient:
        raise SysfsError(
            errno.EINVAL,
            f"{ways} ways are not a power of two times the {region.root.window.ways} of the window",
        )
    if region.size:
        raise SysfsError(errno.EBUSY, f"{region.name} has addresses already")
    region.ways = ways
    region.targets[:] = [None] * ways


def set_granularity(region: Region, granularity: int) -> None:
    """EINVAL for what is none, or not that of a window over several bridges; EBUSY once it has addresses."""
    try:
        encode_granularity(granularity)
    except GeometryError as error:
        raise SysfsError(errno.EINVAL, str(error)) from None
    window = region.root.window
    if window.ways > 1 and granularity != window.granularity:
        raise SysfsError(errno.EINVAL, f"the window deals out at {window.granularity}")
    if region.size:
        raise SysfsError(errno.EBUSY, f"{region.name} has addresses already")
    region.granularity = granularity


def set_size(region: Region, size: int) -> None:
    """Allocates addresses, or with 0 gives them back."""
    if size == region.size:
        return
    if not size:
        if active(region):
            raise SysfsError(errno.EBUSY, f"{region.name} has all of its members")
        region.hpa = region.size = 0
        return
    if region.size:
        raise SysfsError(errno.EBUSY, f"{region.name} has {region.size:#x} bytes of addresses")
    if not region.ways or not region.granularity or (region.type == "pmem" and region.uuid is None):
        raise SysfsError(errno.ENXIO, "ways, granularity, and of a persistent region the UUID come first")
    if size % (UNIT * region.ways):
        raise SysfsError(errno.EINVAL, f"{size:#x} is not a multiple of 256 MiB for each of {region.ways}")
    for start, end in region.root.gaps():
        base = -(-start // UNIT) * UNIT
        if base + size <= end:
            region.hpa, region.size = base, size
            return
    raise SysfsError(errno.ERANGE, f"{region.root.name}: no {size:#x} free bytes of its window lie together")


def attach(region: Region, position: int, decoder: EndpointDecoder) -> None:
    """Gives a position to an endpoint's decoder."""
    memdev, endpoint = decoder.memdev, decoder.endpoint
    if not region.ways or not region.granularity:
        raise SysfsError(errno.ENXIO, f"{region.name}: its ways and granularity come first")
    problem = decoder.hdm.problem(region.ways, region.granularity)
    if problem:
        raise SysfsError(errno.ENXIO, f"{decoder.name}: {problem}")
    if not decoder.mode:
        raise SysfsError(errno.ENODEV, f"{decoder.name}: its mode is not set")
    if decoder.mode != region.type:
        raise SysfsError(
            errno.EINVAL, f"{decoder.name} is of mode {decoder.mode}, {region.name} {region.type}"
        )
    if active(region):
        raise SysfsError(errno.EBUSY, f"{region.name} has all of its members")
    if not region.size:
        raise SysfsError(errno.ENXIO, f"{region.name}: its size comes first")
    if endpoint.bridge not in region.root.targets:
        raise SysfsError(errno.ENXIO, f"{memdev.name} is not below {region.root.name}")
    if decoder.dpa is None:
        raise SysfsError(errno.ENXIO, f"{decoder.name}: its dpa_size is 0")
    if decoder.dpa_size * region.ways != region.size:
        raise SysfsError(
            errno.EINVAL, f"{region.ways} times {decoder.dpa_size:#x} bytes are not {region.size:#x}"
        )
    if region.targets[position] is decoder:
        return
    if region.targets[position] is not None or region.decoder_of(memdev) is not None:
        raise SysfsError(errno.EBUSY, f"position {position} is taken, or {memdev.name} has one already")
    if decoder.region is not None:
        raise SysfsError(errno.EBUSY, f"{decoder.name} is {decoder.region.name}'s")
    if endpoint.bridge is not region.root.targets[position % region.root.window.ways]:
        raise SysfsError(errno.ENXIO, f"position {position} is not of {endpoint.bridge.name}")
    fresh = []
    with answered(errno.EBUSY):
        for port in endpoint.ancestors:
            if port not in region.ports:
                region.ports[port] = assembly.free_decoder(port)
                fresh.append(port)
                region.ports[port].region = region
    region.targets[position], decoder.region = decoder, region
    if active(region):
        try:
            levels(
                region.root, [one.endpoint for one in region.targets if one is not None], region.granularity
            )
        except RegionError as error:
            region.targets[position], decoder.region = None, None
            for port in fresh:
                region.ports.pop(port).region = None
            raise SysfsError(errno.ENXIO, str(error)) from None


def detach(system: System, region: Region, position: int) -> None:
    """Frees a position; what was committed is reset before."""
    target = region.targets[position] if position < len(region.targets) else None
    if target is None:
        return
    if region.committed:
        _disable(system, region)
    region.targets[position], target.region = None, None
    needed = {port for one in region.targets if one is not None for port in one.endpoint.ancestors}
    for port in [one for one in region.ports if one not in needed]:
        region.ports.pop(port).region = None


def commit(region: Region) -> None:
    """ENXIO unless all positions are taken."""
    if region.committed:
        return
    if not active(region):
        raise SysfsError(errno.ENXIO, f"{region.name}: not all of its {region.ways} positions are taken")
    with answered():
        assembly.commit(region)


def reset(system: System, region: Region) -> None:
    """EPERM where firmware has locked it."""
    if region.locked:
        raise SysfsError(errno.EPERM, f"{region.name} is locked by firmware")
    if region.committed:
        _disable(system, region)


def bind(system: System, region: Region) -> None:
    """The driver takes a committed region: it can be used. ENODEV if it is bound, ENXIO if it is not committed."""
    if region.enabled:
        raise SysfsError(errno.ENODEV, f"{region.name} is bound already")
    if not region.committed:
        raise SysfsError(errno.ENXIO, f"{region.name} is not committed")
    region.enabled, region.problem = True, ""
    if region.type == "pmem" and not region.labelled:
        labels.store(system, region)


def unbind(system: System, region: Region) -> None:
    """The driver lets go of it; it stays committed."""
    if not region.enabled:
        raise SysfsError(errno.ENODEV, f"{region.name} is not bound")
    region.enabled, region.problem = False, "it is not bound to its driver"
    system.stranded(region)


def delete(system: System, region: Region) -> None:
    """The region goes; its members keep the device addresses that they have been given, as in Linux."""
    if region.locked:
        raise SysfsError(errno.EBUSY, f"{region.name} is locked by firmware")
    for position in range(len(region.targets)):
        detach(system, region, position)
    assembly.forget(system, region)
    if region.type == "pmem":
        labels.forget(system, region)


def _disable(system: System, region: Region) -> None:
    assembly.reset(region)
    region.problem = _UNFINISHED
    system.stranded(region)
