"""Regions: their attributes, and making one step by step by writing them (Linux drivers/cxl/core/region.c).

The way of ``cxl create-region``: ``create_ram_region``, ``uuid`` of a persistent one, ``interleave_ways``,
``interleave_granularity``, ``size``, ``target0`` and on, ``commit``; then its driver is bound.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from softcxl.host.sysfs import dax, steps
from softcxl.host.sysfs.node import (
    BOTH,
    WRITE,
    Attribute,
    Directory,
    Entry,
    Link,
    SysfsError,
    boolean,
    number,
    value,
)
from softcxl.host.sysfs.paths import ROOT

if TYPE_CHECKING:
    from softcxl.host.decoder import EndpointDecoder, RootDecoder
    from softcxl.host.region import Region
    from softcxl.host.system import System

_NOWHERE = (1 << 64) - 1
_NAME = re.compile(r"region([0-9]+)")


def path(region: Region) -> str:
    """Where a region is, below /sys."""
    return f"{ROOT}/{region.root.name}/{region.name}"


def children(region: Region) -> Iterator[str]:
    """The names of the devices of the bus below a region."""
    if dax.has(region):
        yield f"dax_region{region.number}"
    if region.type == "pmem" and region.enabled:
        yield f"pmem_region{region.number}"


def region(system: System, one: Region) -> Directory:
    """``regionN``."""

    def entries() -> Mapping[str, Entry]:
        write_uuid = (lambda text: _set_uuid(system, one, text)) if one.type == "pmem" else None
        found: dict[str, Entry] = {
            **_common("cxl_region", 6, "cxl_region" if one.enabled else ""),
            "commit": Attribute(
                lambda: str(int(one.committed)), lambda text: _commit(system, one, text), BOTH
            ),
            "interleave_granularity": Attribute(
                lambda: str(one.granularity), lambda text: steps.set_granularity(one, number(text)), BOTH
            ),
            "interleave_ways": Attribute(
                lambda: str(one.ways), lambda text: steps.set_ways(one, number(text)), BOTH
            ),
            "locked": value(int(one.locked)),
            "mode": value(one.type),
            "resource": value(f"{one.hpa if one.size else _NOWHERE:#x}"),
            "size": Attribute(lambda: f"{one.size:#x}", lambda text: steps.set_size(one, number(text)), BOTH),
            "uuid": Attribute(
                lambda: "" if one.type == "ram" else str(one.uuid or UUID(int=0)),
                write_uuid,
                BOTH if write_uuid else 0o444,
            ),
        }
        for position in range(one.ways):
            target = one.targets[position] if position < len(one.targets) else None
            found[f"target{position}"] = Attribute(
                partial(str, "" if target is None else target.name),
                partial(_set_target, system, one, position),
                BOTH,
            )
        if dax.has(one):
            found[f"dax_region{one.number}"] = Directory(
                lambda: {**_common("cxl_dax_region", 8, "cxl_dax_region"), **dax.dax_region(one)}, device=True
            )
        if one.type == "pmem" and one.enabled:
            found[f"pmem_region{one.number}"] = Directory(
                lambda: _common("cxl_pmem_region", 7, "cxl_pmem_region"), device=True
            )
        return found

    return Directory(entries, device=True)


def _common(kind: str, alias: int, driver: str) -> dict[str, Entry]:
    lines = [f"DEVTYPE={kind}", *([f"DRIVER={driver}"] if driver else []), f"MODALIAS=cxl:t{alias}"]
    return {
        "devtype": value(kind),
        "modalias": value(f"cxl:t{alias}"),
        "subsystem": Link("bus/cxl"),
        "uevent": Attribute(lambda: "\n".join(lines), mode=BOTH),
    }


def driver(system: System) -> Directory:
    """The regions' driver: ``bind`` and ``unbind`` take names of regions."""

    def bind(text: str) -> None:
        steps.bind(system, _bound_to(system, text))

    def unbind(text: str) -> None:
        steps.unbind(system, _bound_to(system, text))

    return Directory(
        lambda: {
            "bind": Attribute(None, bind, WRITE),
            "unbind": Attribute(None, unbind, WRITE),
            **{one.name: Link(path(one)) for one in system.regions.values() if one.enabled},
        }
    )


def _bound_to(system: System, text: str) -> Region:
    found = system.regions.get(text.strip())
    if found is None:
        raise SysfsError(errno.ENODEV, f"{text!r} is no region")
    return found


def creator(system: System, root: RootDecoder, kind: str) -> Callable[[str], None]:
    """What is written to ``create_ram_region`` or ``create_pmem_region``: the name that they show."""

    def store(text: str) -> None:
        named = _NAME.match(text)
        if named is None:
            raise SysfsError(errno.EINVAL, f"{text!r} is not of the form regionN")
        if int(named[1]) != root.next_region:
            raise SysfsError(
                errno.EBUSY, f"the next region here is region{root.next_region}, not {text.strip()}"
            )
        steps.create(system, root, kind)

    return store


def deleter(system: System, root: RootDecoder) -> Callable[[str], None]:
    """What is written to ``delete_region``: the name of one of the decoder's regions."""

    def store(text: str) -> None:
        if _NAME.match(text) is None:
            raise SysfsError(errno.EINVAL, f"{text!r} is not of the form regionN")
        one = next((one for one in root.regions if one.name == text.strip()), None)
        if one is None:
            raise SysfsError(errno.ENODEV, f"{text.strip()} is no region of {root.name}")
        steps.delete(system, one)

    return store


def _set_uuid(system: System, one: Region, text: str) -> None:
    try:
        given = UUID(text) if len(text) == 36 else None
    except ValueError:
        given = None
    if given is None or not given.int:
        raise SysfsError(errno.EINVAL, f"{text!r} is no UUID, or that of nothing")
    steps.set_uuid(system, one, given)


def _set_target(system: System, one: Region, position: int, text: str) -> None:
    if not text.strip():
        steps.detach(system, one, position)
        return
    found: EndpointDecoder | None = None
    for endpoint in system.endpoints:
        found = found or next((each for each in endpoint.decoders if each.name == text.strip()), None)
    if found is None:
        others = {root.name for root in system.root.decoders}
        others |= {each.name for port in system.ports for each in port.decoders}
        if text.strip() in others:
            raise SysfsError(errno.EINVAL, f"{text.strip()} is no endpoint's decoder")
        raise SysfsError(errno.ENODEV, f"{text!r} is no decoder")
    steps.attach(one, position, found)


def _commit(system: System, one: Region, text: str) -> None:
    if boolean(text):
        steps.commit(one)
    else:
        steps.reset(system, one)
