"""Slots: what an operating system does when one tells that a button was pushed, or that a device came or went.

It is what Linux does (drivers/pci/hotplug/pciehp_ctrl.c), but at once: a button's five seconds to think again are left
out, and a slot out of which a device was pulled keeps its power.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from softcxl.host.enumerate import Node
from softcxl.host.errors import EnumerationError
from softcxl.spec.pci.bridge import (
    Indicator,
    PortExpress,
    PortLinkStatus,
    SlotControl,
    SlotStatus,
)
from softcxl.spec.pci.express import ExpressCapabilities

if TYPE_CHECKING:
    from softcxl.host.memdev import Memdev
    from softcxl.host.region import Region
    from softcxl.host.system import System

_CAPABILITIES, _LINK, _CONTROL, _STATUS = (
    one.__layout__.offset
    for one in (
        PortExpress.capabilities,
        PortExpress.link_status,
        PortExpress.slot_control,
        PortExpress.slot_status,
    )
)
_EVENTS = SlotStatus.make(
    attention_button_pressed=True,
    presence_detect_changed=True,
    command_completed=True,
    link_state_changed=True,
)


@dataclass(frozen=True, slots=True)
class SlotEvent:
    """What became of the slot of `port`, a PCI port's name: "added", with the memory devices that are there now;
    "removed" by its button, or "lost" without notice, with the regions that are disabled for it; or "empty", where a
    button was pushed for nothing. `problem` says why what is in the slot could not be brought up."""

    port: str
    event: str
    memdevs: list[Memdev] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    problem: str = ""


def service(system: System) -> list[SlotEvent]:
    """See to every slot that has something to tell, and acknowledge it; returns what was done, in order."""
    done: list[SlotEvent] = []
    for node in list(system.nodes()):
        express = _slot(node)
        if express is None:
            continue
        status = SlotStatus(_acknowledge(node, express))
        if status.attention_button_pressed:
            done.append(_button(system, node, express, present=status.presence_detect))
        elif status.presence_detect_changed or status.link_state_changed:
            if node.below:
                done.append(SlotEvent(node.name, "lost", regions=system.hot_remove(node.name)))
            if status.presence_detect:
                if SlotControl(node.config.read(express + _CONTROL, 2)).power_off:
                    _power(node, express, on=True)
                done.append(_add(system, node))
        _acknowledge(node, express)
    return done


def _button(system: System, node: Node, express: int, *, present: bool) -> SlotEvent:
    if node.below:
        regions = system.hot_remove(node.name)
        _power(node, express, on=False)
        return SlotEvent(node.name, "removed", regions=regions)
    if not present:
        return SlotEvent(node.name, "empty")
    _power(node, express, on=True)
    return _add(system, node)


def _add(system: System, node: Node) -> SlotEvent:
    express = _slot(node)
    if express is None or not PortLinkStatus(node.config.read(express + _LINK, 2)).data_link_layer_active:
        return SlotEvent(node.name, "added", problem=f"{node.name}: the link does not come up")
    try:
        return SlotEvent(node.name, "added", system.hot_add(node.name))
    except EnumerationError as error:
        return SlotEvent(node.name, "added", problem=str(error))


def _power(node: Node, express: int, *, on: bool) -> None:
    control = SlotControl(node.config.read(express + _CONTROL, 2))
    control.power_off = not on
    control.power_indicator = Indicator.ON if on else Indicator.OFF
    node.config.write(express + _CONTROL, int(control), 2)


def acknowledge(node: Node) -> None:
    """Whatever the slot of a port tells is by the system's own doing."""
    express = _slot(node)
    if express is not None:
        _acknowledge(node, express)


def _acknowledge(node: Node, express: int) -> int:
    """Clear what a slot tells; returns what that was."""
    status = node.config.read(express + _STATUS, 2)
    node.config.write(express + _STATUS, status & int(_EVENTS), 2)
    return status


def _slot(node: Node) -> int | None:
    """Where the PCI Express capability of a port is that has a slot, and answers."""
    express = node.config.express() if node.bridge else None
    if express is None:
        return None
    capabilities = ExpressCapabilities(node.config.read(express + _CAPABILITIES, 2))
    return express if capabilities.slot_implemented and node.config.present else None
