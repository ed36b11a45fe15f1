"""What `softcxl pool` says of regions: their records as JSON has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softcxl.pool.layout import RegionFlag

if TYPE_CHECKING:
    from softcxl.pool.region import Copy, RegionInfo
    from softcxl.pool.session import Pool


def regions(session: Pool) -> list[dict[str, Any]]:
    """All regions of programs, in order of their names; channels and tables of calls are the pool's own."""
    clients = {one["slot"]: one["name"] for one in session.tell("clients")}
    found = [one for one in session.regions() if not one.flags & RegionFlag.CHANNEL]
    return [
        region(one, clients) for one in sorted(found, key=lambda one: (not one.name, one.name, one.index))
    ]


def region(one: RegionInfo, clients: dict[int, str]) -> dict[str, Any]:
    """A region; `clients` are names by slot, as the owner is there as long as it lives."""
    return {
        "name": one.name or None,
        "index": one.index,
        "size": one.size,
        "owner": clients.get(one.owner),
        "others": one.mode.name.lower(),
        "atomic": bool(one.flags & RegionFlag.ATOMIC),
        "copies": [copy(each) for each in one.copies],
    }


def copy(one: Copy) -> dict[str, Any]:
    """A copy of a region: where it is, and what of it."""
    state = "healthy" if one.healthy else "rebuilding" if one.joining else "lost"
    return {"source": one.source, "offset": one.offset, "state": state, "poison": one.poisoned}
