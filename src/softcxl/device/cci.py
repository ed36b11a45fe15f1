"""The component command interface: finds the handler of an opcode, checks what any command demands, runs it.

Mailbox, MCTP endpoint and tunnel are doors into the same `Cci`. A command is a method::

    class MemoryCommands(CommandSet):
        @command(IDENTIFY_MEMORY_DEVICE)             # opcode, effects and payload types come from the spec
        def identify(self) -> IdentifyMemoryDevice:
            return IdentifyMemoryDevice(...)

It takes the request record (if the command has one), and returns the response record, None, or a `Background`.
It refuses by raising `CommandError(ReturnCode.X)`. The Command Effects Log is derived from the handlers.
"""

from __future__ import annotations

import logging

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from softcxl.device.clock import Clock, Timer
from softcxl.spec.command.base import Command, ReturnCode
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

    `abort` (if the work can be aborted) undoes what has to be undone. One at a time in a device.
    """

    seconds: float
    finish: Callable[[], ReturnCode]
    abort: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back: return code, payload, and whether work goes on in the background."""

    code: ReturnCode
    payload: bytes = b""
    vendor_status: int = 0


def command(declared: Command) -> Callable[[Method], Method]:
    """Make a method the handler of `declared`."""

    def mark(method: Method) -> Method:
        method.__command__ = declared  # type: ignore[attr-defined]
        return method

    return mark


class CommandSet:
    """Base of classes whose methods handle commands. A subclass overrides a command by handling it again."""

    def commands(self) -> Iterator[tuple[Command, Callable[..., Any]]]:
        """Each command that this object handles, with its bound method."""
        found: dict[int, tuple[Command, str]] = {}
        for base in reversed(type(self).__mro__):
            for name, value in vars(base).items():
                declared = getattr(value, "__command__", None)
                if declared is not None:
                    found[declared.opcode] = (declared, name)
        for declared, name in found.values():
            yield declared, getattr(self, name)


@dataclass(slots=True)
class BackgroundStatus:
    """The last background operation: its opcode, how far it is (percent), its return code once it has ended."""

    opcode: int = 0
    percent: int = 0
    code: ReturnCode = ReturnCode.SUCCESS
    vendor_status: int = 0
    running: bool = False


class Cci:
    """A command interface over the commands of `sets`; where two handle the same opcode, the first one does.

    `barred(command)` is asked before each command whether the device's state forbids it, and with what code.
    `ended()` is called when a background operation has ended. `lock` is the function's: its holder calls
    `execute`, and timers take it.
    """

    def __init__(self, clock: Clock, lock: AbstractContextManager[object], *, payload_max: int) -> None:
        self.clock, self.lock, self.payload_max = clock, lock, payload_max
        self.handlers: dict[int, tuple[Command, Callable[..., Any]]] = {}
        self.background = BackgroundStatus()
        self.barred: Callable[[Command], ReturnCode | None] = lambda command: None
        self.ended: Callable[[], None] = lambda: None
        self._work: Background | None = None
        self._timer: Timer | None = None
        self._started = 0.0

    def add(self, sets: Iterable[CommandSet]) -> None:
        """Take in the commands of `sets`; a command that is there already stays."""
        for one in sets:
            for declared, handler in one.commands():
                self.handlers.setdefault(declared.opcode, (declared, handler))

    def execute(self, opcode: int, payload: bytes = b"") -> Reply:
        """Run one command to its reply. Never raises: a handler that fails is logged and answers Internal Error."""
        entry = self.handlers.get(opcode)
        if entry is None:
            return Reply(ReturnCode.UNSUPPORTED)
        declared, handler = entry
        code = ReturnCode.BUSY if declared.background and self.busy else self.barred(declared)
        if code is not None:
            return Reply(code)
        try:
            if declared.request is None:
                if payload:
                    return Reply(ReturnCode.INVALID_PAYLOAD_LENGTH)
                result = handler()
            else:
                result = handler(_parse(declared.request, payload))
        except CommandError as refused:
            return Reply(refused.code, vendor_status=refused.vendor_status)
        except Exception:
            log.exception("command %04Xh failed", opcode)
            return Reply(ReturnCode.INTERNAL_ERROR)
        if isinstance(result, Background):
            return self._start(declared, result)
        answer = b"" if result is None else result.pack() if isinstance(result, Record) else bytes(result)
        return Reply(ReturnCode.SUCCESS, answer)

    # -- background ----------------------------------------------------------------------------------------------

    def _start(self, declared: Command, work: Background) -> Reply:
        self.background = BackgroundStatus(opcode=declared.opcode, running=True)
        self._work, self._started = work, self.clock.now()
        self._timer = self.clock.call_later(work.seconds, self.finish)
        return Reply(ReturnCode.BACKGROUND_STARTED)

    @property
    def busy(self) -> bool:
        """A background operation is running: no other may start."""
        return self.background.running

    def progress(self) -> BackgroundStatus:
        """The background operation as of now."""
        work = self._work
        if work is not None:
            share = (self.clock.now() - self._started) / work.seconds if work.seconds > 0 else 1.0
            self.background.percent = min(99, int(100 * share))
        return self.background

    def finish(self) -> None:
        """End the background operation now (its timer does)."""
        with self.lock:
            work, self._work = self._work, None
            if work is None:
                return
            try:
                code = work.finish()
            except CommandError as refused:
                code = refused.code
            except Exception:
                log.exception("background command %04Xh failed", self.background.opcode)
                code = ReturnCode.INTERNAL_ERROR
            self._end(code, 100)

    def abort(self) -> None:
        """Abort the background operation (CXL 3.1 §8.2.9.1.5). Refused where it cannot be."""
        work = self._work
        if work is None:
            return
        if work.abort is None:
            raise CommandError(ReturnCode.ABORT_NOT_SUPPORTED)
        percent = self.progress().percent
        self._drop()
        work.abort()
        self._end(ReturnCode.ABORTED, percent)

    def cancel(self) -> None:
        """Forget the background operation, as a reset does: nobody is told."""
        work = self._work
        self._drop()
        if work is not None and work.abort is not None:
            work.abort()
        self.background = BackgroundStatus()

    def _drop(self) -> None:
        self._work = None
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, code: ReturnCode, percent: int) -> None:
        self.background.running = False
        self.background.code, self.background.percent = code, percent
        self.ended()


def _parse(request: type[Record], payload: bytes) -> Record:
    """The request record, or the return code for a payload of the wrong length or with a value it cannot have."""
    layout = request.__layout__
    if len(payload) < layout.size or layout.fixed_size not in (None, len(payload)):
        raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH)
    try:
        record, end = request.parse(payload)
    except ValueUnknown:
        raise CommandError(ReturnCode.INVALID_INPUT) from None
    except LayoutError:
        raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH) from None
    if end != len(payload):
        raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH)
    return record
