"""How fast regions are read and written, against C's memcpy between two plain buffers in the same run.

All pages have been touched before, but where a row says that memory is new: the first touch costs several times what
the copy does. A region of n copies is written n times, so what it is held against is memcpy's rate divided by n. Each
row has its turn in each round, on a source that no other row reads, and moves small sizes many times over in a turn;
figures are medians, and ratios are taken round by round. Small sizes are in the caches, 64 MiB are not in a
processor's own.

    python benchmarks/pool_bulk.py [--json] [--size SIZE]... [--rounds N]"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from pool_peers.served import pool

import softcxl
from softcxl.pool.session import Pool
from softcxl.wire.sizes import parse_size

Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

SIZES = ("64KiB", "1MiB", "64MiB")
COPIES = (1, 2, 3)
LEAST = {"read": 0.9, "write": 0.9, "replicated": 0.8}
"""What is asked of us: of memcpy for one copy either way, of memcpy divided by n for writing n copies."""
TURN = 16 << 20
"""Bytes that a turn moves at least."""


@dataclass
class Row:
    what: str
    move: Callable[[], object]
    copies: int = 1
    least: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--size", action="append", type=parse_size, help="bytes of a copy: 64KiB, 1MiB, 64MiB"
    )
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    sizes = given.size or [parse_size(size) for size in SIZES]
    found = []
    with ExitStack() as stack:
        room = max(256, -(-max(sizes) // (256 << 20)) * 512)
        address = stack.enter_context(pool(devices=max(COPIES), size=f"{room}MiB"))
        session = stack.enter_context(softcxl.connect(address))
        for size in sizes:
            found += list(measured(session, size, given.rounds))
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for size in sizes:
        print(f"{f'{size >> 10} KiB at once':<34}{'GB/s':>8}{'to memcpy/n':>13}{'at least':>10}")
        for row in found:
            if row["size"] == size:
                least, ratio = row["at least"], row["ratio"]
                verdict = "" if least is None else f"{least:>10g}: {'ok' if ratio >= least else 'NOT MET'}"
                print(f"{row['what']:<34}{row['GB/s']:>8.1f}{ratio:>13.2f}{verdict}")
        print()


def measured(session: Pool, size: int, rounds: int) -> Iterator[dict[str, object]]:
    """Of memcpy and of each way to move `size` bytes: GB/s, and to what it is held against."""
    with ExitStack() as stack:
        rows = ways(session, size, stack)
        times: dict[str, list[float]] = {row.what: [] for row in rows}
        count = max(1, TURN // size)
        for _ in range(rounds):
            for row in rows:
                row.move()  # a turn begins with what the last one has left in the caches
                start = time.perf_counter()
                for _ in range(count):
                    row.move()
                times[row.what].append((time.perf_counter() - start) / count)
    for row in rows:
        ratios = (peer / mine for peer, mine in zip(times["memcpy"], times[row.what], strict=True))
        yield {
            "what": row.what,
            "size": size,
            "GB/s": size / statistics.median(times[row.what]) / 1e9,
            "ratio": statistics.median(ratios) * row.copies,
            "at least": row.least,
        }


def ways(session: Pool, size: int, stack: ExitStack) -> list[Row]:
    """Our own and our peers', each with a source of its own; the target of what is read is one for all."""
    source = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    plain, target = source.copy(), np.ones(size, np.uint8)
    file = os.memfd_create("benchmark")
    stack.callback(os.close, file)
    os.ftruncate(file, size)
    shared = np.frombuffer(mmap.mmap(file, size), np.uint8)
    shared[:] = source
    rows = [
        Row("memcpy", memcpy(target, plain)),
        Row("memcpy from a shared file", memcpy(target, shared)),
        Row("numpy's copy", lambda: np.copyto(target, plain)),
    ]
    for copies in COPIES:
        region = stack.enter_context(session.allocate(size, replicas=copies))
        region.write(0, source)
        if region.read(0, size) != source.tobytes():
            raise AssertionError(f"a region of {copies} copies does not hold what was written")
        of = f"a region of {copies} {'copy' if copies == 1 else 'copies'}"
        rows += [
            Row(f"read {of}", lambda region=region: region.read_into(0, target), 1, LEAST["read"]),
            Row(
                f"write {of}",
                lambda region=region: region.write(0, source),
                copies,
                LEAST["write" if copies == 1 else "replicated"],
            ),
        ]
        if copies == 1:
            view = np.frombuffer(region.view(), np.uint8)
            rows += [
                Row("copy out of a view", lambda view=view: np.copyto(target, view)),
                Row("bytes of an array, new memory", lambda: bytes(plain)),
                Row("read new bytes, of 1 copy", lambda region=region: region.read(0, size)),
            ]
    return rows


def memcpy(target: Bytes, source: Bytes) -> Callable[[], object]:
    """C's, with addresses found before."""
    to, at, size = target.ctypes.data, source.ctypes.data, source.nbytes

    def move(kept: object = (target, source)) -> None:
        ctypes.memmove(to, at, size)

    return move


if __name__ == "__main__":
    main()
