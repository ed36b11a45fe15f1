"""Services: functions that others call, each call run by one of some workers.

A worker is a thread. Several processes may serve one service: their workers take from the same queue. Whatever a
function raises goes to who called; the worker stays.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from softcxl.pool import arguments, buffer, codec
from softcxl.pool.errors import BadCall, Closed, Corrupt, Empty, NoServer, PoolError, Refused, Stale
from softcxl.pool.native import Life, Queue, Worker
from softcxl.pool.protocol import Attach, Attached, CallsOf, ChannelKind, Declare, Detach, Opcode, Role
from softcxl.pool.table import ROOM, word_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from softcxl.pool.session import Pool

__all__ = [
    "Service",
    "abandoned",
]

log = logging.getLogger(__name__)

F = TypeVar("F", bound="Callable[..., Any]")

_LOOK: Final = 0.1
"""Seconds after which a worker looks whether it is to stop."""
_OUT: Final = 0.5
"""Seconds in which a worker that runs no function has seen that it is to stop, and looks at the queue no more."""
_REQUEST, _RESULT = 0, 1
"""What the core leaves to us: a request, a result, or else an exception."""
_COMING: Final = 1.0
"""Seconds after a service's begin in which a function that it has not got yet may still come."""
_ABANDONED: Final = 4
"""In the word of a call's cell: the client gave it up while it ran (`SCXL_ABANDONED`)."""
_here = threading.local()
"""In a worker's thread: the worker, where clients' tables of calls are in the arena, and that."""


class _Entry:
    """A function that is served."""

    def __init__(self, name: str, function: Callable[..., Any], idempotent: bool) -> None:
        self.name = name
        self.function = function
        self.signature = codec.Signature(function)
        self.idempotent = idempotent


class Service:
    """A service that this client is a worker of, from its first function on, until it is closed.

    `workers` are its threads here. As a decorator it takes one more function. Raises `Refused` for what is no name, or
    for no workers. `before` is the one that has served it for this client, and is closed; some function of its may not
    have come to its end yet.
    """

    def __init__(
        self,
        pool: Pool,
        buffers: buffer.Buffers,
        name: str,
        *,
        workers: int = 1,
        before: Service | None = None,
    ) -> None:
        if workers < 1:
            raise Refused(f"workers={workers}: a service has 1 or more")
        self.name = name
        self._pool = pool
        self._name = arguments.name(name)
        self._workers = workers
        self._before = before
        self._threads: list[threading.Thread] = []
        self._working = 0  # of the threads, those that have not failed
        self._place: Attached | None = None
        self._life: Life | None = None
        self._stopping = False
        self._broken = False  # it cannot serve any more, and nobody has asked it to stop
        self._lock = threading.Lock()
        self._began = 0.0
        self._more = threading.Condition()
        self._entries: dict[int, _Entry] = {}
        # What the core may call by itself: a function, how its positional arguments are read, whether it takes bytes
        self._plain: dict[int, tuple[Callable[..., Any], Callable[[bytes], Any] | None, bool]] = {}
        self._buffers = buffers
        self._add(_Entry(codec.DESCRIBE, self._describe, True))

    def __repr__(self) -> str:
        return f"<service {self.name!r}: {', '.join(self.functions())}>"

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(self, /, *, idempotent: bool = ...) -> Callable[[F], F]: ...
    def __call__(self, function: F | None = None, /, *, idempotent: bool = False) -> F | Callable[[F], F]:
        """Let clients call this function.

        `idempotent`: a call whose worker died is run again, by another one. Raises TypeError for a function that takes
        `*args` or `**kwargs`, or whose annotations are of no type that can be sent.
        """
        if function is None:
            return lambda given: self._take(given, idempotent)
        return self._take(function, idempotent)

    def _take(self, function: F, idempotent: bool) -> F:
        entry = _Entry(function.__name__, function, idempotent)
        number = codec.number_of(entry.name)
        self._add(entry)
        try:
            self.start()
            place = self._place
            if idempotent and place is not None:
                asked = Declare(index=place.index, generation=place.generation, function=number)
                self._pool.ask(Opcode.DECLARE, asked.pack())
        except BaseException:
            # Not taken, so that it can be given once more
            del self._plain[number], self._entries[number]
            raise
        return function

    def _add(self, entry: _Entry) -> None:
        known = self._entries.setdefault(codec.number_of(entry.name), entry)
        if known is not entry:
            if known.name == entry.name:
                raise ValueError(f"service {self.name!r} has a function {entry.name} already")
            raise ValueError(f"{entry.name} and {known.name} have one number: another name is needed")
        number = codec.number_of(entry.name)
        self._plain[number] = entry.function, entry.signature.plain, entry.signature.takes_bytes
        with self._more:
            self._more.notify_all()

    @property
    def closed(self) -> bool:
        """Whether it serves no more."""
        return self._stopping

    def functions(self) -> list[str]:
        """The names of its functions."""
        return [entry.name for entry in list(self._entries.values()) if entry.name != codec.DESCRIBE]

    def _describe(self) -> dict[str, tuple[str, bool]]:
        own = [entry for entry in list(self._entries.values()) if entry.name != codec.DESCRIBE]
        return {entry.name: (str(entry.signature), entry.idempotent) for entry in own}

    def start(self) -> None:
        """Begin to serve."""
        with self._lock:
            if self._place is not None or self._stopping:
                return
            request = Attach(
                kind=ChannelKind.SERVICE,
                role=Role.WORKER,
                flags=0,
                cells=0,
                size=0,
                request=0,
                name=self._name,
            )
            self._place = self._attached(request.pack())
            self._life = self._pool.life()
            self._began = time.monotonic()
            try:
                for number in range(self._workers):
                    thread = threading.Thread(target=self._run, name=f"{self.name} {number}", daemon=True)
                    self._threads.append(thread)
                    thread.start()
                    self._working += 1
            except BaseException:  # the system lets this process have no more threads
                del self._threads[self._working :]
                self._break_off()
                raise

    def _attached(self, request: bytes) -> Attached:
        """Take part in the service. A client has one part in it: what had it before does not give it back any more."""
        before = self._before
        if before is None:
            return Attached.unpack(self._pool.ask(Opcode.ATTACH, request))
        with before._lock:
            if before._broken:
                before._detach()  # so that the server makes the queue anew
            place = before._attached(request)  # where it has never served, from the one before it
            before._place = self._before = None
            return place

    def close(self, timeout: float | None = None) -> None:
        """Finish the calls that were begun, and serve no more. Calls that nobody else serves fail with NoWorker.

        Raises TimeoutError where a function has not come to its end by then, in seconds. One of its own functions may
        say it: it is done when that has come to its end.
        """
        if not self.stop(timeout):
            self._leave_later()
            return
        with self._lock:
            self._detach()

    def _detach(self) -> None:
        """Take part no more: where nobody else serves it, whoever waits for an answer is told. With the lock held."""
        if self._place is not None:
            request = Detach(index=self._place.index, generation=self._place.generation, role=Role.WORKER)
            with contextlib.suppress(Stale):  # the pool has forgotten this client, and so its part
                self._pool.ask(Opcode.DETACH, request.pack())
            self._place = None

    def _leave_later(self) -> None:
        """Detach once the workers have come to their end, and a server is there to be told."""
        threading.Thread(target=self._leave, name=f"{self.name} closes", daemon=True).start()

    def _leave(self) -> None:
        for thread in list(self._threads):
            # Where it cannot serve any more nobody is to wait for functions that take long
            thread.join(_OUT if self._broken else None)
        while True:
            try:
                with self._lock:
                    self._detach()
            except NoServer:
                time.sleep(_LOOK)
            except PoolError as error:
                log.error("service %r cannot be left: %s", self.name, error)
                return
            else:
                return

    def stop(self, timeout: float | None = None) -> bool:
        """Finish the calls that were begun, and take no more: without a word to the server, which hears that this
        client leaves. Returns False where one of its own functions says it, which has not come to its end then.

        Raises TimeoutError as `close`.
        """
        self._stopping = True
        if threading.current_thread() in self._threads:
            return False
        for thread in self._threads:
            thread.join(timeout)
            if thread.is_alive():
                raise TimeoutError(f"service {self.name!r}: a function has not come to its end")
        return True

    def end(self) -> None:
        """The pool is left: what has not come to its end yet touches the service's memory no more."""
        life, self._life = self._life, None
        if life is not None:
            life.end()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- a worker --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._work()
            return
        except PoolError as error:
            # So it is for every worker. The mistake of a call is its caller's to hear of: this is the queue's
            broken, why = True, str(error)
        except BaseException:  # noqa: BLE001  whatever it was, nobody is to wait for this worker
            broken, why = False, traceback.format_exc()
        _here.worker = None  # the last that has it: what it has taken of the queue is another worker's now
        with self._lock:
            if self._stopping or self._ended():
                return  # what was there is not its own any more
            self._working -= 1
            if broken:
                log.error(
                    "service %r: its queue cannot be served, and this client leaves it: %s", self.name, why
                )
            elif self._working:
                log.error("service %r: a worker has failed, %d are left: %s", self.name, self._working, why)
            else:
                log.error(
                    "service %r: its last worker here has failed, and this client leaves it: %s",
                    self.name,
                    why,
                )
            if broken or not self._working:
                self._break_off()

    def _break_off(self) -> None:
        """It cannot be served any more: those who wait are to be told. With the lock held."""
        self._stopping = self._broken = True
        self.end()  # no worker looks at the queue any more
        try:
            self._leave_later()
        except RuntimeError:  # there is no thread for that, either
            with contextlib.suppress(PoolError):  # who serves it next here says it again
                self._detach()

    def _work(self) -> None:
        place, life = self._place, self._life
        if place is None or life is None:
            return  # the pool was left before this began
        memory = self._pool.directory
        worker = Worker(memory, Queue(memory, place.at, place.size, self._pool.slot, life))
        tables: dict[int, int] = {}
        _here.worker, _here.tables, _here.memory = worker, tables, memory
        while not self._stopping:
            try:
                found = worker.serve(self._plain, codec.encode, _LOOK)
            except Empty:
                if self._ended():
                    return
                continue
            except KeyError as unknown:
                learnt = self._learn(worker, tables, unknown.args)
                found = None if learnt is None else (_REQUEST, learnt)
            except Closed:
                # The pool was left, or the server has given the service up: it was taken for dead, or removed
                return
            if found is not None:
                self._see_to(worker, tables, *found)

    def _see_to(self, worker: Worker, tables: dict[int, int], what: int, value: Any) -> None:
        """Answer what the core does not by itself."""
        try:
            if what == _REQUEST:
                value = self._result(worker.kind, value)
            elif what != _RESULT:
                raise value
            self._answer(worker, tables, *codec.encode_result(value))
        except BaseException as error:  # noqa: BLE001  a service's mistake is its caller's to hear of
            self._fail(worker, error)

    def _result(self, kind: int, data: bytes) -> Any:
        entry = self._entry(kind & codec.NUMBER)
        if kind & codec.REFERENCE:
            return self._by_reference(entry, kind, data)
        positional, named = entry.signature.arguments(kind, data)
        return entry.function(*positional, **named)

    def _entry(self, number: int) -> _Entry:
        """The function of that number.

        Of a service that has just begun, and takes one function after the other, it is waited for: clients may know it
        from another process that serves it.
        """
        until = self._began + _COMING
        with self._more:
            while number not in self._entries:
                left = until - time.monotonic()
                if left <= 0 or self._stopping:
                    raise self._unknown()
                self._more.wait(left)
            return self._entries[number]

    def _ended(self) -> bool:
        """Whether the pool has forgotten this client, and its part in the service."""
        try:
            self._pool.check()
        except PoolError:
            return True
        return False

    def _unknown(self) -> BadCall:
        return BadCall(
            f"service {self.name!r} has no such function; it has {', '.join(self.functions()) or 'none'}"
        )

    def _learn(self, worker: Worker, tables: dict[int, int], call: Any) -> bytes | None:
        """A call of a client that has not been heard of before. None where it is not to be had."""
        while True:
            try:
                place = Attached.unpack(self._pool.ask(Opcode.CALLS_OF, CallsOf(slot=call[0]).pack()))
                worker.learn(call[0], place.at, place.size)
                tables[call[0]] = place.at
                return worker.take(call)
            except NoServer:
                # It is asked again, by this worker or, should this one stop, by another
                if self._stopping:
                    return None
                time.sleep(_LOOK)
            except (PoolError, IndexError):
                return None  # somebody has put a note there that is of nobody's call

    def _by_reference(self, entry: _Entry, kind: int, data: bytes) -> Any:
        try:
            request = buffer.copy(self._pool, buffer.Spot.unpack(data))
        except (Corrupt, Stale) as error:
            raise BadCall(f"{entry.signature}: the arguments are not there: {error}") from error
        positional, named = entry.signature.arguments(kind & ~codec.REFERENCE, request)
        return entry.function(*positional, **named)

    def _answer(self, worker: Worker, tables: dict[int, int], data: codec.Buffer, kind: int) -> None:
        length = memoryview(data).nbytes
        if length <= ROOM:
            worker.answer(data, kind)
            return
        place = self._buffers.put(data)
        call = worker.current
        mark = kind & ~codec.MARKED | codec.KEPT | codec.REFERENCE
        if worker.answer(place.spot(length).pack(), mark, call):
            self._buffers.give_back_after(place, word_at(tables[call[0]], call[1]), call[2])
        else:
            self._buffers.give_back(place)

    def _fail(self, worker: Worker, error: BaseException) -> None:
        try:
            trace = "" if isinstance(error, BadCall) else "".join(traceback.format_exception(error))
        except Exception:  # noqa: BLE001  what an exception of somebody's has for its traceback may be anything
            trace = ""
        worker.answer(codec.encode_failure(error, trace), codec.FAILURE)


def abandoned() -> bool:
    """In a service's function: whether nobody waits for the result any more, so that it may as well stop."""
    worker: Worker | None = getattr(_here, "worker", None)
    if worker is None:
        raise RuntimeError("this is no call of a service")
    client, cell, number = worker.current
    word: int = _here.memory.load(word_at(_here.tables[client], cell))
    return word >> 24 != number or word & 0xFF == _ABANDONED
