"""Peers take turns: each has its server in a process of its own, and is asked in every round."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

from pool_peers.peer import Peer

WARM = 20
"""Requests ahead of those that are timed: the server has then come out of its sleep between two turns."""


class Served:
    """A peer whose server runs in a process of its own; it sleeps but for its turns."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.folder = tempfile.mkdtemp(prefix="softcxl-bench-")
        peer.prepare(self.folder)
        context = multiprocessing.get_context("fork")
        self.control, theirs = context.Pipe()
        self.process = context.Process(target=self._serve, args=(theirs,), daemon=True)
        self.process.start()

    def _serve(self, control: Connection) -> None:
        self.peer.listen()
        control.send(None)
        while (turn := control.recv()) is not None:
            self.peer.serve(*turn)
            control.send(None)

    def connect(self) -> None:
        """Not before all servers have been forked: what a client's library starts must not be forked with them."""
        self.control.recv()
        self.peer.connect()

    def pin(self, core: int) -> None:
        """Have all threads of the server run there."""
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})

    def turn(self, size: int, count: int, pause: float = 0.0) -> float:
        """Seconds that a round trip takes: of `count` back to back their mean, or, with a pause ahead of each so that
        the server has gone to sleep, their median."""
        request, ask = os.urandom(size), self.peer.ask
        self.control.send((count + WARM, size))
        for _ in range(WARM):
            if ask(request) != size:
                raise AssertionError(f"{self.peer.name}: an answer of another length")
        if not pause:
            start = time.perf_counter()
            self.peer.ask_often(request, count)
            spent = (time.perf_counter() - start) / count
        else:
            times = []
            for _ in range(count):
                time.sleep(pause)
                start = time.perf_counter()
                ask(request)
                times.append(time.perf_counter() - start)
            spent = statistics.median(times)
        self.control.recv()
        return spent

    def close(self) -> None:
        """End the server, if need be by force: a library's threads may keep it."""
        self.peer.close()
        self.control.send(None)
        self.process.join(2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        shutil.rmtree(self.folder, ignore_errors=True)


def serve(peers: Iterable[Peer], stack: ExitStack) -> list[Served]:
    """The servers of all peers, connected; they end with the stack."""
    served = []
    for peer in peers:
        one = Served(peer)
        stack.callback(one.close)
        served.append(one)
    for one in served:
        one.connect()
    return served


def rounds(
    served: list[Served], sizes: Iterable[int], count: int, seconds: float, pause: float = 0.0
) -> dict[tuple[str, int], list[float]]:
    """Seconds a round trip, by peer and size, one for each of `count` rounds in which all peers have their turn.

    A turn lasts about `seconds`: how many requests that is each peer shows in a turn of its own that does not count.
    """
    turns: list[tuple[Served, int, int]] = []
    for size in sizes:
        for one in served:
            if size in one.peer.sizes:
                trial = one.turn(size, 20, pause) + pause
                turns.append((one, size, max(10, round(seconds / trial))))
    found: dict[tuple[str, int], list[float]] = {(one.peer.name, size): [] for one, size, _ in turns}
    for _ in range(count):
        for one, size, requests in turns:
            found[one.peer.name, size].append(one.turn(size, requests, pause))
    return found


def placed(served: list[Served], apart: bool) -> Callable[[], None]:
    """Put the client on one processor, and the servers on another or on the same; returns what undoes it."""
    cores = sorted(os.sched_getaffinity(0))
    here, there = cores[0], cores[1 if apart and len(cores) > 1 else 0]
    for one in served:
        one.pin(there)
    os.sched_setaffinity(0, {here})
    return lambda: os.sched_setaffinity(0, cores)
