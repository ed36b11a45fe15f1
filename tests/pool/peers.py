"""Programs that tests of channels and calls start, and kill: `python peers.py WHAT ADDRESS`.

Each says a line when something has come about, and goes on when it is told a line.
"""

from __future__ import annotations

import sys
import threading

from softcxl.pool.errors import Lost, NoWorker
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


if __name__ == "__main__":
    with connect(sys.argv[2], name=sys.argv[1]) as connected:
        globals()[sys.argv[1]](connected)
