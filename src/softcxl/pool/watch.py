"""The thread that watches for the server's death: it comes back to the next one, whoever else waits for that or not.

It shows that the client lives, too, and does what finalizers leave to it: they must not wait.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from softcxl.pool.bell import Bell
from softcxl.pool.errors import NoServer, PoolError

if TYPE_CHECKING:
    from softcxl.pool.calls import Calls

log = logging.getLogger(__name__)

_RETRY: Final = 0.1
"""Seconds after which a server that has gone is looked for; twice as many each time after that,"""
_RARELY: Final = 1.0
"""and so many at most."""
_SHORTEST: Final = 0.01
_JOIN: Final = 1.0
"""Seconds that who leaves waits for the thread: it may be busy with what somebody else has left to it."""


class Watch:
    """A client's thread, until its connection has ended or nobody has the client any more."""

    def __init__(self, calls: Calls) -> None:
        self.connection = calls.connection
        self._calls = calls
        self._bell = calls.connection.bell
        self._left_over: deque[Callable[[], object]] = deque()
        self._tries = 0
        self._thread = threading.Thread(
            target=_watch,
            args=(weakref.ref(self), self._bell),
            name=f"softcxl {self.connection.link.address}",
            daemon=True,
        )
        self._thread.start()

    def later(self, work: Callable[[], object]) -> None:
        """Have the thread do that, whatever `PoolError` comes of it: for finalizers, which must not wait."""
        if not self.connection.ended:
            self._left_over.append(work)
            self._bell.ring()

    def attend(self) -> float:
        """Show that the client lives, do what was left, and come back where the server has gone.

        Returns for how many seconds nothing is to be done but watch. Raises what `Connection.check` does.
        """
        connection = self.connection
        connection.beat()
        try:
            connection.try_back()
        except NoServer:
            pause = min(_RETRY * (1 << self._tries), _RARELY)
            self._tries = min(self._tries + 1, 8)
            return pause
        self._tries = 0
        for _ in range(self._calls.posted):
            if not self._tried(self._calls.settle):
                break  # nobody answers: later
        while self._left_over and not connection.ended:
            self._tried(self._left_over.popleft())
        return max(connection.mapping.mapped.lease / 4, _SHORTEST)

    @staticmethod
    def _tried(work: Callable[[], object]) -> bool:
        """Do that. Returns whether a server was there."""
        try:
            work()
        except NoServer:
            return False  # the next one hears what this client has when it comes back
        except PoolError as error:
            log.debug("left to the pool's thread: %s", error)
        return True

    def end(self) -> None:
        """The connection has ended: wait for the thread, unless it is this one."""
        self._bell.ring()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN)
            if not self._thread.is_alive():  # or else it is busy, and waits by that once more
                self._bell.close()

    def __del__(self) -> None:
        self._bell.ring()  # for the thread to end
        self.connection.link.close()


def _watch(whose: weakref.ref[Watch], bell: Bell) -> None:
    while True:
        one = whose()
        if one is None or one.connection.ended:
            return
        try:
            pause = one.attend()
        except PoolError:
            return  # whoever asks next is told
        link = one.connection.link
        gone, fd = link.gone(), link.fileno()
        del one, link
        waiting = select.poll()
        waiting.register(bell.fd, select.POLLIN)
        if not gone and fd >= 0:
            waiting.register(fd, select.POLLRDHUP)
        waiting.poll(pause * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(bell.fd)
