"""Memory that clients look at themselves: as long as one does it stays where it is, and is nobody else's.

Each view that a client has of a region is a pin. That a region has any is in its record: a server that starts takes it
for pinned until every client of the one before has said what it looks at, or has gone. A place at which a copy was
that is made anew elsewhere, with views of it, has a record of its own (`RegionFlag.OLD`): it is given back when its
region has no pins any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from softcxl.pool.layout import RegionFlag

if TYPE_CHECKING:
    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.records import Known

PINNED, OLD = int(RegionFlag.PINNED), int(RegionFlag.OLD)


class Pins:
    """The pins of the regions in `known`. Its caller holds the server's lock. `released` is told of a region that has
    none any more, and of a place that has not."""

    def __init__(
        self, directory: Directory, known: dict[int, Known], released: Callable[[int], None]
    ) -> None:
        self._directory = directory
        self._known = known
        self._released = released
        self._doubtful: set[int] = set()
        """Regions that had pins when the server before ended, and have one for that till it is known."""
        self._old: defaultdict[int, list[int]] = defaultdict(list)
        """Records of places that copies of each region had."""

    def add(self, index: int, count: int = 1) -> None:
        """More of a region's views."""
        one = self._known[index]
        one.pins += count
        if one.pins and not one.flags & PINNED:
            self._flag(index, one, one.flags | PINNED)

    def remove(self, index: int, count: int) -> None:
        """Fewer of them."""
        if not count:
            return
        one = self._known[index]
        one.pins -= count
        if one.pins:
            return
        self._flag(index, one, one.flags & ~PINNED)
        for old in self._old.pop(index, ()):
            self._known[old].pins = 0
            self._released(old)
        self._released(index)

    def doubtful(self, index: int) -> bool:
        """Whether somebody may look at a region who has not said so yet."""
        return index in self._doubtful

    def certain(self) -> None:
        """Every client of the server before has said what it looks at, or has gone."""
        doubtful, self._doubtful = self._doubtful, set()
        for index in doubtful:
            self.remove(index, 1)

    def recover(self, index: int) -> None:
        """Take over what a record says. Those of regions before those of their old places."""
        one = self._known[index]
        if not one.flags & OLD:
            if one.flags & PINNED:
                one.pins = 1
                self._doubtful.add(index)
            return
        of, generation = self._directory.region(index).request - 1, one.lease
        region = self._known.get(of)
        if region is not None and region.generation == generation and region.flags & PINNED:
            self.note_old(of, index)

    def note_old(self, index: int, old: int) -> None:
        """The record `old` is of a place that a copy of a region had, which somebody looks at."""
        self._known[old].pins = 1
        self._old[index].append(old)

    def _flag(self, index: int, one: Known, flags: int) -> None:
        one.flags = flags
        self._directory.set_flags(index, flags)


__all__ = ["OLD", "PINNED", "Pins"]
