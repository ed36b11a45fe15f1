"""What a switch tells its fabric manager of itself: events of physical ports, virtual switches and MLD ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.device.events import EventLogs
from softcxl.device.timestamp import TimestampCommands
from softcxl.pci.aer import Kind, Message
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.device import EventStatus
from softcxl.spec.cxl.events import EventHeader
from softcxl.spec.fm.events import (
    MLD_PORT_EVENT,
    PHYSICAL_SWITCH_EVENT,
    VIRTUAL_SWITCH_EVENT,
    MldPortEvent,
    MldPortEventType,
    PhysicalSwitchEvent,
    PhysicalSwitchEventType,
    VirtualSwitchEvent,
    VirtualSwitchEventType,
)
from softcxl.spec.fm.vcs import NO_BOUND_LD
from softcxl.switch.fm.port_state import information

if TYPE_CHECKING:
    from softcxl.switch.physical import PhysicalSwitch
    from softcxl.switch.physical_port import PhysicalPort
    from softcxl.switch.virtual import Vppb

_CODES = {Kind.CORRECTABLE: 0x30, Kind.NON_FATAL: 0x31, Kind.FATAL: 0x33}
"""Message codes (PCIe 6.0 Table 2-26)."""

_ROUTED_TO_ROOT = 0x30
"""Format and type of a message without data that is routed to the root complex (PCIe 6.0 §2.2.8)."""

_TYPES = {
    Kind.CORRECTABLE: MldPortEventType.CORRECTABLE_ERROR_MESSAGE,
    Kind.NON_FATAL: MldPortEventType.NONFATAL_ERROR_MESSAGE,
    Kind.FATAL: MldPortEventType.FATAL_ERROR_MESSAGE,
}


class Reports:
    """The event records of `switch`, in logs of `depth` records each. Safe from any thread."""

    def __init__(self, switch: PhysicalSwitch, depth: int, timestamp: TimestampCommands) -> None:
        self.logs = EventLogs(
            depth,
            timestamp,
            EventStatus(),
            payload_max=switch.payload_max,
            vectors=1,
            interrupt=lambda vector: None,  # a mailbox CCI has interrupts of its own
            lock=switch.lock,
        )

    def physical(self, port: PhysicalPort, what: PhysicalSwitchEventType) -> None:
        """The link or the slot of a physical port is not as it was."""
        told = information(port)
        self.logs.record(
            EventLog.INFORMATIONAL,
            PhysicalSwitchEvent(
                header=EventHeader(identifier=PHYSICAL_SWITCH_EVENT),
                port=port.number,
                event_type=what,
                slot_status=0 if port.ppb is None else int(port.ppb.express.slot_status),
                configuration=told.configuration,
                connected_device=told.connected_device,
                connected_device_type=told.connected_device_type,
                supported_modes=told.supported_modes,
                maximum_link_width=told.maximum_link_width,
                negotiated_link_width=told.negotiated_link_width,
                supported_link_speeds=told.supported_link_speeds,
                maximum_link_speed=told.maximum_link_speed,
                current_link_speed=told.current_link_speed,
                ltssm_state=told.ltssm_state,
                first_lane=told.first_lane,
                link_state=told.link_state,
            ),
        )

    def binding(self, vppb: Vppb, *, failed: bool) -> None:
        """A binding change has been made, or has failed."""
        self._virtual(
            EventLog.WARNING if failed else EventLog.INFORMATIONAL,
            vppb,
            VirtualSwitchEventType.BINDING_CHANGE,
        )

    def slot(self, vppb: Vppb, what: VirtualSwitchEventType) -> None:
        """A host has written a register of a vPPB."""
        self._virtual(EventLog.INFORMATIONAL, vppb, what)

    def _virtual(self, log: EventLog, vppb: Vppb, what: VirtualSwitchEventType) -> None:
        bridge, port = vppb.bridge, vppb.port
        self.logs.record(
            log,
            VirtualSwitchEvent(
                header=EventHeader(identifier=VIRTUAL_SWITCH_EVENT),
                vcs=vppb.virtual.number,
                vppb=vppb.number,
                event_type=what,
                binding_status=vppb.status,
                bound_port=0 if port is None else port.number,
                bound_ld=NO_BOUND_LD if vppb.ld is None else vppb.ld,
                link_control=0 if bridge is None else int(bridge.express.link_control),
                slot_control=0 if bridge is None else int(bridge.express.slot_control),
            ),
        )

    def mld(self, port: PhysicalPort, message: Message) -> None:
        """An error message has come from a port with logical devices."""
        correctable = message.kind is Kind.CORRECTABLE
        header = bytes([_ROUTED_TO_ROOT, 0, 0, 0]) + message.source.to_bytes(2, "big")
        self.logs.record(
            EventLog.WARNING if correctable else EventLog.FAILURE,
            MldPortEvent(
                header=EventHeader(identifier=MLD_PORT_EVENT),
                event_type=_TYPES[message.kind],
                port=port.number,
                message=header + bytes([0, _CODES[message.kind]]),
            ),
        )
