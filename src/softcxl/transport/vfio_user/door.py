"""A function's socket: listens, serves one client after another, closes cleanly."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from softcxl.transport.unix import Listener
from softcxl.transport.vfio_user.errors import DoorError
from softcxl.transport.vfio_user.framing import Channel, hang_up
from softcxl.transport.vfio_user.recording import Recorder, RecordingChannel
from softcxl.transport.vfio_user.session import MAX_MESSAGE, Session
from softcxl.transport.vfio_user.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from softcxl.transport.port import Port

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 10.0
_BACKLOG = 8


class Door:
    """Serves `port` to vfio-user clients at the Unix socket `path`, from `open` (or `with`) until `close`.

    One client at a time, on one thread of its own; a second one waits until the first has gone. Reconnecting
    is allowed, and the device keeps its state.

    `spin_us` is how many microseconds the thread looks for the next message before it sleeps: it saves a wake
    where a core is free, and takes that core. `record` names a file for a log of all messages (`recording`).
    `dma_timeout` is in seconds, for guest memory that takes messages. `traffic` counts. `left` is called on the door's
    thread whenever a client has gone.

    Raises `DoorInUse` where a live server listens at `path`, `DoorError` where `path` cannot be a socket. A
    socket that a dead server left is replaced. The socket's mode is 0600.
    """

    def __init__(
        self,
        port: Port,
        path: str | os.PathLike[str],
        *,
        spin_us: float = 0,
        record: str | os.PathLike[str] | None = None,
        dma_timeout: float = 2.0,
        left: Callable[[], None] | None = None,
    ) -> None:
        self.port = port
        self._left = left
        self.path = Path(path)
        self.traffic = Traffic()
        self._spin_us = spin_us
        self._record = record
        self._dma_timeout = dma_timeout
        self._recorder: Recorder | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closing = False
        self._session: Session | None = None
        self._listener: Listener | None = None
        self._wake = -1
        self._known_faults: set[tuple[object, ...]] = set()

    def __repr__(self) -> str:
        return f"<Door {self.path}>"

    @property
    def connected(self) -> bool:
        """Whether a client is here."""
        return self._session is not None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start to listen."""
        if self._thread is not None:
            raise DoorError(f"{self.path}: this door is open already")
        self._closing = False
        self._listener = Listener(self.path, _BACKLOG)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        if self._record is not None:
            self._recorder = Recorder(self._record)
        self._thread = threading.Thread(target=self._run, name=f"door {self.path.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send the client away, stop listening, remove the socket. From any thread, and more than once.

        Returns when the thread has ended; called by the port, on that thread, it only asks for it. Raises
        `DoorError` where the port does not return from a call within 10 seconds.
        """
        with self._lock:
            thread = self._thread
            if thread is None:
                return
            self._closing = True
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
            if self._session is not None:
                self._session.stop()
        if thread is threading.current_thread():
            return
        thread.join(_CLOSE_SECONDS)
        if thread.is_alive():
            raise DoorError(f"{self.path}: the port has not returned from a call for {_CLOSE_SECONDS:.0f} s")
        self._thread = None

    def _run(self) -> None:
        assert self._listener is not None
        try:
            while not self._closing:
                client = self._accept(self._listener.socket)
                if client is not None:
                    self._visit(client)
        finally:
            self._end()

    def _accept(self, listener: socket.socket) -> socket.socket | None:
        ready = select.poll()
        ready.register(listener, select.POLLIN)
        ready.register(self._wake, select.POLLIN)
        ready.poll()
        if self._closing:
            return None
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return None  # it left before it was taken
        except OSError as error:
            log.warning("%s: cannot accept a client: %s", self.path, error)
            ready.unregister(listener)
            ready.poll(100)  # out of descriptors or memory: not again at once
            return None
        client.setblocking(True)
        return client

    def _visit(self, client: socket.socket) -> None:
        self.traffic.connections += 1
        if self._recorder is None:
            channel = Channel(client, MAX_MESSAGE, self._spin_us)
        else:
            channel = RecordingChannel(client, MAX_MESSAGE, self._recorder, self._spin_us)
        session = Session(channel, self.port, self.traffic, self._dma_timeout, self._known_faults)
        with self._lock:
            self._session = session
            if self._closing:
                session.stop()
        try:
            session.serve()
        except Exception:
            log.exception("%s: this client's session failed; a bug of the door", self.path)
        finally:
            with self._lock:
                self._session = None
            if self._left is not None:
                self._left()

    @staticmethod
    def _turn_away(listener: socket.socket) -> None:
        """Hang up on those whom nobody has taken yet; no more come."""
        with suppress(OSError):  # there are none any more
            listener.shutdown(socket.SHUT_RDWR)
            while True:
                hang_up(listener.accept()[0])

    def _end(self) -> None:
        with self._lock:
            self._closing = True
            if self._listener is not None:
                self._turn_away(self._listener.socket)
                self._listener.close()
            self._listener = None
            os.close(self._wake)
            self._wake = -1
        if self._recorder is not None:
            self._recorder.close()
