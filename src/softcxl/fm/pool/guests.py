"""A pool's server as the pool access devices see it, by which programs in guests come (`softcxl.device.access`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from softcxl.fm.pool.errors import Refusal
from softcxl.fm.pool.server import PoolServer
from softcxl.pool import layout
from softcxl.pool.layout import ARENA, SlotState
from softcxl.pool.protocol import Hello, Opcode, Status
from softcxl.wire import WireError


class Visitor(Protocol):
    """A guest: which one, as a key, and the name of the host that it is."""

    @property
    def host(self) -> str: ...


@dataclass(frozen=True)
class Memory:
    """A source as a file: what `softcxl.device.access.Memory` is."""

    source: int
    name: str
    fd: int
    size: int
    offset: int


class Guests:
    """Lets programs in guests come to `server`.

    Who lives is the server's to find out, by the sign of life that each program gives. Of those that an earlier server
    let in, too: a guest whose door has gone with that server has the memory yet.
    """

    def __init__(self, server: PoolServer) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._visitors: dict[int, tuple[Visitor, int]] = {}
        """Whose program has each slot, and the slot's epoch: one that it has left may be another's by now."""

    # -- what devices ask ------------------------------------------------------------------------------------------

    def memories(self) -> list[Memory]:
        """The arena, and all sources that there are, by number."""
        directory, held = self._server.directory, self._server.sources.all
        arena = Memory(ARENA, "arena", directory.fd, directory.plan.size, 0)
        return [
            arena,
            *(
                Memory(one.number, one.name, one.fd, one.size, one.offset)
                for _, one in sorted(held.items())
                if one.number != ARENA and one.fd >= 0
            ),
        ]

    def ask(self, visitor: Visitor, slot: int, opcode: int, request: bytes) -> tuple[int, bytes]:
        """A request of a program in a guest, which speaks for slots of its guest's alone. It does not wait for memory:
        a guest's processor stands still meanwhile, and other programs in it with that."""
        if opcode == Opcode.HELLO:
            return self._hello(visitor, request)
        if not self._has(visitor, slot):
            return Status.GONE, f"slot {slot} is none of this guest's".encode()
        return self._server.at_once(slot, opcode, request)

    def gone(self, visitor: Visitor) -> None:
        """All programs of a guest have gone."""
        with self._lock:
            slots = [slot for slot, (one, _) in self._visitors.items() if one == visitor]
        for slot in slots:
            self._leave(slot)

    def ring(self, offset: int) -> None:
        """Wake who sleeps on a word of the arena, on the host and in guests."""
        directory = self._server.directory
        if offset + 4 <= directory.plan.size:
            directory.memory.wake(offset)
            self._server.ring(offset)

    def listen(self, listener: Callable[[int | None], None]) -> Callable[[], None]:
        """Have `listener` called with the offset of each word that is rung; returns what ends it."""
        return self._server.listen(listener)

    # -- programs --------------------------------------------------------------------------------------------------

    def _hello(self, visitor: Visitor, request: bytes) -> tuple[int, bytes]:
        try:
            hello = Hello.unpack(request)
            if hello.slot and not self._has(visitor, hello.slot):
                raise Refusal(Status.GONE, f"slot {hello.slot} is none of this guest's")
            hello.host = visitor.host.encode()[: layout.MAX_NAME]
            welcome = self._server.attach(hello, 0, remote=True)
        except Refusal as refusal:
            return refusal.status, str(refusal).encode()
        except WireError as error:
            return Status.MALFORMED, str(error).encode()
        with self._lock:
            self._visitors[welcome.slot] = visitor, welcome.epoch
        return Status.OK, welcome.pack()

    def _has(self, visitor: Visitor, slot: int) -> bool:
        """Whether a program of that guest has the slot now."""
        with self._lock:
            one, epoch = self._visitors.get(slot, (None, 0))
            return one == visitor and self._lives(slot, epoch)

    def _lives(self, slot: int, epoch: int) -> bool:
        return self._server.directory.slot_state(slot) == (epoch, SlotState.LIVE)

    def _leave(self, slot: int) -> None:
        with self._lock:
            _, epoch = self._visitors.pop(slot)
        self._server.left(slot, epoch)
