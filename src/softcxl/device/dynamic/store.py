"""What of dynamic capacity outlives power: the extents in non-volatile regions, and the lists' generations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from softcxl.device.dynamic.extents import Extent


@dataclass(frozen=True, slots=True)
class HostRecord:
    """A host's list: its generation, and its extents that are kept."""

    generation: int = 0
    extents: tuple[Extent, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """All that is kept of a device: the lists by host, and the extents that a reference keeps by tag."""

    hosts: dict[int, HostRecord] = field(default_factory=dict)
    references: dict[UUID, tuple[Extent, ...]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As a section of the device's state page."""
        return {
            "hosts": {
                str(host): {"generation": one.generation, "extents": _plain(one.extents)}
                for host, one in self.hosts.items()
            },
            "references": {str(tag): _plain(extents) for tag, extents in self.references.items()},
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
