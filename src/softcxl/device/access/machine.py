"""The process of a machine that has come by a connection, and whether it maps memory yet."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Self

Files = frozenset[tuple[int, int]]
"""Files by device and inode."""


def files(fds: list[int]) -> Files:
    """Which files these descriptors are of."""
    return frozenset((found.st_dev, found.st_ino) for found in map(os.fstat, fds))


class Machine:
    """The process `pid`, until `close`."""

    def __init__(self, pid: int, fd: int) -> None:
        self._pid = pid
        self._fd = fd

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """That process; None where it is this one, is unknown, or has gone."""
        if pid in (0, os.getpid()):
            return None
        try:
            return cls(pid, os.pidfd_open(pid))
        except OSError:
            return None

    def ended(self, seconds: float = 0) -> bool:
        """Whether it has ended, after waiting for that."""
        waiting = select.poll()
        waiting.register(self._fd, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def maps(self, wanted: Files) -> bool:
        """Whether it may reach these files by its memory: a process that is stopped does, whatever was taken from it.
        One that lives and cannot be looked at does."""
        if self.ended():
            return False
        try:
            lines = Path(f"/proc/{self._pid}/maps").read_text(errors="replace").splitlines()
        except OSError:
            return not self.ended()
        for line in lines:
            _, _, _, device, inode, *_ = line.split(maxsplit=5)  # proc(5)
            major, _, minor = device.partition(":")
            if (os.makedev(int(major, 16), int(minor, 16)), int(inode)) in wanted:
                return True
        return False

    def close(self) -> None:
        """Look no more."""
        os.close(self._fd)
