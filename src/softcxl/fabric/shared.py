"""What hosts share, made live: multi-logical devices, and switches with what is in their ports and bound at first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softcxl.device.clock import Clock
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.mld.head import Head
from softcxl.device.persist import StatePage
from softcxl.fabric import dynamic, embedded, keys
from softcxl.fabric.errors import BuildError
from softcxl.fabric.keeper import Target
from softcxl.switch.occupant import multi_logical, name_of
from softcxl.switch.physical import PhysicalSwitch

if TYPE_CHECKING:
    from softcxl.fabric.build import Fabric


def pool(
    name: str,
    key: keys.MultiLogicalDevice,
    clock: Clock,
    *,
    page: StatePage | None,
    folder: Path | None,
    kept: Mapping[int, Path],
) -> MultiLogicalDevice:
    """The live device; its state is on `page`, and what is persistent in files in `folder`, all that logical devices in
    `kept` have in those files."""
    more: dict[str, Any] = {"kept": kept} if kept else {}
    if key.secondary_mailbox:
        more["secondary_mailbox"] = True
    if key.dynamic:
        more["dynamic"] = [dynamic.region(one) for one in key.dynamic]
    return MultiLogicalDevice(
        name,
        volatile=key.volatile,
        persistent=key.persistent,
        logical_devices=[(one.volatile, one.persistent) for one in key.logical_devices],
        granularity=key.granularity,
        heads=key.heads,
        on_unbind=key.on_unbind,
        serial=key.serial or 0,
        clock=clock,
        state=page,
        folder=folder,
        **more,
    )


def plug(fabric: Fabric, switch: PhysicalSwitch, key: keys.Switch) -> dict[str, list[Target | None]]:
    """Have in the switch's ports what the topology says. Returns what the vPPBs of each virtual switch are bound to at
    first. Raises `BuildError`."""
    for number, name in enumerate(key.ports):
        if name in fabric.mlds:
            free = fabric.free_heads.setdefault(name, list(fabric.mlds[name].heads))
            switch.ports[number].insert(free.pop(0))
        elif name is not None:
            switch.ports[number].insert(embedded.made(fabric, name))
    return {
        name: [None if bound is None else target(fabric, switch, bound) for bound in virtual.ports]
        for name, virtual in key.virtual.items()
    }


def target(fabric: Fabric, switch: PhysicalSwitch, name: str) -> Target:
    """The physical port of a switch, and the LD ID there, of the device or logical device `name`. Raises `BuildError`
    where it is in none of the switch's ports."""
    device, ld = keys.split(name)
    for number, port in switch.ports.items():
        there = port.device
        if isinstance(there, Head):
            if there.mld.name == device and ld in there.lds:
                return number, there.lds.index(ld) if multi_logical(there) else None
        elif there is not None and name_of(there) == name:
            return number, None
    raise BuildError(f"{name} is in no port of {switch.name}")
