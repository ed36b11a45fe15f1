"""CXL's messages over MCTP: FM API and component command interface (DSP0234, DSP0281, CXL 3.1 §7.6.3).

A message is its type byte (`MessageType.CXL_FM_API` or `CXL_CCI`), a `CciMessageHeader` and the command's payload.
"""

from __future__ import annotations

import enum

from softcxl.wire import RO, Record, Register, bit, bits, reserved, u8, u16, word


class CciCategory(enum.IntEnum):
    """Message Category (CXL 3.1 Figure 7-19)."""

    REQUEST = 0
    RESPONSE = 1


class CciMessageCategory(Register, width=8, spec="CXL 3.1 Figure 7-19"):
    """First byte of a CCI message. Some tools of CXL 2.0's time have the category in bits 7:4."""

    category = bits(3, 0, RO, CciCategory)


class CciPayloadLength(Register, width=24, spec="CXL 3.1 Figure 7-19"):
    """Message Payload Length, and whether the answer is of a background operation."""

    length = bits(20, 0, RO, "of the payload, in bytes")
    background_operation = bit(23, RO, "of a response: the command goes on in the background")


class CciMessageHeader(Record, size=0x0C, spec="CXL 3.1 Figure 7-19"):
    """CCI Message, before its payload."""

    category: CciMessageCategory = word(CciMessageCategory)
    tag: int = u8("the requester's number, which the response repeats")
    _reserved: None = reserved(1)
    opcode: int = u16("of the command; the response repeats it")
    payload: CciPayloadLength = word(CciPayloadLength)
    return_code: int = u16("of a response, a `ReturnCode`")
    vendor_status: int = u16("of a response: vendor-specific extended status")
