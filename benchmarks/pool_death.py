"""How soon it is noticed that a program was killed: by who waits for its records, and by who waits for its answer.

A process is the producer of a ring, serves a function, and has a Unix socket to this one. It is killed with SIGKILL
while this one waits in `receive`, which raises `Closed` then, or for the answer of a call, which raises `Lost`, or for
bytes of the socket, which hangs up: what the operating system itself says of a death, once it has taken all that
the process had. Each row has its turn in each round, with a process of its own; medians, and the slowest.

    python benchmarks/pool_death.py [--json] [--rounds N]"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import socket
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext

from pool_peers.served import pool

import softcxl
from softcxl.pool.errors import Closed, Lost
from softcxl.pool.session import Pool

PATIENCE = 60.0
SETTLED = 0.02
"""Seconds after which whoever waits is taken to sleep."""
Died = Callable[[Callable[[], object]], float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["softcxl.pool.service", "softcxl.pool.session"])
    ways = {
        "a socket hangs up": socket_hangs_up,
        "receive raises Closed": receive_raises,
        "a call raises Lost": call_raises,
    }
    times: dict[str, list[float]] = {what: [] for what in ways}
    with pool() as address, softcxl.connect(address, name="waits") as session:
        for _ in range(given.rounds):
            for what, way in ways.items():
                times[what].append(killed(context, address, session, way))
    (peer, *_) = times.values()
    rows = [
        {
            "what": what,
            "ms": 1e3 * statistics.median(spent),
            "slowest": 1e3 * max(spent),
            "ratio": statistics.median(spent) / statistics.median(peer),
        }
        for what, spent in times.items()
    ]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'after SIGKILL':<28}{'ms':>8}{'slowest':>10}{'to a socket':>14}")
    for row in rows:
        print(f"{row['what']:<28}{row['ms']:>8.2f}{row['slowest']:>10.2f}{row['ratio']:>14.1f}")


def killed(
    context: BaseContext, address: str, session: Pool, way: Callable[[Pool, Connection, Died], float]
) -> float:
    """Seconds from a process's death until it was noticed."""
    ours, theirs = context.Pipe()
    process = context.Process(target=lives, args=(theirs, address), daemon=True)
    process.start()
    theirs.close()
    victim = ours.recv()

    def died(wait: Callable[[], object]) -> float:
        """Have it killed once `wait` is under way, and take the time until that has come to its end."""
        wake, sleep = os.pipe()
        killer = os.fork()
        if not killer:
            time.sleep(SETTLED)
            began = time.perf_counter()
            os.kill(victim, signal.SIGKILL)
            os.write(sleep, repr(began).encode())
            os._exit(0)
        wait()
        noticed = time.perf_counter()
        began = float(os.read(wake, 64))
        os.close(wake)
        os.close(sleep)
        os.waitpid(killer, 0)
        return noticed - began

    try:
        return way(session, ours, died)
    finally:
        process.kill()
        process.join()
        ours.close()


def lives(control: Connection, address: str) -> None:
    """Whoever is killed: has all three, and does nothing."""
    session = softcxl.connect(address, name="dies")
    producer = session.ring("ring").producer()

    @session.service("service")
    def sleep(data: bytes) -> bytes:
        time.sleep(PATIENCE)
        return data

    control.send(os.getpid())
    control.recv()
    producer.close()


# -- who waits ---------------------------------------------------------------------------------------------------------


def socket_hangs_up(session: Pool, control: Connection, died: Died) -> float:
    with socket.socket(fileno=os.dup(control.fileno())) as ours:
        return died(lambda: ours.recv(1))


def receive_raises(session: Pool, control: Connection, died: Died) -> float:
    with session.ring("ring").consumer() as consumer:

        def wait() -> None:
            try:
                consumer.receive(PATIENCE)
            except Closed:
                return
            raise AssertionError("something came from who was killed")

        return died(wait)


def call_raises(session: Pool, control: Connection, died: Died) -> float:
    with session.client("service", timeout=PATIENCE) as client:

        def wait() -> None:
            try:
                client.sleep(b"")
            except Lost:
                return
            raise AssertionError("who was killed has answered")

        return died(wait)


if __name__ == "__main__":
    main()
