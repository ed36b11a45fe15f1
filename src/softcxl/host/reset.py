"""Resets that an operating system can give a memory device, and what it finds out afterwards.

The methods are those of Linux (``reset_method`` in sysfs; drivers/pci/pci.c): a function-level reset, a secondary bus
reset by the port above, the same with that port's mask lifted; and the CXL Reset of the device's DVSEC.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from softcxl.host.enumerate import Node
from softcxl.host.errors import ResetError
from softcxl.host.hotplug import acknowledge
from softcxl.host.memdev import Memdev, enable_memory
from softcxl.spec.cxl.dvsec import CxlCapability, CxlControl2, CxlStatus2, DeviceDvsec, DvsecId
from softcxl.spec.cxl.port import PortExtensionControl, PortExtensionsDvsec
from softcxl.spec.pci.bridge import BridgeControl, Type1Header
from softcxl.spec.pci.express import DeviceCapabilities, DeviceControl, PciExpress

if TYPE_CHECKING:
    from softcxl.host.region import Region

log = logging.getLogger(__name__)

METHODS = ("flr", "bus", "cxl_bus", "cxl_reset")
"""Every method that there is, by name."""

_POLLS = 64
"""Looks at a device's status before its CXL Reset has failed."""

_HEADER = 0x40  # bytes of configuration space that are written back, as Linux does
_BRIDGE_CONTROL = Type1Header.bridge_control.__layout__.offset
_PORT_CONTROL = PortExtensionsDvsec.control.__layout__.offset
_CAPABILITY, _CONTROL2, _STATUS2 = (
    one.__layout__.offset for one in (DeviceDvsec.capability, DeviceDvsec.control2, DeviceDvsec.status2)
)
_DEVICE_CAPABILITIES, _DEVICE_CONTROL = (
    one.__layout__.offset for one in (PciExpress.device_capabilities, PciExpress.device_control)
)


def methods(memdev: Memdev) -> list[str]:
    """The methods that work for a device, as it and the port above it stand."""
    return [one for one in METHODS if not _obstacle(memdev, one)]


def reset(memdev: Memdev, method: str, *, clear: bool = False) -> list[Region]:
    """Reset a device, write its configuration back, and have its driver look after its decoders.

    `clear` asks a CXL Reset to clear volatile memory. Regions whose decoders have gone are disabled, and returned:
    Linux says of them that the reset "happened without memory regions removal". Raises `ResetError` for a method that
    does not work for it, and where it does not come back.
    """
    if method not in METHODS:
        raise ResetError(f"{method} is no method of reset; there are {', '.join(METHODS)}")
    if clear and method != "cxl_reset":
        raise ResetError(f"{method}: volatile memory is cleared by a cxl_reset alone")
    obstacle = _obstacle(memdev, method)
    if obstacle:
        raise ResetError(f"{memdev.name} ({memdev.host}): {method}: {obstacle}")
    config = memdev.node.config
    header = [config.read(at) for at in range(0, _HEADER, 4)]
    control = config.read(_express(memdev) + _DEVICE_CONTROL, 2)
    failed = ""
    if method == "flr":
        config.write(_express(memdev) + _DEVICE_CONTROL, control | _FLR, 2)
    elif method == "cxl_reset":
        failed = _cxl_reset(memdev, clear)
    else:
        _bus_reset(_port(memdev), unmask=method == "cxl_bus")
    if not memdev.present:
        raise ResetError(f"{memdev.name} ({memdev.host}): it does not answer after {method}")
    config.write(_express(memdev) + _DEVICE_CONTROL, control, 2)
    for number in reversed(range(len(header))):
        config.write(4 * number, header[number])
    lost = done(memdev, method)
    if failed:
        raise ResetError(f"{memdev.name} ({memdev.host}): {failed}")
    return lost


def done(memdev: Memdev, how: str = "a reset") -> list[Region]:
    """What a driver does when its device has been reset, `how` ever (Linux ``cxl_reset_done``): it compares the
    decoders that were in use with the device's. Regions of those that are not committed any more are disabled, and
    returned."""
    lost = []
    for decoder in memdev.decoders:
        if not decoder.committed or decoder.hdm.read(decoder.number).committed:
            continue
        decoder.forget()
        region = decoder.region
        if region is None:
            continue
        region.enabled = False
        position = region.targets.index(decoder)
        region.problem = f"{memdev.name} ({memdev.host}), position {position}, lost its decoders by {how}"
        log.warning("%s: %s", region.name, region.problem)
        lost.append(region)
    if memdev.endpoint is not None:
        memdev.endpoint.hdm.enable()
    enable_memory(memdev.node)
    return lost


_FLR = DeviceControl.initiate_function_level_reset.mask


def _obstacle(memdev: Memdev, method: str) -> str:
    """Why a method does not work for a device; nothing if it does."""
    config, port = memdev.node.config, memdev.node.parent
    if method == "flr":
        capabilities = DeviceCapabilities(config.read(_express(memdev) + _DEVICE_CAPABILITIES))
        return "" if capabilities.function_level_reset_capable else "it is not capable of it"
    if method == "cxl_reset":
        capability = CxlCapability(config.read(config.require(DvsecId.DEVICE) + _CAPABILITY, 2))
        return "" if capability.reset_capable else "it is not capable of it"
    if port is None:
        return "there is no port above it"
    extensions = port.config.dvsec(DvsecId.PORT_EXTENSIONS)
    if method == "cxl_bus":
        return "" if extensions is not None else f"{port.name} above it is no CXL port"
    if extensions is None or PortExtensionControl(port.config.read(extensions + _PORT_CONTROL, 2)).unmask_sbr:
        return ""
    return f"{port.name} above it has Secondary Bus Reset masked, as CXL ports have"


def _express(memdev: Memdev) -> int:
    found = memdev.node.config.express()
    if found is None:
        raise ResetError(f"{memdev.name} ({memdev.host}) has no PCI Express capability, or does not answer")
    return found


def _port(memdev: Memdev) -> Node:
    assert memdev.node.parent is not None
    return memdev.node.parent


def _bus_reset(port: Node, *, unmask: bool) -> None:
    config = port.config
    at = config.dvsec(DvsecId.PORT_EXTENSIONS) if unmask else None
    before = 0
    if at is not None:
        before = config.read(at + _PORT_CONTROL, 2)
        config.write(at + _PORT_CONTROL, before | PortExtensionControl.unmask_sbr.mask, 2)
    control = config.read(_BRIDGE_CONTROL, 2)
    config.write(_BRIDGE_CONTROL, control | BridgeControl.secondary_bus_reset.mask, 2)
    config.write(_BRIDGE_CONTROL, control & ~BridgeControl.secondary_bus_reset.mask, 2)
    if at is not None:
        config.write(at + _PORT_CONTROL, before, 2)
    acknowledge(port)  # that the link went down and came up again is no news


def _cxl_reset(memdev: Memdev, clear: bool) -> str:
    """Do a CXL Reset; returns what went wrong, nothing if all went well. Raises `ResetError` where it cannot clear."""
    config = memdev.node.config
    at = config.require(DvsecId.DEVICE)
    if clear and not CxlCapability(config.read(at + _CAPABILITY, 2)).reset_mem_clear_capable:
        raise ResetError(
            f"{memdev.name} ({memdev.host}): it is not capable of clearing its memory in a CXL Reset"
        )
    control = CxlControl2(config.read(at + _CONTROL2, 2))
    control.reset_mem_clear_enable, control.initiate_reset = clear, True
    config.write(at + _CONTROL2, int(control), 2)
    for _ in range(_POLLS):
        status = CxlStatus2(config.read(at + _STATUS2, 2))
        if status.reset_complete:
            return "its CXL Reset ended with an error" if status.reset_error else ""
    return "its CXL Reset did not end"
