"""Where devices are below /sys/devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.host.port import Endpoint, Port

if TYPE_CHECKING:
    from softcxl.host.enumerate import Node
    from softcxl.host.system import System

ROOT = "devices/platform/ACPI0017:00/root0"
"""The root of CXL."""


def of_bus(name: str) -> str:
    """A host bridge, by the name of its root bus."""
    return f"devices/{name}"


def of_node(system: System, node: Node) -> str:
    """A PCI function: below the ports that lead to it."""
    names, above = [node.name], node.parent
    top = node
    while above is not None:
        names.append(above.name)
        top, above = above, above.parent
    bus = next(one for one in system.buses if top in one.below)
    return "/".join([of_bus(bus.name), *reversed(names)])


def of_port(port: Port | Endpoint) -> str:
    """A CXL port or endpoint."""
    names = [port.name]
    above = port.parent
    while isinstance(above, Port):
        names.append(above.name)
        above = above.parent
    return "/".join([ROOT, *reversed(names)])
