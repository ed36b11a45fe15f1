"""A client of `pool_soak.py`, in a process that may be killed at any moment: it works, and checks what it finds.

    python -m pool_peers.soaking client|service ADDRESS FOLDER NUMBER CLIENTS

CLIENTS is how many there are. In a guest ADDRESS is empty."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import softcxl
from pool_peers import soak_calls
from pool_peers.soak_log import ADDED, ADDING, BEGUN, DONE, Log, history
from softcxl.pool.errors import NoServer, PoolError, Stale
from softcxl.pool.session import Pool

REGIONS = (2, 2, 3)
"""How many copies each shared region has."""
BLOCKS = 4
"""Of each client in each of them."""
BLOCK = 20_000
"""Bytes: several pages, and no multiple of a line."""
STRIDE = (1 << 20) + 8
"""Bytes from a block to the next: regions are large enough for much to happen while a copy is made anew."""

ADDITIONS = 50
SLOW = 0.1
"""Seconds: what took longer is written down."""


def shared(number: int) -> str:
    """The name of a shared region."""
    return f"soak {number}"


def content(sequence: int) -> bytes:
    """A block that says its sequence in every word, so that a part of another shows."""
    return sequence.to_bytes(8, "little") * (BLOCK // 8)


def sequence_of(data: bytes) -> int:
    """The sequence of a block. Raises AssertionError where it is of more than one."""
    sequence = int.from_bytes(data[:8], "little")
    if data != content(sequence):
        others = {data[at : at + 8] for at in range(0, BLOCK, 8)}
        raise AssertionError(f"a block of sequence {sequence} holds words of {len(others)} writes")
    return sequence


def logs(address: str, folder: Path) -> Path:
    """Where clients' logs are: in a guest in its own memory, which outlives them, and is faster than the share."""
    return folder if address else Path("/tmp")


def joined(address: str, name: str) -> Pool:
    """A client of the pool; whoever comes while no server is there tries again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return softcxl.connect(address or None, name=name)
        except NoServer:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Client:
    """Works at random until it is told to stop."""

    def __init__(self, address: str, folder: Path, number: int, clients: int) -> None:
        path = logs(address, folder) / f"client-{number}.log"
        self.written, last = history(path)
        self.log = Log(path)
        self.slow = (folder / f"client-{number}.slow").open("a")
        self.stop = folder / "stop"
        self.number = number
        self.random = random.Random(os.urandom(8))
        self.pool = joined(address, f"soak-{number}")
        self.regions = [self.pool.open(shared(one)) for one in range(len(REGIONS))]
        self.counter = self.pool.open("soak counter")
        self.calls = soak_calls.Calls(self.pool, self.log, number, last, folder / f"late-{number}")
        self.often = 1 if address else 4  # an emulated one does little, and that is to be calls
        self.blocks = BLOCKS * clients
        self.mine = range(number, self.blocks, clients)
        self.seen: dict[tuple[int, int], int] = {}
        (folder / f"working-{number}").touch()

    def run(self) -> None:
        self.check_own()
        work: list[tuple[Callable[[], None], int]] = [
            (self.write, 40),
            (self.read, 40),
            (self.allocate, 10),
            (self.add, 10 * self.often),
            (self.calls.call, 20 * self.often),
            (self.calls.burst, 3 * self.often),
            (self.calls.at_once, 3 * self.often),
            (self.calls.give_up, 2 * self.often),
        ]
        doing, weights = [one for one, _ in work], [weight for _, weight in work]
        while not self.stop.exists():
            for one in self.random.choices(doing, weights, k=20):
                start = time.monotonic()
                one()
                spent = time.monotonic() - start
                if spent > SLOW:
                    print(f"{spent:.3f} {one.__name__}", file=self.slow, flush=True)
        self.check_own()
        self.pool.close()

    def check_own(self) -> None:
        """What this client wrote is there: the last that was acknowledged, or one that was begun after it."""
        for (region, block), (done, begun) in self.written.items():
            found = sequence_of(self.regions[region].read(block * STRIDE, BLOCK))
            if not done <= found <= begun:
                raise AssertionError(
                    f"block {block} of region {region} has sequence {found}: {done} was acknowledged, {begun} begun"
                )
            self.written[region, block] = found, begun
            self.log.say(DONE, region, block, found)

    def write(self) -> None:
        region, block = self.random.randrange(len(REGIONS)), self.random.choice(self.mine)
        sequence = self.written.get((region, block), (0, 0))[1] + 1
        self.log.say(BEGUN, region, block, sequence)
        self.regions[region].write(block * STRIDE, content(sequence))
        self.log.say(DONE, region, block, sequence)
        self.written[region, block] = sequence, sequence

    def read(self) -> None:
        """Somebody's block: it is of one write, and none older than what was read before."""
        region, block = self.random.randrange(len(REGIONS)), self.random.randrange(self.blocks)
        found = sequence_of(self.regions[region].read(block * STRIDE, BLOCK))
        before = self.seen.get((region, block), 0)
        if found < before:
            raise AssertionError(f"block {block} of region {region} went back from {before} to {found}")
        self.seen[region, block] = found

    def allocate(self) -> None:
        """A region of one's own, zeros at first; two copies, so that it stays when a device dies."""
        size = self.random.randrange(1, 200_000)
        with self.pool.allocate(size, replicas=2) as region:
            if region.read() != bytes(size):
                raise AssertionError(f"a new region of {size} bytes is not zeros")
            data = self.random.randbytes(min(size, 5000))
            region.write(size - len(data), data)
            if region.read(size - len(data)) != data:
                raise AssertionError(f"a region of {size} bytes does not hold what was written")

    def add(self) -> None:
        """Many times, one after the other: who adds by an atomic operation that is none loses some."""
        self.log.say(ADDING, sequence=ADDITIONS)
        for _ in range(ADDITIONS):
            self.counter.add(0, 1)
        self.log.say(ADDED, sequence=ADDITIONS)


def work(address: str, folder: Path, number: int, clients: int) -> None:
    """Be a client. One that an emulated processor had no time for may be taken for dead, and begins anew."""
    while True:
        try:
            Client(address, folder, number, clients).run()
        except Stale:
            if address:
                raise
            with (folder / f"stale-{number}").open("ab") as file:
                file.write(b".")
        else:
            return


def serve(address: str, folder: Path, number: int) -> None:
    """A worker of the services, which writes down what it runs."""
    pool = joined(address, f"soak service {number}")
    soak_calls.serve(pool, Log(folder / f"service-{number}.log"))
    while not (folder / "halt").exists():
        time.sleep(0.1)
    pool.close()


def run(what: str, address: str, folder: Path, number: int, clients: int) -> int:
    """Be a client or a worker. Returns what its process ends with; what is wrong is written down."""
    trace = (folder / f"{what}-{number}.trace").open("w")
    faulthandler.register(signal.SIGUSR1, trace)
    try:
        if what == "client":
            work(address, folder, number, clients)
        else:
            serve(address, folder, number)
    except (AssertionError, PoolError, OSError) as error:
        with (folder / "wrong").open("a") as file:
            print(f"{what} {number}: {type(error).__name__}: {error}", file=file)
        return 1
    return 0


def main() -> int:
    what, address, folder, *numbers = sys.argv[1:]
    number, clients = map(int, numbers)
    return run(what, address, Path(folder), number, clients)


if __name__ == "__main__":
    sys.exit(main())
