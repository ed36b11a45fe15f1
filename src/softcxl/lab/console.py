"""What the guest's kernel prints, and what can be told from it."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import IO

from softcxl.lab.errors import LabError

_PANIC = re.compile(rb"Kernel panic - not syncing: ([^\r\n]*)[\r\n]")
_PANIC_END = b"end Kernel panic"
_UNFIT = re.compile(rb"softcxl-unfit: ([^\r\n]*)[\r\n]")
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_c])")
_RING = 1 << 18
# enough for a line that comes in pieces
_RECENT = 1 << 10
_PANIC_PATIENCE = 2.0


class Console:
    """The serial console: the last 256 KiB in memory, all of it in a file if one is named.

    `changed` is notified whenever something was said that a waiting thread cares about.
    """

    def __init__(self, changed: threading.Condition, log: Path | None = None) -> None:
        """Raises LabError if `log` cannot be written."""
        self._changed = changed
        self._ring = bytearray()
        self._recent = bytearray()
        self._file: IO[bytes] | None = None
        self._panicked: float | None = None
        self._panic_ended = False
        self.panic: str | None = None
        self.unfit: str | None = None
        if log is not None:
            try:
                self._file = log.open("wb", buffering=0)
            except OSError as error:
                raise LabError(f"The console log {log} cannot be written: {error.strerror}.") from error

    def feed(self, data: bytes) -> None:
        """Take what came from the serial line."""
        with self._changed:
            self._ring += data
            self._recent += data
            if self._file is not None:
                try:
                    self._file.write(data)
                except OSError:
                    # a full disk must not take the guest along; the ring goes on
                    self._file.close()
                    self._file = None
            if self.panic is None and (panic := _PANIC.search(self._recent)):
                self.panic = panic[1].decode(errors="replace").strip()
                self._panicked = time.monotonic()
            self._panic_ended = self._panic_ended or (self.panic is not None and _PANIC_END in self._recent)
            if self.unfit is None and (unfit := _UNFIT.search(self._recent)):
                self.unfit = unfit[1].decode(errors="replace").strip()
            del self._ring[:-_RING]
            del self._recent[:-_RECENT]
            self._changed.notify_all()

    def panic_told(self) -> bool:
        """Whether a panic has been seen and its report has come to its end, or has taken too long to."""
        if self._panicked is None:
            return False
        return self._panic_ended or time.monotonic() - self._panicked > _PANIC_PATIENCE

    def forget(self) -> None:
        """Start anew, for a guest that was restarted. The text stays."""
        with self._changed:
            self._recent.clear()
            self._panicked = self.panic = self.unfit = None
            self._panic_ended = False

    def tail(self, lines: int = 40) -> str:
        """The last lines, without terminal escapes."""
        return "\n".join(self.text().splitlines()[-lines:])

    def text(self) -> str:
        """What is in memory, without terminal escapes."""
        with self._changed:
            raw = bytes(self._ring)
        return _ESCAPES.sub("", raw.decode(errors="replace").replace("\r\n", "\n")).replace("\r", "")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
