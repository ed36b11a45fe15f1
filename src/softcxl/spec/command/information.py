"""Information and status: which component this is, and its background operation (opcodes 0001h to 0005h)."""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.wire import RO, Record, Register, bit, bits, reserved, u8, u16, u64, word


class ComponentType(enum.IntEnum):
    """Component Type (CXL 3.1 §8.2.9.1.1)."""

    SWITCH = 0x00
    TYPE_1 = 0x01
    TYPE_2 = 0x02
    TYPE_3 = 0x03


class IdentifyResponse(Record, size=0x12, spec="CXL 3.1 §8.2.9.1.1"):
    """Identify output payload."""

    vendor_id: int = u16()
    device_id: int = u16()
    subsystem_vendor_id: int = u16()
    subsystem_id: int = u16()
    serial_number: int = u64()
    max_message_size: int = u8("largest request or response: 1 << value bytes")
    component_type: int = u8("a `ComponentType`")


class BackgroundOperation(Register, width=8, spec="CXL 3.1 §8.2.9.1.2"):
    """Background Operation Status."""

    in_progress = bit(0, RO)
    percentage_complete = bits(7, 1, RO, "0 to 100")


class BackgroundOperationStatusResponse(Record, size=0x08, spec="CXL 3.1 §8.2.9.1.2"):
    """Background Operation Status output payload."""

    status: BackgroundOperation = word(BackgroundOperation)
    _reserved: None = reserved(1)
    opcode: int = u16("of the background operation last started")
    return_code: int = u16("a `ReturnCode`, once complete")
    vendor_status: int = u16("vendor-specific extended status")


class ResponseMessageLimit(Record, size=0x01, spec="CXL 3.1 §8.2.9.1.3"):
    """Get Response Message Limit output payload, and Set Response Message Limit's both."""

    limit: int = u8("largest response: 1 << value bytes, 8 to 20")


IDENTIFY: Final = Command(0x0001, "Identify", None, IdentifyResponse, NO_EFFECT, "CXL 3.1 §8.2.9.1.1")
BACKGROUND_OPERATION_STATUS: Final = Command(
    0x0002,
    "Background Operation Status",
    None,
    BackgroundOperationStatusResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.1.2",
)
GET_RESPONSE_MESSAGE_LIMIT: Final = Command(
    0x0003,
    "Get Response Message Limit",
    None,
    ResponseMessageLimit,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.1.3",
)
SET_RESPONSE_MESSAGE_LIMIT: Final = Command(
    0x0004,
    "Set Response Message Limit",
    ResponseMessageLimit,
    ResponseMessageLimit,
    CommandEffects.make(immediate_config_change=True),
    "CXL 3.1 §8.2.9.1.4",
)
REQUEST_ABORT_BACKGROUND_OPERATION: Final = Command(
    0x0005,
    "Request Abort Background Operation",
    None,
    None,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.1.5",
)

COMMANDS: Final = (
    IDENTIFY,
    BACKGROUND_OPERATION_STATUS,
    GET_RESPONSE_MESSAGE_LIMIT,
    SET_RESPONSE_MESSAGE_LIMIT,
    REQUEST_ABORT_BACKGROUND_OPERATION,
)
