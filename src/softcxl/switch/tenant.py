"""Who is at the upstream port of a virtual switch: to whom its bindings are hot plugs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from softcxl.device.cci import CommandError
from softcxl.pci.function import Function
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import UnbindOption

Done = Callable[[ReturnCode], None]
"""Says that a removal is over: Success, or why the function is still there. Only the first call counts."""


class Tenant(ABC):
    """A host, or whatever else uses a virtual switch. vPPBs are numbered from 0.

    Called from any thread, without a lock of the switch's. Subclasses need `plug` and `unplug` alone.
    """

    @property
    def link_up(self) -> bool:
        """The link of the upstream port is up."""
        return True

    @abstractmethod
    def plug(self, vppb: int, function: Function) -> None:
        """A function has come to be below a vPPB. Returns at once; raises `CommandError` where that cannot be, and
        then it is not there."""

    @abstractmethod
    def unplug(self, vppb: int, function: Function, option: UnbindOption, done: Done) -> None:
        """It is to go: at once (surprise), or when the host has let go of it. `done` is called then, in this call or
        later, from any thread."""

    def keep(self, vppb: int, function: Function) -> bool:
        """A removal that was asked for is given up: the function stays, and `done` is not called. False where it is
        too late: the host has let go, and `done` has been called, or is about to be."""
        return True

    def link(self, vppb: int, *, up: bool) -> None:  # noqa: B027  # most have nothing to do
        """The link below a vPPB has gone down, or has come up again, with the device in its place."""

    def error(self, vppb: int | None, name: str, *, correctable: bool, header: int) -> None:
        """Have a vPPB (None: the upstream port) report an error: the name of its field in the AER status register, and
        the 128 bits of its header log. Raises `CommandError` where that cannot be."""
        raise CommandError(ReturnCode.UNSUPPORTED)


class Nobody(Tenant):
    """No host is there: whatever is asked for is done."""

    @property
    def link_up(self) -> bool:
        return False

    def plug(self, vppb: int, function: Function) -> None:
        """Nobody is told."""

    def unplug(self, vppb: int, function: Function, option: UnbindOption, done: Done) -> None:
        done(ReturnCode.SUCCESS)
