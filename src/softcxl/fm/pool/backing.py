"""Whether the file systems have room for what the pool has given out.

The pool's files have holes: a page takes room when somebody first touches it, and where there is none then, who touches
it is killed (SIGBUS). Taking the room of a region when it is allocated would cost a quarter of a second a GiB, with
everybody waiting. So it is counted: what is given out is never more than the files have, and their file systems have
free. Room that others take of a file system after that is seen within a fifth of a second, for what is given out then.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from softcxl.wire.sizes import format_size

if TYPE_CHECKING:
    from softcxl.fm.pool.sources import Held

_UNLIMITED = 1 << 62
_TRIES = 16


class Backing:
    """The file systems of the files of `all`, of which the arena (0) is promised whole. Its caller holds the server's
    lock."""

    def __init__(self, all_: Mapping[int, Held], arena_size: int) -> None:
        self._all = all_
        self._arena_size = arena_size
        self._file_system = {number: os.fstat(held.fd).st_dev for number, held in all_.items()}
        self._one_of_each = {self._file_system[number]: held for number, held in all_.items()}
        self._room: dict[int, int] = {}
        self.least = 0
        """How many bytes may be given out before it has to be looked again."""
        self.short: Callable[[str, int], None] = lambda name, room: None
        """Told when there is no room for what was promised: the name of a source, how many bytes it is short of."""
        self._told: set[int] = set()

    def tick(self) -> None:
        """See what others have taken meanwhile."""
        self.look()
        for at, room in self._room.items():
            if room >= 0:
                self._told.discard(at)
            elif at not in self._told:
                self._told.add(at)
                self.short(self._one_of_each[at].name, -room)

    def look(self) -> None:
        """Count anew what is free, and promised."""
        for _ in range(_TRIES):
            before, taken, after = self._free(), self._taken(), self._free()
            if before == after:
                break  # else pages were taken, or given back, and would be counted twice
        promised: defaultdict[int, int] = defaultdict(int)
        for number, held in self._all.items():
            at = self._file_system[number]
            promised[at] += held.size - held.space.available if number else self._arena_size
        self._room = {at: min(free, before[at]) + taken[at] - promised[at] for at, free in after.items()}
        self.least = min(self._room.values())

    def _taken(self) -> dict[int, int]:
        """Bytes of each file system that the files have."""
        files = {}
        for held in self._all.values():
            found = os.fstat(held.fd)
            files[found.st_dev, found.st_ino] = found.st_blocks * 512
        whole: defaultdict[int, int] = defaultdict(int)
        for (at, _), taken in files.items():
            whole[at] += taken
        return whole

    def _free(self) -> dict[int, int]:
        """Bytes of each file system that nobody has."""
        found = {}
        for at, held in self._one_of_each.items():
            there = os.fstatvfs(held.fd)
            found[at] = there.f_bavail * there.f_frsize if there.f_blocks else _UNLIMITED
        return found

    def has(self, size: int) -> bool:
        """Whether as many bytes more can surely be given out."""
        self.look()
        return self.least >= size

    def refuses(self, numbers: Iterable[int]) -> str:
        """Why what was taken of these sources just now cannot be given out; nothing where it can."""
        self.look()
        for number in numbers:
            room = self._room[self._file_system[number]]
            if room < 0 and number:
                held = self._all[number]
                return (
                    f"{held.name} has {format_size(held.space.available)} free, but its file system has no room for "
                    f"them: {format_size(-room)} too little"
                )
        return ""


__all__ = ["Backing"]
