"""What poison costs in lists of 100 to 100,000 lines: to look up, to list, to add and to take away.

The lines are all over the device. Looked up is one line (a load of a few bytes) and a page of 64, as every access to
memory does; listed are 16 in one reply of Get Poison List, through the mailbox. The floor of a look-up of a line is a
`dict` with as many, of the others the `bisect` of a sorted list of as many numbers, in the same run: what it costs to
look where no cache does shows in both. "To the first" divides by the shortest list's: 1 is flat.

    python benchmarks/poison.py [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import time
from bisect import bisect_left
from collections.abc import Callable
from statistics import median

from commands import table

from softcxl.device.clock import ManualClock
from softcxl.device.type3 import Type3
from softcxl.testing.driver import Driver

MIB = 1 << 20
SIZE = 1024 * MIB
LINES = (100, 1000, 10_000, 100_000)
EACH, LISTED = 2000, 16


def seconds(work: Callable[[int], object], places: list[int]) -> float:
    """Seconds of one call of `work`, over all places."""
    start = time.perf_counter()
    for place in places:
        work(place)
    return (time.perf_counter() - start) / len(places)


def costs(count: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Pairs of seconds, ours and the floor's, with `count` bad lines, by what is done."""
    device = Type3("mem0", volatile=SIZE, poison_list_max=2 * LINES[-1], clock=ManualClock())
    driver, draw = Driver(device), random.Random(count)
    bad = sorted(64 * line for line in draw.sample(range(SIZE // 64), count))
    for dpa in draw.sample(bad, count):
        device.inject_poison(dpa)
    known, places = dict.fromkeys(bad, 0), [64 * draw.randrange(SIZE // 64) for _ in range(EACH)]
    fresh = [dpa for dpa in places if dpa not in known]
    lookup, poison = device.poison.map.any_in, device.poison.map

    def listed(place: int) -> None:
        start = bad[place]
        driver.send(0x4300, struct.pack("<QQ", start, (bad[place + LISTED - 1] - start) // 64 + 1))

    def bisected(dpa: int) -> int:
        return bisect_left(bad, dpa)

    works: dict[str, tuple[Callable[[int], object], list[int], Callable[[int], object]]] = {
        "look up a line": (lambda dpa: lookup(dpa, 8), places, known.get),
        "look up a page": (lambda dpa: lookup(dpa, 4096), places, bisected),
        "list 16 lines": (listed, [draw.randrange(count - LISTED) for _ in range(EACH // 10)], bisected),
        "add a line": (lambda dpa: poison.add(dpa, 1), fresh, bisected),
        "take a line away": (poison.remove, fresh, bisected),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (ours, where, least) in works.items():
            found[name].append((seconds(ours, where), seconds(least, where)))
    device.close()
    return found


def measure(rounds: int) -> list[dict[str, object]]:
    found = {count: costs(count, rounds) for count in LINES}
    rows: list[dict[str, object]] = []
    for name in found[LINES[0]]:
        first = median(ours for ours, _ in found[LINES[0]][name])
        for count in LINES:
            cost = median(ours for ours, _ in found[count][name])
            rows.append(
                {
                    "what": name,
                    "lines": count,
                    "us": round(1e6 * cost, 2),
                    "ratio to floor": round(median(ours / least for ours, least in found[count][name]), 1),
                    "ratio to the first": round(cost / first, 2),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="poison by the number of bad lines")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of the table")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of which the median is taken")
    asked = parser.parse_args()
    rows = measure(asked.rounds)
    print(json.dumps(rows, indent=1) if asked.json else table(rows))


if __name__ == "__main__":
    main()
