"""Several logical devices, or what is like them, over one pool of dynamic capacity."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from softcxl.device.clock import Clock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.shared import SharedCapacity, size_of
from softcxl.device.persist import StatePage
from softcxl.device.type3 import Type3
from softcxl.memory import Medium

MIB = 1 << 20
START = 1 << 30
"""Where the regions begin for every logical device, all of which have less memory of their own."""


class Ld(Type3):
    """A logical device: one lock for all of a pool."""

    def __init__(self, name: str, pool: SharedCapacity, host: int, **options: object) -> None:
        self._pool_lock = pool.lock
        super().__init__(name, dynamic=pool.share(host), **options)  # type: ignore[arg-type]

    def make_lock(self) -> threading.RLock:
        return self._pool_lock  # type: ignore[return-value]


@contextmanager
def pool_of(
    regions: Iterable[DynamicRegion], clock: Clock, page: StatePage | None = None
) -> Iterator[SharedCapacity]:
    """A pool whose medium is a memfd."""
    regions = list(regions)
    with Medium.memfd("pool-dynamic", size_of(regions)) as medium:
        pool = SharedCapacity(
            regions,
            start=START,
            medium=medium,
            clock=clock,
            lock=threading.RLock(),
            page=page or StatePage(None),
        )
        yield pool
        pool.close()
