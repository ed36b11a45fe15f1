"""A pool's server in this process, at a socket, that tests stop and start."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from softcxl.fm.pool.copies import Copies
from softcxl.fm.pool.door import PoolDoor
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.layout import Plan
from softcxl.pool.region import Region
from softcxl.pool.session import Pool, connect
from tests.fm.pool.memories import FakeSource, arena

LONG = 60.0


def wait_until(true: Callable[[], object]) -> None:
    """Until that is so; an error after a minute."""
    until = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.002)


ROOMY = Plan(slots=64, regions=4096, heap=64 << 20)


class Served:
    """A pool of `count` sources of 8 MiB each, served at `path`."""

    def __init__(self, path: Path, count: int = 3, plan: Plan = ROOMY, **more: Any) -> None:
        self.path = path
        self.sources = [FakeSource(f"mem{number}") for number in range(count)]
        self.arena = arena(plan)
        self._plan = plan
        self._more = more
        self._stack = contextlib.ExitStack()
        self.server: PoolServer
        self.clients: list[Pool] = []

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    def start(self) -> None:
        self._stack = contextlib.ExitStack()
        self.server = PoolServer(self.arena, self.sources, plan=self._plan, **self._more)
        self._stack.enter_context(self.server)
        self._stack.enter_context(PoolDoor(self.server, self.path))

    def stop(self) -> None:
        self._stack.close()

    def connect(self, name: str = "test", **more: Any) -> Pool:
        return connect(self.address, name=name, **more)

    def client(self, name: str = "test") -> Pool:
        """One more client, until the end of `serving`."""
        pool = self.connect(name)
        self.clients.append(pool)
        return pool

    def regions(self) -> int:
        """How many regions there are."""
        with self.server.lock:
            return sum(not one.leaving for one in self.server.regions.known.values())

    def drop(self, region: Region, copies: int) -> None:
        """Give copies (a bitmap) of a region up, as where their device fails."""
        assert Copies(self.server.directory, region.index).drop(copies)
        self.server.directory.health_changed()

    def copy(self, region: Region, number: int) -> bytes:
        """The bytes of one copy, past all protocol."""
        copy = region.info.copies[number]
        held = self.server.sources.all[copy.source]
        memory = next(one for one in self.sources if one.name == held.name).memory
        return memory[copy.offset : copy.offset + region.size]


@contextlib.contextmanager
def serving(folder: Path, **more: Any) -> Iterator[Served]:
    """A served pool, and its end."""
    served = Served(folder / "pool.sock", **more)
    served.start()
    try:
        yield served
        for pool in served.clients:
            pool.close()
    finally:
        served.stop()
