"""Heads: the ports of a device, each with a link of its own, and with logical devices that are its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from softcxl.device.mld.management import OwnerCci, SingleCci
from softcxl.device.mld.memory import MemoryCommands
from softcxl.device.mld.owner import FmOwnedDevice
from softcxl.device.mld.qos import QosCommands
from softcxl.spec.command.events import EventNotificationRequest
from softcxl.spec.fm.mhd import HeadInformation, HeadLinkState
from softcxl.spec.fm.switch import LtssmState
from softcxl.wire import Reset

if TYPE_CHECKING:
    from softcxl.device.cci import CommandSet
    from softcxl.device.mld.device import MultiLogicalDevice
    from softcxl.device.mld.logical import LogicalDevice


class Head:
    """What is plugged into one port: `lds` are the LD IDs in the device of its logical devices, whose LD IDs on the
    head's link count from 0. A head with a single one, of a device with several heads, is a single logical device.

    `number` is the head's, None for the pool of all heads, which has no link. `sets` are commands that its FM-owned LD
    has beside those of all.
    """

    def __init__(
        self,
        mld: MultiLogicalDevice,
        name: str,
        number: int | None,
        lds: Sequence[int],
        sets: Sequence[CommandSet] = (),
    ) -> None:
        self.mld, self.name, self.number, self.lds = mld, name, number, tuple(lds)
        self.link_up = self.perst = False
        self.fm_owned = FmOwnedDevice(mld, name, len(self.lds), self.port, self._asked_to_reset)
        self.fm_owned.serve([MemoryCommands(self), QosCommands(self), *sets])

    @property
    def lock(self) -> threading.RLock:
        """The device's, for all heads."""
        return self.mld.lock

    @property
    def ld_count(self) -> int:
        """Logical devices that it supports."""
        return len(self.lds)

    @property
    def single(self) -> bool:
        """It is a single logical device, to whoever is at its link."""
        return self.number is not None and len(self.lds) == 1 and len(self.mld.heads) > 1

    @property
    def logical(self) -> Mapping[int, LogicalDevice]:
        """The logical devices that have memory, by their LD IDs on the link."""
        found = self.mld.logical
        return {number: found[ld] for number, ld in enumerate(self.lds) if ld in found}

    def function(self, ld: int | None = None) -> LogicalDevice | None:
        """The logical device with the LD ID `ld` on this head's link; for None the only one that it can have. None
        where there is none, or it has no memory."""
        if ld is None:
            return self.mld.logical.get(self.lds[0]) if len(self.lds) == 1 else None
        return self.mld.logical.get(self.lds[ld]) if 0 <= ld < len(self.lds) else None

    def management(self, send: Callable[[EventNotificationRequest], None]) -> OwnerCci:
        """A command interface for one door: of the FM-owned logical device, or of the single logical device that this
        is. `send` is called with each Event Notification that is due, the lock held. Close it with its door."""
        with self.mld.lock:
            return (SingleCci if self.single else OwnerCci)(self, send)

    # -- the link ------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The number of the head's port."""
        return self.number or 0

    def link_changed(self, *, up: bool, perst: bool = False) -> None:
        """Whoever is at the other end tells what the link is now."""
        self.link_up, self.perst = up, perst

    def information(self) -> HeadInformation:
        """What Get Head Info tells of it. A link is up, too, while a machine has one of its functions plugged in."""
        up = self.link_up or any(one.seat is not None or one.attached for one in self.logical.values())
        express = self.fm_owned.express
        able, now = express.link_capabilities, express.link_status
        return HeadInformation(
            port=self.port,
            maximum_link_width=able.max_link_width,
            negotiated_link_width=now.negotiated_link_width if up else 0,
            supported_link_speeds=express.link_capabilities_2.supported_link_speeds,
            maximum_link_speed=able.max_link_speed,
            current_link_speed=now.current_link_speed if up else 0,
            ltssm_state=LtssmState.L0 if up else LtssmState.DETECT,
            first_lane=0,
            link_state=HeadLinkState.make(perst=self.perst),
        )

    # -- resets --------------------------------------------------------------------------------------------------

    def _asked_to_reset(self, ld: int) -> None:
        """The fabric manager has written the LD-ID Hot Reset Vector."""
        if (device := self.function(ld)) is not None:
            self.mld.witness("ld-reset", device.name)
        self.hot_reset(ld)

    def hot_reset(self, ld: int) -> None:
        """Reset one logical device. The others go on."""
        device = self.function(ld)
        if device is not None:
            device.reset(Reset.HOT)

    def reset(self, kind: Reset = Reset.HOT) -> None:
        """A reset that comes by the link, hot or cold: all its logical devices have it, and the whole device if this is
        its only head. As long as another has power, the device has: then a cold one is a hot one."""
        if len(self.mld.heads) == 1:
            self.mld.reset(kind)
        else:
            self.hot_reset_all()

    def hot_reset_all(self) -> None:
        """Reset its FM-owned LD and all its logical devices. Other heads go on."""
        with self.mld.lock:
            self.fm_owned.reset(Reset.HOT)
            for number in range(len(self.lds)):
                self.hot_reset(number)

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.lds)} logical devices>"
