"""How a client reaches the pool's server, and the memory: the arena and the sources, mapped.

A `Link` is one way to it: `SocketLink` on the server's machine, `softcxl.pool.device.DeviceLink` inside a guest.
"""

from __future__ import annotations

import mmap
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from softcxl.pool import layout
from softcxl.pool.errors import Foreign, NoServer, PoolError, ServerFailed
from softcxl.pool.protocol import FAILURES, PROTOCOL, Head, Hello, Opcode, SourceFile, Welcome
from softcxl.wire import WireError

_WELCOME: Final = 8192
_SECONDS: Final = 10.0


def failure(status: int, answer: bytes) -> PoolError:
    """What a client raises for an answer that is none."""
    return FAILURES.get(status, ServerFailed)(answer.decode(errors="replace"))


@dataclass(frozen=True)
class Place:
    """The slot that a client has, and what it shows to have it again."""

    slot: int = 0
    epoch: int = 0
    token: bytes = b""


@dataclass
class Mapped:
    """What a client has of a pool: maps of the arena and of each source that there is, by number."""

    place: Place
    server: int
    lease: float
    maps: dict[int, mmap.mmap]
    offsets: dict[int, int]


class Link(Protocol):
    """A way to the server."""

    @property
    def address(self) -> str:
        """What a user would give to `softcxl.connect`."""

    def attach(self, name: str, place: Place) -> Mapped:
        """Come in, or in again. Raises `NoServer`, or what the server answers."""

    def gone(self) -> bool:
        """Whether the server that let us in is known to have gone."""

    def ask(self, opcode: int, data: bytes, timeout: float | None = None) -> tuple[int, bytes]:
        """Ask without the C core: a status and an answer. Raises `NoServer`."""

    def ring(self, offset: int) -> None:
        """Wake who sleeps on the word of the arena at `offset` where a futex does not."""

    def close(self) -> None:
        """Leave."""


class SocketLink:
    """The Unix socket at `path`, of a server on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket: socket.socket | None = None
        self._number = 0
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    def attach(self, name: str, place: Place) -> Mapped:
        self.close()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(_SECONDS)
            connection.connect(str(self.path))
            hello = Hello(
                protocol=PROTOCOL,
                pid=os.getpid(),
                slot=place.slot,
                epoch=place.epoch,
                token=place.token,
                lease=0,
                name=layout.encode_name(name),
                host=b"",
            )
            connection.send(Head(what=Opcode.HELLO, number=0).pack() + hello.pack())
            message, files, _, _ = socket.recv_fds(connection, _WELCOME, layout.MAX_SOURCES + 1)
        except OSError as error:
            connection.close()
            why = error.strerror or str(error)
            raise NoServer(f"no pool answers at {self.address}: {why}") from error
        try:
            mapped = _welcomed(message, files)
        except BaseException:
            connection.close()
            raise
        finally:
            for fd in files:
                os.close(fd)
        connection.settimeout(None)
        self._socket = connection
        return mapped

    def gone(self) -> bool:
        connection = self._socket
        if connection is None:
            return True
        try:
            return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def ask(self, opcode: int, data: bytes, timeout: float | None = None) -> tuple[int, bytes]:
        with self._lock:
            if self._socket is None:
                raise NoServer(f"the connection to {self.address} has ended")
            self._number += 1
            try:
                self._socket.settimeout(timeout)
                self._socket.send(Head(what=opcode, number=self._number).pack() + data)
                while True:
                    message = self._socket.recv(_WELCOME)
                    head = Head.unpack_from(message)
                    if head.number == self._number:  # an older one is of a request that ran out of time
                        return head.what, message[Head.__layout__.size :]
            except (OSError, WireError) as error:
                raise NoServer(f"the pool at {self.address} does not answer: {error}") from error

    def ring(self, offset: int) -> None:
        self.ask(Opcode.RING, offset.to_bytes(8, "little"))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _welcomed(message: bytes, files: list[int]) -> Mapped:
    try:
        head = Head.unpack_from(message)
        if head.what:
            raise failure(head.what, message[Head.__layout__.size :])
        welcome = Welcome.unpack_from(message, Head.__layout__.size)
    except WireError as error:
        raise Foreign(f"what answers is no pool: {error}") from None
    if len(files) != 1 + welcome.count:
        raise Foreign(f"{welcome.count} sources were told of, {len(files)} files came")
    maps = {layout.ARENA: mmap.mmap(files[0], 0)}
    offsets = {layout.ARENA: 0}
    for one, fd in zip(welcome.sources, files[1:], strict=True):
        maps[one.number] = _map(one, fd)
        offsets[one.number] = one.offset
    return Mapped(
        Place(welcome.slot, welcome.epoch, welcome.token), welcome.server, welcome.lease / 1000, maps, offsets
    )


def _map(one: SourceFile, fd: int) -> mmap.mmap:
    if one.offset % mmap.ALLOCATIONGRANULARITY:
        raise Foreign(f"source {one.number} begins at {one.offset:#x} of its file, which is within a page")
    return mmap.mmap(fd, one.size, offset=one.offset)
