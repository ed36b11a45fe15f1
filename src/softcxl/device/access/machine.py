"""The process of a machine that has come by a connection, and whether it maps memory yet."""

from __future__ import annotations

import logging
import mmap
import os
import select
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal, Self

from softcxl.device.persist import StatePage

log = logging.getLogger(__name__)

_PAUSE, _LONGEST_PAUSE = 0.25, 10.0
"""Seconds until what could not be written is tried again: twice as many each time."""

Files = frozenset[tuple[int, int]]
"""Files by device and inode."""


def files(fds: list[int]) -> Files:
    """Which files these descriptors are of, as Linux names them where it says what a process maps: on btrfs that is
    another device than `fstat` says. Each is mapped here for a moment, to see it."""
    wanted = {os.fstat(fd).st_ino for fd in fds}
    with ExitStack() as mapped:
        for fd in fds:
            mapped.enter_context(mmap.mmap(fd, mmap.PAGESIZE, prot=mmap.PROT_READ))
        return frozenset(one for one in _mapped("self") if one[1] in wanted)


def _mapped(process: int | Literal["self"]) -> Iterator[tuple[int, int]]:
    """Device and inode of all that a process maps. Raises `OSError`."""
    for line in Path(f"/proc/{process}/maps").read_text(errors="replace").splitlines():
        _, _, _, device, inode, *_ = line.split(maxsplit=5)  # proc(5)
        major, _, minor = device.partition(":")
        yield os.makedev(int(major, 16), int(minor, 16)), int(inode)


class Machine:
    """The process `pid`, until `close`."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.began = _began(pid)
        """When, in clock ticks since the system did: another process may get its number."""
        self._fd = fd

    @classmethod
    def of(cls, pid: int, began: int | None = None) -> Self | None:
        """That process; None where it is this one, is unknown, has gone, or is another one than `began` then."""
        if pid in (0, os.getpid()):
            return None
        try:
            one = cls(pid, os.pidfd_open(pid))
        except (OSError, OverflowError):
            return None
        if began is not None and one.began != began:
            one.close()
            return None
        return one

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
            return any(one in wanted for one in _mapped(self.pid))
        except OSError:
            return not self.ended()

    def close(self) -> None:
        """Look no more."""
        os.close(self._fd)


class Remembered:
    """Which machines may reach memory: written down before they do, for whoever serves it after a kill. In the file
    `path`; without one it is forgotten with this process. What cannot be written, as the file system is full, is tried
    again until `close`. Raises `StateDamaged` for a file that cannot be read."""

    def __init__(self, path: Path | None = None) -> None:
        self._page = StatePage(path)
        self._lock = threading.Lock()
        self._now = self.all
        self._again: threading.Timer | None = None
        self._pause = 0.0  # until then; 0 while all is written down
        self._closed = False

    @property
    def all(self) -> list[tuple[str, int, int]]:
        """The host of each, its process, and when that began."""

        def read(section: dict[str, Any]) -> list[tuple[str, int, int]]:
            return [(str(host), int(pid), int(began)) for host, pid, began in section["all"]]

        return self._page.take("machines", read) or []

    def keep(self, found: Iterable[tuple[str, Machine]]) -> None:
        """These are all, with their hosts."""
        with self._lock:
            self._now = [(host, machine.pid, machine.began) for host, machine in found]
            self._write()

    def close(self) -> None:
        """Try nothing again."""
        with self._lock:
            self._closed = True
            again, self._again = self._again, None
        if again is not None:
            again.cancel()
            again.join()

    def _write(self) -> None:
        """With the lock held."""
        if self._now != self.all:
            try:
                with suppress(FileNotFoundError):  # the folder of a pool that has ended has gone
                    self._page.put("machines", all=[list(one) for one in self._now])
            except OSError as error:
                self._try_later(error)
                return
        if self._pause:
            self._pause = 0.0
            log.warning("which machines map memory is written down again: %s", self._page.where)

    def _try_later(self, error: OSError) -> None:
        if not self._pause:
            log.error("a server that is started anew will not know which machines map memory: %s", error)
        if self._again is None and not self._closed:
            self._pause = min(2 * self._pause or _PAUSE, _LONGEST_PAUSE)
            self._again = threading.Timer(self._pause, self._try_again)
            self._again.daemon = True
            self._again.start()

    def _try_again(self) -> None:
        with self._lock:
            if not self._closed:
                self._again = None
                self._write()


def _began(pid: int) -> int:
    """Field 22 of its stat (proc(5)); 0 where that cannot be seen."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return 0
