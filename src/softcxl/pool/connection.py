"""What a client keeps up with the pool's server: calls, the mapped memory, and its place when the server comes again.

Calls go through the client's table in shared memory, as many at a time as that has cells. A thread of its own watches
for the server's end, comes back to the next one, and does what finalizers leave to it: they must not wait.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final, cast

from softcxl.pool import layout
from softcxl.pool.errors import Corrupt, Empty, Foreign, Full, Lost, NoServer, PoolError, Stale
from softcxl.pool.gone import Gone
from softcxl.pool.layout import HEADER, SLOT, SlotState
from softcxl.pool.link import Link, Mapped, Place, failure
from softcxl.pool.native import Caller, Memory, Queue
from softcxl.pool.protocol import FAILURES, Opcode

log = logging.getLogger(__name__)

Call = tuple[int, int]
"""A cell, and the number of the call in it."""

_LOOK: Final = 0.25
_RETRY: Final = 0.05
_RARELY: Final = 1.0
_SHORTLY: Final = 0.001
_GOODBYE: Final = 1.0
_POSTED: Final = layout.CALLS // 2
"""Calls that nobody waits for, at most: as many are left for those that somebody waits for."""

_DONE_ONCE: Final = {Opcode.FREE, Opcode.CLOSE, Opcode.UNPIN, Opcode.DETACH, Opcode.GOODBYE}
_FORKED: Final = "this connection to the pool is of the process that forked this one: connect anew"
_CLOSED: Final = "this connection to the pool was closed"


class Connection:
    """A client's place in a pool. From any thread.

    `returned` is called, by the thread that came back and before anybody's call goes on, with True where another
    server is there. Raises `NoServer`, `Foreign`, `Corrupt`, or what the server answers.
    """

    mapped: Mapped
    header: layout.Header
    directory: Memory
    memories: list[Memory | None]
    _memories: dict[int, Memory]

    def __init__(
        self, link: Link, name: str, patience: float, returned: Callable[[bool], None] | None = None
    ) -> None:
        self.link = link
        self.name = name
        self.ended = ""
        self._patience = patience
        self._returned = returned or (lambda anew: None)
        self._coming = threading.RLock()
        self._mapping = threading.Lock()
        self._left_over: deque[Callable[[], object]] = deque()
        self._tries = 0
        mapped = link.attach(name, Place())
        self._heard = mapped.server  # the last one that was told all that this client has
        self._callers: queue.SimpleQueue[Caller | None] = queue.SimpleQueue()
        self._posted: deque[tuple[Caller, Call | None, int, bytes]] = deque()
        try:
            self._take(mapped)
            header, slot = self.header, mapped.place.slot
            calls = Queue(self.directory, header.queue_at, header.queue_size, slot)
            at = header.calls_at + slot * header.calls_stride
            for _ in range(layout.CALLS):
                self._callers.put(Caller(self.directory, at, header.calls_stride, calls))
        except BaseException:
            link.close()
            raise
        self._slot_at = header.slots_at + 256 * slot
        self._live = self.place.epoch << 24 | SlotState.LIVE
        _all.add(self)
        self._bell = _Bell()
        name = f"softcxl {link.address}"
        watching = (weakref.ref(self), self._bell)
        self._watcher = threading.Thread(target=_watch, args=watching, name=name, daemon=True)
        self._watcher.start()

    def _take(self, mapped: Mapped) -> None:
        """Use these maps from now on; what is mapped already stays as it is."""
        with self._mapping:
            if self.ended:
                raise Stale(self.ended)
            self._use(mapped)

    def _use(self, mapped: Mapped) -> None:
        arena = mapped.maps[layout.ARENA]
        header = check(arena, mapped.place)
        old: Mapped | None = getattr(self, "mapped", None)
        if old is not None:
            if mapped.place != old.place or header.identity != self.header.identity:
                raise Stale("the pool has forgotten this client")
            for number, file in old.files.items():
                if mapped.files.get(number) == file:
                    mapped.maps[number] = old.maps[number]
            if mapped.maps[layout.ARENA] is not old.maps[layout.ARENA]:
                raise Stale("the pool's arena is another one")
            memories = {
                number: memory
                for number, memory in self._memories.items()
                if mapped.maps.get(number) is old.maps[number]
            }
        else:
            ring, rest = self.link.ring, self.link.rest
            memories = {
                layout.ARENA: Memory(arena, ring=ring, rest=rest) if rest else Memory(arena, ring=ring)
            }
        for number, one in mapped.maps.items():
            if number not in memories:
                memories[number] = Memory(one)
        self.header = header
        self.mapped = mapped
        self._memories = memories
        self.directory = memories[layout.ARENA]
        self.memories = [memories.get(number) for number in range(max(memories) + 1)]

    @property
    def place(self) -> Place:
        """The slot that the client has."""
        return self.mapped.place

    # -- asking ----------------------------------------------------------------------------------------------

    def ask(self, opcode: int, data: bytes, patience: float | None = None) -> bytes:
        """Ask the server. Waits for one that has gone, up to the patience of this client.

        Raises what the answer says, `NoServer`, or `Stale` where the pool has forgotten this client.
        """
        if self.ended:
            raise Stale(self.ended)
        caller = self._caller()
        try:
            status, answer, again = self._call(
                caller, opcode, data, self._patience if patience is None else patience
            )
        finally:
            self._give_back(caller)
        if status:
            error = failure(status, answer)
            if again and isinstance(error, Stale) and opcode in _DONE_ONCE:
                return b""  # it was done before the server died
            raise error
        return answer

    def _give_back(self, caller: Caller) -> None:
        self._callers.put(None if self.ended else caller)

    def _caller(self) -> Caller:
        try:
            caller = self._callers.get_nowait()
        except queue.Empty:
            self._settle()
            caller = self._callers.get()
        if caller is None:  # somebody has left meanwhile
            self._callers.put(None)
            raise Stale(self.ended)
        return caller

    def ask_twice(self, opcode: int, data: bytes) -> bytes:
        """The same, of what may be asked twice: in one step, as long as all is well."""
        if self.ended:
            raise Stale(self.ended)
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

        Raises `Stale`, and `NoServer` where many of these are not answered.
        """
        if self.ended:
            raise Stale(self.ended)
        caller = self._caller()
        try:
            call = caller.start(data, opcode, 0)
        except PoolError:
            self._give_back(caller)
            with contextlib.suppress(*FAILURES.values()):
                self.ask(opcode, data)
            return
        except BaseException:
            self._give_back(caller)
            raise
        self._posted.append((caller, call, opcode, data))
        self._keep_few()

    def _keep_few(self) -> None:
        if self.ended:
            self._posted.clear()  # somebody has left meanwhile
        elif len(self._posted) > _POSTED:
            self._settle()

    def _settle(self) -> None:
        """See that the oldest of what was posted is done."""
        try:
            caller, call, opcode, data = self._posted.popleft()
        except IndexError:
            return  # another thread does
        try:
            self._call(caller, opcode, data, self._patience, call)
        except (NoServer, KeyboardInterrupt):
            self._posted.appendleft((caller, None, opcode, data))  # it is to be done yet
            raise
        except BaseException:
            self._give_back(caller)
            raise
        self._give_back(caller)

    def _call(
        self, caller: Caller, opcode: int, data: bytes, patience: float, call: Call | None = None
    ) -> tuple[int, bytes, bool]:
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
                    self._check_place()
                    found = self.directory.load(HEADER["beat"])
                    if found != beat:
                        beat, since = found, now
                    if self._away():
                        self.come_back(since + patience)
                    elif now - since > patience:
                        raise NoServer(
                            f"the pool at {self.link.address} has not answered for {patience:g} seconds"
                        ) from None
                    elif isinstance(error, Full):  # of calls that were given up, and are not answered yet
                        full = full or now
                        if now - full > max(patience, _RARELY):
                            raise NoServer(
                                f"the pool at {self.link.address} has not answered earlier calls for {patience:g} "
                                "seconds, and there can be no more"
                            ) from None
                        pause = min(2 * pause or _SHORTLY, _RETRY)
                        time.sleep(pause)
                except Corrupt:
                    self._check_place()
                    raise
        finally:
            if call is not None:
                caller.cancel(call)

    def _check_place(self) -> None:
        if not self.ended and self.directory.load(self._slot_at) != self._live:
            self.end("the pool has taken this client for dead, and given up what it had: connect anew")
        if self.ended:
            raise Stale(self.ended)

    def check(self) -> None:
        """Raise `Stale` where this connection has ended."""
        if self.ended:
            raise Stale(self.ended)
        self._check_place()

    def later(self, work: Callable[[], object]) -> None:
        """Have the watching thread do that, whatever comes of it: for finalizers, which must not wait."""
        if not self.ended:
            self._left_over.append(work)
            self._bell.ring()

    # -- coming back -----------------------------------------------------------------------------------------

    def come_back(self, until: float) -> None:
        """Find the next server, until that time (monotonic, seconds). Raises `NoServer`, `Stale`."""
        with self._coming:
            if self._away():
                self._attach_until(until)

    def _away(self) -> bool:
        """Whether there is a server to come back to, or one that has not heard yet all that this client has."""
        return self.link.gone() or self.mapped.server != self._heard

    def await_server(self) -> None:
        """Wait for a server that has gone, up to the patience of this client. Raises `NoServer`, `Stale`."""
        self.check()
        self.come_back(time.monotonic() + self._patience)

    def renew(self) -> None:
        """Have memory mapped that has come since. Waits for a server that has gone, up to the patience of this client.

        Raises `NoServer`, `Stale`."""
        self.check()
        until = time.monotonic() + self._patience
        with self._coming:
            self._attach_until(until)

    def _attach_until(self, until: float) -> None:
        while True:
            if self.ended:
                raise Stale(self.ended)
            try:
                self._attach()
            except NoServer:
                if time.monotonic() > until:
                    raise
                time.sleep(_RETRY)
            else:
                return

    def _attach(self) -> None:
        try:
            mapped = self.link.attach(self.name, self.place)
            self._take(mapped)
        except (Stale, Foreign, Corrupt) as error:
            if self.ended:
                self.link.close()  # it was left meanwhile
            self.end(str(error))
            raise
        self._returned(mapped.server != self._heard)
        self._heard = mapped.server
        self._tries = 0
        self._bell.ring()

    # -- ending ----------------------------------------------------------------------------------------------

    def end(self, why: str) -> None:
        """From now on every call is told this."""
        self.ended = self.ended or why

    def close(self) -> None:
        """Leave, and let go of the memory: views of it, and calls of other threads, keep what they need."""
        left, self.ended = (
            self.ended,
            self.ended or _CLOSED,
        )  # first: what the server then does is not its death
        if not left:
            self._say_goodbye()
        self.link.close()
        self._bell.ring()
        if self._watcher is not threading.current_thread():
            self._watcher.join(_GOODBYE)
            if not self._watcher.is_alive():  # or else it is busy, and waits by that once more
                self._bell.close()
        self._release()

    def _say_goodbye(self) -> None:
        with contextlib.suppress(PoolError):  # else the server finds out by itself
            if not self.link.gone():
                # Not through the table of calls: who has left is not answered there
                self.link.ask(Opcode.GOODBYE, b"", _GOODBYE)

    def _release(self) -> None:
        with self._mapping:
            self.mapped = replace(self.mapped, maps={}, files={})
            self.directory = cast("Memory", Gone(Stale(self.ended)))
            self.memories, self._memories = [], {}
        self._posted.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                self._callers.get_nowait()
        self._callers.put(None)  # for who waits for one, and whoever comes after him

    def forked(self) -> None:
        """This is the child: nothing of the parent's is its."""
        self.ended = _FORKED
        self._coming = threading.RLock()
        self._mapping = threading.Lock()
        self.link.close()

    def __del__(self) -> None:
        if hasattr(self, "_bell"):
            self._bell.ring()  # for the watching thread to end
            self.link.close()

    # -- what the watching thread does -----------------------------------------------------------------------

    def attend(self) -> float:
        """Show that the client lives, do what was left, and come back where the server has gone.

        Returns for how many seconds nothing is to be done but watch.
        """
        self._check_place()
        self.directory.add(self._slot_at + SLOT["beat"], 1)
        if self._away():
            try:
                with self._coming:
                    if self._away():
                        self._attach()
            except NoServer:
                self._tries = min(self._tries + 1, 8)
                return min(_RETRY * (1 << self._tries), _RARELY)
        for _ in range(len(self._posted)):
            if not self._tried(self._settle):
                break  # nobody answers: later
        while self._left_over and not self.ended:
            self._tried(self._left_over.popleft())
        return max(self.mapped.lease / 4, 0.01)

    @staticmethod
    def _tried(work: Callable[[], object]) -> bool:
        """Do that. Returns whether a server was there."""
        try:
            work()
        except NoServer:
            return False  # the next one hears what this client has, from `returned`
        except PoolError as error:
            log.debug("left to the pool's thread: %s", error)
        return True


def check(arena: memoryview | object, place: Place) -> layout.Header:
    """The header of an arena, if all that it says can be.

    Raises `Foreign` where none of this version is there, `Corrupt` where something would be outside of the arena, or
    where there is no such slot.
    """
    whole = memoryview(arena)  # type: ignore[arg-type]
    size = layout.Header.__layout__.size
    if len(whole) < layout.PAGE:
        raise Foreign(f"the arena has {len(whole)} bytes: its header alone has {layout.PAGE}")
    header = layout.Header.unpack(bytes(whole[:size]))
    if header.magic != layout.MAGIC or header.version != layout.VERSION:
        raise Foreign(
            f"the arena is of no pool of version {layout.VERSION}: it begins with {header.magic:#x}, version "
            f"{header.version}"
        )
    parts = {
        "sources": (header.sources_at, header.sources * layout.LINE),
        "slots": (header.slots_at, header.slots * 256),
        "regions": (header.regions_at, header.regions * 256),
        "calls": (header.calls_at, header.slots * header.calls_stride),
        "queue": (header.queue_at, header.queue_size),
        "heap": (header.heap_at, 0),
    }
    if header.size > len(whole):
        raise Corrupt(
            f"the arena says that it has {header.size} bytes; it has {len(whole)}: it was cut short"
        )
    for what, (at, length) in parts.items():
        if at % layout.LINE or at < layout.PAGE or at + length > header.size:
            raise Corrupt(
                f"the arena says that its {what} are {length} bytes at {at:#x}; it has {header.size} bytes"
            )
    if not 0 < place.slot < header.slots:
        raise Corrupt(f"the server gives this client slot {place.slot}: there are 1 to {header.slots - 1}")
    return header


_all: weakref.WeakSet[Connection] = weakref.WeakSet()


class _Bell:
    """Wakes the watching thread. Its descriptor is there for as long as anybody might ring it."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._process = os.getpid()
        self._lock = threading.RLock()  # finalizers ring, within a ring of the same thread too

    def ring(self) -> None:
        if os.getpid() != self._process:
            return
        with self._lock, contextlib.suppress(BlockingIOError):
            if self.fd >= 0:
                os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        # In the child of a fork another thread of the parent's may have the lock for ever
        with self._lock if os.getpid() == self._process else contextlib.nullcontext():
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()


def _watch(who: weakref.ref[Connection], bell: _Bell) -> None:
    while True:
        one = who()
        if one is None or one.ended:
            return
        try:
            pause = one.attend()
        except PoolError:
            return  # whoever asks next is told
        gone, fd = one.link.gone(), one.link.fileno()
        del one
        waiting = select.poll()
        waiting.register(bell.fd, select.POLLIN)
        if not gone and fd >= 0:
            waiting.register(fd, select.POLLRDHUP)
        waiting.poll(pause * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(bell.fd)


def _close_all() -> None:
    for one in list(_all):
        one.close()


atexit.register(_close_all)
