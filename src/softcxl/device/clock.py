"""Time, as devices see it: passed in, so that tests turn it by hand and never sleep."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)


class Timer(Protocol):
    """Something that will happen; `cancel` makes it not happen, if it has not yet."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Seconds since an arbitrary start, and calls to be made later."""

    def now(self) -> float: ...

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer: ...


class _Pending:
    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class SystemClock:
    """The machine's monotonic clock. One daemon thread, started by the first timer, makes all calls."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._queue: list[tuple[float, int, _Pending]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def now(self) -> float:
        return time.monotonic()

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        pending = _Pending(self.now() + max(0.0, delay), call)
        with self._wake:
            if self._closed:
                return pending
            heapq.heappush(self._queue, (pending.due, next(self._order), pending))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="softcxl-clock", daemon=True)
                self._thread.start()
            self._wake.notify()
        return pending

    def close(self) -> None:
        """Stop the thread; timers that have not fired never will."""
        with self._wake:
            self._closed = True
            self._queue.clear()
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._closed and (not self._queue or self._queue[0][0] > self.now()):
                    self._wake.wait(self._queue[0][0] - self.now() if self._queue else None)
                if self._closed:
                    return
                call = heapq.heappop(self._queue)[2].call
            if call is not None:
                try:
                    call()
                except Exception:
                    log.exception("a timer's call failed")


class ManualClock:
    """A clock that only `advance` moves; it makes the calls that fall due, in order, in the caller's thread."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._queue: list[tuple[float, int, _Pending]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        pending = _Pending(self._now + max(0.0, delay), call)
        heapq.heappush(self._queue, (pending.due, next(self._order), pending))
        return pending

    @property
    def due(self) -> float | None:
        """When the next call falls due, None where there is none to come."""
        while self._queue and self._queue[0][2].call is None:
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    def advance(self, seconds: float) -> None:
        """Move time on by `seconds`."""
        until = self._now + seconds
        while self._queue and self._queue[0][0] <= until:
            due, _, pending = heapq.heappop(self._queue)
            self._now = due
            if pending.call is not None:
                pending.call()
        self._now = until

    def close(self) -> None:
        self._queue.clear()
