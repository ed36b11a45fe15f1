"""The pool's server: programs allocate memory from it, and find what others have allocated.

It is one thread that takes calls from shared memory, one that does what takes longer, and a door at a Unix socket
(`softcxl.fm.pool.door`) by which clients come. A client that dies is seen to at once: what it held is let go.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from softcxl.fm.pool.directory import Directory, started
from softcxl.fm.pool.errors import Refusal
from softcxl.fm.pool.regions import Regions
from softcxl.fm.pool.sources import Sources
from softcxl.pool import layout
from softcxl.pool.errors import Empty, PoolError
from softcxl.pool.layout import SERVER, Plan, SlotState
from softcxl.pool.native import Caller, Queue, Worker
from softcxl.pool.protocol import (
    LARGEST,
    PROTOCOL,
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
    TellAnswer,
    TellQuery,
    Welcome,
)
from softcxl.wire import WireError

if TYPE_CHECKING:
    from softcxl.fm.pool.source import Source

log = logging.getLogger(__name__)

JOURNAL_SIZE = 1 << 20
"""Bytes of a client's journal: the longest write that is all or nothing where there is one copy."""

_LIST_MOST = (LARGEST - ListAnswer.__layout__.size) // 8
_TELL_MOST = LARGEST - TellAnswer.__layout__.size
_SLICE = 0.2

Event = Callable[[str, str, Mapping[str, Any]], None]
"""Told of what happens: kind, of what, and details."""


class PoolServer:
    """Serves a pool of the memory in `sources`, with its directory in the file `arena`.

    `lease` is for how long, in seconds, a client that cannot be watched may be silent. `quotas` are bytes by client
    name, `*` for every other name. Raises `ArenaUnfit`.
    """

    def __init__(
        self,
        arena: int,
        sources: Sequence[Source],
        *,
        plan: Plan | None = None,
        lease: float = 10.0,
        quotas: Mapping[str, int] | None = None,
        event: Event | None = None,
    ) -> None:
        self.lock = threading.RLock()
        self.lease = lease
        self._event = event or (lambda kind, subject, detail: None)
        self._quotas = {layout.identity(name): size for name, size in (quotas or {}).items() if name != "*"}
        self._quota = (quotas or {}).get("*")
        self._used: dict[int, int] = {}
        self._told: dict[tuple[int, str], bytes] = {}
        self._ringers: list[Callable[[int], None]] = []
        self.directory = Directory(arena, plan, lease=lease, ring=self.ring)
        self.names: dict[int, str] = {
            slot: layout.decode_name(self.directory.slot(slot).name) for slot in self.directory.taken_slots()
        }
        self._identities = {slot: layout.identity(name) for slot, name in self.names.items()}
        self._identities[SERVER] = 0
        self.sources = Sources(self.directory, sources)
        self._recovering = True
        self.regions = Regions(self.directory, self.sources, self._identities.__getitem__, self._charge)
        self._recovering = False
        memory, at = self.directory.memory, self.directory.plan.queue_at
        self._queue = Queue(memory, at, layout.QUEUE_SIZE, SERVER)
        self._worker = Worker(memory, self._queue)
        self._free_slots = [
            slot for slot in range(self.directory.plan.slots - 1, 0, -1) if slot not in self.names
        ]
        self._unwatched = {slot for slot in self.names if not self.directory.slot(slot).flags}
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._handlers: dict[int, Callable[[int, bytes], bytes]] = {
            Opcode.ALLOCATE: self._allocate,
            Opcode.OPEN: lambda slot, data: self.regions.open(slot, Named.unpack(data)).pack(),
            Opcode.CLOSE: self._named(self.regions.close),
            Opcode.FREE: self._named(self.regions.free),
            Opcode.PIN: self._named(self.regions.pin),
            Opcode.UNPIN: self._named(self.regions.unpin),
            Opcode.HOLD: self._hold,
            Opcode.JOURNAL: self._journal,
            Opcode.LIST: self._list,
            Opcode.TELL: self._tell,
            Opcode.RING: self._ring,
            Opcode.GOODBYE: self._goodbye,
        }
        self._tellers: dict[str, Callable[[], Any]] = {
            "sources": self._tell_sources,
            "clients": self._tell_clients,
            "server": self._tell_server,
        }
        self._recover()

    # -- running ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Serve."""
        for name, run in (("pool", self._run), ("pool housekeeping", self._keep_house)):
            thread = threading.Thread(target=run, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self.directory.ready()

    def close(self) -> None:
        """Stop serving. What is allocated stays so, in the arena, for the next server."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _run(self) -> None:
        worker = self._worker
        while not self._closing.is_set():
            try:
                data = worker.next(_SLICE)
            except Empty:
                continue
            except KeyError:
                continue  # of a slot that nobody has: the call is not there any more
            except PoolError as error:
                log.error("the pool's queue of calls: %s", error)
                continue
            if worker.kind == Opcode.GOODBYE:  # once it is gone there is no table to answer in
                worker.answer(b"", Status.OK)
            status, answer = self.execute(worker.current[0], worker.kind, data)
            worker.answer(answer, status)

    def _keep_house(self) -> None:
        while not self._closing.wait(min(_SLICE, self.lease / 10)):
            self.directory.beat()
            with self.lock:
                for slot in list(self._unwatched):
                    record = self.directory.slot(slot)
                    if not lives(record.pid, record.start):
                        self.left(slot)
                self.regions.sweep()

    def _recover(self) -> None:
        """See to what a server that died had taken, and to clients that died since."""
        for slot in self.names:
            at = self.directory.calls_at(slot)
            self._worker.learn(slot, at, layout.CALLS_STRIDE)
            Caller(self.directory.memory, at, layout.CALLS_STRIDE, self._queue).mend(SERVER)
        self._queue.mend(SERVER)
        for slot in list(self.names):
            record = self.directory.slot(slot)
            if record.word & 0xFF == SlotState.DEAD or (
                not record.flags and not lives(record.pid, record.start)
            ):
                self.left(slot)

    # -- clients ---------------------------------------------------------------------------------------------

    def attach(self, hello: Hello, pid: int, *, remote: bool = False) -> Welcome:
        """Let a client in, or in again. Raises `Refusal`."""
        if hello.protocol != PROTOCOL:
            raise Refusal(Status.VERSION, f"protocol {hello.protocol}: this server speaks {PROTOCOL}")
        name = _name(hello.name, "name")
        host = _name(hello.host, "host") if hello.host.rstrip(b"\0") else ""
        with self.lock:
            if hello.slot:
                return self._attach_again(hello)
            if not self._free_slots:
                raise Refusal(Status.NO_ROOM, f"{len(self.names)} clients are there, and slots for no more")
            slot = self._free_slots.pop()
            token = os.urandom(16)
            epoch = self.directory.take_slot(
                slot,
                pid=0 if remote else pid,
                start=0 if remote else started(pid),
                remote=remote,
                token=_hashed(token),
                name=name,
                host=host,
            )
            self._worker.learn(slot, self.directory.calls_at(slot), layout.CALLS_STRIDE)
            self.names[slot] = name
            self._identities[slot] = layout.identity(name)
        return self._welcome(slot, epoch, token)

    def _attach_again(self, hello: Hello) -> Welcome:
        slot = hello.slot
        if slot in self.names:
            epoch, state = self.directory.slot_state(slot)
            known = self.directory.slot(slot).token == _hashed(hello.token)
            if state is SlotState.LIVE and epoch == hello.epoch and known:
                self._unwatched.discard(slot)
                return self._welcome(slot, epoch, hello.token)
        raise Refusal(Status.GONE, f"slot {slot}, epoch {hello.epoch}, is not this client's any more")

    def _welcome(self, slot: int, epoch: int, token: bytes) -> Welcome:
        return Welcome(
            protocol=PROTOCOL,
            slot=slot,
            epoch=epoch,
            token=token,
            server=self.directory.epoch,
            lease=round(self.lease * 1000),
            sources=[file for file, _ in self.sources.files()],
        )

    def left(self, slot: int) -> None:
        """A client has gone, dead or by itself: all that it held is let go. More than once does no harm."""
        with self.lock:
            name = self.names.get(slot)
            if name is None:
                return
            epoch, _ = self.directory.slot_state(slot)
            self.directory.set_slot(slot, epoch, SlotState.DEAD)
            self._queue.mend(slot)
            self._worker.forget(slot)
            self.regions.gone(slot)
            self.directory.set_slot(slot, epoch, SlotState.FREE)
            del self.names[slot], self._identities[slot]
            self._unwatched.discard(slot)
            for told in [told for told in self._told if told[0] == slot]:
                del self._told[told]
            self._free_slots.append(slot)

    def ring(self, offset: int) -> None:
        """Wake who sleeps behind a device on the word of the arena at `offset`. From any thread."""
        for ring in list(self._ringers):
            ring(offset)

    def listen(self, ring: Callable[[int], None]) -> Callable[[], None]:
        """Have `ring` called with the offset of each word that is rung; returns what ends it."""
        self._ringers.append(ring)
        return lambda: self._ringers.remove(ring)

    def _charge(self, identity: int, size: int) -> None:
        used = self._used.get(identity, 0) + size
        allowed = self._quotas.get(identity, self._quota)
        if size > 0 and allowed is not None and used > allowed and not self._recovering:
            raise Refusal(
                Status.QUOTA, f"{size} bytes: this client has {used - size} of the {allowed} that it may have"
            )
        if used:
            self._used[identity] = used
        else:
            self._used.pop(identity, None)

    # -- requests --------------------------------------------------------------------------------------------

    def execute(self, slot: int, opcode: int, data: bytes) -> tuple[int, bytes]:
        """Answer a request of the client in `slot`: a status, and what it gets."""
        try:
            handler = self._handlers.get(opcode)
            if handler is None:
                raise Refusal(Status.MALFORMED, f"there is no request {opcode}")
            with self.lock:
                if slot not in self.names:
                    raise Refusal(Status.GONE, f"nobody is in slot {slot}")
                return Status.OK, handler(slot, data)
        except Refusal as refusal:
            return refusal.status, str(refusal).encode()[:LARGEST]
        except WireError as error:
            return Status.MALFORMED, str(error).encode()[:LARGEST]
        except Exception as error:
            log.exception("request %s of slot %s", opcode, slot)
            return Status.FAILED, f"the server failed: {error}".encode()[:LARGEST]

    def _allocate(self, slot: int, data: bytes) -> bytes:
        return self.regions.allocate(slot, Allocate.unpack(data)).pack()

    def _hold(self, slot: int, data: bytes) -> bytes:
        self.regions.hold(slot, Hold.unpack(data))
        return b""

    def _list(self, slot: int, data: bytes) -> bytes:
        found, onward = self.regions.list(ListQuery.unpack(data).start, _LIST_MOST)
        return ListAnswer(next=onward, indices=found).pack()

    def _journal(self, slot: int, data: bytes) -> bytes:
        record = self.directory.slot(slot)
        if not record.journal_at:
            asked = Allocate(
                size=JOURNAL_SIZE, request=0, copies=1, policy=0, separate=0, mode=0,
                flags=layout.RegionFlag.CHANNEL, source=0, lease=0, reserved0=b"", name=b"",
            )  # fmt: skip
            made = self.regions.allocate(slot, asked)
            at = self.regions.known[made.index].extents[0]
            self.directory.set_journal(slot, at, JOURNAL_SIZE)
            return Journal(at=at, size=JOURNAL_SIZE).pack()
        return Journal(at=record.journal_at, size=record.journal_size).pack()

    def _tell(self, slot: int, data: bytes) -> bytes:
        asked = TellQuery.unpack(data)
        what = asked.what.rstrip(b"\0").decode(errors="replace")
        teller = self._tellers.get(what)
        if teller is None:
            raise Refusal(
                Status.UNKNOWN, f"nothing is told of {what!r}; of {', '.join(sorted(self._tellers))}"
            )
        if not asked.offset:
            self._told[slot, what] = json.dumps(teller()).encode()
        text = self._told.get((slot, what), b"")
        piece = text[asked.offset : asked.offset + _TELL_MOST]
        if asked.offset + len(piece) >= len(text):
            self._told.pop((slot, what), None)
        return TellAnswer(total=len(text), piece=piece).pack()

    def _ring(self, slot: int, data: bytes) -> bytes:
        self.ring(Ring.unpack(data).offset)
        return b""

    def _goodbye(self, slot: int, data: bytes) -> bytes:
        self.left(slot)
        return b""

    @staticmethod
    def _named(do: Callable[[int, Named], None]) -> Callable[[int, bytes], bytes]:
        def handle(slot: int, data: bytes) -> bytes:
            do(slot, Named.unpack(data))
            return b""

        return handle

    # -- what it tells ---------------------------------------------------------------------------------------

    def _tell_sources(self) -> list[dict[str, Any]]:
        return [
            {
                "number": one.number,
                "name": one.name,
                "device": one.device,
                "switch": one.switch,
                "size": one.size,
                "available": one.space.available,
                "largest": one.space.largest,
                "state": one.state.name.lower(),
                "reason": one.reason,
                "regions": len(one.regions),
            }
            for one in self.sources.all.values()
        ]

    def _tell_clients(self) -> list[dict[str, Any]]:
        told = []
        for slot, name in sorted(self.names.items()):
            record = self.directory.slot(slot)
            told.append(
                {
                    "slot": slot,
                    "epoch": record.word >> 24,
                    "name": name,
                    "host": layout.decode_name(record.host),
                    "pid": record.pid,
                    "used": self._used.get(self._identities[slot], 0),
                    "quota": self._quotas.get(self._identities[slot], self._quota),
                }
            )
        return told

    def _tell_server(self) -> dict[str, Any]:
        return {
            "epoch": self.directory.epoch,
            "pid": os.getpid(),
            "lease": self.lease,
            "regions": len(self.regions.known),
            "clients": len(self.names),
        }


def _hashed(token: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(token, digest_size=8).digest(), "little")


def _name(data: bytes, what: str) -> str:
    try:
        name = data.rstrip(b"\0").decode()
        layout.encode_name(name)
    except ValueError as error:
        raise Refusal(Status.MALFORMED, f"the client's {what}: {error}") from None
    return name


def lives(pid: int, start: int) -> bool:
    """Whether the process is there yet which began then."""
    return bool(start) and started(pid) == start
