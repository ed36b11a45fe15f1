"""A client of `pool_soak.py`, in a process that may be killed at any moment: it works, and checks what it finds.

What it is about to do it writes to its log first, and what was acknowledged after that, so that whoever comes after
it knows what must be there. Lines of the log are records of a fixed size, appended in one call each: a process that
is killed leaves whole ones.

    python pool_peers/soaking.py client|service ADDRESS FOLDER NUMBER"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import softcxl
from softcxl.pool import rpc
from softcxl.pool.errors import Lost, NoServer, NoWorker, PoolError
from softcxl.pool.session import Pool

CLIENTS = 6
REGIONS = (2, 2, 3)
"""How many copies each shared region has."""
BLOCKS = 4 * CLIENTS
BLOCK = 20_000
"""Bytes: several pages, and no multiple of a line."""
STRIDE = (1 << 20) + 8
"""Bytes from a block to the next: regions are large enough for much to happen while a copy is made anew."""

LINE = struct.Struct("<cBHQ")  # what, region, block, sequence
BEGUN, DONE = b"b", b"d"
ADDING, ADDED = b"a", b"A"
CALLING, CALLED, RAN = b"c", b"C", b"r"

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


class Log:
    """What a client has begun and done, over all its lives."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes() if path.exists() else b""
        self.lines = list(LINE.iter_unpack(data[: len(data) // LINE.size * LINE.size]))
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(self, what: bytes, region: int = 0, block: int = 0, sequence: int = 0) -> None:
        os.write(self._fd, LINE.pack(what, region, block, sequence))

    def blocks(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Of each block the last sequence that was acknowledged, and the last that was begun."""
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for what, region, block, sequence in self.lines:
            done, begun = found.get((region, block), (0, 0))
            if what == BEGUN:
                found[region, block] = done, sequence
            elif what == DONE:
                found[region, block] = sequence, begun
        return found

    def count(self, what: bytes) -> int:
        """How many lines of that kind there are."""
        return sum(one[0] == what for one in self.lines)


def joined(address: str, name: str) -> Pool:
    """A client of the pool; whoever comes while no server is there tries again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return softcxl.connect(address, name=name)
        except NoServer:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Client:
    """Works at random until it is told to stop."""

    def __init__(self, address: str, folder: Path, number: int) -> None:
        self.log = Log(folder / f"client-{number}.log")
        self.slow = (folder / f"client-{number}.slow").open("a")
        self.stop = folder / "stop"
        self.number = number
        self.random = random.Random(os.urandom(8))
        self.pool = joined(address, f"soak-{number}")
        self.regions = [self.pool.open(shared(one)) for one in range(len(REGIONS))]
        self.counter = self.pool.open("soak counter")
        self.service = self.served()
        self.mine = range(number, BLOCKS, CLIENTS)
        self.seen: dict[tuple[int, int], int] = {}
        self.written = self.log.blocks()
        self.calls = max((one[3] for one in self.log.lines if one[0] == CALLING), default=0)

    def served(self) -> rpc.Client:
        """The service; its workers may all just have been killed."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.pool.client("soak")
            except NoWorker:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def run(self) -> None:
        self.check_own()
        work: list[tuple[Callable[[], None], int]] = [
            (self.write, 40),
            (self.read, 40),
            (self.allocate, 10),
            (self.add, 5),
            (self.call, 20),
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
        region, block = self.random.randrange(len(REGIONS)), self.random.randrange(BLOCKS)
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
        self.log.say(ADDING)
        self.counter.add(0, 1)
        self.log.say(ADDED)

    def call(self) -> None:
        """A call is run once at most; one that was answered, once."""
        self.calls += 1
        self.log.say(CALLING, self.number, 0, self.calls)
        try:
            if self.service.run(self.number, self.calls) != self.calls:
                raise AssertionError(f"call {self.calls} got another one's answer")
        except (Lost, NoWorker):  # its worker was killed, or all are just being started again
            return
        self.log.say(CALLED, self.number, 0, self.calls)


def serve(address: str, folder: Path, number: int) -> None:
    """A worker of the service, which writes down what it runs."""
    log = Log(folder / f"service-{number}.log")
    pool = joined(address, f"soak service {number}")

    @pool.service("soak")
    def run(client: int, call: int) -> int:
        log.say(RAN, client, 0, call)
        return call

    while not (folder / "halt").exists():
        time.sleep(0.1)
    pool.close()


def main() -> int:
    what, address, folder, number = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    trace = (folder / f"{what}-{number}.trace").open("w")
    faulthandler.register(signal.SIGUSR1, trace)
    try:
        if what == "client":
            Client(address, folder, number).run()
        else:
            serve(address, folder, number)
    except (AssertionError, PoolError, OSError) as error:
        with (folder / "wrong").open("a") as file:
            print(f"{what} {number}: {type(error).__name__}: {error}", file=file)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
