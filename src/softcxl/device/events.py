"""Event logs: what happened to the device, for its software to fetch, clear and be interrupted by.

Rules of CXL 3.1 §8.2.9.2: a full log drops what is new and counts it as overflow, until records are cleared;
that is done oldest first, by handle; a log interrupts when it was empty and takes a record, and not again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.device.timestamp import TimestampCommands
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.events import (
    CLEAR_EVENT_RECORDS,
    GET_EVENT_INTERRUPT_POLICY,
    GET_EVENT_RECORDS,
    SET_EVENT_INTERRUPT_POLICY,
    ClearEventRecordsRequest,
    EventInterruptSetting,
    EventLog,
    GetEventInterruptPolicyResponse,
    GetEventRecordsFlags,
    GetEventRecordsRequest,
    GetEventRecordsResponse,
    InterruptMode,
    SetEventInterruptPolicyRequest,
)
from softcxl.spec.cxl.device import EventStatus
from softcxl.spec.cxl.events import EVENT_RECORD_SIZE, EventRecord, EventSeverity

_OVERFLOW_COUNT_MAX = 0xFFFF
_HANDLES = 0xFFFF


class Log:
    """One event log: at most `depth` records, oldest first, and the tally of those dropped."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.records: deque[EventRecord] = deque()
        self.overflow_count = 0
        self.first_overflow = self.last_overflow = 0
        self._handle = 0

    def next_handle(self) -> int:
        """1 to FFFFh in turn: never 0, and never that of a record still here."""
        self._handle = self._handle % _HANDLES + 1
        return self._handle

    def clear(self, count: int) -> None:
        """Drop the `count` oldest records. There is room again: the overflow is over."""
        for _ in range(count):
            self.records.popleft()
        self.overflow_count = self.first_overflow = self.last_overflow = 0


class EventLogs(CommandSet):
    """The event logs of a device, `depth` records each, with their commands and interrupts.

    `status` is the register that shows which logs hold records; `interrupt` is called with one of the function's
    `vectors`, each log's own where there are enough. `payload_max` (bytes) bounds how many records a reply
    carries. `dynamic_capacity`: there is a log of that, too. `lock` is the function's. `emptied` are called, by log,
    when records of it have gone, `filled` with each log that was empty and has taken one, and `taken` with every
    record that a log has taken. Raises `ValueError` for
    a depth that is not allowed.
    """

    def __init__(
        self,
        depth: int,
        timestamp: TimestampCommands,
        status: EventStatus,
        *,
        payload_max: int,
        vectors: int,
        interrupt: Callable[[int], None],
        lock: AbstractContextManager[object],
        dynamic_capacity: bool = False,
    ) -> None:
        if not 1 <= depth <= _HANDLES:
            raise ValueError(f"event log depth {depth}: 1 to 65535 records are allowed")
        self.logs: dict[EventLog, Log] = {
            kind: Log(depth) for kind in EventLog if dynamic_capacity or kind is not EventLog.DYNAMIC_CAPACITY
        }
        self.emptied: dict[EventLog, Callable[[], None]] = {}
        self.filled: list[Callable[[EventLog], None]] = []
        self.taken: list[Callable[[EventLog, EventRecord], None]] = []
        self.vectors = {kind: min(1 + kind, vectors - 1) for kind in EventLog}
        self.vectors[EventLog.DYNAMIC_CAPACITY] = self.vectors[EventLog.INFORMATIONAL]
        self._timestamp, self._status, self._interrupt, self._lock = timestamp, status, interrupt, lock
        self._room = (payload_max - GetEventRecordsResponse.__layout__.size) // EVENT_RECORD_SIZE
        self._modes = dict.fromkeys(EventLog, InterruptMode.NONE)

    def record(self, log: EventLog, event: Any) -> bool:
        """Log an event (any of the event records of `softcxl.spec.cxl.events`), as the device notices it.

        The device's part of the header (handle, timestamp, severity) is filled in. Returns False if the log was
        full and the record was dropped. Raises `ValueError` for a log that the device does not have. Safe from
        any thread.
        """
        if log not in self.logs:
            raise ValueError(f"{log!r}: the device has the logs {', '.join(one.name for one in self.logs)}")
        with self._lock:
            held, header = self.logs[log], event.header
            header.flags.severity = (
                EventSeverity.INFORMATIONAL if log is EventLog.DYNAMIC_CAPACITY else EventSeverity(int(log))
            )
            header.timestamp = self._timestamp.now()
            if len(held.records) >= held.depth:
                if not held.overflow_count:
                    held.first_overflow = header.timestamp
                held.overflow_count = min(held.overflow_count + 1, _OVERFLOW_COUNT_MAX)
                held.last_overflow = header.timestamp
                return False
            header.handle = held.next_handle()
            taken = EventRecord.unpack(event.pack())
            held.records.append(taken)
            self.show()
            for hear in self.taken:
                hear(log, taken)
            if len(held.records) == 1:
                if self._modes[log] is InterruptMode.MSI:
                    self._interrupt(self.vectors[log])
                for tell in self.filled:
                    tell(log)
            return True

    def room(self, log: EventLog) -> bool:
        """Whether a log takes another record. The function's lock is held."""
        held = self.logs[log]
        return len(held.records) < held.depth

    def forget(self) -> None:
        """Empty all logs. The function's lock is held."""
        for log in self.logs.values():
            log.clear(len(log.records))
        self.show()
        for tell in self.emptied.values():
            tell()

    def reset(self) -> None:
        """A conventional reset: records stay, the interrupt policy does not."""
        self._modes = dict.fromkeys(EventLog, InterruptMode.NONE)
        self.show()

    def show(self) -> None:
        """Bring the event status register up to date: bit n for log n."""
        self._status.assign(sum(1 << kind for kind, log in self.logs.items() if log.records))

    def _log(self, kind: EventLog) -> Log:
        log = self.logs.get(kind)
        if log is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return log

    # -- commands ------------------------------------------------------------------------------------------------

    @command(GET_EVENT_RECORDS)
    def get_event_records(self, request: GetEventRecordsRequest) -> GetEventRecordsResponse:
        log = self._log(request.event_log)
        records = list(islice(log.records, self._room))
        flags = GetEventRecordsFlags()
        flags.overflow, flags.more_event_records = (
            log.overflow_count > 0,
            len(log.records) > len(records),
        )
        return GetEventRecordsResponse(
            flags=flags,
            overflow_error_count=log.overflow_count,
            first_overflow_timestamp=log.first_overflow,
            last_overflow_timestamp=log.last_overflow,
            record_count=len(records),
            records=records,
        )

    @command(CLEAR_EVENT_RECORDS)
    def clear_event_records(self, request: ClearEventRecordsRequest) -> None:
        log, handles = self._log(request.event_log), request.handles
        if request.flags.clear_all:
            if handles or not log.overflow_count:  # allowed only where the log has overflowed
                raise CommandError(ReturnCode.INVALID_INPUT)
            log.clear(len(log.records))
        elif handles:
            if handles != [record.header.handle for record in islice(log.records, len(handles))]:
                raise CommandError(ReturnCode.INVALID_HANDLE)
            log.clear(len(handles))
        self.show()
        if tell := self.emptied.get(request.event_log):
            tell()

    @command(GET_EVENT_INTERRUPT_POLICY)
    def get_interrupt_policy(self) -> GetEventInterruptPolicyResponse:
        settings = [
            EventInterruptSetting.make(mode=self._modes[log], message_number=self.vectors[log] & 0xF)
            for log in EventLog
        ]
        return GetEventInterruptPolicyResponse(
            informational=settings[0],
            warning=settings[1],
            failure=settings[2],
            fatal=settings[3],
            dynamic_capacity=settings[4],
        )

    @command(SET_EVENT_INTERRUPT_POLICY)
    def set_interrupt_policy(self, request: SetEventInterruptPolicyRequest) -> None:
        if len(request.dynamic_capacity) > 1:
            raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH)
        settings = [request.informational, request.warning, request.failure, request.fatal]
        settings += [EventInterruptSetting(one) for one in request.dynamic_capacity]
        modes = [setting.mode for setting in settings]
        if any(mode not in tuple(InterruptMode) for mode in modes):
            raise CommandError(ReturnCode.INVALID_INPUT)
        self._modes.update({log: InterruptMode(mode) for log, mode in zip(EventLog, modes, strict=False)})
