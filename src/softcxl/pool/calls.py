"""A client's calls to the server, by its table of calls in shared memory: as many at a time as that has cells."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from typing import Final

from softcxl.pool import layout
from softcxl.pool.connection import RETRY, Connection
from softcxl.pool.errors import Corrupt, Empty, Full, Lost, NoServer, PoolError, Stale
from softcxl.pool.layout import HEADER
from softcxl.pool.link import failure
from softcxl.pool.native import Caller, Queue
from softcxl.pool.protocol import Opcode

Call = tuple[int, int]
"""A cell, and the number of the call in it."""

_LOOK: Final = 0.25
"""Seconds that one waits for an answer before looking whether the server is there."""
_SHORTLY: Final = 0.001
_LEAST: Final = 1.0
"""Seconds, at least, that calls which were given up may keep all cells from others."""
_POSTED: Final = layout.CALLS // 2
"""Calls that nobody waits for, at most: as many are left for those that somebody waits for."""

_DONE_ONCE: Final = {Opcode.FREE, Opcode.CLOSE, Opcode.UNPIN, Opcode.DETACH, Opcode.GOODBYE}
"""What a server that does not know of it any more has done already."""


class Calls:
    """The calls of one connection. From any thread.

    Raises what the C core does where the arena has no queue and no table of calls at the places that its header names:
    the connection has ended then.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._callers: queue.SimpleQueue[Caller | None] = queue.SimpleQueue()
        self._posted: deque[tuple[Caller | None, Call | None, int, bytes]] = deque()
        directory, header = connection.mapping.directory, connection.mapping.header
        slot = connection.place.slot
        at = header.calls_at + slot * header.calls_stride
        try:
            calls = Queue(directory, header.queue_at, header.queue_size, slot)
            for _ in range(layout.CALLS):
                self._callers.put(Caller(directory, at, header.calls_stride, calls))
        except BaseException:
            connection.link.close()
            raise

    @property
    def posted(self) -> int:
        """How many were posted, and are not known to be done."""
        return len(self._posted)

    def ask(self, opcode: int, data: bytes) -> bytes:
        """Ask the server. Waits for one that has gone, up to the patience of this client.

        Raises what the answer says, `NoServer`, or `Stale` where the pool has forgotten this client.
        """
        if self.connection.ended:
            raise Stale(self.connection.ended)
        caller = self._caller()
        try:
            status, answer, again = self._call(caller, opcode, data, self.connection.patience)
        finally:
            self._give_back(caller)
        if status:
            error = failure(status, answer)
            if again and isinstance(error, Stale) and opcode in _DONE_ONCE:
                return b""  # it was done before the server died
            raise error
        return answer

    def ask_twice(self, opcode: int, data: bytes) -> bytes:
        """The same, of what may be asked twice: in one step, as long as all is well."""
        if self.connection.ended:
            raise Stale(self.connection.ended)
        caller = self._caller()
        try:
            answer, status = caller.call(data, opcode, _LOOK), caller.kind
        except PoolError:
            status = -1
        finally:
            self._give_back(caller)
        if not status:
            return answer  # type: ignore[return-value]
        if status > 0:
            raise failure(status, answer)  # type: ignore[arg-type]
        return self.ask(opcode, data)

    def post(self, opcode: int, data: bytes) -> None:
        """Ask, and do not wait, whatever the answer is. It is done before what anybody asks later; where the server
        dies over it, by the next one.

        Raises `Stale`, and `NoServer` where many of these are not answered: then it is done later all the same.
        """
        if self.connection.ended:
            raise Stale(self.connection.ended)
        try:
            caller = self._caller()
        except NoServer:
            self._posted.append((None, None, opcode, data))
            raise
        try:
            call = caller.start(data, opcode, 0)
        except PoolError:
            self._see_done(caller, None, opcode, data)
            return
        except BaseException:
            self._give_back(caller)
            raise
        self._posted.append((caller, call, opcode, data))
        self._keep_few()

    def _keep_few(self) -> None:
        if self.connection.ended:
            self._posted.clear()  # somebody has left meanwhile
        elif len(self._posted) > _POSTED:
            self.settle()

    def settle(self) -> None:
        """See that the oldest of what was posted is done. Raises as `ask`, but not what the answer says."""
        try:
            caller, call, opcode, data = self._posted.popleft()
        except IndexError:
            return  # another thread does
        self._see_done(self._free_caller() if caller is None else caller, call, opcode, data)

    def _see_done(self, caller: Caller, call: Call | None, opcode: int, data: bytes) -> None:
        try:
            self._call(caller, opcode, data, self.connection.patience, call)
        except (NoServer, KeyboardInterrupt):
            self._posted.appendleft((caller, None, opcode, data))  # it is to be done yet
            raise
        except BaseException:
            self._give_back(caller)
            raise
        self._give_back(caller)

    def release(self) -> None:
        """The connection has ended: let go of the cells, and have whoever waits for one told."""
        self._posted.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                self._callers.get_nowait()
        self._callers.put(None)  # for who waits for one, and whoever comes after him

    def _caller(self) -> Caller:
        try:
            caller = self._callers.get_nowait()
        except queue.Empty:
            self.settle()
            return self._free_caller()
        if caller is None:
            raise self._left()
        return caller

    def _free_caller(self) -> Caller:
        """One of the callers, when somebody gives one back."""
        caller = self._callers.get()
        if caller is None:
            raise self._left()
        return caller

    def _left(self) -> Stale:
        """Somebody has left meanwhile: whoever waits next is told, too."""
        self._callers.put(None)
        return Stale(self.connection.ended)

    def _give_back(self, caller: Caller) -> None:
        self._callers.put(None if self.connection.ended else caller)

    def _call(
        self, caller: Caller, opcode: int, data: bytes, patience: float, call: Call | None = None
    ) -> tuple[int, bytes, bool]:
        """Make a call, or wait for one that was made. Returns status, answer, and whether it was made again."""
        connection = self.connection
        again = False
        beat, since = -1, 0.0
        full = pause = 0.0
        try:
            while True:
                try:
                    if call is None:
                        call = caller.start(data, opcode, _LOOK)
                        full = pause = 0.0
                    answer = caller.result(call, _LOOK)
                    call = None
                    return caller.kind, answer if isinstance(answer, bytes) else answer[0], again
                except Lost:  # the server died over it: every request may be made again
                    again, call = True, None
                except (Empty, Full) as error:
                    now = time.monotonic()
                    connection.check()
                    found = connection.mapping.directory.load(HEADER["beat"])
                    if found != beat:
                        beat, since = found, now
                    if connection.away():
                        connection.come_back(since + patience)
                    elif now - since > patience:
                        raise NoServer(
                            f"the pool at {connection.link.address} has not answered for {patience:g} seconds"
                        ) from None
                    elif isinstance(error, Full):  # of calls that were given up, and are not answered yet
                        full = full or now
                        if now - full > max(patience, _LEAST):
                            raise NoServer(
                                f"the pool at {connection.link.address} has not answered earlier calls for "
                                f"{patience:g} seconds, and there can be no more"
                            ) from None
                        pause = min(2 * pause or _SHORTLY, RETRY)
                        time.sleep(pause)
                except Corrupt:
                    connection.check()
                    raise
        finally:
            if call is not None:
                caller.cancel(call)
