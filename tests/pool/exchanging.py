"""For tests of channels and services: a pool that is served here, and programs beside this one that are killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from softcxl.pool.layout import Plan
from softcxl.pool.session import Pool
from tests.pool.served import Served

PLAN = Plan(slots=64, regions=4096, heap=64 << 20)


class Exchanging(Served):
    """A served pool, and its clients in this process."""

    def __init__(self, folder: Path, **more: Any) -> None:
        super().__init__(folder / "pool.sock", plan=PLAN, **more)
        self.clients: list[Pool] = []

    def client(self, name: str = "test") -> Pool:
        """One more client."""
        pool = self.connect(name)
        self.clients.append(pool)
        return pool

    def regions(self) -> int:
        """How many regions there are."""
        with self.server.lock:
            return sum(not one.leaving for one in self.server.regions.known.values())


@contextlib.contextmanager
def serving(folder: Path, **more: Any) -> Iterator[Exchanging]:
    """A served pool, and its end."""
    served = Exchanging(folder, **more)
    served.start()
    try:
        yield served
        for pool in served.clients:
            pool.close()
    finally:
        served.stop()


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

    def tell(self) -> None:
        """Tell it to go on."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

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
