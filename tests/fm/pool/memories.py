"""Memory for a pool, as a fabric would hand it over, and a pool's server on it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import Protocol

from softcxl.fm.pool.server import PoolServer
from softcxl.fm.pool.source import Ranges, SourceObserver
from softcxl.pool.layout import Plan, address
from softcxl.pool.native import Memory, Region
from softcxl.pool.protocol import PROTOCOL, Allocate, Hello, Located, Opcode, Policy, Separate

PLAN = Plan(slots=16, regions=256, heap=4 << 20)
SOURCE = 8 << 20
"""Bytes of a source, if nothing else is said."""


class FakeSource:
    """A device's memory in a file without a name. It tells its observer what is done to it, and then does it."""

    offset = 0

    def __init__(
        self, name: str, size: int = SOURCE, *, device: str | None = None, switch: str | None = None
    ) -> None:
        self.name, self.size = name, size
        self.device, self.switch = device or name, switch
        self.fd = os.memfd_create(name)
        os.truncate(self.fd, size)
        self.memory = mmap.mmap(self.fd, size)
        self._bad = mmap.mmap(-1, size // 64)  # shared with processes that are forked, as the memory is
        self.observer: SourceObserver | None = None
        self.reason = ""

    @property
    def lines(self) -> set[int]:
        """Offsets of the lines that are poisoned."""
        return {at * 64 for at, bad in enumerate(self._bad[:]) if bad} if any(self._bad[:]) else set()

    def watch(self, observer: SourceObserver) -> None:
        self.observer = observer
        if self.reason:
            observer.failed(self.reason)
        if self.lines:
            observer.poisoned([(line, 64) for line in sorted(self.lines)])

    def fail(self, reason: str = "its link is down") -> None:
        self.reason = reason
        if self.observer:
            self.observer.failed(reason)

    def spoil(self) -> None:
        """Lose what it held, while it does not answer."""
        if self.observer:
            self.observer.spoiled()
        self.memory[:] = b"\xee" * self.size

    def come_back(self, *, kept: bool) -> None:
        self.reason = ""
        if not kept:
            self.memory[:] = b"\xee" * self.size
        if self.observer:
            self.observer.returned(kept)

    def poison(self, *offsets: int) -> None:
        told: Ranges = [(offset // 64 * 64, 64) for offset in offsets]
        if self.observer:
            self.observer.poisoned(told)
        for line, _ in told:
            self._bad[line // 64] = 1
            self.memory[line : line + 64] = b"\xbd" * 64

    def poisoned(self, offset: int, size: int) -> list[tuple[int, int]]:
        return [(line, 64) for line in sorted(self.lines) if offset - 64 < line < offset + size]

    def clear_poison(self, offset: int, length: int) -> None:
        for line in range(offset, offset + length, 64):
            if line in self.lines:
                self._bad[line // 64] = 0
                self.memory[line : line + 64] = bytes(64)


class Mapped(Protocol):
    """A source's memory, as a client has it."""

    name: str
    memory: mmap.mmap


def arena(plan: Plan = PLAN) -> int:
    """The file of a pool's arena."""
    fd = os.memfd_create("arena")
    os.truncate(fd, plan.size)
    return fd


class Client:
    """A client of a server in this process, past all sockets: a slot, and memory as it is mapped."""

    def __init__(self, server: PoolServer, sources: Sequence[Mapped], name: str = "test") -> None:
        self.server = server
        hello = Hello(
            protocol=PROTOCOL,
            pid=os.getpid(),
            slot=0,
            epoch=0,
            token=b"",
            lease=0,
            name=name.encode(),
            host=b"",
        )
        welcome = server.attach(hello, os.getpid())
        self.slot, self.epoch = welcome.slot, welcome.epoch
        self.execute(Opcode.JOURNAL)
        self.directory = server.directory.memory
        self.sources: list[Memory | None] = [self.directory]
        for number, held in sorted(server.sources.all.items()):
            if number:
                self.sources += [None] * (number - len(self.sources))
                self.sources.append(Memory(next(one for one in sources if one.name == held.name).memory))

    def execute(self, opcode: Opcode, data: bytes = b"") -> bytes:
        status, answer = self.server.execute(self.slot, opcode, data)
        assert status == 0, answer.decode()
        return answer

    def allocate(
        self, size: int, copies: int = 1, *, name: str = "", source: int = 0, flags: int = 0
    ) -> Located:
        asked = Allocate(
            size=size, request=0, copies=copies, policy=Policy.SPREAD, separate=Separate.DEVICE, mode=2, flags=flags,
            source=source, lease=0, reserved0=b"", name=name.encode(),
        )  # fmt: skip
        return Located.unpack(self.execute(Opcode.ALLOCATE, asked.pack()))

    def region(self, located: Located) -> Region:
        return Region(self.directory, located.index, located.generation, self.sources, self.slot, self.epoch)


def copies_of(server: PoolServer, sources: Sequence[FakeSource], index: int) -> dict[int, bytes]:
    """What each healthy copy of a region holds, past all protocol."""
    record = server.directory.region(index)
    found = {}
    by_name = {one.name: one for one in sources}
    for copy in range(record.copies):
        if record.healthy >> copy & 1:
            where = getattr(record, f"extent{copy}")
            held = server.sources.all[where >> 56]
            offset = where - address(held.number, 0)
            found[copy] = by_name[held.name].memory[offset : offset + record.size]
    return found
