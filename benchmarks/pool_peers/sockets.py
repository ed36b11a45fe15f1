"""The standard library's: a stream socket of the machine's own, and multiprocessing's pipe."""

from __future__ import annotations

import multiprocessing
import socket

from pool_peers.peer import LARGEST, Peer


class UnixSocket(Peer):
    """A pair of stream sockets; each side reads into a buffer of its own until all has come."""

    def prepare(self, folder: str) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for one in (self.ours, self.theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)

    def listen(self) -> None:
        self.buffer = memoryview(bytearray(LARGEST))

    connect = listen

    def serve(self, count: int, size: int) -> None:
        # A protocol would say the length in a header; here both know it, which is to the socket's good.
        here, buffer = self.theirs, self.buffer[:size]
        for _ in range(count):
            take(here, buffer)
            here.sendall(buffer)

    def ask(self, request: bytes) -> int:
        self.ours.sendall(request)
        return take(self.ours, self.buffer[: len(request)])


def take(one: socket.socket, into: memoryview) -> int:
    """Read until `into` is full."""
    got = 0
    while got < len(into):
        more = one.recv_into(into[got:])
        if not more:
            raise ConnectionError("the other side has gone")
        got += more
    return got


class Pipe(Peer):
    """multiprocessing.Pipe with send_bytes and recv_bytes, which is the faster half of it: no pickling."""

    def prepare(self, folder: str) -> None:
        self.ours, self.theirs = multiprocessing.Pipe()

    def serve(self, count: int, size: int) -> None:
        for _ in range(count):
            self.theirs.send_bytes(self.theirs.recv_bytes())

    def ask(self, request: bytes) -> int:
        self.ours.send_bytes(request)
        return len(self.ours.recv_bytes())
