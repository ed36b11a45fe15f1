"""A physical CXL switch: ports, virtual switches over them, and bindings between the two.

>>> from softcxl.device.type3 import Type3
>>> switch = PhysicalSwitch("rack", ports=2, virtual=[("left", 2), ("right", 2)])
>>> switch.ports[0].insert(Type3("mem0", volatile=256 << 20))
>>> switch.bind(0, 1, port=0)
>>> switch.virtual[0].vppbs
[<vPPB left.0 UNBOUND>, <vPPB left.1 BOUND_PORT 0>]
>>> switch.bind(1, 0, port=0)
Traceback (most recent call last):
softcxl.switch.binding.BindingError: rack port 0 is bound already: <vPPB left.1 BOUND_PORT 0>
>>> switch.unbind(0, 1).code.name
'SUCCESS'
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from softcxl.device.clock import Clock, SystemClock
from softcxl.device.management import MESSAGE_LIMITS
from softcxl.device.timestamp import TimestampCommands
from softcxl.spec.fm.vcs import UnbindOption
from softcxl.switch.binding import Bind, BindingError, Observer, Unbind
from softcxl.switch.fm.management import Commands, SwitchManagement
from softcxl.switch.physical_port import PhysicalPort
from softcxl.switch.reports import Reports
from softcxl.switch.upstream import UpstreamPort
from softcxl.switch.virtual import VirtualSwitch, Vppb

if TYPE_CHECKING:
    from softcxl.device.events import EventLogs
    from softcxl.spec.command.events import EventNotificationRequest
    from softcxl.spec.cxl.port import FlexBusCapability

MAX_PORTS: Final = 255
"""Physical ports of a switch, upstream ones too: the fabric manager's numbers are a byte."""

MAX_VPPBS: Final = 255
"""Downstream vPPBs of a virtual switch."""

PAYLOAD_MAX: Final = 8192
"""The largest payload of a request or response, in bytes: room for 4 KiB of memory in a tunnel."""

PATIENCE: Final = 60.0
"""Seconds that a host has to let go of a device."""


class PhysicalSwitch:
    """The switch `name` with `ports` downstream physical ports, numbered from 0, and a virtual switch for each (name,
    number of vPPBs) of `virtual`, whose upstream ports are the physical ports after those.

    `hdm_decoders` is what it tells of its upstream ports. `patience` is how long (seconds) hosts have to let go of a
    device, `event_log_depth` how many records each event log keeps. Where no `clock` is given it has one of its own;
    `close` stops it. `observers` are told of binding changes. Raises `ValueError` for numbers that cannot be.
    """

    def __init__(
        self,
        name: str,
        *,
        ports: int,
        virtual: Sequence[tuple[str, int]],
        clock: Clock | None = None,
        serial: int = 0,
        hdm_decoders: int = 8,
        event_log_depth: int = 255,
        payload: int = PAYLOAD_MAX,
        patience: float = PATIENCE,
    ) -> None:
        if not 0 <= ports <= ports + len(virtual) <= MAX_PORTS:
            raise ValueError(
                f"{name}: {ports} downstream and {len(virtual)} upstream ports; up to {MAX_PORTS} in all"
            )
        for one, count in virtual:
            if not 1 <= count <= MAX_VPPBS:
                raise ValueError(f"{name}: {one} has {count} vPPBs; 1 to {MAX_VPPBS} are allowed")
        if payload & payload - 1 or not 1 << MESSAGE_LIMITS[0] <= payload <= 1 << MESSAGE_LIMITS[-1]:
            raise ValueError(
                f"{name}: a payload of {payload} bytes; a power of two from 256 to 1 MiB is allowed"
            )
        self.name, self.serial, self.hdm_decoders = name, serial, hdm_decoders
        self.payload_max, self.patience = payload, patience
        self._own_clock = SystemClock() if clock is None else None
        self.clock: Clock = clock or self._own_clock or SystemClock()
        self.lock = threading.RLock()
        self.observers: list[Observer] = []
        self.witness: Callable[[str, PhysicalPort], None] = lambda what, port: None
        """Told what is done to ports: inserted, removed (it is there yet), perst-asserted, perst-deasserted, reset."""
        self.pattern = UpstreamPort(
            name, 1
        )  # what an upstream port is, where no host in this process has one
        self.timestamp = TimestampCommands(self.clock)
        self.reports = Reports(self, event_log_depth, self.timestamp)
        self.ports = {number: PhysicalPort(self, number, f"{name} port {number}") for number in range(ports)}
        self.virtual: dict[int, VirtualSwitch] = {}
        for number, (one, count) in enumerate(virtual):
            port = ports + number
            made = self.virtual[number] = VirtualSwitch(self, number, one, count, port)
            self.ports[port] = PhysicalPort(self, port, f"{name} port {port}", made)
        self.commands = Commands(self)

    def __repr__(self) -> str:
        return f"<physical switch {self.name}: {len(self.ports)} ports, {len(self.virtual)} virtual switches>"

    def close(self) -> None:
        """Let go of the clock, and of what is in the ports."""
        self.commands.mld_ports.close()
        if self._own_clock is not None:
            self._own_clock.close()

    @property
    def events(self) -> EventLogs:
        """The event logs."""
        return self.reports.logs

    @property
    def flex_bus(self) -> FlexBusCapability:
        """What its links can run."""
        return self.pattern.cxl.flex_bus.capability

    def vppb(self, vcs: int, vppb: int) -> Vppb:
        """A downstream vPPB. Raises `BindingError` (Invalid Input) where it is not there."""
        virtual = self.virtual.get(vcs)
        if virtual is None:
            raise BindingError(f"{self.name} has no virtual switch {vcs}; there are {len(self.virtual)}")
        if not 0 <= vppb < len(virtual.vppbs):
            raise BindingError(f"{virtual.name} has no vPPB {vppb}; there are {len(virtual.vppbs)}, from 0")
        return virtual.vppbs[vppb]

    def bind(self, vcs: int, vppb: int, port: int, ld: int | None = None) -> None:
        """Bind a vPPB to a physical port, or to logical device `ld` of what is in it; its host sees what is there
        arrive. Raises `BindingError`, and then nothing has changed."""
        operation = Bind(self, vcs, vppb, port, ld)
        operation.run()
        if operation.code:
            raise BindingError(f"{operation.vppb!r}: {operation.problem}", operation.code)

    def unbind(self, vcs: int, vppb: int, option: UnbindOption = UnbindOption.MANAGED_HOT_REMOVE) -> Unbind:
        """Unbind a vPPB: managed, the host is asked to let go of the device; surprise, it loses it at once. `code` of
        what is returned is None until it has ended. Raises `BindingError` for what cannot be unbound."""
        operation = Unbind(self, vcs, vppb, option)
        operation.run()
        return operation

    def management(
        self, send: Callable[[EventNotificationRequest], None], vcs: int | None = None
    ) -> SwitchManagement:
        """A command interface of the switch, for an MCTP endpoint or whatever other door: `send` is called with each
        Event Notification that is due, locks held: it only passes it on. `vcs` says of which virtual switch the host
        is whose door it is, where it is one's. Close it with its door."""
        return SwitchManagement(self, send, None if vcs is None else self.virtual[vcs])
