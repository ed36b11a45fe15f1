"""A client's end of a vfio-user connection: messages and descriptors, and no idea of what they are for."""

from __future__ import annotations

import array
import os
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from softcxl.spec import vfio_user as spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_HEADER = spec.Header.__layout__.size
_MAX_FDS = 253  # Linux' SCM_MAX_FD


class Gone(ConnectionError):
    """The server closed the connection."""


@dataclass(slots=True)
class Message:
    """A message of the server. The receiver owns `fds`."""

    header: spec.Header
    payload: bytes
    fds: list[int] = field(default_factory=list)

    @property
    def is_reply(self) -> bool:
        """Whether it answers a command of ours; else it is a command to us."""
        return int(self.header.flags) & 15 == spec.MessageType.REPLY

    def check(self) -> bytes:
        """The payload, or `OSError` where the server refused the command."""
        if self.header.flags.error:
            code = self.header.error
            raise OSError(code, f"command {self.header.command}: {os.strerror(code)}")
        return self.payload


class Link:
    """A connection to the door at `path`. Everything waits at most `timeout` seconds, then raises
    `TimeoutError`.

    A command of the server is given to `answer` by whatever waits at the time.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 30.0) -> None:
        self.timeout = timeout
        self.unanswered: list[Message] = []
        self._replies: list[Message] = []
        self._ident = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A socket with Python's timeout would not wait for its turn in a queue of clients.
        seconds, fraction = divmod(timeout, 1)
        send_timeout = struct.pack("@ll", int(seconds), int(fraction * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, send_timeout)
        try:
            self._socket.connect(os.fspath(path))
            self._socket.settimeout(timeout)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave, and let go of what has come."""
        self._socket.close()
        for message in self._replies + self.unanswered:
            close_all(message.fds)
        self._replies.clear()
        self.unanswered.clear()

    def fileno(self) -> int:
        """The socket's descriptor, to poll it."""
        return self._socket.fileno()

    def answer(self, message: Message) -> None:
        """Take a command of the server: here, keep it in `unanswered`."""
        self.unanswered.append(message)

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send bytes as they are, message or not."""
        try:
            if fds:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
                data = data[self._socket.sendmsg([data], [rights], socket.MSG_NOSIGNAL) :]
            self._socket.sendall(data, socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            raise Gone("the server closed the connection") from None

    def send(
        self,
        command: int,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        *,
        no_reply: bool = False,
        ident: int | None = None,
    ) -> int:
        """Send a command without waiting; the result is its message id."""
        if ident is None:
            ident = self._ident = (self._ident + 1) & 0xFFFF
        header = spec.Header(
            ident=ident,
            command=command,
            size=_HEADER + len(payload),
            flags=spec.HeaderFlags.make(no_reply=no_reply),
            error=0,
        )
        self.send_bytes(header.pack() + payload, fds)
        return ident

    def receive(self) -> Message:
        """The next message, whatever it is. Raises `Gone`."""
        head, fds = b"", array.array("i")
        while len(head) < _HEADER:
            part, ancillary = self._recvmsg(_HEADER - len(head))
            head += part
            for _, _, data in ancillary:
                fds.frombytes(data)
            if not part:
                close_all(list(fds))
                raise Gone("the server closed the connection")
        header = spec.Header.unpack(head)
        payload = bytearray()
        while len(payload) < header.size - _HEADER:
            try:
                chunk = self._socket.recv(header.size - _HEADER - len(payload))
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                close_all(list(fds))
                raise Gone("the server closed the connection in the middle of a message")
            payload += chunk
        return Message(header, bytes(payload), list(fds))

    def _recvmsg(self, size: int) -> tuple[bytes, list[tuple[int, int, bytes]]]:
        try:
            return self._socket.recvmsg(size, socket.CMSG_SPACE(4 * _MAX_FDS), socket.MSG_CMSG_CLOEXEC)[:2]
        except ConnectionResetError:
            return b"", []  # it has gone with something of ours unread

    def wait(self, ident: int) -> Message:
        """The reply to the command with this message id; commands of the server are answered meanwhile."""
        for position, message in enumerate(self._replies):
            if message.header.ident == ident:
                return self._replies.pop(position)
        while True:
            message = self.receive()
            if not message.is_reply:
                self.answer(message)
            elif message.header.ident == ident:
                return message
            else:
                self._replies.append(message)

    def serve_until(self, done: Callable[[], bool]) -> None:
        """Answer commands of the server until `done()`. Raises `TimeoutError`."""
        deadline = time.monotonic() + self.timeout
        ready = select.poll()
        ready.register(self._socket, select.POLLIN)
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done after {self.timeout} s")
            if ready.poll(1):
                message = self.receive()
                if message.is_reply:
                    self._replies.append(message)
                else:
                    self.answer(message)

    def call(self, command: int, payload: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        """Send a command, wait, and give its reply's payload. Raises `OSError` where it is refused."""
        message = self.wait(self.send(command, payload, fds))
        close_all(message.fds)
        return message.check()

    def is_gone(self) -> bool:
        """Whether the server closes the connection; waits for it up to `timeout`, dropping what comes
        before."""
        try:
            while True:
                close_all(self.receive().fds)
        except Gone:
            return True
        except TimeoutError:
            return False

    def reply(self, message: Message, payload: bytes, error: int = 0) -> None:
        """Reply to a command of the server."""
        header = spec.Header(
            ident=message.header.ident,
            command=message.header.command,
            size=_HEADER + len(payload),
            flags=spec.HeaderFlags.make(type=spec.MessageType.REPLY, error=bool(error)),
            error=error,
        )
        self.send_bytes(header.pack() + payload)


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
