"""A Unix socket to listen at: ours alone, one live server a path, gone with its server."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from pathlib import Path

from softcxl.transport.errors import DoorError, DoorInUse

_LOCK_SECONDS = 2.0


class Listener:
    """Listens at `path` from its making until `close`; `socket` is what accepts, and does not block.

    The socket's mode is 0600. One that a dead server left is replaced. Raises `DoorInUse` where a live server
    listens, `DoorError` where `path` cannot be a socket.
    """

    def __init__(self, path: Path, backlog: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self.path = path
        address = str(path)
        self.socket = socket.socket(socket.AF_UNIX, kind)
        directory = -1
        try:
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            # Two servers that find the same dead socket must not both replace it.
            _lock(directory)
            _clear(path)
            self.socket.bind(address)
            path.chmod(0o600)  # nobody connects before listen()
            status = path.lstat()
            self._identity = status.st_dev, status.st_ino
            self.socket.listen(backlog)
            self.socket.setblocking(False)
        except DoorError:
            self.socket.close()
            raise
        except OSError as error:
            self.socket.close()
            if "too long" in str(error):
                raise DoorError(
                    f"{address}: {len(os.fsencode(address))} bytes, a socket's path has at most 107"
                ) from None
            raise DoorError(f"{address}: cannot listen: {error.strerror or error}") from error
        finally:
            if directory >= 0:
                os.close(directory)

    def close(self) -> None:
        """Stop listening, and remove the socket if it still is the one that was made here."""
        self.socket.close()
        try:
            status = self.path.lstat()
            if (status.st_dev, status.st_ino) == self._identity:
                self.path.unlink()
        except FileNotFoundError:
            pass


def _clear(path: Path) -> None:
    """Remove a dead socket from the path. Raises `DoorError` where it holds anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise DoorError(f"{path}: exists and is no socket, so it is left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        failure = probe.connect_ex(str(path))
    if failure == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)
    elif failure != errno.ENOENT:
        raise DoorInUse(f"{path}: a live server listens there")


def _lock(directory: int) -> None:
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > until:
                return  # somebody else has a use for the lock; it only guards against a rare race
            time.sleep(0.01)
