"""What a pool's server is to the pool access device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Memory(Protocol):
    """Memory that guests map: `size` bytes of the file `fd` from `offset` on, both multiples of 4096. `name` has 48
    bytes of UTF-8 at most, `source` is the number that pool addresses have; 0 is the arena."""

    @property
    def source(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def fd(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def offset(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Visitor:
    """The guest at a pool access device: the device's name, that of the host that the guest is, and how often the
    device was taken from a machine that could reach the memory yet."""

    device: str
    host: str
    visit: int = 0


class AccessServer(Protocol):
    """A pool's server, as the devices by which guests reach it see it.

    It is called from the threads of guests' doors, several at once, with a lock of the device held: it may wait for
    its own locks, and never for a device. It may ring, and tell its listeners, with its locks held.
    """

    def memories(self) -> Sequence[Memory]:
        """What guests may map, the arena first; the same as long as it serves. Files stay the server's."""

    def ask(self, visitor: Visitor, slot: int, opcode: int, request: bytes) -> tuple[int, bytes]:
        """Do what a program in a guest asks, which says that it has `slot`; 0 before it has one. Returns a status and
        an answer of at most 1024 bytes: a record, or a sentence where the status is not 0."""

    def gone(self, visitor: Visitor) -> None:
        """The guest has left, died or restarted: none of the programs that came by its device is there any more, or
        can reach the memory. From any thread."""

    def ring(self, offset: int) -> None:
        """A guest rings: wake who sleeps on the word at `offset` (bytes, a multiple of 8) of the arena, on the host
        and, by its listeners, in guests. One that is not in the arena is ignored."""

    def listen(self, listener: Callable[[int | None], None]) -> Callable[[], None]:
        """Have `listener` called, from any thread, with the offset of each word that is rung, whoever rings, and with
        None for news from the server. Returns what ends it."""
