"""One thread that waits for many descriptors, timers, and calls from other threads.

asyncio does the same at two to three times the price of an event, and a fabric manager counts its commands a second.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)


class Timer:
    """A call that is to come."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """It does not come any more, and what it would have used is let go."""
        self.call = None


class Loop:
    """Runs on a thread of its own, from `start` until `stop`.

    `watch`, `change`, `forget` and `later` are for calls that it makes itself, and for whoever has not started it yet;
    `post` is for any thread, and what it has been given comes before whatever is read later: events before answers to
    commands that were sent after them. A call that fails is logged, and ends nothing.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._watched: dict[int, Callable[[int], None]] = {self._wake: self._woken}
        self._posted: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._is_woken = self._stopping = self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Stop once everything that was posted has been called; returns whether it has, within that time. On the
        loop's own thread this only asks for it."""
        self.post(self._stop)
        if self._thread is None:
            self._end()
            return True
        if self._thread is threading.current_thread():
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def ended(self) -> bool:
        """It has stopped, and calls nothing any more."""
        return self._closed

    def watch(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        """Call it with what has happened at `fd`, whenever one of `events` (of epoll) has."""
        self._watched[fd] = call
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Watch for other events."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Watch `fd` no more; before it is closed."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call it once, in that time."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def post(self, call: Callable[[], None]) -> None:
        """Call it once, soon. What is posted after `stop` is never called."""
        with self._lock:
            if self._closed:
                return
            self._posted.append(call)
            if not self._is_woken:
                self._is_woken = True
                os.eventfd_write(self._wake, 1)

    def _woken(self, events: int) -> None:
        with self._lock:
            os.eventfd_read(self._wake)
            self._is_woken = False
            calls = list(self._posted)
            self._posted.clear()
        for call in calls:
            self._guard(call)

    def _rank(self, ready: tuple[int, int]) -> bool:
        return ready[0] != self._wake

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        poll, watched, timers = self._epoll.poll, self._watched, self._timers
        try:
            while not self._stopping:
                timeout = max(0.0, timers[0][0] - time.monotonic()) if timers else None
                ready = poll(timeout)
                if len(ready) > 1:
                    ready.sort(key=self._rank)
                for fd, events in ready:
                    call = watched.get(fd)  # the call before may have forgotten it
                    if call is not None:
                        try:
                            call(events)
                        except Exception:
                            log.exception("%s: a call failed; a bug of the door", self._name)
                while timers and timers[0][0] <= time.monotonic():
                    due = heapq.heappop(timers)[2].call
                    if due is not None:
                        self._guard(due)
        finally:
            self._end()

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            log.exception("%s: a call failed; a bug of the door", self._name)

    def _end(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._posted.clear()
            self._timers.clear()
            self._watched.clear()
            self._epoll.close()
            os.close(self._wake)
