"""How many calls a second one server answers when a thousand clients ask, beside a socket for each of them.

Each client has one call outstanding: it asks again when it has its answer. Clients live in one process, the
server's one worker in another: what is measured is what it costs the server that there are many. The peer is an
epoll server on as many Unix sockets, which reads 64 bytes and sends them back, asked in the same way. Rounds take
turns; medians.

    python benchmarks/pool_clients.py [--json] [--clients N] [--rounds N] [--seconds S]"""

from __future__ import annotations

import argparse
import json
import mmap
import multiprocessing
import os
import resource
import select
import socket
import statistics
import time
from multiprocessing.connection import Connection

from softcxl.pool import native

MIB = 1 << 20
REQUEST = bytes(64)
TABLE = 4096  # bytes of a client's table of calls
QUEUE = MIB
WORKER = 65535
CORES = sorted(os.sched_getaffinity(0))


class Calls:
    """A queue that all share, a table of calls for each client, one worker."""

    def __init__(self, clients: int) -> None:
        self.clients = clients
        self.memory = native.Memory(mmap.mmap(-1, QUEUE + clients * TABLE))
        native.Queue.make(self.memory, 0, QUEUE, 4096, 64)
        for client in range(clients):
            native.Caller.make(self.memory, QUEUE + client * TABLE, TABLE, 4, 256)

    def serve(self, stop: Connection) -> None:
        """One worker, until there is word from `stop`."""
        worker = native.Worker(self.memory, native.Queue(self.memory, 0, QUEUE, WORKER))
        for client in range(self.clients):
            worker.learn(1 + client, QUEUE + client * TABLE, TABLE)
        while True:
            try:
                worker.answer(worker.next(0.2))
            except TimeoutError:
                if stop.poll():
                    return

    def ask(self, seconds: float) -> float:
        """Calls a second."""
        callers = [
            native.Caller(
                self.memory, QUEUE + client * TABLE, TABLE, native.Queue(self.memory, 0, QUEUE, 1 + client)
            )
            for client in range(self.clients)
        ]
        calls = [caller.start(REQUEST) for caller in callers]
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for client, caller in enumerate(callers):
                caller.result(calls[client], 30)
                calls[client] = caller.start(REQUEST)
            count += len(callers)
        spent = time.perf_counter() - start
        for caller, call in zip(callers, calls, strict=True):
            caller.result(call, 30)
        return count / spent


class Sockets:
    """A stream socket for each client, and an epoll server."""

    def __init__(self, clients: int) -> None:
        self.pairs = [socket.socketpair() for _ in range(clients)]

    def serve(self, stop: Connection) -> None:
        """Answer whoever has sent something, until there is word from `stop`."""
        poll = select.epoll()
        there = {theirs.fileno(): theirs for _, theirs in self.pairs}
        for number in [*there, stop.fileno()]:
            poll.register(number, select.EPOLLIN)
        while True:
            for number, _ in poll.poll():
                if number == stop.fileno():
                    return
                one = there[number]
                one.send(one.recv(64))

    def ask(self, seconds: float) -> float:
        """Calls a second; whoever is answered asks again."""
        poll = select.epoll()
        here = {ours.fileno(): ours for ours, _ in self.pairs}
        for number, one in here.items():
            poll.register(number, select.EPOLLIN)
            one.send(REQUEST)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for number, _ in poll.poll():
                here[number].recv(64)
                here[number].send(REQUEST)
                count += 1
        spent = time.perf_counter() - start
        for one in here.values():
            one.recv(64)
        poll.close()
        return count / spent


def rates(ways: list[Calls | Sockets], rounds: int, seconds: float) -> list[list[float]]:
    """Calls a second of each way in each round; servers are on a processor of their own where there are two."""
    context = multiprocessing.get_context("fork")
    stops, servers = [], []
    for way in ways:
        stop, theirs = context.Pipe()
        server = context.Process(target=way.serve, args=(theirs,), daemon=True)
        server.start()
        os.sched_setaffinity(server.pid or 0, {CORES[-1]})
        stops.append(stop)
        servers.append(server)
    os.sched_setaffinity(0, {CORES[0]})
    try:
        found = [[way.ask(seconds) for way in ways] for _ in range(rounds)]
    finally:
        os.sched_setaffinity(0, CORES)
        for stop in stops:
            stop.send(None)
        for server in servers:
            server.join()
    return [list(one) for one in zip(*found, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn")
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * given.clients + 64
    if hard < needed:
        parser.error(
            f"--clients {given.clients} takes {needed} open files for the sockets; {hard} are allowed"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    results = []
    for clients in (1, given.clients):
        calls, sockets = rates([Calls(clients), Sockets(clients)], given.rounds, given.seconds)
        results.append(
            {
                "clients": clients,
                "calls a second": statistics.median(calls),
                "sockets": statistics.median(sockets),
                "ratio": statistics.median(mine / peer for mine, peer in zip(calls, sockets, strict=True)),
            }
        )
    if given.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{'clients of one server, 64 B':<30}{'calls/s':>12}{'sockets/s':>12}{'ratio':>8}")
    for row in results:
        print(
            f"{row['clients']:<30,}{row['calls a second']:>12,.0f}{row['sockets']:>12,.0f}{row['ratio']:>8.2f}"
        )


if __name__ == "__main__":
    main()
