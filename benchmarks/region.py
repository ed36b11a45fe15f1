"""What a copy out of an interleaved region costs, against a copy of as many bytes of plain memory.

Regions of two, four and eight ways on a live machine, read with `region.read_into`, against `numpy.copyto` between two
arrays of the same size in the same run.

    python benchmarks/region.py [--size MIB] [--rounds N]
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np

from softcxl.fabric.build import Fabric

MIB = 1 << 20


def flat(ways: int) -> str:
    """A topology of one bridge with so many devices."""
    names = [f"m{number}" for number in range(ways)]
    devices = ", ".join(f"{name}: {{volatile: 256MiB}}" for name in names)
    host = f"{{bridges: {{hb: {{ports: [{', '.join(names)}]}}}}, windows: [{{size: 4GiB, targets: [hb]}}]}}"
    return f"{{devices: {{{devices}}}, hosts: {{a: {host}}}}}"


def copies(size: int, rounds: int) -> None:
    print(f"{'ways':>4} {'granularity':>11} {'region':>12} {'memory':>12} {'ratio':>6}")
    source, out = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    for ways in (2, 4, 8):
        for granularity in (256, 1024, 4096):
            with Fabric.loads(flat(ways)) as fabric:
                region = fabric.hosts["a"].boot().create_region(granularity=granularity, type="ram")
                region.write(0, source)
                times: dict[str, list[float]] = {"region": [], "memory": []}
                for _ in range(rounds):
                    for name, copy in (
                        ("region", lambda region=region: region.read_into(out)),
                        ("memory", lambda: np.copyto(out, source)),
                    ):
                        start = time.perf_counter()
                        copy()
                        times[name].append(time.perf_counter() - start)
                ours, floor = median(times["region"]), median(times["memory"])
                print(
                    f"{ways:>4} {granularity:>11} {size / ours / 1e9:>7.1f} GB/s {size / floor / 1e9:>7.1f} GB/s"
                    f" {ours / floor:>6.2f}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="MiB to copy")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    copies(given.size * MIB, given.rounds)


if __name__ == "__main__":
    main()
