"""The component command interface: finds the handler of an opcode, checks what any command demands, runs it.

Mailbox, MCTP endpoint and tunnel are doors into the same `Cci`. A command is a method::

    class MemoryCommands(CommandSet):
        @command(IDENTIFY_MEMORY_DEVICE)             # opcode, effects and payload types come from the spec
        def identify(self) -> IdentifyMemoryDevice:
            return IdentifyMemoryDevice(...)

It takes the request record (if the command has one), and returns the response record, None, or a `Background`.
It refuses by raising `CommandError(ReturnCode.X)`. The Command Effects Log is derived from the handlers, with the
effects that the standard lists unless `@command(..., effects=...)` says what this device really does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

from softcxl.device.clock import Clock, Timer
from softcxl.spec.command.base import Command, CommandEffects, ReturnCode
from softcxl.wire import LayoutError, Record, ValueUnknown

log = logging.getLogger(__name__)
Method = TypeVar("Method", bound=Callable[..., Any])


class CommandError(Exception):
    """A command is refused with `code` (CXL 3.1 Table 8-34), and `vendor_status` if there is more to say."""

    def __init__(self, code: ReturnCode, vendor_status: int = 0) -> None:
        super().__init__(code.name)
        self.code, self.vendor_status = code, vendor_status


@dataclass(slots=True)
class Background:
    """Work that a command leaves behind: it ends `seconds` later, with `finish`, which returns its return code.

    `abort` (if the work can be aborted) undoes what has to be undone. A conventional reset in its midst calls
    `interrupted` if there is one, else it aborts; work that cannot be aborted is carried to its end then. One at a
    time in a device.
    """

    seconds: float
    finish: Callable[[], ReturnCode]
    abort: Callable[[], None] | None = None
    interrupted: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back: return code, payload, and whether work goes on in the background."""

    code: ReturnCode
    payload: bytes = b""
    vendor_status: int = 0


@dataclass(frozen=True, slots=True)
class Later(Reply):
    """The reply is what `run` returns in `seconds`, or, where that is infinite, when the door is told to go on.

    A door that cannot wait answers what stands in this one: Busy.
    """

    code: ReturnCode = ReturnCode.BUSY
    seconds: float = math.inf
    run: Callable[[], Reply] = lambda: Reply(ReturnCode.SUCCESS)


def command(declared: Command, *, effects: CommandEffects | None = None) -> Callable[[Method], Method]:
    """Make a method the handler of `declared`. `effects`, if given, stands in the Command Effects Log instead."""
    handled = declared if effects is None else replace(declared, effects=effects)

    def mark(method: Method) -> Method:
        method.__command__ = handled  # type: ignore[attr-defined]
        return method

    return mark


class CommandSet:
    """Base of classes whose methods handle commands. A subclass overrides a command by handling it again."""

    def commands(self) -> Iterator[tuple[Command, Callable[..., Any]]]:
        """Each command that this object handles, with its bound method."""
        for declared, name in _handled(type(self)):  # type: ignore[arg-type]  # classes are hashable
            yield declared, getattr(self, name)


@lru_cache(maxsize=1024)
def _handled(cls: type[CommandSet]) -> tuple[tuple[Command, str], ...]:
    """The commands that a class handles, with their methods' names; many objects of one class ask."""
    found: dict[int, tuple[Command, str]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            declared = getattr(value, "__command__", None)
            if declared is not None:
                found[declared.opcode] = (declared, name)
    return tuple(found.values())


@dataclass(slots=True)
class BackgroundState:
    """The last background operation: its opcode, how far it is (percent), its return code once it has ended."""

    opcode: int = 0
    percent: int = 0
    code: ReturnCode = ReturnCode.SUCCESS
    vendor_status: int = 0
    running: bool = False


class Cci:
    """A command interface over the commands of `sets`; where two handle the same opcode, the first one does.

    Every command is checked for support, payload length, a background operation in its way, and the device's
    state, in this order: `barred(command)` says whether the state forbids it, and with what code.
    `ended()` is called when a background operation has ended. `intercept`, where there is one, answers in place of
    `run` (`softcxl.device.intercept`). `lock` is the function's: its holder calls
    `execute`, and timers take it.
    """

    def __init__(self, clock: Clock, lock: AbstractContextManager[object], *, payload_max: int) -> None:
        self.clock, self.lock, self.payload_max = clock, lock, payload_max
        self.handlers: dict[int, tuple[Command, Callable[..., Any]]] = {}
        self.background = BackgroundState()
        self.secondary = False  # a secondary mailbox is there, too
        self.barred: Callable[[Command], ReturnCode | None] = lambda command: None
        self.ended: Callable[[], None] = lambda: None
        self.intercept: Callable[[int, bytes], Reply] | None = None
        self._work: Background | None = None
        self._timer: Timer | None = None
        self._started = 0.0

    def add(self, sets: Iterable[CommandSet]) -> None:
        """Take in the commands of `sets`; a command that is there already stays."""
        for one in sets:
            for declared, handler in one.commands():
                self.handlers.setdefault(declared.opcode, (declared, handler))

    def execute(self, opcode: int, payload: bytes = b"") -> Reply:
        """Answer one command, as a door hands it in. Never raises."""
        if self.intercept is not None:
            return self.intercept(opcode, payload)
        return self.run(opcode, payload)

    def run(self, opcode: int, payload: bytes = b"") -> Reply:
        """Run one command to its reply. Never raises: a handler that fails is logged and answers Internal Error."""
        entry = self.handlers.get(opcode)
        if entry is None:
            return _UNSUPPORTED
        declared, handler = entry
        request = declared.request
        try:
            if request is None:
                if payload:
                    return _INVALID_LENGTH
            elif not _fits(request, len(payload)):
                if len(payload) != request.__layout__.size + declared.surplus:
                    return _INVALID_LENGTH
                payload = payload[: request.__layout__.size]
            if self.background.running and declared.background:
                return Reply(ReturnCode.BUSY)
            if (code := self.barred(declared)) is not None:
                return Reply(code)
            result = handler() if request is None else handler(_parse(request, payload))
            if result is None:
                return _SUCCESS
            if isinstance(result, Background):
                return self._start(declared, result)
            answer = result.pack() if isinstance(result, Record) else bytes(result)
        except CommandError as refused:
            return Reply(refused.code, vendor_status=refused.vendor_status)
        except OSError as error:  # what it was to keep cannot be kept
            log.error("command %04Xh failed: %s", opcode, error)
            return Reply(ReturnCode.INTERNAL_ERROR)
        except Exception:
            log.exception("command %04Xh failed", opcode)
            return Reply(ReturnCode.INTERNAL_ERROR)
        if len(answer) > self.payload_max:
            log.error("command %04Xh: a reply of %d bytes is too long for the payload", opcode, len(answer))
            return Reply(ReturnCode.INTERNAL_ERROR)
        return Reply(ReturnCode.SUCCESS, answer)

    # -- background ------------------------------------------------------------------------------------------

    def _start(self, declared: Command, work: Background) -> Reply:
        self.background = BackgroundState(opcode=declared.opcode, running=True)
        self._work, self._started = work, self.clock.now()
        self._timer = self.clock.call_later(work.seconds, lambda: self._expire(work))
        return Reply(ReturnCode.BACKGROUND_STARTED)

    @property
    def busy(self) -> bool:
        """A background operation is running: no other may start."""
        return self.background.running

    def progress(self) -> BackgroundState:
        """The background operation as of now."""
        work = self._work
        if work is not None:
            share = (self.clock.now() - self._started) / work.seconds if work.seconds > 0 else 1.0
            self.background.percent = max(0, min(99, int(100 * share)))
        return self.background

    def finish(self) -> None:
        """End the background operation now, before its time."""
        with self.lock:
            if self._work is not None:
                self._expire(self._work)

    def _expire(self, work: Background) -> None:
        """The time of `work` is over. By then it may have been aborted, and other work under way."""
        with self.lock:
            if self._work is work:
                self._drop()
                self._end(self._carry_out(work.finish), 100)

    def abort(self) -> None:
        """Abort the background operation, if there is one (CXL 3.1 §8.2.9.1.5). Raises `CommandError` where it
        cannot be."""
        work = self._work
        if work is None:
            return
        if work.abort is None:
            raise CommandError(ReturnCode.ABORT_NOT_SUPPORTED)
        percent = self.progress().percent
        self._drop()
        work.abort()
        self._end(ReturnCode.ABORTED, percent)

    def reset(self) -> None:
        """Forget the background operation, as a conventional reset does. Nobody is told. The lock is held."""
        work = self._work
        self._drop()
        if work is not None:
            self._carry_out(work.interrupted or work.abort or work.finish)
        self.background = BackgroundState()

    def _carry_out(self, step: Callable[[], ReturnCode | None]) -> ReturnCode:
        try:
            return step() or ReturnCode.SUCCESS
        except CommandError as refused:
            return refused.code
        except Exception:
            log.exception("background command %04Xh failed", self.background.opcode)
            return ReturnCode.INTERNAL_ERROR

    def _drop(self) -> None:
        self._work = None
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, code: ReturnCode, percent: int) -> None:
        self.background.running = False
        self.background.code, self.background.percent = code, percent
        self.ended()


_SUCCESS = Reply(ReturnCode.SUCCESS)
_UNSUPPORTED = Reply(ReturnCode.UNSUPPORTED)
_INVALID_LENGTH = Reply(ReturnCode.INVALID_PAYLOAD_LENGTH)


def _fits(request: type[Record], length: int) -> bool:
    """Whether a request may have `length` bytes, as far as its declaration tells without its contents."""
    layout = request.__layout__
    return length == layout.size or (layout.fixed_size is None and length > layout.size)


def _parse(request: type[Record], payload: bytes) -> Record:
    """The request record, or the return code for a payload of the wrong length or with a value it cannot have."""
    try:
        return request.unpack(payload)
    except ValueUnknown:
        raise CommandError(ReturnCode.INVALID_INPUT) from None
    except LayoutError:
        raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH) from None
