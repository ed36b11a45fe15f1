"""The server's end of a control socket."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from softcxl.transport.errors import DoorError
from softcxl.transport.unix import Listener

log = logging.getLogger(__name__)

MAX_REQUEST = 1 << 20
"""The longest line that a client may send, in bytes, its newline included."""

_MAX_CLIENTS = 128
_BACKLOG = 64
_CLOSE_SECONDS = 10.0


class Client:
    """Who has sent a request: for an answer that waits for something."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.leaving: list[Callable[[], None]] = []
        """Called once, when its connection has ended."""

    def gone(self) -> bool:
        """Whether nobody waits for the answer any more, or the door closes."""
        ended = select.poll()
        ended.register(self._connection, select.POLLRDHUP)
        return bool(ended.poll(0))


class Answerer(Protocol):
    """What a control door serves. Both methods return a line without its newline."""

    def answer(self, line: bytes, client: Client) -> tuple[bytes, bool]:
        """The answer to a request, and whether the connection goes on. Called from several threads."""

    def refuse(self, reason: str) -> bytes:
        """What a client is told whose line never was a request."""


class Door:
    """Serves `answerer` to clients at the Unix socket `path`, from `open` (or `with`) until `close`.

    Each client has a thread of its own, up to 128 at a time; one more is told so and sent away. A request is a line
    of at most `MAX_REQUEST` bytes. A client that sends a longer one, or leaves in the middle of one, loses its own
    connection and nothing else happens. Raises `DoorError` and `DoorInUse` as `softcxl.transport.unix.Listener`.
    """

    def __init__(self, answerer: Answerer, path: Path) -> None:
        self.path = path
        self._answerer = answerer
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._wake = -1

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start to listen."""
        self._listener = Listener(self.path, _BACKLOG)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=f"control {self.path.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and remove the socket; requests that are being worked on are done, and answered, first.

        Raises `DoorError` where one is not done within 10 seconds. More than once does no harm.
        """
        if self._listener is None or self._thread is None:
            return
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._listener.close()
        self._listener = None
        os.close(self._wake)
        with self._lock:
            clients = dict(self._clients)
        for client in clients:
            _shut(client, socket.SHUT_RD)  # no more requests; what is being answered still goes out
        for client, thread in clients.items():
            thread.join(_CLOSE_SECONDS)
            if thread.is_alive():
                _shut(client, socket.SHUT_RDWR)  # it may be one that does not read its answer
                thread.join(_CLOSE_SECONDS)
            if thread.is_alive():
                raise DoorError(f"{self.path}: a request has not been done for {2 * _CLOSE_SECONDS:.0f} s")

    def _run(self) -> None:
        assert self._listener is not None
        listener = self._listener.socket
        ready = select.poll()
        ready.register(listener, select.POLLIN)
        ready.register(self._wake, select.POLLIN)
        while True:
            if any(descriptor == self._wake for descriptor, _ in ready.poll()):
                return
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                continue  # it left before it was taken
            except OSError as error:
                log.warning("%s: cannot accept a client: %s", self.path, error)
                poll = select.poll()
                poll.register(self._wake, select.POLLIN)
                poll.poll(100)  # out of descriptors or memory: not again at once
                continue
            client.setblocking(True)
            self._welcome(client)

    def _welcome(self, client: socket.socket) -> None:
        with self._lock:
            full = len(self._clients) >= _MAX_CLIENTS
            if not full:
                thread = threading.Thread(
                    target=self._visit, args=(client,), name=f"control client {client.fileno()}", daemon=True
                )
                self._clients[client] = thread
                thread.start()
        if full:
            with client:
                _send(client, self._answerer.refuse(f"{_MAX_CLIENTS} clients are here, no more can be"))

    def _visit(self, client: socket.socket) -> None:
        try:
            self._serve(client)
        except OSError:
            pass  # it has gone, or we are closing: nobody is there to be told
        except Exception:
            log.exception("%s: this client's connection failed; a bug of the server", self.path)
        finally:
            with self._lock:
                del self._clients[client]
            client.close()

    def _serve(self, connection: socket.socket) -> None:
        client = Client(connection)
        try:
            self._converse(connection, client)
        finally:
            for tell in client.leaving:
                tell()

    def _converse(self, connection: socket.socket, client: Client) -> None:
        with connection.makefile("rb") as lines:
            while line := lines.readline(MAX_REQUEST):
                if not line.endswith(b"\n"):
                    if len(line) == MAX_REQUEST:
                        _send(connection, self._answerer.refuse(f"a request has at most {MAX_REQUEST} bytes"))
                    return  # else it left in the middle of a line
                answer, goes_on = self._answerer.answer(line, client)
                connection.sendall(answer + b"\n")
                if not goes_on:
                    return


def _send(client: socket.socket, line: bytes) -> None:
    """Send a last line, as far as it goes without waiting."""
    try:
        client.send(line + b"\n", socket.MSG_DONTWAIT)
    except OSError:
        pass


def _shut(client: socket.socket, how: int) -> None:
    try:
        client.shutdown(how)
    except OSError:
        pass  # it has gone already
