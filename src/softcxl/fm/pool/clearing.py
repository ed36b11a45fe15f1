"""Memory on its way from a region that was freed to others: cleared, once nobody writes or looks at it any more.

What is free is always zeros. A record stays its region's until that was tried: a server that is killed amid it leaves
it to the next one. What cannot be cleared is nobody's (`Cleaning`).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from softcxl.pool.layout import REGION, RegionState

if TYPE_CHECKING:
    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.records import Known
    from softcxl.fm.pool.sources import Sources

_FREE = int(RegionState.FREE)
_LOCK = REGION["lock"]
_EPOCHS = (1 << 40) - 1
_PORTION = 256
"""Regions whose memory is made others' at a time: the server's lock is held for so long."""


class Clearing:
    """The regions of `known` that are leaving. Its caller holds the server's lock, but for `clear`.

    `cleared` is told, with the lock held, whose memory is free. `wake` is called when there is something to clear.
    """

    def __init__(
        self,
        directory: Directory,
        sources: Sources,
        known: dict[int, Known],
        cleared: Callable[[list[tuple[int, Known]]], None],
    ) -> None:
        self._directory = directory
        self._sources = sources
        self._known = known
        self._told = cleared
        self._busy: set[int] = set()
        self._ready: list[int] = []
        self._under_way = 0
        self._at_work: Counter[int] = Counter()
        self._mine = (directory.epoch & _EPOCHS) << 8 | 1
        self.wake: Callable[[], None] = lambda: None
        self.held = False
        """Nothing is cleared yet: clients of the last server may look at memory, and have not said so to this one."""

    @property
    def coming(self) -> int:
        """How many regions' memory will be free as soon as it is cleared."""
        return len(self._ready) + self._under_way

    @property
    def waiting(self) -> int:
        """How many regions have left that somebody writes yet."""
        return len(self._busy)

    def keeps(self, index: int) -> bool:
        """Whether a region that has left stays as it is until clients of the last server have said what they have."""
        return self.held and (index in self._busy or self._known[index].pins > 0)

    def add(self, index: int) -> None:
        """A region has left, or is looked at no more."""
        if self._known[index].pins or index in self._busy:
            return
        if not self.held and index not in self._at_work and self._seize(index):
            if not self._ready:
                self.wake()
            self._ready.append(index)
        else:
            self._busy.add(index)

    def work_begins(self, index: int) -> None:
        """The server is about to copy a region, or to write in it: it has the lock of one in the same name as what is
        cleared. As often as `work_ends`."""
        self._at_work[index] += 1

    def work_ends(self, index: int) -> None:
        """It is through with that."""
        self._at_work[index] -= 1
        if not self._at_work[index]:
            del self._at_work[index]

    def look_again(self) -> None:
        """Somebody may have given a lock back meanwhile."""
        for index in list(self._busy):
            self._busy.discard(index)
            self.add(index)

    def _seize(self, index: int) -> bool:
        """Take a region's lock for good. False: somebody has it who lives, or is not fenced yet."""
        memory, at = self._directory.memory, self._directory.region_at(index) + _LOCK
        word = memory.load(at)
        if word & 0xFF and word != self._mine and self._directory.lives(word >> 48, word >> 8 & _EPOCHS):
            return False
        return memory.swap(at, word, self._mine)

    def clear(self, lock: Any) -> int:
        """Clear what is there to be cleared, without the server's `lock`, and make it free. Returns how many regions it
        was."""
        with lock:
            batch, self._ready = self._ready, []
            self._under_way += len(batch)
            extents = [(self._known[index].extents, self._known[index].capacity) for index in batch]
        stains = self._sources.cleaning.clear(extents)
        for start in range(0, len(batch), _PORTION):
            with lock:
                gone = [(index, self._known.pop(index)) for index in batch[start : start + _PORTION]]
                freed = itertools.chain.from_iterable([one.extents for _, one in gone])
                self._sources.cleaning.free(freed, stains)
                for index, one in gone:
                    self._directory.set_region(index, one.generation, _FREE)
                self._under_way -= len(gone)
                self._told(gone)
        return len(batch)


__all__ = ["Clearing"]
