"""How long a request and its reply take between guests, and between a guest and the host, through one pool.

The same program asks, and the same program answers, by two of the pool's rings, wherever they run; 64 bytes, back
to back, and with a pause ahead of each request so that both sides sleep. The peer is the same between two processes
of the host, and within a guest a Unix socket between two of its processes. Under TCG a guest's processor is
emulated, which is what most of the time goes into: the line on bulk says what a copy of the guest's own memory
costs there.

    python benchmarks/pool_guests.py [--json]"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from softcxl import Fabric, boot
from softcxl.cli.serve_pool import serve_pool
from softcxl.cli.work import shown
from softcxl.lab.guest import Guest
from softcxl.lab.setup import setup

TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB}
  way-a: {type: pool-access}
  way-b: {type: pool-access}
pool: {memory: [mem0], arena: 64MiB}
hosts:
  a: {bridges: {hb: {ports: [way-a]}}, memory: 768MiB}
  b: {bridges: {hb: {ports: [way-b]}}, memory: 768MiB}
"""
COUNT, SLEEPING = 2000, 100
PAUSE = 0.002

ANSWER = """
import sys, softcxl
name, count = sys.argv[1], int(sys.argv[2])
with softcxl.connect() as pool:
    come, go = pool.ring(name).consumer(), pool.ring(name + " back").producer()
    for _ in range(count):
        go.send(come.receive(120))
"""
ASK = """
import sys, time, statistics, softcxl
name, count, sleeping, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
data = bytes(64)
with softcxl.connect() as pool:
    go, come = pool.ring(name).producer(), pool.ring(name + " back").consumer()
    def ask():
        go.send(data)
        come.receive(120)
    ask()
    batches = []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(count // 10):
            ask()
        batches.append((time.perf_counter() - start) / (count // 10))
    single = []
    for _ in range(sleeping):
        time.sleep(pause)
        start = time.perf_counter()
        ask()
        single.append(time.perf_counter() - start)
print(1e6 * statistics.median(batches), 1e6 * statistics.median(single))
"""
SOCKET = """
import os, socket, sys, time, statistics
count, sleeping, pause = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
here, there = socket.socketpair()
if not os.fork():
    here.close()
    while data := there.recv(64):
        there.sendall(data)
    os._exit(0)
there.close()
data = bytes(64)
def ask():
    here.sendall(data)
    here.recv(64)
batches = []
for _ in range(10):
    start = time.perf_counter()
    for _ in range(count // 10):
        ask()
    batches.append((time.perf_counter() - start) / (count // 10))
single = []
for _ in range(sleeping):
    time.sleep(pause)
    start = time.perf_counter()
    ask()
    single.append(time.perf_counter() - start)
print(1e6 * statistics.median(batches), 1e6 * statistics.median(single))
"""
BULK = """
import statistics, time, softcxl
size = 32 << 20
source, target = bytearray(b"x") * size, bytearray(size)
into, out = memoryview(target), memoryview(source)
def copy():
    into[:] = out
with softcxl.connect() as pool, pool.allocate(size) as region:
    times = {}
    for _ in range(5):
        for name, each in (("copy", copy), ("read", lambda: region.read_into(0, target)),
                           ("write", lambda: region.write(0, source))):
            start = time.perf_counter()
            each()
            times.setdefault(name, []).append(time.perf_counter() - start)
    print(*(size / statistics.median(times[name]) / 1e9 for name in ("copy", "read", "write")))
"""


class Place:
    """Where a program runs: in a guest, or, without one, here."""

    def __init__(self, name: str, guest: Guest | None = None) -> None:
        self.name, self.guest = name, guest

    def run(self, program: str, *arguments: object) -> list[float]:
        """What the program prints."""
        words = [*map(str, arguments)]
        if self.guest is not None:
            command = shlex.join(["python3", "-c", program, *words])
            return [float(one) for one in self.guest.output(command, timeout=300).split()]
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
        )
        return [float(one) for one in done.stdout.split()]


def asked(asking: Place, answering: Place, name: str) -> dict[str, Any]:
    """µs of a round trip, back to back and asleep."""
    count = 1 + COUNT + SLEEPING
    thread = threading.Thread(target=answering.run, args=(ANSWER, name, count))
    thread.start()
    together, asleep = asking.run(ASK, name, COUNT, SLEEPING, PAUSE)
    thread.join()
    return {"what": f"{asking.name} asks {answering.name}", "back to back": together, "asleep": asleep}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="softcxl-bench-") as folder, ExitStack() as stack:
        topology = Path(folder) / "guests.yaml"
        topology.write_text(TOPOLOGY)
        fabric = stack.enter_context(Fabric.load(topology, serves=True))
        os.environ["SOFTCXL_POOL"] = stack.enter_context(serve_pool(fabric, Path(folder) / "control"))
        with shown() as progress:
            parts = setup(progress).parts()
            guests = {
                host: stack.enter_context(boot(fabric, host, parts=parts, python=True, progress=progress))
                for host in "ab"
            }
        here, one, other = Place("the host"), Place("guest a", guests["a"]), Place("guest b", guests["b"])
        another = Place("the host")
        rows = [
            asked(here, another, "host host"),
            asked(one, here, "guest host"),
            asked(here, one, "host guest"),
            asked(one, other, "guest guest"),
        ]
        for place in (here, one):
            together, asleep = place.run(SOCKET, "", COUNT, SLEEPING, PAUSE)
            what = f"a Unix socket within {place.name}"
            rows.append({"what": what, "back to back": together, "asleep": asleep})
        copy, read, write = one.run(BULK)
    bulk = {"copy of the guest's own memory": copy, "read of a region": read, "write of a region": write}
    if given.json:
        print(json.dumps({"round trips, µs": rows, "bulk in a guest, GB/s": bulk}, indent=2))
        return
    print(f"{'64 B and back, µs':<36}{'back to back':>14}{'both asleep':>14}")
    for row in rows:
        print(f"{row['what']:<36}{row['back to back']:>14.1f}{row['asleep']:>14.1f}")
    print()
    for what, speed in bulk.items():
        print(f"in a guest: {what:<32}{speed:>8.1f} GB/s{speed / copy:>8.2f}")


if __name__ == "__main__":
    main()
