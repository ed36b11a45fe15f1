"""Who is there: slots of clients, and what becomes of what a client held when it has gone.

A client on this machine is watched by its process (`softcxl.fm.pool.door`); one behind a device shows that it lives
by a counter, and is taken for gone when that has stood still for a lease. Then its host is fenced first: only when
the fabric says that it can write no more is what it had locked mended, and its memory given to others."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from softcxl.fm.pool.directory import started
from softcxl.fm.pool.errors import Refusal
from softcxl.pool import layout
from softcxl.pool.errors import PoolError
from softcxl.pool.layout import SERVER, SLOT, RegionState, SlotState
from softcxl.pool.native import Region
from softcxl.pool.protocol import PROTOCOL, Hello, SourceFile, Status, Welcome

if TYPE_CHECKING:
    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.sources import Sources

log = logging.getLogger(__name__)

Fence = Callable[[str], bool]
"""Takes from the host of that name all that it has of the pool. Returns whether it surely has nothing any more."""

_INTENTS = ("intent", "intent1", "intent2", "intent3", "intent4")
_AGAIN = 1.0  # seconds between two tries to fence a host, or to let go what a client had that has gone


class Leaver(Protocol):
    """What sees to a client that has gone, with the server's lock held, more than once without harm."""

    def __call__(self, slot: int, /) -> None: ...


class Clients:
    """The slots of a directory. `leavers` are called for a client that has gone, in order, once nothing that it had
    locked is left locked; `learn(slot)` for one that comes."""

    def __init__(
        self,
        directory: Directory,
        sources: Sources,
        lock: Any,
        *,
        lease: float,
        learn: Callable[[int], None],
        fence: Fence | None,
        event: Callable[[str, str, Mapping[str, Any]], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._sources = sources
        self._lock = lock
        self.lease = lease
        self._learn = learn
        self._fence = fence
        self._event = event
        self._now = now
        self.leavers: list[Leaver] = []
        self.closed = False
        """The server has ended: nobody is seen to any more."""
        taken = directory.taken_slots()
        self.names: dict[int, str] = {slot: layout.decode_name(directory.slot(slot).name) for slot in taken}
        self.identities = {slot: layout.identity(name) for slot, name in self.names.items()}
        self.identities[SERVER] = 0
        self._free = [slot for slot in range(directory.plan.slots - 1, 0, -1) if slot not in self.names]
        self.unseen = {slot for slot in taken if not directory.slot(slot).flags & 1}
        """Clients on this machine that have not come again since the server has started."""
        self._beats: dict[int, tuple[int, float]] = {
            slot: (-1, now()) for slot in taken if directory.slot(slot).flags & 1
        }
        self._fencing: set[int] = set()
        self._overdue: set[int] = set()  # not heard of since their lease ran out
        self._unfenced: set[int] = set()  # of those, whose host could not be fenced: that is said once
        self._troubled: dict[int, float] = {}
        """Whom something has failed for, which is said once, and when they are looked at again."""

    def attach(self, hello: Hello, pid: int, *, remote: bool = False) -> Welcome:
        """Let a client in, or in again. Raises `Refusal`."""
        if hello.protocol != PROTOCOL:
            raise Refusal(Status.VERSION, f"protocol {hello.protocol}: this server speaks {PROTOCOL}")
        name = _name(hello.name, "name")
        host = _name(hello.host, "host") if hello.host.rstrip(b"\0") else ""
        with self._lock:
            if hello.slot:
                return self._attach_again(hello, pid, remote)
            if not self._free:
                raise Refusal(Status.NO_ROOM, f"{len(self.names)} clients are there, and slots for no more")
            try:
                start = 0 if remote else started(pid)
            except OSError as error:  # without it others would take this client for dead
                raise Refusal(
                    Status.NO_ROOM, f"the server cannot look after process {pid}: {error.strerror}"
                ) from error
            slot = self._free.pop()
            token = os.urandom(16)
            epoch = self._directory.take_slot(
                slot,
                pid=0 if remote else pid,
                start=start,
                remote=remote,
                token=_hashed(token),
                name=name,
                host=host,
            )
            self._learn(slot)
            self.names[slot] = name
            self.identities[slot] = layout.identity(name)
            if remote:
                self._beats[slot] = -1, self._now()
        self._event("client came", name, {"slot": slot, "pid": pid, "host": host})
        return self._welcome(slot, epoch, token)

    def _attach_again(self, hello: Hello, pid: int, remote: bool) -> Welcome:
        slot = hello.slot
        if slot in self.names and slot not in self._fencing:
            epoch, state = self._directory.slot_state(slot)
            record = self._directory.slot(slot)
            known = record.token == _hashed(hello.token) and (remote or record.pid == pid)
            if state is SlotState.LIVE and epoch == hello.epoch and known:
                self.unseen.discard(slot)
                return self._welcome(slot, epoch, hello.token)
        raise Refusal(Status.GONE, f"slot {slot}, epoch {hello.epoch}, is not this client's any more")

    def _welcome(self, slot: int, epoch: int, token: bytes) -> Welcome:
        return Welcome(
            protocol=PROTOCOL,
            slot=slot,
            epoch=epoch,
            token=token,
            server=self._directory.epoch,
            lease=round(self.lease * 1000),
            sources=self.files(),
        )

    def files(self) -> list[SourceFile]:
        """Where the bytes of the memory devices are."""
        return [file for file, _ in self._sources.files()]

    def left(self, slot: int, epoch: int | None = None) -> None:
        """A client has gone, dead or by itself: all that it held is let go. More than once does no harm.

        Whoever calls this for a client behind a device knows that it can write no more. With the `epoch` of who has
        gone, another one who has the slot by now stays.
        """
        with self._lock:
            name = self.names.get(slot)
            if name is None or not self.is_of(slot, epoch):
                return
            self.unseen.add(slot)  # until that is done: should something fail, it is looked at again
            epoch, _ = self._directory.slot_state(slot)
            self._directory.set_slot(slot, epoch, SlotState.DEAD)
            self._mend(slot, epoch)
            for leaver in self.leavers:
                leaver(slot)
            self._directory.set_slot(slot, epoch, SlotState.FREE)
            del self.names[slot], self.identities[slot]
            self.unseen.discard(slot)
            self._beats.pop(slot, None)
            self._heard_of(slot)
            self._fencing.discard(slot)
            self._troubled.pop(slot, None)
            self._free.append(slot)
        self._event("client gone", name, {"slot": slot})

    def is_of(self, slot: int, epoch: int | None) -> bool:
        """Whether who had the slot in that epoch has it now; None: whoever has it."""
        return slot in self.names and epoch in (None, self.epoch(slot))

    def epoch(self, slot: int) -> int:
        """How often the slot has been given to somebody. With the lock held, where somebody may come or go."""
        return self._directory.slot_state(slot)[0]

    def look(self) -> None:
        """Find out who has gone without a word. With the lock held."""
        for slot in list(self.unseen):
            self._tried(slot, self._look_after)
        for slot in list(self._beats):
            self._tried(slot, self._listen_to)

    def _tried(self, slot: int, do: Callable[[int], None]) -> None:
        """Whatever fails for one client, the others are looked at."""
        if self._now() < self._troubled.get(slot, 0):
            return
        try:
            do(slot)
        except Exception:
            if slot not in self._troubled:
                log.exception(
                    "slot %d is not given back, and tried again each second; a bug of SoftCXL", slot
                )
            self._troubled[slot] = self._now() + _AGAIN

    def _look_after(self, slot: int) -> None:
        record = self._directory.slot(slot)
        if self._has_left(slot) or not lives(record.pid, record.start):
            self.left(slot)

    def _listen_to(self, slot: int) -> None:
        (beat, since), now = self._beats[slot], self._now()
        seen = self._directory.memory.load(self._directory.slot_at(slot) + SLOT["beat"])
        if seen != beat:
            self._beats[slot] = seen, now
            self._heard_of(slot)
        elif now - since > self.lease:
            self.out_of_time(slot)

    def heard(self) -> set[str]:
        """The hosts that programs are on which tell of their lives, and have within a lease. With the lock held."""
        now = self._now()
        alive = [
            slot
            for slot, (_, since) in self._beats.items()
            if now - since <= self.lease and slot not in self._overdue
        ]
        return {layout.decode_name(self._directory.slot(slot).host) for slot in alive}

    def see_to_the_dead(self) -> None:
        """Let go what was held by clients that died while no server was there."""
        with self._lock:
            for slot in list(self.names):
                record = self._directory.slot(slot)
                unseen = slot in self.unseen and not lives(record.pid, record.start)
                if unseen or self._has_left(slot):
                    self._tried(slot, self.left)

    # -- within ----------------------------------------------------------------------------------------------

    def _has_left(self, slot: int) -> bool:
        """Whether a client has said so in its slot, as there was no server; or one has died over letting it go."""
        return self._directory.slot_state(slot)[1] is not SlotState.LIVE

    def _mend(self, slot: int, epoch: int) -> None:
        """Bring what a dead client was writing to its end, or take it back, and give the locks back."""
        memory, at = self._directory.memory, self._directory.slot_at(slot)
        for word in _INTENTS:
            index = memory.load(at + SLOT[word]) - 1
            if not 0 <= index < self._directory.plan.regions:
                continue
            record = memory.load(self._directory.region_at(index))
            if record & 0xFF != RegionState.LIVE:
                continue  # what is leaving is seized as it is
            try:
                region = Region(
                    memory, index, record >> 24, self._sources.memories(), SERVER, self._directory.epoch
                )
                if region.mend(slot, epoch) and region.torn:
                    self._event("torn", str(index), {"slot": slot, "range": list(region.torn)})
            except PoolError as error:
                log.warning("region %d, which slot %d had locked: %s", index, slot, error)

    def out_of_time(self, slot: int) -> None:
        """Who has a slot has not been heard of for a lease: his host is fenced, then he has gone. More than once does
        no harm. With the lock held."""
        if slot in self._fencing or slot not in self.names:
            return
        host = layout.decode_name(self._directory.slot(slot).host)
        if slot not in self._overdue:
            self._overdue.add(slot)
            self._event("lease ran out", self.names[slot], {"slot": slot, "host": host})
        if self._fence is None:
            self.left(slot)
            return
        self._fencing.add(slot)
        threading.Thread(
            target=self._fence_off, args=(slot, self.epoch(slot), host), name=f"fencing {host}", daemon=True
        ).start()

    def _fence_off(self, slot: int, epoch: int, host: str) -> None:
        assert self._fence is not None
        try:
            fenced = self._fence(host)
        except Exception as error:  # noqa: BLE001 - whatever it was, the host is not fenced
            log.warning("host %s is not fenced: %s", host, error)
            fenced = False
        with self._lock:
            if self.closed or not self.is_of(slot, epoch):
                return  # it has gone meanwhile, and the slot may be another's
            self._fencing.discard(slot)
            said = not fenced and slot in self._unfenced
            if not fenced and slot in self._overdue:
                self._unfenced.add(slot)
            if fenced and self._silent(slot):
                self.left(slot)
            elif slot in self._overdue:  # until then all that it had stays its own
                self._beats[slot] = self._beats[slot][0], self._now() - self.lease + _AGAIN
        if not said:
            self._event("host fenced" if fenced else "host not fenced", host, {"slot": slot})

    def _heard_of(self, slot: int) -> None:
        self._overdue.discard(slot)
        self._unfenced.discard(slot)

    def _silent(self, slot: int) -> bool:
        """Whether it has not been heard of since its lease ran out: one that was only late may write yet, whatever was
        taken from its host, or was not as it has others that live."""
        beat = self._directory.memory.load(self._directory.slot_at(slot) + SLOT["beat"])
        return slot in self._overdue and beat == self._beats[slot][0]


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
    """Whether the process is there yet which began then, as far as can be seen."""
    try:
        return bool(start) and started(pid) == start
    except OSError:  # no descriptors: who cannot be looked at is not dead for that
        return True


__all__ = ["Clients", "Fence", "Leaver", "lives"]
