"""How fast is CXL memory in a guest, and how fast is the mailbox, against the guest's RAM and QEMU's own device?

Two guests are booted one after the other, with the same kernel and QEMU: one over our devices, one over QEMU's
cxl-type3. In each, regions of one and of two ways are made by Linux, used as devdax, and timed by the same program
against ordinary memory of that guest. `--json` prints the figures for machines.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from softcxl import Fabric, boot
from softcxl.cli.work import shown
from softcxl.lab import compile as compiled
from softcxl.lab.guest import Guest
from softcxl.lab.parts import Parts
from softcxl.lab.plan import GuestPlan
from softcxl.lab.progress import Progress
from softcxl.lab.setup import setup

MIB = 1 << 20
LAYOUTS = ((1, 256), (2, 256), (2, 4096))
TRAPPED = (2 * MIB, 1)  # what QEMU's interleaved memory is timed with: every access traps there
DIRECT = (128 * MIB, 3)
TURNS = 5
COMMANDS = 2000
TOPOLOGY = """
devices: {mem0: {volatile: 256MiB}, mem1: {volatile: 256MiB}}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, mem1]}}
    windows: [{size: 1GiB, targets: [hb0]}]
"""
QEMU_DEVICES = [
    *("-machine", "cxl=on,cxl-fmw.0.targets.0=hb0,cxl-fmw.0.size=1G"),
    *("-device", "pxb-cxl,bus_nr=12,bus=pcie.0,id=hb0"),
    *("-device", "cxl-rp,port=0,bus=hb0,id=rp0,chassis=1,slot=1"),
    *("-device", "cxl-rp,port=1,bus=hb0,id=rp1,chassis=1,slot=2"),
    *("-object", "memory-backend-ram,id=ram0,size=256M"),
    *("-object", "memory-backend-ram,id=ram1,size=256M"),
    *("-device", "cxl-type3,bus=rp0,volatile-memdev=ram0,id=mem0,sn=1"),
    *("-device", "cxl-type3,bus=rp1,volatile-memdev=ram1,id=mem1,sn=2"),
]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--json", action="store_true", help="figures as JSON")
    as_json = arguments.parse_args().json
    with shown() as progress:
        parts = setup(progress).parts()
        with Fabric.loads(TOPOLOGY) as fabric, boot(fabric, parts=parts, progress=progress) as guest:
            ours = measure(guest, DIRECT)
            before = accesses(fabric)
            ours["commands"] = commands(guest)
            ours["traps"] = (accesses(fabric) - before) / COMMANDS
            ours["boot"] = guest.boot_seconds
            ours["list"] = guest.boot_seconds + guest.run("cxl list -v").seconds
        with theirs(parts, progress) as guest:
            peer = measure(guest, TRAPPED)
            peer["commands"] = commands(guest)
            peer["boot"] = guest.boot_seconds
            peer["list"] = guest.boot_seconds + guest.run("cxl list -v").seconds
    if as_json:
        json.dump({"softcxl": ours, "qemu": peer}, sys.stdout, indent=2)
        print()
    else:
        show(ours, peer)
    return 0


@contextmanager
def theirs(parts: Parts, progress: Progress) -> Iterator[Guest]:
    """A guest over QEMU's own CXL devices and window."""
    overlays = [compiled.overlay(parts)]
    with Guest(
        GuestPlan(name="peer"), parts, extra=QEMU_DEVICES, overlays=overlays, progress=progress
    ) as guest:
        yield guest


def measure(guest: Guest, interleaved: tuple[int, int]) -> dict[str, Any]:
    """MB/s of ordinary memory and of each layout's region; `interleaved` is (bytes, rounds) for those of two ways."""
    guest.output("echo online_movable > /sys/devices/system/memory/auto_online_blocks")
    found: dict[str, Any] = {"layouts": {}}
    for ways, granularity in LAYOUTS:
        size, rounds = DIRECT if ways == 1 else interleaved
        memdevs = " ".join(f"mem{number}" for number in range(ways))
        region = json.loads(
            guest.output(f"cxl create-region -t ram -d decoder0.0 -w {ways} -g {granularity} -m {memdevs}")
        )
        guest.output("softcxl-devdax dax0.0", timeout=300)
        best: dict[str, dict[str, int]] = {"region": {}, "ram": {}}
        for _ in range(TURNS):  # in turns, so that what else the machine does counts for both alike
            for name, file, length in (("region", "/dev/dax0.0", size), ("ram", "-", DIRECT[0])):
                speed = json.loads(
                    guest.output(f"softcxl-memory speed {file} {length} {rounds}", timeout=600)
                )
                for what, value in speed.items():
                    best[name][what] = max(value, best[name].get(what, 0))
        found["layouts"][f"{ways}-way {granularity} B"] = best
        guest.output(f"cxl destroy-region -f {region['region']}")
    return found


def commands(guest: Guest) -> int:
    """Identify commands a second through the kernel."""
    return int(json.loads(guest.output(f"softcxl-memory commands /dev/cxl/mem0 {COMMANDS}"))["per_second"])


def accesses(fabric: Fabric) -> int:
    return sum(door.traffic.reads + door.traffic.writes for door in fabric.open_doors.values())


def plain(*columns: str, words: int) -> Table:
    """A table that fits 80 columns; the first `words` columns hold words, the others numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < words else "right", no_wrap=True)
    return table


def show(ours: dict[str, Any], peer: dict[str, Any]) -> None:
    console = Console(highlight=False)
    table = plain(
        "region", "what", "RAM MB/s", "SoftCXL MB/s", "to RAM", "cxl-type3 MB/s", "to QEMU", words=2
    )
    for layout, speeds in ours["layouts"].items():
        for what, mine in speeds["region"].items():
            ram, qemu = speeds["ram"][what], peer["layouts"][layout]["region"][what]
            table.add_row(
                layout,
                what,
                f"{ram:,}",
                f"{mine:,}",
                f"{mine / ram:.2f}",
                f"{qemu:,}",
                f"{mine / max(1, qemu):.1f}",
            )
    console.print(table)
    console.print()
    table = plain("", "SoftCXL", "cxl-type3", "ratio", words=1)
    table.add_row(
        "mailbox commands a second, from the guest",
        f"{ours['commands']:,}",
        f"{peer['commands']:,}",
        f"{ours['commands'] / peer['commands']:.2f}",
    )
    table.add_row("accesses that reach the device, a command", f"{ours['traps']:.1f}", "in QEMU", "")
    for what, key in (
        ("seconds from launch to a shell", "boot"),
        ("seconds from launch to `cxl list`", "list"),
    ):
        table.add_row(what, f"{ours[key]:.1f}", f"{peer[key]:.1f}", f"{ours[key] / peer[key]:.2f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
