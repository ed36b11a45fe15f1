"""The pool's Unix socket: by it programs on this machine come to the pool, and it tells when they have gone."""

from __future__ import annotations

import logging
import os
import resource
import select
import socket
import struct
import threading
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

    def _run(self) -> None:
        assert self._listener is not None
        listening = self._listener.socket.fileno()
        while True:
            found = self._poll.poll()
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
                if fd == client.process or not events & select.EPOLLIN or not self._hear(client):
                    self._gone(client)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            log.warning("a client of the pool could not come in: %s", error)
            return
        connection.setblocking(False)
        pid = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0]
        client = _Client(connection, pid)
        try:
            # A connection lives as long as any process has it; what counts is the one that made it
            client.process = os.pidfd_open(pid)
        except OSError as error:
            log.info("a client of the pool has gone before it was let in: %s", error)
            connection.close()
            return
        for fd in (connection.fileno(), client.process):
            self._clients[fd] = client
            self._poll.register(fd, select.EPOLLIN | select.EPOLLRDHUP)

    def _hear(self, client: _Client) -> bool:
        """Answer what a client says. Returns whether it stays."""
        try:
            message = client.socket.recv(LARGEST + Head.__layout__.size + 1)
            if not message:
                return False
            head = Head.unpack_from(message)
            data = message[Head.__layout__.size :]
            if head.what == Opcode.HELLO:
                status, answer, files = self._hello(client, data)
            else:
                files = []
                status, answer = self._server.execute(client.slot, head.what, data)
                if head.what == Opcode.GOODBYE:
                    client.slot = 0
            reply = Head(what=status, number=head.number).pack() + answer
            socket.send_fds(client.socket, [reply], files)
        except (OSError, WireError) as error:
            log.info("a client of the pool is sent away: %s", error)
            return False
        return True

    def _hello(self, client: _Client, data: bytes) -> tuple[int, bytes, list[int]]:
        if client.slot:
            return Status.MALFORMED, b"this client is in already", []
        try:
            hello = Hello.unpack(data)
            welcome = self._server.attach(hello, client.pid)
        except Refusal as refusal:
            return refusal.status, str(refusal).encode(), []
        except WireError as error:
            return Status.MALFORMED, str(error).encode(), []
        for other in self._clients.values():
            if other.slot == welcome.slot:
                other.slot = 0  # it has come again: the end of its old connection says nothing
        client.slot, client.epoch = welcome.slot, welcome.epoch
        files = [fd for _, fd in self._server.sources.files()]
        return Status.OK, welcome.pack(), [self._server.directory.fd, *files]

    def _gone(self, client: _Client) -> None:
        for fd in (client.socket.fileno(), client.process):
            del self._clients[fd]
            self._poll.unregister(fd)
        client.close()
        if client.slot:
            self._server.left(client.slot, client.epoch)


class _Client:
    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.socket = connection
        self.pid = pid
        self.process = -1
        self.slot = self.epoch = 0

    def close(self) -> None:
        self.socket.close()
        os.close(self.process)


__all__ = ["PoolDoor"]
