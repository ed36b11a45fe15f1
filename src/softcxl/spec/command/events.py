"""Events: Get and Clear Event Records, and how the device tells of them (opcodes 0100h to 0106h)."""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.spec.cxl.events import EventRecord
from softcxl.wire import RO, Record, Register, bit, bits, counted, reserved, tail, u8, u16, u64, word


class EventLog(enum.IntEnum):
    """Event logs (CXL 3.1 Table 8-52)."""

    INFORMATIONAL = 0
    WARNING = 1
    FAILURE = 2
    FATAL = 3
    DYNAMIC_CAPACITY = 4


class GetEventRecordsRequest(Record, size=0x01, spec="CXL 3.1 §8.2.9.2.2"):
    """Get Event Records input payload."""

    event_log: EventLog = u8(EventLog)


class GetEventRecordsFlags(Register, width=8, spec="CXL 3.1 §8.2.9.2.2"):
    """Get Event Records output flags."""

    overflow = bit(0, RO, "records were dropped: the overflow fields hold")
    more_event_records = bit(1, RO, "the log holds more than were returned")


class GetEventRecordsResponse(Record, size=0x20, spec="CXL 3.1 §8.2.9.2.2"):
    """Get Event Records output payload."""

    flags: GetEventRecordsFlags = word(GetEventRecordsFlags)
    _reserved1: None = reserved(1)
    overflow_error_count: int = u16("records dropped since the overflow; stays at FFFFh")
    first_overflow_timestamp: int = u64("of the first record dropped, in ns since 1970")
    last_overflow_timestamp: int = u64("of the last record dropped, in ns since 1970")
    record_count: int = u16()
    _reserved2: None = reserved(0x0A)
    records: list[EventRecord] = counted(EventRecord, "record_count", "oldest first")


class ClearEventRecordsFlags(Register, width=8, spec="CXL 3.1 §8.2.9.2.3"):
    """Clear Event Records flags."""

    clear_all = bit(0, RO, "the whole log, its overflow too; no handles are given")


class ClearEventRecordsRequest(Record, size=0x06, spec="CXL 3.1 §8.2.9.2.3"):
    """Clear Event Records input payload."""

    event_log: EventLog = u8(EventLog)
    flags: ClearEventRecordsFlags = word(ClearEventRecordsFlags)
    handle_count: int = u8()
    _reserved: None = reserved(3)
    handles: list[int] = counted(u16, "handle_count", "in the order in which they were returned")


class InterruptMode(enum.IntEnum):
    """How a log's events interrupt the host (CXL 3.1 §8.2.9.2.4)."""

    NONE = 0
    MSI = 1
    FIRMWARE = 2


class EventInterruptSetting(Register, width=8, spec="CXL 3.1 §8.2.9.2.4"):
    """How one log interrupts."""

    mode = bits(1, 0, RO, InterruptMode)
    message_number = bits(7, 4, RO, "MSI or MSI-X vector; the device's choice, ignored when set")


class GetEventInterruptPolicyResponse(Record, size=0x05, spec="CXL 3.1 §8.2.9.2.4"):
    """Get Event Interrupt Policy output payload."""

    informational: EventInterruptSetting = word(EventInterruptSetting)
    warning: EventInterruptSetting = word(EventInterruptSetting)
    failure: EventInterruptSetting = word(EventInterruptSetting)
    fatal: EventInterruptSetting = word(EventInterruptSetting)
    dynamic_capacity: EventInterruptSetting = word(EventInterruptSetting, "vector of the informational log")


class SetEventInterruptPolicyRequest(Record, size=0x04, spec="CXL 3.1 §8.2.9.2.5"):
    """Set Event Interrupt Policy input payload: five bytes, or four from software as of CXL 2.0."""

    informational: EventInterruptSetting = word(EventInterruptSetting)
    warning: EventInterruptSetting = word(EventInterruptSetting)
    failure: EventInterruptSetting = word(EventInterruptSetting)
    fatal: EventInterruptSetting = word(EventInterruptSetting)
    dynamic_capacity: list[int] = tail(u8, "an `EventInterruptSetting`, where it was sent")


class MctpEventInterrupts(Register, width=16, spec="CXL 3.1 §8.2.9.2.6"):
    """Which events send an Event Notification over MCTP."""

    informational = bit(0, RO)
    warning = bit(1, RO)
    failure = bit(2, RO)
    fatal = bit(3, RO)
    dynamic_capacity = bit(4, RO)
    background_operation = bit(15, RO, "a background operation has completed")


class MctpEventInterruptPolicy(Record, size=0x02, spec="CXL 3.1 §8.2.9.2.6"):
    """Get MCTP Event Interrupt Policy output payload, and Set MCTP Event Interrupt Policy's both."""

    settings: MctpEventInterrupts = word(MctpEventInterrupts)


class EventNotificationRequest(Record, size=0x02, spec="CXL 3.1 §8.2.9.2.8"):
    """Event Notification input payload, from the device to its manager."""

    events: MctpEventInterrupts = word(MctpEventInterrupts)


GET_EVENT_RECORDS: Final = Command(
    0x0100,
    "Get Event Records",
    GetEventRecordsRequest,
    GetEventRecordsResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.2.2",
)
CLEAR_EVENT_RECORDS: Final = Command(
    0x0101,
    "Clear Event Records",
    ClearEventRecordsRequest,
    None,
    CommandEffects.make(immediate_log_change=True),
    "CXL 3.1 §8.2.9.2.3",
)
GET_EVENT_INTERRUPT_POLICY: Final = Command(
    0x0102,
    "Get Event Interrupt Policy",
    None,
    GetEventInterruptPolicyResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.2.4",
)
SET_EVENT_INTERRUPT_POLICY: Final = Command(
    0x0103,
    "Set Event Interrupt Policy",
    SetEventInterruptPolicyRequest,
    None,
    CommandEffects.make(immediate_policy_change=True),
    "CXL 3.1 §8.2.9.2.5",
)
GET_MCTP_EVENT_INTERRUPT_POLICY: Final = Command(
    0x0104,
    "Get MCTP Event Interrupt Policy",
    None,
    MctpEventInterruptPolicy,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.2.6",
)
SET_MCTP_EVENT_INTERRUPT_POLICY: Final = Command(
    0x0105,
    "Set MCTP Event Interrupt Policy",
    MctpEventInterruptPolicy,
    MctpEventInterruptPolicy,
    CommandEffects.make(immediate_policy_change=True),
    "CXL 3.1 §8.2.9.2.7",
)
EVENT_NOTIFICATION: Final = Command(
    0x0106,
    "Event Notification",
    EventNotificationRequest,
    None,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.2.8",
)

COMMANDS: Final = (
    GET_EVENT_RECORDS,
    CLEAR_EVENT_RECORDS,
    GET_EVENT_INTERRUPT_POLICY,
    SET_EVENT_INTERRUPT_POLICY,
    GET_MCTP_EVENT_INTERRUPT_POLICY,
    SET_MCTP_EVENT_INTERRUPT_POLICY,
    EVENT_NOTIFICATION,
)
