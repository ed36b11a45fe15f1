"""Run by test_native_corrupt.py: writes what cannot be into shared structures, and uses them, as often as it is told.

Whatever is there, each use ends, with a result or with an error of the pool's. Its arguments are a seed and a count.
"""

from __future__ import annotations

import faulthandler
import random
import struct
import sys
import threading
from collections.abc import Callable

from softcxl.pool import errors
from softcxl.pool.native import Caller, Memory, Queue, Ring, Worker
from tests.pool.directory import ATOMIC, EPOCH, HEAP_AT, REGIONS_AT, SLOTS_AT, Directory

RING, QUEUE, CALLS = 2 << 20, (2 << 20) + 65536, (2 << 20) + 131072
ROOM = 8192
ODD = [
    0,
    1,
    2,
    3,
    7,
    63,
    64,
    255,
    1 << 16,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 40,
    1 << 56,
    1 << 63,
    (1 << 64) - 1,
]

# Where the structures are, and how often they are hit.
TARGETS = [
    (range(0, 152, 8), 1),
    (range(SLOTS_AT, SLOTS_AT + 4 * 256, 8), 1),
    (range(REGIONS_AT, REGIONS_AT + 192, 8), 4),
    (range(RING, RING + 256 + 64, 8), 2),
    (range(QUEUE, QUEUE + 256 + 5 * 64, 8), 3),
    (range(CALLS, CALLS + 128 + 2 * 128, 8), 2),
]


def word(drawn: random.Random, old: int) -> int:
    """Something that is not there: odd, near what was, or anything."""
    how = drawn.randrange(4)
    if how == 0:
        return drawn.choice(ODD)
    if how == 1:
        return (old + drawn.choice([-64, -8, -1, 1, 8, 64, 1 << 24, 1 << 32])) & ((1 << 64) - 1)
    if how == 2:
        return old ^ 1 << drawn.randrange(64)
    return drawn.getrandbits(64)


def hit(drawn: random.Random, pool: Directory) -> None:
    (where, _) = drawn.choices(TARGETS, [often for _, often in TARGETS])[0]
    at = drawn.choice(where)
    (old,) = struct.unpack_from("<Q", pool.arena, at)
    struct.pack_into("<Q", pool.arena, at, word(drawn, old))


def use(action: Callable[[], object]) -> bool:
    """Whether it went well. What else goes wrong than the pool's errors ends this program."""
    try:
        action()
    except (errors.PoolError, IndexError, KeyError):
        return False
    return True


def round_of(drawn: random.Random) -> int:
    pool = Directory()
    pool.region(size=8192, copies=drawn.randint(1, 3), flags=drawn.choice([0, ATOMIC]))
    struct.pack_into("<I", pool.arena, 0x88, 1)
    memory: Memory = pool.directory
    Ring.make(memory, RING, ROOM)
    Queue.make(memory, QUEUE, ROOM, 4, 64)
    Caller.make(memory, CALLS, ROOM, 2, 128)
    early = drawn.random() < 0.5
    if early:
        hit(drawn, pool)
    made: list[Callable[[], object]] = []

    def make() -> None:
        region, other = pool.open(slot=1), pool.open(slot=2)
        out, into = Ring(memory, RING, ROOM, True), Ring(memory, RING, ROOM, False)
        queue, far = Queue(memory, QUEUE, ROOM, 1), Queue(memory, QUEUE, ROOM, 2)
        caller, worker = Caller(memory, CALLS, ROOM, queue), Worker(memory, far)
        worker.learn(1, CALLS, ROOM)
        made.extend(
            [
                lambda: region.write(drawn.randrange(8000), bytes(drawn.randrange(190)), 0.001),
                lambda: region.read(0, 8192),
                lambda: other.read(drawn.randrange(8000), 64),
                lambda: other.add(64, 1),
                lambda: region.swap(64, 1, 2),
                lambda: other.mend(drawn.randrange(4), EPOCH),
                lambda: region.rebuild(drawn.randrange(9), 0, 8192),
                lambda: region.torn,
                lambda: out.send(bytes(drawn.randrange(300)), 1, 0),
                lambda: into.receive(0),
                lambda: queue.put(bytes(16), 0, 0),
                lambda: far.get(0),
                lambda: queue.mend(drawn.randrange(4)),
                lambda: caller.call(bytes(drawn.randrange(100)), 0, 0.0001),
                lambda: caller.mend(2),
                lambda: worker.next(0),
                lambda: worker.answer(b"answer"),
                lambda: caller.cancel(caller.start(b"", 0, 0)),
            ]
        )

    if not use(make):
        return 0
    stop = threading.Event()
    beside = random.Random(drawn.random())

    def vandal() -> None:
        while not stop.is_set():
            hit(beside, pool)

    thread = threading.Thread(target=vandal)
    if drawn.random() < 0.2:
        thread.start()
    well = 0
    for _ in range(60):
        if drawn.random() < 0.1:
            hit(drawn, pool)
        well += use(drawn.choice(made))
    stop.set()
    if thread.is_alive():
        thread.join()
    return well


if __name__ == "__main__":
    faulthandler.enable()
    numbers = random.Random(int(sys.argv[1]))
    print(sum(round_of(random.Random(numbers.random())) for _ in range(int(sys.argv[2]))))
    assert HEAP_AT < RING
