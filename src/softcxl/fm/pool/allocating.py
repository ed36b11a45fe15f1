"""Requests for memory: they are met at once, or when memory that was freed is cleared, or when regions have been moved.

One thread clears what was freed, and gathers a little of it before it does.
"""

from __future__ import annotations

import itertools
import logging
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from softcxl.fm.pool.errors import Refusal
from softcxl.fm.pool.waiting import Reply, Waiting
from softcxl.pool import layout
from softcxl.pool.protocol import MANY, Allocate, AllocateMany, Opcode, Status

if TYPE_CHECKING:
    from softcxl.fm.pool.server import PoolServer

log = logging.getLogger(__name__)

NOT_NOW = (Status.NO_ROOM, Status.QUOTA)
"""Answers that may be others later."""

_PLACES = [struct.Struct(f"<{2 * count}Q") for count in range(MANY + 1)]
_GATHER = 0.01  # seconds in which freed memory is gathered before it is cleared at once
_AGAIN = 1.0  # seconds from one try to clear what could not be to the next
_FREEING = 10.0  # seconds for which a request waits for memory that is being cleared


class Allocating:
    """Allocates for the clients of a server, whose lock its caller holds, but for `run` and `clear_now`."""

    def __init__(self, server: PoolServer) -> None:
        self._server = server
        self._to_clear = threading.Event()
        self._hurry = threading.Event()
        self.freed = threading.Condition(server.lock)
        """Notified when there is more memory."""
        self.waiting = Waiting(self.freed, time.monotonic)
        self._prompt = threading.local()
        self._again_at = 0.0

    def wake(self) -> None:
        """There is something to clear, or the server ends."""
        self._to_clear.set()

    def tick(self) -> None:
        """What could not be cleared is tried again. With the lock held."""
        if self._server.sources.cleaning.held_back:
            self._to_clear.set()

    def never_waits(self) -> None:
        """This thread answers several, and so waits for nobody's memory."""
        self._prompt.on = True

    def allocate(self, slot: int, data: bytes) -> bytes:
        """Answer an `Allocate`."""
        try:
            return self._server.regions.allocate_packed(slot, data)
        except Refusal as refusal:
            self._wait_for_memory(slot, refusal)
        return self._server.regions.allocate_packed(slot, data)

    def allocate_many(self, slot: int, data: bytes) -> bytes:
        """Answer an `AllocateMany`."""
        asked = AllocateMany.unpack(data)
        each, count = asked.each, asked.count
        if not 0 < count <= MANY:
            raise Refusal(Status.MALFORMED, f"{count} regions: one request makes 1 to {MANY}")
        try:
            made = self._server.regions.allocate_many(slot, each, count)
        except Refusal as refusal:
            self._wait_for_memory(slot, refusal)
            made = self._server.regions.allocate_many(slot, each, count)
        return _PLACES[count].pack(*itertools.chain.from_iterable(made[:count]))

    def _wait_for_memory(self, slot: int, refusal: Refusal) -> None:
        """Wait for memory that is being cleared, where that is what was refused. Raises `refusal` where none is."""
        epoch = self._server.clients.epoch(slot)
        if refusal.status not in NOT_NOW or not self._memory_comes():
            raise refusal
        if not self._server.clients.is_of(slot, epoch):
            raise Refusal(Status.GONE, f"nobody is in slot {slot}")

    def comes_later(self, slot: int, opcode: int, data: bytes, reply: Reply) -> bool:
        """There will be room when memory is cleared, or regions have been moved: answer then, and others meanwhile.
        False: there will be none. With the lock held."""
        epoch = self._server.clients.epoch(slot)
        if not self.comes:
            return self._makes_room(slot, epoch, opcode, data, reply)

        def again(last: bool) -> bool:
            if not self._server.clients.is_of(slot, epoch):
                return True  # it has gone meanwhile, and the slot may be another's
            status, answer = self._server.execute(slot, opcode, data)
            if status in NOT_NOW:
                if self.comes and not last:
                    return False
                if self._makes_room(slot, epoch, opcode, data, reply):
                    return True
            reply(status, answer)
            return True

        self._hurry.set()
        self._to_clear.set()
        self.waiting.add(again, min(_FREEING, self._server.lease))
        return True

    def _makes_room(self, slot: int, epoch: int, opcode: int, data: bytes, reply: Reply) -> bool:
        """There is as much as was asked for, in pieces: answer once regions have been moved. False: there is not."""
        if opcode != Opcode.ALLOCATE:
            return False
        asked = Allocate.unpack(data)
        size, copies = layout.room(asked.size), asked.copies
        if asked.source or asked.flags & layout.RegionFlag.CHANNEL:
            return False
        if not self._server.defragmenter.can_help(size, copies):
            return False

        def move() -> None:
            try:
                self._server.defragmenter.make_room(size, copies)
            finally:
                with self._server.lock:
                    there = self._server.clients.is_of(slot, epoch)
                    status, answer = self._server.execute(slot, opcode, data) if there else (0, b"")
                if there:
                    reply(status, answer)

        self._server.rebuilder.do(move)
        return True

    @property
    def comes(self) -> bool:
        """Whether memory is being cleared, or will be once all clients have said what they look at."""
        clearing = self._server.regions.clearing
        return clearing.coming > 0 or (clearing.held and clearing.waiting > 0)

    def _memory_comes(self) -> bool:
        """Wait for memory that is on its way. Returns whether there was any."""
        if not self.comes or getattr(self._prompt, "on", False):
            return False
        if not self._server.threads:
            self.clear_now()
            return True
        self._hurry.set()
        self._to_clear.set()
        clearing = self._server.regions.clearing
        self.freed.wait_for(
            lambda: self._server.closing.is_set() or not (clearing.coming or clearing.held),
            min(_FREEING, self._server.lease),
        )
        return True

    @contextmanager
    def waiting_for_nothing(self) -> Iterator[None]:
        """What this thread asks for is refused rather than waited for."""
        was, self._prompt.on = getattr(self._prompt, "on", False), True
        try:
            yield
        finally:
            self._prompt.on = was

    def run(self) -> None:
        """Clear what is freed, until the server ends."""
        while not self._server.closing.is_set():
            self._to_clear.wait()
            self._to_clear.clear()
            if not self._hurry.wait(_GATHER) and self._server.closing.is_set():
                return
            self._hurry.clear()
            self.clear_now()

    def clear_now(self) -> None:
        """Clear what has been freed so far."""
        try:
            cleared = self._server.regions.clearing.clear(self._server.lock)
            if self._server.sources.cleaning.held_back and time.monotonic() >= self._again_at:
                self._again_at = time.monotonic() + _AGAIN
                cleared += self._server.sources.cleaning.again(self._server.lock)
        except Exception:
            log.exception("clearing memory that was freed")
            return
        with self.freed:
            self.freed.notify_all()
        if cleared:
            self._server.rebuilder.freed()

    def run_waiting(self) -> None:
        """Answer those that wait, until the server ends."""
        self.never_waits()
        self.waiting.run()
