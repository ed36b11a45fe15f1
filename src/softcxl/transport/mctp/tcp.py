"""MCTP over TCP, as existing fabric managers speak it: a stream of padded packets, see `softcxl.spec.mctp.tcp`."""

from __future__ import annotations

import errno
import logging
import select
import socket
from collections.abc import Mapping
from typing import Final

from softcxl.spec.mctp.tcp import DEFAULT_PORT, PACKET_SIZE, PAYLOAD_SIZE
from softcxl.transport.errors import DoorError, DoorInUse
from softcxl.transport.mctp.cci import Dialect
from softcxl.transport.mctp.door import LoopDoor
from softcxl.transport.mctp.loop import Loop
from softcxl.transport.mctp.node import Node
from softcxl.transport.mctp.packet import Fragmenter
from softcxl.transport.mctp.port import Endpoint
from softcxl.transport.mctp.stream import Stream

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 256
"""Connections that a door serves at a time; one more is closed at once."""

MAX_PORT: Final = 0xFFFF

_BACKLOG = 128


class MctpTcpDoor(LoopDoor):
    """Serves endpoints to fabric managers at a TCP port, from `open` (or `with`) until `close`.

    `endpoints` go by endpoint ID (8 to 254); the first one also answers to ID 0. Port 0 is any free one; `address`
    tells which. `dialect` is the layout of CXL's headers, which both sides have to agree on.

    All connections share one thread. Each has command interfaces of its own, and any number of requests under way; one
    that sends what is no packet is closed, and the others go on. Raises `DoorInUse` where somebody else listens,
    `DoorError` where nobody can.
    """

    def __init__(
        self,
        endpoints: Mapping[int, Endpoint] | Node,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        dialect: Dialect = Dialect.STANDARD,
    ) -> None:
        self.node = endpoints if isinstance(endpoints, Node) else Node(endpoints)
        self.address = (host, port)
        self.dialect = dialect
        self._connections: dict[int, Stream] = {}
        self._listener: socket.socket | None = None

    def __repr__(self) -> str:
        return f"<MctpTcpDoor {self.title}>"

    @property
    def title(self) -> str:
        return "{}:{}".format(*self.address)

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    def open(self) -> None:
        """Start to listen."""
        if self._loop is not None:
            raise DoorError(f"{self.title}: this door is open already")
        host, port = self.address
        if not 0 <= port <= MAX_PORT:
            raise DoorError(f"{self.title}: cannot listen: ports are 0 to {MAX_PORT}")
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            kind = DoorInUse if error.errno == errno.EADDRINUSE else DoorError
            raise kind(f"{self.title}: cannot listen: {error.strerror or error}") from error
        listener.setblocking(False)
        self.address = listener.getsockname()[:2]
        self._listener = listener
        self._loop = Loop(f"MCTP {self.title}")
        self._loop.watch(listener.fileno(), select.EPOLLIN, self._accept)
        self._loop.start()

    def _shut(self) -> None:
        listener = self._listener
        assert self._loop is not None, "the door is open"
        if listener is not None:
            self._loop.forget(listener.fileno())
            listener.close()
            self._listener = None
        for connection in list(self._connections.values()):
            connection.close()

    def _accept(self, events: int) -> None:
        listener, loop = self._listener, self._loop
        if listener is None or loop is None:
            return  # closed by a call before
        try:
            sock, peer = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it left before it was taken
        except OSError as error:
            log.warning("%s: cannot accept a connection: %s", self.title, error)
            fd = listener.fileno()
            loop.change(fd, 0)  # out of descriptors or memory: not again at once
            loop.later(0.1, lambda: loop.change(fd, select.EPOLLIN) if listener.fileno() == fd else None)
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            log.warning("%s: %d connections are here, no more can be", self.title, MAX_CONNECTIONS)
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fd = sock.fileno()
        self._connections[fd] = Stream(
            loop,
            fd,
            sock.recv,
            sock.send,
            sock.close,
            _Framing(),
            self.node,
            self.dialect,
            "{}: {}:{}".format(self.title, *peer[:2]),
            lambda: self._connections.pop(fd),
        )


class _Framing:
    """Packets of one size, one after the other."""

    running = True
    padding = PAYLOAD_SIZE - 1

    def __init__(self) -> None:
        self.frames = Fragmenter(PAYLOAD_SIZE, padded=True).cut

    def next(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        end = at + PACKET_SIZE
        return (None, at) if end > len(data) else (data[at:end], end)
