"""A log of one door's messages, to be replayed against it or another: `softcxl.testing.vfio_client.replay`.

The file is 8 bytes `SCXLVFU1`, then entries, little-endian::

    offset  size 0       1     kind: 1 connect, 2 message from the client, 3 message to the client, 4
    disconnect 1       1     n, number of descriptors that came with a message from the client, 255 for too
    many 2       2     0 4       4     size of the message in bytes; 0 for connect and disconnect 8       16*n
    descriptors: kind (4 bytes: 0 other, 1 regular file, 2 eventfd), 4 bytes 0, file size (8 bytes) 8+16*n
    size  the message, header included

Memory that the client shares is not in it, only its size. Entries are in the order in which the door took and
sent them, so that whatever a reply needs stands before it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from struct import Struct
from threading import Lock
from typing import TYPE_CHECKING

from softcxl.transport.vfio_user.framing import HEADER, HEADER_SIZE, Channel, Frame

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

MAGIC = b"SCXLVFU1"
_ENTRY = Struct("<BBxxI")
_DESCRIPTOR = Struct("<IxxxxQ")
TOO_MANY = 255


class EntryKind(IntEnum):
    """What an entry is."""

    CONNECT = 1
    FROM_CLIENT = 2
    TO_CLIENT = 3
    DISCONNECT = 4


class DescriptorKind(IntEnum):
    """What a descriptor was."""

    OTHER = 0
    FILE = 1
    EVENTFD = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. `descriptors` are (kind, file size in bytes) pairs, None where there were too many."""

    kind: EntryKind
    message: bytes = b""
    descriptors: tuple[tuple[DescriptorKind, int], ...] | None = ()


class Recorder:
    """Writes entries to a new file at `path`; every entry is on its way to the file when `add` returns."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = Path(path).open("wb", buffering=0)  # noqa: SIM115 - closed by close()
        self._file.write(MAGIC)
        self._lock = Lock()

    def add(self, entry: Entry) -> None:
        """Append an entry; from any thread."""
        descriptors = entry.descriptors
        count = TOO_MANY if descriptors is None else len(descriptors)
        head = _ENTRY.pack(entry.kind, count, len(entry.message))
        with self._lock:
            if not self._file.closed:
                self._file.write(
                    head + b"".join(_DESCRIPTOR.pack(*one) for one in descriptors or ()) + entry.message
                )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


class RecordingChannel(Channel):
    """A channel that records what it carries."""

    def __init__(self, sock: socket.socket, max_size: int, recorder: Recorder, spin_us: float = 0) -> None:
        super().__init__(sock, max_size, spin_us)
        self._recorder = recorder
        recorder.add(Entry(EntryKind.CONNECT))

    def receive(self, timeout: float | None = None) -> Frame:
        """As `Channel.receive`."""
        frame = super().receive(timeout)
        ident, command, flags, error, payload, fds = frame
        message = HEADER.pack(ident, command, HEADER_SIZE + len(payload), flags, error) + payload
        descriptors = None if fds is None else tuple(map(_identify, fds))
        self._recorder.add(Entry(EntryKind.FROM_CLIENT, message, descriptors))
        return frame

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """As `Channel.send`."""
        self._recorder.add(Entry(EntryKind.TO_CLIENT, data))
        super().send(data, fds)

    def close(self) -> None:
        """As `Channel.close`."""
        self._recorder.add(Entry(EntryKind.DISCONNECT))
        super().close()


def _identify(fd: int) -> tuple[DescriptorKind, int]:
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return DescriptorKind.FILE, status.st_size
    if str(Path(f"/proc/self/fd/{fd}").readlink()) == "anon_inode:[eventfd]":
        return DescriptorKind.EVENTFD, 0
    return DescriptorKind.OTHER, 0


def entries(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The entries of a log, up to the last whole one. Raises `ValueError` where the file is no log."""
    data = Path(path).read_bytes()
    if not data.startswith(MAGIC):
        raise ValueError(f"{path}: no log of a vfio-user door, it starts with {data[:8]!r}")
    at = len(MAGIC)
    while at + _ENTRY.size <= len(data):
        kind, count, size = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        known = 0 if count == TOO_MANY else count
        if at + known * _DESCRIPTOR.size + size > len(data):
            return  # the door was killed while it wrote
        descriptors = [_DESCRIPTOR.unpack_from(data, at + n * _DESCRIPTOR.size) for n in range(known)]
        at += known * _DESCRIPTOR.size
        yield Entry(
            EntryKind(kind),
            data[at : at + size],
            None
            if count == TOO_MANY
            else tuple((DescriptorKind(sort), length) for sort, length in descriptors),
        )
        at += size
