"""Channels as the server has them: who made which, who takes part, and what becomes of it when somebody dies.

All of it stands in the channels' own regions (`layout.ChannelHead`), so that a server that starts again finds it there.
A ring or queue stays as long as somebody has it open or something is left in it; a service as long as somebody calls
or serves it. A client's table of calls stays for good: whoever has its slot next goes on with it, so that numbers of
calls never come again.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Final

from softcxl.fm.pool.errors import Refusal
from softcxl.pool import layout, rpc
from softcxl.pool.buffer import Spot
from softcxl.pool.channel import GIVEN, REFERENCE
from softcxl.pool.codec import UNSERVED
from softcxl.pool.errors import Closed, Corrupt, Empty
from softcxl.pool.layout import CHANNEL, CHANNEL_AT, ChannelHead
from softcxl.pool.native import Caller, Memory, Queue, Ring, Worker
from softcxl.pool.protocol import (
    Adopt,
    Attach,
    Attached,
    CallsOf,
    ChannelKind,
    Declare,
    Detach,
    Give,
    Opcode,
    Remove,
    Role,
    Status,
)

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator

    from softcxl.fm.pool.heap import Extent, Heap

RING_SIZE: Final = 1 << 20
QUEUE_CELLS: Final = 256
RECORD_SIZE: Final = 1008
SERVICE_CELLS: Final = 1024
_LARGEST: Final = 1 << 40
_WHAT: Final = {kind: kind.name.lower() for kind in ChannelKind}
_ROLES: Final = {
    ChannelKind.RING: (Role.PRODUCER, Role.CONSUMER),
    ChannelKind.QUEUE: (Role.USER,),
    ChannelKind.SERVICE: (Role.WORKER, Role.CLIENT),
}
_LENGTH: Final = 0x7FFFFFFF
"""Of the first word of a ring's record: its length in bytes."""
_READY: Final = 2
_TAKING: Final = 3
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
        self.repeatable = [number for (number,) in struct.iter_unpack("<I", behind) if number]

    @property
    def at(self) -> int:
        """Where what it is begins in the arena."""
        return self.extent.at + CHANNEL_AT

    @property
    def room(self) -> int:
        """How much that may be, in bytes."""
        return self.extent.size - CHANNEL_AT

    def __str__(self) -> str:
        return f"{_WHAT[self.kind]} {layout.decode_name(self.extent.name).partition(':')[2]!r}"

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


class Channels:
    """The channels of a pool. `slots` is how many clients there can be."""

    def __init__(
        self, heap: Heap, slots: int, *, lease: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._heap = heap
        self._memory = heap.memory
        self._slots = min(slots, 4096)
        self._lease = lease
        self._clock = clock
        self._by_name: dict[bytes, Channel] = {}
        self._by_index: dict[int, Channel] = {}
        self._tables: dict[int, Channel] = {}
        self._of_slot: dict[int, set[int]] = {}
        self._unserved: set[int] = set()
        # Regions on their way: index to generation, the channel's index (or None after a restart), and since when
        self._given: dict[int, tuple[int, int | None, float]] = {
            index: (generation, None, clock()) for index, generation in heap.kept()
        }
        self.handlers: dict[int, Callable[[int, bytes], bytes]] = {
            Opcode.ATTACH: lambda slot, data: self.attach(slot, Attach.unpack(data)).pack(),
            Opcode.DETACH: self._detach,
            Opcode.CALLS_OF: lambda slot, data: self.calls_of(slot, CallsOf.unpack(data).slot).pack(),
            Opcode.GIVE: self._give,
            Opcode.ADOPT: self._adopt,
            Opcode.REMOVE: self._remove,
            Opcode.DECLARE: self._declare,
        }
        for extent in list(heap.channels()):
            self._recover(extent)
        for table in self._tables.values():
            self._caller(table).mend(layout.SERVER)  # calls that the server had been about to refuse

    def _recover(self, extent: Extent) -> None:
        if extent.size < CHANNEL_AT:
            return
        head = ChannelHead.unpack(self._heap.map[extent.at : extent.at + layout.CHANNEL_HEAD])
        if head.magic != layout.CHANNEL_MAGIC or head.kind not in list(ChannelKind):
            # The server was killed while it made it: nobody was told of it
            self._heap.drop(extent)
            return
        channel = Channel(self._memory, self._heap.map, extent)
        self._keep(channel)
        for slot in channel.users | channel.workers | {owner - 1 for owner in channel.owners if owner}:
            if channel.kind is not ChannelKind.CALLS:
                self._of_slot.setdefault(slot, set()).add(extent.region)
        if channel.kind in (ChannelKind.QUEUE, ChannelKind.SERVICE):
            self._queue(channel).mend(layout.SERVER)

    def _keep(self, channel: Channel) -> None:
        self._by_index[channel.extent.region] = channel
        if channel.extent.name:
            self._by_name[channel.extent.name] = channel
        if channel.kind is ChannelKind.CALLS:
            self._tables[channel.owners[0] - 1] = channel
        if channel.kind is ChannelKind.SERVICE and not channel.workers:
            self._unserved.add(channel.extent.region)

    # -- requests --------------------------------------------------------------------------------------------

    def attach(self, slot: int, request: Attach) -> Attached:
        """Make or find a channel, and let a client take part in it."""
        try:
            kind, role = ChannelKind(request.kind), Role(request.role)
        except ValueError:
            raise Refusal(
                Status.MALFORMED, f"there is no channel of kind {request.kind} with role {request.role}"
            ) from None
        if role not in _ROLES.get(kind, ()):
            raise Refusal(Status.MALFORMED, f"a {_WHAT[kind]} has no {role.name.lower()}")
        name = request.name.partition(b"\0")[0]
        if not name:
            raise Refusal(Status.MALFORMED, f"a {_WHAT[kind]} has a name")
        channel, created = self._find_or_make(kind, name, slot, request)
        try:
            self._join(channel, slot, role, request.request)
        except Refusal:
            if created:
                self._drop(channel)
            raise
        self._of_slot.setdefault(slot, set()).add(channel.extent.region)
        return self._place(channel, created)

    def _place(self, channel: Channel, created: bool) -> Attached:
        extent = channel.extent
        return Attached(
            index=extent.region,
            generation=extent.generation,
            at=channel.at,
            size=channel.room,
            created=int(created),
            cells=channel.head.cells,
        )

    def _find_or_make(
        self, kind: ChannelKind, name: bytes, slot: int, request: Attach
    ) -> tuple[Channel, bool]:
        full = _WHAT[kind].encode() + b":" + name
        try:
            layout.encode_name(full.decode())
        except ValueError:
            most = layout.MAX_NAME - len(full) + len(name)
            raise Refusal(
                Status.MALFORMED,
                f"a {_WHAT[kind]}'s name has 1 to {most} bytes of UTF-8, no control characters",
            ) from None
        channel = self._by_name.get(full)
        if channel is None:
            if request.flags & 1:
                raise Refusal(Status.UNKNOWN, f"there is no {_WHAT[kind]} {name.decode()!r}")
            return self._make(kind, full, slot, request.cells, request.size), True
        if kind is ChannelKind.RING and request.size > channel.room:
            raise Refusal(
                Status.EXISTS, f"{channel} is there with {channel.room} bytes; {request.size} were asked for"
            )
        if kind is ChannelKind.QUEUE and (request.cells or request.size):
            room = (channel.room - 256) // channel.head.cells - 16
            if request.cells > channel.head.cells or request.size > room:
                raise Refusal(
                    Status.EXISTS,
                    f"{channel} is there with {channel.head.cells} cells of {room} bytes; "
                    f"{request.cells} of {request.size} were asked for",
                )
        return channel, False

    def _make(self, kind: ChannelKind, name: bytes, slot: int, cells: int, size: int) -> Channel:
        if size > _LARGEST or cells > 1 << 20:
            raise Refusal(
                Status.NO_ROOM, f"a {_WHAT[kind]} of {size} bytes and {cells} cells is more than there can be"
            )
        stride = 64
        if kind is ChannelKind.RING:
            room = 256 + (1 << (max(size or RING_SIZE, 64) - 1).bit_length())
        elif kind is ChannelKind.CALLS:
            room = rpc.TABLE
        else:
            cells = SERVICE_CELLS if kind is ChannelKind.SERVICE else cells or QUEUE_CELLS
            if kind is ChannelKind.QUEUE:
                stride = -(-((size or RECORD_SIZE) + 16) // 64) * 64
            if cells < 2 or cells & (cells - 1) or stride > 65536:
                raise Refusal(
                    Status.MALFORMED,
                    f"a queue has a power of two of cells, 2 or more, each of 65520 bytes at most; "
                    f"not {cells} of {size}",
                )
            room = 256 + cells * stride
        extent = self._heap.make(name, CHANNEL_AT + room)
        at = extent.at + CHANNEL_AT
        if kind is ChannelKind.RING:
            Ring.make(self._memory, at, room)
        elif kind is ChannelKind.CALLS:
            Caller.make(self._memory, at, room, rpc.CALLS, rpc.CALL_STRIDE)
        else:
            Queue.make(self._memory, at, room, cells, stride)
        owner = slot + 1 if kind is ChannelKind.CALLS else 0
        head = ChannelHead(
            magic=0,
            version=layout.VERSION,
            kind=kind,
            owner0=owner,
            owner1=0,
            cells=cells,
            request0=0,
            request1=0,
            users=bytes(512),
            workers=bytes(512),
        )
        self._heap.map[extent.at : extent.at + layout.CHANNEL_HEAD] = head.pack()
        self._memory.store(extent.at, layout.CHANNEL_MAGIC)
        channel = Channel(self._memory, self._heap.map, extent)
        self._keep(channel)
        return channel

    def _join(self, channel: Channel, slot: int, role: Role, request: int) -> None:
        if role in (Role.PRODUCER, Role.CONSUMER):
            end = int(role is Role.CONSUMER)
            if channel.owners[end] == slot + 1 and request and channel.requests[end] == request:
                return  # asked again, of a server that was started meanwhile
            if channel.owners[end]:
                title = self._heap.title(channel.owners[end] - 1)
                raise Refusal(Status.BUSY, f"{channel} has a {role.name.lower()}: {title}")
            channel.reopen(1 << end)
            channel.own(end, slot, request)
        elif role is Role.WORKER:
            if not channel.workers:
                channel.reopen(1)
            channel.join(slot, worker=True)
            self._unserved.discard(channel.extent.region)
        else:
            if role is Role.CLIENT and not channel.workers:
                raise Refusal(Status.UNKNOWN, f"nobody serves {channel}")
            channel.join(slot)

    def detach(self, slot: int, index: int, generation: int, role: int) -> None:
        """A client takes part in it no more."""
        channel = self._by_index.get(index)
        if channel is None or channel.extent.generation != generation:
            raise Refusal(Status.GONE, f"there is no channel {index} of generation {generation}")
        if not self._leave(channel, slot, role):
            raise Refusal(Status.GONE, f"this client has no such part in {channel}")
        mine = {channel.owners[0] - 1, channel.owners[1] - 1} | channel.users | channel.workers
        if slot not in mine:
            self._of_slot.get(slot, set()).discard(index)
        self._drop_unused(channel)

    def calls_of(self, slot: int, of: int) -> Attached:
        """Where a client's calls to services are; its own are made where there are none yet."""
        channel = self._tables.get(of)
        if channel is None:
            if of != slot:
                raise Refusal(Status.UNKNOWN, f"client {of} calls no services")
            channel = self._make(ChannelKind.CALLS, b"calls:%d" % slot, slot, 0, 0)
        return self._place(channel, False)

    def _detach(self, slot: int, data: bytes) -> bytes:
        asked = Detach.unpack(data)
        self.detach(slot, asked.index, asked.generation, asked.role)
        return b""

    def _declare(self, slot: int, data: bytes) -> bytes:
        asked = Declare.unpack(data)
        channel = self._by_index.get(asked.index)
        if channel is None or channel.extent.generation != asked.generation or slot not in channel.workers:
            raise Refusal(Status.DENIED, f"this client does not serve service {asked.index}")
        if asked.function not in channel.repeatable:
            if len(channel.repeatable) == layout.REPEATABLE:
                raise Refusal(
                    Status.NO_ROOM, f"{channel} has {layout.REPEATABLE} functions that may be run again"
                )
            at = channel.extent.at + layout.CHANNEL_HEAD + 4 * len(channel.repeatable)
            self._heap.map[at : at + 4] = asked.function.to_bytes(4, "little")
            channel.repeatable.append(asked.function)
        return b""

    def _remove(self, _: int, data: bytes) -> bytes:
        asked = Remove.unpack(data)
        self.remove(asked.kind, asked.name)
        return b""

    def remove(self, kind: int, name: bytes) -> None:
        """Remove a channel that nobody has open, with what is left in it."""
        if kind not in (ChannelKind.RING, ChannelKind.QUEUE):
            raise Refusal(Status.MALFORMED, f"no ring and no queue, but kind {kind}")
        channel = self._by_name.get(_WHAT[ChannelKind(kind)].encode() + b":" + name.partition(b"\0")[0])
        if channel is None:
            raise Refusal(
                Status.UNKNOWN, f"there is no {_WHAT[ChannelKind(kind)]} {layout.decode_name(name)!r}"
            )
        if any(channel.owners) or channel.users:
            raise Refusal(Status.BUSY, f"somebody has {channel} open")
        self._drop(channel)

    # -- the dead --------------------------------------------------------------------------------------------

    def mend(self, slot: int) -> None:
        """A client has died: see to all that it took part in. Any number of times."""
        mine = [self._by_index[index] for index in self._of_slot.pop(slot, ()) if index in self._by_index]
        served = False
        for channel in mine:
            served |= slot in channel.workers
            if channel.kind in (ChannelKind.QUEUE, ChannelKind.SERVICE):
                self._queue(channel).mend(slot)
        for table in self._tables.values() if served else ():
            self._caller(table).mend(slot)
        if slot in self._tables:
            self._give_up(slot, self._tables[slot])
        for channel in mine:
            for role in _ROLES[channel.kind]:
                self._leave(channel, slot, role)
            self._drop_unused(channel)

    def tick(self) -> None:
        """Now and then: calls that came to a service whose last worker had just gone are told so."""
        for index in list(self._unserved):
            self._fail_calls(self._by_index[index])
        before = self._clock() - self._lease
        if any(since < before for _, _, since in self._given.values()):
            self._free_lost(before)

    def _queue(self, channel: Channel) -> Queue:
        return Queue(self._memory, channel.at, channel.room, layout.SERVER)

    def _caller(self, table: Channel) -> Caller:
        return Caller(self._memory, table.at, table.room, self._heap.queue)

    def _leave(self, channel: Channel, slot: int, role: int) -> bool:
        if role in (Role.PRODUCER, Role.CONSUMER) and channel.kind is ChannelKind.RING:
            end = int(role == Role.CONSUMER)
            if channel.owners[end] != slot + 1:
                return False
            Ring(self._memory, channel.at, channel.room, end == 0).close()
            channel.own(end, None)
            return True
        if role == Role.WORKER:
            if not channel.leave(slot, worker=True):
                return False
            if not channel.workers:
                self._unserved.add(channel.extent.region)
                self._fail_calls(channel)
            return True
        return channel.leave(slot)

    def _fail_calls(self, channel: Channel) -> None:
        """Nobody serves it: whoever waits, or comes, is told."""
        queue = self._queue(channel)
        queue.close()
        worker = Worker(self._memory, queue)
        for client, table in self._tables.items():
            worker.learn(client, table.at, table.room)
        while True:
            try:
                worker.next(0)
            except (Empty, Closed):
                return
            except (KeyError, Corrupt):
                continue
            worker.answer(b"", UNSERVED)

    def _give_up(self, slot: int, table: Channel) -> None:
        """Free what a dead client had asked; what runs is freed by who runs it."""
        caller = self._caller(table)
        for cell in range(rpc.CALLS):
            word = self._memory.load(table.at + 128 + cell * rpc.CALL_STRIDE)
            if word & 0xFF:
                caller.cancel((cell, word >> 24))

    def _drop_unused(self, channel: Channel) -> None:
        if any(channel.owners) or channel.users or channel.workers:
            return
        if channel.kind in (ChannelKind.RING, ChannelKind.QUEUE) and not channel.empty():
            return
        self._drop(channel)

    def _drop(self, channel: Channel) -> None:
        index = channel.extent.region
        if self._by_index.pop(index, None) is None:
            return
        self._by_name.pop(channel.extent.name, None)
        self._unserved.discard(index)
        self._memory.store(channel.extent.at, 0)
        self._heap.drop(channel.extent)
        for region, (generation, of, _) in list(self._given.items()):
            if of == index:
                del self._given[region]
                self._heap.free(region, generation)

    # -- regions on their way --------------------------------------------------------------------------------

    def _give(self, slot: int, data: bytes) -> bytes:
        asked = Give.unpack(data)
        channel = self._mine(slot, asked.channel, asked.channel_generation)
        if self._given.get(asked.index, (0,))[0] == asked.generation:
            return b""  # asked again, of a server that was started meanwhile
        self._heap.keep(slot, asked.index, asked.generation)
        self._given[asked.index] = asked.generation, channel.extent.region, self._clock()
        return b""

    def _adopt(self, slot: int, data: bytes) -> bytes:
        asked = Adopt.unpack(data)
        channel = self._mine(slot, asked.channel, asked.channel_generation)
        given = self._given.get(asked.index)
        if given is None and self._heap.has(slot, asked.index, asked.generation):
            return b""
        if given is None or given[0] != asked.generation or given[1] not in (None, channel.extent.region):
            raise Refusal(Status.GONE, f"region {asked.index} is not on its way in {channel}")
        self._heap.hand_over(slot, asked.index, asked.generation)
        del self._given[asked.index]
        return b""

    def _mine(self, slot: int, index: int, generation: int) -> Channel:
        channel = self._by_index.get(index)
        if channel is None or channel.extent.generation != generation:
            raise Refusal(Status.GONE, f"there is no channel {index} of generation {generation}")
        if slot + 1 not in channel.owners and slot not in channel.users:
            raise Refusal(Status.DENIED, f"this client has no part in {channel}")
        return channel

    def _free_lost(self, before: float) -> None:
        """Free what was given to a channel and is in no record of it any more: who took it died before he had it."""
        there = {
            (spot.region, spot.generation)
            for channel in self._by_index.values()
            if channel.kind in (ChannelKind.RING, ChannelKind.QUEUE)
            for spot in self._spots(channel)
        }
        for index, (generation, of, since) in list(self._given.items()):
            if (index, generation) in there:
                self._given[index] = generation, of, self._clock()
            elif since < before:
                del self._given[index]
                self._heap.free(index, generation)

    def _spots(self, channel: Channel) -> Iterator[Spot]:
        """What the records in a channel refer to. Others put and take meanwhile: what they have is not looked for."""
        arena, at = self._heap.map, channel.at
        if channel.kind is ChannelKind.QUEUE:
            stride = (channel.room - 256) // channel.head.cells // 64 * 64
            cells = [at + 256 + cell * stride for cell in range(channel.head.cells)]
            places = [cell + 8 for cell in cells if self._memory.load(cell) & 0xFF in (_READY, _TAKING)]
        else:
            places = self._records(channel)
        for place in places:
            length, kind = struct.unpack_from("<II", arena, place)
            if kind & (REFERENCE | GIVEN) == REFERENCE | GIVEN and length & _LENGTH == 32:
                yield Spot.unpack(self._wrapped(channel, place + 8))

    def _records(self, channel: Channel) -> list[int]:
        head, size = self._memory.load(channel.at + 128), channel.ring_size
        places: list[int] = []
        while len(places) < size // 8:
            place = channel.at + 256 + head % size // 8 * 8
            header = self._memory.load(place)
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
