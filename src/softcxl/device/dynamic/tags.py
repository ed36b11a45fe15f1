"""Tags in use, and who has their extents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from softcxl.device.dynamic.extents import NO_TAG, Extent


@dataclass(frozen=True, slots=True)
class TagUse:
    """Who has the extents of a tag: hosts that accepted it, hosts it was offered to, and whether a reference keeps
    it for those who may come."""

    tag: UUID
    extents: tuple[Extent, ...]
    hosts: tuple[int, ...]
    pending: tuple[int, ...]
    referenced: bool


def uses(
    accepted: Mapping[int, Sequence[Extent]],
    pending: Mapping[int, Sequence[Extent]],
    references: Mapping[UUID, Sequence[Extent]],
) -> list[TagUse]:
    """Every tag in use, by its value, from what each host has accepted and was offered, and what references keep."""
    extents: dict[UUID, set[Extent]] = {tag: set(kept) for tag, kept in references.items()}
    holders: dict[UUID, tuple[set[int], set[int]]] = {}
    for place, lists in enumerate((accepted, pending)):
        for host, held in lists.items():
            for one in held:
                extents.setdefault(one.tag, set()).add(one)
                holders.setdefault(one.tag, (set(), set()))[place].add(host)
    found = []
    for tag in sorted(extents):
        if tag != NO_TAG:
            hosts, offered = (tuple(sorted(one)) for one in holders.get(tag, ((), ())))
            found.append(TagUse(tag, tuple(sorted(extents[tag])), hosts, offered, tag in references))
    return found
