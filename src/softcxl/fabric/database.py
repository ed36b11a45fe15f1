"""The file in which a fabric's state rests: one SQLite database in the `state` folder, one server at a time.

Without a folder it is in memory, and everything above works alike. Its messages say which file, and what to do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from softcxl.fabric.errors import StateUnusable, StateUnwritable

FILE: Final = "fabric.db"
LOCK: Final = "fabric.lock"
VERSION: Final = 1
"""Of the schema below. A newer file is refused, not guessed at; an older one is brought here by whoever changes it."""

_APPLICATION: Final = 0x53435845  # "SCXE": what `file` and SQLite know the file by
_WAL_LIMIT: Final = 16 << 20  # bytes that the write-ahead log keeps on disk after it has been carried over

_SCHEMA: Final = """
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE TABLE virtual_switches (
    switch TEXT NOT NULL,
    vcs TEXT NOT NULL,
    PRIMARY KEY (switch, vcs)
) STRICT, WITHOUT ROWID;
CREATE TABLE bindings (
    switch TEXT NOT NULL,
    vcs TEXT NOT NULL,
    vppb INTEGER NOT NULL,
    port INTEGER NOT NULL,
    device TEXT,
    ld INTEGER NOT NULL,
    status TEXT NOT NULL,
    PRIMARY KEY (switch, vcs, vppb),
    UNIQUE (switch, port, ld),
    UNIQUE (device)
) STRICT, WITHOUT ROWID;
CREATE TABLE pages (
    device TEXT NOT NULL,
    section TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (device, section)
) STRICT, WITHOUT ROWID;
"""

Connection = sqlite3.Connection

FAULTS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite's functions raise; the second where a damaged name is in what it complains of."""


class Database:
    """The database in `folder`, or in memory for None. Safe from any thread; `close` it.

    Raises `StateUnusable` for a folder that another server uses or that cannot be written, and for a file that is
    damaged, locked by another program, made by a newer version, or no state of a fabric. It is left as it is then.
    """

    def __init__(self, folder: Path | None) -> None:
        self.path = folder / FILE if folder is not None else None
        self._lock = threading.RLock()
        self._depth = 0
        self._durable = True  # SQLite begins with synchronous=FULL
        self._ended: list[Callable[[bool], None]] = []
        self._held: int | None = None
        if folder is not None:
            self._held = _hold(folder)
        try:
            self.connection = self._opened()
        except BaseException:
            self._release()
            raise

    def __repr__(self) -> str:
        return f"<database {self.path or 'in memory'}>"

    def close(self) -> None:
        """Carry everything over into the one file and let go of the folder. Twice does no harm."""
        with self._lock:
            try:
                self.connection.close()
            except sqlite3.Error:
                pass  # what was committed is in the write-ahead log, whence the next one takes it
            self._release()

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[Connection]:
        """All of what is written within, or nothing; one within another one is a part of that.

        When one that is `durable` has ended it is on disk, with all before it; what others wrote outlives this
        process, but perhaps not the machine's power. Raises `StateUnwritable`, and then nothing of it is kept.
        """
        with self._lock:
            if self._depth:
                with self._nested():
                    yield self.connection
                return
            try:
                if durable != self._durable:
                    self.connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                    self._durable = durable
                self.connection.execute("BEGIN IMMEDIATE")
            except FAULTS as error:
                raise self._unwritable(error) from error
            done = False
            try:
                with self._nested():
                    yield self.connection
                self.connection.execute("COMMIT")
                done = True
            except FAULTS as error:
                raise self._unwritable(error) from error
            finally:
                if not done and self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                ended, self._ended = self._ended, []
                for one in ended:
                    one(done)

    def after(self, ended: Callable[[bool], None]) -> None:
        """Have `ended` called when the transaction under way has ended, with whether it was kept."""
        self._ended.append(ended)

    def rows(self, query: str, *given: object) -> list[tuple[Any, ...]]:
        """What a query finds. Raises `StateUnusable`."""
        with self._lock:
            try:
                return self.connection.execute(query, given).fetchall()
            except FAULTS as error:
                raise StateUnusable(f"{self.path or 'state in memory'}: {explained(error)}") from error

    @contextmanager
    def _nested(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def _unwritable(self, error: Exception) -> StateUnwritable:
        full = _name(error) in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
        return StateUnwritable(
            errno.ENOSPC if full else errno.EIO, explained(error), str(self.path or "state in memory")
        )

    def _opened(self) -> Connection:
        if self.path is None:
            connection = _connect(":memory:")
            connection.executescript(f"BEGIN; {_SCHEMA} COMMIT")
            return connection
        try:
            # Passphrases are in it: it is its owner's alone, and so are the files that SQLite puts beside it.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = _connect(str(self.path))
        except OSError as error:
            raise StateUnusable(f"{self.path}: cannot be written: {error.strerror}") from error
        except FAULTS as error:
            raise StateUnusable(f"{self.path}: {explained(error)}") from error
        try:
            check(connection, self.path)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT}")
            if not _version(connection):
                connection.executescript(
                    f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id={_APPLICATION};"
                    f"PRAGMA user_version={VERSION}; COMMIT"
                )
        except FAULTS as error:
            connection.close()
            raise StateUnusable(f"{self.path}: {explained(error)}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def verify(self) -> None:
        """Read all of it, as after a crash. Raises `StateUnusable` where it is damaged."""
        for (line,) in self.rows("PRAGMA quick_check(1)"):
            if line != "ok":
                raise StateUnusable(f"{self.path}: is damaged: {line}")

    def _release(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


def check(connection: Connection, path: Path) -> None:
    """Raise `StateUnusable` where the file is not what this version makes, or nothing yet."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = _version(connection)
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != _APPLICATION and (application or version or tables):
        raise StateUnusable(f"{path}: is a database of another program, not the state of a fabric")
    if version > VERSION:
        raise StateUnusable(
            f"{path}: has format {version}, and this version of SoftCXL reads {VERSION}; use the one that made it"
        )


def _connect(name: str) -> Connection:
    return sqlite3.connect(name, isolation_level=None, check_same_thread=False, timeout=5)


def _version(connection: Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _name(error: Exception) -> str:
    return str(getattr(error, "sqlite_errorname", ""))


def explained(error: Exception) -> str:
    """What SQLite complains of, as a part of a sentence."""
    name = _name(error)
    if isinstance(error, UnicodeDecodeError):
        return "is damaged: it has bytes that are no text"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "is locked by another program"
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return f"is damaged: {error}"
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return f"cannot be written: {error}"
    if name == "SQLITE_FULL":
        return "no room is left on the disk"
    return f"cannot be used: {error}"


def _hold(folder: Path) -> int:
    """Keep other servers off the folder, for as long as the descriptor that this returns is open."""
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateUnusable(f"state: {folder}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(held, 0)
        os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        who = os.pread(held, 32, 0).decode("ascii", "replace").strip()
        os.close(held)
        raise StateUnusable(
            f"state: {folder} is in use by another server{f' (process {who})' if who else ''}; "
            "one at a time can have a state folder"
        ) from None
    except OSError:
        pass  # a full disk: it is ours all the same, nobody learns our number
    return held
