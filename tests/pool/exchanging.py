"""A pool that is served by this process, for tests of its clients."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from softcxl.fm.pool.door import PoolDoor
from softcxl.fm.pool.server import PoolServer
from softcxl.fm.pool.source import SourceObserver
from softcxl.pool.layout import Plan
from softcxl.pool.session import Pool, connect

PLAN = Plan(slots=64, regions=4096, heap=64 << 20)


class Memfd:
    """A source of memory that nothing ever befalls."""

    def __init__(self, name: str, size: int) -> None:
        self.name = self.device = name
        self.switch = None
        self.size = size
        self.offset = 0
        self.fd = os.memfd_create(name)
        os.truncate(self.fd, size)

    def watch(self, observer: SourceObserver) -> None: ...

    def poisoned(self, offset: int, size: int) -> list[tuple[int, int]]:
        return []

    def clear_poison(self, offset: int, length: int) -> None: ...


@dataclass
class Served:
    """A server, the door to it, and clients in this process."""

    folder: Path
    lease: float = 10.0
    clients: list[Pool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.arena = os.memfd_create("arena")
        os.truncate(self.arena, PLAN.size)
        self.memory = Memfd("mem0", 64 << 20)
        self.start()

    @property
    def address(self) -> str:
        return f"unix:{self.folder / 'pool'}"

    def start(self) -> None:
        """Start a server on the arena as it is."""
        self.server = PoolServer(self.arena, [self.memory], plan=PLAN, lease=self.lease)
        self.server.start()
        self.door = PoolDoor(self.server, self.folder / "pool")
        self.door.open()

    def stop(self) -> None:
        """Stop it, as if it had been killed: nobody is told."""
        self.door.close()
        self.server.close()

    def client(self, name: str = "test") -> Pool:
        """One more client."""
        pool = connect(self.address, name=name)
        self.clients.append(pool)
        return pool

    def regions(self) -> int:
        """How many regions there are."""
        return len(self.server.regions.known)


@contextlib.contextmanager
def serving(folder: Path, lease: float = 10.0) -> Iterator[Served]:
    """A served pool, and its end."""
    served = Served(folder, lease)
    try:
        yield served
        for pool in served.clients:
            pool.close()
    finally:
        served.stop()
        os.close(served.arena)
        os.close(served.memory.fd)


class Peer:
    """One of the programs in `peers.py`, until it is killed."""

    def __init__(self, what: str, address: str) -> None:
        program = Path(__file__).with_name("peers.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), what, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hears(self) -> str:
        """The next line that it says, empty at its end."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@contextlib.contextmanager
def peer(what: str, served: Served) -> Iterator[Peer]:
    """A program beside this one; it is killed in the end, if not before."""
    one = Peer(what, served.address)
    try:
        yield one
    finally:
        one.kill()
