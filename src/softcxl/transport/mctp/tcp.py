"""MCTP over TCP, as existing fabric managers speak it: a stream of padded packets, see `softcxl.spec.mctp.tcp`."""

from __future__ import annotations

import errno
import logging
import select
import socket
from collections.abc import Callable, Mapping
from typing import Final, Self

from softcxl.spec.mctp.tcp import DEFAULT_PORT, PACKET_SIZE, PAYLOAD_SIZE
from softcxl.transport.errors import DoorError, DoorInUse
from softcxl.transport.mctp.cci import PREFIX_SIZE, Dialect
from softcxl.transport.mctp.conversation import Conversation
from softcxl.transport.mctp.errors import PacketError
from softcxl.transport.mctp.loop import Loop
from softcxl.transport.mctp.node import Node
from softcxl.transport.mctp.packet import Assembler, Fragmenter, Message
from softcxl.transport.mctp.port import Endpoint

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 256
"""Connections that a door serves at a time; one more is closed at once."""

MAX_MESSAGE: Final = PREFIX_SIZE + (1 << 20) + PAYLOAD_SIZE
"""Bytes of a message that a door takes, padding included: a payload as large as a mailbox's can be."""

_PADDING = PAYLOAD_SIZE - 1
_READ = 1 << 16
_BACKLOG = 128
_PAUSE = 1 << 18  # bytes that a peer has not taken, from which on its requests wait
_UNSENT_MAX = 4 << 20
_CLOSE_SECONDS = 10.0
_IN, _OUT, _GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR | select.EPOLLHUP


class MctpTcpDoor:
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
        self._connections: dict[int, _Connection] = {}
        self._loop: Loop | None = None
        self._listener: socket.socket | None = None

    def __repr__(self) -> str:
        return f"<MctpTcpDoor {self._place}>"

    @property
    def _place(self) -> str:
        return "{}:{}".format(*self.address)

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start to listen."""
        if self._loop is not None:
            raise DoorError(f"{self._place}: this door is open already")
        host, port = self.address
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except (OSError, OverflowError) as error:
            kind = DoorInUse if getattr(error, "errno", None) == errno.EADDRINUSE else DoorError
            says = getattr(error, "strerror", None) or error
            raise kind(f"{self._place}: cannot listen: {says}") from error
        listener.setblocking(False)
        self.address = listener.getsockname()[:2]
        self._listener = listener
        self._loop = Loop(f"MCTP {self._place}")
        self._loop.watch(listener.fileno(), _IN, self._accept)
        self._loop.start()

    def close(self) -> None:
        """Close all connections and stop listening. From any thread, and more than once.

        Raises `DoorError` where a command does not return within 10 seconds.
        """
        loop = self._loop
        if loop is None:
            return
        loop.post(self._shut)
        if not loop.stop(_CLOSE_SECONDS):
            raise DoorError(f"{self._place}: a command has not returned for {_CLOSE_SECONDS:.0f} s")
        self._loop = None

    def _shut(self) -> None:
        listener = self._listener
        assert listener is not None, "the door is open"
        assert self._loop is not None, "the door is open"
        self._loop.forget(listener.fileno())
        listener.close()
        for connection in list(self._connections.values()):
            connection.close()

    def _accept(self, events: int) -> None:
        listener, loop = self._listener, self._loop
        assert listener is not None, "the door is open"
        assert loop is not None, "the door is open"
        try:
            sock, peer = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it left before it was taken
        except OSError as error:
            log.warning("%s: cannot accept a connection: %s", self._place, error)
            fd = listener.fileno()
            loop.change(fd, 0)  # out of descriptors or memory: not again at once
            loop.later(0.1, lambda: loop.change(fd, _IN) if listener.fileno() == fd else None)
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            log.warning("%s: %d connections are here, no more can be", self._place, MAX_CONNECTIONS)
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fd = sock.fileno()
        name = "{}: {}:{}".format(self._place, *peer[:2])
        self._connections[fd] = _Connection(self, loop, sock, name, lambda: self._connections.pop(fd))


class _Connection:
    """One fabric manager's connection."""

    def __init__(
        self, door: MctpTcpDoor, loop: Loop, sock: socket.socket, name: str, gone: Callable[[], object]
    ) -> None:
        self._loop, self._sock, self._name, self._gone = loop, sock, name, gone
        self._fd = sock.fileno()
        self._recv, self._send = sock.recv, sock.send
        self._assembler = Assembler(MAX_MESSAGE, running=True)
        self._fragmenter = Fragmenter(PAYLOAD_SIZE, padded=True)
        self._conversation = Conversation(door.node, door.dialect, self, padding=_PADDING)
        self._rest = b""  # what has come and is not done yet
        self._packets: list[bytes] = []  # what is to be sent with the next send
        self._unsent = b""  # what the socket did not take
        self._queued = 0  # bytes of both
        self._events = _IN
        self._busy = self._ended = self._closed = False
        self.post = loop.post
        self.later = loop.later
        loop.watch(self._fd, _IN, self._ready)

    def _ready(self, events: int) -> None:
        if events & _OUT:
            self._flush()
        if events & _IN and self._events & _IN:
            self._read()
        elif events & _GONE:
            self.close()

    def _read(self) -> None:
        try:
            data = self._recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self._ended = True
            self._settle()
            return
        self._work(self._rest + data if self._rest else data)

    def _work(self, data: bytes) -> None:
        """Take packets, as long as the peer takes answers."""
        take, converse = self._assembler.take, self._conversation.take
        self._busy = True
        at, end = 0, len(data) - PACKET_SIZE
        try:
            while at <= end and self._queued < _PAUSE:
                message = take(data[at : at + PACKET_SIZE])
                at += PACKET_SIZE
                if message is not None:
                    converse(message)
        except PacketError as error:
            log.info("%s is closed: %s", self._name, error)
            self._ended, at = True, len(data)
        self._busy = False
        self._rest = data[at:]
        if self._packets:
            self._flush()
        else:
            self._settle()

    def transmit(self, message: Message) -> None:
        """As `Line.transmit`."""
        if self._closed or self._queued > _UNSENT_MAX:
            return
        packets = self._fragmenter.cut(message)
        self._packets += packets
        self._queued += len(packets) * PACKET_SIZE
        if not self._busy:
            self._flush()

    def _flush(self) -> None:
        """Send what there is, as far as the peer takes it: packets must arrive whole, so as few sends as can be."""
        data = b"".join((self._unsent, *self._packets)) if self._unsent else b"".join(self._packets)
        self._packets.clear()
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._unsent = data[sent:]
        self._queued = len(data) - sent
        if self._queued or self._events != _IN or self._rest or self._ended:
            self._settle()

    def _settle(self) -> None:
        """Wait for what has to happen next."""
        paused, unfinished = self._queued >= _PAUSE, len(self._rest) >= PACKET_SIZE
        if self._ended and not self._queued and not unfinished:
            self.close()
            return
        events = (_OUT if self._queued else 0) | (0 if paused or self._ended else _IN)
        if events != self._events:
            self._loop.change(self._fd, events)
            self._events = events
        if unfinished and not paused:
            self._loop.post(self._resume)

    def _resume(self) -> None:
        if not self._closed and len(self._rest) >= PACKET_SIZE:
            self._work(self._rest)

    def close(self) -> None:
        """End the connection; its command interfaces are closed."""
        if self._closed:
            return
        self._closed = True
        self._loop.forget(self._fd)
        self._gone()
        self._conversation.close()
        self._sock.close()
