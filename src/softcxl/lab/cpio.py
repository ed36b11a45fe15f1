"""Writing cpio archives of the kind the kernel unpacks at boot.

Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst, format "070701" ("newc").
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_MAGIC = "070701"
_TRAILER = "TRAILER!!!"
_BLOCK = 512


@dataclass(frozen=True)
class Entry:
    """One member: a name without a leading slash, a mode with its type bits, and its contents.

    A symbolic link's contents are its target; a device node's number is `device` (major, minor).
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str, mode: int = 0o755) -> Entry:
    """A folder."""
    return Entry(name, stat.S_IFDIR | mode)


def file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(name, stat.S_IFREG | mode, data)


def symlink(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device node."""
    return Entry(name, stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive's bytes, a multiple of 512. The same entries give the same bytes: no times, all owned by root."""
    pieces: list[bytes] = []
    for inode, entry in enumerate(entries, 1):
        pieces.append(_member(entry, inode))
    pieces.append(_member(Entry(_TRAILER, 0), 0))
    length = sum(map(len, pieces))
    pieces.append(bytes(-length % _BLOCK))
    return b"".join(pieces)


def _member(entry: Entry, inode: int) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    major, minor = entry.device
    # inode, mode, uid, gid, links, mtime, size, device of the file, device of the node, name size, checksum
    numbers = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, major, minor, len(name), 0)
    header = (_MAGIC + "".join(f"{number:08X}" for number in numbers)).encode()
    head = header + name
    return head + bytes(-len(head) % 4) + entry.data + bytes(-len(entry.data) % 4)
