"""What the owner of dynamic capacity has asked of a host: to take extents, or to give them back."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from softcxl.device.clock import Timer
from softcxl.device.dynamic.extents import Extent, Range


class AdditionState(enum.Enum):
    """How far an offer of extents has come."""

    QUEUED = "queued"
    """Others are before it, or its records wait for room in the event log."""
    OFFERED = "offered"
    """All its records are in the host's event log, and it is the next to be answered."""
    ANSWERED = "answered"
    """The host has taken some, all or none of it."""
    EXPIRED = "expired"
    """The host did not answer in time."""
    WITHDRAWN = "withdrawn"
    """It was taken back, by force or by a cold reset, before the host answered."""


class RemovalState(enum.Enum):
    """How far a request to give extents back has come."""

    ASKED = "asked"
    RELEASED = "released"
    """Nothing of it is the host's any more."""
    EXPIRED = "expired"
    """The host did not give all of it back in time, and still may."""


@dataclass(slots=True, eq=False)
class Addition:
    """Extents offered to a host, which answers for all of them at once."""

    host: int
    extents: tuple[Extent, ...]
    timeout: float
    """Seconds that the host has, from when no other offer is before it."""
    state: AdditionState = AdditionState.QUEUED
    accepted: tuple[Extent, ...] = ()
    """What the host took, once it has answered."""
    unrecorded: int = 0
    """Event records of it that are not in the log yet."""
    timer: Timer | None = None

    @property
    def pending(self) -> bool:
        """The host can still take it."""
        return self.state in (AdditionState.QUEUED, AdditionState.OFFERED)

    @property
    def ranges(self) -> list[Range]:
        return [one.range for one in self.extents]


@dataclass(slots=True, eq=False)
class Removal:
    """Extents that a host is asked to give back."""

    host: int
    extents: tuple[Extent, ...]
    sanitize: bool
    """What they held is erased, whatever their region says."""
    state: RemovalState = RemovalState.ASKED
    timer: Timer | None = None

    @property
    def ranges(self) -> list[Range]:
        return [one.range for one in self.extents]
