"""What a guest of `pool_soak.py` runs: clients, which it kills and starts again at random until all are to stop.

    python3 -m pool_peers.soak_guest FOLDER FIRST COUNT CLIENTS

FIRST is the number of its first client, COUNT how many it has, CLIENTS how many there are everywhere."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from pool_peers import soaking

PAUSE = (0.5, 6.0)
"""Seconds from one death to the next."""


class Supervisor:
    """The clients of one guest: its children, which need not load what it has loaded. An emulated processor takes more
    than ten seconds for that."""

    def __init__(self, folder: Path, first: int, count: int, clients: int) -> None:
        self.folder, self.clients = folder, clients
        self.killed = (folder / f"killed-{first}").open("ab", buffering=0)
        self.running = {number: self.start(number) for number in range(first, first + count)}

    def start(self, number: int) -> int:
        """Its process."""
        child = os.fork()
        if not child:
            status = 1
            try:
                status = soaking.run("client", "", self.folder, number, self.clients)
            except BaseException:  # noqa: BLE001  whatever it is, this is no supervisor
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        return child

    def run(self) -> int:
        """Until `stop` is there. Returns how many have found something wrong."""
        stop = self.folder / "stop"
        while not stop.exists():
            self.rest(random.uniform(*PAUSE), stop)
            working = [number for number in self.running if (self.folder / f"working-{number}").exists()]
            if working and not stop.exists() and not any(self.folder.glob("late-*")):
                self.replace(random.choice(working))
        wrong = sum(bool(os.waitpid(child, 0)[1]) for child in self.running.values())
        for number in self.running:
            name = f"client-{number}.log"
            shutil.copy(soaking.logs("", self.folder) / name, self.folder / name)
        return wrong

    @staticmethod
    def rest(seconds: float, stop: Path) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not stop.exists():
            time.sleep(0.25)

    def replace(self, number: int) -> None:
        """Kill one that works, and start it again; one that has found something wrong is let be."""
        child = self.running[number]
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for mark in ("late", "working"):
            (self.folder / f"{mark}-{number}").unlink(missing_ok=True)
        self.killed.write(b".")
        self.running[number] = self.start(number)


def main() -> int:
    return Supervisor(Path(sys.argv[1]), *map(int, sys.argv[2:])).run()


if __name__ == "__main__":
    sys.exit(main())
