"""Interleaving level by level: which decoder above the endpoints must say what, and in which order devices may come.

A region's positions are dealt out from the top: the window deals them to its host bridges in turn, each bridge its
own to its root ports in turn, each switch to its downstream ports. So every level's granularity follows from the
level above it, and devices that share a port must keep its turns. The rules are those of Linux
(drivers/cxl/core/region.c, ``cxl_port_setup_targets``), except that a port which passes on to one port only need not
be able to say the granularity that it would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from softcxl.host.decoder import RootDecoder
from softcxl.host.errors import RegionError
from softcxl.host.memdev import Memdev
from softcxl.host.port import Dport, Endpoint, Port
from softcxl.memory.interleave import GRANULARITIES

MOST_TARGETS = 8
"""A decoder's two target list registers have room for so many (CXL 3.1 §8.2.4.20.8)."""


@dataclass(frozen=True, slots=True)
class Level:
    """What one port's decoder is to say: `targets` are port numbers by position, `granularity` is in bytes."""

    port: Port
    ways: int
    granularity: int
    targets: tuple[int, ...]

    @property
    def target_list(self) -> int:
        """The two target list registers as one number."""
        return int.from_bytes(bytes(self.targets), "little")


def levels(root: RootDecoder, members: Sequence[Endpoint], granularity: int) -> list[Level]:
    """What every port above a region's `members`, endpoints by position, must decode.

    Raises `RegionError` for members that the window or a port cannot deal out in this order.
    """
    try:
        return _levels(root, members, granularity)
    except _Turns as wrong:
        order = arranged(root, [one.memdev for one in members])
        hint = f"; an order that works: {', '.join(one.name for one in order)}" if order else ""
        raise RegionError(f"{wrong}{hint}") from None


def _levels(root: RootDecoder, members: Sequence[Endpoint], granularity: int) -> list[Level]:
    ways, targets = len(members), root.targets
    for position, member in enumerate(members):
        due = targets[position % len(targets)]
        if due is not member.bridge:
            name = "a host bridge that is not there" if due is None else due.name
            raise _Turns(
                f"{root.name}: position {position} of {ways} belongs to {name}, and {member.memdev.name} is behind"
                f" {member.bridge.name}"
            )
    found: list[Level] = []
    # Host bridges behind a division by three are addressed by the bits that the division leaves in place.
    power = len(targets) // 3 if len(targets) % 3 == 0 else len(targets)
    for first in range(len(targets)):
        below = members[first :: len(targets)]
        _descend(below[0].ancestors[-1], below, granularity * power, found)
    return found


class _Turns(RegionError):
    """Devices in an order in which their ports do not take turns."""


def _descend(port: Port, members: Sequence[Endpoint], granularity: int, found: list[Level]) -> None:
    """The level of `port`, whose positions are those of `members`, and the levels below it."""
    where = f"{port.name} ({port.host})"
    dports = [port.dport_towards(member) for member in members]
    turns = list(dict.fromkeys(dports))
    ways = len(turns)
    if ways & (ways - 1):
        raise RegionError(f"{where}: {ways} of its ports are used, and a port deals out to 1, 2, 4 or 8")
    most = min(MOST_TARGETS, port.hdm.target_count if port.hdm else 1)
    if ways > most:
        raise RegionError(f"{where}: {ways} of its ports are used, and its decoders have {most} targets")
    for at, dport in enumerate(dports):
        if dport is not turns[at % ways]:
            raise _Turns(
                f"{where}: its ports must take turns: {members[at].memdev.name} is behind {dport.name} where"
                f" {turns[at % ways].name} is due"
            )
    if len(members) % ways:
        raise RegionError(f"{where}: {len(members)} devices cannot share {ways} ports evenly")
    if ways > 1:
        if granularity > GRANULARITIES[-1]:
            raise RegionError(
                f"{where}: it would deal out at a granularity of {granularity}, the largest is {GRANULARITIES[-1]}"
            )
        assert port.hdm is not None
        problem = port.hdm.problem(ways, granularity)
        if problem:
            raise RegionError(f"{where}: {problem}")
    said = min(granularity, GRANULARITIES[-1])
    found.append(Level(port, ways, said, tuple(dport.id for dport in turns)))
    for at, dport in enumerate(turns):
        switch = next((one for one in port.ports if one.parent_dport is dport), None)
        if switch is not None:
            _descend(switch, members[at::ways], granularity * ways, found)


def arranged(root: RootDecoder, memdevs: Sequence[Memdev], ways: int | None = None) -> list[Memdev] | None:
    """`memdevs`, or as many as `ways` of them, in an order in which the window and all ports take turns; None if
    there is none. Ports come in the order of their numbers."""
    given = [one.endpoint for one in memdevs if one.endpoint is not None]
    wanted = len(given) if ways is None else ways
    share, uneven = divmod(wanted, len(root.targets))
    if uneven or not share:
        return None
    columns = []
    for target in root.targets:
        below = [one for one in given if one.bridge is target]
        order = list(_round_robin(below[0].ancestors[-1], below))[:share] if below else []
        if len(order) < share:
            return None
        columns.append(order)
    members = [column[turn] for turn in range(share) for column in columns]
    try:
        _levels(root, members, GRANULARITIES[0])
    except RegionError:
        return None
    return [one.memdev for one in members]


def _round_robin(port: Port, members: Sequence[Endpoint]) -> Iterator[Endpoint]:
    groups: dict[Dport, list[Endpoint]] = {}
    for member in members:
        groups.setdefault(port.dport_towards(member), []).append(member)
    columns = []
    for dport in sorted(groups, key=lambda one: one.id):
        switch = next((one for one in port.ports if one.parent_dport is dport), None)
        columns.append(list(_round_robin(switch, groups[dport])) if switch else groups[dport])
    for turn in range(max(map(len, columns), default=0)):
        yield from (column[turn] for column in columns if turn < len(column))
