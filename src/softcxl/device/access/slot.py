"""A pool access device as a whole: the functions of one slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from softcxl.device.access.control import AccessControl
from softcxl.device.access.machine import Remembered, files
from softcxl.device.access.server import AccessServer, Memory
from softcxl.device.access.windows import Windows
from softcxl.pci.function import Function
from softcxl.spec.pool_access import BARS, ENTRY_NAME_SIZE, MOST_MEMORIES

_PAGE = 4096


class PoolAccess:
    """The pool access device called `name`: `control` is function 0, and there are more from the first time that a
    server is behind it (`serve`), as many as the server's memories take. Which machines come by it is written down in
    the file `remembered`, if there is one, for the server after this one. Raises `StateDamaged` where that file cannot
    be read.

    >>> door = PoolAccess("door")
    >>> door.functions
    {'door': <registers of door>}
    """

    def __init__(self, name: str, remembered: Path | None = None) -> None:
        self.name = name
        self.control = AccessControl(name, Remembered(remembered))
        self.windows: list[Windows] = []
        self._memories: list[Memory] = []
        self._stop: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<pool access {self.name}: {len(self.functions)} functions>"

    @property
    def functions(self) -> dict[str, Function]:
        """Its functions, by name and in the order of their numbers: `door`, `door.1` and so on."""
        return {self.name: self.control} | {one.name: one for one in self.windows}

    @property
    def host(self) -> str:
        """The host that comes by it; empty before one has."""
        return self.control.visitor.host

    @host.setter
    def host(self, host: str) -> None:
        self.control.visitor = replace(self.control.visitor, host=host)

    def reached_by(self, host: str) -> bool:
        """Whether a machine of that host, from which it was taken, may reach the memory yet: one that is stopped, and
        has not noticed."""
        return any(one.host == host for one in list(self.control.lingering))

    def recall(self) -> None:
        """Count those among them that had it of an earlier server, which was killed, and map the memory yet: once there
        is a server, and before there is a guest."""
        self.control.recall()

    def serve(self, server: AccessServer) -> None:
        """Answer for `server` from now on, until `leave`.

        A later server has the memories of the first one. Raises `ValueError` for one with others, with more than 21,
        or with one that cannot be mapped: whose size or place is no multiple of 4096, or whose name is too long.
        """
        memories = list(server.memories())
        self.leave()
        if self.windows:
            if [(one.source, one.size) for one in memories] != [
                (one.source, one.size) for one in self._memories
            ]:
                raise ValueError(
                    f"{self.name}: guests have mapped the memories of another server, which has others"
                )
            self.control.serve(server)
        else:
            _check(self.name, memories)
            count = len(BARS)
            self.windows = [
                Windows(f"{self.name}.{1 + at // count}", memories[at : at + count])
                for at in range(0, len(memories), count)
            ]
            self._memories = memories
            self.control.files = files([fd for one in self.windows for fd in one.fds])
            places = [(one, 1 + at // count, BARS[at % count]) for at, one in enumerate(memories)]
            self.control.serve(server, places)
        self._stop = server.listen(self.control.rung)

    def leave(self) -> None:
        """No server is behind it any more; memory that guests have mapped stays theirs. Twice does no harm."""
        self._stop()
        self._stop = lambda: None
        self.control.serve(None)

    def close(self) -> None:
        """Let go of the server and of the memories. No function may be attached."""
        self.leave()
        self.control.close()
        for one in self.windows:
            one.close()
        self.windows = []


def _check(name: str, memories: list[Memory]) -> None:
    if not 0 < len(memories) <= MOST_MEMORIES:
        raise ValueError(
            f"{name}: {len(memories)} memories; a slot shows at least 1 and at most {MOST_MEMORIES}"
        )
    for one in memories:
        if one.size <= 0 or one.size % _PAGE or one.offset % _PAGE:
            raise ValueError(
                f"{name}: {one.name} is {one.size:#x} bytes at {one.offset:#x} of its file; both are multiples of 4096"
            )
        if len(one.name.encode()) > ENTRY_NAME_SIZE:
            raise ValueError(f"{name}: the name {one.name!r} is longer than {ENTRY_NAME_SIZE} bytes of UTF-8")
