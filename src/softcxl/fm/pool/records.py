"""Regions' records as a server finds them when it starts: what they say is checked, whoever wrote there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from softcxl.pool import layout
from softcxl.pool.layout import ARENA, MAX_COPIES, PAGE, REGION, Mode, RegionFlag, RegionState

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.sources import Sources

    Words = NDArray[np.uint64]

_LOW = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(32)
_FLAGS = int(RegionFlag.KEPT | RegionFlag.ATOMIC | RegionFlag.CHANNEL | RegionFlag.PINNED | RegionFlag.OLD)
_OLD_FLAG = int(RegionFlag.OLD)
_OLD = np.uint64(RegionFlag.OLD)
_LEAVING = int(RegionState.LEAVING)
_COLUMNS = [*range(8), *range(16, 16 + MAX_COPIES)]
"""The words of a record that are looked at, all but the second line and the name."""
_EXTENT = _COLUMNS.index(16)
_SLICE = 1 << 14
"""Records that are Python's numbers at a time."""

REMEMBERED = 64
"""Requests of a client's, the last ones, that it may make again."""


@dataclass(slots=True, eq=False)
class Known:
    """What a server knows of a region beside its record."""

    generation: int
    size: int
    owner: int
    identity: int
    flags: int
    mode: int
    lease: int
    extents: tuple[int, ...]
    name: str
    opened: int = 1
    """How many have it open: all clients together."""
    mine: int = 1
    """How often its owner has."""
    pins: int = 0
    unused_since: float = 0.0
    leaving: bool = False

    @property
    def capacity(self) -> int:
        """Bytes that each of its copies takes."""
        return layout.room(self.size)

    def place(self, copy: int, address: int) -> None:
        """A copy is elsewhere from now on."""
        self.extents = (*self.extents[:copy], address, *self.extents[copy + 1 :])


def recover(
    directory: Directory, sources: Sources
) -> tuple[dict[int, Known], dict[int, int], list[str], int]:
    """The regions that there are, by index; the numbers of the requests that made them, by index, of those that may be
    asked again; what was found that cannot be, in words; and how many records have been used.

    The memory of the regions is taken from the sources' free space. A record that is damaged is set free, and what it
    had with it: another may have it by now, and nobody knows.
    """
    words = directory.used_regions()
    there = np.flatnonzero(words[:, 0] & np.uint64(0xFF))
    rows = words[there[:, None], _COLUMNS]
    there, rows = _without_places_of_both(there, rows, directory)
    problems: dict[int, str] = {}
    for at, why in _wrong(rows, directory, sources):
        problems.setdefault(at, why)
    for at, why in _overlapping(rows, problems):
        problems.setdefault(at, why)
    damaged = []
    for at, why in sorted(problems.items()):
        index = int(there[at])
        damaged.append(f"region {index} is set aside: {why}")
        directory.drop_region(index)
    if problems:
        good = np.ones(len(rows), bool)
        good[list(problems)] = False
        there, rows = there[good], rows[good]
    _take(rows, sources)
    found: dict[int, Known] = {}
    taken = directory.taken_slots()
    owners, same = set(taken), dict[int, int]().setdefault
    named = words[there, 24] != 0
    for start in range(0, len(rows), _SLICE):
        part = slice(start, start + _SLICE)
        for index, row, has_name in zip(
            there[part].tolist(), rows[part].tolist(), named[part].tolist(), strict=True
        ):
            name = directory.region_name(index) if has_name else ""
            found[index] = record = _known(row, name, owners, same)
            if name and not record.leaving and _name(name) is None:
                damaged.append(f"region {index} is set aside: its name {name!r} is none")
                record.leaving = True
    requests = _requests(there, rows, taken)
    names: dict[str, int] = {}
    for index, record in found.items():
        if record.name and not record.leaving and names.setdefault(record.name, index) != index:
            damaged.append(f"region {index} is set aside: region {names[record.name]} has the name, too")
            record.leaving = True
    return found, requests, damaged, len(words)


def _without_places_of_both(
    there: NDArray[np.int64], rows: Words, directory: Directory
) -> tuple[NDArray[np.int64], Words]:
    """The place that a copy leaves has a record of its own before the region's says that it is elsewhere: without those
    whose copy has not left."""
    old = rows[:, 2] >> _HIGH & _OLD != 0
    if not old.any():
        return there, rows
    regions = rows[~old]
    copies = np.arange(MAX_COPIES) < (regions[:, 3] & _LOW)[:, None]
    still = old & np.isin(rows[:, _EXTENT], regions[:, _EXTENT:][copies])
    for index in there[still].tolist():
        directory.drop_region(index)
    return there[~still], rows[~still]


def _known(row: list[int], name: str, owners: set[int], same: Callable[[int, int], int]) -> Known:
    """Who is not of the `owners`, slots of clients, owns nothing any more. `same` gives equal numbers one object."""
    owner, size = row[2] & 0xFFFFFFFF, row[1]
    return Known(
        row[0] >> 24,
        same(size, size),
        owner if owner in owners else layout.SERVER,
        same(row[5], row[5]),
        row[2] >> 32,
        row[3] >> 32,
        row[6],
        tuple(row[_EXTENT : _EXTENT + (row[3] & 0xFFFFFFFF)]),
        name,
        0,
        0,
        leaving=row[0] & 0xFF == _LEAVING or bool(row[2] >> 32 & _OLD_FLAG),
    )


def _requests(there: NDArray[np.int64], rows: Words, taken: list[int]) -> dict[int, int]:
    """The numbers of the last requests of each client, by the regions that they made. Numbers go up."""
    owner = rows[:, 2] & _LOW
    mine = np.flatnonzero((rows[:, 4] != 0) & np.isin(owner, np.array(taken, np.uint64)))
    order = mine[np.lexsort((rows[mine, 4], owner[mine]))]
    found: dict[int, int] = {}
    for part in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
        numbers = rows[part, 4]
        last = numbers >= np.unique(numbers)[-REMEMBERED:][:1]
        found.update(zip(there[part[last]].tolist(), numbers[last].tolist(), strict=True))
    return found


def _wrong(rows: Words, directory: Directory, sources: Sources) -> list[tuple[int, str]]:
    """Which rows say what cannot be, and why."""
    size, capacity = rows[:, 1], rows[:, 7]
    copies, mode = rows[:, 3] & _LOW, rows[:, 3] >> _HIGH
    owner, flags = rows[:, 2] & _LOW, rows[:, 2] >> _HIGH
    page = np.uint64(PAGE - 1)
    tests = [
        ("its state is none", (rows[:, 0] & np.uint64(0xFFFFFF)) > RegionState.LEAVING),
        ("its size cannot be", (size == 0) | (size > np.uint64(1 << 55))),
        ("what it takes is not its size", capacity != ((size + page) & ~page)),
        ("the number of its copies cannot be", (copies == 0) | (copies > MAX_COPIES)),
        ("its mode is none", mode > Mode.WRITE),
        ("its flags are none", flags > _FLAGS),
        ("its owner's slot is none", owner >= directory.plan.slots),
    ]
    sizes = np.zeros(256, np.uint64)
    begin = np.zeros(256, np.uint64)
    for number, space in sources.sizes().items():
        sizes[number] = space
    begin[ARENA] = directory.plan.heap_at
    sizes[ARENA] += begin[ARENA]
    for copy in range(MAX_COPIES):
        source = (rows[:, _EXTENT + copy] >> np.uint64(56)).astype(np.int64)
        offset = rows[:, _EXTENT + copy] & np.uint64((1 << 56) - 1)
        outside = (offset & page != 0) | (offset < begin[source]) | (offset > sizes[source])
        outside |= capacity > sizes[source] - np.minimum(offset, sizes[source])
        tests.append((f"copy {copy} is nowhere", (copies > copy) & outside))
    return [(int(at), why) for why, bad in tests for at in np.flatnonzero(bad)]


def _extents(rows: Words, problems: dict[int, str]) -> Words:
    """Of each copy its pool address, its bytes and its row: three columns, in order of the address."""
    good = np.ones(len(rows), bool)
    good[list(problems)] = False
    parts = []
    for copy in range(MAX_COPIES):
        at = np.flatnonzero(good & ((rows[:, 3] & _LOW) > copy))
        parts.append(np.stack((rows[at, _EXTENT + copy], rows[at, 7], at.astype(np.uint64)), axis=1))
    found = np.concatenate(parts)
    return found[np.argsort(found[:, 0], kind="stable")]


def _overlapping(rows: Words, problems: dict[int, str]) -> list[tuple[int, str]]:
    """Rows whose memory another one has, too: of two the larger one, as the one that could do more harm."""
    extents = _extents(rows, problems)
    ends = extents[:, 0] + extents[:, 1]
    if not np.any(ends[:-1] > extents[1:, 0]):
        return []
    found, last = {}, (0, 0, -1)
    for start, length, row in extents.tolist():
        if last[2] >= 0 and start < last[0] + last[1]:
            worse = row if length > last[1] else last[2]
            found[worse] = f"its memory at {start:#x} is another's, too"
            if worse == row:
                continue
        last = start, length, row
    return list(found.items())


def _take(rows: Words, sources: Sources) -> None:
    extents = _extents(rows, {})
    numbers = extents[:, 0] >> np.uint64(56)
    for number in np.unique(numbers).tolist():
        mine = extents[numbers == number]
        sources.restore(int(number), mine[:, 0], mine[:, 1])


def _name(name: str) -> Any:
    try:
        return layout.encode_name(name)
    except ValueError:
        return None


assert REGION["healthy"] == 8 * 12
assert REGION["extent0"] == 8 * 16
assert REGION["name"] == 8 * 24
