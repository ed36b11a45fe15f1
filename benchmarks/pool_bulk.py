"""How fast regions are read and written, against C's memcpy between two plain buffers in the same run.

All pages have been touched before: what the first touch of shared memory costs (about ten times as much) is not in
it. A region of n copies is written n times, so what it is held against is memcpy's rate divided by n. In each round
memcpy and each row have their turn; figures are medians, and ratios are taken round by round.

    python benchmarks/pool_bulk.py [--json] [--size MIB] [--rounds N]"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from pool_peers.served import pool

import softcxl
from softcxl.pool.session import Pool

MIB = 1 << 20
COPIES = (1, 2, 3)
READ, WRITTEN = 0.9, 0.8
"""What is asked of us: of memcpy for one copy either way, of memcpy divided by n for writing n copies."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--size", type=int, default=64, help="MiB of the region")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    size = given.size * MIB
    with ExitStack() as stack:
        address = stack.enter_context(
            pool(devices=max(COPIES), size=f"{max(256, -(-given.size // 256) * 512)}MiB")
        )
        session = stack.enter_context(softcxl.connect(address))
        found = measure(session, size, given.rounds)
    rows = [
        {
            "what": what,
            "GB/s": size / statistics.median(times) / 1e9,
            "to memcpy": statistics.median(
                plain / mine for plain, mine in zip(found["memcpy"][1], times, strict=True)
            )
            * copies,
            "at least": (READ if copies == 1 else WRITTEN) if what != "memcpy" else None,
        }
        for what, (copies, times) in found.items()
    ]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{f'{given.size} MiB, pages touched before':<34}{'GB/s':>8}{'to memcpy/n':>13}{'at least':>10}")
    for row in rows:
        least = row["at least"]
        verdict = (
            ""
            if least is None
            else f"{least:>10g}: {'ok' if float(row['to memcpy']) >= least else 'NOT MET'}"
        )
        print(f"{row['what']:<34}{row['GB/s']:>8.1f}{row['to memcpy']:>13.2f}{verdict}")


def measure(session: Pool, size: int, rounds: int) -> dict[str, tuple[int, list[float]]]:
    """Of memcpy and of each way to move `size` bytes: how many copies are written, and the seconds of each round."""
    source, target = np.random.default_rng(1).integers(0, 256, size, np.uint8), np.ones(size, np.uint8)
    work: dict[str, tuple[int, Callable[[], object]]] = {
        "memcpy": (1, lambda: ctypes.memmove(target.ctypes.data, source.ctypes.data, size))
    }
    regions = {copies: session.allocate(size, replicas=copies) for copies in COPIES}
    for copies, region in regions.items():
        region.write(0, source)
        if region.read(0, size) != source.tobytes():
            raise AssertionError(f"a region of {copies} copies does not hold what was written")
        of = f"a region of {copies} {'copy' if copies == 1 else 'copies'}"
        work[f"read {of}"] = 1, lambda region=region: region.read_into(0, target)
        work[f"write {of}"] = copies, lambda region=region: region.write(0, source)
    view = np.frombuffer(regions[1].view(), np.uint8)
    work["copy out of a view"] = 1, lambda view=view: np.copyto(target, view)
    times: dict[str, list[float]] = {what: [] for what in work}
    for _ in range(rounds):
        for what, (_, move) in work.items():
            start = time.perf_counter()
            move()
            times[what].append(time.perf_counter() - start)
    del view
    work.clear()
    return {what: (copies_of(what), taken) for what, taken in times.items()}


def copies_of(what: str) -> int:
    """How many copies a row writes."""
    return int(what.split()[4]) if what.startswith("write") else 1


if __name__ == "__main__":
    main()
