"""The pool's Unix socket: by it programs on this machine come to the pool, and it tells when they have gone."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import select
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from softcxl.fm.pool.errors import Refusal
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.protocol import LARGEST, Head, Hello, Opcode, Status
from softcxl.transport.unix import Listener
from softcxl.wire import WireError

log = logging.getLogger(__name__)

_BACKLOG = 512
_PEER = struct.Struct("3i")
_NONE_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_AGAIN = 0.25  # seconds until it is looked whether there are descriptors again
_WAITING = 64  # requests of one client that wait for memory, at most


class PoolDoor:
    """Lets programs in at the Unix socket `path`, from `open` (or `with`) until `close`.

    Raises `DoorInUse` where a live server listens, `DoorError` where there can be no socket.
    """

    def __init__(self, server: PoolServer, path: Path) -> None:
        self.path = path
        self._server = server
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._poll = select.epoll()
        self._clients: dict[int, _Client] = {}
        self._full = ""
        """Why nobody is let in at the moment."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start to listen."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a client takes two
        self._listener = Listener(self.path, _BACKLOG, kind=socket.SOCK_SEQPACKET)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._listener.socket, select.EPOLLIN)
        self._poll.register(self._wake, select.EPOLLIN)
        self._server.tell("door", self._told)
        self._thread = threading.Thread(target=self._run, name=f"pool {self.path.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Clients keep what they have mapped; they come again to the next server."""
        if self._listener is None or self._thread is None:
            return
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._listener.close()
        self._listener = None
        for client in set(self._clients.values()):
            client.close()
        self._clients.clear()
        self._poll.close()
        os.close(self._wake)

    def _told(self) -> dict[str, object]:
        return {"path": str(self.path), "clients": len(self._clients) // 2, "full": self._full}

    def _run(self) -> None:
        assert self._listener is not None
        listening = self._listener.socket.fileno()
        while True:
            found = self._poll.poll(_AGAIN if self._full else None)
            # Who comes has the descriptors of who went: first what those say
            for fd, events in sorted(found, key=lambda one: one[0] == listening):
                if fd == self._wake:
                    return
                if fd == listening:
                    self._accept(self._listener.socket)
                    continue
                client = self._clients.get(fd)
                if client is None:
                    continue
                if fd == client.process:
                    self._gone(client, self._server.left)
                elif not events & select.EPOLLIN or not self._hear(client):
                    self._gone(client, self._server.hung_up)
            if self._full and not any(fd == listening for fd, _ in found):
                self._accept(self._listener.socket)

    def _accept(self, listener: socket.socket) -> None:
        connection = None
        try:
            spare = os.dup(self._wake)  # who is let in takes two
            try:
                connection, _ = listener.accept()
            finally:
                os.close(spare)
            connection.setblocking(False)
            pid = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0]
            client = _Client(connection, pid)
            # A connection lives as long as any process has it; what counts is the one that made it
            client.process = os.pidfd_open(pid)
        except OSError as error:
            if connection is not None:
                connection.close()
            if error.errno in _NONE_LEFT:
                self._shut(listener, error)
            elif error.errno in (errno.EAGAIN, errno.ECONNABORTED):
                self._reopen(listener)
            else:
                log.info("a client of the pool has gone before it was let in: %s", error)
            return
        self._reopen(listener)
        for fd in (connection.fileno(), client.process):
            self._clients[fd] = client
            self._poll.register(fd, select.EPOLLIN | select.EPOLLRDHUP)

    def _shut(self, listener: socket.socket, error: OSError) -> None:
        """Who comes waits outside until there are descriptors again."""
        if not self._full:
            self._full = error.strerror or str(error)
            self._poll.modify(listener, 0)
            log.warning("the pool's door lets nobody in until there is room: %s", self._full)
            self._server.event("door full", str(self.path), {"reason": self._full})

    def _reopen(self, listener: socket.socket) -> None:
        if self._full:
            self._full = ""
            self._poll.modify(listener, select.EPOLLIN)
            self._server.event("door open", str(self.path), {})

    def _hear(self, client: _Client) -> bool:
        """Answer what a client says. Returns whether it stays."""
        try:
            message = client.socket.recv(LARGEST + Head.__layout__.size + 1)
            if not message:
                return False
            head = Head.unpack_from(message)
            data = message[Head.__layout__.size :]
            if head.what == Opcode.HELLO:
                self._hello(client, head.number, data)
            elif client.waiting >= _WAITING:
                client.send(head.number, Status.BUSY, f"{_WAITING} requests of this client wait".encode())
            else:
                client.waiting += 1
                self._server.request(client.slot, head.what, data, partial(client.reply, head.number))
                if head.what == Opcode.GOODBYE:
                    client.slot = 0
        except (OSError, WireError) as error:
            log.info("a client of the pool is sent away: %s", error)
            return False
        except Exception:
            log.exception("a client of the pool is sent away; a bug of SoftCXL")
            return False
        return True

    def _hello(self, client: _Client, number: int, data: bytes) -> None:
        """Let a client in that says so. Raises `OSError` where it does not wait for the answer any more."""
        try:
            if client.slot:
                raise Refusal(Status.MALFORMED, "this client is in already")
            hello = Hello.unpack(data)
            welcome = self._server.attach(hello, client.pid)
        except Refusal as refusal:
            client.send(number, refusal.status, str(refusal).encode())
            return
        except WireError as error:
            client.send(number, Status.MALFORMED, str(error).encode())
            return
        files = [self._server.directory.fd, *(fd for _, fd in self._server.sources.files())]
        try:
            client.send(number, Status.OK, welcome.pack(), files)
        except OSError:
            if not hello.slot:  # nobody knows of it
                self._server.left(welcome.slot, welcome.epoch)
            elif all(other.slot != welcome.slot for other in self._clients.values()):
                self._server.out_of_sight(welcome.slot, welcome.epoch)
            raise
        for other in self._clients.values():
            if other.slot == welcome.slot:
                other.slot = 0  # it has come again: the end of its old connection says nothing
        client.slot, client.epoch = welcome.slot, welcome.epoch

    def _gone(self, client: _Client, say: Callable[[int, int], None]) -> None:
        for fd in (client.socket.fileno(), client.process):
            del self._clients[fd]
            self._poll.unregister(fd)
        client.close()
        if client.slot:
            try:
                say(client.slot, client.epoch)
            except Exception:
                log.exception("slot %d is not given back; a bug of SoftCXL", client.slot)


class _Client:
    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.socket = connection
        self.pid = pid
        self.process = -1
        self.slot = self.epoch = 0
        self.waiting = 0  # requests that are not answered yet
        self._lock = threading.Lock()
        self._closed = False

    def send(self, number: int, status: int, answer: bytes, files: Sequence[int] = ()) -> None:
        """Say something. Raises `OSError` to one that does not listen."""
        socket.send_fds(self.socket, [Head(what=status, number=number).pack() + answer], files)

    def reply(self, number: int, status: int, answer: bytes) -> None:
        """Answer a request, from any thread: its descriptor may be another's once this has been closed."""
        with self._lock:
            self.waiting -= 1
            if self._closed:
                return
            try:
                self.send(number, status, answer)
            except OSError as error:
                log.info("a client of the pool is sent away: %s", error)
                with contextlib.suppress(OSError):
                    self.socket.shutdown(socket.SHUT_RDWR)  # which the door hears

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self.socket.close()
            if self.process >= 0:
                os.close(self.process)


__all__ = ["PoolDoor"]
