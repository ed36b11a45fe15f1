"""Calls of services: the client's side.

A request lies in a cell of the client's own table of calls, and a note of it goes through the service's queue. A
worker takes the call by compare-and-swap, so that it is run once at most, whoever dies or comes again; a call that was
given up before is not run at all. What does not fit a cell goes by a buffer (`softcxl.pool.buffer`).
"""

from __future__ import annotations

import asyncio
import struct
import threading
import time
import weakref
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final, cast

from softcxl.pool import arguments, buffer, codec, layout
from softcxl.pool.errors import Closed, Corrupt, Empty, Full, Lost, NoSuchName, NoWorker, Stale
from softcxl.pool.native import Asking, Caller, Queue
from softcxl.pool.protocol import Attach, Attached, CallsOf, ChannelKind, Detach, Opcode, Role

if TYPE_CHECKING:
    from collections.abc import Generator

    from softcxl.pool.buffer import Buffer
    from softcxl.pool.session import Pool

__all__ = [
    "Client",
    "Function",
    "Pending",
]

CALLS: Final = 32
"""Calls of a client that can be under way."""
CALL_STRIDE: Final = 4096 + 64
"""Bytes of such a call's cell."""
ROOM: Final = CALL_STRIDE - 16
"""Bytes of a request or an answer that go without a buffer."""
TABLE: Final = layout.CALLS_HEADER + CALLS * CALL_STRIDE
"""Bytes of a client's table of calls."""

_PAUSE: Final = 0.0002
"""Seconds between two looks for a free cell."""
_Answer = bytes | tuple[bytes, int] | tuple[bytes, int, tuple[int, int]]


class _Unread(Lost):
    """An answer's buffer went with its worker."""


def word_at(table: int, cell: int) -> int:
    """Where the word of a cell is, of a table of calls that begins at that byte of the arena."""
    return table + layout.CALLS_HEADER + cell * CALL_STRIDE


class Table:
    """A client's calls to services, of which it has one table, whatever the services."""

    def __init__(self, pool: Pool, buffers: buffer.Buffers) -> None:
        request = CallsOf(slot=pool.slot)
        self.place = Attached.unpack(pool.ask(Opcode.CALLS_OF, request.pack()))
        self.pool = pool
        self.buffers = buffers
        self.life = pool.life()
        self.clients: weakref.WeakSet[Client] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._begun: weakref.WeakSet[Pending] = weakref.WeakSet()

    def begun(self, call: Pending) -> None:
        """A call has a cell of the table, until it is answered and its answer is taken."""
        with self._lock:
            self._begun.add(call)

    def collect(self) -> bool:
        """Take the answers that have come to calls whose results nobody has asked for yet: their cells are free then.

        Returns whether there was one. Who starts more calls than there are cells, and looks at the first result after
        the last start, would wait for ever without.
        """
        with self._lock:
            known = list(self._begun)
        answered = [one for one in known if one.done()]
        with self._lock:
            self._begun.difference_update(answered)
        return bool(answered)

    def release(self) -> None:
        """The pool is left: let nobody's functions be kept by their client alone, and memory by them."""
        for client in list(self.clients):
            client.release()

    def check(self) -> None:
        """Raises Stale where the table is not this client's any more: a successor may have it."""
        if not self.life:
            self.pool.check()
            raise Stale("this connection to the pool has ended")

    def word_at(self, call: tuple[int, int]) -> int:
        """Where the word of a call's cell is in the arena."""
        return word_at(self.place.at, call[0])


class Client:
    """The functions of a service: `client.lookup(7)` calls, `client.lookup.start(7)` does not wait.

    `timeout` is in seconds, None for ever. Any thread may call. Raises `NoWorker` where nobody serves it, `Refused` for
    what is no name.
    """

    def __init__(self, table: Table, name: str, *, timeout: float | None = None) -> None:
        request = Attach(
            kind=ChannelKind.SERVICE,
            role=Role.CLIENT,
            flags=1,
            cells=0,
            size=0,
            request=0,
            name=arguments.name(name),
        )
        try:
            place = Attached.unpack(table.pool.ask(Opcode.ATTACH, request.pack()))
        except NoSuchName:
            raise NoWorker(f"there is no service {name!r}") from None
        self._name = name
        self._table = table
        self._place = place
        self._timeout = timeout
        memory = table.pool.directory
        self._queue = Queue(memory, place.at, place.size, table.pool.slot, table.life)
        self._caller = Caller(memory, table.place.at, table.place.size, self._queue)
        table.clients.add(self)

    def __getattr__(self, name: str) -> Function:
        if name.startswith("_"):
            raise AttributeError(name)
        function = Function(self, name)
        self.__dict__[name] = function
        return function

    def __repr__(self) -> str:
        return f"<client of {self._name!r}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def within(self, timeout: float | None) -> Client:
        """The same service with another timeout, in seconds."""
        other = object.__new__(Client)
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name.startswith("_")})
        other._timeout = timeout
        self._table.clients.add(other)
        return other

    def functions(self) -> dict[str, str]:
        """The service's functions: name to signature."""
        return {name: text for name, (text, _) in self._describe().items()}

    def close(self) -> None:
        """Have it no more: its functions raise Closed from then on. Calls that were started go on."""
        if self._queue.left:
            return
        self._queue.leave()  # the service may go now, and its memory to others
        request = Detach(index=self._place.index, generation=self._place.generation, role=Role.CLIENT)
        self._table.pool.ask(Opcode.DETACH, request.pack())

    def release(self) -> None:
        """Forget the functions that were asked for."""
        for name in [name for name, one in self.__dict__.items() if isinstance(one, Function)]:
            del self.__dict__[name]

    def _describe(self) -> dict[str, tuple[str, bool]]:
        return cast("dict[str, tuple[str, bool]]", getattr(self, codec.DESCRIBE)())

    def _may_repeat(self, function: str) -> bool:
        at = self._place.at - layout.CHANNEL_AT + layout.CHANNEL_HEAD
        numbers = self._table.pool.map(layout.ARENA)[at : at + 4 * layout.REPEATABLE]
        return (codec.number_of(function),) in struct.iter_unpack("<I", numbers)

    def _told(self, error: Exception, function: str) -> Exception:
        """The same, saying which call it is of."""
        if not self._table.life:  # then the server has freed the cell, and others may have the queue
            try:
                self._table.check()
            except Stale as ended:
                return ended
        where = f"{self._name}.{function}"
        if isinstance(error, Empty):
            return Empty(f"{where}: no answer in time")
        if isinstance(error, Full):
            return Full(f"{where}: no room for one more call in time")
        if isinstance(error, Lost):
            return Lost(f"{where}: the worker that had taken the call died; whether it was done is not known")
        if isinstance(error, Closed) and self._queue.left:
            return Closed(f"{where}: this client of the service was closed")
        if isinstance(error, Closed):
            return NoWorker(f"{where}: nobody serves it now")
        return error


class Function(Asking):
    """A function of a service. Called, it waits for the result, and what it raises there is raised here."""

    __slots__ = ("_client", "_name", "_number", "_table")

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self._number = codec.number_of(name)
        self._table = client._table
        self._over(
            self._table.life, client._caller, self._number, codec.encode, codec.decode, client._timeout
        )

    def __repr__(self) -> str:
        return f"<{self._client._name}.{self._name}>"

    # What the C core calls: a call that it does not begin, one whose answer is unusual, one that has failed

    def _slow(self, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return self._slowly(*codec.encode_arguments(positional, named))

    def _answered(self, data: bytes, kind: int, answer: _Answer) -> Any:
        try:
            return self._read(answer)
        except _Unread:
            if not self._client._may_repeat(self._name):
                raise
        return self._slowly(data, kind & ~codec.NUMBER)

    def _failed(self, data: bytes, kind: int, error: Exception) -> Any:
        if isinstance(error, Lost) and self._client._may_repeat(self._name):
            return self._slowly(data, kind & ~codec.NUMBER)
        raise self._client._told(error, self._name) from None

    def start(self, *positional: Any, **named: Any) -> Pending:
        """Call it without waiting: the result is the pending call's."""
        return Pending(self, *codec.encode_arguments(positional, named), self._client._timeout)

    async def ask(self, *positional: Any, **named: Any) -> Any:
        """Call it, and await the result. Cancelled, it is given up."""
        call = Pending(self, *codec.encode_arguments(positional, named), self._client._timeout, begin=False)
        try:
            while not call.begin(0):
                await asyncio.sleep(_PAUSE)
        except asyncio.CancelledError:
            call.cancel()
            raise
        return await call

    def _slowly(self, data: codec.Buffer, how: int) -> Any:
        return Pending(self, data, how, self._client._timeout).result()

    def _read(self, answer: _Answer) -> Any:
        """What an answer says; the cell of one that came by a buffer is freed."""
        if isinstance(answer, bytes):
            return answer
        data, kind = answer[0], answer[1]
        if len(answer) == 3:
            try:
                data = buffer.copy(self._client._table.pool, buffer.Spot.unpack(data))
            except Stale:
                raise _Unread(f"{self!r}: the worker died before its answer was read") from None
            finally:
                self._client._caller.cancel(answer[2])
            kind = kind & ~(codec.KEPT | codec.REFERENCE)
            if not kind:
                return data
            kind |= codec.MARKED
        if kind == codec.VALUE:
            try:
                return codec.decode(data)
            except ValueError as error:
                raise Corrupt(f"{self!r}: an answer that cannot be read: {error}") from None
        if kind == codec.FAILURE:
            raise codec.decode_failure(data)
        if kind == codec.UNSERVED:
            raise NoWorker(f"{self._client._name}.{self._name}: nobody serves it now")
        raise Corrupt(f"{self!r}: an answer of kind {kind:#x}")


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
            time.sleep(_PAUSE)  # cells get free as calls of this client end

    def begin(self, timeout: float | None) -> bool:
        """Ask, if a cell is free, and where the service's queue has room within `timeout` seconds. Returns whether it
        was asked."""
        table = self._client._table
        while True:
            try:
                self._call = self._client._caller.start(self._data, self._kind, timeout)
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
                    except _Unread as error:
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
