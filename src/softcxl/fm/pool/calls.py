"""Clients' calls to the server, as they come through the arena: a queue of notes, and a table of each slot's calls."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from softcxl.pool import layout
from softcxl.pool.errors import Empty, PoolError
from softcxl.pool.layout import SERVER
from softcxl.pool.native import Caller, Queue, Worker
from softcxl.pool.protocol import Opcode
from softcxl.pool.table import ASKED

if TYPE_CHECKING:
    from softcxl.fm.pool.server import PoolServer
    from softcxl.fm.pool.waiting import Reply

log = logging.getLogger(__name__)

_HEAL, _GOODBYE = int(Opcode.HEAL), int(Opcode.GOODBYE)  # an enum takes longer
_SLICE: Final = 0.2


class Calls:
    """Takes them, and has `server` answer. Raises `PoolError` where the arena has no such queue."""

    def __init__(self, server: PoolServer) -> None:
        self._server = server
        self._memory, plan = server.directory.memory, server.directory.plan
        self._at = server.directory.calls_at
        self._queue_at = plan.queue_at
        self.queue = Queue(self._memory, plan.queue_at, layout.QUEUE_SIZE, SERVER)
        self._worker = Worker(self._memory, self.queue)

    def recover(self) -> None:
        """See to those that a server which died had under way."""
        for slot in self._server.names:
            self.learn(slot)
            try:
                Caller(self._memory, self._at(slot), layout.CALLS_STRIDE, self.queue).mend(SERVER)
            except PoolError as error:
                log.warning("the calls of slot %d: %s", slot, error)
        self.queue.mend(SERVER)

    def learn(self, slot: int) -> None:
        """Somebody has the slot."""
        at = self._at(slot)
        try:
            self._worker.learn(slot, at, layout.CALLS_STRIDE)
        except PoolError:  # whoever was there wrote over it; nothing of that is anybody's now
            Caller.make(self._memory, at, layout.CALLS_STRIDE, layout.CALLS, layout.CALL_STRIDE)
            self._worker.learn(slot, at, layout.CALLS_STRIDE)

    def forget(self, slot: int) -> None:
        """Whoever had the slot has gone."""
        self.queue.mend(slot)
        self._worker.forget(slot)
        # Its calls, whose answers it will not take: else the next client in its slot has the fewer cells. Their
        # numbers stay, so that a late answer to one of them is nobody's.
        memory = self._memory
        for word_at in self._words(slot):
            while (word := memory.load(word_at)) & 0xFF and not memory.swap(word_at, word, word & ~0xFFFFFF):
                pass

    def run(self) -> None:
        """Take and answer calls until the server ends."""
        worker, server = self._worker, self._server
        server.allocating.never_waits()
        while not server.closing.is_set():
            try:
                data = worker.next(_SLICE)
            except Empty:
                continue
            except KeyError:
                continue  # of a slot that nobody has: the call is not there any more
            except PoolError as error:
                self._begin_anew(error)
                continue
            self._answered(data)

    def _answered(self, data: bytes) -> None:
        """Whatever fails for one call, others are answered."""
        try:
            self._answer(data)
        except Exception:
            log.exception("a call of slot %d is not answered; a bug of SoftCXL", self._worker.current[0])

    def _answer(self, data: bytes) -> None:
        """The call that the worker has taken."""
        worker, server = self._worker, self._server
        slot = worker.current[0]
        if worker.kind == _HEAL:  # as long as there is poison: others' calls do not wait for that
            server.request(slot, worker.kind, data, self._answering(worker.current))
            return
        if worker.kind == _GOODBYE:
            epoch = server.clients.epoch(slot)
            # When it has gone there is no table to answer in, and the cell stays taken
            worker.answer(b"")
            server.left(slot, epoch)  # the door may have seen it go by now, and let another one in
            return
        status, answer = server.execute(slot, worker.kind, data)
        if status and server.comes_later(worker.kind, status):
            server.request(slot, worker.kind, data, self._answering(worker.current))
            return
        worker.answer(answer, status)

    def _answering(self, call: tuple[int, int, int]) -> Reply:
        """Answers a call later."""

        def reply(status: int, answer: bytes) -> None:
            self._worker.answer(answer, status, call)

        return reply

    def _begin_anew(self, error: PoolError) -> None:
        """Somebody has written over the queue: what was noted there is found in the tables."""
        said = f"somebody has written over the queue of calls: {error}"
        log.error("the pool's arena: %s. It is made anew; what else is in the pool cannot be trusted", said)
        self._server.event("damaged", "arena", {"what": said})
        Queue.make(self._memory, self._queue_at, layout.QUEUE_SIZE, layout.QUEUE_CELLS, layout.LINE)
        for slot in list(self._server.names):
            for cell, word_at in enumerate(self._words(slot)):
                word = self._memory.load(word_at)
                if word & 0xFFFFFF != ASKED:
                    continue
                try:
                    data = self._worker.take((slot, cell, word >> 24))
                except KeyError:
                    break  # it has gone meanwhile
                if data is not None:
                    self._answered(data)

    def _words(self, slot: int) -> range:
        """Where the words of a slot's calls are."""
        at = self._at(slot) + layout.CALLS_HEADER
        return range(at, at + layout.CALLS * layout.CALL_STRIDE, layout.CALL_STRIDE)
