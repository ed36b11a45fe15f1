"""A call of a service that was started: its answer is waited for, awaited, or given up."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final

from softcxl.pool import codec
from softcxl.pool.errors import Closed, Empty, Full, Lost
from softcxl.pool.table import ROOM

if TYPE_CHECKING:
    from collections.abc import Generator

    from softcxl.pool.buffer import Buffer
    from softcxl.pool.rpc import Function

__all__ = [
    "Pending",
]

PAUSE: Final = 0.0002
"""Seconds between two looks for a free cell."""


class Unread(Lost):
    """An answer's buffer went with its worker."""


class Pending:
    """A call that was started. It is given up where nobody refers to it any more."""

    def __init__(
        self, function: Function, data: codec.Buffer, how: int, timeout: float | None, begin: bool = True
    ) -> None:
        self._function = function
        self._client = function._client
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._lock = threading.Lock()  # of what is below
        self._turn = threading.Lock()  # to wait: one thread's at a time
        self._call: tuple[int, int] | None = None
        self._place: Buffer | None = None
        self._done = True  # until there is something to give up
        self._value: Any = None
        self._error: BaseException | None = None
        self._kind = function._number | how
        function._table.check()
        self._done = False
        length = memoryview(data).nbytes
        if length > ROOM:
            self._place = self._client._table.buffers.put(data)
            data = self._place.spot(length).pack()
            self._kind |= codec.REFERENCE
        self._data = data
        if begin:
            self._ask()

    def __repr__(self) -> str:
        if not self._done:
            return f"<call of {self._function!r}, under way>"
        return f"<call of {self._function!r}, {'answered' if self._error is None else repr(self._error)}>"

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _ask(self) -> None:
        while not self.begin(self._left()):
            time.sleep(PAUSE)  # cells get free as calls of this client end

    def begin(self, timeout: float | None) -> bool:
        """Ask, if a cell is free, and where the service's queue has room within `timeout` seconds. Returns whether it
        was asked."""
        table = self._client._table
        while True:
            try:
                call = self._client._caller.start(self._data, self._kind, timeout)
            except Full as error:
                if self._left() == 0:
                    self._finish(error=self._client._told(error, self._function._name))
                    raise self._client._told(error, self._function._name) from None
                if not table.collect():
                    return False
            except Exception as error:  # noqa: BLE001  whatever it was, the call is over
                told = self._client._told(error, self._function._name)
                self._finish(error=told)
                raise told from None
            else:
                with self._lock:
                    if self._done:  # another thread has given it up while it was asked again
                        self._client._caller.cancel(call)
                        return True
                    self._call = call
                table.begun(self)
                return True

    def _finish(self, value: Any = None, error: BaseException | None = None) -> None:
        with self._lock:
            if not self._done:
                self._settle(value, error)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        self._done = True
        self._value = value
        self._error = error
        call, self._call = self._call, None
        place, self._place = self._place, None
        if place is not None:
            if call is None:
                self._client._table.buffers.give_back(place)
            else:
                self._client._table.buffers.give_back_after(place, self._client._table.word_at(call), call[1])

    def _look(self, timeout: float | None) -> None:
        """Wait so long for the answer. Raises Empty where there is none yet."""
        if not self._done and not self._client._table.life:  # in the child of a fork the call is its parent's
            self._finish(error=self._client._told(Closed(), self._function._name))
        if not self._turn.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)):
            raise Empty
        try:
            while not self._done:
                call = self._call
                if call is None:
                    continue  # another thread is giving it up
                try:
                    answer = self._client._caller.result(call, timeout)
                except Empty:
                    raise
                except Lost as error:
                    if self._client._may_repeat(self._function._name):
                        self._ask()
                    else:
                        self._finish(error=self._client._told(error, self._function._name))
                except Exception as error:  # noqa: BLE001  for `result` to raise
                    self._finish(error=self._client._told(error, self._function._name))
                else:
                    try:
                        self._finish(self._function._read(answer))
                    except Unread as error:
                        if self._client._may_repeat(self._function._name):
                            self._ask()
                        else:
                            self._finish(error=error)
                    except Exception as error:  # noqa: BLE001  for `result` to raise
                        self._finish(error=error)
        finally:
            self._turn.release()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result, at most until the client's timeout, or for `timeout` seconds if that is less.

        Raises Empty where it is not there by then: past the client's timeout the call is given up, before that it goes
        on; and what the function raised.
        """
        left = self._left()
        wait = timeout if left is None else left if timeout is None else min(left, timeout)
        try:
            self._look(wait)
        except Empty:
            if self._left() == 0:
                self.cancel()
            raise Empty(f"{self._function!r}: no answer in time") from None
        if self._error is not None:
            raise self._error
        return self._value

    def done(self) -> bool:
        """Whether there is an answer."""
        try:
            self._look(0)
        except Empty:
            return False
        return True

    def cancel(self) -> bool:
        """Give it up: not begun, it is not run at all. Whether there was something to give up."""
        with self._lock:
            if self._done:
                return False
            # What this client has no more (in the child of a fork: its parent's) is not its to give up
            if self._call is not None and not self._client._table.life.ended:
                self._client._caller.cancel(self._call)
            self._settle(None, CancelledError(f"{self._function!r} was given up"))
            return True

    def __await__(self) -> Generator[Any, None, Any]:
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        pause = 0.0
        try:
            while not self.done():
                if self._left() == 0:
                    return self.result(0)
                await asyncio.sleep(pause)
                pause = min(pause + 0.00005, 0.002)
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self.result(0)

    def __del__(self) -> None:
        if not getattr(self, "_done", True):
            self.cancel()
