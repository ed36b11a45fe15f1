"""What `make demo-linux` shows: an unmodified Linux drives two CXL memory devices that live in this Python process.

Run it with a topology of two devices under one bridge (examples/two-devices.yaml is the default). It exits with 0
when every byte was where it belongs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from rich.table import Table

from softcxl import Fabric, Type3, boot
from softcxl.cli.show import console as make_console
from softcxl.cli.show import print_tree
from softcxl.cli.work import shown
from softcxl.fabric.errors import SoftCXLError
from softcxl.fabric.tree import tree
from softcxl.lab.errors import LabError
from softcxl.lab.guest import Guest
from softcxl.memory import Interleave

MIB = 1 << 20
CHECKED = 16 * MIB
TIMED = 128 * MIB
GRANULARITY = 256
FROM_GUEST, FROM_PYTHON = 0x1234, 0xABCD

console = make_console()


def main() -> int:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("two-devices.yaml"))
    try:
        with Fabric.load(path) as fabric:
            heading("The fabric", f"as {path.name} describes it; its devices now live in this Python process")
            print_tree(tree(fabric.topology, path.name))
            with shown() as progress, boot(fabric, progress=progress) as guest:
                return show(fabric, guest)
    except (SoftCXLError, LabError) as error:
        console.print(f"demo-linux: {error}", style="red", markup=False)
        return 1


def show(fabric: Fabric, guest: Guest) -> int:
    heading("Linux", f"{guest.release}, stock, in a stock QEMU, up after {guest.boot_seconds:.0f} s")
    memdevs = json.loads(guest.output("cxl list -M"))
    by_serial = {one["serial"]: one["memdev"] for one in memdevs}
    table = plain_table("memory device", "size", "serial", "PCI address", "firmware")
    for one in memdevs:
        table.add_row(
            one["memdev"],
            f"{one['ram_size'] // MIB} MiB",
            hex(one["serial"]),
            one["host"],
            one["firmware_version"],
        )
    console.print(table)

    devices = list(fabric.devices.values())
    heading("A region", f"Linux interleaves the two, {GRANULARITY} bytes to each in turn")
    names = " ".join(by_serial[device.serial] for device in devices)
    guest.output("echo online_movable > /sys/devices/system/memory/auto_online_blocks")
    # movable, so that the region can be taken out of the system again and given to a program
    command = f"cxl create-region -t ram -d decoder0.0 -w 2 -g {GRANULARITY} -m {names}"
    console.print(f"[dim]guest#[/] {command}")
    region = json.loads(guest.output(command))
    console.print(
        f"{region['region']}: {region['size'] // MIB} MiB at {region['resource']:#x},"
        f" {region['interleave_ways']} ways of {region['interleave_granularity']} bytes"
    )
    guest.output("softcxl-devdax dax0.0")

    heading("The check", f"{CHECKED // MIB} MiB each way: Linux by loads and stores, Python device by device")
    guest.output(f"softcxl-memory fill /dev/dax0.0 0 {CHECKED} {FROM_GUEST}")
    wrong = sum(differences(device, position, FROM_GUEST) for position, device in enumerate(devices))
    verdict(wrong == 0, f"Linux wrote, Python read {CHECKED // MIB} MiB from {len(devices)} devices")
    for position, device in enumerate(devices):
        device.space.write(0, share(position, FROM_PYTHON).tobytes())
    answer = guest.run(f"softcxl-memory check /dev/dax0.0 0 {CHECKED} {FROM_PYTHON}")
    verdict(answer.status == 0, f"Python wrote, Linux read {CHECKED // MIB} MiB{answer.text.strip()}")

    heading("The speed", "of that memory, as Linux sees it, against its ordinary RAM in the same run")
    speeds = {
        "ordinary RAM": json.loads(guest.output(f"softcxl-memory speed - {TIMED} 3")),
        "CXL region": json.loads(guest.output(f"softcxl-memory speed /dev/dax0.0 {TIMED} 3")),
    }
    table = plain_table("MB/s", *speeds, "ratio")
    for what in speeds["ordinary RAM"]:
        ram, cxl = (speed[what] for speed in speeds.values())
        table.add_row(what, f"{ram:,}", f"{cxl:,}", f"{cxl / ram:.2f}")
    console.print(table)
    traffic = {name: door.traffic for name, door in fabric.open_doors.items()}
    accesses = sum(one.reads + one.writes for one in traffic.values())
    console.print(
        f"Python answered {accesses:,} register accesses; loads and stores of memory never came its way."
    )
    return 1 if wrong or answer.status else 0


def pattern(seed: int) -> np.ndarray:
    """The pattern that `softcxl-memory` makes: 64-bit words, each the one before plus a constant."""
    return np.arange(CHECKED // 8, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)


def share(position: int, seed: int) -> np.ndarray:
    """The bytes of the pattern that the device at `position` holds."""
    positions, _ = Interleave(2, GRANULARITY).locate_many(np.arange(0, CHECKED, 8, dtype=np.uint64))
    mine: np.ndarray = pattern(seed)[positions == position]
    return mine


def differences(device: Type3, position: int, seed: int) -> int:
    """How many words of the device's share are not what the pattern says."""
    wanted = share(position, seed)
    return int(np.count_nonzero(np.frombuffer(device.space.read(0, wanted.nbytes), np.uint64) != wanted))


def plain_table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2))
    for column in columns:
        table.add_column(column)
    return table


def heading(title: str, rest: str) -> None:
    console.print(f"\n[bold cyan]{title}[/] [dim]{rest}[/]")


def verdict(good: bool, what: str) -> None:
    console.print(f"[bold green]ok[/]     {what}" if good else f"[bold red]WRONG[/]  {what}")


if __name__ == "__main__":
    sys.exit(main())
