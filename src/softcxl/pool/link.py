"""How a client reaches the pool's server, and the memory: the arena and the sources, mapped.

A `Link` is one way to it: `SocketLink` on the server's machine, `softcxl.pool.device.DeviceLink` inside a guest.
"""

from __future__ import annotations

import mmap
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from softcxl.pool import layout
from softcxl.pool.errors import Corrupt, Foreign, NoServer, PoolError, ServerFailed
from softcxl.pool.maps import mapped
from softcxl.pool.protocol import FAILURES, PROTOCOL, Head, Hello, Opcode, SourceFile, Welcome
from softcxl.wire import WireError

_WELCOME: Final = 8192
_SECONDS: Final = 10.0
_HUNG_UP: Final = (ConnectionResetError, BrokenPipeError)
"""What a client is told of a server that has gone; the first where something of ours was unread."""
_TIME: Final = struct.Struct("@ll")

Coherence = Literal["host", "managed"]
"""Whether what one writes is there for all at once (`host`), or when it was flushed (`managed`)."""


@dataclass(frozen=True)
class Place:
    """The slot that a client has, and what it shows to have it again."""

    slot: int = 0
    epoch: int = 0
    token: bytes = b""


def failure(status: int, answer: bytes) -> PoolError:
    """What a client raises for an answer that is none."""
    return FAILURES.get(status, ServerFailed)(answer.decode(errors="replace"))


def hello(name: str, place: Place) -> bytes:
    """What a client says when it comes, or with the place that it had comes again: a `Hello`."""
    return Hello(
        protocol=PROTOCOL,
        pid=os.getpid(),
        slot=place.slot,
        epoch=place.epoch,
        token=place.token,
        lease=0,
        name=layout.encode_name(name),
        host=b"",
    ).pack()


def welcomed(status: int, answer: bytes, where: str = "") -> Welcome:
    """What the server answers to that. Raises what it says, or `Foreign` for what no server of this version says."""
    if status:
        raise failure(status, answer)
    try:
        welcome = Welcome.unpack_from(answer)
    except WireError as error:
        raise Foreign(f"what answers{where} is no pool: {error}") from None
    if welcome.protocol != PROTOCOL:
        raise Foreign(f"the server{where} speaks protocol {welcome.protocol}, this client {PROTOCOL}")
    return welcome


@dataclass
class Mapped:
    """What a client has of a pool: maps of the arena and of each source that there is, by number.

    `files` says which memory each of them is: two that are equal are the same bytes.
    """

    place: Place
    server: int
    lease: float
    maps: dict[int, mmap.mmap]
    files: dict[int, Hashable] = field(default_factory=dict)


class Link(Protocol):
    """A way to the server."""

    @property
    def address(self) -> str:
        """What a user would give to `softcxl.connect`."""

    @property
    def coherence(self) -> Coherence:
        """Of the memory that is reached by it."""

    @property
    def rest(self) -> Callable[[int, float], object] | None:
        """rest(offset, seconds) sleeps until the word of the arena there is rung; None where a futex does it."""

    def attach(self, name: str, place: Place) -> Mapped:
        """Come in, or in again. Raises `NoServer`, or what the server answers."""

    def gone(self) -> bool:
        """Whether the server that let us in is known to have gone."""

    def fileno(self) -> int:
        """A descriptor that hangs up when the server goes; -1 without one: `gone` is then asked now and then."""

    def ask(self, opcode: int, data: bytes, timeout: float | None = None) -> tuple[int, bytes]:
        """Ask without the C core: a status and an answer. Raises `NoServer`."""

    def ring(self, offset: int) -> None:
        """Wake who sleeps on the word of the arena at `offset` where a futex does not. Never raises."""

    def close(self) -> None:
        """Leave."""


class SocketLink:
    """The Unix socket at `path`, of a server on this machine: caches see to it that all see the same memory."""

    coherence: Final = "host"
    rest = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket: socket.socket | None = None
        self._number = 0
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    def attach(self, name: str, place: Place) -> Mapped:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(_SECONDS)
            connection.connect(str(self.path))
            connection.send(Head(what=Opcode.HELLO, number=0).pack() + hello(name, place))
            message, files, flags, _ = socket.recv_fds(connection, _WELCOME, layout.MAX_SOURCES + 1)
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError):
                raise
            why = "it has hung up" if isinstance(error, _HUNG_UP) else error.strerror or str(error)
            raise NoServer(f"no pool answers at {self.address}: {why}") from error
        try:
            if not message:
                raise NoServer(f"no pool answers at {self.address}: it has hung up")
            if flags & socket.MSG_CTRUNC:
                raise NoServer(
                    f"the pool at {self.address} has files for this process, which has no descriptors left for them"
                )
            found = _mapped(message, files)
        except BaseException:
            connection.close()
            raise
        finally:
            for fd in files:
                os.close(fd)
        connection.settimeout(None)
        # The old one last: one whose only connection ends has left
        with self._lock:
            old, self._socket = self._socket, connection
        if old is not None:
            old.close()
        return found

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

    def fileno(self) -> int:
        connection = self._socket
        return -1 if connection is None else connection.fileno()

    def ask(self, opcode: int, data: bytes, timeout: float | None = None) -> tuple[int, bytes]:
        with self._lock:
            connection = self._socket  # another thread may close it
            if connection is None:
                raise NoServer(f"the connection to {self.address} has ended")
            self._number += 1
            try:
                # Not by settimeout: `gone` would wait as long
                whole, part = divmod(round((timeout or 0) * 1e6), 1_000_000)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIME.pack(whole, part))
                connection.send(Head(what=opcode, number=self._number).pack() + data)
                while True:
                    message = connection.recv(_WELCOME)
                    if not message:
                        raise ConnectionResetError
                    head = Head.unpack_from(message)
                    if head.number == self._number:  # an older one is of a request that ran out of time
                        return head.what, message[Head.__layout__.size :]
            except _HUNG_UP as error:
                raise NoServer(f"the pool at {self.address} has hung up") from error
            except (OSError, WireError) as error:
                raise NoServer(f"the pool at {self.address} does not answer: {error}") from error

    def ring(self, offset: int) -> None:
        try:
            self.ask(Opcode.RING, offset.to_bytes(8, "little"), _SECONDS)
        except NoServer:
            pass  # then nobody can: who sleeps there looks again by himself

    def close(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()


def _mapped(message: bytes, files: list[int]) -> Mapped:
    try:
        head = Head.unpack_from(message)
    except WireError as error:
        raise Foreign(f"what answers is no pool: {error}") from None
    welcome = welcomed(head.what, message[Head.__layout__.size :])
    if len(files) != 1 + welcome.count:
        raise Foreign(f"{welcome.count} sources were told of, {len(files)} files came")
    maps, known = {}, {}
    arena = SourceFile(number=layout.ARENA, offset=0, size=os.fstat(files[0]).st_size)
    for one, fd in zip([arena, *welcome.sources], files, strict=True):
        if one.number in maps or one.number > layout.MAX_SOURCES:
            raise Corrupt(f"the server tells of a source {one.number}, which there is already or cannot be")
        maps[one.number], known[one.number] = _map(one, fd)
    place = Place(welcome.slot, welcome.epoch, welcome.token)
    return Mapped(place, welcome.server, welcome.lease / 1000, maps, known)


def _map(one: SourceFile, fd: int) -> tuple[mmap.mmap, Hashable]:
    """Map a source. A file that somebody cuts short later is beyond help: the kernel kills who touches it (SIGBUS)."""
    found = os.fstat(fd)
    what = f"source {one.number}" if one.number else "the arena"
    if one.offset % mmap.ALLOCATIONGRANULARITY:
        raise Corrupt(f"{what} begins at {one.offset:#x} of its file, which is within a page")
    if not one.size or (stat.S_ISREG(found.st_mode) and one.size > found.st_size - one.offset):
        raise Corrupt(
            f"{what} has {one.size} bytes from {one.offset:#x} on, and its file {found.st_size}: it was cut short"
        )
    try:
        return mapped(fd, one.size, one.offset), (found.st_dev, found.st_ino, one.offset, one.size)
    except (OSError, ValueError) as error:
        raise NoServer(f"{what} cannot be mapped: {error}") from error
