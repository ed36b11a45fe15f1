"""What memory 256 hosts take that have a logical device bound, against a process that has done nothing yet.

Four switches, each with four multi-logical devices of 16 logical devices in its ports, and 64 virtual switches with one
vPPB, each bound. The hosts are nobody yet, or hierarchies in this process, whose slot the device is plugged into. Each
count of hosts is a process of its own; what is counted is its private memory (RssAnon).

    python benchmarks/hosts.py [--json] [--hosts N]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

from softcxl.device.clock import ManualClock
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.fabric.keeper import keep
from softcxl.fabric.store import Store
from softcxl.switch.hierarchy import Hierarchy
from softcxl.switch.physical import PhysicalSwitch

UNIT = 256 << 20
LDS, PORTS = 16, 4
KIB = 1024


def private() -> int:
    """Bytes of this process that are nobody else's file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * KIB
    raise SystemExit("/proc/self/status has no RssAnon: the kernel is too old")


def build(pipe: Any, count: int, hierarchies: bool) -> None:
    """Bind so many hosts, and say what memory there was before and after, and the seconds it took."""
    before, start = private(), time.perf_counter()
    clock, switches = ManualClock(), {}
    pools: dict[str, MultiLogicalDevice] = {}
    left = count
    while left:
        hosts = min(left, LDS * PORTS)
        left -= hosts
        name = f"rack{len(switches)}"
        switch = switches[name] = PhysicalSwitch(
            name, ports=-(-hosts // LDS), virtual=[(f"h{number}", 1) for number in range(hosts)], clock=clock
        )
        for port in range(-(-hosts // LDS)):
            pool = MultiLogicalDevice(
                f"{name}p{port}", volatile=LDS * UNIT, logical_devices=[UNIT] * LDS, clock=clock
            )
            pools[pool.name] = pool
            switch.ports[port].insert(pool.heads[0])
    first = {
        name: {virtual.name: [(number // LDS, number % LDS)] for number, virtual in switch.virtual.items()}
        for name, switch in switches.items()
    }
    store = Store()
    keep(store, switches, pools, {}, first)
    if hierarchies:
        for switch in switches.values():
            for virtual in switch.virtual.values():
                virtual.tenant = Hierarchy(virtual.name, 1)
    bound = [
        vppb.function is not None
        for switch in switches.values()
        for virtual in switch.virtual.values()
        for vppb in virtual.vppbs
    ]
    assert bound == [True] * count
    pipe.send((before, private(), time.perf_counter() - start))


def measure(count: int, hierarchies: bool) -> tuple[int, int, float]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=build, args=(theirs, count, hierarchies))
    process.start()
    before, after, seconds = ours.recv()
    process.join()
    return before, after, seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--hosts", type=int, default=256)
    given = parser.parse_args()
    rows = []
    for count in (given.hosts // 16, given.hosts // 4, given.hosts):
        for hierarchies in (False, True):
            before, after, seconds = measure(count, hierarchies)
            rows.append(
                {
                    "hosts": count,
                    "who": "in process" if hierarchies else "nobody yet",
                    "idle_mib": before / KIB**2,
                    "mib": after / KIB**2,
                    "ratio": after / before,
                    "kib_a_host": (after - before) / count / KIB,
                    "seconds": seconds,
                }
            )
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'hosts':>5}  {'who':<11} {'idle MiB':>9} {'MiB':>8} {'/ idle':>7} {'KiB a host':>11} {'s':>6}")
    for one in rows:
        print(
            f"{one['hosts']:>5}  {one['who']:<11} {one['idle_mib']:>9.1f} {one['mib']:>8.1f} {one['ratio']:>7.2f}"
            f" {one['kib_a_host']:>11.0f} {one['seconds']:>6.2f}"
        )


if __name__ == "__main__":
    main()
