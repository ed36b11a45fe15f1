"""What interleave arithmetic and interleaved copies cost, as ratios to plain numpy copies in the same run.

Decoding: addresses a second of `Interleave.locate_many`, against ``numpy.copyto`` of the same addresses.
Moving: bytes a second of a device's share gathered from, or scattered into, a region in HPA order, against
a plain copy of as many bytes. Each figure is the median of several rounds, in which both sides take turns,
so that a noisy machine disturbs them alike.

    python benchmarks/interleave.py [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from softcxl.memory import Interleave, gather, maps_for, scatter

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESSES = 1 << 21
SHARE = 16 << 20
MAPS = (0x2020900, 0x4041200, 0x1010400, 0x800)  # of the CXL memory device software guide


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def against(work: Callable[[], object], peer: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of the work, and median ratio of the peer's time to it (1.0 is as fast)."""
    work()
    peer()
    pairs = [(seconds(work), seconds(peer)) for _ in range(rounds)]
    return median(pair[0] for pair in pairs), median(pair[1] / pair[0] for pair in pairs)


def decoding(rounds: int) -> list[dict[str, object]]:
    offsets = np.random.default_rng(0).integers(0, 1 << 40, ADDRESSES, np.uint64)
    positions, dpas, copy = np.empty(ADDRESSES, np.uint8), np.empty_like(offsets), np.empty_like(offsets)
    rows: list[dict[str, object]] = []
    for ways, maps in [
        *((ways, ()) for ways in (1, 2, 4, 8, 16, 3, 6, 12)),
        (2, MAPS),
        (8, MAPS),
        (12, MAPS),
    ]:
        interleave = Interleave(ways, 256, maps_for(ways, maps) if maps else ())
        taken, ratio = against(
            partial(interleave.locate_many, offsets, positions, dpas),
            partial(np.copyto, copy, offsets),
            rounds,
        )
        rows.append(
            {
                "what": "decode",
                "ways": ways,
                "granularity": 256,
                "arithmetic": "xor" if maps else "modulo",
                "million addresses/s": round(ADDRESSES / taken / 1e6),
                "ratio to copy": round(ratio, 2),
            }
        )
    return rows


def moving(rounds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    share, copy = np.ones(SHARE, np.uint8), np.ones(SHARE, np.uint8)
    for ways, granularity, maps in [
        (1, 256, ()),
        (2, 256, ()),
        (8, 256, ()),
        (3, 256, ()),
        (2, 4096, ()),
        (8, 4096, ()),
        (8, 256, MAPS),
    ]:
        interleave = Interleave(ways, granularity, maps_for(ways, maps) if maps else ())
        region = np.ones(SHARE * ways, np.uint8)
        for move in (gather, scatter):
            work = partial(move, region, interleave, ways - 1, 0, share)
            taken, ratio = against(work, partial(np.copyto, copy, share), rounds)
            rows.append(
                {
                    "what": move.__name__,
                    "ways": ways,
                    "granularity": granularity,
                    "arithmetic": "xor" if maps else "modulo",
                    "GB/s": round(SHARE / taken / 1e9, 1),
                    "ratio to copy": round(ratio, 2),
                }
            )
    return rows


def table(rows: list[dict[str, object]]) -> str:
    heads = list(rows[0])
    cells = [heads, *([str(row[head]) for head in heads] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="interleave arithmetic and copies against numpy copies")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of the tables")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of which the median is taken")
    asked = parser.parse_args()
    results = decoding(asked.rounds), moving(asked.rounds)
    if asked.json:
        print(json.dumps([row for rows in results for row in rows], indent=1))
    else:
        print("\n\n".join(table(rows) for rows in results))


if __name__ == "__main__":
    main()
