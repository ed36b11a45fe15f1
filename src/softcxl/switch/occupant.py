"""What may be plugged into a physical port: a function, of a device or a switch, or a device of logical devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

from softcxl.device.cci import Reply
from softcxl.device.endpoint import Endpoint
from softcxl.pci.function import Function
from softcxl.spec.fm.switch import ConnectedDeviceMode, ConnectedDeviceType
from softcxl.switch.upstream import UpstreamPort
from softcxl.wire import Reset

if TYPE_CHECKING:
    from softcxl.spec.command.events import EventNotificationRequest


class CommandInterface(Protocol):
    """A component's commands, for a door of one's own."""

    @property
    def payload_max(self) -> int:
        """The largest payload of a request or response, in bytes."""

    def execute(self, opcode: int, payload: bytes = b"") -> Reply:
        """Answer one command. Never raises."""

    def close(self) -> None:
        """Nothing is sent any more."""


class LogicalDevices(Protocol):
    """A device that several hosts may use a part of: logical devices, by their LD IDs, and one that the fabric manager
    owns."""

    @property
    def name(self) -> str: ...

    @property
    def ld_count(self) -> int:
        """LD IDs that there can be, from 0 on, those without memory too."""

    @property
    def logical(self) -> Mapping[int, Function]:
        """Logical devices with memory, each a function of its own, by LD ID."""

    def claim(self, ld: int) -> bool:
        """A logical device is bound to a host from now on. False where it is already, through whatever head, or is
        not there."""

    def release(self, ld: int) -> None:
        """It is not any more, and no host has it in its hands: its contents go as the device's policy says."""

    def management(self, send: Callable[[EventNotificationRequest], None]) -> CommandInterface:
        """Commands of the FM-owned logical device."""


Occupant = Function | LogicalDevices
"""A device with one logical device or none, a switch's upstream port; or a device of logical devices."""


def functions(occupant: Occupant | None) -> Iterator[Function]:
    """Function 0 of all that can be reached in it, by LD ID."""
    if isinstance(occupant, Function):
        yield occupant
    elif occupant is not None:
        yield from list(occupant.logical.values())


def name_of(occupant: Occupant) -> str:
    """What people call it."""
    return str(getattr(occupant, "name", type(occupant).__name__))


def device_type(occupant: Occupant | None) -> ConnectedDeviceType:
    """What a port tells of what is connected to it (CXL 3.2 §7.6.7.1.2)."""
    if occupant is None:
        return ConnectedDeviceType.NONE
    if not isinstance(occupant, Function):
        return ConnectedDeviceType.TYPE_3_MLD
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


def reset(function: Function, kind: Reset) -> None:
    """Reset a function wherever it is plugged in: the machine's lock comes before its own."""
    with nullcontext() if function.seat is None else function.seat.bus.lock:
        function.reset(kind)
