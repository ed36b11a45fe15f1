"""A pool and the guests that reach it, for tests of either way."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softcxl import Fabric
from softcxl.fabric.pool import sources
from softcxl.fm.pool.door import PoolDoor
from softcxl.fm.pool.server import PoolServer
from softcxl.lab.boot import Machine
from softcxl.pool.layout import Plan
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

    def share_a_region(self) -> str:
        """Programs of guest alpha, of the host and of guest beta write and read one region, "shared", and leave.

        Returns how alpha's has come to the pool.
        """
        said = python(
            self.guests["alpha"],
            "import sys, softcxl\n"
            "with softcxl.connect(name='writer') as pool:\n"
            "    region = pool.allocate('1MiB', name='shared', replicas=2)\n"
            "    region.write(4096, b'from the guest')\n"
            "    print(pool.address, pool.coherence, 'numpy' in sys.modules)\n",
        )
        address, coherence, numpy = said.split()
        assert (coherence, numpy) == ("host", "False")
        with connect(self.address, name="host") as pool:
            region = pool.open("shared")
            assert region.read(4096, 14) == b"from the guest"
            region.write(8192, b"from the host")
        answer = python(
            self.guests["beta"],
            "import softcxl\n"
            "with softcxl.connect(name='reader') as pool:\n"
            "    region = pool.open('shared')\n"
            "    print(region.read(4096, 14), region.read(8192, 13))\n",
        )
        assert answer == "b'from the guest' b'from the host'\n"
        assert self.clients("alpha") == self.clients("beta") == []
        return address

    def kill(self, host: str) -> None:
        """Kill a guest that has a program connected: it is missed, and what all have shared is there."""
        guest = self.guests[host]
        guest.output(
            "python3 -c 'import softcxl, time; pool = softcxl.connect(name=\"last\"); time.sleep(600)'"
            " >/dev/null 2>&1 </dev/null &"
        )
        self.await_clients(host, ["last"])
        os.kill(guest.pid, signal.SIGKILL)
        self.await_clients(host, [])
        with connect(self.address, name="host") as pool:
            assert pool.open("shared").read(4096, 14) == b"from the guest"


@contextlib.contextmanager
def serving(folder: Path, topology: str, plan: Plan, **more: Any) -> Iterator[tuple[Fabric, PoolServer, str]]:
    """A fabric, the server of its pool, and where that listens on the host."""
    with contextlib.ExitStack() as stack:
        arena = os.memfd_create("arena", os.MFD_CLOEXEC)
        stack.callback(os.close, arena)
        os.ftruncate(arena, plan.size)
        fabric = stack.enter_context(Fabric.loads(topology))
        server = stack.enter_context(PoolServer(arena, sources(fabric), plan=plan, **more))
        stack.enter_context(PoolDoor(server, folder / "s"))
        yield fabric, server, f"unix:{folder / 's'}"


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
