"""Poison: the list of bad addresses, injection, clearing, and scans for them (opcodes 4300h to 4305h)."""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.wire import RO, Record, Register, bit, bits, counted, raw, reserved, u16, u32, u64, word

POISON_UNIT: Final = 64
"""Bytes that are poisoned together: addresses are multiples of it (CXL 3.1 §8.2.9.9.4.1)."""


class PoisonSource(enum.IntEnum):
    """What poisoned an address (CXL 3.1 §8.2.9.9.4.1)."""

    UNKNOWN = 0
    EXTERNAL = 1
    INTERNAL = 2
    INJECTED = 3
    VENDOR = 7


class MediaErrorAddress(Register, width=64, spec="CXL 3.1 §8.2.9.9.4.1"):
    """Media Error Address: where the poison begins, and its source."""

    source = bits(2, 0, RO, PoisonSource)
    dpa = bits(63, 6, RO, "device physical address, in units of 64 bytes")


class MediaErrorRecord(Record, size=0x10, spec="CXL 3.1 §8.2.9.9.4.1"):
    """Media Error Record."""

    address: MediaErrorAddress = word(MediaErrorAddress)
    length: int = u32("in units of 64 bytes")
    _reserved: None = reserved(4)


class GetPoisonListRequest(Record, size=0x10, spec="CXL 3.1 §8.2.9.9.4.1"):
    """Get Poison List input payload."""

    address: int = u64("device physical address where the range begins; bits 5:0 are reserved")
    length: int = u64("of the range, in units of 64 bytes")


class PoisonListFlags(Register, width=8, spec="CXL 3.1 §8.2.9.9.4.1"):
    """Poison List Flags."""

    more = bit(0, RO, "the list goes on: the same request returns the rest")
    overflow = bit(1, RO, "the list is full and incomplete")
    scan_in_progress = bit(2, RO)


class GetPoisonListResponse(Record, size=0x20, spec="CXL 3.1 §8.2.9.9.4.1"):
    """Get Poison List output payload."""

    flags: PoisonListFlags = word(PoisonListFlags)
    _reserved1: None = reserved(1)
    overflow_timestamp: int = u64("when the list overflowed, in ns since 1970")
    count: int = u16()
    _reserved2: None = reserved(0x14)
    records: list[MediaErrorRecord] = counted(MediaErrorRecord, "count")


class InjectPoisonRequest(Record, size=0x08, spec="CXL 3.1 §8.2.9.9.4.2"):
    """Inject Poison input payload."""

    address: int = u64("device physical address; bits 5:0 are reserved")


class ClearPoisonRequest(Record, size=0x48, spec="CXL 3.1 §8.2.9.9.4.3"):
    """Clear Poison input payload."""

    address: int = u64("device physical address; bits 5:0 are reserved")
    write_data: bytes = raw(POISON_UNIT, "what the address holds afterwards")


class ScanMediaRange(Record, size=0x10, spec="CXL 3.1 §8.2.9.9.4.4"):
    """Get Scan Media Capabilities input payload."""

    address: int = u64("device physical address where the range begins; bits 5:0 are reserved")
    length: int = u64("of the range, in units of 64 bytes")


class GetScanMediaCapabilitiesResponse(Record, size=0x04, spec="CXL 3.1 §8.2.9.9.4.4"):
    """Get Scan Media Capabilities output payload."""

    estimated_time: int = u32("of a scan of the range, in ms")


class ScanMediaFlags(Register, width=8, spec="CXL 3.1 §8.2.9.9.4.5"):
    """Scan Media Flags."""

    no_event_log = bit(0, RO, "errors found are not logged as events")


class ScanMediaRequest(Record, size=0x11, spec="CXL 3.1 §8.2.9.9.4.5"):
    """Scan Media input payload."""

    address: int = u64("device physical address where the range begins; bits 5:0 are reserved")
    length: int = u64("of the range, in units of 64 bytes")
    flags: ScanMediaFlags = word(ScanMediaFlags)


class ScanMediaResultsFlags(Register, width=8, spec="CXL 3.1 §8.2.9.9.4.6"):
    """Scan Media Results Flags."""

    more = bit(0, RO, "the results go on: another request returns the rest")
    stopped_prematurely = bit(1, RO, "resources ran out: scan again from the restart address")


class GetScanMediaResultsResponse(Record, size=0x20, spec="CXL 3.1 §8.2.9.9.4.6"):
    """Get Scan Media Results output payload."""

    restart_address: int = u64("device physical address where a stopped scan goes on")
    restart_length: int = u64("of what is left, in units of 64 bytes")
    flags: ScanMediaResultsFlags = word(ScanMediaResultsFlags)
    _reserved1: None = reserved(1)
    count: int = u16()
    _reserved2: None = reserved(0x0C)
    records: list[MediaErrorRecord] = counted(MediaErrorRecord, "count")


GET_POISON_LIST: Final = Command(
    0x4300,
    "Get Poison List",
    GetPoisonListRequest,
    GetPoisonListResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.4.1",
)
INJECT_POISON: Final = Command(
    0x4301,
    "Inject Poison",
    InjectPoisonRequest,
    None,
    CommandEffects.make(immediate_data_change=True),
    "CXL 3.1 §8.2.9.9.4.2",
)
CLEAR_POISON: Final = Command(
    0x4302,
    "Clear Poison",
    ClearPoisonRequest,
    None,
    CommandEffects.make(immediate_data_change=True),
    "CXL 3.1 §8.2.9.9.4.3",
)
GET_SCAN_MEDIA_CAPABILITIES: Final = Command(
    0x4303,
    "Get Scan Media Capabilities",
    ScanMediaRange,
    GetScanMediaCapabilitiesResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.4.4",
)
SCAN_MEDIA: Final = Command(
    0x4304,
    "Scan Media",
    ScanMediaRequest,
    None,
    CommandEffects.make(background_operation=True),
    "CXL 3.1 §8.2.9.9.4.5",
)
GET_SCAN_MEDIA_RESULTS: Final = Command(
    0x4305,
    "Get Scan Media Results",
    None,
    GetScanMediaResultsResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.4.6",
)

COMMANDS: Final = (
    GET_POISON_LIST,
    INJECT_POISON,
    CLEAR_POISON,
    GET_SCAN_MEDIA_CAPABILITIES,
    SCAN_MEDIA,
    GET_SCAN_MEDIA_RESULTS,
)
