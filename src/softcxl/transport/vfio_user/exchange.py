"""Two streams of commands on one socket: the client's to us, and ours to the client.

Replies come between commands. Whoever waits for a reply reads the socket himself if nobody else does, keeps
the commands that he meets for later, and hands other replies to their owners: so a port may use guest memory
inside a command of the client, and a background thread may do it at the same time, without anybody waiting
for each other.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque

from softcxl.transport.vfio_user.errors import Disconnected, ProtocolError
from softcxl.transport.vfio_user.framing import ERROR, HEADER, HEADER_SIZE, TYPE, Channel, Frame, close_all

_QUEUED_BYTES = 1 << 26
"""Commands that may wait while a reply is awaited; a client that sends more is out of its mind."""
_TURN = 0.02
"""Seconds that a waiter other than the door's thread reads before it gives others a chance."""


class _Waiter:
    __slots__ = ("arrived", "frame")

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.frame: Frame | None = None


class Exchange:
    """Commands and replies over a `Channel`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._receiving = threading.Lock()
        self._queue: deque[Frame] = deque()
        self._queued = 0
        self._lock = threading.Lock()
        self._waiters: dict[int, _Waiter] = {}
        self._ident = 0
        self._closed = False

    def next_command(self) -> Frame:
        """The client's next command, for the door's thread. Raises `Disconnected` and `ProtocolError`."""
        while True:
            with self._receiving:
                if self._queue:
                    frame = self._queue.popleft()
                    self._queued -= HEADER_SIZE + len(frame[4])
                    return frame
                frame = self._channel.receive()
            if not frame[2] & TYPE:
                return frame
            self._resolve(frame)

    def call(self, command: int, payload: bytes, timeout: float) -> bytes:
        """Send a command to the client and wait for its reply's payload. For any thread.

        Raises `OSError`: ETIMEDOUT after `timeout` seconds, ENOTCONN where the client goes, or the reply's
        own.
        """
        waiter = _Waiter()
        with self._lock:
            if self._closed:
                raise OSError(errno.ENOTCONN, "no client")
            while self._ident in self._waiters:
                self._ident = (self._ident + 1) & 0xFFFF
            ident = self._ident
            self._ident = (self._ident + 1) & 0xFFFF
            self._waiters[ident] = waiter
        try:
            self._channel.send(HEADER.pack(ident, command, HEADER_SIZE + len(payload), 0, 0) + payload)
            self._await(waiter, time.monotonic() + timeout)
        except (Disconnected, ProtocolError):
            raise OSError(errno.ENOTCONN, "the client has gone") from None
        finally:
            with self._lock:
                self._waiters.pop(ident, None)
        if waiter.frame is None:
            raise OSError(errno.ENOTCONN, "the client has gone")
        _, answered, flags, error, data, _ = waiter.frame
        if flags & ERROR:
            raise OSError(error or errno.EIO, f"the client refused command {command}")
        if answered != command:
            raise OSError(errno.EPROTO, f"a reply to command {answered}, where {command} was sent")
        return data

    def _await(self, waiter: _Waiter, deadline: float) -> None:
        while not waiter.arrived.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                raise OSError(errno.ETIMEDOUT, "the client did not reply")
            if not self._receiving.acquire(blocking=False):
                waiter.arrived.wait(min(left, 0.001))
                continue
            try:
                if waiter.arrived.is_set():
                    return
                frame = self._channel.receive(min(left, _TURN))
                command = not frame[2] & TYPE
                if command:
                    self._keep(frame)
            except TimeoutError:
                command = True
            finally:
                self._receiving.release()
            if command:
                # The door's thread may be free to handle it, and the client may reply to us only after that.
                waiter.arrived.wait(min(left, 0.0005))
            else:
                self._resolve(frame)

    def _keep(self, frame: Frame) -> None:
        self._queue.append(frame)
        self._queued += HEADER_SIZE + len(frame[4])
        if self._queued > _QUEUED_BYTES:
            self._channel.shutdown()
            raise ProtocolError(f"more than {_QUEUED_BYTES} bytes of commands before a reply")

    def _resolve(self, frame: Frame) -> None:
        close_all(frame[5] or ())  # no reply brings descriptors
        with self._lock:
            waiter = self._waiters.pop(frame[0], None)
        if waiter is not None:  # else it came too late, or nobody asked
            waiter.frame = frame
            waiter.arrived.set()

    def shutdown(self) -> None:
        """End the connection, from any thread."""
        self._channel.shutdown()

    def close(self) -> None:
        """Give up the connection; for the door's thread."""
        self._channel.shutdown()
        with self._lock:
            self._closed = True
            waiters = list(self._waiters.values())
            self._waiters.clear()
        for waiter in waiters:
            waiter.arrived.set()
        with self._receiving:
            self._channel.close()
            for frame in self._queue:
                close_all(frame[5] or ())
            self._queue.clear()
