"""What the clients and workers of `pool_soak.py` write down: what they are about to do first, and what came of it after
that, so that whoever comes after them knows what must be there.

Lines are records of a fixed size, appended in one call each: a process that is killed leaves whole ones."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

LINE = struct.Struct("<cBHQ")  # what, region or client, block, sequence
BEGUN, DONE = b"b", b"d"
ADDING, ADDED = b"a", b"A"
"""Additions to the counter; the sequence is how many."""
COUNTING, COUNTED, UNSERVED, LOST = b"c", b"C", b"u", b"l"
"""A call of what is done once at most: begun; answered; told that nobody serves it; told that its worker died."""
GIVEN_UP = b"g"
RAN = b"r"
"""A worker's, ahead of what it does."""
DIGESTED = b"D"
"""Calls of what may be done twice were answered; the sequence is how many."""


class Log:
    """The file that one appends to."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(self, what: bytes, region: int = 0, block: int = 0, sequence: int = 0) -> None:
        os.write(self._fd, LINE.pack(what, region, block, sequence))


def lines(path: Path) -> Iterator[tuple[bytes, int, int, int]]:
    """All that a log says, over all lives of its owner."""
    data = path.read_bytes() if path.exists() else b""
    return LINE.iter_unpack(data[: len(data) // LINE.size * LINE.size])


def history(path: Path) -> tuple[dict[tuple[int, int], tuple[int, int]], int]:
    """Of each block the last sequence that was acknowledged and the last that was begun, and the last call's number."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    last = 0
    for what, region, block, sequence in lines(path):
        if what == COUNTING:
            last = max(last, sequence)
            continue
        done, begun = found.get((region, block), (0, 0))
        if what == BEGUN:
            found[region, block] = done, sequence
        elif what == DONE:
            found[region, block] = sequence, begun
    return found, last
