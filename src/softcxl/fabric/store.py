"""What must survive of a fabric: bindings and what devices remember, beside the journal of how it came to be.

A change is written before it is made and again when it is made; both times the journal has a row with it, in the same
transaction. What was begun and not made when a server died is undone by `recover`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from softcxl.device.persist import StateDamaged, StatePage
from softcxl.fabric.database import Database
from softcxl.fabric.journal import Journal

Status = Literal["binding", "bound", "unbinding"]
WHOLE: Final = -1
"""The LD of a binding to a whole port: an SLD, a switch, or nothing is in it."""


@dataclass(frozen=True, slots=True)
class Vppb:
    """A place that can be bound: the vPPB with that number of the virtual switch `vcs` of `switch`, by their names."""

    switch: str
    vcs: str
    vppb: int

    def __str__(self) -> str:
        return f"{self.switch}.{self.vcs}.{self.vppb}"


@dataclass(frozen=True, slots=True)
class Binding:
    """A vPPB bound to `port`, to the logical device `ld` of what is in it or to the `WHOLE`. `device` is the name of
    what that leads to, `pool.2` or `mem0`; None where nothing is there."""

    place: Vppb
    port: int
    device: str | None = None
    ld: int = WHOLE
    status: Status = "bound"

    @property
    def target(self) -> str:
        """What is bound, for people: `pool.2`, `mem0`, `port 3`."""
        return f"port {self.port}" if self.device is None else self.device

    def __str__(self) -> str:
        return f"{self.place} to {self.target}"


class Store:
    """The state of one fabric, in `folder` or in memory for None, and its `journal`. Safe from any thread.

    From the moment it is open nobody else can have the folder. Raises `StateUnusable` then, and `StateUnwritable`
    (an `OSError`) where a change cannot be kept: nothing of it is kept then, and it must not be made. `now` tells
    the time in nanoseconds since 1970.
    """

    def __init__(self, folder: Path | None = None, *, now: Callable[[], int] = time.time_ns) -> None:
        self._closed = False
        self.database = Database(folder)
        try:
            self.journal = Journal(self.database, now)
            last = self.database.rows(
                "SELECT kind FROM journal WHERE kind IN ('started', 'stopped') ORDER BY seq DESC LIMIT 1"
            )
            self.crashed = last == [("started",)]
            """Whether the last server died: it has not said that it stops."""
            if self.crashed:
                self.database.verify()
            with self.database.transaction():
                if self.crashed:
                    self.journal.add("crash-seen")
                self.journal.add("started")
        except BaseException:
            self.database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<store {self.database.path or 'in memory'}>"

    def close(self) -> None:
        """Say that it stops, and let go of the folder. Twice does no harm."""
        if self._closed:
            return
        self._closed = True
        try:
            self.journal.add("stopped", durable=True)
        except OSError:
            pass  # then the next one finds a crash, and reads everything
        self.journal.close()
        self.database.close()

    # -- bindings ------------------------------------------------------------------------------------------------

    def bindings(self, switch: str | None = None) -> list[Binding]:
        """All bindings, or a switch's, in order of their places."""
        return self._bindings("?1 IS NULL OR switch = ?1", switch)

    def binding(self, place: Vppb) -> Binding | None:
        """That of one place."""
        found = self._bindings("switch = ? AND vcs = ? AND vppb = ?", place.switch, place.vcs, place.vppb)
        return found[0] if found else None

    def _bindings(self, where: str, *given: object) -> list[Binding]:
        rows = self.database.rows(
            "SELECT switch, vcs, vppb, port, device, ld, status FROM bindings "
            f"WHERE {where} ORDER BY switch, vcs, vppb",
            *given,
        )
        return [Binding(Vppb(*row[:3]), *row[3:]) for row in rows]

    def begin(self, binding: Binding, **detail: Any) -> None:
        """A binding is about to be made. What stood for its place or its target before cannot be any more."""
        with self.database.transaction(durable=False):
            self._put(binding, "binding")
            self._note("binding-begun", binding, **detail)

    def made(self, binding: Binding, **detail: Any) -> None:
        """It was made."""
        with self.database.transaction():
            self._put(binding, "bound")
            self._note("binding-made", binding, **detail)

    def failed(self, binding: Binding, **detail: Any) -> None:
        """It was begun and could not be made."""
        with self.database.transaction():
            self._drop(binding.place)
            self._note("binding-failed", binding, **detail)

    def begin_undoing(self, binding: Binding, **detail: Any) -> None:
        """A binding is about to be taken back."""
        with self.database.transaction(durable=False):
            self._put(binding, "unbinding")
            self._note("unbinding-begun", binding, **detail)

    def undone(self, binding: Binding, **detail: Any) -> None:
        """It was taken back."""
        with self.database.transaction():
            self._drop(binding.place)
            self._note("unbinding-made", binding, **detail)

    def not_undone(self, binding: Binding, **detail: Any) -> None:
        """It was to be taken back, and stays."""
        with self.database.transaction():
            self._put(binding, "bound")
            self._note("unbinding-failed", binding, **detail)

    def recover(self) -> list[Binding]:
        """Undo what the last server had begun and not made: a binding is none, an unbinding leaves it bound.

        Returns what was undone, as it was.
        """
        unfinished = [one for one in self.bindings() if one.status != "bound"]
        if unfinished:
            with self.database.transaction():
                for one in unfinished:
                    if one.status == "binding":
                        self._drop(one.place)
                        self._note("binding-undone", one)
                    else:
                        self._put(one, "bound")
                        self._note("unbinding-undone", one)
        return unfinished

    def meet(self, switch: str, vcs: str) -> bool:
        """Whether this virtual switch is here for the first time: then what it is bound to is for others to say."""
        with self.database.transaction() as connection:
            done = connection.execute("INSERT OR IGNORE INTO virtual_switches VALUES (?, ?)", (switch, vcs))
            return done.rowcount == 1

    def _put(self, binding: Binding, status: Status) -> None:
        # REPLACE takes away rows with the same place, the same port and LD, or the same device: they are left of what
        # could not be restored, since a switch refuses to bind what is bound.
        place = binding.place
        self.database.connection.execute(
            "INSERT OR REPLACE INTO bindings VALUES (?, ?, ?, ?, ?, ?, ?)",
            (place.switch, place.vcs, place.vppb, binding.port, binding.device, binding.ld, status),
        )

    def _drop(self, place: Vppb) -> None:
        self.database.connection.execute(
            "DELETE FROM bindings WHERE switch = ? AND vcs = ? AND vppb = ?",
            (place.switch, place.vcs, place.vppb),
        )

    def _note(self, kind: str, binding: Binding, **detail: Any) -> None:
        self.journal.add(kind, str(binding.place), target=binding.target, port=binding.port, **detail)

    # -- what devices remember -----------------------------------------------------------------------------------

    def page(self, device: str, beside: Path | None = None) -> StatePage:
        """The page of the device with that name. One in the file `beside`, where earlier versions kept it, is taken
        over the first time. Raises `StateDamaged`."""
        return _Page(self.database, device, beside)


class _Page(StatePage):
    """A device's page in the database, a row for each section."""

    def __init__(self, database: Database, device: str, beside: Path | None) -> None:
        super().__init__()
        self._database, self._device = database, device
        self.where = f"{database.path or 'state in memory'}: {device}"
        rows = database.rows("SELECT section, content FROM pages WHERE device = ?", device)
        try:
            self._sections = {section: dict(json.loads(content)) for section, content in rows}
        except (ValueError, TypeError) as error:
            raise StateDamaged(f"{self.where}: not the state of a device: {error!r}") from error
        if rows or beside is None or not beside.exists():
            return
        found = StatePage(beside).sections
        with database.transaction():
            for section, content in found.items():
                self._keep(section, content)
        self._sections = found
        beside.unlink()

    def _keep(self, section: str, content: dict[str, Any]) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO pages VALUES (?, ?, ?)",
                (self._device, section, json.dumps(content, separators=(",", ":"))),
            )
