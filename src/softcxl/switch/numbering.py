"""Which bus numbers the host bridges of a machine get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from softcxl.pci.bridge import Bridge
from softcxl.pci.bus import LogicalBus
from softcxl.pci.complex import BUSES
from softcxl.switch.host_bridge import HostBridge


def buses_needed(bus: LogicalBus) -> int:
    """Bus numbers that a bus needs, with those below it."""
    return 1 + sum(buses_needed(function.below) for function in bus if isinstance(function, Bridge))


def numbered(bridges: Sequence[HostBridge]) -> Iterator[tuple[int, int]]:
    """The buses, first and last, of each bridge: as many bridges to a segment as fit, which share it out.

    Raises `ValueError` for a bridge that needs more than a segment.
    """
    segments: list[list[int]] = [[]]
    for bridge in bridges:
        need = buses_needed(bridge.bus)
        if need > BUSES:
            raise ValueError(f"{bridge.name} needs {need} buses; a segment has {BUSES}")
        if sum(segments[-1]) + need > BUSES:
            segments.append([])
        segments[-1].append(need)
    for segment, needs in enumerate(segments):
        first, spare = segment * BUSES, (BUSES - sum(needs)) // max(1, len(needs))
        for need in needs:
            yield first, first + need + spare - 1
            first += need + spare
