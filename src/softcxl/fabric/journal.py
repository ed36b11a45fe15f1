"""What happened to a fabric, in order: rows that are only ever added, numbered from 1 without a gap.

>>> from softcxl.fabric.store import Store
>>> with Store() as store:
...     for entry in store.journal.since(0):
...         print(entry.seq, entry.kind)
1 started
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from softcxl.fabric.database import FAULTS, FILE, Database, check, explained
from softcxl.fabric.errors import StateUnusable

KEPT: Final = 1_000_000
"""Rows that a file keeps, and `KEPT_IN_MEMORY` that a server without one does; the oldest go."""
KEPT_IN_MEMORY: Final = 10_000

_QUERY: Final = "SELECT seq, time, kind, subject, detail FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
_LARGEST: Final = (1 << 63) - 1  # number of a row that SQLite can have
_PART: Final = 256  # rows fetched at a time
_TRIM: Final = 1024  # rows added from one time that the oldest go to the next


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened: its number, when (nanoseconds since 1970, UTC), what, to what, and more about it."""

    seq: int
    time: int
    kind: str
    subject: str
    detail: dict[str, Any]

    def __str__(self) -> str:
        """As a line for people."""
        more = " ".join(f"{name}={_shown(one)}" for name, one in self.detail.items())
        return f"{self.seq:>6} {self.when} {self.kind:<18} {self.subject}{' ' if more else ''}{more}".rstrip()

    @property
    def when(self) -> str:
        """The time, UTC, to the microsecond, as ISO 8601 has it."""
        seconds, rest = divmod(self.time, 10**9)
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06}Z"

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "seq": self.seq,
            "time": self.when,
            "kind": self.kind,
            "subject": self.subject,
            "detail": self.detail,
        }


class Journal:
    """The journal in a database. `now` tells the time in nanoseconds since 1970. Safe from any thread."""

    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        self._database, self._now = database, now
        self._kept = KEPT if database.path is not None else KEPT_IN_MEMORY
        self._more = threading.Condition()
        self._closed = False
        self._next = self.last + 1
        self._told = self._next - 1

    @property
    def last(self) -> int:
        """The number of the last row, 0 where there is none."""
        return int(self._database.rows("SELECT coalesce(max(seq), 0) FROM journal")[0][0])

    def add(self, kind: str, subject: str = "", *, durable: bool = False, **detail: Any) -> int:
        """Note that something happened; `detail` are JSON values. Returns the row's number.

        Within a transaction it is kept with that, or not at all. Raises `StateUnwritable`.
        """
        with self._database.transaction(durable=durable) as connection:
            seq = self._next
            connection.execute(
                "INSERT INTO journal VALUES (?, ?, ?, ?, ?)",
                (seq, self._now(), kind, subject, json.dumps(detail, separators=(",", ":"))),
            )
            if seq % _TRIM == 0:
                connection.execute("DELETE FROM journal WHERE seq <= ?", (seq - self._kept,))
            self._next += 1

            def ended(kept: bool) -> None:
                if kept:
                    with self._more:
                        self._told = max(self._told, seq)
                        self._more.notify_all()
                else:
                    self._next = min(self._next, seq)

            self._database.after(ended)
            return seq

    def since(self, seq: int) -> Iterator[Entry]:
        """What has happened after the row `seq`, in order."""
        return _entries(lambda at: self._database.rows(_QUERY, at, _PART), seq)

    def wait(self, seq: int, seconds: float) -> bool:
        """Wait, so long at most, until there is a row after `seq`; whether there is. It ends when the journal does."""
        with self._more:
            self._more.wait_for(lambda: self._told > seq or self._closed, seconds)
            return self._told > seq

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._more:
            self._closed = True
            self._more.notify_all()


def read(folder: Path, seq: int = 0) -> list[Entry]:
    """The journal in a state folder after the row `seq`, whether a server has the folder or not; nothing is written.

    Empty where there is no state yet. Raises `StateUnusable`.
    """
    path = folder / FILE
    if not path.exists():
        return []
    try:
        with closing(_reader(path)) as connection:
            check(connection, path)
            if not connection.execute("PRAGMA user_version").fetchone()[0]:
                return []
            return list(
                _entries(lambda at: connection.execute(_QUERY, (at, _PART)).fetchall(), seq),
            )
    except FAULTS as error:
        raise StateUnusable(f"{path}: {explained(error)}") from error


def _reader(path: Path) -> sqlite3.Connection:
    name = f"file:{quote(str(path.absolute()))}"
    connection = sqlite3.connect(f"{name}?mode=ro", uri=True, timeout=5)
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        # A folder that cannot be written has no place for what readers and writers share: then there is no writer.
        connection.close()
        connection = sqlite3.connect(f"{name}?mode=ro&immutable=1", uri=True)
    return connection


def _entries(fetch: Callable[[int], Iterable[tuple[Any, ...]]], seq: int) -> Iterator[Entry]:
    seq = min(seq, _LARGEST)
    while True:
        part = list(fetch(seq))
        for number, time, kind, subject, detail in part:
            try:
                more = dict(json.loads(detail))
            except (ValueError, TypeError) as error:
                raise StateUnusable(f"journal: row {number} is damaged: {error}") from error
            yield Entry(number, time, kind, subject, more)
        if len(part) < _PART:
            return
        seq = part[-1][0]


def _shown(one: Any) -> str:
    return one if isinstance(one, str) and one and " " not in one else json.dumps(one, separators=(",", ":"))
