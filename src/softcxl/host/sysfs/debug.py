"""/sys/kernel/debug/cxl: poison by command (Linux drivers/cxl/mem.c, drivers/cxl/core/region.c)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from softcxl.host.errors import AccessError
from softcxl.host.events import supported
from softcxl.host.sysfs.errnos import answered
from softcxl.host.sysfs.node import WRITE, Attribute, Directory, Entry, SysfsError, number
from softcxl.spec.command.poison import (
    CLEAR_POISON,
    INJECT_POISON,
    POISON_UNIT,
    ClearPoisonRequest,
    InjectPoisonRequest,
)

if TYPE_CHECKING:
    from softcxl.host.memdev import Memdev
    from softcxl.host.region import Region
    from softcxl.host.system import System

_COMMANDS = {"inject_poison": INJECT_POISON, "clear_poison": CLEAR_POISON}


def cxl(system: System) -> Directory:
    """A directory for each memory device and region, to write addresses of poison to: DPA, or offsets in the region."""

    def entries() -> Mapping[str, Entry]:
        found: dict[str, Entry] = {}
        for one in system.memdevs.values():
            if one.endpoint is not None:
                found[one.name] = _files(partial(_of_memdev, system, one), one)
        for region in system.regions.values():
            members = [one for one in region.memdevs if one is not None]
            if region.enabled:
                found[region.name] = _files(partial(_of_region, system, region), *members)
        return found

    return Directory(entries)


def _files(store: Callable[[str], Callable[[str], None]], *members: Memdev) -> Directory:
    names = [
        name
        for name, command in _COMMANDS.items()
        if all(command.opcode in supported(one) for one in members)
    ]
    return Directory(lambda: {name: Attribute(None, store(name), WRITE) for name in names})


def _of_memdev(system: System, one: Memdev, name: str) -> Callable[[str], None]:
    def store(text: str) -> None:
        dpa = number(text)
        end = max(high for _, high in one.partitions.values())
        if dpa >= end:
            raise SysfsError(errno.EINVAL, f"DPA {dpa:#x} is not below {end:#x}, where {one.name} ends")
        if dpa % POISON_UNIT:
            raise SysfsError(errno.EINVAL, f"DPA {dpa:#x} is not a multiple of {POISON_UNIT}")
        _send(system, one, dpa, name)

    return store


def _of_region(system: System, region: Region, name: str) -> Callable[[str], None]:
    def store(text: str) -> None:
        offset = number(text)
        if offset >= region.size:
            raise SysfsError(errno.EINVAL, f"offset {offset:#x} is not below {region.size:#x}")
        if offset % POISON_UNIT:
            raise SysfsError(errno.EINVAL, f"offset {offset:#x} is not a multiple of {POISON_UNIT}")
        try:
            way = system.explain(region.hpa + offset)
        except AccessError as error:
            raise SysfsError(errno.EINVAL, str(error)) from None
        _send(system, way.memdev, way.dpa, name)

    return store


def _send(system: System, one: Memdev, dpa: int, name: str) -> None:
    with answered():
        if name == "inject_poison":
            one.mailbox.send(INJECT_POISON, InjectPoisonRequest(address=dpa))
        else:
            one.mailbox.send(CLEAR_POISON, ClearPoisonRequest(address=dpa, write_data=bytes(POISON_UNIT)))
        system.log.trace(one, dpa, name.partition("_")[0].title())
