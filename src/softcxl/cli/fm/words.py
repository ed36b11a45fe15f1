"""Records of the FM API as plain data for JSON, with names for numbers, and for people's tables."""

from __future__ import annotations

import enum
from typing import Any

from softcxl.fm import Event, Extent, Tag, VirtualSwitch
from softcxl.fm.bitmap import set_bits
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import DynamicCapacityEvent, DynamicCapacityEventType, EventRecord
from softcxl.spec.fm.dcd import GetDcdInfoResponse, HostDcRegion
from softcxl.spec.fm.events import (
    MldPortEvent,
    MldPortEventType,
    PhysicalSwitchEvent,
    PhysicalSwitchEventType,
    VirtualSwitchEvent,
    VirtualSwitchEventType,
)
from softcxl.spec.fm.mhd import HeadInformation
from softcxl.spec.fm.switch import (
    ConnectedDeviceType,
    IdentifySwitchDeviceResponse,
    LtssmState,
    PortInformation,
)
from softcxl.spec.fm.vcs import BindingStatus, VcsState, VppbInformation
from softcxl.wire import Register, ValueUnknown, to_plain

_SPEEDS = (2.5, 5.0, 8.0, 16.0, 32.0, 64.0)
"""Link speeds in GT/s, a step a generation (PCIe 6.0 §7.5.3.18)."""

CAPACITY_UNIT = 256 << 20


def name_of(kind: type[enum.IntEnum], value: int) -> str | int:
    """A number's name, or the number where it has none."""
    try:
        return kind(value).name.lower()
    except ValueError:
        return int(value)


def field_of(word: Register, name: str) -> str | int:
    """A field's value by name, or its number where it has none."""
    try:
        value = getattr(word, name)
    except ValueUnknown:
        field = next(one for one in type(word).__layout__.fields if one.name == name)
        return (int(word) & field.mask) >> field.lo
    return value.name.lower() if isinstance(value, enum.Enum) else int(value)


def speed(number: int) -> float | None:
    """A link speed in GT/s, None for a number that stands for none."""
    return _SPEEDS[number - 1] if 0 < number <= len(_SPEEDS) else None


def switch(identity: IdentifySwitchDeviceResponse) -> dict[str, Any]:
    """Identify Switch Device."""
    return {
        "ingress_port": identity.ingress_port,
        "ports": identity.port_count,
        "active_ports": set_bits(identity.active_ports),
        "virtual_switches": identity.vcs_count,
        "active_virtual_switches": set_bits(identity.active_vcss),
        "vppbs": identity.vppb_count,
        "bound_vppbs": identity.bound_vppb_count,
        "hdm_decoders": identity.hdm_decoder_count,
    }


def _link(one: PortInformation | HeadInformation | PhysicalSwitchEvent) -> dict[str, Any]:
    return {
        "ltssm": name_of(LtssmState, one.ltssm_state),
        "width": one.negotiated_link_width,
        "speed": speed(one.current_link_speed),
        "maximum_width": one.maximum_link_width,
        "maximum_speed": speed(one.maximum_link_speed),
        "supported_speeds": [
            speed(bit + 1) for bit in range(len(_SPEEDS)) if one.supported_link_speeds >> bit & 1
        ],
        "first_lane": one.first_lane,
        **to_plain(one.link_state),
    }


def port(one: PortInformation) -> dict[str, Any]:
    """A port information block. Speeds are in GT/s, widths in lanes."""
    return {
        "port": one.port,
        "state": field_of(one.configuration, "state"),
        "device": name_of(ConnectedDeviceType, one.connected_device_type),
        "mode": field_of(one.connected_device, "mode"),
        "supported_modes": [mode for mode, has in to_plain(one.supported_modes).items() if has],
        "supported_lds": one.supported_ld_count,
        "link": _link(one),
    }


def head(one: HeadInformation) -> dict[str, Any]:
    """A head information block."""
    return {"port": one.port, "link": _link(one)}


def vppb(number: int, one: VppbInformation) -> dict[str, Any]:
    """A vPPB. Its port and LD are None where it has none."""
    bound = one.status != BindingStatus.UNBOUND
    return {
        "vppb": number,
        "status": name_of(BindingStatus, one.status),
        "port": one.port if bound else None,
        "ld": one.ld if one.status == BindingStatus.BOUND_LD else None,
    }


def virtual_switch(one: VirtualSwitch) -> dict[str, Any]:
    """A virtual CXL switch with its vPPBs."""
    return {
        "vcs": one.id,
        "state": name_of(VcsState, one.state),
        "usp": one.usp,
        "vppbs": [vppb(number, found) for number, found in enumerate(one.vppbs)],
    }


def dc_info(one: GetDcdInfoResponse) -> dict[str, Any]:
    """Get DCD Info; capacity and block sizes in bytes."""
    masks = [getattr(one, f"block_sizes{region}") for region in range(min(8, one.region_count))]
    return {
        "hosts": one.host_count,
        "regions": one.region_count,
        "total_capacity": one.total_capacity * CAPACITY_UNIT,
        "selection_policies": [name for name, has in to_plain(one.selection_policies).items() if has],
        "removal_policies": [name for name, has in to_plain(one.removal_policies).items() if has],
        "sanitize_on_release_configurable": [
            region for region in range(8) if one.sanitize_on_release_configurable >> region & 1
        ],
        "block_sizes": [[1 << bit for bit in range(64) if mask >> bit & 1] for mask in masks],
    }


def dc_region(number: int, one: HostDcRegion) -> dict[str, Any]:
    """A region of dynamic capacity; all sizes in bytes."""
    return {
        "region": number,
        "base": one.base,
        "decode_length": one.decode_length * CAPACITY_UNIT,
        "length": one.length,
        "block_size": one.block_size,
        "attributes": [name for name, has in to_plain(one.attributes).items() if has],
        "sanitize_on_release": bool(one.flags.sanitize_on_release),
    }


def extent(one: Extent) -> dict[str, Any]:
    """An extent; DPA and length in bytes."""
    return {
        "dpa": one.start,
        "length": one.length,
        "tag": None if one.tag is None else str(one.tag),
        "sequence": one.sequence,
    }


def tag(one: Tag) -> dict[str, Any]:
    """A tag and who has its capacity."""
    return {
        "tag": str(one.tag),
        "fm_reference": one.fm_reference,
        "hosts": one.hosts,
        "pending": one.pending,
    }


def event(log: EventLog, one: Event) -> dict[str, Any]:
    """An event record: its log, what of its header says something, and its own fields."""
    header, kind = one.header, type(one).__name__
    found = {
        "log": log.name.lower(),
        "event": "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind)[1:],
        "handle": header.handle,
        "timestamp": header.timestamp,
        "severity": field_of(header.flags, "severity"),
    }
    match one:
        case PhysicalSwitchEvent():
            return found | {
                "port": one.port,
                "type": name_of(PhysicalSwitchEventType, one.event_type),
                "slot_status": one.slot_status,
                "state": field_of(one.configuration, "state"),
                "device": name_of(ConnectedDeviceType, one.connected_device_type),
                "link": _link(one),
            }
        case VirtualSwitchEvent():
            bound = one.binding_status not in (BindingStatus.UNBOUND, BindingStatus.IN_PROGRESS)
            return found | {
                "vcs": one.vcs,
                "vppb": one.vppb,
                "type": name_of(VirtualSwitchEventType, one.event_type),
                "status": name_of(BindingStatus, one.binding_status),
                "port": one.bound_port if bound else None,
                "ld": one.bound_ld if one.binding_status == BindingStatus.BOUND_LD else None,
                "link_control": one.link_control,
                "slot_control": one.slot_control,
            }
        case MldPortEvent():
            kind_of = name_of(MldPortEventType, one.event_type)
            return found | {"port": one.port, "type": kind_of, "message": one.message.hex()}
        case DynamicCapacityEvent():
            return found | {
                "host": one.host_id,
                "type": name_of(DynamicCapacityEventType, one.event_type),
                "region": one.updated_region,
                "more": bool(one.flags.more),
                "extent": extent(Extent.of(one.extent)),
                "extents_available": one.extents_available if one.validity.extents_available else None,
                "tags_available": one.tags_available if one.validity.tags_available else None,
            }
        case EventRecord():
            found["identifier"] = str(header.identifier)
    plain: dict[str, Any] = to_plain(one)
    del plain["header"]
    return found | plain
