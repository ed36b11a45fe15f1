"""What has to be done to every region that a source has copies of, a portion at a time: requests are answered between.

A source may have copies of hundreds of thousands of regions. That it has failed is said once, in its line of the
directory, and by that its copies are lost to all who read or write; what is said in each region's record comes after.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softcxl.fm.pool.copies import Copies
from softcxl.pool.layout import MAX_COPIES, REGION

if TYPE_CHECKING:
    from softcxl.fm.pool.directory import Directory

log = logging.getLogger(__name__)

PORTION = 512
"""Regions of a portion, at most."""

_RECORDS = 1 << 14
"""Records that a portion looks through, at most."""

_PAUSE = 0.001
_EXTENT = REGION["extent0"] // 8

Each = Callable[[Copies, int], object]
"""What is done to a region: its copies, and a bitmap of those on the source."""


@dataclass
class _Sweep:
    number: int
    each: Each
    then: Callable[[], None]
    at: int = 0


class Sweeps:
    """Sweeps over a pool's regions, one after the other, in the order in which they were asked for.

    `lock` is the server's; `later` runs in another thread what does not fit in one portion.
    """

    def __init__(self, directory: Directory, lock: Any, later: Callable[[Callable[[], None]], None]) -> None:
        self._directory = directory
        self._lock = lock
        self._later = later
        self._due: deque[_Sweep] = deque()
        self._under_way = threading.Lock()
        self.rest: Callable[[], None] = lambda: time.sleep(_PAUSE)
        """Called between portions, without the lock: for others to take it."""

    def begin(self, number: int, each: Each, then: Callable[[], None]) -> None:
        """Have `each` done to all regions that source `number` has copies of, and `then`, with the server's lock held.
        Whoever calls holds it, too; what is little is done when this returns."""
        self._due.append(_Sweep(number, each, then))
        if len(self._due) > 1:
            return  # its turn comes
        self._next()
        if self._due:
            self._later(self.finish)

    def finish(self, hurry: bool = False) -> None:
        """Do all that is due. Without the lock, or else nobody is answered meanwhile; as nobody is in a `hurry`."""
        with self._under_way:
            while True:
                with self._lock:
                    if self._due:
                        self._next()
                    if not self._due:
                        return
                if not hurry:
                    self.rest()

    def at_once(self, number: int, each: Each) -> None:
        """Have `each` done to all regions of a source before this returns: before a server has begun."""
        sweep = _Sweep(number, each, lambda: None)
        while not self._portion(sweep):
            pass

    def _next(self) -> None:
        sweep = self._due[0]
        try:
            done = self._portion(sweep)
        except Exception:
            log.exception("what befell source %d is not in all regions' records", sweep.number)
            done = True
        if done:
            self._due.popleft()
            sweep.then()

    def _portion(self, sweep: _Sweep) -> bool:
        """Returns whether that was the last one."""
        words = self._directory.region_words()
        start, end = sweep.at, min(sweep.at + _RECORDS, len(words))
        rows = words[start:end]
        there = rows[:, _EXTENT : _EXTENT + MAX_COPIES] >> np.uint64(56) == np.uint64(sweep.number)
        found = np.flatnonzero(there.any(axis=1) & (rows[:, 0] & np.uint64(0xFF) != 0))
        if len(found) > PORTION:
            found = found[:PORTION]
            end = start + int(found[-1]) + 1
        for at in found.tolist():
            copies = Copies(self._directory, start + at)
            bits = bits_on(copies, sweep.number)
            if bits:
                sweep.each(copies, bits)
        sweep.at = end
        return end == len(words)


def bits_on(copies: Copies, number: int) -> int:
    """A bitmap of a region's copies that are on a source."""
    return sum(1 << copy for copy, at in copies.extents().items() if at >> 56 == number)
