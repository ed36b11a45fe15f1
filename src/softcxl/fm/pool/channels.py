"""Channels as the server has them: who made which, who takes part, and what becomes of it when somebody dies.

All of it stands in the channels' own regions (`layout.ChannelHead`), so that a server that starts again finds it there.
A ring or queue stays as long as somebody has it open or something is left in it; a service as long as somebody calls
or serves it. A client's table of calls stays for good: whoever has its slot next goes on with it, so that numbers of
calls never come again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final

from softcxl.fm.pool.channel import Channel
from softcxl.fm.pool.errors import Refusal
from softcxl.fm.pool.gifts import Gifts
from softcxl.pool import layout
from softcxl.pool.codec import UNSERVED
from softcxl.pool.errors import Closed, Empty, PoolError
from softcxl.pool.layout import CHANNEL_AT, ChannelHead
from softcxl.pool.native import Caller, Queue, Ring, Worker
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
from softcxl.pool.table import ASKED, CALL_STRIDE, CALLS, TABLE, word_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from softcxl.fm.pool.heap import Extent, Heap

log = logging.getLogger(__name__)

RING_SIZE: Final = 1 << 20
QUEUE_CELLS: Final = 256
RECORD_SIZE: Final = 1008
SERVICE_CELLS: Final = 1024
CALL_NOTE: Final = 64
"""Bytes of a cell of a service's queue."""
_LARGEST: Final = 1 << 40
_MARKS: Final = (1 << 16) - 1
_WHAT: Final = {kind: kind.name.lower() for kind in ChannelKind}
_ROLES: Final = {
    ChannelKind.RING: (Role.PRODUCER, Role.CONSUMER),
    ChannelKind.QUEUE: (Role.USER,),
    ChannelKind.SERVICE: (Role.WORKER, Role.CLIENT),
}


class Channels:
    """The channels of a pool. `slots` is how many clients there can be."""

    def __init__(
        self, heap: Heap, slots: int, *, lease: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._heap = heap
        self._memory = heap.memory
        self._slots = min(slots, 4096)
        self._by_name: dict[bytes, Channel] = {}
        self._by_index: dict[int, Channel] = {}
        self._tables: dict[int, Channel] = {}
        self._of_slot: dict[int, set[int]] = {}
        self._unserved: set[int] = set()
        self._marks: set[int] = set()
        self._last_mark = 0
        self.gifts = Gifts(heap, lease, clock)
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
        self._last_mark = max(self._marks, default=0)
        for table in self._tables.values():
            # Calls that the server had been about to refuse
            self._tried(table, lambda one: self._caller(one).mend(layout.SERVER))

    def _recover(self, extent: Extent) -> None:
        if extent.size < CHANNEL_AT:
            return
        head = ChannelHead.unpack(self._heap.map[extent.at : extent.at + layout.CHANNEL_HEAD])
        if head.magic != layout.CHANNEL_MAGIC or head.kind not in list(ChannelKind):
            # The server was killed while it made it: nobody was told of it
            self._heap.drop(extent)
            return
        channel = Channel(self._memory, self._heap.map, extent)
        if channel.damaged:
            log.error("%s: its head cannot be: it is dropped", channel)
            self._heap.drop(extent)
            return
        self._keep(channel)
        for slot in channel.users | channel.workers | {owner - 1 for owner in channel.owners if owner}:
            if channel.kind is not ChannelKind.CALLS:
                self._of_slot.setdefault(slot, set()).add(extent.region)
        if channel.kind in (ChannelKind.QUEUE, ChannelKind.SERVICE):
            self._tried(channel, lambda one: self._queue(one).mend(layout.SERVER))

    def _keep(self, channel: Channel) -> None:
        self._by_index[channel.extent.region] = channel
        if channel.extent.name:
            self._by_name[channel.extent.name] = channel
        if channel.kind is ChannelKind.CALLS:
            self._tables[channel.owners[0] - 1] = channel
        if channel.kind is ChannelKind.SERVICE:
            self._marks.add(channel.mark)
            if not channel.workers:
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
        stride = CALL_NOTE
        mark = self._mark() if kind is ChannelKind.SERVICE else 0
        if kind is ChannelKind.RING:
            room = 256 + (1 << (max(size or RING_SIZE, 64) - 1).bit_length())
        elif kind is ChannelKind.CALLS:
            room = TABLE
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
            Caller.make(self._memory, at, room, CALLS, CALL_STRIDE)
        else:
            Queue.make(self._memory, at, room, cells, stride, mark)
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

    def _mark(self) -> int:
        """A mark that no other service has; one that was another's comes last, as its workers may be slow to go."""
        if len(self._marks) >= _MARKS:
            raise Refusal(Status.NO_ROOM, f"there are {_MARKS} services")
        while True:
            self._last_mark = self._last_mark % _MARKS + 1
            if self._last_mark not in self._marks:
                return self._last_mark

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
                self._tried(channel, lambda one: self._queue(one).mend(slot))
        for table in self._tables.values() if served else ():
            self._tried(table, lambda one: self._caller(one).mend(slot))
        if slot in self._tables:
            self._tried(self._tables[slot], self._give_up)
        for channel in mine:
            for role in _ROLES[channel.kind]:
                self._leave(channel, slot, role)
            self._drop_unused(channel)

    def tick(self) -> None:
        """Now and then: calls that came to a service whose last worker had just gone are told so."""
        for index in list(self._unserved):
            self._tried(self._by_index[index], self._fail_calls)
        self.gifts.free_lost(self._by_index.values())

    @staticmethod
    def _tried(channel: Channel, do: Callable[[Channel], object]) -> None:
        """Do what may find that a client has written over the channel: then nobody is helped with it."""
        try:
            do(channel)
        except PoolError as error:
            log.warning("%s: %s", channel, error)

    def _queue(self, channel: Channel) -> Queue:
        return Queue(self._memory, channel.at, channel.room, layout.SERVER)

    def _caller(self, table: Channel) -> Caller:
        return Caller(self._memory, table.at, table.room, self._heap.queue)

    def _leave(self, channel: Channel, slot: int, role: int) -> bool:
        if role in (Role.PRODUCER, Role.CONSUMER) and channel.kind is ChannelKind.RING:
            end = int(role == Role.CONSUMER)
            if channel.owners[end] != slot + 1:
                return False
            self._tried(channel, lambda one: Ring(self._memory, one.at, one.room, end == 0).close())
            channel.own(end, None)
            return True
        if role == Role.WORKER:
            if not channel.leave(slot, worker=True):
                return False
            if not channel.workers:
                self._unserved.add(channel.extent.region)
                self._tried(channel, self._fail_calls)
                self._tried(channel, self._fail_unnoted)
            return True
        return channel.leave(slot)

    def _fail_calls(self, channel: Channel) -> None:
        """Nobody serves it: whoever waits, or comes, is told."""
        try:
            queue = self._queue(channel)
            queue.close()
            worker = self._refuser(queue)
            for _ in range(4 * SERVICE_CELLS):
                try:
                    worker.next(0)
                except (Empty, Closed):
                    return
                except KeyError:
                    continue  # of nobody's call
                worker.answer(b"", UNSERVED)
        except PoolError as error:
            log.error("%s: somebody has written over its queue, which is made anew: %s", channel, error)
            cells = channel.head.cells
            Queue.make(self._memory, channel.at, channel.room, cells, CALL_NOTE, channel.mark)
            self._queue(channel).close()
            self._fail_unnoted(channel)

    def _fail_unnoted(self, channel: Channel) -> None:
        """The same, of calls whose notes are not in its queue: a worker has them that has failed, or they are lost."""
        worker = self._refuser(self._queue(channel))
        asked = channel.mark << 8 | ASKED
        for client, table in self._tables.items():
            for cell in range(CALLS):
                word = self._memory.load(word_at(table.at, cell))
                if word & 0xFFFFFF == asked:
                    with contextlib.suppress(KeyError):  # its table cannot be
                        if worker.take((client, cell, word >> 24)) is not None:
                            worker.answer(b"", UNSERVED)

    def _refuser(self, queue: Queue) -> Worker:
        """A worker for calls that nobody serves."""
        worker = Worker(self._memory, queue)
        for client, table in self._tables.items():
            self._tried(table, lambda one, client=client: worker.learn(client, one.at, one.room))  # type: ignore[misc]
        return worker

    def _give_up(self, table: Channel) -> None:
        """Free what a dead client had asked; what runs is freed by who runs it."""
        caller = self._caller(table)
        for cell in range(CALLS):
            word = self._memory.load(word_at(table.at, cell))
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
        if channel.kind is ChannelKind.SERVICE:
            self._marks.discard(channel.mark)
        self._memory.store(channel.extent.at, 0)
        self._heap.drop(channel.extent)
        self.gifts.free_with(index)

    # -- regions on their way --------------------------------------------------------------------------------

    def _give(self, slot: int, data: bytes) -> bytes:
        asked = Give.unpack(data)
        channel = self._mine(slot, asked.channel, asked.channel_generation)
        self.gifts.give(slot, asked.index, asked.generation, channel)
        return b""

    def _adopt(self, slot: int, data: bytes) -> bytes:
        asked = Adopt.unpack(data)
        channel = self._mine(slot, asked.channel, asked.channel_generation)
        self.gifts.adopt(slot, asked.index, asked.generation, channel)
        return b""

    def _mine(self, slot: int, index: int, generation: int) -> Channel:
        channel = self._by_index.get(index)
        if channel is None or channel.extent.generation != generation:
            raise Refusal(Status.GONE, f"there is no channel {index} of generation {generation}")
        if slot + 1 not in channel.owners and slot not in channel.users:
            raise Refusal(Status.DENIED, f"this client has no part in {channel}")
        return channel
