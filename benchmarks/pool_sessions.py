"""What a thousand programs cost that have one server's pool open at once: real sessions of `softcxl.connect`.

They are in a few processes, as many in each. In every process each session in turn allocates a region and gives it
back, both by request to the server; then each calls a function of a service, which one more process serves. The peer of
that is an epoll server on a Unix socket, with a connection for each session, which sends 64 bytes back and is asked
in the same way. Memory is what all processes together have more than before (PSS), for each session; of the peer, too,
where what the kernel keeps for sockets is not in it.

    python benchmarks/pool_sessions.py [--json] [--sessions N] [--processes N] [--seconds S]"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import select
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pool_peers.served import pool

import softcxl

REQUEST = bytes(64)
ARENA = 256 << 10
"""Bytes of the arena that a session takes, with its calls of services."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    given = parser.parse_args()
    each = -(-given.sessions // given.processes)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 2 * each + 128:
        parser.error(f"{each} sessions in a process take {2 * each + 128} open files; {most} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rows = measured(each, given.processes, given.seconds)
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{f'{each * given.processes:,} sessions of one server':<36}{'pool':>12}{'socket':>12}{'ratio':>8}")
    for what, (ours, theirs) in rows.items():
        peer = f"{theirs:>12,.1f}{ours / theirs:>8.2f}" if theirs else ""
        print(f"{what:<36}{ours:>12,.1f}{peer}")


def measured(each: int, processes: int, seconds: float) -> dict[str, tuple[float, float | None]]:
    """Of the pool and of its peer."""
    count = each * processes
    with ExitStack() as stack:
        arena = max(64, count * ARENA >> 20)
        address = stack.enter_context(pool(arena=f"{arena}MiB"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="softcxl-bench-")))
        path = str(folder / "socket")
        served = started(stack, serve, address), started(stack, echo, path)
        for one in served:
            one.recv()
        everybody = [started(stack, ask, address, path, each, seconds) for _ in range(processes)]
        server = next(child for child in children() if child not in multiprocessing_pids())
        before = memory([server, *multiprocessing_pids()])
        found: dict[str, tuple[float, float | None]] = {}
        spent = told(everybody, "connect")
        found["connected, sessions a second"] = count / max(spent), None
        rates = told(everybody, "allocate")
        found["allocate and free, requests a second"] = sum(rates), None
        calls = told(everybody, "call")
        grown = memory([server, *multiprocessing_pids()]) - before
        told(everybody, "close")
        before = memory(multiprocessing_pids())
        spent = told(everybody, "sockets")
        found["connected, sessions a second"] = found["connected, sessions a second"][0], count / max(spent)
        found["64 B to a service, calls a second"] = sum(calls), sum(told(everybody, "send"))
        found["memory, KiB a session"] = grown / count, (memory(multiprocessing_pids()) - before) / count
        return found


# -- who is asked ------------------------------------------------------------------------------------------------------


def serve(stop: Connection, address: str) -> None:
    """A service of one function."""
    with softcxl.connect(address, name="server") as session:

        @session.service("echo")
        def echo(data: bytes) -> bytes:
            return data

        stop.send(None)
        stop.recv()


def echo(stop: Connection, path: str) -> None:
    """The peer: what comes on any connection goes back."""
    poll = select.epoll()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(path)
        door.listen(4096)
        there: dict[int, socket.socket | None] = {door.fileno(): door, stop.fileno(): None}
        for number in there:
            poll.register(number, select.EPOLLIN)
        stop.send(None)
        while True:
            for number, _ in poll.poll():
                one = there[number]
                if one is None:
                    return
                if one is door:
                    came = door.accept()[0]
                    there[came.fileno()] = came
                    poll.register(came.fileno(), select.EPOLLIN)
                else:
                    data = one.recv(64)
                    if data:
                        one.send(data)
                    else:
                        one.close()


# -- who asks ----------------------------------------------------------------------------------------------------------


@dataclass
class Asker:
    """So many sessions, and connections of the peer."""

    address: str
    path: str
    each: int
    seconds: float
    sessions: list[Any] = field(default_factory=list)

    def connect(self) -> float:
        """Seconds that it took."""
        start = time.perf_counter()
        self.sessions = [
            softcxl.connect(self.address, name=f"{os.getpid()}-{number}") for number in range(self.each)
        ]
        return time.perf_counter() - start

    def allocate(self) -> float:
        """Requests a second: two for each region."""
        return 2 * self.rate([lambda one=one: one.allocate(4096).close() for one in self.sessions])

    def call(self) -> float:
        """Calls a second."""
        clients = [one.client("echo", timeout=60) for one in self.sessions]
        return self.rate([lambda one=one: one.echo(REQUEST) for one in clients])

    def close(self) -> float:
        """Nothing to tell."""
        for one in self.sessions:
            one.close()
        self.sessions = []
        return 0

    def sockets(self) -> float:
        """Seconds that it took to connect those of the peer."""
        start = time.perf_counter()
        for _ in range(self.each):
            one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            one.connect(self.path)
            self.sessions.append(one)
        return time.perf_counter() - start

    def send(self) -> float:
        """The peer's calls a second."""
        return self.rate([lambda one=one: (one.send(REQUEST), one.recv(64)) for one in self.sessions])

    def rate(self, moves: list[Callable[[], object]]) -> float:
        """How many a second, one session after the other."""
        for move in moves:
            move()
        count, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < self.seconds:
            for move in moves:
                move()
            count += len(moves)
        return count / spent


def ask(control: Connection, address: str, path: str, each: int, seconds: float) -> None:
    """Do what one is told, and say what it has come to."""
    asker = Asker(address, path, each, seconds)
    while True:
        control.send(getattr(asker, control.recv())())


# -- processes ---------------------------------------------------------------------------------------------------------


def started(stack: ExitStack, target: Callable[..., None], *arguments: object) -> Connection:
    """A process, and how to talk to it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    stack.callback(process.join)
    stack.callback(process.terminate)
    return ours


def told(everybody: list[Connection], what: str) -> list[float]:
    """What each says to that, all at once."""
    for one in everybody:
        one.send(what)
    return [one.recv() for one in everybody]


def multiprocessing_pids() -> list[int]:
    """Processes that were started here."""
    return [one.pid or 0 for one in multiprocessing.active_children()]


def children() -> list[int]:
    """And those with the pool's server among them."""
    return [int(one) for one in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def memory(processes: list[int]) -> float:
    """KiB that these have, what several share in equal parts."""
    total = 0.0
    for one in processes:
        lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


if __name__ == "__main__":
    sys.exit(main())
