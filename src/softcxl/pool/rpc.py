"""Calls of services: the client's side.

A request lies in a cell of the client's own table of calls, and a note of it goes through the service's queue. A
worker takes the call by compare-and-swap, so that it is run once at most, whoever dies or comes again; a call that was
given up before is not run at all. What does not fit a cell goes by a buffer (`softcxl.pool.buffer`).
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

from softcxl.pool import arguments, buffer, codec, layout
from softcxl.pool.errors import Closed, Corrupt, Empty, Full, Lost, NoSuchName, NoWorker, Stale
from softcxl.pool.native import Asking, Caller, Queue
from softcxl.pool.pending import PAUSE, Pending, Unread
from softcxl.pool.protocol import Attach, Attached, ChannelKind, Detach, Opcode, Role
from softcxl.pool.table import Table

__all__ = [
    "Client",
    "Function",
]

_Answer = bytes | tuple[bytes, int] | tuple[bytes, int, tuple[int, int]]


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
        except Unread:
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
                await asyncio.sleep(PAUSE)
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
                raise Unread(f"{self!r}: the worker died before its answer was read") from None
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
