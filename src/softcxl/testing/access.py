"""A pool's server to try pool access devices with: it has memory and slots, and does nothing else."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from softcxl.device.access import Visitor

HELLO, GOODBYE, ECHO = 1, 2, 100
"""What it can be asked: for a slot, to give the slot back, and for the request itself."""

UNKNOWN, GONE = 2, 9
"""How it refuses: an opcode that it does not have, a slot that is not the visitor's."""


@dataclass(frozen=True)
class FakeMemory:
    """Memory of a `FakeServer`."""

    source: int
    name: str
    fd: int
    size: int
    offset: int = 0


class FakeServer:
    """An `AccessServer` with `sizes` bytes of memory, the arena first, from `start` on in each file.

    `slots` has the visitors by slot, `rings` the offsets that were rung, `left` the visitors that have gone. `memory`
    is the arena, mapped here.
    """

    def __init__(self, sizes: Sequence[int] = (1 << 20,), *, start: int = 0) -> None:
        self._lock = threading.Lock()
        self._memories = []
        for number, size in enumerate(sizes):
            fd = os.memfd_create(f"memory{number}", os.MFD_CLOEXEC)
            os.ftruncate(fd, start + size)
            name = "arena" if number == 0 else f"source{number}"
            self._memories.append(FakeMemory(number, name, fd, size, start))
        self.memory = mmap.mmap(self._memories[0].fd, sizes[0], offset=start)
        self.slots: dict[int, Visitor] = {}
        self.rings: list[int] = []
        self.left: list[Visitor] = []
        self._listeners: list[Callable[[int | None], None]] = []
        self._changed = threading.Condition(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.memory.close()
        for one in self._memories:
            os.close(one.fd)

    def memories(self) -> list[FakeMemory]:
        return list(self._memories)

    def ask(self, visitor: Visitor, slot: int, opcode: int, request: bytes) -> tuple[int, bytes]:
        with self._lock:
            if opcode == ECHO:
                return 0, request
            if opcode == HELLO:
                given = next(number for number in range(1, 1 << 16) if number not in self.slots)
                self.slots[given] = visitor
                return 0, given.to_bytes(4, "little")
            if opcode != GOODBYE:
                return UNKNOWN, f"there is no opcode {opcode}".encode()
            if self.slots.get(slot) != visitor:
                return GONE, f"slot {slot} is not yours".encode()
            del self.slots[slot]
            return 0, b""

    def gone(self, visitor: Visitor) -> None:
        with self._lock:
            self.left.append(visitor)
            self.slots = {number: one for number, one in self.slots.items() if one != visitor}
            self._changed.notify_all()

    def ring(self, offset: int) -> None:
        """Also for whoever rings on the host."""
        with self._lock:
            self.rings.append(offset)
            listeners = list(self._listeners)
            self._changed.notify_all()
        for listener in listeners:
            listener(offset)

    def news(self) -> None:
        """Tell all that there is news."""
        for listener in list(self._listeners):
            listener(None)

    def listen(self, listener: Callable[[int | None], None]) -> Callable[[], None]:
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return end

    def wait(self, holds: Callable[[], bool], timeout: float = 60.0) -> bool:
        """Wait until something that rings or leavings bring about `holds`; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(holds, timeout)
