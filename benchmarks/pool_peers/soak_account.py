"""What came of the counter and of the calls of `pool_soak.py`, by what its clients and workers have written down."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pool_peers import soak_log

LINE = np.dtype([("what", "S1"), ("client", "u1"), ("block", "<u2"), ("sequence", "<u8")])
Array = np.ndarray[Any, Any]


class Account:
    """The lines of all logs."""

    def __init__(self, clients: Iterable[Path], workers: Iterable[Path]) -> None:
        self.clients = joined(clients)
        self.workers = joined(workers)

    def count(self, what: bytes) -> int:
        """How many lines of a kind the clients have written."""
        return int(np.count_nonzero(self.clients["what"] == what))

    def sum(self, what: bytes) -> int:
        """How much these lines tell of."""
        return int(self.clients["sequence"][self.clients["what"] == what].sum())

    def answered(self) -> int:
        """How many calls were answered."""
        return self.count(soak_log.COUNTED) + self.sum(soak_log.DIGESTED)

    def calls(self, what: bytes) -> Array:
        """Clients' numbers and their calls', in one word each, of the lines of a kind."""
        lines = self.workers if what == soak_log.RAN else self.clients
        found = lines[lines["what"] == what]
        return found["client"].astype(np.uint64) << np.uint64(48) | found["sequence"]

    def added(self, found: int) -> list[str]:
        """What is wrong about the counter that clients add to themselves."""
        begun, done = self.sum(soak_log.ADDING), self.sum(soak_log.ADDED)
        if done <= found <= begun:
            return []
        return [f"the counter is {found}: {done} additions were acknowledged, {begun} begun"]

    def counted(self, found: int) -> list[str]:
        """What is wrong about the calls that are done once at most; `found` says how many were done."""
        begun, answered, unserved, ran = map(
            self.calls, (soak_log.COUNTING, soak_log.COUNTED, soak_log.UNSERVED, soak_log.RAN)
        )
        lost = len(begun) - len(answered) - len(unserved)
        wrong = [
            told(ran[np.isin(ran, repeated(ran))], "runs of calls that were run more than once"),
            told(answered[~np.isin(answered, ran)], "calls were answered and not run"),
            told(
                unserved[np.isin(unserved, ran)],
                "calls were run, and their callers told that nobody serves",
            ),
            told(ran[~np.isin(ran, begun)], "calls were run that nobody had made"),
        ]
        if not len(answered) <= found <= len(answered) + lost:
            wrong.append(
                f"{found} calls were done, {len(answered)} answered, and of {lost} more it is not known: "
                "their workers or their callers died over them, or they were given up"
            )
        return [one for one in wrong if one]


def joined(paths: Iterable[Path]) -> Array:
    """The whole lines of some logs."""
    found = [
        np.frombuffer(data[: len(data) // LINE.itemsize * LINE.itemsize], LINE)
        for data in map(Path.read_bytes, paths)
    ]
    return np.concatenate(found) if found else np.zeros(0, LINE)


def repeated(calls: Array) -> Array:
    """Those that are there more than once."""
    one, times = np.unique(calls, return_counts=True)
    return one[times > 1]


def told(calls: Array, what: str) -> str:
    """How many, and the first of them; nothing where there is none."""
    if not len(calls):
        return ""
    return f"{len(calls)} {what}, {int(calls[0]) & 0xFFFFFFFFFFFF} of client {int(calls[0]) >> 48} among them"
