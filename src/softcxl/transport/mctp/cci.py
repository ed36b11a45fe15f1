"""CXL's messages: type byte, header and payload, in the two ways in which fabric managers have them.

The standard has the category in bits 3:0 of its byte (CXL 3.1 Figure 7-19). Tools of CXL 2.0's time have it in bits
7:4, bits 20:16 of the length in bits 7:3 of their byte, and the background bit in its bit 0. A request looks the same
in both, so whoever listens must be told.
"""

from __future__ import annotations

import enum
from struct import Struct
from typing import Final, NamedTuple

from softcxl.spec.command.base import ReturnCode
from softcxl.spec.mctp.cci import CciCategory, CciMessageCategory, CciMessageHeader, CciPayloadLength
from softcxl.spec.mctp.packet import MessageType

_PREFIX = Struct("<BBBxHHBHH")  # type, category, tag, opcode, length (16 low bits, 8 high ones), code, status
PREFIX_SIZE: Final = 1 + CciMessageHeader.__layout__.size
"""Bytes before the payload."""

MAX_PAYLOAD: Final = CciPayloadLength.length.mask
"""Bytes that a payload can have, as far as its length has bits."""

_BACKGROUND_STARTED = int(ReturnCode.BACKGROUND_STARTED)
_HIGH = MAX_PAYLOAD >> 16


class Dialect(enum.Enum):
    """How the header of CXL's messages is laid out."""

    STANDARD = "standard"
    """As of CXL 3.x; libcxlmi and QEMU."""
    CXL2 = "cxl2"
    """As jack and its switch emulator have it."""


class CciMessage(NamedTuple):
    """A message. `length` is what its header says, `payload` as much of that as has come, `surplus` bytes beyond."""

    type: int
    category: int
    tag: int
    opcode: int
    length: int
    background: bool
    code: int
    vendor_status: int
    payload: bytes
    surplus: int


def pack_request(dialect: Dialect, type: int, tag: int, opcode: int, payload: bytes) -> bytes:
    """A request's message; both sides number their own by `tag` (8 bits). Raises `ValueError` where the payload is
    too long."""
    return _PREFIX.pack(type, 0, tag, opcode, *_length(dialect, len(payload), False), 0, 0) + payload


def pack_response(
    dialect: Dialect, type: int, tag: int, opcode: int, code: int, vendor_status: int, payload: bytes
) -> bytes:
    """A response's message. Raises `ValueError` where the payload is too long."""
    size = len(payload)
    if size <= 0xFFFF and code != _BACKGROUND_STARTED:
        return _PREFIX.pack(type, _RESPONSE[dialect], tag, opcode, size, 0, code, vendor_status) + payload
    low, high = _length(dialect, size, code == _BACKGROUND_STARTED)
    return _PREFIX.pack(type, _RESPONSE[dialect], tag, opcode, low, high, code, vendor_status) + payload


def unpack(dialect: Dialect, body: bytes) -> CciMessage:
    """A message's parts. Raises `ValueError` where it ends within its header."""
    if len(body) < PREFIX_SIZE:
        raise ValueError(f"a CXL message of {len(body)} bytes, its type and header alone have {PREFIX_SIZE}")
    type, category, tag, opcode, low, high, code, vendor_status = _PREFIX.unpack_from(body)
    if dialect is Dialect.STANDARD:
        length, background = low | (high & _HIGH) << 16, high >> 7 != 0
        category &= CciMessageCategory.category.mask
    else:
        length, background = low | high >> 3 << 16, high & 1 != 0
        category >>= 4
    payload = body[PREFIX_SIZE : PREFIX_SIZE + length]
    surplus = len(body) - PREFIX_SIZE - len(payload)
    return CciMessage(type, category, tag, opcode, length, background, code, vendor_status, payload, surplus)


_RESPONSE: Final = {Dialect.STANDARD: CciCategory.RESPONSE, Dialect.CXL2: CciCategory.RESPONSE << 4}


def _length(dialect: Dialect, length: int, background: bool) -> tuple[int, int]:
    if length > MAX_PAYLOAD:
        raise ValueError(f"a payload of {length} bytes, at most {MAX_PAYLOAD} are possible")
    high = length >> 16
    if dialect is Dialect.STANDARD:
        return length & 0xFFFF, high | background << 7
    return length & 0xFFFF, high << 3 | background


CXL_TYPES: Final = frozenset((MessageType.CXL_FM_API, MessageType.CXL_CCI))
"""Message types that have this header."""
