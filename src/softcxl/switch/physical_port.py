"""Physical ports of a switch: a slot and a link, and the PCI-PCI bridge that the fabric manager sees of them."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from softcxl.device.type3 import Type3
from softcxl.memory.errors import MemoryFault
from softcxl.pci.function import Function, unheard
from softcxl.spec.cxl.port import FlexBusPortDvsec
from softcxl.spec.fm.events import PhysicalSwitchEventType
from softcxl.spec.fm.switch import LtssmState, PortConfigurationState
from softcxl.switch.occupant import (
    Bindable,
    Occupant,
    function,
    functions,
    link_of,
    multi_logical,
    name_of,
    reset,
)
from softcxl.switch.port import CxlDownstreamPort
from softcxl.wire import Reset

if TYPE_CHECKING:
    from softcxl.pci.aer import Message
    from softcxl.switch.physical import PhysicalSwitch
    from softcxl.switch.virtual import VirtualSwitch, Vppb

log = logging.getLogger(__name__)


class PhysicalPort:
    """A port of a physical switch. Downstream ones have a `ppb`, and `device` in the slot below; the upstream port of
    a virtual switch has neither. `bindings` are the vPPBs bound to it, by LD ID (None: to the whole port)."""

    def __init__(
        self, switch: PhysicalSwitch, number: int, name: str, virtual: VirtualSwitch | None = None
    ) -> None:
        self.switch, self.number, self.name, self.virtual = switch, number, name, virtual
        self.device: Occupant | None = None
        self.perst = False
        self.bindings: dict[int | None, Vppb] = {}
        self._holding = threading.RLock()  # of what is there, and who has it
        self._held: dict[int | None, Function] = {}  # what is there of that which is bound, by LD ID
        self._enabled = True
        self.ppb = PhysicalBridge(self) if virtual is None else None

    def __repr__(self) -> str:
        there = "upstream" if self.virtual else name_of(self.device) if self.device else "empty"
        return f"<port {self.number} of {self.switch.name}: {there}>"

    # -- what is true of it --------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """It is in use: one that is disabled has no link. Settable."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        if self.ppb is not None:
            self.ppb.look()

    @property
    def link_up(self) -> bool:
        """The link is up, to what is in the slot or to the host."""
        if self.virtual is not None:
            return self._enabled and self.virtual.tenant.link_up
        return self.ppb is not None and self.ppb.link_up

    @property
    def multi_logical(self) -> bool:
        """What is in the slot has logical devices."""
        return multi_logical(self.device)

    @property
    def ltssm(self) -> LtssmState:
        """Where the link is."""
        if self.link_up:
            return LtssmState.L0
        if not self._enabled:
            return LtssmState.DISABLED
        if self.ppb is None or self.device is None or self.perst or self.ppb.express.slot_control.power_off:
            return LtssmState.DETECT
        if self.ppb.held_in_reset:
            return LtssmState.HOT_RESET
        contained = self.ppb.dpc.status.triggered
        return LtssmState.DISABLED if contained or self.ppb.disabled else LtssmState.DETECT

    @property
    def configuration(self) -> PortConfigurationState:
        """Current Port Configuration State."""
        if not self._enabled:
            return PortConfigurationState.DISABLED
        if self.virtual is not None:
            return PortConfigurationState.USP
        whole = self.bindings.get(None)
        operation = None if whole is None else whole.operation
        if operation is None:
            return PortConfigurationState.DSP
        return (
            PortConfigurationState.BIND_IN_PROGRESS
            if operation.change.bound
            else PortConfigurationState.UNBIND_IN_PROGRESS
        )

    def function(self, ld: int | None) -> Function | None:
        """What a vPPB that is bound to it, or to an LD of it, leads to now; None where the link is down."""
        return self._held.get(ld) if self.link_up else None

    # -- bindings ------------------------------------------------------------------------------------------------

    def held(self, ld: int | None) -> Function | None:
        """What is there of a binding, whether or not the link is up."""
        return self._held.get(ld)

    def hold(self, ld: int | None, holder: str) -> None:
        """Take what is there for a binding, where there is anything. Raises `ValueError` where somebody else has it
        already, as through another head."""
        with self._holding:
            found = function(self.device, ld)
            if found is None or self._held.get(ld) is found:
                return
            if isinstance(found, Bindable):
                found.bind(holder)
            elif isinstance(found, Type3) and found.custody.holder is not None:
                raise ValueError(f"{found.name} is {found.custody.holder}'s")
            self._held[ld] = found
            if ld is not None:
                found.overheard = self._error

    def release(self, ld: int | None, *, used: bool = True) -> None:
        """A binding ends, and no host uses what is there: what one left in it goes, if it was `used`."""
        with self._holding:
            held = self._held.pop(ld, None)
            if held is None:
                return
            held.overheard = unheard
            if isinstance(held, Bindable):
                held.unbind(used=used)
                return
            if used and held.seat is None and not self.perst:
                held.reset(Reset.COLD)
            _leave_windows(held)

    def _error(self, message: Message) -> None:
        """A logical device of what is in the slot has sent an error message."""
        if self.link_up:
            self.switch.reports.mld(self, message)

    # -- the slot ------------------------------------------------------------------------------------------------

    def insert(self, device: Occupant) -> None:
        """Push a device, or a switch's upstream port, into the slot; hosts that the port is bound to see it arrive.

        Raises `ValueError` where something is there, it is an upstream port, or the device is in use elsewhere.
        """
        if self.ppb is None:
            raise ValueError(f"{self.name} is an upstream port: nothing can be plugged in below")
        with self.switch.lock:
            if self.device is not None:
                raise ValueError(f"{self.name} has {name_of(self.device)} in its slot")
            if isinstance(device, Function) and (
                device.seat is not None or any(one.device is device for one in self.switch.ports.values())
            ):
                raise ValueError(f"{name_of(device)} is plugged in elsewhere")
            self.device = device
            bound = list(self.bindings.items())
        for ld, vppb in bound:
            try:
                self.hold(ld, vppb.name)
            except ValueError as error:
                log.warning("%r: %s", vppb, error)
        if self.perst:
            for one in functions(device):
                one.silence()
        if not isinstance(device, Function) and not device.single:
            device.fm_owned.overheard = self._error
        self.switch.witness("inserted", self)
        self.ppb.slot_changed()

    def remove(self) -> Occupant:
        """Pull out what is in the slot, whoever uses it; it has no power then. What was bound stays bound, and leads
        nowhere. Raises `ValueError` for an empty slot."""
        if self.device is None or self.ppb is None:
            raise ValueError(f"the slot of {self.name} is empty")
        self.switch.witness("removed", self)
        _tell_link(self.device, up=False)
        with self._holding:  # from here on nobody gets it
            device, self.device = self.device, None
            held, self._held = self._held, {}
        if device is None:
            raise ValueError(f"the slot of {self.name} is empty")
        for vppb in list(self.bindings.values()):
            vppb.pull()
        for one in held.values():
            one.overheard = unheard
            if isinstance(one, Bindable):
                one.unbind(used=False)
        self.ppb.slot_changed()
        for vppb in list(self.bindings.values()):
            if vppb.operation is not None:
                vppb.operation.link_down()
        if self.perst:
            for one in functions(device):
                one.wake(Reset.COLD)
        if not isinstance(device, Function):
            device.fm_owned.overheard = unheard
            device.link_changed(up=False, perst=False)
        reset(device, Reset.COLD)
        for one in held.values():
            _leave_windows(one)
        return device

    # -- the link ------------------------------------------------------------------------------------------------

    def assert_perst(self) -> None:
        """Assert PERST#: the device is held in reset, its link down, until it is deasserted."""
        if self.perst or self.ppb is None:
            return
        self.switch.witness("perst-asserted", self)
        self.perst = True
        self.ppb.look()
        for one in functions(self.device):
            one.silence()

    def deassert_perst(self) -> None:
        """Deassert PERST#: the device starts as after a cold reset, and its link comes up."""
        if not self.perst or self.ppb is None:
            return
        self.switch.witness("perst-deasserted", self)
        self.perst = False
        for one in functions(self.device):
            one.wake(Reset.COLD)
        if not isinstance(self.device, Function):
            reset(self.device, Reset.COLD)
        self.ppb.look()

    def cut(self, broken: bool = True) -> None:
        """Break the link, as a cable that is pulled while the device stays powered; or mend it."""
        if self.ppb is not None:
            self.ppb.cut(broken)

    def reset_ppb(self) -> None:
        """Reset the port's bridge, and with it what is below."""
        if self.ppb is not None:
            self.switch.witness("reset", self)
            self.ppb.reset(Reset.HOT)

    def reset_device(self, kind: Reset) -> None:
        """Reset all that is in the slot."""
        reset(self.device, kind)

    def link_changed(self) -> None:
        """The link has gone down or come up: hosts see it."""
        self.switch.reports.physical(self, PhysicalSwitchEventType.LINK_STATE_CHANGE)
        up = self.link_up
        _tell_link(self.device, up=up)
        if self.device is not None and not isinstance(self.device, Function):
            self.device.link_changed(up=up, perst=self.perst)
        for vppb in list(self.bindings.values()):
            vppb.show_link()
            if up:
                vppb.settle()
            if not up and vppb.operation is not None:
                vppb.operation.link_down()


def _tell_link(occupant: Occupant | None, *, up: bool) -> None:
    """Whoever has the memory of what is in the slot by other ways than its link is told of it, too."""
    for one in functions(occupant):
        if isinstance(one, Type3):
            one.custody.link(up=up)


def _leave_windows(function: Function) -> None:
    """No host that had a device has its bytes in a window any more, whoever gets it next."""
    if isinstance(function, Type3):
        try:
            function.space.go_home()
        except MemoryFault as error:
            log.error("%s stays in the windows of who had it: %s", function.name, error)


class PhysicalBridge(CxlDownstreamPort):
    """The bridge of a physical port. On no bus: the fabric manager reads and writes its configuration space, and
    hosts see vPPBs."""

    def __init__(self, port: PhysicalPort) -> None:
        self._port = port
        super().__init__(port.name, port_number=port.number, slot=port.number + 1)
        self.flex_bus.capability.multi_logical_device_capable = True
        self.finish()

    @property
    def flex_bus(self) -> FlexBusPortDvsec:
        assert self.cxl is not None
        return self.cxl.flex_bus

    @property
    def present(self) -> bool:
        return self._port.device is not None

    @property
    def runs_cxl(self) -> bool:
        device = self._port.device
        return device is not None and (
            not isinstance(device, Function) or getattr(device, "flex_bus", None) is not None
        )

    @property
    def disabled(self) -> bool:
        """Software has disabled the link."""
        return self.express.link_control.link_disable and not self.disable_masked

    def _show_link(self) -> None:
        """It is as wide and as fast as both ends can be."""
        super()._show_link()
        able, status = self.express.link_capabilities, self.express.link_status
        other = link_of(self._port.device) or able
        if self._up:
            status.negotiated_link_width = min(able.max_link_width, other.max_link_width)
        status.current_link_speed = min(able.max_link_speed, other.max_link_speed)

    def _can_be_up(self) -> bool:
        return self._port.enabled and not self._port.perst and super()._can_be_up()

    def look(self) -> None:
        """What governs the link has changed."""
        with self.lock:
            self._settle()

    def slot_changed(self) -> None:
        """The device has come, or has gone."""
        with self.lock:
            self.express.slot_status.presence_detect = self.present
            self._event(presence_detect_changed=True)
            self._port.switch.reports.physical(
                self._port, PhysicalSwitchEventType.SLOT_STATUS_REGISTER_UPDATED
            )
            self._settle()

    def _settle(self) -> None:
        before = self._up
        super()._settle()
        if self._up != before:
            self._port.link_changed()

    def reset_below(self, kind: Reset) -> None:
        self._port.reset_device(kind)

    def on_reset(self, kind: Reset) -> None:
        before = self._up
        super().on_reset(kind)
        if self._up != before:
            self._port.link_changed()
