"""Event records of switches, which a fabric manager reads (CXL 3.1 §7.6.8)."""

from __future__ import annotations

import enum
from typing import Final
from uuid import UUID

from softcxl.spec.cxl.events import EVENT_RECORD_SIZE, EventHeader
from softcxl.spec.fm.switch import ConnectedDevice, CxlModes, PortConfiguration, PortLinkState
from softcxl.wire import Record, nested, raw, reserved, u8, u16, word

PHYSICAL_SWITCH_EVENT: Final = UUID("77cf9271-9c02-470b-9fe4-bc7b75f2da97")
VIRTUAL_SWITCH_EVENT: Final = UUID("40d26425-3396-4c4d-a5da-3d47263af425")
MLD_PORT_EVENT: Final = UUID("8dc44363-0c96-4710-b7bf-04bb99534c3f")


class PhysicalSwitchEventType(enum.IntEnum):
    """Event Type of a physical switch event (CXL 3.1 §7.6.8.1)."""

    LINK_STATE_CHANGE = 0
    SLOT_STATUS_REGISTER_UPDATED = 1


class PhysicalSwitchEvent(Record, size=EVENT_RECORD_SIZE, spec="CXL 3.1 §7.6.8.1"):
    """Physical Switch Event Record. What describes the port is as in `PortInformation`."""

    header: EventHeader = nested(EventHeader)
    port: int = u8()
    event_type: int = u8("a `PhysicalSwitchEventType`")
    slot_status: int = u16("Slot Status register")
    _reserved1: None = reserved(1)
    configuration: PortConfiguration = word(PortConfiguration)
    connected_device: ConnectedDevice = word(ConnectedDevice)
    _reserved2: None = reserved(1)
    connected_device_type: int = u8("a `ConnectedDeviceType`")
    supported_modes: CxlModes = word(CxlModes)
    maximum_link_width: int = u8("lanes")
    negotiated_link_width: int = u8("lanes")
    supported_link_speeds: int = u8("one bit a speed, 2.5 GT/s in bit 0")
    maximum_link_speed: int = u8("1: 2.5 GT/s, then a step a generation")
    current_link_speed: int = u8("1: 2.5 GT/s, then a step a generation")
    ltssm_state: int = u8("an `LtssmState`")
    first_lane: int = u8("lowest lane that was negotiated")
    link_state: PortLinkState = word(PortLinkState)
    _reserved3: None = reserved(0x3D)


class VirtualSwitchEventType(enum.IntEnum):
    """Event Type of a virtual CXL switch event (CXL 3.1 §7.6.8.2)."""

    BINDING_CHANGE = 0
    SECONDARY_BUS_RESET = 1
    LINK_CONTROL_REGISTER_UPDATED = 2
    SLOT_CONTROL_REGISTER_UPDATED = 3


class VirtualSwitchEvent(Record, size=EVENT_RECORD_SIZE, spec="CXL 3.1 §7.6.8.2"):
    """Virtual CXL Switch Event Record.

    Binding changes that succeed go to the informational log, those that fail to the warning log.
    """

    header: EventHeader = nested(EventHeader)
    vcs: int = u8()
    vppb: int = u8()
    event_type: int = u8("a `VirtualSwitchEventType`")
    binding_status: int = u8("a `BindingStatus`, after the change")
    bound_port: int = u8("physical port")
    bound_ld: int = u8("LD ID; FFh: none")
    link_control: int = u16("Link Control register")
    slot_control: int = u16("Slot Control register")
    _reserved: None = reserved(0x46)


class MldPortEventType(enum.IntEnum):
    """Event Type of an MLD port event: which error message the switch received (CXL 3.1 §7.6.8.3)."""

    CORRECTABLE_ERROR_MESSAGE = 0
    NONFATAL_ERROR_MESSAGE = 1
    FATAL_ERROR_MESSAGE = 2


class MldPortEvent(Record, size=EVENT_RECORD_SIZE, spec="CXL 3.1 §7.6.8.3"):
    """MLD Port Event Record. A correctable error goes to the warning log, others to the failure log."""

    header: EventHeader = nested(EventHeader)
    event_type: int = u8("an `MldPortEventType`")
    port: int = u8()
    _reserved1: None = reserved(2)
    message: bytes = raw(8, "first bytes of the error message, as received")
    _reserved2: None = reserved(0x44)
