"""How many regions a second a pool's server allocates, and whether it slows down with many of them alive.

Clients are processes of their own. Each allocation is a request to the server and back, or a hundred of them are one
(62 is the most that goes into a message). `allocated` are regions that are kept until the turn is over; `given back`
are those that are closed at once, which frees what has no name. The limit is for what a server does that always has
something to do: with several clients whose requests are there when it looks (they live in one process and take turns,
as there are no processors for more), or a hundred at once. One client alone waits for each answer before it asks again:
its figure is how long that takes. Where there are more processes than processors, what is measured is how long it takes
to wake them. `server, µs` is what a region costs the server of its processor's time in all
its life: made, closed, cleared. The peer is what a program without a pool does for shared memory: a file in /dev/shm,
sized, mapped, unmapped and removed. Figures are medians of the rounds.

    python benchmarks/pool_allocation.py [--json] [--rounds N] [--seconds S] [--live N]"""

from __future__ import annotations

import argparse
import json
import mmap
import multiprocessing
import os
import statistics
import struct
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from pool_peers.served import pool

import softcxl
from softcxl.pool import native
from softcxl.pool.protocol import Allocate, Opcode
from softcxl.pool.region import Region
from softcxl.pool.session import Pool

LIMIT = 100_000
BATCH = 100
CLIENTS = 4
ASKING = 8
NAMED = struct.Struct("<2Q64x")
TICK = 1 / os.sysconf("SC_CLK_TCK")


def one_by_one(session: Pool) -> list[Region]:
    return [session.allocate(4096) for _ in range(BATCH)]


def at_once(session: Pool) -> list[Region]:
    return session.allocate_many(4096, BATCH)


def given_back(session: Pool) -> list[Region]:
    for _ in range(BATCH):
        session.allocate(4096).close()
    return []


def at_once_given_back(session: Pool) -> list[Region]:
    for region in session.allocate_many(4096, BATCH):
        region.close()
    return []


KINDS: dict[str, Callable[[Pool], list[Region]]] = {
    kind.__name__: kind for kind in (one_by_one, at_once, given_back, at_once_given_back)
}


def turn(session: Pool, kind: str, seconds: float) -> tuple[int, float]:
    """How many regions were allocated, and in how many seconds."""
    make, kept, count = KINDS[kind], list[Region](), 0
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        kept += make(session)
        count += BATCH
    for region in kept:
        region.close()
    session.tell("server")  # when that is answered all before it is done
    return count, spent


def client(address: str, orders: Connection) -> None:
    """Does what it is told to, until it is told nothing."""
    with softcxl.connect(address) as session:
        while (order := orders.recv()) is not None:
            orders.send(turn(session, *order))


class Asking:
    """Clients that live in this process, each with one request under way: it asks again when it has its answer. So a
    server has always something to do, as with many processors that ask, and nobody has to be woken."""

    def __init__(self, address: str, count: int) -> None:
        self.sessions = [softcxl.connect(address) for _ in range(count)]
        self.callers = []
        for one in self.sessions:
            header = one.header
            queue = native.Queue(one.directory, header.queue_at, header.queue_size, one.slot)
            at = header.calls_at + one.slot * header.calls_stride
            self.callers.append(native.Caller(one.directory, at, header.calls_stride, queue))
        self.request = 1

    def asked(self) -> bytes:
        self.request += 1
        return Allocate(
            size=4096, request=self.request, copies=1, policy=0, separate=0, mode=2, flags=0, source=0, lease=0,
            reserved0=b"", name=b"",
        ).pack()  # fmt: skip

    def turn(self, seconds: float) -> float:
        """Regions a second. Requests are packed before, and what was made is closed after."""
        made: list[list[bytes]] = [[] for _ in self.callers]
        spent = 0.0
        while spent < seconds:
            requests = [[self.asked() for _ in range(500)] for _ in self.callers]
            start = time.perf_counter()
            self.run(Opcode.ALLOCATE, requests, made)
            spent += time.perf_counter() - start
        names = [[NAMED.pack(*struct.unpack("<2Q8x", one)) for one in mine] for mine in made]
        self.run(Opcode.CLOSE, names, [[] for _ in self.callers])
        return sum(map(len, made)) / spent

    def run(self, opcode: int, requests: list[list[bytes]], answers: list[list[bytes]]) -> None:
        callers = self.callers
        calls = [caller.start(mine[0], opcode) for caller, mine in zip(callers, requests, strict=True)]
        for number in range(1, len(requests[0]) + 1):
            for which, caller in enumerate(callers):
                answers[which].append(cast("bytes", caller.result(calls[which], 30)))
                if number < len(requests[which]):
                    calls[which] = caller.start(requests[which][number], opcode)


class Clients:
    """Processes, each with a connection of its own to the pool at `address`."""

    def __init__(self, address: str, server: int) -> None:
        self.server = server
        self.asking = Asking(address, ASKING)
        spawn = multiprocessing.get_context("spawn")
        self.orders = []
        for _ in range(CLIENTS):
            ours, theirs = spawn.Pipe()
            spawn.Process(target=client, args=(address, theirs), daemon=True).start()
            self.orders.append(ours)

    def measure(self, count: int, kind: str, seconds: float) -> tuple[float, float]:
        """Regions a second of so many clients together, and seconds of the server's processor for each region."""
        before, used = busy(self.server), self.orders[:count]
        if kind == "asking":
            rate = self.asking.turn(seconds)
            time.sleep(0.05)
            return rate, (busy(self.server) - before) / (rate * seconds)
        for one in used:
            one.send((kind, seconds))
        found = [one.recv() for one in used]
        time.sleep(0.05)  # what was freed is cleared
        each = (busy(self.server) - before) / sum(made for made, _ in found)
        return sum(made / spent for made, spent in found), each


def busy(process: int) -> float:
    """Seconds of processor time that a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def files(seconds: float) -> float:
    """Files a second in /dev/shm, each mapped."""
    path = Path(f"/dev/shm/softcxl-benchmark-{os.getpid()}")
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(fd, 4096)
        mmap.mmap(fd, 4096).close()
        os.close(fd)
        path.unlink()
        count += 1
    return count / (time.perf_counter() - start)


ROWS = [
    (f"{BATCH} at once", 1, "at_once", True),
    (f"{ASKING} clients in one process", 1, "asking", True),
    ("2 clients, one by one", 2, "one_by_one", False),
    ("4 clients, one by one", 4, "one_by_one", False),
    ("1 client, one by one", 1, "one_by_one", False),
    (f"{BATCH} at once, given back", 1, "at_once_given_back", False),
    ("2 clients, given back", 2, "given_back", False),
    ("4 clients, given back", 4, "given_back", False),
    ("1 client, given back", 1, "given_back", False),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.25, help="of a turn")
    parser.add_argument(
        "--live", type=int, default=100_000, help="regions that are alive in the second table"
    )
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with pool(size="1GiB", arena="512MiB") as address, softcxl.connect(address) as session:
        clients = Clients(address, session.tell("server")["pid"])
        kept: list[Region] = []
        for live in (0, given.live):
            while len(kept) < live:
                kept += session.allocate_many(4096, min(10_000, live - len(kept)))
            for what, count, kind, judged in ROWS:
                turns = [clients.measure(count, kind, given.seconds) for _ in range(given.rounds)]
                theirs = statistics.median(files(given.seconds / 5) for _ in range(given.rounds))
                rate = statistics.median(rate for rate, _ in turns)
                rows.append(
                    {
                        "what": what,
                        "alive": live,
                        "regions a second": rate,
                        "server, µs": statistics.median(each for _, each in turns) * 1e6,
                        "files in /dev/shm": theirs,
                        "ratio": rate / theirs,
                        "at least": LIMIT if judged else None,
                    }
                )
        for one in clients.orders:
            one.send(None)
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'4 KiB':<40}{'regions/s':>11}{'server, µs':>12}{'files/s':>10}{'ratio':>7}{'at least':>10}")
    for row in rows:
        rate, least = row["regions a second"], row["at least"]
        verdict = "" if least is None else f"{least:>10,}: {'ok' if rate >= least else 'NOT MET'}"
        print(
            f"{'{}, {:,} alive'.format(row['what'], row['alive']):<40}{rate:>11,.0f}{row['server, µs']:>12.1f}"
            f"{row['files in /dev/shm']:>10,.0f}{row['ratio']:>7.2f}{verdict}"
        )


if __name__ == "__main__":
    main()
