"""Dynamic capacity of several logical devices over one medium: that of an MLD, which its hosts share.

>>> import threading
>>> from softcxl.device.clock import ManualClock
>>> from softcxl.device.dynamic.region import DynamicRegion
>>> from softcxl.device.persist import StatePage
>>> pool = SharedCapacity(
...     [DynamicRegion(length=256 << 20, sharable=True)],
...     start=1 << 30,
...     medium=Medium.memfd("pool-dynamic", 256 << 20),
...     clock=ManualClock(),
...     lock=threading.RLock(),
...     page=StatePage(None),
... )
>>> hex(pool.start), pool.share(3).end == pool.start + pool.medium.size
('0x40000000', True)

A logical device is a `Type3` that is made with ``dynamic=pool.share(LD_ID)``. All of them have the regions at the same
device addresses, from `start` on: no logical device has as much memory that its own addresses would reach there. What
lies between the two is nobody's. The host ID of a logical device is its LD ID.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from softcxl.device.clock import Clock
from softcxl.device.dynamic.capacity import DynamicCapacity
from softcxl.device.dynamic.region import DynamicRegion, place, span
from softcxl.device.persist import StatePage
from softcxl.memory.media import Medium
from softcxl.memory.places import Shared
from softcxl.spec.command.poison import PoisonSource


@dataclass(frozen=True, slots=True)
class Share:
    """What the logical device `host` has of `owner`'s capacity: how a `Type3` is told of it."""

    owner: SharedCapacity
    host: int

    @property
    def end(self) -> int:
        """The first device address after the last region."""
        return self.owner.start + self.owner.medium.size

    @property
    def memory(self) -> Shared:
        """The bytes, and at what device address they begin."""
        return Shared(self.owner.start, self.owner.medium)


class SharedCapacity(DynamicCapacity):
    """Dynamic capacity in `regions`, which lie at device addresses from `start` on, with its bytes in `medium`.

    `start` is a multiple of 256 MiB; `medium` has exactly the size of all regions' decode lengths (`size_of`) and stays
    the caller's to close. `lock` is that of all logical devices: they have one. `page` keeps what outlives power.
    `poisoned` are called with each line (DPA) that has become bad for one of them, so that it is for all, `erased`
    with each range (DPA, bytes) that was erased, or that poison was taken off; `bad` are the bad lines. Raises
    `RegionInvalid`, `StateDamaged`, and `ValueError` for a start or a medium that does not fit.
    """

    def __init__(
        self,
        regions: Iterable[DynamicRegion],
        *,
        start: int,
        medium: Medium,
        clock: Clock,
        lock: AbstractContextManager[object],
        page: StatePage,
    ) -> None:
        placed = place(regions, start)
        if not placed or start % (256 << 20):
            raise ValueError(
                f"{len(placed)} regions from {start:#x} on: one at least, at a multiple of 256 MiB"
            )
        if medium.size != span(placed):
            raise ValueError(f"{medium.name} has {medium.size:#x} bytes; the regions take {span(placed):#x}")
        self.medium = medium
        self.bad: dict[int, PoisonSource] = {}
        self.poisoned: list[Callable[[int, PoisonSource], object]] = []
        self.erased: list[Callable[[int, int], object]] = []
        super().__init__(placed, erase=self._clear, clock=clock, lock=lock, page=page)

    def share(self, host: int) -> Share:
        """What the logical device with the LD ID `host` is made with."""
        return Share(self, host)

    def power_cycle(self) -> None:
        """The power of the whole device goes and comes: volatile regions have no extents, and have lost their bytes."""
        with self.lock:
            self.power_on()
            self.forget_volatile()

    def forget_volatile(self) -> None:
        """Volatile regions have lost their bytes. The lock is held."""
        for region in self.regions:
            if not region.non_volatile:
                self._clear(region.base, region.decode_length)

    def poison(self, dpa: int, source: PoisonSource) -> None:
        """A logical device has listed the line at `dpa`: if it is in the regions, all do. The lock is held."""
        if dpa >= self.start and dpa not in self.bad:
            self.bad[dpa] = source
            for told in self.poisoned:
                told(dpa, source)

    def heal(self, dpa: int, length: int) -> None:
        """A logical device has no poison in a range any more: no other has, as far as it is in the regions. The lock
        is held."""
        start = max(dpa, self.start)
        if self._forget_bad(start, dpa + length):
            for told in self.erased:
                told(start, dpa + length - start)

    def _clear(self, dpa: int, length: int) -> None:
        self.medium.clear(dpa - self.start, length)
        self._forget_bad(dpa, dpa + length)
        for told in self.erased:
            told(dpa, length)

    def _forget_bad(self, start: int, end: int) -> bool:
        before = len(self.bad)
        self.bad = {line: source for line, source in self.bad.items() if not start <= line < end}
        return len(self.bad) < before


def size_of(regions: Iterable[DynamicRegion]) -> int:
    """Bytes of the medium that `regions` take: the sum of their decode lengths."""
    return span(place(regions, 0))
