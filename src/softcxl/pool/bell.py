"""What wakes the thread that watches over a connection."""

from __future__ import annotations

import contextlib
import os
import threading


class Bell:
    """Wakes the thread that watches. Its descriptor is there for as long as anybody might ring it."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._process = os.getpid()
        self._lock = threading.RLock()  # finalizers ring, within a ring of the same thread too

    def ring(self) -> None:
        """Have the thread look now, rather than when its pause is over. In the child of a fork there is none."""
        if os.getpid() != self._process:
            return
        with self._lock, contextlib.suppress(BlockingIOError):
            if self.fd >= 0:
                os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        """Nobody waits by it any more."""
        # In the child of a fork another thread of the parent's may have the lock for ever
        with self._lock if os.getpid() == self._process else contextlib.nullcontext():
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()
