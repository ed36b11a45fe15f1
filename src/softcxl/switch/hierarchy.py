"""A virtual switch that a host in this process sees: an upstream port whose downstream ports are the vPPBs."""

from __future__ import annotations

from collections.abc import Callable

from softcxl.pci.aer import report
from softcxl.pci.function import Function
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.events import VirtualSwitchEventType
from softcxl.spec.fm.vcs import UnbindOption
from softcxl.switch.cdat import SwitchPerformance
from softcxl.switch.port import CxlDownstreamPort, CxlLink
from softcxl.switch.tenant import Done, Tenant
from softcxl.switch.upstream import UpstreamPort
from softcxl.wire import Reset


class Hierarchy(Tenant):
    """The PCI hierarchy of a virtual switch called `name` with `vppbs` vPPBs: `upstream` is to be plugged into a root
    port, or a switch's port. The other arguments are those of `UpstreamPort`.

    A managed removal pushes the button of the vPPB's slot, and is done when software has turned its power off; while no
    software has numbered the buses there is nobody to ask.
    """

    def __init__(
        self,
        name: str,
        vppbs: int,
        *,
        decoders: int = 8,
        serial: int = 0,
        performance: SwitchPerformance | None = None,
    ) -> None:
        self.slots: list[VppbPort] = []
        self.told: Callable[[int, VirtualSwitchEventType], None] = lambda vppb, what: None
        self.restarted: Callable[[], None] = lambda: None
        self.upstream = _Upstream(
            self, name, vppbs, decoders=decoders, serial=serial, performance=performance
        )

    @property
    def link_up(self) -> bool:
        seat = self.upstream.seat
        above = None if seat is None else seat.bus.bridge
        return isinstance(above, CxlLink) and above.link_up

    def plug(self, vppb: int, function: Function) -> None:
        slot = self.slots[vppb]
        slot.cut(False)
        if slot.managed:
            slot.insert(function, Reset.HOT)
        else:
            slot.plug(function)

    def unplug(self, vppb: int, function: Function, option: UnbindOption, done: Done) -> None:
        slot = self.slots[vppb]
        with slot.below.lock, slot.lock:
            in_use = slot.managed and slot.present and not slot.off
            wait = in_use and option is UnbindOption.MANAGED_HOT_REMOVE
            if wait:
                slot.leaving = done
                slot.press()
            else:
                slot.leave()
        if not wait:
            done(ReturnCode.SUCCESS)

    def keep(self, vppb: int, function: Function) -> bool:
        slot = self.slots[vppb]
        with slot.below.lock, slot.lock:  # whoever turns the power off now holds them to the end
            waited, slot.leaving = slot.leaving, None
        return waited is not None

    def link(self, vppb: int, *, up: bool) -> None:
        self.slots[vppb].cut(not up)

    def error(self, vppb: int | None, name: str, *, correctable: bool, header: int) -> None:
        function = self.upstream if vppb is None else self.slots[vppb]
        report(function, name, correctable=correctable, header=header)


class _Upstream(UpstreamPort):
    def __init__(
        self,
        hierarchy: Hierarchy,
        name: str,
        vppbs: int,
        *,
        decoders: int,
        serial: int,
        performance: SwitchPerformance | None,
    ) -> None:
        self._hierarchy = hierarchy
        super().__init__(name, vppbs, decoders=decoders, serial=serial, performance=performance)

    def on_reset(self, kind: Reset) -> None:
        super().on_reset(kind)
        if not kind.of_function:
            self._hierarchy.restarted()

    def make_port(self, number: int) -> CxlLink:
        slot = VppbPort(self._hierarchy, f"{self.name} vPPB {number}", number)
        self._hierarchy.slots.append(slot)
        return slot


class VppbPort(CxlDownstreamPort):
    """A downstream vPPB, with a slot of its own. `leaving` waits for its power to be turned off."""

    def __init__(self, hierarchy: Hierarchy, name: str, number: int) -> None:
        self.leaving: Done | None = None
        self._hierarchy = hierarchy
        super().__init__(name, port_number=number, slot=number + 1)

    @property
    def managed(self) -> bool:
        """Software has numbered the bus below: it is there to be told."""
        return self.secondary != 0

    @property
    def off(self) -> bool:
        """Software has turned the slot's power off."""
        return self.express.slot_control.power_off

    def reset_below(self, kind: Reset) -> None:
        """What is below has its power from a physical port, whatever becomes of the host's."""
        super().reset_below(Reset.HOT if kind is Reset.COLD else kind)

    def powered_off(self) -> None:
        """If the device was to leave, it does now."""
        super().powered_off()
        done, self.leaving = self.leaving, None
        if done is not None:
            self.leave()
            done(ReturnCode.SUCCESS)

    def leave(self) -> None:
        """Nothing is below any more, whatever was, and whatever became of its link."""
        self.leaving = None
        if self.present:
            self.remove(Reset.HOT)
        self.cut(False)

    def _secondary_bus_reset(self, old: int, new: int) -> None:
        super()._secondary_bus_reset(old, new)
        if new and not old:
            self._hierarchy.told(self.port_number, VirtualSwitchEventType.SECONDARY_BUS_RESET)

    def _control_link(self, old: int, new: int) -> None:
        super()._control_link(old, new)
        self._hierarchy.told(self.port_number, VirtualSwitchEventType.LINK_CONTROL_REGISTER_UPDATED)

    def _command_slot(self, old: int, new: int) -> None:
        super()._command_slot(old, new)
        self._hierarchy.told(self.port_number, VirtualSwitchEventType.SLOT_CONTROL_REGISTER_UPDATED)
