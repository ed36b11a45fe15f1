"""Regions on their way: given to a channel by who sent a record of it, and not yet had by who took that record."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from softcxl.fm.pool.errors import Refusal
from softcxl.pool.buffer import Spot
from softcxl.pool.protocol import ChannelKind, Status
from softcxl.pool.reference import GIVEN, REFERENCE

if TYPE_CHECKING:
    from softcxl.fm.pool.channel import Channel
    from softcxl.fm.pool.heap import Heap

_LENGTH: Final = 0x7FFFFFFF
"""Of the first word of a ring's record: its length in bytes."""
_READY: Final = 2
_TAKING: Final = 3


class Gifts:
    """What is on its way. `lease` is for how long, in seconds, a record may be gone before its region is freed."""

    def __init__(self, heap: Heap, lease: float, clock: Callable[[], float]) -> None:
        self._heap = heap
        self._lease = lease
        self._clock = clock
        # By the region's index: its generation, the channel's index (None after a restart), when it was last looked
        # for, and whether it was found then
        self._given: dict[int, tuple[int, int | None, float, bool]] = {
            index: (generation, None, clock(), True) for index, generation in heap.kept()
        }

    def give(self, slot: int, index: int, generation: int, channel: Channel) -> None:
        """A client gives its region to a channel. Raises Refusal where it is none of its own."""
        if self._given.get(index, (0,))[0] == generation:
            return  # asked again, of a server that was started meanwhile
        self._heap.keep(slot, index, generation)
        self._given[index] = generation, channel.extent.region, self._clock(), True

    def adopt(self, slot: int, index: int, generation: int, channel: Channel) -> None:
        """A client that took the record has the region now. Raises Refusal where it is not in that channel."""
        given = self._given.get(index)
        if given is None and self._heap.has(slot, index, generation):
            return  # asked again
        if given is None or given[0] != generation or given[1] not in (None, channel.extent.region):
            raise Refusal(Status.GONE, f"region {index} is not on its way in {channel}")
        self._heap.hand_over(slot, index, generation)
        del self._given[index]

    def free_with(self, channel: int) -> None:
        """A channel goes, and what is in it."""
        for index, (generation, of, _, _) in list(self._given.items()):
            if of == channel:
                del self._given[index]
                self._heap.free(index, generation)

    def free_lost(self, channels: Iterable[Channel]) -> None:
        """Free what was given to a channel and is in no record of it any more: who took it died before he had it."""
        before = self._clock() - self._lease
        if all(since >= before for _, _, since, _ in self._given.values()):
            return
        there = {
            (spot.region, spot.generation)
            for channel in channels
            if channel.kind in (ChannelKind.RING, ChannelKind.QUEUE)
            for spot in self._spots(channel)
        }
        for index, (generation, of, since, found) in list(self._given.items()):
            if (index, generation) in there:
                self._given[index] = generation, of, self._clock(), True
            elif since < before and found:
                # Who took its record may have done so just now, and be about to adopt it
                self._given[index] = generation, of, self._clock(), False
            elif since < before:
                del self._given[index]
                self._heap.free(index, generation)

    def _spots(self, channel: Channel) -> Iterator[Spot]:
        """What the records in a channel refer to. Others put and take meanwhile: what they have is not looked for."""
        arena, at = self._heap.map, channel.at
        if channel.kind is ChannelKind.QUEUE:
            stride = (channel.room - 256) // channel.head.cells // 64 * 64
            cells = [at + 256 + cell * stride for cell in range(channel.head.cells)]
            places = [cell + 8 for cell in cells if self._heap.memory.load(cell) & 0xFF in (_READY, _TAKING)]
        else:
            places = self._records(channel)
        for place in places:
            length, kind = struct.unpack_from("<II", arena, place)
            if kind & (REFERENCE | GIVEN) == REFERENCE | GIVEN and length & _LENGTH == 32:
                yield Spot.unpack(self._wrapped(channel, place + 8))

    def _records(self, channel: Channel) -> list[int]:
        head, size = self._heap.memory.load(channel.at + 128), channel.ring_size
        places: list[int] = []
        while len(places) < size // 8:
            place = channel.at + 256 + head % size // 8 * 8
            header = self._heap.memory.load(place)
            if not header:
                break
            places.append(place)
            head += 8 + ((header & _LENGTH) + 7 & ~7)
        return places

    def _wrapped(self, channel: Channel, place: int) -> bytes:
        if channel.kind is ChannelKind.QUEUE:
            return self._heap.map[place : place + 32]
        size, start = channel.ring_size, place - channel.at - 256
        return bytes(self._heap.map[channel.at + 256 + (start + step) % size] for step in range(32))
