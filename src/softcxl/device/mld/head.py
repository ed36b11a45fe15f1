"""Heads: the ports of a device, each with a link of its own, and with logical devices that are its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from softcxl.device.mld.management import OwnerCci
from softcxl.device.mld.memory import MemoryCommands
from softcxl.device.mld.owner import FmOwnedDevice
from softcxl.spec.command.events import EventNotificationRequest
from softcxl.wire import Reset

if TYPE_CHECKING:
    from softcxl.device.mld.device import MultiLogicalDevice
    from softcxl.device.mld.logical import LogicalDevice


class Head:
    """What sits in one port: `lds` are the LD IDs in the device of its logical devices, whose LD IDs on the head's link
    count from 0. A head with a single one is a single logical device to whoever is at its link.

    `number` is the head's, None for the pool of all heads, which has no link.
    """

    def __init__(self, mld: MultiLogicalDevice, name: str, number: int | None, lds: Sequence[int]) -> None:
        self.mld, self.name, self.number, self.lds = mld, name, number, tuple(lds)
        self.fm_owned = FmOwnedDevice(mld, name, len(self.lds), self.hot_reset)
        self.fm_owned.serve([MemoryCommands(self), *mld.command_sets])

    @property
    def lock(self) -> object:
        """The device's, for all heads."""
        return self.mld.lock

    @property
    def ld_count(self) -> int:
        """Logical devices that it supports."""
        return len(self.lds)

    def function(self, ld: int | None = None) -> LogicalDevice | None:
        """The logical device with the LD ID `ld` on this head's link; for None the only one that it can have. None
        where there is none, or it has no memory."""
        if ld is None:
            return self.mld.logical.get(self.lds[0]) if len(self.lds) == 1 else None
        return self.mld.logical.get(self.lds[ld]) if 0 <= ld < len(self.lds) else None

    def management(self, send: Callable[[EventNotificationRequest], None]) -> OwnerCci:
        """A command interface of the FM-owned logical device, for one door. Close it with its door."""
        with self.mld.lock:
            return OwnerCci(self, send)

    def hot_reset(self, ld: int) -> None:
        """Reset one logical device, as by the LD-ID Hot Reset Vector. The others go on."""
        device = self.function(ld)
        if device is not None:
            device.reset(Reset.HOT)

    def reset(self, kind: Reset = Reset.HOT) -> None:
        """A reset of the link: all its logical devices have it. As long as another head has power, the device has."""
        if kind is Reset.COLD and len(self.mld.heads) == 1:
            self.mld.power_cycle()
            return
        with self.mld.lock:
            self.fm_owned.reset(kind)
            for number in range(len(self.lds)):
                self.hot_reset(number)

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.lds)} logical devices>"
