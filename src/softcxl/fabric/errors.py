"""What can go wrong above the devices, as one small tree.

    SoftCXLError             a sentence for the user; `exit_code` is what the command line returns for it
    ├── TopologyError        the topology file is wrong; `.problems` has each place and what is allowed
    └── BuildError           the topology is right, but could not be made live: a socket path in use, a full
                             disk, a user's device class that does not import

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
    """One thing that is wrong in a topology.

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


class TopologyError(SoftCXLError):
    """A topology that does not hold. `.problems` has every problem found, in the file's order."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(map(str, self.problems)))


class BuildError(SoftCXLError):
    """A valid topology that could not be made live; the message names the part and the cause."""
