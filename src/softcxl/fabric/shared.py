"""What hosts share, made live: multi-logical devices, and switches with what is in their ports and bound at first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softcxl.device.clock import Clock
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.mld.errors import LogicalDeviceError
from softcxl.device.mld.head import Head
from softcxl.device.mld.logical import LogicalDevice
from softcxl.device.mld.management import OwnerCci
from softcxl.device.persist import StatePage
from softcxl.fabric import dynamic, embedded, keys
from softcxl.fabric.errors import BuildError
from softcxl.spec.command.events import EventNotificationRequest
from softcxl.switch.binding import BindingError
from softcxl.switch.physical import PhysicalSwitch

if TYPE_CHECKING:
    from softcxl.fabric.build import Fabric


def pool(
    name: str, key: keys.MultiLogicalDevice, clock: Clock, *, page: StatePage | None, folder: Path | None
) -> MultiLogicalDevice:
    """The live device; its state is on `page`, and what is persistent in files in `folder`."""
    more: dict[str, Any] = {}
    if key.dynamic:
        more["dynamic"] = [dynamic.region(one) for one in key.dynamic]
    return MultiLogicalDevice(
        name,
        volatile=key.volatile,
        persistent=key.persistent,
        logical_devices=[(one.volatile, one.persistent) for one in key.logical_devices],
        granularity=key.granularity,
        on_unbind=key.on_unbind,
        serial=key.serial or 0,
        clock=clock,
        state=page,
        folder=folder,
        **more,
    )


class Plugged:
    """A head of a device in a port of `switch`: the `LogicalDevices` of `softcxl.switch.occupant`."""

    def __init__(self, head: Head, switch: str) -> None:
        self._head, self._switch = head, switch

    def __repr__(self) -> str:
        return repr(self._head)

    @property
    def name(self) -> str:
        return self._head.name

    @property
    def ld_count(self) -> int:
        return self._head.ld_count

    @property
    def logical(self) -> dict[int, LogicalDevice]:
        found = {ld: self._head.function(ld) for ld in range(self._head.ld_count)}
        return {ld: one for ld, one in found.items() if one is not None}

    def claim(self, ld: int) -> bool:
        """See `softcxl.switch.occupant.LogicalDevices`."""
        device = self._head.function(ld)
        if device is None:
            return False
        try:
            device.bind(self._switch)
        except LogicalDeviceError:
            return False
        return True

    def release(self, ld: int) -> None:
        """See `softcxl.switch.occupant.LogicalDevices`."""
        device = self._head.function(ld)
        if device is not None:
            device.unbind()

    def management(self, send: Callable[[EventNotificationRequest], None]) -> OwnerCci:
        """See `softcxl.switch.occupant.LogicalDevices`."""
        return self._head.management(send)


def plug(fabric: Fabric, switch: PhysicalSwitch, key: keys.Switch) -> None:
    """Have in the switch's ports what the topology says, and its vPPBs bound. Raises `BuildError`."""
    for number, name in enumerate(key.ports):
        if name in fabric.mlds:
            heads = [at for at, other in enumerate(key.ports) if other == name]
            switch.ports[number].insert(Plugged(fabric.mlds[name].heads[heads.index(number)], switch.name))
        elif name is not None:
            switch.ports[number].insert(embedded.made(fabric, name))
    for vcs, virtual in enumerate(key.virtual.values()):
        for vppb, bound in enumerate(virtual.ports):
            if bound is None:
                continue
            device, ld = keys.split(bound)
            try:
                switch.bind(vcs, vppb, key.ports.index(device), ld)
            except BindingError as error:
                raise BuildError(f"{switch.virtual[vcs].name}.{vppb}: {error}") from error
