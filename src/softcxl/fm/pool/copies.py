"""The copies of a region, as its record says: which are read, which are only written, and where they are.

A copy is *healthy*: it is read and written; or *joining*: it is written and not read, as it is being rebuilt; or it is
neither. Beyond the region's own copies there may be a joining one, where the server moves a copy to. Who writes holds
the region's lock and reads these words once it has it, so a copy joins, and one is put elsewhere, within that lock. A
copy is dropped without it, at once.

The two bitmaps are one word of 64 bits, and change by compare-and-swap: a copy that was dropped while it was being
rebuilt does not become healthy by what the rebuilder does next. Where no copy is healthy any more, nothing is written,
and the bits of those that joined say which copies had everything when the last one was lost: if the memory of one of
these comes back as it was, the region is whole again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from softcxl.pool.layout import MAX_COPIES, REGION, RegionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from softcxl.fm.pool.directory import Directory

_LOW = 0xFFFFFFFF
_HEALTH = REGION["healthy"]  # joining in the upper half
_POISON = REGION["poisoned"]  # layout in the upper half
_EXTENTS = REGION["extent0"]

assert REGION["joining"] == _HEALTH + 4
assert REGION["layout"] == _POISON + 4
assert REGION["copies"] % 8 == 0
assert _HEALTH % 8 == _POISON % 8 == 0


class Copies:
    """The copies of the region `index`. Bitmaps have bit 0 for copy 0."""

    __slots__ = ("_memory", "at", "count", "index", "size")

    def __init__(self, directory: Directory, index: int) -> None:
        self._memory = directory.memory
        self.index = index
        self.at = directory.region_at(index)
        self.count = self._memory.load(self.at + REGION["copies"]) & _LOW
        self.size = self._memory.load(self.at + REGION["size"])

    @property
    def state(self) -> tuple[int, int]:
        """Which are healthy, and which joining."""
        word = self._memory.load(self.at + _HEALTH)
        return word & _LOW, word >> 32

    @property
    def healthy(self) -> int:
        """Those that are read."""
        return self.state[0]

    @property
    def joining(self) -> int:
        """Those that are only written."""
        return self.state[1]

    @property
    def poisoned(self) -> int:
        """Those that have poison somewhere."""
        return self._memory.load(self.at + _POISON) & _LOW

    @property
    def layout(self) -> int:
        """How often a copy has got another place."""
        return self._memory.load(self.at + _POISON) >> 32

    @property
    def own(self) -> int:
        """A bit for each of the region's own copies."""
        return (1 << self.count) - 1

    def extent(self, copy: int) -> int:
        """The pool address of a copy."""
        return self._memory.load(self.at + _EXTENTS + 8 * copy)

    def extents(self) -> dict[int, int]:
        """The pool addresses of the region's own copies, and of one that is being moved to."""
        joining = self.joining
        return {
            copy: self.extent(copy) for copy in range(MAX_COPIES) if copy < self.count or joining >> copy & 1
        }

    # -- changes ---------------------------------------------------------------------------------------------------

    def drop(self, copies: int) -> bool:
        """These have failed: neither read nor written from now on. Without the lock. Returns whether that is new."""
        while True:
            word = self._memory.load(self.at + _HEALTH)
            healthy, joining = word & _LOW, word >> 32
            if not healthy:
                return False  # what there was at the end stays to be known
            left, stay = healthy & ~copies, joining & ~copies
            new = left | (stay if left else healthy) << 32
            if new == word:
                return False
            if self._memory.swap(self.at + _HEALTH, word, new):
                return True

    def revive(self, copies: int) -> bool:
        """The memory of these is as it was: where no other copy is healthy, those that were when the last one was lost
        are again. Without the lock. Returns whether one is."""
        while True:
            word = self._memory.load(self.at + _HEALTH)
            last = word >> 32 & copies & self.own
            if word & _LOW or not last:
                return False
            if self._memory.swap(self.at + _HEALTH, word, last):
                return True

    def forget(self, copies: int) -> None:
        """The memory of these has not kept what it held: no copy that was lost comes back from there."""
        while True:
            word = self._memory.load(self.at + _HEALTH)
            if word & _LOW or self._memory.swap(self.at + _HEALTH, word, word & ~(copies << 32)):
                return

    def place(self, copy: int, address: int) -> None:
        """Where a copy is from now on. Within the lock; a healthy one has the same bytes there."""
        self._memory.store(self.at + _EXTENTS + 8 * copy, address)

    def displaced(self) -> None:
        """What readers have read meanwhile, they read again."""
        self._memory.add(self.at + _POISON, 1 << 32)

    def join(self, copy: int) -> bool:
        """A copy is written from now on, and not read. Within the lock. False: no healthy one is left to rebuild it."""
        return self._change(lambda healthy, joining: (healthy, joining | 1 << copy))

    def leave(self, copies: int) -> bool:
        """These join no more. Within the lock. False: no healthy one is left."""
        return self._change(lambda healthy, joining: (healthy, joining & ~copies))

    def promote(self, copy: int) -> bool:
        """A copy that joined has everything, and is read from now on. False: it was dropped meanwhile."""
        bit = 1 << copy
        while True:
            word = self._memory.load(self.at + _HEALTH)
            if not word & _LOW or not word >> 32 & bit:
                return False
            if self._memory.swap(self.at + _HEALTH, word, (word | bit) & ~(bit << 32)):
                return True

    def set_poisoned(self, copies: int) -> None:
        """These have poison somewhere: they are not read but for what is known to be clean."""
        self._poison(lambda poisoned: poisoned | copies)

    def set_clean(self, copies: int) -> None:
        """These have poison no more."""
        self._poison(lambda poisoned: poisoned & ~copies)

    def _change(self, to: Callable[[int, int], tuple[int, int]]) -> bool:
        while True:
            word = self._memory.load(self.at + _HEALTH)
            healthy, joining = word & _LOW, word >> 32
            if not healthy:
                return False
            healthy, joining = to(healthy, joining)
            if self._memory.swap(self.at + _HEALTH, word, healthy | joining << 32):
                return True

    def _poison(self, to: Callable[[int], int]) -> None:
        while True:
            word = self._memory.load(self.at + _POISON)
            if self._memory.swap(self.at + _POISON, word, word & ~_LOW | to(word & _LOW)):
                return


def impaired(directory: Directory) -> list[int]:
    """Indices of the live regions of which a copy is not healthy, or joins, or has poison.

    Those with the fewest healthy copies come first.
    """
    words = directory.region_words()
    copies = words[:, REGION["copies"] // 8] & np.uint64(_LOW)
    healthy = words[:, _HEALTH // 8] & np.uint64(_LOW)
    joining = words[:, _HEALTH // 8] >> np.uint64(32)
    poisoned = words[:, _POISON // 8] & np.uint64(_LOW)
    whole = (np.uint64(1) << np.minimum(copies, np.uint64(MAX_COPIES))) - np.uint64(1)
    live = words[:, 0] & np.uint64(0xFF) == np.uint64(RegionState.LIVE)
    found = np.flatnonzero(live & ((healthy != whole) | (joining != 0) | (poisoned != 0)))
    left = healthy[found]
    counts = sum(
        ((left >> np.uint64(copy)) & np.uint64(1) for copy in range(MAX_COPIES)), np.zeros_like(left)
    )
    return [int(index) for index in found[np.argsort(counts, kind="stable")]]
