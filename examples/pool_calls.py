"""Functions that other programs call through the pool's memory. Who serves them may be killed: others go on.

    python examples/pool_calls.py serve           # a worker; as many as you like, each a process
    python examples/pool_calls.py call [SECONDS]  # call them, and say what came of it

`count` adds one to a number in the pool. It is done at most once: where its worker died over it, the call raises
`Lost`, and it may have been counted or not. `digest` can be done twice, and says so: another worker does it then, and
who called hears nothing of it.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import softcxl
from softcxl.pool.errors import Lost, NameTaken, NoSuchName, NoWorker, PoolError
from softcxl.pool.region import Region
from softcxl.pool.session import Pool

NAME = "calls"
ROUNDS = 20
"""Of a digest, so that a worker is killed in the midst of a call more often than between two."""


def counted(pool: Pool) -> Region:
    """The number in the pool, on two devices: 8 bytes."""
    with suppress(NameTaken):
        return pool.allocate(8, name=NAME, replicas=2)
    return pool.open(NAME)


def digest_of(number: int) -> str:
    """What `digest` answers."""
    data = number.to_bytes(8, "little")
    for _ in range(ROUNDS):
        data = hashlib.sha256(data * 64).digest()
    return data.hex()


def serve(pool: Pool) -> None:
    """Be a worker, until this process ends."""
    number = counted(pool)

    @pool.service("count")
    def count(call: int) -> int:
        digest_of(call)
        return number.add(0, 1)

    @pool.service("digest")(idempotent=True)
    def digest(call: int) -> str:
        return digest_of(call)

    print("serving", flush=True)
    threading.Event().wait()


class Caller:
    """Calls both functions in turn, and keeps account."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.answered = 0
        self.counted = 0
        self.lost = 0
        self.wrong = 0

    def call(self, over: Callable[[], object], patience: float = 10.0, pause: float = 0.0) -> None:
        """Until `over()` is true, with a pause between. Raises `NoWorker` where nobody has served for `patience`
        seconds."""
        until = time.monotonic() + patience
        while not over():
            try:
                count = self.pool.client("count", timeout=patience).count
                digest = self.pool.client("digest", timeout=patience).digest
                while not over():
                    number = self.answered
                    self.wrong += digest(number) != digest_of(number)
                    self.answered += 1
                    try:
                        count(number)
                        self.counted += 1
                        self.answered += 1
                    except Lost:
                        self.lost += 1
                    until = time.monotonic() + patience
                    time.sleep(pause)
            except NoWorker:  # the last one has just gone, and the next one is not there yet
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)

    @property
    def account(self) -> tuple[int, int, int, int]:
        """Calls that were answered, those of `count` among them, calls that were lost, and answers that were wrong."""
        return self.answered, self.counted, self.lost, self.wrong

    def __str__(self) -> str:
        return " ".join(map(str, self.account))


def main(arguments: list[str]) -> int:
    match arguments:
        case ["serve"]:
            with softcxl.connect(name=NAME) as pool, suppress(KeyboardInterrupt):
                serve(pool)
        case ["call", *seconds] if len(seconds) < 2:
            end = time.monotonic() + float(seconds[0] if seconds else 2)
            with softcxl.connect(name=NAME) as pool:
                caller = Caller(pool)
                caller.call(lambda: time.monotonic() > end)
                if not caller.answered:
                    raise NoWorker("nobody serves: start one with python examples/pool_calls.py serve")
                print(f"{caller.answered} calls answered, {caller.wrong} of them wrong; {caller.lost} lost")
                with suppress(NoSuchName):
                    print(f"counted by all callers: {pool.open(NAME).load(0)}")
        case _:
            print((__doc__ or "").partition("\n\n`")[0], file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (PoolError, ValueError) as error:
        print(f"pool_calls: {error}", file=sys.stderr)
        sys.exit(1)
