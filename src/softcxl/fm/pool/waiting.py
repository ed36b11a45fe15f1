"""Requests for memory that is on its way: each is tried again whenever some is free, and none holds up another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

Reply = Callable[[int, bytes], None]
"""Gives an answer to whoever asked: a status, and what he gets. From any thread."""

_LOOK = 0.2  # seconds from one look at who has waited for too long to the next


@dataclass(eq=False)
class Request:
    """One that waits, until a time of the monotonic clock: `attempt(last)` answers it and returns True, or returns
    False where it is to wait on; it must not where that is the last time."""

    attempt: Callable[[bool], bool]
    until: float


class Waiting:
    """Those that wait. `freed` is notified, with its lock (the server's) held, whenever memory is free."""

    def __init__(self, freed: threading.Condition, now: Callable[[], float]) -> None:
        self._freed = freed
        self._now = now
        self._all: list[Request] = []
        self._closing = False

    def add(self, attempt: Callable[[bool], bool], seconds: float) -> None:
        """Have one wait that has been tried now. With the server's lock held."""
        self._all.append(Request(attempt, self._now() + seconds))

    def run(self) -> None:
        """Try what waits, until `close`."""
        with self._freed:
            while not self._closing:
                there_is_some, now = self._freed.wait(_LOOK), self._now()
                self._all = [
                    one
                    for one in self._all
                    if not ((there_is_some or now >= one.until) and self._done(one, now >= one.until))
                ]

    def close(self) -> None:
        """End `run`. Who waits is not answered: the next server is asked again."""
        with self._freed:
            self._closing = True
            self._freed.notify_all()

    @staticmethod
    def _done(one: Request, last: bool) -> bool:
        try:
            return one.attempt(last)
        except Exception:
            log.exception("a request that waited")
            return True


__all__ = ["Reply", "Waiting"]
