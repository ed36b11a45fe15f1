"""What may be plugged into a physical port: a function, of a device or a switch, or a device of logical devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from softcxl.device.cci import Reply
from softcxl.device.endpoint import Endpoint
from softcxl.pci.function import Function
from softcxl.spec.fm.switch import ConnectedDeviceMode, ConnectedDeviceType
from softcxl.switch.upstream import UpstreamPort
from softcxl.wire import Reset

if TYPE_CHECKING:
    from softcxl.spec.command.events import EventNotificationRequest
    from softcxl.spec.pci.express import LinkCapabilities


class CommandInterface(Protocol):
    """A component's commands, for a door of one's own."""

    def execute(self, opcode: int, payload: bytes) -> Reply:
        """Answer one command. Never raises."""

    def close(self) -> None:
        """Nothing is sent any more."""


class LogicalDevices(Protocol):
    """A device of logical devices, or one head of it."""

    @property
    def name(self) -> str: ...

    @property
    def ld_count(self) -> int:
        """LD IDs that there can be, from 0 on, those without memory too."""

    @property
    def single(self) -> bool:
        """It is a head with one logical device, which is to a port as any other device is."""

    @property
    def fm_owned(self) -> Function:
        """The FM-owned logical device."""

    def function(self, ld: int | None = None) -> Function | None:
        """A logical device, None where it has no memory; without an LD ID the single one."""

    def management(self, send: Callable[[EventNotificationRequest], None]) -> CommandInterface:
        """Commands of the FM-owned logical device."""

    def reset(self, kind: Reset = Reset.HOT) -> None:
        """Reset it as a whole."""

    def link_changed(self, *, up: bool, perst: bool) -> None:
        """The link has come up or gone down, maybe because PERST# is asserted."""


@runtime_checkable
class Bindable(Protocol):
    """A function that knows whether it is bound, as a logical device does."""

    def bind(self, holder: str) -> None:
        """It is bound from now on. Raises `ValueError` where it is already, by whatever way."""

    def unbind(self, *, used: bool = True) -> None:
        """It is not any more, and no host has it in its hands: if one may have `used` it, its contents are what the
        device's policy says."""


Occupant = Function | LogicalDevices
"""A device, a switch's upstream port, or a device of logical devices."""


def multi_logical(occupant: Occupant | None) -> bool:
    """It has logical devices, of which each is bound by itself."""
    return occupant is not None and not isinstance(occupant, Function) and not occupant.single


def function(occupant: Occupant | None, ld: int | None) -> Function | None:
    """The logical device of that LD ID; without one, what is there alone."""
    if isinstance(occupant, Function):
        return occupant if ld is None else None
    return None if occupant is None else occupant.function(ld)


def functions(occupant: Occupant | None) -> list[Function]:
    """Function 0 of all that can be reached in it, by LD ID."""
    if occupant is None or isinstance(occupant, Function):
        return [] if occupant is None else [occupant]
    found = [occupant.function(ld) for ld in range(occupant.ld_count)]
    return [one for one in found if one is not None]


def link_of(occupant: Occupant | None) -> LinkCapabilities | None:
    """What its end of the link is capable of."""
    if occupant is None:
        return None
    end = occupant if isinstance(occupant, Function) else occupant.fm_owned
    return end.express.link_capabilities


def name_of(occupant: Occupant) -> str:
    """What people call it."""
    return str(getattr(occupant, "name", type(occupant).__name__))


def device_type(occupant: Occupant | None) -> ConnectedDeviceType:
    """What a port tells of what is connected to it (CXL 3.2 §7.6.7.1.2)."""
    if occupant is None:
        return ConnectedDeviceType.NONE
    if not isinstance(occupant, Function):
        return ConnectedDeviceType.TYPE_3_SLD if occupant.single else ConnectedDeviceType.TYPE_3_MLD
    if isinstance(occupant, UpstreamPort):
        return ConnectedDeviceType.TYPE_2_OR_HBR_SWITCH
    if not isinstance(occupant, Endpoint):
        return ConnectedDeviceType.PCIE
    capability = occupant.dvsec.capability
    if not capability.mem_capable:
        return ConnectedDeviceType.TYPE_1
    return (
        ConnectedDeviceType.TYPE_2_OR_HBR_SWITCH
        if capability.cache_capable
        else ConnectedDeviceType.TYPE_3_SLD
    )


def device_mode(occupant: Occupant | None) -> ConnectedDeviceMode:
    """What the link to it runs."""
    if device_type(occupant) in (ConnectedDeviceType.NONE, ConnectedDeviceType.PCIE):
        return ConnectedDeviceMode.NOT_CXL
    return ConnectedDeviceMode.VH_68B


@contextmanager
def machines(functions: Iterable[Function]) -> Iterator[None]:
    """The locks of the machines that functions are plugged into, which come before their own."""
    locks = {id(one.seat.bus.lock): one.seat.bus.lock for one in functions if one.seat is not None}
    with ExitStack() as stack:
        for _, lock in sorted(locks.items()):
            stack.enter_context(lock)
        yield


def reset(occupant: Occupant | None, kind: Reset) -> None:
    """Reset all of it, wherever its functions are plugged in."""
    with machines(functions(occupant)):
        if occupant is not None:
            occupant.reset(kind)
