"""Messages on a socket: 16 bytes of header with file descriptors beside them, then the payload.

The header is read alone. Clients pipeline, and a descriptor comes with the first byte of its message: a read
across two messages would give it to the wrong one.
"""

from __future__ import annotations

import array
import os
import select
import socket
import time
from contextlib import suppress
from struct import Struct
from threading import Lock
from typing import TYPE_CHECKING

from softcxl.spec.vfio_user import Header, HeaderFlags, MessageType
from softcxl.transport.vfio_user.errors import Disconnected, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Frame = tuple[int, int, int, int, bytes, "Sequence[int] | None"]
"""Message id, command, flags, error, payload, descriptors (`NO_FDS` where there are none). The receiver owns
the descriptors; None says that there were more than `MAX_FDS`, and that they are closed already."""

HEADER = Struct("<HHIII")
HEADER_SIZE = Header.__layout__.size
TYPE = int(HeaderFlags.make(type=15))
REPLY = int(HeaderFlags.make(type=MessageType.REPLY))
NO_REPLY = int(HeaderFlags.make(no_reply=True))
ERROR = int(HeaderFlags.make(error=True))

NO_FDS: tuple[int, ...] = ()
MAX_FDS = 16
"""Descriptors taken in one message: as many as QEMU ever sends."""

_ANCILLARY = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
_CHUNK = 1 << 18
_PEER = Struct("3i")


class Channel:
    """One connection's messages. `receive` is for one thread at a time, `send` for any.

    `max_size` is the largest message taken, header included.
    """

    def __init__(self, sock: socket.socket, max_size: int, spin_us: float = 0) -> None:
        self.max_size = max_size
        self._socket = sock
        self._recvmsg = sock.recvmsg
        self._recv = sock.recv
        self._sendall = sock.sendall
        self._spin_ns = int(spin_us * 1000)
        self._sending = Lock()
        self._head = b""
        self._body = bytearray()
        self._fds: list[int] | None = []
        self._broken = False
        self._untouched = (
            not self._spin_ns
        )  # nothing of the next message is here, and nothing forbids to wait for it

    @property
    def process(self) -> int:
        """The process that has made the connection; 0 where that is not to be known."""
        try:
            said = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            return int(_PEER.unpack(said)[0])
        except OSError:
            return 0

    def receive(self, timeout: float | None = None) -> Frame:
        """The next message. Raises `Disconnected` at the end, `ProtocolError` for a header that makes no
        sense, and `TimeoutError` after `timeout` seconds; what had come by then is kept for the next call."""
        if timeout is not None:
            return self._receive_before(time.monotonic() + timeout)
        if not self._untouched:
            frame = self._receive_spinning() if self._spin_ns else None
            return frame or self._complete(0)
        try:
            head, ancillary, flags, _ = self._recvmsg(HEADER_SIZE, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise Disconnected(str(error)) from None
        if ancillary or flags or len(head) != HEADER_SIZE:
            self._took(head, ancillary, flags)
            return self._complete(0)
        ident, command, size, flags, error_code = HEADER.unpack(head)
        if HEADER_SIZE < size <= self.max_size and flags & TYPE <= REPLY:
            try:
                payload = self._recv(size - HEADER_SIZE)
            except OSError as error:
                raise Disconnected(str(error)) from None
            if len(payload) == size - HEADER_SIZE:
                return ident, command, flags, error_code, payload, NO_FDS
            self._body += payload
            if not payload:
                raise Disconnected("the client left in the middle of a message")
        self._head = head
        self._untouched = False
        return self._complete(0)

    def _complete(self, flags: int) -> Frame:
        """Go on with a message of which some bytes may be here. Raises `BlockingIOError` where `flags` say
        not to wait and more must come."""
        if self._broken:
            raise Disconnected("the connection had ended")
        try:
            while len(self._head) < HEADER_SIZE:
                self._took(
                    *self._recvmsg(
                        HEADER_SIZE - len(self._head), _ANCILLARY, flags | socket.MSG_CMSG_CLOEXEC
                    )[:3]
                )
            ident, command, size, message_flags, error = HEADER.unpack(self._head)
            self._check(command, size, message_flags)
            body = self._body
            while len(body) < size - HEADER_SIZE:
                chunk = self._recv(min(size - HEADER_SIZE - len(body), _CHUNK), flags)
                if not chunk:
                    raise Disconnected("the client left in the middle of a message")
                body += chunk
        except BlockingIOError:
            raise
        except OSError as failure:
            raise Disconnected(str(failure)) from None
        frame = ident, command, message_flags, error, bytes(body), NO_FDS if self._fds == [] else self._fds
        self._head, self._body, self._fds = b"", bytearray(), []
        self._untouched = not self._spin_ns
        return frame

    def _took(self, head: bytes, ancillary: Sequence[tuple[int, int, bytes]], flags: int) -> None:
        received = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received.frombytes(data[: len(data) - len(data) % received.itemsize])
        if self._fds is not None:
            self._fds += received
            if flags & socket.MSG_CTRUNC or len(self._fds) > MAX_FDS:
                close_all(self._fds)
                self._fds = None
        else:
            close_all(received)
        if not head:
            raise Disconnected("the client left")
        self._head += head
        self._untouched = False

    def _check(self, command: int, size: int, flags: int) -> None:
        if HEADER_SIZE <= size <= self.max_size and flags & TYPE <= REPLY:
            return
        # Whoever reads next (it may be another thread) must not take what follows for a header.
        self._broken = True
        self._untouched = False
        self.shutdown()
        if flags & TYPE > REPLY:
            raise ProtocolError(f"command {command}: message type {flags & TYPE}, where 0 and 1 are allowed")
        raise ProtocolError(
            f"command {command}: a message of {size} bytes, {HEADER_SIZE} to {self.max_size} are allowed"
        )

    def _receive_before(self, deadline: float) -> Frame:
        ready = select.poll()
        ready.register(self._socket, select.POLLIN)
        while True:
            try:
                return self._complete(socket.MSG_DONTWAIT)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError from None
                ready.poll(left * 1000)

    def _receive_spinning(self) -> Frame | None:
        # A sleeping wake costs tens of µs; where a core is free, looking again is cheaper.
        until = time.perf_counter_ns() + self._spin_ns
        while True:
            try:
                return self._complete(socket.MSG_DONTWAIT)
            except BlockingIOError:
                if time.perf_counter_ns() > until:
                    return None

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send one whole message; `fds` go with its first byte. Raises `Disconnected`."""
        try:
            with self._sending:
                if fds:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
                    sent = self._socket.sendmsg([data], [rights], socket.MSG_NOSIGNAL)
                    data = data[sent:]
                self._sendall(data, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise Disconnected(str(error)) from None

    def shutdown(self) -> None:
        """End the connection, from any thread: both `receive` and `send` return at once."""
        with suppress(OSError):  # the client was faster
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give up the socket, after `shutdown`. The caller must keep others out of `receive`."""
        self._broken = True
        self._untouched = False
        close_all(self._fds or ())
        self._fds = []
        with self._sending:
            hang_up(self._socket)


def hang_up(sock: socket.socket) -> None:
    """Close a connection so that its client reads its end.

    Of one that is closed with messages unread Linux tells the client that it was reset. That is an error which QEMU
    11.1 sets twice, and then aborts (hw/vfio-user/proxy.c); no more messages come after the shutdown.
    """
    with suppress(OSError):  # the client was faster
        sock.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):  # there is nothing any more
        while sock.recv(_CHUNK, socket.MSG_DONTWAIT):
            pass
    sock.close()


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that came with a message and that nobody took."""
    for fd in fds:
        os.close(fd)
