"""Run by test_crash_native.py with the build that dies: a client writes a region, at each point another dies.

Its argument is the number of copies, or `degraded`. Prints how many points there were.
"""

from __future__ import annotations

import os
import signal
import struct
import sys

from softcxl.pool import errors
from tests.pool.directory import Directory

SIZE = 200_000  # the write gives the interpreter free, and has a point every 4 KiB
OLD, NEW = b"o" * SIZE, b"n" * SIZE


def die(pool: Directory, point: int) -> bool:
    """Let a child write and die at that point; whether it died."""
    child = os.fork()
    if not child:
        os.environ["SOFTCXL_POOL_CRASH"] = str(point)
        pool.slot_of_this_process(2)
        pool.open(slot=2).write(64, NEW)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status != 0


def main(copies: int, degraded: bool) -> None:
    point = 0
    died = True
    while died:
        point += 1
        pool = Directory()
        at = pool.region(size=256 << 10, copies=copies)
        one = pool.open(slot=1)
        one.write(64, OLD)
        if degraded:
            struct.pack_into("<I", pool.arena, at + 96, 2)
        died = die(pool, point)
        try:
            seen = one.read(64, SIZE)  # finds the holder dead where it has to wait, and mends
        except errors.Torn:
            assert copies == 1
            assert one.torn == (64, SIZE)
            one.write(64, OLD)
            seen = one.read(64, SIZE)
        assert seen in (OLD, NEW)
        one.lock(60)
        one.unlock()
        if copies > 1 and not degraded:
            assert pool.copy(0, 256 << 10) == pool.copy(1, 256 << 10)
        after = one.read(64, SIZE)
        assert after == seen or (seen == OLD and after == NEW and died)
        assert died or seen == NEW
    print(point - 1)


if __name__ == "__main__":
    main(2 if sys.argv[1] == "degraded" else int(sys.argv[1]), sys.argv[1] == "degraded")
