"""Erasure of media: sanitize, secure erase, media operations (opcodes 4400h to 4402h)."""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.command.base import Command, CommandEffects
from softcxl.wire import Record, counted, reserved, tail, u8, u16, u32, u64


class MediaOperationClass(enum.IntEnum):
    """Media Operation Class (CXL 3.2 §8.2.10.9.5.3)."""

    GENERAL = 0
    SANITIZE = 1


class GeneralSubclass(enum.IntEnum):
    """Media Operation Subclass of the general class (CXL 3.2 §8.2.10.9.5.3)."""

    DISCOVERY = 0


class SanitizeSubclass(enum.IntEnum):
    """Media Operation Subclass of the sanitize class (CXL 3.2 §8.2.10.9.5.3)."""

    SANITIZE = 0
    WRITE_ZEROS = 1


class DpaRange(Record, size=0x10, spec="CXL 3.2 §8.2.10.9.5.3"):
    """DPA Range List entry."""

    start: int = u64("device physical address")
    length: int = u64("in bytes")


class MediaOperationsRequest(Record, size=0x08, spec="CXL 3.2 §8.2.10.9.5.3"):
    """Media Operations input payload."""

    operation_class: int = u8("a `MediaOperationClass`")
    operation_subclass: int = u8()
    _reserved: None = reserved(2)
    range_count: int = u32()
    ranges: list[DpaRange] = counted(DpaRange, "range_count")
    arguments: bytes = tail("a `DiscoveryArguments` for discovery, else empty")


class DiscoveryArguments(Record, size=0x04, spec="CXL 3.2 §8.2.10.9.5.3"):
    """Operation-specific arguments of discovery."""

    start_index: int = u16("of the first operation to return")
    count: int = u16("operations to return at most")


class SupportedOperation(Record, size=0x02, spec="CXL 3.2 §8.2.10.9.5.3"):
    """Supported Operations List entry."""

    operation_class: int = u8("a `MediaOperationClass`")
    operation_subclass: int = u8()


class MediaOperationsDiscoveryResponse(Record, size=0x0C, spec="CXL 3.2 §8.2.10.9.5.3"):
    """Media Operations output payload of discovery; the other operations have none."""

    granularity: int = u64("ranges begin and end at multiples of this many bytes")
    total: int = u16("operations that the device supports")
    count: int = u16()
    operations: list[SupportedOperation] = counted(SupportedOperation, "count")


SANITIZE: Final = Command(
    0x4400,
    "Sanitize",
    None,
    None,
    CommandEffects.make(immediate_data_change=True, security_state_change=True, background_operation=True),
    "CXL 3.1 §8.2.9.9.5.1",
)
SECURE_ERASE: Final = Command(
    0x4401,
    "Secure Erase",
    None,
    None,
    CommandEffects.make(immediate_data_change=True, security_state_change=True, background_operation=True),
    "CXL 3.1 §8.2.9.9.5.2",
)
MEDIA_OPERATIONS: Final = Command(
    0x4402,
    "Media Operations",
    MediaOperationsRequest,
    MediaOperationsDiscoveryResponse,
    CommandEffects.make(immediate_data_change=True, background_operation=True),
    "CXL 3.2 §8.2.10.9.5.3",
)

COMMANDS: Final = (SANITIZE, SECURE_ERASE, MEDIA_OPERATIONS)
