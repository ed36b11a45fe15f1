"""How long a request and its reply take between two processes: by the pool, and by what one would pick instead.

Every peer's server is a process of its own and answers with the bytes that came. In each round every peer has its
turn, so that what else the machine does counts for all alike. Three places: client and server on processors of
their own, back to back; the same with a pause ahead of each request, so that both sleep and each has to wake the
other; and both on one processor, where spinning is of no use. Figures are medians of the rounds, the best in
brackets, in µs.

    python benchmarks/pool_latency.py [--json] [--rounds N] [--seconds S] [--only NAME,...]"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from contextlib import ExitStack
from typing import Any

from pool_peers import OURS, PEERS, loaded
from pool_peers.turns import Served, placed, rounds, serve

MIB = 1 << 20
SIZES = {64: "64 B", 4096: "4 KiB", MIB: "1 MiB"}
PAUSE = 0.0005
PLACES = {
    "two processors, back to back": (True, 0.0, tuple(SIZES)),
    f"two processors, {1000 * PAUSE:g} ms between requests: both sleep": (True, PAUSE, (64,)),
    "one processor, back to back": (False, 0.0, (64,)),
}
BACK_TO_BACK, ASLEEP, ONE = PLACES

Figures = dict[tuple[str, int], list[float]]


def measure(served: list[Served], place: str, count: int, seconds: float) -> Figures:
    """Seconds a round trip of each peer that can be asked there."""
    apart, pause, sizes = PLACES[place]
    asked = [one for one in served if not (one.peer.polls and place != BACK_TO_BACK)]
    undo = placed(asked, apart)
    try:
        return rounds(asked, sizes, count, seconds, pause)
    finally:
        undo()


def show(place: str, found: Figures) -> None:
    """A table of one place: a row a peer; how many times as long as our ring it takes stands behind."""
    sizes = [size for size in SIZES if any(one == size for _, one in found)]
    print(f"\n{place}, µs")
    print(f"{'':<22}" + "".join(f"{SIZES[size]:>20}{'to ring':>9}" for size in sizes))
    for name in dict.fromkeys(name for name, _ in found):
        line = f"{name:<22}"
        for size in sizes:
            times, ring = found.get((name, size)), found.get(("ring", size))
            if times is None:
                line += f"{'':>29}"
                continue
            best = f"({1e6 * min(times):.2f})"
            line += f"{1e6 * statistics.median(times):>11.2f}{best:>9}"
            line += f"{ratio(times, ring):>9.2f}" if ring else f"{'':>9}"
        print(line)


def ratio(one: list[float], other: list[float]) -> float:
    """The median of the ratios round by round, which what else the machine does disturbs least."""
    return statistics.median(mine / theirs for mine, theirs in zip(one, other, strict=True))


def limits(found: dict[str, Figures]) -> list[tuple[str, float, float]]:
    """What is asked of us: what, as it was measured, and the limit."""
    near, asleep = found.get(BACK_TO_BACK, {}), found.get(ASLEEP, {})
    wanted = [
        (f"64 B by {name}, back to back, µs", 1e6 * statistics.median(near[name, 64]), 0.6)
        for name in ("ring", "call", "pool.ring", "pool.client")
        if (name, 64) in near
    ]
    wanted += [
        (f"1 MiB, {name}, µs", 1e6 * statistics.median(near[name, MIB]), 2.0)
        for name in ("by reference", "pool reference")
        if (name, MIB) in near
    ]
    for name in ("ring", "call", "pool.ring", "pool.client"):
        if (name, 64) in asleep and ("Unix socket", 64) in asleep:
            times = ratio(asleep[name, 64], asleep["Unix socket", 64])
            wanted.append((f"64 B by {name} to Unix socket, both asleep", times, 1.2))
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.05, help="of a turn of a peer")
    parser.add_argument("--only", help=f"these, with commas: {', '.join(PEERS)}")
    given = parser.parse_args()
    peers, missing = loaded()
    if given.only:
        wanted = given.only.split(",")
        if wrong := [name for name in wanted if name not in PEERS]:
            parser.error(f"--only {wrong[0]}: there are {', '.join(PEERS)}")
        peers = [peer for peer in peers if peer.name in wanted]
    with ExitStack() as stack:
        served = serve(peers, stack)
        found = {place: measure(served, place, given.rounds, given.seconds) for place in PLACES}
    if given.json:
        print(json.dumps(as_json(found, missing), indent=2))
        return
    print(f"request and reply between two processes: medians of {given.rounds} rounds (and the best)")
    for place, figures in found.items():
        show(place, figures)
    polling = [peer.name for peer in peers if peer.polls]
    if polling:
        print(f"\n{', '.join(polling)}: never sleeps, so asked back to back on two processors alone")
    for name, reason in missing.items():
        print(f"not compared: {name}: {reason} (`make bench` installs the peers)")
    if len(os.sched_getaffinity(0)) < 2:
        print("this machine has one processor: all figures are of one")
    near = found.get(BACK_TO_BACK, {})
    if floor := near.get(("floor in C", 64)):
        print(
            f"\nthis machine's floor, C on both sides, is {1e6 * statistics.median(floor):.2f} µs for 64 B; ours to it:"
        )
        for name in OURS:
            if (name, 64) in near:
                print(f"  {name:<22}{ratio(near[name, 64], floor):>8.2f}")
    print("\nlimits")
    for what, value, most in limits(found):
        print(f"  {what:<48}{value:>8.2f}  at most {most:g}: {'ok' if value <= most else 'NOT MET'}")


def as_json(found: dict[str, Figures], missing: dict[str, str]) -> dict[str, Any]:
    return {
        "microseconds": {
            place: [
                {
                    "peer": name,
                    "ours": name in OURS,
                    "bytes": size,
                    "median": 1e6 * statistics.median(times),
                    "best": 1e6 * min(times),
                }
                for (name, size), times in figures.items()
            ]
            for place, figures in found.items()
        },
        "limits": [{"what": what, "measured": value, "at_most": most} for what, value, most in limits(found)],
        "missing": missing,
    }


if __name__ == "__main__":
    main()
