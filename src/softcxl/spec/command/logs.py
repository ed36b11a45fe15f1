"""Logs: what a device keeps for its software, the Command Effects Log first (opcodes 0400h to 0405h)."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.wire import RO, Record, Register, bit, counted, reserved, tail, u8, u16, u32, uuid, word

COMMAND_EFFECTS_LOG: Final = UUID("0da9c0b5-bf41-4b78-8f79-96b1623b3f17")
"""Command Effects Log: a `CelEntry` for each command that the device supports (CXL 3.1 §8.2.9.5.2.1)."""

VENDOR_DEBUG_LOG: Final = UUID("5e1819d9-11a9-400c-811f-d60719403d86")
"""Vendor Debug Log (CXL 3.1 §8.2.9.5.2.2)."""

COMPONENT_STATE_DUMP_LOG: Final = UUID("b3fab4cf-01b6-4332-943e-5e9962f23567")
"""Component State Dump Log: a `ComponentStateDump` (CXL 3.2 §8.2.10.5.2.3)."""

ECS_LOG: Final = UUID("f1720d60-a7a9-4306-a003-11948f9e077c")
"""DDR5 Error Check Scrub Log: an `EcsLog` (CXL 3.2 §8.2.10.5.2.4)."""

MEDIA_TEST_CAPABILITY_LOG: Final = UUID("e6dfa32c-d13e-4a5c-8ca8-99bebbf731a4")
"""Media Test Capability Log: a `MediaTestCapabilityLog` (CXL 3.2 §8.2.10.5.2.5)."""

MEDIA_TEST_RESULTS_SHORT_LOG: Final = UUID("2c255522-8ce4-11ec-b909-0242ac120002")
"""Media Test Results Short Log: a `MediaTestResultsShortLog` (CXL 3.2 §8.2.10.5.2.6)."""

MEDIA_TEST_RESULTS_LONG_LOG: Final = UUID("c1fe0b3e-7a00-448e-a24e-a6aabbfe587a")
"""Media Test Results Long Log: a `MediaTestResultsLongLog` (CXL 3.2 §8.2.10.5.2.6)."""


class SupportedLog(Record, size=0x14, spec="CXL 3.1 §8.2.9.5.1"):
    """One entry of the lists of supported logs."""

    identifier: UUID = uuid()
    size: int = u32("largest size of the log, in bytes")


class GetSupportedLogsResponse(Record, size=0x08, spec="CXL 3.1 §8.2.9.5.1"):
    """Get Supported Logs output payload."""

    count: int = u16()
    _reserved: None = reserved(6)
    logs: list[SupportedLog] = counted(SupportedLog, "count")


class GetLogRequest(Record, size=0x18, spec="CXL 3.1 §8.2.9.5.2"):
    """Get Log input payload."""

    identifier: UUID = uuid()
    offset: int = u32("first byte of the log to return")
    length: int = u32("bytes to return")


class GetLogResponse(Record, size=0x00, spec="CXL 3.1 §8.2.9.5.2"):
    """Get Log output payload."""

    data: bytes = tail()


class LogIdentifier(Record, size=0x10, spec="CXL 3.1 §8.2.9.5.3"):
    """Input payload of Get Log Capabilities, Clear Log and Populate Log."""

    identifier: UUID = uuid()


class LogParameters(Register, width=32, spec="CXL 3.1 §8.2.9.5.3"):
    """Parameter Flags of a log."""

    clear_supported = bit(0, RO)
    populate_supported = bit(1, RO)
    auto_populate_supported = bit(2, RO, "the device fills the log by itself")
    persistent = bit(3, RO, "the log lives through cold resets")


class GetLogCapabilitiesResponse(Record, size=0x04, spec="CXL 3.1 §8.2.9.5.3"):
    """Get Log Capabilities output payload."""

    parameters: LogParameters = word(LogParameters)


class GetSupportedLogsSubListRequest(Record, size=0x02, spec="CXL 3.1 §8.2.9.5.6"):
    """Get Supported Logs Sub-List input payload."""

    max_entries: int = u8("entries to return at most; 0: as many as fit")
    start_index: int = u8()


class GetSupportedLogsSubListResponse(Record, size=0x08, spec="CXL 3.1 §8.2.9.5.6"):
    """Get Supported Logs Sub-List output payload."""

    count: int = u8()
    _reserved1: None = reserved(1)
    total: int = u16("logs that the device supports")
    start_index: int = u8()
    _reserved2: None = reserved(3)
    logs: list[SupportedLog] = counted(SupportedLog, "count")


GET_SUPPORTED_LOGS: Final = Command(
    0x0400,
    "Get Supported Logs",
    None,
    GetSupportedLogsResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.5.1",
)
GET_LOG: Final = Command(0x0401, "Get Log", GetLogRequest, GetLogResponse, NO_EFFECT, "CXL 3.1 §8.2.9.5.2")
GET_LOG_CAPABILITIES: Final = Command(
    0x0402,
    "Get Log Capabilities",
    LogIdentifier,
    GetLogCapabilitiesResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.5.3",
)
CLEAR_LOG: Final = Command(
    0x0403,
    "Clear Log",
    LogIdentifier,
    None,
    CommandEffects.make(immediate_log_change=True),
    "CXL 3.1 §8.2.9.5.4",
)
POPULATE_LOG: Final = Command(
    0x0404,
    "Populate Log",
    LogIdentifier,
    None,
    CommandEffects.make(immediate_log_change=True, background_operation=True),
    "CXL 3.1 §8.2.9.5.5",
)
GET_SUPPORTED_LOGS_SUB_LIST: Final = Command(
    0x0405,
    "Get Supported Logs Sub-List",
    GetSupportedLogsSubListRequest,
    GetSupportedLogsSubListResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.5.6",
)

COMMANDS: Final = (
    GET_SUPPORTED_LOGS,
    GET_LOG,
    GET_LOG_CAPABILITIES,
    CLEAR_LOG,
    POPULATE_LOG,
    GET_SUPPORTED_LOGS_SUB_LIST,
)
