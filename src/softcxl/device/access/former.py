"""Machines that came by a slot which is not there any more: an earlier server had it, under a name of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from softcxl.device.access.machine import Files, Machine, Remembered

log = logging.getLogger(__name__)


class FormerSlot:
    """The slot called `name` of an earlier server, of which the file `remembered` tells; that goes with the last of its
    machines. Raises `StateDamaged` where it cannot be read."""

    def __init__(self, name: str, remembered: Path) -> None:
        self.name = name
        self._path = remembered
        self._remembered = Remembered(remembered)
        self._files: Files = frozenset()
        self._lock = (
            threading.Lock()
        )  # several hosts' programs may be silent at once, each of a thread's to fence
        self._machines: list[tuple[str, Machine]] = []

    def recall(self, wanted: Files) -> Sequence[str]:
        """Count those of its machines that map one of these files yet; their hosts, sorted."""
        with self._lock:
            self._files = wanted
            for host, pid, began in self._remembered.all:
                if (machine := Machine.of(pid, began)) is not None:
                    self._machines.append((host, machine))
            self._look()
            return sorted({host for host, _ in self._machines})

    def reached_by(self, host: str) -> bool:
        """Whether a machine of that host may reach the memory yet."""
        with self._lock:
            if self._machines:
                self._look()
            return any(one == host for one, _ in self._machines)

    def close(self) -> None:
        """Look no more. What is not over the next server is told."""
        with self._lock:
            for _, machine in self._machines:
                machine.close()
            self._machines = []
        self._remembered.close()

    def _look(self) -> None:
        """With the lock held."""
        there, self._machines = self._machines, []
        for host, machine in there:
            if machine.maps(self._files):
                self._machines.append((host, machine))
            else:
                machine.close()
        if self._machines:
            self._remembered.keep(self._machines)
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s tells of nobody any more, and stays: %s", self._path, error.strerror)


__all__ = ["FormerSlot"]
