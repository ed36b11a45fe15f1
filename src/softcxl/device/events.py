"""Event logs: what happened to the device, for its software to fetch, clear and be interrupted by.

Rules of CXL 3.1 §8.2.9.2: a full log drops what is new and counts it as overflow; records are cleared oldest
first, by handle; the interrupt comes when a log that was empty takes a record, and at an overflow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
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

    def clear_overflow(self) -> None:
        self.overflow_count = self.first_overflow = self.last_overflow = 0


class EventLogs(CommandSet):
    """The event logs of a device, `depth` records each, with their commands and interrupts.

    `status` is the register that shows which logs hold records; `interrupt` is called with one of the function's
    `vectors`, each log's own where there are enough.
    `payload_max` (bytes) bounds how many records a reply carries.
    """

    def __init__(
        self,
        depth: int,
        timestamp: TimestampCommands,
        status: EventStatus,
        payload_max: int,
        vectors: int,
        interrupt: Callable[[int], None],
    ) -> None:
        if not 1 <= depth <= 0xFFFF:
            raise ValueError(f"event log depth {depth}: 1 to 65535 records are allowed")
        self.logs: dict[EventLog, Log] = {
            kind: Log(depth) for kind in EventLog if kind is not EventLog.DYNAMIC_CAPACITY
        }
        self.vectors = {kind: min(1 + kind, vectors - 1) for kind in EventLog}
        self._timestamp, self._status, self._interrupt = timestamp, status, interrupt
        self._room = (payload_max - GetEventRecordsResponse.__layout__.size) // EVENT_RECORD_SIZE
        self._modes = dict.fromkeys(EventLog, InterruptMode.NONE)
        self._handle = 0

    def record(self, log: EventLog, event: Any) -> bool:
        """Log an event (any of the event records of `softcxl.spec.cxl.events`), as the device notices it.

        The device's part of the header (handle, timestamp, severity) is filled in. Returns False if the log was
        full and the record was dropped.
        """
        header = event.header
        header.flags.severity = EventSeverity(min(int(log), EventSeverity.FATAL))
        header.timestamp = self._timestamp.now()
        held = self.logs[log]
        if len(held.records) >= held.depth:
            first = not held.overflow_count
            held.overflow_count = min(held.overflow_count + 1, _OVERFLOW_COUNT_MAX)
            held.last_overflow = header.timestamp
            if first:
                held.first_overflow = header.timestamp
                self._notify(log)
            return False
        self._handle = self._handle % _HANDLES + 1
        header.handle = self._handle
        was_empty = not held.records
        held.records.append(EventRecord.unpack(event.pack()))
        self._show()
        if was_empty:
            self._notify(log)
        return True

    def forget(self) -> None:
        """Empty all logs, as a cold reset does."""
        for log in self.logs.values():
            log.records.clear()
            log.clear_overflow()
        self._show()

    def reset(self) -> None:
        """A conventional reset: records stay, the interrupt policy does not."""
        self._modes = dict.fromkeys(EventLog, InterruptMode.NONE)
        self._show()

    def _notify(self, log: EventLog) -> None:
        if self._modes[log] is InterruptMode.MSI:
            self._interrupt(self.vectors[log])

    def _show(self) -> None:
        shown = type(self._status)()
        shown.informational = bool(self.logs[EventLog.INFORMATIONAL].records)
        shown.warning = bool(self.logs[EventLog.WARNING].records)
        shown.failure = bool(self.logs[EventLog.FAILURE].records)
        shown.fatal = bool(self.logs[EventLog.FATAL].records)
        self._status.assign(int(shown))

    def _log(self, kind: EventLog) -> Log:
        log = self.logs.get(kind)
        if log is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return log

    # -- commands ------------------------------------------------------------------------------------------------

    @command(GET_EVENT_RECORDS)
    def get_event_records(self, request: GetEventRecordsRequest) -> GetEventRecordsResponse:
        log = self._log(request.event_log)
        records = [log.records[index] for index in range(min(self._room, len(log.records)))]
        flags = GetEventRecordsFlags.make(
            overflow=log.overflow_count > 0, more_event_records=len(log.records) > len(records)
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
        log = self._log(request.event_log)
        if request.flags.clear_all:
            log.records.clear()
        else:
            oldest = [
                log.records[index].header.handle
                for index in range(min(len(request.handles), len(log.records)))
            ]
            if not request.handles or request.handles != oldest:
                raise CommandError(ReturnCode.INVALID_HANDLE)
            for _ in request.handles:
                log.records.popleft()
        log.clear_overflow()
        self._show()

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
