"""The pool's server: programs allocate memory from it, and find what others have allocated.

One thread takes calls from shared memory, one clears memory that was freed, one keeps house, one does what takes
longer; programs come by a door at a Unix socket (`softcxl.fm.pool.door`), guests by a device. Whoever dies is seen to
at once: what it held is let go."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from softcxl.fm.pool.accounts import Accounts
from softcxl.fm.pool.allocating import NOT_NOW, Allocating
from softcxl.fm.pool.calls import Calls
from softcxl.fm.pool.channels import Channels
from softcxl.fm.pool.clients import Clients, Fence, Leaver
from softcxl.fm.pool.defragment import Defragmenter
from softcxl.fm.pool.directory import Directory
from softcxl.fm.pool.errors import ArenaUnfit, Refusal
from softcxl.fm.pool.health import Health
from softcxl.fm.pool.heap import Heap
from softcxl.fm.pool.poisoned import Poisoned
from softcxl.fm.pool.rebuild import Rebuilder
from softcxl.fm.pool.regions import Regions
from softcxl.fm.pool.sources import Sources
from softcxl.fm.pool.telling import Telling
from softcxl.fm.pool.waiting import Reply
from softcxl.pool import layout
from softcxl.pool.errors import PoolError
from softcxl.pool.layout import Plan
from softcxl.pool.protocol import (
    LARGEST,
    Allocate,
    Hello,
    Hold,
    Journal,
    ListAnswer,
    ListQuery,
    Named,
    Opcode,
    Ring,
    Status,
    Welcome,
)
from softcxl.wire import WireError

if TYPE_CHECKING:
    from softcxl.fm.pool.source import Source

log = logging.getLogger(__name__)

JOURNAL_SIZE = 1 << 20
"""Bytes of a client's journal: the longest write that is all or nothing where there is one copy."""

_LIST_MOST = (LARGEST - ListAnswer.__layout__.size) // 8
_LATER = (Opcode.ALLOCATE, Opcode.ALLOCATE_MANY)
_SLICE = 0.2

Event = Callable[[str, str, Mapping[str, Any]], None]
"""Told of what happens: kind, of what, and details. From any thread; it must not wait for the pool."""

Handler = Callable[[int, bytes], bytes]
"""Does what a client asks: its slot, the request; returns the answer, of `LARGEST` bytes at most. Raises `Refusal`,
or `WireError` for a request that is malformed."""


class PoolServer:
    """Serves a pool of the memory in `sources`, with its directory in the file `arena`.

    `lease` is for how long, in seconds, a client that cannot be watched may be silent; then `fence` has to say that
    its host can write no more before what it had is given on (without one it is taken at its word). `quotas` are
    bytes by client name, `*` for every other name. `event` is told what happens; `now` is a clock, in seconds.
    Raises `ArenaUnfit`."""

    def __init__(
        self,
        arena: int,
        sources: Sequence[Source],
        *,
        plan: Plan | None = None,
        lease: float = 10.0,
        quotas: Mapping[str, int] | None = None,
        fence: Fence | None = None,
        event: Event | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = threading.RLock()
        self.event: Event = event or (lambda kind, subject, detail: None)
        self.closing = threading.Event()
        self._grace: threading.Timer | None = None
        self._awaited: set[int] = set()
        self.threads: list[threading.Thread] = []
        self.allocating = Allocating(self)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ringers: list[Callable[[int], None]] = []
        self._on_change: list[Callable[[], None]] = []
        self._on_tick: list[Callable[[], None]] = []
        self.directory = directory = Directory(arena, plan, lease=lease, ring=self.ring)
        try:
            self.sources = Sources(directory, sources)
            self.sources.cleaning.event = self.event
            self.calls = Calls(self)
            self.clients = Clients(
                directory,
                self.sources,
                self.lock,
                lease=lease,
                learn=self.calls.learn,
                fence=fence,
                event=self.event,
                now=now,
            )
            self.names = self.clients.names
            self.accounts = Accounts(quotas)
            self.regions = Regions(
                directory, self.sources, self.clients.identities.__getitem__, self.accounts.charge, now
            )
            self.accounts.enforced = True
            self.health = Health(
                directory, self.sources, self.regions, self.lock,
                later=self.later, changed=self.changed, event=self.event,
            )  # fmt: skip
            self.rebuilder = Rebuilder(
                directory, self.sources, self.regions, self.health, self.lock, self.event
            )
            self.defragmenter = Defragmenter(self.rebuilder)
            self._recover()
            heap = Heap(directory, self.regions, self.calls.queue, self.names)
            self.channels = Channels(heap, directory.plan.slots, lease=lease)
        except PoolError as error:
            directory.close()
            raise ArenaUnfit(f"the arena's directory is damaged: {error}") from error
        except BaseException:
            directory.close()
            raise
        self.telling = Telling(self)
        self._handlers: dict[int, Handler] = {
            Opcode.ALLOCATE: self.allocating.allocate,
            Opcode.ALLOCATE_MANY: self.allocating.allocate_many,
            Opcode.OPEN: lambda slot, data: self.regions.uses.open(slot, Named.unpack(data)).pack(),
            Opcode.CLOSE: self.regions.uses.close,
            Opcode.FREE: self._named(self.regions.free),
            Opcode.PIN: self._named(self.regions.uses.pin),
            Opcode.UNPIN: self._named(self.regions.uses.unpin),
            Opcode.HOLD: self._hold,
            Opcode.JOURNAL: self._journal,
            Opcode.LIST: self._list,
            Opcode.TELL: self.telling.handle,
            Opcode.GOODBYE: self._goodbye,
        }
        poisoned = Poisoned(self)
        self._unlocked: dict[int, Handler] = {
            Opcode.POISON: poisoned.query, Opcode.HEAL: poisoned.heal, Opcode.RING: self._ring,
        }  # fmt: skip
        self._handlers |= self.channels.handlers
        self._on_tick.append(self.channels.tick)
        self.clients.leavers += [
            self.calls.forget,
            self.channels.mend,
            self.telling.forget,
            self.regions.uses.gone,
            self._heard,
        ]
        self._awaited.update(self.names)
        self.clients.see_to_the_dead()
        if not self._awaited:
            self.regions.certain()
        self.regions.clearing.wake = self.allocating.wake
        self.on_change(self.rebuilder.changed)
        self.tell("rebuild", lambda: {**self.rebuilder.told(), "moved": self.defragmenter.moved})
        self._on_tick += [self.health.tick, self.sources.backing.tick, self.allocating.tick]
        self.sources.backing.short = lambda name, room: self.event("room short", name, {"bytes": room})
        self.health.watch()

    # -- what others add -------------------------------------------------------------------------------------

    def handle(self, opcode: int, handler: Handler) -> None:
        """Have requests of a kind answered, with the server's lock held."""
        self._handlers[opcode] = handler

    def tell(self, what: str, teller: Callable[[], Any]) -> None:
        """Have something told in JSON: `Pool.tell(what)`. `teller` is called with the server's lock held."""
        self.telling.tellers[what] = teller

    def on_left(self, leaver: Leaver) -> None:
        """Have clients that are gone seen to, before what they own is let go."""
        self.clients.leavers.insert(0, leaver)

    def on_change(self, look: Callable[[], None]) -> None:
        """Have `look` called when copies were lost, or memory is there again. It must return at once."""
        self._on_change.append(look)

    def on_tick(self, tick: Callable[[], None]) -> None:
        """Have `tick` called five times a second, or more often, with the server's lock held."""
        self._on_tick.append(tick)

    # -- running ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Serve."""
        if self._awaited:
            # Clients of the server before may look at memory, of which this one knows nothing until they say so
            with self.lock:
                self.regions.clearing.held = True
            self._grace = threading.Timer(self.clients.lease, self.settled)
            self._grace.daemon = True
            self._grace.start()
        for name, run in (
            ("pool", self.calls.run), ("pool housekeeping", self._keep_house), ("pool clearing", self.allocating.run),
            ("pool work", self._work), ("pool waiting", self.allocating.run_waiting),
        ):  # fmt: skip
            thread = threading.Thread(target=run, name=name, daemon=True)
            thread.start()
            self.threads.append(thread)
        self.allocating.wake()
        self.rebuilder.start()
        self.directory.ready()

    def close(self) -> None:
        """Stop serving. What is allocated stays so, in the arena, for the next server."""
        if self.closing.is_set():
            return
        self.closing.set()
        self.allocating.waiting.close()
        if self._grace is not None:
            self._grace.cancel()
            self._grace.join()
        self.allocating.wake()
        self._jobs.put(None)
        for thread in self.threads:
            thread.join()
        self.threads.clear()
        self.rebuilder.close()
        self.health.close()
        with self.lock:
            self.clients.closed = True
        if not self.regions.clearing.held:
            self.regions.clearing.clear(self.lock)
            # No record tells of these, and they are not zeros
            if not (self.rebuilder.orphans or self.sources.cleaning.held_back):
                self.directory.ended()
        self.sources.close()
        self.directory.close()

    def later(self, job: Callable[[], None]) -> None:
        """Have a job done by a thread for what takes longer; at once, where the server is not running."""
        self._jobs.put(job)
        if not self.threads:
            self._done(self._jobs.get_nowait())

    @property
    def lease(self) -> float:
        """For how long, in seconds, a client that cannot be watched may be silent."""
        return self.clients.lease

    def changed(self) -> None:
        """Have it looked at what can be mended now."""
        for look in self._on_change:
            look()

    def settled(self) -> None:
        """All clients of the server before have said what they look at: what they do not is cleared from now on."""
        with self.lock:
            self.regions.clearing.held = False
            self.regions.clearing.look_again()
            self.allocating.freed.notify_all()

    def _keep_house(self) -> None:
        while not self.closing.wait(min(_SLICE, self.clients.lease / 10)):
            self.directory.beat()
            with self.lock:
                for tick in (self.clients.look, self.regions.sweep, *self._on_tick):
                    self._done(tick)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._done(job)

    @staticmethod
    def _done(job: Callable[[], None] | None) -> None:
        try:
            if job is not None:
                job()
        except Exception:
            log.exception("the pool's work")

    def _recover(self) -> None:
        """See to what a server that died had under way."""
        self.calls.recover()
        if not self.directory.clean:
            for held in self.sources.all.values():
                self.sources.cleaning.clear_free(held, self.lock)
        for said in self.regions.damaged:
            log.error("%s", said)
            self.event("damaged", "arena", {"what": said})

    # -- clients ---------------------------------------------------------------------------------------------

    def attach(self, hello: Hello, pid: int, *, remote: bool = False) -> Welcome:
        """Let a client in, or in again; `remote`: by a device, which tells when its guest has gone. Raises
        `Refusal`."""
        return self.clients.attach(hello, pid, remote=remote)

    def left(self, slot: int, epoch: int | None = None) -> None:
        """A client has gone, and can write no more: all that it held is let go. More than once does no harm. With an
        `epoch`, who has the slot in another one stays."""
        self.clients.left(slot, epoch)

    def hung_up(self, slot: int, epoch: int) -> None:
        """The connection of a client on this machine has ended: it has gone. But one of the server before that has not
        said yet what it has may have come by several, and given one up that took too long."""
        with self.lock:
            said_all = slot not in self._awaited
        if said_all:
            self.left(slot, epoch)
        else:
            self.out_of_sight(slot, epoch)

    def out_of_sight(self, slot: int, epoch: int) -> None:
        """Nobody tells of the death of a client on this machine: its process is looked at."""
        with self.lock:
            if self.clients.is_of(slot, epoch):
                self.clients.unseen.add(slot)

    def ring(self, offset: int) -> None:
        """Wake who sleeps behind a device on the word of the arena at `offset`. From any thread."""
        for ring in list(self._ringers):
            ring(offset)

    def listen(self, ring: Callable[[int], None]) -> Callable[[], None]:
        """Have `ring` called with the offset of each word that is rung; returns what ends it."""
        self._ringers.append(ring)
        return lambda: self._ringers.remove(ring)

    # -- requests --------------------------------------------------------------------------------------------

    def request(self, slot: int, opcode: int, data: bytes, reply: Reply) -> None:
        """Answer a request as `execute` does, by `reply`: at once, or from another thread where it has to wait for
        memory, so that whoever asks for others, too, goes on. It is not answered where who asked has gone, or the
        server ends."""
        if opcode == Opcode.HEAL and self.threads:
            self.later(partial(self._heal_later, slot, self.clients.epoch(slot), data, reply))
            return
        if opcode not in _LATER or not self.threads:
            reply(*self.execute(slot, opcode, data))
            return
        with self.lock, self.allocating.waiting_for_nothing():
            status, answer = self.execute(slot, opcode, data)
            later = status in NOT_NOW and self.allocating.comes_later(slot, opcode, data, reply)
        if not later:
            reply(status, answer)

    def at_once(self, slot: int, opcode: int, data: bytes) -> tuple[int, bytes]:
        """Answer a request as `execute` does, but wait for nothing: it is `Status.BUSY` where memory is on its way."""
        if opcode not in _LATER or not self.threads:
            return self.execute(slot, opcode, data)
        with self.lock, self.allocating.waiting_for_nothing():
            status, answer = self.execute(slot, opcode, data)
            if status in NOT_NOW and self.allocating.comes:
                return Status.BUSY, b"memory that was freed is on its way: ask again"
            return status, answer

    @staticmethod
    def comes_later(opcode: int, status: int) -> bool:
        """Whether what was asked, and answered so, may get its memory yet (`request`)."""
        return status in NOT_NOW and opcode in _LATER

    def execute(self, slot: int, opcode: int, data: bytes) -> tuple[int, bytes]:
        """Answer a request of the client in `slot`: a status, and what it gets. Waits for memory that is on its way."""
        try:
            handler = self._handlers.get(opcode)
            if handler is not None:
                with self.lock:
                    if slot not in self.names:
                        raise Refusal(Status.GONE, f"nobody is in slot {slot}")
                    return 0, handler(slot, data)
            handler = self._unlocked.get(opcode)
            if handler is None:
                raise Refusal(Status.MALFORMED, f"there is no request {opcode}")
            if slot not in self.names:
                raise Refusal(Status.GONE, f"nobody is in slot {slot}")
            return 0, handler(slot, data)
        except Refusal as refusal:
            return refusal.status, str(refusal).encode()[:LARGEST]
        except WireError as error:
            return Status.MALFORMED, str(error).encode()[:LARGEST]
        except Exception as error:
            log.exception("request %s of slot %s", opcode, slot)
            return Status.FAILED, f"the server failed: {error}".encode()[:LARGEST]

    def _hold(self, slot: int, data: bytes) -> bytes:
        asked = Hold.unpack(data)
        if asked.generation:
            self.regions.uses.hold(slot, asked)
        else:
            self._heard(slot)
        return b""

    def _heard(self, slot: int) -> None:
        """A client of the server before has said all that it has, or has gone. With the lock held."""
        self._awaited.discard(slot)
        if not self._awaited:
            self.regions.certain()
            if self.regions.clearing.held:
                self.settled()

    def _list(self, slot: int, data: bytes) -> bytes:
        found, onward = self.regions.page(ListQuery.unpack(data).start, _LIST_MOST)
        return ListAnswer(next=onward, indices=found).pack()

    def _journal(self, slot: int, data: bytes) -> bytes:
        record = self.directory.slot(slot)
        if not record.journal_at:
            asked = Allocate(
                size=JOURNAL_SIZE, request=0, copies=1, policy=0, separate=0, mode=0,
                flags=layout.RegionFlag.CHANNEL, source=0, lease=0, reserved0=b"", name=b"",
            )  # fmt: skip
            made = self.regions.allocate(slot, asked, free_of_charge=True)
            at = self.regions.known[made.index].extents[0]
            self.directory.set_journal(slot, at, JOURNAL_SIZE)
            return Journal(at=at, size=JOURNAL_SIZE).pack()
        return Journal(at=record.journal_at, size=record.journal_size).pack()

    def _heal_later(self, slot: int, epoch: int, data: bytes, reply: Reply) -> None:
        status, answer = self.execute(slot, Opcode.HEAL, data)
        with self.lock:
            if self.clients.is_of(slot, epoch):
                reply(status, answer)

    def _ring(self, slot: int, data: bytes) -> bytes:
        self.ring(Ring.unpack(data).offset)
        return b""

    def _goodbye(self, slot: int, data: bytes) -> bytes:
        self.left(slot)
        return b""

    @staticmethod
    def _named(do: Callable[[int, Named], None]) -> Handler:
        def handle(slot: int, data: bytes) -> bytes:
            do(slot, Named.unpack(data))
            return b""

        return handle
