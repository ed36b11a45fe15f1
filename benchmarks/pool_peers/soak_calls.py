"""Two services and how `pool_soak.py`'s clients call them, in turn through the same cell of their table of calls, some
at once, some given up. A call is answered or its caller is told why not, in time; where it is neither, what the cell,
the queue and its notes say is what one finds the fault by, and it is told."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pool_peers.soak_log import (
    COUNTED,
    COUNTING,
    DIGESTED,
    GIVEN_UP,
    LOST,
    RAN,
    UNSERVED,
    Log,
)
from softcxl.pool import rpc, table
from softcxl.pool.errors import Empty, Full, Lost, NoWorker
from softcxl.pool.pending import Pending
from softcxl.pool.session import Pool

COUNT, DIGEST = "soak count", "soak digest"
"""The services: what one does is done once at most, what the other does may be done twice."""
DEADLINE = 45.0
"""Seconds in which each call is answered, or its caller told why not: more than a guest is silent until it is dead."""
LATE = 2.0
"""Seconds after which nobody else is killed until the call is over: what only another's death mends is wrong."""
TOLD = 2.0
"""Seconds before its deadline at which it is looked at what a call waits for."""
AT_ONCE = 12
BURST, LOOKED = 50, 10
"""Calls one after the other, of which it is not written down when each began; and after how many it is looked again
how late it is."""

STATES = ("free", "asked", "running", "answered", "abandoned", "orphaned")
NOTES = ("vacant", "filling", "ready", "taking", "spoilt")


def digest_of(call: int) -> str:
    """What `digest` answers."""
    data = call.to_bytes(8, "little")
    return hashlib.sha256(data).hexdigest()


def serve(pool: Pool, log: Log) -> None:
    """Be a worker of both services."""
    number = pool.open(COUNT)

    @pool.service(COUNT)
    def count(client: int, call: int) -> int:
        log.say(RAN, client, 0, call)
        linger(call)
        number.add(0, 1)
        return call

    @pool.service(DIGEST)(idempotent=True)
    def digest(call: int) -> str:
        linger(call)
        return digest_of(call)


def linger(call: int) -> None:
    """Some calls take long, so that their worker is killed over one more often than between two."""
    if call % 500 == 0:
        time.sleep(0.02)


def served(pool: Pool, name: str) -> rpc.Client:
    """The service; its workers may all just have been killed."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return pool.client(name, timeout=DEADLINE)
        except NoWorker:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def named(word: int, names: tuple[str, ...]) -> str:
    """A word of a cell of a table or of a queue: number or ticket, mark or slot, and state."""
    state = word & 0xFF
    what = names[state] if state < len(names) else f"state {state}"
    return f"{word >> 24} {what} {word >> 8 & 0xFFFF}"


def seen(pool: Pool, client: rpc.Client) -> str:
    """What a client's table says, and a service's queue: the cells that are not free, the hints, and the notes."""
    load, queue, calls = pool.directory.load, client._place.at, client._table.place.at
    words = [load(table.word_at(calls, cell)) for cell in range(table.CALLS)]
    told = [f"slot {pool.slot} waits for {client!r}; its table sleeps {load(calls + 64):#x}"]
    told += [
        f"cell {cell}: {named(word, STATES)}" for cell, word in enumerate(words) if word & 0xFF or not cell
    ]
    sizes, tail, head = load(queue + 8), load(queue + 64), load(queue + 128)
    count, stride = sizes & 0xFFFFFFFF, sizes >> 32
    told.append(
        f"queue at {queue:#x} of mark {load(queue) >> 48}: head {head}, tail {tail}, begun {load(queue + 16)}, "
        f"consumers {load(queue + 192):#x}, producers {load(queue + 200):#x}, closed {load(queue + 208):#x}"
    )
    for number in range(count):
        at = queue + 256 + number * stride
        word = load(at)
        if word & 0xFF or number in (head % count, tail % count):
            who, call = load(at + 16), load(at + 24)
            told.append(
                f"note cell {number}: {named(word, NOTES)}: slot {who & 0xFFFFFFFF}, cell {who >> 32}, call {call}"
            )
    return "\n  ".join(told)


class Watch:
    """Looks, in a thread of its own, whether a call that is waited for is late."""

    def __init__(self, pool: Pool, mark: Path) -> None:
        self.state = ""
        self._pool, self._mark = pool, mark
        self._lock = threading.Lock()
        self._asked: tuple[float, rpc.Client] | None = None
        self._late = False
        mark.unlink(missing_ok=True)
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            time.sleep(0.25)
            with self._lock:
                if self._asked is None:
                    continue
                since, client = self._asked
                waited = time.monotonic() - since
                if waited > LATE and not self._late:
                    self._late = True
                    self._mark.touch()
                if waited > DEADLINE - TOLD and not self.state:
                    self.state = seen(self._pool, client)

    def again(self, client: rpc.Client) -> None:
        """The next call begins now."""
        with self._lock:
            self._asked = time.monotonic(), client

    @contextmanager
    def over(self, client: rpc.Client, what: str) -> Iterator[None]:
        """Wait for a call, or ask for one. Raises AssertionError where the deadline passes."""
        with self._lock:
            self._asked, self.state = (time.monotonic(), client), ""
        try:
            yield
        except (Empty, Full) as error:
            after = seen(self._pool, client)
            raise AssertionError(
                f"{what} was neither answered nor told Lost or NoWorker in {DEADLINE:g} s ({type(error).__name__})\n"
                f"  {TOLD:g} s before: {self.state or 'nobody looked'}\n  then: {after}"
            ) from error
        finally:
            with self._lock:
                self._asked = None
                if self._late:
                    self._late = False
                    self._mark.unlink(missing_ok=True)


class Calls:
    """A client's calls, and its account of them."""

    def __init__(self, pool: Pool, log: Log, number: int, last: int, mark: Path) -> None:
        self.pool, self.log, self.number, self.last = pool, log, number, last
        self.random = random.Random()
        self.watch = Watch(pool, mark)
        self.anew()

    def anew(self) -> None:
        """The services once more: what one had of them is let go."""
        self.count, self.digest = served(self.pool, COUNT), served(self.pool, DIGEST)

    def unserved(self) -> None:
        """All workers are being started again: a client goes on with what it has, or asks for the services anew."""
        if self.random.random() < 0.5:
            self.anew()
        else:
            time.sleep(0.01)

    def begin(self) -> int:
        self.last += 1
        self.log.say(COUNTING, self.number, 0, self.last)
        return self.last

    def counted(self, answer: object, call: int) -> None:
        if answer != call:
            raise AssertionError(f"call {call} got another one's answer: {answer!r}")
        self.log.say(COUNTED, self.number, 0, call)

    def digested(self, answer: object, call: int) -> None:
        if answer != digest_of(call):
            raise AssertionError(f"the digest of {call} was answered with {answer!r}")
        self.log.say(DIGESTED, sequence=1)

    def burst(self) -> None:
        """As many calls as there can be, which meet those of others in the queue."""
        first, done = self.random.getrandbits(32), 0
        try:
            with self.watch.over(self.digest, f"one of the digests from {first} on"):
                for number in range(first, first + BURST):
                    if number % LOOKED == 0:
                        self.watch.again(self.digest)
                    if self.digest.digest(number) != digest_of(number):
                        raise AssertionError(f"the digest of {number} is another one's")
                    done += 1
        except Lost as error:
            raise AssertionError(f"a digest may be done twice, and was lost: {error}") from error
        except NoWorker:
            self.unserved()
        self.log.say(DIGESTED, sequence=done)

    def call(self) -> None:
        """One of each service, in turn."""
        number = self.random.getrandbits(32)
        try:
            with self.watch.over(self.digest, f"digest of {number}"):
                answer = self.digest.digest(number)
            self.digested(answer, number)
        except Lost as error:
            raise AssertionError(f"a digest may be done twice, and was lost: {error}") from error
        except NoWorker:
            self.unserved()
        call = self.begin()
        try:
            with self.watch.over(self.count, f"call {call}"):
                answer = self.count.count(self.number, call)
            self.counted(answer, call)
        except Lost:
            self.log.say(LOST, self.number, 0, call)
        except NoWorker:
            self.log.say(UNSERVED, self.number, 0, call)
            self.unserved()

    def start(self) -> tuple[Pending, rpc.Client, int] | None:
        """Begin one of either. None: nobody serves it."""
        counts = self.random.random() < 0.5
        client = self.count if counts else self.digest
        call = self.begin() if counts else self.random.getrandbits(32)
        try:
            with self.watch.over(client, f"start of call {call}"):
                started = client.count.start(self.number, call) if counts else client.digest.start(call)
        except NoWorker:
            if counts:
                self.log.say(UNSERVED, self.number, 0, call)
            return None
        return started, client, call

    def at_once(self) -> None:
        """Several, whose results are asked for in any order."""
        begun = [one for _ in range(self.random.randrange(2, AT_ONCE)) if (one := self.start()) is not None]
        self.random.shuffle(begun)
        unserved = not begun
        for pending, client, call in begun:
            counts = client is self.count
            try:
                with self.watch.over(client, f"call {call}, started"):
                    answer = pending.result()
                (self.counted if counts else self.digested)(answer, call)
            except Lost as error:
                if not counts:
                    raise AssertionError(f"a digest may be done twice, and was lost: {error}") from error
                self.log.say(LOST, self.number, 0, call)
            except NoWorker:
                unserved = True
                if counts:
                    self.log.say(UNSERVED, self.number, 0, call)
        if unserved:
            self.unserved()

    def give_up(self) -> None:
        """One that nobody waits for: it is done or not, and its cell is free in time."""
        begun = self.start()
        if begun is None:
            self.unserved()
            return
        if self.random.random() < 0.5:
            time.sleep(self.random.uniform(0, 0.001))
        begun[0].cancel()
        self.log.say(GIVEN_UP, self.number, 0, begun[2])
