"""The client's end of a control socket."""

from __future__ import annotations

import os
import socket
import struct
from typing import Self

_CONNECT_SECONDS = 10


class NoServer(Exception):
    """Nobody answers at the address; the message says why."""


def converse(path: str, line: bytes) -> bytes:
    """Send one request, a line without its newline, to the server at the socket `path`; its answer.

    Waits as long as the server works. Raises `NoServer` where no server is there, or where it has gone before its
    answer was whole.
    """
    with Connection(path) as server:
        return server.converse(line)


class Connection:
    """A connection to the server at the socket `path`, for one request after another. Raises `NoServer`."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _connect(self._socket, path)
        except BaseException:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def converse(self, line: bytes) -> bytes:
        """Send a request, a line without its newline; its answer, after as long as that takes."""
        try:
            self._socket.sendall(line + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has sent us away, and may have said why
        try:
            answer = self._lines.readline()
        except ConnectionResetError:
            answer = b""  # it has gone with something of ours unread
        except OSError as error:
            raise NoServer(f"the server has gone in the middle of the request: {error.strerror}") from error
        if not answer.endswith(b"\n"):
            raise NoServer("the server has gone before it answered")
        return answer[:-1]

    def shut(self) -> None:
        """End the conversation; whoever waits for an answer finds the server gone. From any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already


def _connect(server: socket.socket, path: str) -> None:
    # A connect that does not block fails at once where the server's queue is full, so it blocks, for so long.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", _CONNECT_SECONDS, 0))
    try:
        server.connect(path)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NoServer(f"no server listens there: {error.strerror}") from error
    except BlockingIOError:
        raise NoServer(f"the server there has taken no client for {_CONNECT_SECONDS} s") from None
    except OSError as error:
        if "too long" in str(error):
            raise NoServer(f"{len(os.fsencode(path))} bytes, a socket's path has at most 107") from None
        raise NoServer(f"no server can be reached there: {error.strerror or error}") from error
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bytes(16))
