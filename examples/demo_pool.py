"""What `make demo-pool` shows: processes and guests share a pool of memory, and go on while it is broken under them.

The pool is that of pool.yaml, in a `softcxl serve` of its own. A process writes all the time, and so does a guest; both
call a service. A memory device dies, writers and workers of the service are killed, then the server. At the end every
write that was acknowledged is there, whole: checksums say so; and every call was answered, or its caller knows.
`--no-guests` does without Linux guests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from pool_calls import Caller, counted
from pool_map import SharedMap

import softcxl
from softcxl.cli.show import console as make_console
from softcxl.pool.errors import PoolError
from softcxl.pool.session import Pool

EXAMPLES = Path(__file__).parent
MIB = 1 << 20
BULK = 128 * MIB
BLOCKS, BLOCK = 64, 64 << 10
DIGEST = hashlib.sha256().digest_size
PATIENCE = 90.0
KILLED = 5
WORKERS = 2
BOOT = 240.0
"""Seconds that guests may take: the first time what they need is fetched."""
CLI = [sys.executable, "-c", "import sys; from softcxl.cli import main; sys.exit(main(sys.argv[1:]))"]

#: What a guest runs: it counts in the map that pool_map.py has, and calls the functions of pool_calls.py, as fast as it
#: can, until somebody says stop.
COUNTS = """
import sys; sys.path.insert(0, '/share')
import softcxl; from pool_map import SharedMap; from pool_calls import Caller
with softcxl.connect(name='map') as pool:
    shared, caller, count = SharedMap(pool, 'map'), Caller(pool), 0
    def over():
        global count
        if shared.get('stop') is not None:
            return True
        count += 1
        shared.put('count', str(count))
    caller.call(over, 60)
    print(count, caller)
"""
#: And the other one: it looks, and what it sees never goes back.
LOOKS = """
import sys; sys.path.insert(0, '/share')
import softcxl; from pool_map import SharedMap
with softcxl.connect(name='map') as pool:
    shared, seen, looks = SharedMap(pool, 'map'), 0, 0
    shared.put('looking', 'yes')
    while shared.get('stop') is None:
        found = int(shared.get('count') or 0)
        assert found >= seen, (found, seen)
        looks, seen = looks + 1, found
    print(looks, seen)
"""

console = make_console()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--no-guests", action="store_true", help="do without Linux guests")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="softcxl-demo-") as folder, ExitStack() as stack:
        try:
            return Demo(Path(folder), stack).show(guests=not given.no_guests)
        except (PoolError, OSError) as error:
            console.print(f"demo-pool: {error}", style="red", markup=False)
            return 1


class Demo:
    """The story, and how much of it was not as it should be."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.topology = Path(shutil.copy(EXAMPLES / "pool.yaml", folder))
        self.control = f"unix:{folder}/pool.sock"
        self.wrong = 0
        self.serve()
        stack.callback(self.end_server)

    def show(self, *, guests: bool) -> int:
        booting = self.boot() if guests else {}
        heading(
            "The pool",
            f"as {self.topology.name} describes it; softcxl serve has it, process {self.server.pid}",
        )
        with softcxl.connect(self.address, name="demo") as pool:
            self.command("pool", "stat")
            self.bulk(pool)
            writer = self.writer(pool)
            calls = self.service(pool)
            counting = self.come(pool, booting) if guests else False
            self.device(pool, writer)
            writer = self.killed(writer)
            if counting:
                self.guests(pool, booting, calls)
            self.restarted(pool, writer)
            self.called(pool, calls)
            self.command("pool", "list")
        console.print()
        self.verdict(not self.wrong, "nothing that was acknowledged is lost, and nothing is there by half")
        return 1 if self.wrong else 0

    # -- the story -----------------------------------------------------------------------------------------------

    def bulk(self, pool: Pool) -> None:
        heading(
            "Two processes", "one writes 128 MiB to two devices, the other reads them by the region's name"
        )
        data = os.urandom(MIB) * (BULK // MIB)
        with pool.allocate(BULK, name="bulk", replicas=2) as region:
            region.write(0, data)
            began = time.perf_counter()
            region.write(0, data)
            spent = time.perf_counter() - began
        console.print(f"this process: {2 * BULK / spent / 1e9:.1f} GB/s into both copies, {digest(data)}")
        read = "import sys, hashlib, softcxl; d = softcxl.connect().open('bulk').read(); "
        done = self.python(read + "print(hashlib.sha256(d).hexdigest()[:16])")
        self.verdict(done.strip() == digest(data), f"another process: {done.strip()}")

    def writer(self, pool: Pool) -> subprocess.Popen[str]:
        heading(
            "A writer",
            f"a process writes blocks of {BLOCK >> 10} KiB, each with its checksum, to two devices",
        )
        self.ledger = pool.allocate(BLOCKS * BLOCK, name="ledger", replicas=2, policy="pack")
        return self.start_writer()

    def service(self, pool: Pool) -> Calls:
        heading("A service", f"{WORKERS} processes serve the functions of pool_calls.py; this one calls them")
        counted(pool)
        self.workers = [self.start_worker() for _ in range(WORKERS)]
        calls = self.stack.enter_context(Calls(self.address))
        self.until(lambda: calls.caller.answered > 100 or calls.failed, "calls are answered")
        console.print("calls are answered, and go on while all that follows happens")
        return calls

    def device(self, pool: Pool, writer: subprocess.Popen[str]) -> None:
        source = self.ledger.info.copies[0].source
        (device,) = [one["name"] for one in pool.tell("sources") if one["number"] == source]
        heading(
            "A device dies", f"{device}, which has a copy of what is being written, and of the first 128 MiB"
        )
        scenario = self.folder / "dies.yaml"
        scenario.write_text(f"device: {device}\nsteps:\n  - die: silent\n")
        before = self.written()
        with self.watching(pool):
            self.command("inject", self.control, str(scenario))
            began = time.monotonic()
            self.until(lambda: self.complete(pool), "all copies are there again")
            console.print(
                f"all copies are there again, on other devices, {time.monotonic() - began:.1f} s later"
            )
        self.until(lambda: self.written() > before + 100, "the writer goes on")
        self.verdict(writer.poll() is None, f"{device} is gone; the writer has heard no error, and goes on")
        self.check()
        scenario.write_text(f"device: {device}\nsteps:\n  - reset: revive\n")
        self.command("inject", self.control, str(scenario))

    def killed(self, writer: subprocess.Popen[str]) -> subprocess.Popen[str]:
        heading(
            "A program is killed", f"SIGKILL for the writer, process {writer.pid}, in the middle of a write"
        )
        waited = 0.0
        for _ in range(KILLED):
            writer.kill()
            writer.wait()
            began = time.perf_counter()
            self.ledger.write(0, sealed(0))
            waited = max(waited, time.perf_counter() - began)
            self.check(quiet=True)
            writer = self.start_writer()
        self.verdict(
            True,
            f"{KILLED} writers were killed; each block is whole, and nobody waited: {1e3 * waited:.1f} ms",
        )
        for number in range(KILLED):
            worker = self.workers[number % WORKERS]
            worker.kill()
            worker.wait()
            self.workers[number % WORKERS] = self.start_worker()
        console.print(f"and {KILLED} workers of the service, one after the other, while calls go on")
        return writer

    def called(self, pool: Pool, calls: Calls) -> None:
        heading("The service", "what has come of the calls")
        answered, count, lost, wrong = calls.stop()
        self.verdict(not calls.failed, calls.failed or f"{answered} calls were answered")
        self.verdict(not wrong, "what can be done twice: each call was answered, and rightly")
        found = counted(pool).load(0)
        self.verdict(
            count <= found <= count + lost,
            f"what is to be done once: {count} were answered, {lost} were lost, and told so; {found} were done",
        )

    def restarted(self, pool: Pool, writer: subprocess.Popen[str]) -> None:
        heading("The server is killed", f"process {self.server.pid}; reads and writes need none")
        before = self.written()
        self.server.kill()
        self.server.wait()
        self.until(lambda: self.written() > before + 100, "the writer goes on without a server")
        self.serve()
        console.print(f"softcxl serve again: process {self.server.pid}")
        names = sorted(one.name for one in pool.regions() if one.name)
        self.verdict({"bulk", "ledger"} <= set(names), f"the same pool: {', '.join(names)}")
        writer.kill()
        writer.wait()
        self.check()
        data = pool.open("bulk").read()
        self.verdict(data == data[:MIB] * (BULK // MIB), f"and the first 128 MiB: {digest(data)}")

    def boot(self) -> dict[str, subprocess.Popen[str]]:
        """Two guests, which count and look while all else happens."""
        guests = {}
        for host, program in (("a", COUNTS), ("b", LOOKS)):
            command = [*CLI, "vm", "run", self.control, "--host", host, "--python", "--share", str(EXAMPLES)]
            told = (self.folder / f"guest-{host}").open("w+")
            self.stack.callback(told.close)
            guests[host] = subprocess.Popen(
                [*command, "--", "python3", "-c", program], stdout=subprocess.PIPE, stderr=told, text=True
            )
            self.stack.callback(end, guests[host])
        return guests

    def come(self, pool: Pool, booting: dict[str, subprocess.Popen[str]]) -> bool:
        """Wait for the guests; False where there will be none, which is said and is no failure."""
        heading(
            "Two Linux guests", "share the map of pool_map.py: a counts in it, b looks, each by a PCI device"
        )
        shared = SharedMap(pool, "map")
        deadline = time.monotonic() + BOOT
        while not (int(shared.get("count") or 0) and shared.get("looking")):
            gone = [host for host, guest in booting.items() if guest.poll() is not None]
            if gone or time.monotonic() > deadline:
                told = (self.folder / f"guest-{(gone or ['a'])[0]}").read_text().strip().splitlines()
                why = told[-1] if told else f"not there after {BOOT:g} s"
                console.print(f"no guests: {why}", style="yellow", markup=False)
                return False
            time.sleep(0.1)
        console.print("both are there; all that follows happens while they count and look")
        return True

    def guests(self, pool: Pool, booting: dict[str, subprocess.Popen[str]], calls: Calls) -> None:
        heading("The two guests", "what they have seen meanwhile")
        shared = SharedMap(pool, "map")
        shared.put("stop", "now")
        (counts, *called), looked = (self.said(host, guest) for host, guest in booting.items())
        found = shared.get("count")
        self.verdict(counts == found, f"guest a has counted to {counts}, and the host finds {found}")
        calls.others = [int(one) for one in called]
        self.verdict(calls.others[0] > 0, f"and {calls.others[0]} of its calls were answered")
        self.verdict(len(looked) == 2, f"guest b has looked {' '.join(looked[:1])} times: it never went back")

    def said(self, host: str, guest: subprocess.Popen[str]) -> list[str]:
        """What the program in a guest has printed, in words. Raises OSError with what it says where it failed."""
        words = guest.communicate(timeout=PATIENCE)[0].split()
        if guest.returncode or not words:
            told = (self.folder / f"guest-{host}").read_text().strip()
            raise OSError(f"the program in guest {host} has failed, with status {guest.returncode}:\n{told}")
        return words

    # -- means ---------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        self.server = subprocess.Popen(
            [*CLI, "serve", str(self.topology), "--socket", self.control, "--json"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        if not line:
            raise OSError("softcxl serve has not started; it says why above")
        self.address = os.environ["SOFTCXL_POOL"] = json.loads(line)["pool"]

    def end_server(self) -> None:
        self.server.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.server.wait(10)
        self.server.kill()

    def start_writer(self) -> subprocess.Popen[str]:
        before = self.written()
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(EXAMPLES)], text=True)
        self.stack.callback(end, writer)
        self.until(lambda: self.written() > before or writer.poll() is not None, "the writer writes")
        return writer

    def start_worker(self) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "pool_calls.py"), "serve"], stdout=subprocess.PIPE, text=True
        )
        self.stack.callback(end, worker)
        assert worker.stdout is not None
        if not worker.stdout.readline():
            raise OSError("a worker of the service has not started; it says why above")
        return worker

    def written(self) -> int:
        """How often somebody has written to it."""
        return self.ledger.info.writes

    def check(self, *, quiet: bool = False) -> None:
        """Every block is whole, by its own checksum."""
        blocks = [self.ledger.read(number * BLOCK, BLOCK) for number in range(BLOCKS)]
        bad = [number for number, block in enumerate(blocks) if any(block) and not whole(block)]
        if bad or not quiet:
            there = sum(map(any, blocks))
            self.verdict(not bad, f"{there} blocks read, each with the checksum that it should have")

    def complete(self, pool: Pool) -> bool:
        gone = [one["number"] for one in pool.tell("sources") if one["state"] != "healthy"]
        return all(
            copy.healthy and copy.source not in gone
            for one in pool.regions()
            if one.name
            for copy in one.copies
        )

    @contextmanager
    def watching(self, pool: Pool) -> Iterator[None]:
        """Say how far the rebuilding of copies is, whatever else is done."""
        over = threading.Event()

        def watch() -> None:
            said = -1
            while not over.wait(0.01):
                for one in pool.tell("rebuild")["rebuilding"]:
                    quarter = 4 * one["done"] // one["size"]
                    if quarter != said and one["name"] == "bulk":
                        said = quarter
                        what = f"{one['done'] >> 20} of {one['size'] >> 20} MiB onto {one['source']}"
                        console.print(f"[dim]rebuilding {one['name']}:[/] {what}")

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        yield
        over.set()
        thread.join()

    def until(self, good: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not good():
            if time.monotonic() > deadline:
                raise OSError(f"{PATIENCE:g} s, and not: {what}")
            time.sleep(0.01)

    def command(self, *words: str) -> None:
        """Run a command of ours, as a user would type it."""
        console.print(f"[dim]$[/] softcxl {' '.join(words)}", soft_wrap=True)
        done = subprocess.run([*CLI, *words], capture_output=True, text=True, check=False)
        console.print(done.stdout.rstrip(), markup=False)
        if done.returncode:
            self.verdict(False, done.stderr.strip())

    def python(self, program: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout

    def verdict(self, good: bool, what: str) -> None:
        self.wrong += not good
        console.print("[bold green]ok[/]    " if good else "[bold red]WRONG[/] ", end="")
        console.print(what, markup=False)


class Calls:
    """Calls that this process makes all the time, by a thread and a connection of its own."""

    def __init__(self, address: str) -> None:
        self.failed = ""
        self.others = [0, 0, 0, 0]
        self._over = threading.Event()
        self._pool = softcxl.connect(address, name="calls")
        self.caller = Caller(self._pool)
        self._thread = threading.Thread(target=self._call, daemon=True)

    def _call(self) -> None:
        try:
            self.caller.call(self._over.is_set, PATIENCE, 0.001)  # others are to have the processors, too
        except PoolError as error:
            self.failed = f"a call has failed: {error}"

    def stop(self) -> list[int]:
        """What they have come to, with those of others: see `Caller.account`."""
        self._over.set()
        self._thread.join(PATIENCE)
        return [mine + other for mine, other in zip(self.caller.account, self.others, strict=True)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._pool.close()


#: A process that writes blocks, one after the other, until it is killed.
WRITER = """
import sys; sys.path.insert(0, sys.argv[1])
from demo_pool import write
write()
"""


def write() -> None:
    """What the writer does."""
    count = 0
    with softcxl.connect(name="demo") as pool, pool.open("ledger") as ledger:
        while True:
            count += 1
            ledger.write(count % BLOCKS * BLOCK, sealed(count))


def sealed(number: int) -> bytes:
    """A block: its checksum, and bytes that are another block's in no other."""
    body = number.to_bytes(8, "little") * ((BLOCK - DIGEST) // 8)
    return hashlib.sha256(body).digest() + body


def whole(block: bytes) -> bool:
    """Whether a block's checksum is its own."""
    return hashlib.sha256(block[DIGEST:]).digest() == block[:DIGEST]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def heading(title: str, rest: str) -> None:
    console.print(f"\n[bold cyan]{title}[/] [dim]{rest}[/]")


if __name__ == "__main__":
    sys.exit(main())
