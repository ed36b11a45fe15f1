"""One thread that reads everything a guest says, so that no guest ever waits for us."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable

Sink = Callable[[bytes], None]
"""Takes what was read, in the pump's thread; empty bytes once, at the end. Must not block."""

_AT_ONCE = 1 << 16


class Pump:
    """Reads from any number of sockets and gives the bytes to their sinks."""

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name=f"pump {name}", daemon=True)

    def add(self, source: socket.socket, sink: Sink) -> None:
        """Read from `source` from now on. Only before `start`."""
        self._selector.register(source, selectors.EVENT_READ, sink)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading and wait for the thread; the sources stay open."""
        self._wake.send(b"x")
        if self._thread.is_alive():
            self._thread.join()
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if source is self._woken:
                    return
                try:
                    data = source.recv(_AT_ONCE, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if not data:
                    self._selector.unregister(source)
                key.data(data)
