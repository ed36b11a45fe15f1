"""What of dynamic capacity outlives power: the extents in non-volatile regions, the lists' generations, what is to be
erased yet, and how the owner has configured regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from softcxl.device.dynamic.extents import Extent, Range


@dataclass(frozen=True, slots=True)
class HostRecord:
    """A host's list: its generation, and its extents that are kept."""

    generation: int = 0
    extents: tuple[Extent, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """All that is kept of a device: the lists by host, the extents that a reference keeps by tag, ranges that are to be
    erased when nobody has them any more, and of regions that were configured block size and sanitize-on-release."""

    hosts: dict[int, HostRecord] = field(default_factory=dict)
    references: dict[UUID, tuple[Extent, ...]] = field(default_factory=dict)
    doomed: tuple[Range, ...] = ()
    regions: dict[int, tuple[int, bool]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As a section of the device's state page."""
        return {
            "hosts": {
                str(host): {"generation": one.generation, "extents": _plain(one.extents)}
                for host, one in self.hosts.items()
            },
            "references": {str(tag): _plain(extents) for tag, extents in self.references.items()},
            "doomed": [list(one) for one in self.doomed],
            "regions": {str(number): list(one) for number, one in self.regions.items()},
        }

    @classmethod
    def read(cls, section: dict[str, Any]) -> Kept:
        """The inverse of `plain`. Raises what Python does for values that cannot be."""
        return cls(
            {
                int(host): HostRecord(int(one["generation"]), _extents(one["extents"]))
                for host, one in section["hosts"].items()
            },
            {UUID(tag): _extents(extents) for tag, extents in section["references"].items()},
            tuple((int(start), int(end)) for start, end in section.get("doomed", ())),
            {
                int(number): (int(size), bool(sanitize))
                for number, (size, sanitize) in section.get("regions", {}).items()
            },
        )


def _plain(extents: Sequence[Extent]) -> list[dict[str, Any]]:
    return [
        {"start": one.start, "length": one.length, "tag": str(one.tag), "sequence": one.sequence}
        for one in extents
    ]


def _extents(plain: list[dict[str, Any]]) -> tuple[Extent, ...]:
    return tuple(
        Extent(int(one["start"]), int(one["length"]), UUID(one["tag"]), int(one["sequence"])) for one in plain
    )
