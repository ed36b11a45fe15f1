"""What finding room for an allocation costs the pool's server, as ratios to what one would write first.

A source has many live allocations. One operation frees one of them, drawn at random, and allocates as much as
another had (`churn`), or allocates and frees at once (`pair`). The same is done to lists of free extents that are kept
sorted by bisection (one by offset, to join neighbours, one by size, to find the best fit), and to a dictionary that
just stores the size of each allocation and drops it, which is the least that a server could do. Each figure is the
median of several rounds in which all take turns.

    python benchmarks/pool_allocate.py [--json] [--rounds N] [--live N]
"""

from __future__ import annotations

import argparse
import json
import random
import time
import tracemalloc
from bisect import bisect_left, insort
from statistics import median
from typing import TYPE_CHECKING, Protocol

import numpy as np

from softcxl.fm.pool.space import Space

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 2_000
GRANULE = 4096
SOURCE = 1 << 42


class Allocator(Protocol):
    def allocate(self, size: int, /) -> int | None: ...
    def free(self, offset: int, /) -> object: ...


class SortedLists:
    """The same policy with the two lists that one would keep."""

    def __init__(self, space: Space) -> None:
        self.allocated = dict(space.allocations())
        self.by_offset = list(space.extents())
        self.by_size = sorted((size, offset) for offset, size in self.by_offset)

    def allocate(self, size: int) -> int:
        need = -(-size // GRANULE) * GRANULE
        room, offset = self.by_size.pop(bisect_left(self.by_size, (need, 0)))
        at = bisect_left(self.by_offset, (offset, 0))
        if room == need:
            del self.by_offset[at]
        else:
            self.by_offset[at] = offset + need, room - need
            insort(self.by_size, (room - need, offset + need))
        self.allocated[offset] = need
        return offset

    def free(self, offset: int) -> None:
        size = self.allocated.pop(offset)
        at = bisect_left(self.by_offset, (offset, 0))
        if at < len(self.by_offset) and self.by_offset[at][0] == offset + size:
            self.leave(self.by_offset[at])
            size += self.by_offset.pop(at)[1]
        if at and sum(self.by_offset[at - 1]) == offset:
            at -= 1
            self.leave(self.by_offset[at])
            offset, more = self.by_offset.pop(at)
            size += more
        self.by_offset.insert(at, (offset, size))
        insort(self.by_size, (size, offset))

    def leave(self, extent: tuple[int, int]) -> None:
        del self.by_size[bisect_left(self.by_size, (extent[1], extent[0]))]


class Remembered:
    """Where nothing is looked for: the size of each allocation is stored, and dropped."""

    def __init__(self, space: Space) -> None:
        self.allocated = dict(space.allocations())
        self.next = SOURCE

    def allocate(self, size: int) -> int:
        self.next += GRANULE
        self.allocated[self.next] = size
        return self.next

    def free(self, offset: int) -> None:
        del self.allocated[offset]


def alike(draw: random.Random) -> int:
    return GRANULE


def mixed(draw: random.Random) -> int:
    return int(GRANULE * 2 ** draw.uniform(0, 8))


def filled(live: int, pick: Callable[[random.Random], int], keep: float) -> Space:
    """A source with that many live allocations, after others between them were freed."""
    draw, space = random.Random(6), Space(SOURCE)
    offsets = [space.allocate(pick(draw)) for _ in range(int(live / keep))]
    for offset in draw.sample(offsets, len(offsets) - live):
        assert offset is not None
        space.free(offset)
    return space


def churn(allocator: Allocator, offsets: list[int], sizes: list[int], draw: random.Random) -> float:
    """Seconds for a free and an allocation."""
    chosen = [draw.randrange(len(offsets)) for _ in range(CALLS)]
    wanted = [draw.choice(sizes) for _ in range(CALLS)]
    start = time.perf_counter()
    for which, size in zip(chosen, wanted, strict=True):
        allocator.free(offsets[which])
        offsets[which] = allocator.allocate(size) or 0
    return (time.perf_counter() - start) / CALLS


def pair(allocator: Allocator, sizes: list[int], draw: random.Random) -> float:
    wanted = [draw.choice(sizes) for _ in range(CALLS)]
    start = time.perf_counter()
    for size in wanted:
        allocator.free(allocator.allocate(size) or 0)
    return (time.perf_counter() - start) / CALLS


def row(what: str, space: Space, rounds: int) -> list[dict[str, object]]:
    records = space.allocations()
    sizes = [size for _, size in records]
    holes = len(space.extents())
    allocators: list[Allocator] = [space, SortedLists(space), Remembered(space)]
    offsets = [[offset for offset, _ in records] for _ in allocators]
    draws = [random.Random(7) for _ in allocators]
    measured = []
    for kind in ("churn", "pair"):
        times: list[list[float]] = [[] for _ in allocators]
        for _ in range(rounds):
            for which, allocator in enumerate(allocators):
                if kind == "churn":
                    took = churn(allocator, offsets[which], sizes, draws[which])
                else:
                    took = pair(allocator, sizes, draws[which])
                times[which].append(took)
        ours, lists, least = (median(took) for took in times)
        measured.append(
            {
                "what": f"{what}, {kind}",
                "free extents": holes,
                "µs": round(ours * 1e6, 2),
                "lists, µs": round(lists * 1e6, 2),
                "dictionary, µs": round(least * 1e6, 2),
                "lists / ours": round(lists / ours, 1),
                "ours / dictionary": round(ours / least, 1),
            }
        )
    return measured


def restored(live: int) -> list[dict[str, object]]:
    """The picture made anew from records, as after a restart, and what it takes."""
    rows = []
    for what, every in (("without holes", 1), ("a hole after each", 2)):
        offsets = np.arange(live, dtype=np.uint64) * np.uint64(GRANULE * every)
        sizes = np.full(live, GRANULE, np.uint64)
        start = time.perf_counter()
        Space.restore(SOURCE, offsets, sizes)
        took = time.perf_counter() - start
        tracemalloc.start()
        space = Space.restore(SOURCE, offsets, sizes)
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        rows.append(
            {
                "restored": what,
                "allocations": len(space),
                "ms": round(took * 1e3),
                "bytes each": round(used / live),
            }
        )
    return rows


def table(rows: list[dict[str, object]]) -> str:
    heads = list(rows[0])
    cells = [heads, *([str(one[head]) for head in heads] for one in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return "\n".join(
        line[0].ljust(widths[0])
        + "".join(f"  {cell.rjust(width)}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in cells
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="the pool's allocator against sorted lists and a dictionary")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of the tables")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of which the median is taken")
    parser.add_argument("--live", type=int, default=1_000_000, help="allocations that there are")
    asked = parser.parse_args()
    live: int = asked.live
    rows = row(f"{live:,} of 4 KiB", filled(live, alike, 1), asked.rounds)
    rows += row(f"{live:,} of 4 KiB to 1 MiB", filled(live, mixed, 1), asked.rounds)
    rows += row("the same, a third more freed", filled(live, mixed, 0.75), asked.rounds)
    memory = restored(live)
    if asked.json:
        print(json.dumps(rows + memory, indent=1))
    else:
        print(table(rows), table(memory), sep="\n\n")


if __name__ == "__main__":
    main()
