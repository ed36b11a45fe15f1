"""How many regions a second a client allocates and gives back, and whether it slows down with many of them alive.

By one client: each allocation, and each return, a request to the server and back; and a hundred made by one
request. The peer is what a program without a pool does for shared memory: a file in /dev/shm, sized, mapped,
unmapped and removed. Figures are medians of the rounds.

    python benchmarks/pool_allocation.py [--json] [--rounds N] [--seconds S] [--live N]"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import statistics
import time
from pathlib import Path

from pool_peers.served import pool

import softcxl
from softcxl.pool.region import Region
from softcxl.pool.session import Pool

LIMIT = 100_000
BATCH = 100


def allocations(session: Pool, seconds: float) -> float:
    """Regions a second: allocated, and closed, which frees what has no name."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        session.allocate(4096).close()
        count += 1
    return count / (time.perf_counter() - start)


def at_once(session: Pool, seconds: float) -> float:
    """Regions a second, made and given back by the hundred."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for region in session.allocate_many(4096, BATCH):
            region.close()
        count += BATCH
    return count / (time.perf_counter() - start)


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn")
    parser.add_argument("--live", type=int, default=100_000, help="regions that are alive in the second row")
    given = parser.parse_args()
    rows = []
    with pool() as address, softcxl.connect(address) as session:
        kept: list[Region] = []
        for live in (0, given.live):
            while len(kept) < live:
                kept += session.allocate_many(4096, min(10_000, live - len(kept)))
            rows += [
                {
                    "what": what,
                    "live": live,
                    "allocations a second": statistics.median(mine for mine, _ in pairs),
                    "files in /dev/shm": statistics.median(theirs for _, theirs in pairs),
                    "ratio": statistics.median(mine / theirs for mine, theirs in pairs),
                }
                for what, make in (("one by one", allocations), (f"{BATCH} at once", at_once))
                for pairs in [
                    [(make(session, given.seconds), files(given.seconds)) for _ in range(given.rounds)]
                ]
            ]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'4 KiB, made and given back':<34}{'regions/s':>12}{'files/s':>12}{'ratio':>8}{'at least':>10}")
    for row in rows:
        rate = row["allocations a second"]
        print(
            f"{'{}, with {:,} alive'.format(row['what'], row['live']):<34}{rate:>12,.0f}"
            f"{row['files in /dev/shm']:>12,.0f}"
            f"{row['ratio']:>8.2f}{LIMIT:>10,}: {'ok' if rate >= LIMIT else 'NOT MET'}"
        )


if __name__ == "__main__":
    main()
