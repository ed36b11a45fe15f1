"""Programs that tests of channels and calls start, and kill (`peer`): `python peers.py WHAT ADDRESS`.

Each says a line when something has come about, and goes on when it is told a line.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from softcxl.pool.channel import Producer
from softcxl.pool.errors import Closed, Lost, NoWorker
from softcxl.pool.session import Pool, connect


def say(what: object) -> None:
    print(what, flush=True)


def told() -> str:
    return sys.stdin.readline().strip()


def produce(pool: Pool) -> None:
    producer = pool.ring("numbers").producer()
    for number in range(100):
        producer.send(b"%d" % number)
    say("sent")
    told()


def fill(pool: Pool) -> None:
    """Put in a queue until it is told to stop by being killed."""
    queue = pool.queue("numbers")
    number = 0
    while True:
        queue.put(b"%d" % number)
        number += 1
        if number == 500:
            say("filling")


def consume(pool: Pool) -> None:
    consumer = pool.ring("numbers").consumer()
    say(consumer.receive().decode())
    told()


def give(pool: Pool) -> None:
    producer = pool.ring("gifts").producer()
    region = pool.allocate("64KiB")
    region.write(0, b"a gift")
    producer.send_reference(region, 0, 6, give=True)
    say("given")
    told()


def take(pool: Pool) -> None:
    record = pool.ring("gifts").consumer().receive_record()
    assert record.reference is not None
    say(record.reference.read().decode())
    told()


def work(pool: Pool) -> None:
    service = pool.service("work")
    runs = pool.open("runs")

    @service
    def count(number: int) -> int:
        runs.add(8 * number, 1)
        return number * 2

    @service
    def hang(number: int) -> int:
        say("began")
        threading.Event().wait()
        return number

    @service(idempotent=True)
    def hang_once(number: int) -> int:
        if runs.add(8 * number, 1) == 1:
            say("began")
            threading.Event().wait()
        return number

    say("serving")
    told()


def call(pool: Pool) -> None:
    """Call until being killed."""
    client = pool.client("work")
    number = 0
    while True:
        try:
            assert client.count(number) == 2 * number
        except (Lost, NoWorker):
            pass
        number += 1
        if number == 200:
            say("calling")
        number %= 2000


def call_and_hang(pool: Pool) -> None:
    client = pool.client("work")
    client.hang(1)


class Peer:
    """One of these programs, until it is killed."""

    def __init__(self, what: str, address: str) -> None:
        program = Path(__file__)
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
def peer(what: str, address: str) -> Iterator[Peer]:
    """A program beside this one; it is killed in the end, if not before."""
    one = Peer(what, address)
    try:
        yield one
    finally:
        one.kill()


def consumer_has_gone(producer: Producer) -> bool:
    """Send until there is no room, and it is told why."""
    while True:
        try:
            producer.send(b"12345678")
        except Closed as error:
            return "its consumer has gone" in str(error)


if __name__ == "__main__":
    with connect(sys.argv[2], name=sys.argv[1]) as connected:
        globals()[sys.argv[1]](connected)
