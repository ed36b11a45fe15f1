"""What it costs to deal out, bind and take back 1,000 logical devices, and how much of that is the disk's.

63 multi-logical devices in ports of a switch, 1,008 vPPBs in four virtual switches without hosts. Each logical device
is given memory, bound, unbound, and its memory taken away, as a fabric manager does it, one after the other. It is done
with a state folder (every answer is on disk), in memory (what a topology without `state` has), and with nothing that
keeps account. The peer is bare SQLite: the statements that the first one ran, with their values, run again on a file
beside it, each commit waiting for the disk as ours did. All take turns in the same run; figures are medians.

    python benchmarks/reconfigure.py [--json] [--rounds N] [--devices N]
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from softcxl.device.clock import ManualClock
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.persist import StatePage
from softcxl.fabric.keeper import keep
from softcxl.fabric.store import Store
from softcxl.spec.fm.vcs import UnbindOption
from softcxl.switch.physical import PhysicalSwitch

UNIT = 256 << 20
LDS = 16
VIRTUAL = 4
STEPS = ("allocate", "bind", "unbind", "free")


class Rack:
    """`count` devices of 16 logical devices each in a switch, kept in `store` if there is one."""

    def __init__(self, count: int, store: Store | None) -> None:
        self.stack = ExitStack()
        clock = ManualClock()
        self.pools: list[MultiLogicalDevice] = []
        vppbs = -(-count * LDS // VIRTUAL)
        self.switch = PhysicalSwitch(
            "rack", ports=count, virtual=[(f"v{number}", vppbs) for number in range(VIRTUAL)], clock=clock
        )
        for number in range(count):
            name = f"pool{number}"
            pool = MultiLogicalDevice(
                name, volatile=LDS * UNIT, clock=clock, state=store.page(name) if store else StatePage()
            )
            self.stack.callback(pool.close)
            self.pools.append(pool)
            self.switch.ports[number].insert(pool.heads[0])
        if store:
            keep(store, {"rack": self.switch}, {pool.name: pool for pool in self.pools}, {}, {})

    def each(self) -> Iterator[tuple[int, int, int, int]]:
        """Port, LD, virtual switch, vPPB."""
        for number in range(len(self.pools) * LDS):
            yield number // LDS, number % LDS, number % VIRTUAL, number // VIRTUAL

    def steps(self) -> dict[str, Callable[[], None]]:
        def allocate() -> None:
            for port, ld, _, _ in self.each():
                self.pools[port].allocate({ld: UNIT})

        def bind() -> None:
            for port, ld, vcs, vppb in self.each():
                self.switch.bind(vcs, vppb, port, ld)

        def unbind() -> None:
            for _, _, vcs, vppb in self.each():
                self.switch.unbind(vcs, vppb, UnbindOption.MANAGED_HOT_REMOVE)

        def free() -> None:
            for port, ld, _, _ in self.each():
                self.pools[port].allocate({ld: 0})

        return dict(zip(STEPS, (allocate, bind, unbind, free), strict=True))


def timed(step: Callable[[], None], count: int) -> float:
    """Microseconds for each logical device."""
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) / count * 1e6


def ours(
    count: int, folder: Path | None, kept: bool, ran: dict[str, list[str]] | None = None
) -> dict[str, float]:
    """The steps' times; `ran` gets the statements of each."""
    with ExitStack() as stack:
        store = stack.enter_context(Store(folder)) if kept else None
        rack = Rack(count, store)
        stack.callback(rack.stack.close)
        found = {}
        for name, step in rack.steps().items():
            if ran is not None and store is not None:
                store.database.connection.set_trace_callback(ran.setdefault(name, []).append)
            found[name] = timed(step, count * LDS)
        if store is not None:
            store.database.connection.set_trace_callback(None)
        return found


def bare(count: int, folder: Path, ran: dict[str, list[str]]) -> dict[str, float]:
    """The same statements without us, on a new file with the same tables."""
    Store(folder).close()
    connection = sqlite3.connect(folder / "fabric.db", isolation_level=None)
    connection.execute("DELETE FROM journal")
    found = {}
    for name, statements in ran.items():

        def run(statements: list[str] = statements) -> None:
            for one in statements:
                connection.execute(one)

        found[name] = timed(run, count * LDS)
    connection.close()
    return found


def measure(rounds: int, count: int) -> dict[str, dict[str, float]]:
    samples: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="softcxl-bench-") as temporary:
        root, ran = Path(temporary), dict[str, list[str]]()
        ours(count, root / "traced", True, ran)
        for number in range(rounds):
            taken = {
                "folder": ours(count, root / f"folder{number}", True),
                "sqlite": bare(count, root / f"bare{number}", ran),
                "memory": ours(count, None, True),
                "nothing": ours(count, None, False),
            }
            for way, steps in taken.items():
                for step, value in steps.items():
                    samples.setdefault(way, {}).setdefault(step, []).append(value)
    return {
        way: {step: statistics.median(values) for step, values in steps.items()}
        for way, steps in samples.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--devices", type=int, default=63, help="multi-logical devices, of 16 logical devices each"
    )
    given = parser.parse_args()
    found = measure(given.rounds, given.devices)
    if given.json:
        print(json.dumps({"logical_devices": given.devices * LDS, "us": found}, indent=2))
        return
    print(f"reconfiguration of {given.devices * LDS} logical devices, µs for each")
    print(
        f"{'':<10} {'folder':>9} {'sqlite':>9} {'memory':>9} {'nothing':>9} {'/ sqlite':>9} {'/ nothing':>9}"
    )
    rows = {step: {way: found[way][step] for way in found} for step in STEPS}
    rows["all"] = {way: sum(found[way].values()) for way in found}
    for step, one in rows.items():
        print(
            f"{step:<10} {one['folder']:>9.0f} {one['sqlite']:>9.0f} {one['memory']:>9.0f} {one['nothing']:>9.0f}"
            f" {one['folder'] / one['sqlite']:>9.2f} {one['folder'] / one['nothing']:>9.2f}"
        )


if __name__ == "__main__":
    main()
