"""Run by test_crash_pool.py with the build that dies: a whole pool, whose clients are killed at each of their points.

Its argument is the number of copies. A client connects, opens a region and writes all of it, in a process that dies at
point N of what it does in shared memory, for each N until it survives. Meanwhile two others read, and a third writes
when the first is dead. Prints how many points there were.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from softcxl.pool import errors
from softcxl.pool.session import connect
from tests.pool.served import LONG, Served, wait_until

SIZE = 40_000  # with a point every 4 KiB


def write_and_die(address: str, point: int, value: int) -> None:
    """In a process of its own."""
    os.environ["SOFTCXL_POOL_CRASH"] = str(point)
    pool = connect(address, name="dies")
    pool.open("one").write(0, bytes([value]) * SIZE)


def breed(address: str, asked: int, told: int) -> None:
    """Fork for who has threads, and must not."""
    while True:
        point, value = (int.from_bytes(os.read(asked, 4), "little") for _ in range(2))
        if not point:
            os._exit(0)
        child = os.fork()
        if not child:
            write_and_die(address, point, value)
            os._exit(0)
        os.write(told, os.waitpid(child, 0)[1].to_bytes(4, "little"))


def whole(data: bytes) -> int:
    """The value that all of these bytes have."""
    assert data == data[:1] * SIZE, "a read has got a part of a write"
    return data[0]


def main(copies: int) -> None:
    path = Path(tempfile.mkdtemp()) / "pool.sock"
    served = Served(path)
    asked, told = os.pipe(), os.pipe()
    if not os.fork():
        breed(served.address, asked[0], told[1])
    served.start()
    stop = threading.Event()
    with served.connect() as pool, ThreadPoolExecutor(2) as threads:
        region = pool.allocate(SIZE, name="one", replicas=copies)

        def read() -> int:
            count = 0
            with served.connect("reads") as own:
                mine = own.open("one")
                while not stop.is_set():
                    try:
                        whole(mine.read())
                    except errors.Torn:
                        assert copies == 1
                    count += 1
            return count

        reading = [threads.submit(read) for _ in range(2)]
        try:
            point, status = 0, 1
            while status:
                point += 1
                old, new = 2 * point % 251, (2 * point + 1) % 251
                with region.locked(LONG):
                    region.write(0, bytes([old]) * SIZE)
                for number in (point, new):
                    os.write(asked[1], number.to_bytes(4, "little"))
                status = int.from_bytes(os.read(told[0], 4), "little")
                assert status in (0, 9), f"the client ended with {status}"
                with region.locked(LONG):
                    try:
                        seen = whole(region.read())
                    except errors.Torn:
                        assert copies == 1
                    else:
                        assert seen in (old, new)
                        assert status or seen == new
                wait_until(lambda: "dies" not in (one["name"] for one in pool.tell("clients")))
                assert all(len({*served.copy(region, copy)}) == 1 for copy in range(copies) if copies > 1)
                assert len({served.copy(region, copy) for copy in range(copies)}) == 1
                assert not any(one.done() for one in reading), "who reads has been stopped"
        finally:
            stop.set()
        assert all(one.result() for one in reading)
    for _ in range(2):
        os.write(asked[1], bytes(4))
    served.stop()
    print(point - 1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
