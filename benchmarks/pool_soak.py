"""Does the pool lose anything, or stand still, when everything that may die does so at random, for as long as you like?

Six clients write, read, allocate, add to a counter and call two services, all at once: in turn, several calls at a
time, and some that they give up. Meanwhile, at random: clients and the services' workers are killed and come again,
memory devices die and come back, the server is killed and started again. Clients check all that they find against
what they and their predecessors had written down. A call that is neither answered nor told Lost or NoWorker in time is
wrong, and what its cell, the queue and the workers say is printed; as soon as one is late nobody else is killed, since
another one's death might mend it. At the end everything is checked once more, and that nothing has leaked. Exit
status 1 where anything was wrong.

With `--guests` that many Linux guests, 2 at most, have two more clients each, which are killed and come again there;
fewer work on the host, so that an emulated processor has its share, and the server lives on, since QEMU may not
outlive it (docs/howto/serve.md). It takes what `softcxl lab setup` fetches.

    python benchmarks/pool_soak.py [--minutes N] [--guests N] [--seed N] [--json]"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from pool_peers import soak_calls, soak_log, soaking
from pool_peers.served import SERVE
from pool_peers.soak_account import Account

import softcxl
from softcxl.pool.errors import NoWorker

DEVICES = 4
CLIENTS = 6
WORKERS = 2
BESIDE = 2
"""Clients of the host where there are guests."""
IN_GUEST = 2
"""Clients in each guest."""
BOOT = 400.0
"""Seconds that guests may take to come: the first time what they need is fetched."""
COUNTER = "soak counter"
COUNTERS = (COUNTER, soak_calls.COUNT)
PATIENCE = 60.0
"""Seconds that a copy may take to be made anew, or a process to end."""


class Soak:
    """A pool, its clients, and what befalls them."""

    def __init__(self, folder: Path, seed: int, guests: int) -> None:
        self.folder = folder
        self.guests = guests
        self.here = BESIDE if guests else CLIENTS
        self.clients = self.here + IN_GUEST * guests
        self.random = random.Random(seed)
        self.wrong: list[str] = []
        self.happened: Counter[str] = Counter()
        self.rebuilds: list[float] = []
        self.waiting: set[str] = set()
        names = [f"mem{number}" for number in range(DEVICES)]
        self.topology = folder / "soak.yaml"
        self.topology.write_text(json.dumps(self.described(names)))
        self.control = f"unix:{folder}/control"
        self.processes: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        self.start_server()

    def described(self, names: list[str]) -> dict[str, object]:
        """The topology. In a guest a client cannot be watched, and an emulated one is slow to say that it lives."""
        devices: dict[str, object] = {name: {"volatile": "256MiB"} for name in names}
        if not self.guests:
            return {"devices": devices, "pool": {"memory": names, "lease": "1s"}}
        ways = [f"way-{number}" for number in range(self.guests)]
        hosts = {
            f"guest-{number}": {"bridges": {"hb": {"ports": [way]}}, "memory": "768MiB"}
            for number, way in enumerate(ways)
        }
        devices |= {way: {"type": "pool-access"} for way in ways}
        return {
            "devices": devices,
            "hosts": hosts,
            "pool": {"memory": names, "lease": "20s", "arena": "64MiB"},
        }

    def begin(self) -> None:
        """What all share, and who works on it."""
        self.pool = softcxl.connect(self.address, name="soak")
        for number, copies in enumerate(soaking.REGIONS):
            self.pool.allocate(
                soaking.BLOCKS * self.clients * soaking.STRIDE, name=soaking.shared(number), replicas=copies
            ).close()
        for name in COUNTERS:
            self.pool.allocate(4096, name=name, replicas=2).close()
        for number in range(WORKERS):
            self.start("service", number)
        for name in (soak_calls.COUNT, soak_calls.DIGEST):
            self.await_service(name)
        self.boot()
        for number in range(self.here):
            self.start("client", number)

    def boot(self) -> None:
        """The guests, and wait for their clients."""
        if not self.guests:
            return
        there = Path(__file__).parent / "pool_peers"
        shutil.copytree(there, self.folder / there.name, ignore=shutil.ignore_patterns("__pycache__"))
        for number in range(self.guests):
            first = self.here + IN_GUEST * number
            inside = (
                f"cd /share && exec python3 -m pool_peers.soak_guest /share {first} {IN_GUEST} {self.clients}"
            )
            command = [sys.executable, "-c", SERVE, "vm", "run", self.control, "--host", f"guest-{number}"]
            words = ["--quiet", "--python", "--share", str(self.folder), "--", inside]
            with self.told(number).open("wb") as told:
                self.processes["guest", number] = subprocess.Popen(
                    [*command, *words], stdin=subprocess.DEVNULL, stdout=told, stderr=told
                )
        deadline = time.monotonic() + BOOT
        while len(list(self.folder.glob("working-*"))) < self.guests * IN_GUEST:
            if not self.alive() or time.monotonic() > deadline:
                told = [self.told(number).read_text() for number in range(self.guests)]
                raise SystemExit(f"pool_soak: the guests are not there: {told}")
            time.sleep(0.1)

    def told(self, guest: int) -> Path:
        """What the program prints that runs in a guest."""
        return self.folder / f"guest-{guest}.told"

    def start_server(self) -> None:
        command = [
            sys.executable,
            "-c",
            SERVE,
            "serve",
            str(self.topology),
            "--socket",
            self.control,
            "--json",
        ]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        if not line:
            raise SystemExit(f"pool_soak: the server ended with status {self.server.wait()}")
        self.address = json.loads(line)["pool"]

    def start(self, what: str, number: int) -> None:
        program = [sys.executable, "-m", soaking.__name__, what, self.address, str(self.folder)]
        if self.guests and what == "client":
            program = ["nice", "-n", "10", *program]  # an emulated processor is to come to something, too
        self.processes[what, number] = subprocess.Popen(
            [*program, str(number), str(self.clients)], cwd=Path(__file__).parent
        )

    def await_service(self, name: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.pool.client(name).functions()
            except NoWorker:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    # -- what happens ----------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Have things happen until the time is over, or something is wrong."""
        end = time.monotonic() + seconds
        server = self.nothing if self.guests else self.kill_server
        kinds = [self.kill_client, self.kill_service, self.fail_device, server]
        while time.monotonic() < end and self.alive():
            if self.late():
                time.sleep(0.1)
                continue
            (one,) = self.random.choices(kinds, (10, 3, 2, 1))
            one()
            time.sleep(self.random.uniform(0.05, 1.0))
        if (self.folder / "wrong").exists():
            self.look()

    def late(self) -> bool:
        """Whether some client waits for a call that ought to have been answered."""
        found = {path.name for path in self.folder.glob("late-*")}
        self.happened["late calls"] += len(found - self.waiting)
        self.waiting = found
        return bool(found)

    def look(self) -> None:
        """Have the workers write down where they are."""
        for (kind, number), one in self.processes.items():
            if kind == "service" and one.poll() is None:
                one.send_signal(signal.SIGUSR1)
                time.sleep(0.5)
                trace = (self.folder / f"service-{number}.trace").read_text()
                self.wrong.append(f"meanwhile service {number} was at\n{trace}")

    def alive(self) -> bool:
        """Whether all are well; clients that have found something wrong are not there any more."""
        gone = [
            f"{what} {number}" for (what, number), one in self.processes.items() if one.poll() is not None
        ]
        return not gone and not (self.folder / "wrong").exists()

    def kill(self, what: str, count: int) -> None:
        number = self.random.randrange(count)
        one = self.processes[what, number]
        if one.poll() is None:
            one.kill()
            one.wait()
            self.happened[f"{what}s killed"] += 1
            (self.folder / f"late-{number}").unlink(missing_ok=True)
            self.start(what, number)

    def kill_client(self) -> None:
        self.kill("client", self.here)

    def kill_service(self) -> None:
        self.kill("service", WORKERS)

    def nothing(self) -> None:
        """What befalls the server where guests hold on to it."""

    def kill_server(self) -> None:
        self.server.kill()
        self.server.wait()
        self.happened["servers killed"] += 1
        self.start_server()

    def fail_device(self) -> None:
        """A device dies; when every region has all its copies again, elsewhere, it comes back."""
        device = f"mem{self.random.randrange(DEVICES)}"
        self.inject(device, "die: silent")
        self.happened["devices failed"] += 1
        start = time.monotonic()
        while self.incomplete(device):
            if time.monotonic() - start > PATIENCE:
                self.wrong.append(f"{PATIENCE:g} s after {device} had died not all copies were there again")
                break
            time.sleep(0.05)
        self.rebuilds.append(time.monotonic() - start)
        self.inject(device, "reset: revive")

    def inject(self, device: str, step: str) -> None:
        scenario = self.folder / "scenario.yaml"
        scenario.write_text(f"device: {device}\nsteps:\n  - {step}\n")
        command = [sys.executable, "-c", SERVE, "inject", self.control, str(scenario)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.wrong.append(f"{step} of {device}: {done.stderr.strip()}")

    def incomplete(self, device: str) -> list[str]:
        """Named regions that have not all their copies on other devices."""
        gone = [one["number"] for one in self.pool.tell("sources") if one["name"] == device]
        return [
            one.name
            for one in self.pool.regions()
            if one.name and any(not copy.healthy or copy.source in gone for copy in one.copies)
        ]

    # -- the end ---------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """End all in order, and check what they leave."""
        for name, what in (("stop", "client"), ("stop", "guest"), ("halt", "service")):
            (self.folder / name).touch()
            for (kind, number), one in self.processes.items():
                if kind != what:
                    continue
                self.end(kind, number, one)
        self.account = Account(self.folder.glob("client-*.log"), self.folder.glob("service-*.log"))
        if all((self.folder / f"client-{number}.log").exists() for number in range(self.clients)):
            self.wrong += self.account.added(self.pool.open(COUNTER).load(0))
            self.wrong += self.account.counted(self.pool.open(soak_calls.COUNT).load(0))
        elif not self.wrong:
            self.wrong.append("a client has no log")  # else a guest has died, and its clients' logs with it
        self.check_leaks()
        self.pool.close()
        self.server.terminate()
        if self.server.wait(PATIENCE):
            self.wrong.append(f"the server ended with status {self.server.returncode}")
        told = self.folder / "wrong"
        if told.exists():
            self.wrong = told.read_text().splitlines() + self.wrong

    def end(self, kind: str, number: int, one: subprocess.Popen[bytes]) -> None:
        """Wait for one that ends by itself."""
        try:
            status = one.wait(PATIENCE if kind != "guest" else 2 * PATIENCE)
        except subprocess.TimeoutExpired:
            where = self.told(number) if kind == "guest" else self.folder / f"{kind}-{number}.trace"
            if kind != "guest":
                one.send_signal(signal.SIGUSR1)  # it writes down where it is
                with suppress(subprocess.TimeoutExpired):
                    one.wait(1)
            self.wrong.append(
                f"{kind} {number} has not ended after {PATIENCE:g} s; it is at\n{where.read_text()}"
            )
            stop(one)
            return
        if status:
            told = f": {self.told(number).read_text()}" if kind == "guest" else ""
            self.wrong.append(f"{kind} {number} ended with status {status}{told}")

    def check_leaks(self) -> None:
        """Once all is freed all memory is free; what the dead held is let go in the background."""
        for number in range(len(soaking.REGIONS)):
            self.pool.free(soaking.shared(number))
        for name in COUNTERS:
            self.pool.free(name)
        deadline = time.monotonic() + PATIENCE
        while True:
            used = {
                one["name"]: one["size"] - one["available"]
                for one in self.pool.tell("sources")
                if one["number"] and one["size"] != one["available"]
            }
            if not used:
                return
            if time.monotonic() > deadline:
                self.wrong.append(f"bytes that nobody has, and that are not free: {used}")
                return
            time.sleep(0.1)

    def report(self) -> dict[str, object]:
        """What was done, and what was wrong."""
        count = self.account.count
        slow = [
            (float(line.split()[0]), line.split()[1])
            for number in range(self.here)  # an emulated one is slow
            for line in (self.folder / f"client-{number}.slow").read_text().splitlines()
        ]
        if self.guests:
            paths = (self.folder / f"client-{number}.log" for number in range(self.here, self.clients))
            inside = Account([path for path in paths if path.exists()], [])  # none of a guest that has died
            self.happened["writes of guests"] = inside.count(soak_log.DONE)
            self.happened["additions of guests"] = inside.sum(soak_log.ADDED)
            self.happened["calls of guests"] = inside.answered()
            for kind in ("killed", "stale"):
                sizes = [path.stat().st_size for path in self.folder.glob(f"{kind}-*")]
                self.happened[f"clients of guests {kind}"] = sum(sizes)
        return {
            "writes": count(soak_log.DONE),
            "additions": self.account.sum(soak_log.ADDED),
            "calls": self.account.answered(),
            "calls lost": count(soak_log.LOST),
            "calls given up": count(soak_log.GIVEN_UP),
            **dict(sorted(self.happened.items())),
            "longest rebuild, s": round(max(self.rebuilds, default=0.0), 3),
            "operations over 0.1 s": dict(Counter(what for _, what in slow)),
            "longest operation, s": max(slow, default=(0.0, ""))[0],
            "wrong": self.wrong,
        }


def stop(one: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process: first by asking it, so that one that has a guest takes QEMU along."""
    one.terminate()
    with suppress(subprocess.TimeoutExpired):
        one.wait(10)
    one.kill()
    one.wait()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--guests", type=int, choices=(0, 1, 2), default=0, help="Linux guests with clients")
    parser.add_argument("--seed", type=int, default=None, help="what happens in which order; without it any")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    seed = int.from_bytes(os.urandom(4), "little") if given.seed is None else given.seed
    with tempfile.TemporaryDirectory(prefix="softcxl-soak-") as folder:
        soak = Soak(Path(folder), seed, given.guests)
        try:
            soak.begin()
            began = time.monotonic()
            with contextlib.suppress(KeyboardInterrupt):  # it is told how far it came
                soak.run(60 * given.minutes)
            minutes = round((time.monotonic() - began) / 60, 2)
            soak.finish()
            found = {"minutes": minutes, "seed": seed, **soak.report()}
        finally:
            for (kind, _), one in soak.processes.items():
                if kind != "guest":
                    one.kill()
            for one in [*soak.processes.values(), soak.server]:
                stop(one)
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in (found | {"wrong": "\n".join(["", *found["wrong"]]).rstrip()}).items():
            print(f"{name:<26}{value:,}" if isinstance(value, int) else f"{name:<26}{value or 'none'}")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
