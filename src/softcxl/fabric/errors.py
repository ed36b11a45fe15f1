"""What can go wrong above the devices, as one small tree.

    SoftCXLError             a sentence for the user; `exit_code` is what the command line returns for it
    ├── DocumentError        a file is wrong; `.problems` has each place and what is allowed
    │   ├── TopologyError    the topology
    │   └── ScenarioError    the scenario
    ├── BuildError           the topology is right, but could not be made live: a socket path in use, a full
    │                        disk, a user's device class that does not import
    │   └── StateUnusable    the state folder: in use, cannot be written, damaged, of a newer version
    ├── StateUnwritable      a change could not be kept, and so was not made; an `OSError` too
    ├── NoSuchHost           the topology has not the host that was asked for, or none at all
    ├── NotHere              a host has not what was named, or it has no place there
    └── ControlError         a server that is not there, or whose answer cannot be used

`softcxl.lab` hangs its own branches under `SoftCXLError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SoftCXLError(Exception):
    """Something the user can act on; `str(error)` says what was given, what is allowed and where."""

    exit_code = 1


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong in a topology or a scenario.

    `line` and `column` count from 1; both are 0 where a topology was made in Python and has no file.
    `path` is the place as a user would say it: `devices.mem0.volatile`, `hosts.alpha.windows[0].size`.
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class DocumentError(SoftCXLError):
    """A file that does not hold. `.problems` has every problem found, in the file's order."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(map(str, self.problems)))


class TopologyError(DocumentError):
    """A topology that does not hold."""


class ScenarioError(DocumentError):
    """A scenario that does not hold, by itself or over the topology it is for."""


class BuildError(SoftCXLError):
    """A valid topology that could not be made live; the message names the part and the cause."""


class StateUnusable(BuildError):
    """The state folder, or the file in it, cannot be used; the message says why. It is left as it is."""


class StateUnwritable(SoftCXLError, OSError):
    """A change cannot be kept: no room, or the disk fails. Nothing of it is kept, and it is not made."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class NoSuchHost(SoftCXLError):
    """The topology has not the host that was asked for, or none at all."""

    exit_code = 2


class NotHere(SoftCXLError):
    """A host has not what was named; the message says what there is."""


class ControlError(SoftCXLError):
    """No server answers at an address, or with what cannot be used."""

    exit_code = 3


SHOWN_PROBLEMS = 50
"""More problems than this are counted, not shown."""


def sentences(error: Exception) -> tuple[list[str], int] | None:
    """The lines that a user is told of an error, and the exit status; None for what is a bug of ours."""
    if any(base.__module__.partition(".")[0] == "softcxl" for base in type(error).__mro__):
        return _lines(error), int(getattr(error, "exit_code", 1))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return [f"softcxl: {where}{error.strerror or error}"], 1
    return None


def _lines(error: Exception) -> list[str]:
    """A sentence, or a line for each problem as editors expect it."""
    problems: Sequence[Problem] | None = getattr(error, "problems", None)
    if problems is None:
        return [f"softcxl: {error}"]
    lines = [str(problem) for problem in problems[:SHOWN_PROBLEMS]]
    count = len(problems)
    if count != 1:
        more = f", the first {SHOWN_PROBLEMS} of them shown" if count > SHOWN_PROBLEMS else ""
        lines.append(f"softcxl: {count} problems{more}")
    return lines
