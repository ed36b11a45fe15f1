"""A stream of bytes that carries packets: the peer at its other end asks, and takes answers in its own time."""

from __future__ import annotations

import logging
import select
from collections.abc import Callable
from typing import Final, Protocol

from softcxl.spec.mctp.tcp import PAYLOAD_SIZE
from softcxl.transport.mctp.cci import PREFIX_SIZE, Dialect
from softcxl.transport.mctp.conversation import Conversation
from softcxl.transport.mctp.errors import PacketError
from softcxl.transport.mctp.loop import Loop
from softcxl.transport.mctp.node import Node
from softcxl.transport.mctp.packet import Assembler, Message

log = logging.getLogger(__name__)

MAX_MESSAGE: Final = PREFIX_SIZE + (1 << 20) + PAYLOAD_SIZE
"""Bytes of a message that a door takes, padding included: a payload as large as a mailbox's can be."""

_READ = 1 << 16
_PAUSE = 1 << 18  # bytes that a peer has not taken, from which on its requests wait
_UNSENT_MAX = 4 << 20
_IN, _OUT, _GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR | select.EPOLLHUP


class Framing(Protocol):
    """How packets lie in the stream."""

    running: bool
    """Sequence numbers go on over messages."""
    padding: int
    """Bytes of padding that a message may end in, at most."""

    def next(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """The packet that begins at `at` or after, and where what follows it begins; None where more has to come.
        Raises `PacketError` where nothing that follows can be trusted."""

    def frames(self, message: Message) -> list[bytes]:
        """What is sent for a message."""


class Stream:
    """One stream, from its making until `close` or until it ends, when `gone` is called.

    `read` and `write` do not block, as `socket.recv` and `socket.send`. `release` closes what they use. All on the
    loop's thread.
    """

    def __init__(
        self,
        loop: Loop,
        fd: int,
        read: Callable[[int], bytes],
        write: Callable[[bytes], int],
        release: Callable[[], None],
        framing: Framing,
        node: Node,
        dialect: Dialect,
        name: str,
        gone: Callable[[], object],
    ) -> None:
        self._loop, self._fd, self._read, self._write, self._release = loop, fd, read, write, release
        self._framing, self._name, self._gone = framing, name, gone
        self._assembler = Assembler(MAX_MESSAGE, running=framing.running)
        self._conversation = Conversation(node, dialect, self, padding=framing.padding)
        self._rest = b""  # what has come and is not done yet
        self._unfinished = False  # there may be packets in it
        self._frames: list[bytes] = []  # what is to be sent with the next write
        self._unsent = b""  # what was not taken
        self._queued = 0  # bytes of both
        self._events = _IN
        self._busy = self._ended = self._closed = False
        self.post = loop.post
        self.later = loop.later
        loop.watch(fd, _IN, self._ready)

    def _ready(self, events: int) -> None:
        if events & _OUT:
            self._flush()
        if self._closed:
            return
        if events & _IN and self._events & _IN:
            self._receive()
        elif events & _GONE:
            self.close()

    def _receive(self) -> None:
        try:
            data = self._read(_READ)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self._ended = True
            self._settle()
            return
        self._work(self._rest + data if self._rest else data)

    def _work(self, data: bytes) -> None:
        """Take packets, as long as the peer takes answers."""
        following, take, converse = self._framing.next, self._assembler.take, self._conversation.take
        self._busy, self._unfinished = True, False
        at = 0
        try:
            while True:
                packet, at = following(data, at)
                if packet is None:
                    break
                message = take(packet)
                if message is not None:
                    converse(message)
                    if self._queued >= _PAUSE:
                        self._unfinished = True
                        break
        except PacketError as error:
            log.info("%s is closed: %s", self._name, error)
            self._ended, at = True, len(data)
        self._busy = False
        self._rest = data[at:]
        if self._frames:
            self._flush()
        else:
            self._settle()

    def transmit(self, message: Message) -> None:
        """As `softcxl.transport.mctp.conversation.Line.transmit`."""
        if self._closed or self._queued > _UNSENT_MAX:
            return
        frames = self._framing.frames(message)
        self._frames += frames
        self._queued += sum(map(len, frames))
        if not self._busy:
            self._flush()

    def _flush(self) -> None:
        """Send what there is, as far as it is taken: packets should arrive whole, so as few writes as can be."""
        data = b"".join((self._unsent, *self._frames)) if self._unsent else b"".join(self._frames)
        self._frames.clear()
        try:
            sent = self._write(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._unsent = data[sent:]
        self._queued = len(data) - sent
        if self._queued or self._events != _IN or self._unfinished or self._ended:
            self._settle()

    def _settle(self) -> None:
        """Wait for what has to happen next."""
        if self._ended and not self._queued and not self._unfinished:
            self.close()
            return
        paused = self._queued >= _PAUSE
        events = (_OUT if self._queued else 0) | (0 if paused or self._ended else _IN)
        if events != self._events:
            self._loop.change(self._fd, events)
            self._events = events
        if self._unfinished and not paused:
            self._loop.post(self._resume)

    def _resume(self) -> None:
        if not self._closed and self._unfinished:
            self._work(self._rest)

    def close(self) -> None:
        """End the stream; command interfaces are closed."""
        if self._closed:
            return
        self._closed = True
        self._loop.forget(self._fd)
        self._gone()
        self._conversation.close()
        self._release()
