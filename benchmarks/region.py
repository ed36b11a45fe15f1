"""What a copy out of an interleaved region costs, against a copy of as many bytes of plain memory.

Regions of two, four and eight ways on a live machine, read with `region.read_into`, against `numpy.copyto` between two
arrays of the same size in the same run. Then a host booted on fabrics of growing size: CPU seconds to build, boot
(enumerate, probe) and list it, and what that is for each device.

    python benchmarks/region.py [--size MIB] [--rounds N] [--devices N ...]
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise
from statistics import median

import numpy as np

from softcxl.fabric.build import Fabric
from softcxl.fabric.topology import loads

MIB = 1 << 20


def flat(ways: int) -> str:
    """A topology of one bridge with so many devices."""
    names = [f"m{number}" for number in range(ways)]
    devices = ", ".join(f"{name}: {{volatile: 256MiB}}" for name in names)
    host = f"{{bridges: {{hb: {{ports: [{', '.join(names)}]}}}}, windows: [{{size: 4GiB, targets: [hb]}}]}}"
    return f"{{devices: {{{devices}}}, hosts: {{a: {host}}}}}"


def deep(count: int) -> str:
    """A topology of up to eight bridges, and switches of eight devices below them."""
    names = [f"m{number}" for number in range(count)]
    groups = [names[at : at + 8] for at in range(0, count, 8)]
    switches = ", ".join(f"s{at}: {{ports: [{', '.join(group)}]}}" for at, group in enumerate(groups))
    bridges = [[f"s{at}" for at in range(first, len(groups), 8)] for first in range(min(8, len(groups)))]
    devices = ", ".join(f"{name}: {{volatile: 256MiB}}" for name in names)
    listed = ", ".join(f"hb{at}: {{ports: [{', '.join(ports)}]}}" for at, ports in enumerate(bridges))
    host = f"{{bridges: {{{listed}}}, windows: [{{size: 1GiB, targets: [hb0]}}]}}"
    return f"{{devices: {{{devices}}}, switches: {{{switches}}}, hosts: {{a: {host}}}}}"


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


def sizes(counts: list[int]) -> None:
    print(f"\n{'devices':>7} {'build':>7} {'boot':>7} {'list':>7} {'each':>9}")
    for count in counts:
        topology = loads(deep(count))
        marks = [time.process_time()]
        with Fabric(topology) as fabric:
            host = fabric.hosts["a"]
            _ = host.machine
            marks.append(time.process_time())
            system = host.boot()
            marks.append(time.process_time())
            assert len(system.memdevs) == count
            system.listing(verbose=2)
            marks.append(time.process_time())
        build, boot, listed = (end - start for start, end in pairwise(marks))
        each = (marks[-1] - marks[0]) / count * 1000
        print(f"{count:>7} {build:>5.2f} s {boot:>5.2f} s {listed:>5.2f} s {each:>6.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="MiB to copy")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--devices", type=int, nargs="*", default=[10, 100, 1000])
    given = parser.parse_args()
    copies(given.size * MIB, given.rounds)
    sizes(given.devices)


if __name__ == "__main__":
    main()
