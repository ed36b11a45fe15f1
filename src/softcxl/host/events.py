"""Event logs as Linux reads them (drivers/cxl/pci.c, core/mbox.c): by interrupt, to the end, cleared by handle.

`System.events` returns what has come since it was last called, as the kernel's tracepoints have it
(drivers/cxl/core/trace.h): with the memory device, and for memory the DPA, the HPA, and the region.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from softcxl.host import explain, media
from softcxl.host.errors import HostError, MailboxError
from softcxl.host.interrupts import Interrupts
from softcxl.spec.command.base import CelEntry
from softcxl.spec.command.events import (
    CLEAR_EVENT_RECORDS,
    GET_EVENT_INTERRUPT_POLICY,
    GET_EVENT_RECORDS,
    SET_EVENT_INTERRUPT_POLICY,
    ClearEventRecordsRequest,
    EventInterruptSetting,
    EventLog,
    GetEventInterruptPolicyResponse,
    GetEventRecordsRequest,
    GetEventRecordsResponse,
    InterruptMode,
    SetEventInterruptPolicyRequest,
)
from softcxl.spec.command.logs import (
    COMMAND_EFFECTS_LOG,
    GET_LOG,
    GET_SUPPORTED_LOGS,
    GetLogRequest,
    GetSupportedLogsResponse,
)
from softcxl.spec.cxl.events import (
    DRAM_EVENT,
    GENERAL_MEDIA_EVENT,
    MEMORY_MODULE_EVENT,
    MEMORY_SPARING_EVENT,
    DramEvent,
    EventRecord,
    GeneralMediaEvent,
    MemoryModuleEvent,
    MemorySparingEvent,
)

if TYPE_CHECKING:
    from softcxl.host.memdev import Memdev
    from softcxl.host.region import Region
    from softcxl.host.system import System

_NIL = UUID(int=0)

NO_HPA = (1 << 64) - 1
"""The HPA of what is mapped nowhere: all ones, as in the kernel's tracepoints."""

AnyRecord: TypeAlias = GeneralMediaEvent | DramEvent | MemoryModuleEvent | MemorySparingEvent | EventRecord

_KINDS: dict[UUID, type[Any]] = {
    GENERAL_MEDIA_EVENT: GeneralMediaEvent,
    DRAM_EVENT: DramEvent,
    MEMORY_MODULE_EVENT: MemoryModuleEvent,
    MEMORY_SPARING_EVENT: MemorySparingEvent,
}
_LOGS = (EventLog.FATAL, EventLog.FAILURE, EventLog.WARNING, EventLog.INFORMATIONAL)
"""In the order in which Linux reads them."""

_HANDLES_MAX = 0xFF
_DPA_UNIT = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device's byte is: `dpa` in the device; `hpa` in host addresses, all ones where it is mapped nowhere;
    the name and UUID of the region that has it, "" and the nil UUID for none."""

    dpa: int
    hpa: int = NO_HPA
    region: str = ""
    region_uuid: UUID = _NIL


@dataclass(frozen=True, slots=True)
class Event:
    """One event record: of which device and log, and for an event of memory where. `record` is of the type that its
    identifier says, `EventRecord` for one that is not known; `timestamp` is when it was read (ns, monotonic)."""

    memdev: Memdev
    log: EventLog
    record: AnyRecord
    place: Place | None
    timestamp: int

    @property
    def dpa(self) -> int | None:
        """The device physical address, None for an event that has none."""
        return None if self.place is None else self.place.dpa

    @property
    def hpa(self) -> int:
        """The host physical address; all ones where there is none."""
        return NO_HPA if self.place is None else self.place.hpa

    @property
    def region(self) -> str:
        """The name of the region that it happened in, or ""."""
        return "" if self.place is None else self.place.region

    def __repr__(self) -> str:
        where = "" if self.dpa is None else f", DPA {self.dpa:#x}"
        where += "" if self.hpa == NO_HPA else f", HPA {self.hpa:#x} in {self.region or 'no region'}"
        return f"<{self.log.name.lower()} event of {self.memdev.name}: {type(self.record).__name__}{where}>"


@dataclass(frozen=True, slots=True)
class Overflow:
    """A log was full: `count` records were dropped, from `first` to `last` (ns since 1970)."""

    memdev: Memdev
    log: EventLog
    count: int
    first: int
    last: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class PoisonTrace:
    """Poison that was listed, injected or cleared by command: `kind` is "List", "Inject" or "Clear". `length` in
    bytes; `flags` are those of the poison list, `overflow_time` is in ns since 1970."""

    memdev: Memdev
    kind: str
    place: Place
    length: int
    source: int
    flags: int
    overflow_time: int
    timestamp: int


Trace: TypeAlias = Event | Overflow | PoisonTrace


def place(system: System, memdev: Memdev, dpa: int) -> Place:
    """Where a device's byte is in host addresses."""
    for decoder in memdev.decoders:
        if decoder.dpa is not None and decoder.dpa[0] <= dpa < decoder.dpa[1] and decoder.region is not None:
            region: Region = decoder.region
            hpa = explain.translate(system, memdev, dpa)
            return Place(dpa, NO_HPA if hpa is None else hpa, region.name, region.uuid or _NIL)
    return Place(dpa)


def supported(memdev: Memdev) -> frozenset[int]:
    """The opcodes that a device's Command Effects Log has. Raises `MailboxError`."""
    logs = memdev.mailbox.ask(GET_SUPPORTED_LOGS, GetSupportedLogsResponse).logs
    size = next((one.size for one in logs if one.identifier == COMMAND_EFFECTS_LOG), 0)
    data = b""
    while len(data) < size:
        length = min(size - len(data), memdev.mailbox.payload_max)
        request = GetLogRequest(identifier=COMMAND_EFFECTS_LOG, offset=len(data), length=length)
        piece = memdev.mailbox.send(GET_LOG, request)
        if not piece:
            break
        data += piece
    width = CelEntry.__layout__.size
    return frozenset(
        CelEntry.unpack(data[at : at + width]).opcode for at in range(0, len(data) - width + 1, width)
    )


class EventReader:
    """The event logs of all memory devices. Reading begins, and interrupts are asked for, with the first `read`."""

    def __init__(self, system: System, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._system, self._clock = system, clock
        self._interrupts: Interrupts | None = None
        self._silent: set[Memdev] = set()
        self._known: set[Memdev] = set()
        self._found: list[Trace] = []

    def read(self) -> list[Trace]:
        """What has come since the last call, oldest first of each log.

        Only devices that have interrupted are asked, and those that cannot interrupt.
        """
        interrupts = self._interrupts = self._interrupts or Interrupts(self._system.machine)
        there = self._system.memdevs.values()
        self._known &= set(there)
        self._silent &= set(there)
        for one in there:
            if one not in self._known:
                self._known.add(one)
                self._begin(one, interrupts)
        waiting = {*interrupts.take(), *self._silent}
        for one in there:
            if one in waiting:
                self._serve(one)
        found, self._found = self._found, []
        return found

    def again(self, memdev: Memdev) -> None:
        """The device has been reset, and with it who it interrupts: it is asked to anew with the next `read`."""
        self._known.discard(memdev)

    def trace_poison(self, memdev: Memdev) -> None:
        """List the device's poison into what `read` returns next. Raises `MailboxError`."""
        for one in media.poison_records(memdev):
            self._poison(memdev, "List", one)

    def trace(self, memdev: Memdev, dpa: int, kind: str) -> None:
        """Note the 64 bytes that have been poisoned ("Inject") or healed ("Clear") by command."""
        self._poison(memdev, kind, media.PoisonRecord(dpa, _DPA_UNIT, 0, 0, 0))

    def _poison(self, memdev: Memdev, kind: str, one: media.PoisonRecord) -> None:
        where = place(self._system, memdev, one.dpa)
        self._found.append(
            PoisonTrace(
                memdev, kind, where, one.length, one.source, one.flags, one.overflow_time, self._clock()
            )
        )

    # -- one device ----------------------------------------------------------------------------------------------

    def _begin(self, memdev: Memdev, interrupts: Interrupts) -> None:
        """Ask to be interrupted for all four logs, and take what is in them already."""
        try:
            policy = memdev.mailbox.ask(GET_EVENT_INTERRUPT_POLICY, GetEventInterruptPolicyResponse)
            held = (policy.informational, policy.warning, policy.failure, policy.fatal)
            if any(one.mode == InterruptMode.FIRMWARE for one in held):
                self._system.problems.append(f"{memdev.name}: its event logs are the firmware's")
                return
            if interrupts.connect(memdev):
                by_message = EventInterruptSetting.make(mode=InterruptMode.MSI)
                request = SetEventInterruptPolicyRequest(
                    informational=by_message, warning=by_message, failure=by_message, fatal=by_message
                )
                memdev.mailbox.send(SET_EVENT_INTERRUPT_POLICY, request)
            else:
                self._silent.add(memdev)
        except MailboxError as error:
            self._system.problems.append(str(error))
            return
        self._serve(memdev)

    def _serve(self, memdev: Memdev) -> None:
        """What the interrupt thread does: read logs until the event status register is empty."""
        try:
            status = int(memdev.mailbox.event_status) & 0xF
            while status and memdev.present:
                for log in _LOGS:
                    if status & 1 << log:
                        self._drain(memdev, log)
                status = int(memdev.mailbox.event_status) & 0xF
        except HostError as error:
            self._system.problems.append(str(error))

    def _drain(self, memdev: Memdev, log: EventLog) -> None:
        while True:
            answer = memdev.mailbox.ask(
                GET_EVENT_RECORDS, GetEventRecordsResponse, GetEventRecordsRequest(event_log=log)
            )
            if not answer.records:
                return
            self._found += [self._event(memdev, log, one) for one in answer.records]
            if answer.flags.overflow:
                self._found.append(
                    Overflow(
                        memdev,
                        log,
                        answer.overflow_error_count,
                        answer.first_overflow_timestamp,
                        answer.last_overflow_timestamp,
                        self._clock(),
                    )
                )
            handles = [one.header.handle for one in answer.records]
            most = min(
                _HANDLES_MAX, (memdev.mailbox.payload_max - ClearEventRecordsRequest.__layout__.size) // 2
            )
            for at in range(0, len(handles), most):
                memdev.mailbox.send(
                    CLEAR_EVENT_RECORDS,
                    ClearEventRecordsRequest(event_log=log, handles=handles[at : at + most]),
                )

    def _event(self, memdev: Memdev, log: EventLog, raw: EventRecord) -> Event:
        kind = _KINDS.get(raw.header.identifier)
        record: AnyRecord = raw if kind is None else kind.unpack(raw.pack())
        where = None
        if isinstance(record, GeneralMediaEvent | DramEvent):
            where = place(self._system, memdev, record.address.dpa * _DPA_UNIT)
        return Event(memdev, log, record, where, self._clock())
