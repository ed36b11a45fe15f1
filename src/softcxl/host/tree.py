"""A host as an operating system sees it, as a tree for people.

Windows with their regions, then bridges, ports, switches and memory devices, each with what it has committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from softcxl.host.port import Endpoint, Port

if TYPE_CHECKING:
    from softcxl.host.decoder import RootDecoder
    from softcxl.host.region import Region
    from softcxl.host.system import System

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"))


@dataclass
class Branch:
    """One line, and those below it."""

    text: str
    below: list[Branch] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The tree drawn in text, a line at a time."""
        yield self.text
        for child in self.below:
            last = child is self.below[-1]
            for number, line in enumerate(child.lines()):
                first, rest = ("└── ", "    ") if last else ("├── ", "│   ")
                yield (rest if number else first) + line

    def __str__(self) -> str:
        return "\n".join(self.lines())


def tree(system: System, name: str = "host") -> Branch:
    """The whole host below one line called `name`."""
    windows = [_window(one) for one in system.root.decoders]
    return Branch(name, [*windows, *(_port(one) for one in system.root.ports)])


def _window(decoder: RootDecoder) -> Branch:
    window = decoder.window
    kinds = [word for word, able in (("ram", decoder.volatile), ("pmem", decoder.persistent)) if able]
    over = ", ".join("nothing" if one is None else one.name for one in decoder.targets)
    dealt = f" at {window.granularity}{' xor' if window.xor else ''}" if window.ways > 1 else ""
    text = f"{decoder.name}: {_range(window.base, window.size)} over {over}{dealt}, {' and '.join(kinds) or 'nothing'}"
    return Branch(text, [Branch(_region(one)) for one in sorted(decoder.regions, key=lambda one: one.hpa)])


def _region(region: Region) -> str:
    names = ", ".join("gone" if one is None else one.name for one in region.memdevs)
    dealt = f" at {region.granularity}" if region.ways > 1 else ""
    state = "" if region.enabled else f", disabled: {region.problem}"
    return f"{region.name}: {_range(region.hpa, region.size)} {region.type} over {names}{dealt}{state}"


def _port(port: Port) -> Branch:
    below: list[Port | Endpoint] = sorted([*port.ports, *port.endpoints], key=lambda one: one.parent_dport.id)
    lines = []
    for one in below:
        branch = _port(one) if isinstance(one, Port) else _endpoint(one)
        branch.text = f"{one.parent_dport.name}: {branch.text}"
        lines.append(branch)
    return Branch(f"{port.name} ({port.host})", lines)


def _endpoint(endpoint: Endpoint) -> Branch:
    memdev = endpoint.memdev
    capacity = ", ".join(f"{_size(memdev.size(mode))} {mode}" for mode in memdev.partitions)
    used = [
        Branch(f"{one.name}: DPA {one.dpa[0]:#x} to {one.dpa[1] - 1:#x} in {one.region.name}")
        for one in endpoint.decoders
        if one.dpa is not None and one.region is not None
    ]
    return Branch(f"{memdev.name} ({memdev.host}): {capacity}, serial {memdev.serial:#x}", used)


def _range(base: int, size: int) -> str:
    return f"{base:#x} to {base + size - 1:#x} ({_size(size)})"


def _size(size: int) -> str:
    return next((f"{size // unit}{name}" for unit, name in _UNITS if size % unit == 0 and size), f"{size}B")
