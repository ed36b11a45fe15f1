"""The host's CXL addresses as ``/proc/iomem`` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softcxl.host.system import System


def iomem(system: System) -> str:
    """A line for each window, its regions, their device-dax devices and system RAM, indented as the kernel does.

    Windows are in the order of their addresses; their numbers are those of the table (Linux drivers/cxl/acpi.c).
    """
    lines = []
    for decoder in sorted(system.root.decoders, key=lambda one: one.window.base):
        window = decoder.window
        lines.append(_line(0, window.base, window.size, f"CXL Window {window.number}"))
        for region in sorted(decoder.regions, key=lambda one: one.hpa):
            if not region.size:
                continue
            lines.append(_line(1, region.hpa, region.size, region.name))
            if region.type == "ram" and (region.enabled or region.blocks):
                lines.append(_line(2, region.hpa, region.size, f"dax{region.number}.0"))
            if region.blocks:
                first, last = region.blocks[0], region.blocks[-1]
                lines.append(_line(3, first.hpa, last.hpa + last.size - first.hpa, "System RAM (kmem)"))
    return "\n".join(lines)


def _line(depth: int, base: int, size: int, name: str) -> str:
    return f"{'  ' * depth}{base:08x}-{base + size - 1:08x} : {name}"
