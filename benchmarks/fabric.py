"""What a fabric of many devices costs to build, enumerate and list, and how that grows with their number.

Devices sit behind three levels of switches, up to 128 below a host bridge, and up to eight bridges in a host. Each
size is measured in a process of its own: CPU seconds of building devices, hosts and switches; of booting every host
(enumeration, probing); of listing all that they see; of routed config reads; and what the process has grown by.
The floor is the least that Python can do for that many devices: the bytes of their register images copied, an
object for each register block, an attribute set for each field that is. Ratios "to the first" divide the cost of a
device by that at the smallest size: 1 is linear.

    python benchmarks/fabric.py [--devices N ...] [--json]
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import resource
import time
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path

from softcxl.fabric import keys
from softcxl.fabric.build import Fabric
from softcxl.spec.pci.header import CONFIG_SPACE_SIZE

MIB = 1 << 20
SIZES = [10, 100, 1000, 4000]
LEAVES, BELOW, MIDDLE = 16, 4, 2
"""Devices of a last switch, last switches of a middle one, middle switches of a first one."""

BRIDGES = 8
IMAGE, BLOCKS, FIELDS = CONFIG_SPACE_SIZE + 2 * 4096, 45, 100
"""What building an endpoint amounts to: bytes of registers in use, blocks placed, fields set."""


def tree(count: int) -> keys.Topology:
    """A topology of so many devices, three switches above each of them."""
    devices = {f"m{at}": keys.Type3(volatile=256 * MIB) for at in range(count)}
    switches: dict[str, keys.Switch] = {}

    def gathered(names: list[str], most: int, kind: str) -> list[str]:
        groups = [names[at : at + most] for at in range(0, len(names), most)]
        made = {f"{kind}{at}": keys.Switch(ports=list(group)) for at, group in enumerate(groups)}
        switches.update(made)
        return list(made)

    tops = list(devices)
    for most, kind in ((LEAVES, "c"), (BELOW, "b"), (MIDDLE, "a")):
        tops = gathered(tops, most, kind)
    hosts = {}
    for number, at in enumerate(range(0, len(tops), BRIDGES)):
        bridges = {f"hb{one}": keys.Bridge(ports=[top]) for one, top in enumerate(tops[at : at + BRIDGES])}
        window = keys.Window(size=256 * MIB * len(bridges), targets=list(bridges))
        power = len(bridges) & (len(bridges) - 1) == 0
        hosts[f"h{number}"] = keys.Host(bridges=bridges, windows=[window] if power else [])
    return keys.Topology(devices=devices, switches=switches, hosts=hosts)


class Empty:
    """An object with room for a field."""

    __slots__ = ("data", "field")


def floor(count: int) -> float:
    """CPU seconds of the least there is to do for `count` devices, and a port above each."""
    image, kept = bytes(IMAGE), []
    start = time.process_time()
    for _ in range(2 * count):
        data = bytearray(image)
        blocks = []
        for _ in range(BLOCKS):
            block = Empty()
            block.data = data
            blocks.append(block)
        for at in range(FIELDS):
            blocks[at % BLOCKS].field = at
        kept.append(blocks)
    return time.process_time() - start


def resident() -> int:
    """Bytes of memory that this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(count: int) -> dict[str, float]:
    with Fabric(tree(1)) as fabric:  # what is made once, however many devices there are
        fabric.hosts["h0"].boot().listing(verbose=2)
    gc.collect()
    least = floor(count)
    gc.collect()
    before, marks = resident(), [time.process_time()]
    with Fabric(tree(count)) as fabric:
        for host in fabric.hosts.values():
            _ = host.machine
        marks.append(time.process_time())
        systems = [host.boot() for host in fabric.hosts.values()]
        marks.append(time.process_time())
        seen = sum(len(system.memdevs) for system in systems)
        for system in systems:
            system.listing(verbose=2)
        marks.append(time.process_time())
        grown, files = resident() - before, len(list(Path("/proc/self/fd").iterdir()))
        if seen != count:
            raise SystemExit(f"{seen} of {count} devices were found: {systems[0].problems[:3]}")
        reads = 0
        start = time.process_time()
        for system in systems:
            for node in system.nodes():
                node.config.read(0)
                reads += 1
        read = (time.process_time() - start) / reads
    build, boot, listed = (end - start for start, end in pairwise(marks))
    return {
        "devices": count,
        "build s": round(build, 3),
        "enumerate s": round(boot, 3),
        "list s": round(listed, 3),
        "all s": round(marks[-1] - marks[0], 3),
        "ms/device": round(1000 * (marks[-1] - marks[0]) / count, 3),
        "ratio to floor": round((marks[-1] - marks[0]) / least, 1),
        "KiB/device": round(grown / count / 1024, 1),
        "config read us": round(1e6 * read, 2),
        "files open": files,
    }


def apart(count: int, out: Connection) -> None:
    out.send(measure(count))


def rows(sizes: list[int]) -> list[dict[str, float]]:
    """A row a size, each from a new process."""
    found: list[dict[str, float]] = []
    context = multiprocessing.get_context("spawn")
    for count in sizes:
        ours, theirs = context.Pipe()
        process = context.Process(target=apart, args=(count, theirs))
        process.start()
        theirs.close()
        try:
            row = ours.recv()
        except EOFError:
            raise SystemExit(f"{count} devices could not be measured") from None
        process.join()
        for cost in ("ms/device", "KiB/device"):
            first = found[0][cost] if found else row[cost]
            row[f"{cost} to the first"] = round(row[cost] / first, 2)
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, nargs="+", default=SIZES)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = rows(given.devices)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    heads = list(found[0])
    cells = [heads, *([f"{row[head]:g}" for head in heads] for row in found)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(heads))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    main()
