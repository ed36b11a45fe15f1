"""One channel, as its head in the arena says: what it is, whose its ends are, who has it open."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from softcxl.pool import layout
from softcxl.pool.layout import CHANNEL, CHANNEL_AT, ChannelHead
from softcxl.pool.protocol import ChannelKind

if TYPE_CHECKING:
    import mmap

    from softcxl.fm.pool.heap import Extent
    from softcxl.pool.native import Memory

_MARK_AT: Final = 6
_CLOSED_AT: Final = 208
"""Of the word of a ring or a queue that says which side has gone."""


class Channel:
    """One of them, as its head says."""

    def __init__(self, memory: Memory, arena: mmap.mmap, extent: Extent) -> None:
        self.extent = extent
        self._memory = memory
        self.head = ChannelHead.unpack(arena[extent.at : extent.at + layout.CHANNEL_HEAD])
        self.kind = ChannelKind(self.head.kind)
        self.owners = [self.head.owner0, self.head.owner1]
        self.requests = [self.head.request0, self.head.request1]
        self.users = _slots(self.head.users)
        self.workers = _slots(self.head.workers)
        behind = arena[
            extent.at + layout.CHANNEL_HEAD : extent.at + layout.CHANNEL_HEAD + 4 * layout.REPEATABLE
        ]
        self.mark = int.from_bytes(arena[self.at + _MARK_AT : self.at + _MARK_AT + 2], "little")
        """Of a service: what tells calls of it from calls of others, which lie in the same tables."""
        self.repeatable = [number for (number,) in struct.iter_unpack("<I", behind) if number]

    @property
    def damaged(self) -> bool:
        """Whether somebody has written over its head."""
        return self.kind in (ChannelKind.QUEUE, ChannelKind.SERVICE) and not (
            2 <= self.head.cells <= (self.room - 256) // 64
        )

    @property
    def at(self) -> int:
        """Where what it is begins in the arena."""
        return self.extent.at + CHANNEL_AT

    @property
    def room(self) -> int:
        """How much that may be, in bytes."""
        return self.extent.size - CHANNEL_AT

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {layout.decode_name(self.extent.name).partition(':')[2]!r}"

    def own(self, end: int, slot: int | None, request: int = 0) -> None:
        """Give an end to a slot, or to nobody."""
        self.requests[end] = request
        self._memory.store(self.extent.at + CHANNEL[f"request{end}"], request)
        self.owners[end] = 0 if slot is None else slot + 1
        self._memory.store(self.extent.at + CHANNEL[f"owner{end}"], self.owners[end])

    def join(self, slot: int, *, worker: bool = False) -> None:
        """Count a slot in."""
        (self.workers if worker else self.users).add(slot)
        self._mark(slot, worker, True)

    def leave(self, slot: int, *, worker: bool = False) -> bool:
        """Count a slot out; whether it was in."""
        among = self.workers if worker else self.users
        if slot not in among:
            return False
        among.remove(slot)
        self._mark(slot, worker, False)
        return True

    def _mark(self, slot: int, worker: bool, present: bool) -> None:
        at = self.extent.at + CHANNEL["workers" if worker else "users"] + slot // 64 * 8
        bit = 1 << slot % 64
        word = self._memory.load(at)
        self._memory.store(at, word | bit if present else word & ~bit)

    def reopen(self, bits: int) -> None:
        """Somebody is on that side again."""
        word = self._memory.load(self.at + _CLOSED_AT)
        while not self._memory.swap(self.at + _CLOSED_AT, word, word & ~bits):
            word = self._memory.load(self.at + _CLOSED_AT)

    @property
    def ring_size(self) -> int:
        """Bytes of a ring's records."""
        return 1 << (self.room - 256).bit_length() - 1

    def empty(self) -> bool:
        """Whether nothing is left in it."""
        if self.kind is ChannelKind.RING:  # its producer's index may be behind, where he died
            head = self._memory.load(self.at + 128)
            return not self._memory.load(self.at + 256 + head % self.ring_size // 8 * 8)
        return self._memory.load(self.at + 64) == self._memory.load(self.at + 128)


def _slots(bitmap: bytes) -> set[int]:
    bits = int.from_bytes(bitmap, "little")
    found = set()
    while bits:
        low = bits & -bits
        found.add(low.bit_length() - 1)
        bits ^= low
    return found
