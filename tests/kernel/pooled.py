"""A pool and the guests that reach it, for tests of either way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from softcxl.fm.pool.server import PoolServer
from softcxl.lab.boot import Machine
from softcxl.pool.session import connect


@dataclass
class Pooled:
    """A pool's server in this process, where it listens, and guests by name."""

    server: PoolServer
    address: str
    guests: dict[str, Machine]

    def clients(self, host: str) -> list[str]:
        """Who is connected from a host, by name."""
        with connect(self.address, name="observer") as pool:
            return sorted(one["name"] for one in pool.tell("clients") if one["host"] == host)

    def await_clients(self, host: str, wanted: list[str]) -> None:
        """Wait until those, and nobody else, are connected from a host."""
        for _ in range(600):
            if self.clients(host) == wanted:
                return
            threading.Event().wait(0.1)
        assert self.clients(host) == wanted


def python(machine: Machine, script: str, *, said: Callable[[bytes], None] = lambda text: None) -> str:
    """What a program in a guest prints."""
    result = machine.run(
        "exec python3 -u -",
        given=script.encode(),
        timeout=120,
        on_output=lambda stream, data: said(data) if stream == 1 else None,
    )
    assert result.status == 0, result.stderr.decode()
    return result.text
