"""A serial line that ends in another program: a Unix socket, at which QEMU's serial ports connect (DSP0253)."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from softcxl.transport.errors import DoorError
from softcxl.transport.mctp.cci import Dialect
from softcxl.transport.mctp.node import Node
from softcxl.transport.mctp.port import Endpoint
from softcxl.transport.mctp.serial import MctpSerialDoor
from softcxl.transport.unix import Listener

log = logging.getLogger(__name__)

_CLOSE_SECONDS: Final = 10.0
_BACKLOG: Final = 8
_PAUSE_MS: Final = 100


class MctpSerialSocket:
    """Serves endpoints at the Unix socket `path`, from `open` (or `with`) until `close`: each connection is a serial
    line of its own.

    QEMU makes one the second serial port of a guest by ``-serial unix:PATH``. `endpoints` and `dialect` are as in
    `MctpTcpDoor`. The socket's mode is 0600. Raises `DoorInUse` where a live server listens at `path`, `DoorError`
    where `path` cannot be a socket.
    """

    def __init__(
        self,
        endpoints: Mapping[int, Endpoint] | Node,
        path: str | os.PathLike[str],
        *,
        dialect: Dialect = Dialect.STANDARD,
    ) -> None:
        self.node = endpoints if isinstance(endpoints, Node) else Node(endpoints)
        self.path = Path(path)
        self.dialect = dialect
        self._lines: list[MctpSerialDoor] = []
        self._thread: threading.Thread | None = None
        self._wake = -1

    def __repr__(self) -> str:
        return f"<MctpSerialSocket {self.path}>"

    @property
    def lines(self) -> int:
        """How many lines there are now."""
        return sum(line.connected for line in self._lines)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start to listen."""
        if self._thread is not None:
            raise DoorError(f"{self.path}: this door is open already")
        listener = Listener(self.path, _BACKLOG)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name=f"door {self.path.name}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End all lines, stop listening, remove the socket. More than once does no harm.

        Raises `DoorError` where a command does not return within 10 seconds.
        """
        if self._thread is None:
            return
        os.eventfd_write(self._wake, 1)
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            raise DoorError(f"{self.path}: a command has not returned for {_CLOSE_SECONDS:.0f} s")
        self._thread = None
        os.close(self._wake)

    def _run(self, listener: Listener) -> None:
        ready = select.poll()
        ready.register(self._wake, select.POLLIN)
        ready.register(listener.socket, select.POLLIN)
        try:
            while all(fd != self._wake for fd, _ in ready.poll()):
                self._accept(listener.socket)
        finally:
            listener.close()
            for line in self._lines:
                line.close()
            self._lines.clear()

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return  # it left before it was taken
        except OSError as error:
            log.warning("%s: cannot accept a line: %s", self.path, error)
            select.poll().poll(_PAUSE_MS)  # out of descriptors or memory: not again at once
            return
        for line in [one for one in self._lines if not one.connected]:
            line.close()
            self._lines.remove(line)
        with client:
            line = MctpSerialDoor(self.node, client.fileno(), dialect=self.dialect)
            self._lines.append(line)  # before its first answer can be seen
            try:
                line.open()
            except DoorError as error:
                log.warning("%s: %s", self.path, error)
                self._lines.remove(line)
