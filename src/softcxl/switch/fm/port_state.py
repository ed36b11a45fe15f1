"""What the fabric manager sees of a physical port (CXL 3.2 §7.6.7.1.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.spec.fm.switch import (
    ConnectedDevice,
    CxlModes,
    PortConfiguration,
    PortConfigurationState,
    PortInformation,
    PortLinkState,
)
from softcxl.switch.hierarchy import Hierarchy
from softcxl.switch.occupant import device_mode, device_type

if TYPE_CHECKING:
    from softcxl.pci.bridge import Bridge
    from softcxl.switch.physical_port import PhysicalPort

MAX_LDS = 16
"""Logical devices that a downstream port can address: LD IDs of 4 bits on the link (CXL 3.1 §2.5)."""


def information(port: PhysicalPort) -> PortInformation:
    """The port as it is now."""
    bridge, up = _bridge(port), port.link_up
    capabilities = bridge.express.link_capabilities
    status, flex_bus = bridge.express.link_status, port.switch.flex_bus
    present = port.link_up if port.virtual is not None else port.device is not None
    slot = None if port.ppb is None else port.ppb.express.slot_control
    return PortInformation(
        port=port.number,
        configuration=PortConfiguration.make(state=port.configuration),
        connected_device=ConnectedDevice.make(mode=device_mode(port.device)),
        connected_device_type=device_type(port.device),
        supported_modes=CxlModes.make(
            vh_68b=flex_bus.flit_68b_vh_capable,
            latency_optimized_256b=flex_bus.latency_optimized_256b_flit_capable,
            pbr=flex_bus.pbr_flit_capable,
        ),
        maximum_link_width=int(capabilities.max_link_width),
        negotiated_link_width=int(status.negotiated_link_width or capabilities.max_link_width) if up else 0,
        supported_link_speeds=int(bridge.express.link_capabilities_2.supported_link_speeds),
        maximum_link_speed=int(capabilities.max_link_speed),
        current_link_speed=int(status.current_link_speed) if up else 0,
        ltssm_state=port.ltssm,
        link_state=PortLinkState.make(
            perst=port.perst, present=present, power_off=slot is not None and slot.power_off
        ),
        supported_ld_count=MAX_LDS if port.virtual is None else 0,
    )


def nothing(number: int) -> PortInformation:
    """Of a port that is not there."""
    return PortInformation(
        port=number, configuration=PortConfiguration.make(state=PortConfigurationState.INVALID_PORT_ID)
    )


def _bridge(port: PhysicalPort) -> Bridge:
    """Whose registers tell of the link."""
    if port.ppb is not None:
        return port.ppb
    tenant = None if port.virtual is None else port.virtual.tenant
    return tenant.upstream if isinstance(tenant, Hierarchy) else port.switch.pattern
