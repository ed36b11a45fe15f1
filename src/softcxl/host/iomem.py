"""The host's CXL addresses as ``/proc/iomem`` shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softcxl.host.system import System


@dataclass(frozen=True, slots=True)
class Resource:
    """Host addresses `start` to `end`, that last one included, and what they are used for; `depth` 0 is a window."""

    depth: int
    start: int
    end: int
    name: str

    def __str__(self) -> str:
        return f"{'  ' * self.depth}{self.start:08x}-{self.end:08x} : {self.name}"


def iomem(system: System) -> str:
    """A line for each window, its regions, their device-dax devices and system RAM, indented as the kernel does."""
    return "\n".join(map(str, resources(system)))


def resources(system: System) -> Iterator[Resource]:
    """The same as objects, each ahead of those within it.

    Windows are in the order of their addresses; their numbers are those of the table (Linux drivers/cxl/acpi.c).
    """
    for decoder in sorted(system.root.decoders, key=lambda one: one.window.base):
        window = decoder.window
        yield _sized(0, window.base, window.size, f"CXL Window {window.number}")
        for region in sorted(decoder.regions, key=lambda one: one.hpa):
            if not region.size:
                continue
            yield _sized(1, region.hpa, region.size, region.name)
            if region.type == "ram" and (region.enabled or region.blocks):
                yield _sized(2, region.hpa, region.size, f"dax{region.number}.0")
            if region.blocks:
                first, last = region.blocks[0], region.blocks[-1]
                yield _sized(3, first.hpa, last.hpa + last.size - first.hpa, "System RAM (kmem)")


def _sized(depth: int, base: int, size: int, name: str) -> Resource:
    return Resource(depth, base, base + size - 1, name)
