"""/sys/devices/pci… and /sys/bus/pci: the functions that were found (Linux drivers/pci/pci-sysfs.c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from softcxl.host.sysfs import memdev
from softcxl.host.sysfs.node import ADMIN, BOTH, Attribute, Directory, Entry, Link, value
from softcxl.host.sysfs.paths import of_node

if TYPE_CHECKING:
    from softcxl.host.enumerate import Node
    from softcxl.host.system import System

_DRIVERS = {0x060400: "pcieport", 0x050210: "cxl_pci"}
_MEMORY, _PREFETCHABLE, _WIDE = 0x40200, 0x2000, 0x100000
"""Flags of a resource (Linux include/linux/ioport.h): memory with its size as alignment; prefetchable; 64 bits."""

_CONFIG_SIZE = 0x1000


def bus(system: System) -> Directory:
    """/sys/bus/pci."""
    return Directory(
        lambda: {
            "devices": Directory(lambda: {node.name: Link(of_node(system, node)) for node in system.nodes()})
        }
    )


def buses(system: System) -> dict[str, Directory]:
    """The root buses by name, with the functions below them."""
    return {one.name: Directory(partial(_below, system, one.below), device=True) for one in system.buses}


def _below(system: System, nodes: Sequence[Node]) -> Mapping[str, Entry]:
    return {one.name: function(system, one) for one in nodes}


def function(system: System, node: Node) -> Directory:
    """One PCI function."""

    def entries() -> Mapping[str, Entry]:
        config = node.config
        vendor, device = config.read(0, 2), config.read(2, 2)
        # A bridge has its subsystem in a capability, which these have not.
        subsystem = (0, 0) if node.bridge else (config.read(0x2C, 2), config.read(0x2E, 2))
        code = node.class_code
        modalias = (
            f"pci:v{vendor:08X}d{device:08X}sv{subsystem[0]:08X}sd{subsystem[1]:08X}"
            f"bc{code >> 16:02x}sc{code >> 8 & 0xFF:02x}i{code & 0xFF:02x}"
        )
        lines = [
            *([f"DRIVER={_DRIVERS[code]}"] if code in _DRIVERS else []),
            f"PCI_CLASS={code:X}",
            f"PCI_ID={vendor:04X}:{device:04X}",
            f"PCI_SUBSYS_ID={subsystem[0]:04X}:{subsystem[1]:04X}",
            f"PCI_SLOT_NAME={node.name}",
            f"MODALIAS={modalias}",
        ]
        found: dict[str, Entry] = {
            "class": value(f"{code:#08x}"),
            "config": Attribute(lambda: _config(node), mode=BOTH),
            "device": value(f"{device:#06x}"),
            "modalias": value(modalias),
            "numa_node": Attribute(lambda: "-1", mode=BOTH),
            "resource": value(_resource(node)),
            "revision": value(f"{config.read(8, 1):#04x}"),
            "subsystem": Link("bus/pci"),
            "subsystem_device": value(f"{subsystem[1]:#06x}"),
            "subsystem_vendor": value(f"{subsystem[0]:#06x}"),
            "uevent": Attribute(lambda: "\n".join(lines), mode=BOTH),
            "vendor": value(f"{vendor:#06x}"),
            **{below.name: function(system, below) for below in node.below},
        }
        own = next((one for one in system.memdevs.values() if one.node is node), None)
        if own is not None:
            octets = own.serial.to_bytes(8, "big").hex("-")
            found["serial_number"] = Attribute(lambda: octets, mode=ADMIN)
            found[own.name] = memdev.memdev(system, own)
        return found

    return Directory(entries, device=True)


def _config(node: Node) -> bytes:
    words = (node.config.read(offset) for offset in range(0, _CONFIG_SIZE, 4))
    return b"".join(word.to_bytes(4, "little") for word in words)


def _resource(node: Node) -> str:
    """A line for each BAR and, empty here, the expansion ROM: first and last address, flags."""
    lines = ["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 7
    for bar in node.bars.values():
        low = (4 if bar.wide else 0) | (8 if bar.prefetchable else 0)
        flags = _MEMORY | (_WIDE if bar.wide else 0) | (_PREFETCHABLE if bar.prefetchable else 0) | low
        lines[bar.index] = f"{bar.address:#018x} {bar.address + bar.size - 1:#018x} {flags:#018x}"
    return "\n".join(lines)
