"""The header of CXL's messages, as libcxlmi's `cxlmi_cci_msg` and jack's serialisation of `fmapi_hdr` have it."""

from __future__ import annotations

import pytest

from softcxl.spec.mctp.cci import CciMessageHeader
from softcxl.transport.mctp import Dialect
from softcxl.transport.mctp.cci import CciMessage, pack_request, pack_response, unpack

STANDARD, CXL2 = Dialect.STANDARD, Dialect.CXL2


def libcxlmi(
    category: int, tag: int, opcode: int, length: int, background: int, code: int, status: int
) -> bytes:
    """Category in bits 3:0; length in 20 bits and more of three bytes; background in bit 7 of the third."""
    return (
        bytes([category & 0xF, tag, 0, opcode & 0xFF, opcode >> 8])
        + bytes([length & 0xFF, length >> 8 & 0xFF, length >> 16 & 0x1F | background << 7])
        + code.to_bytes(2, "little")
        + status.to_bytes(2, "little")
    )


def jack(category: int, tag: int, opcode: int, length: int, background: int, code: int, status: int) -> bytes:
    """Category in bits 7:4; bits 20:16 of the length in bits 7:3 of the third byte, background in its bit 0."""
    return (
        bytes([category << 4 & 0xF0, tag, 0, opcode & 0xFF, opcode >> 8])
        + bytes([length & 0xFF, length >> 8 & 0xFF, length >> 13 & 0xF8 | background & 1])
        + code.to_bytes(2, "little")
        + status.to_bytes(2, "little")
    )


@pytest.mark.parametrize("size", [0, 1, 0xFFFF, 0x10000, 0x123456, 0x1FFFFF])
@pytest.mark.parametrize(("dialect", "theirs"), [(STANDARD, libcxlmi), (CXL2, jack)])
def test_messages_of_both_dialects(dialect, theirs, size) -> None:
    payload = bytes(size)
    request = pack_request(dialect, 7, 0x42, 0x5201, payload)
    assert request[:13] == b"\x07" + theirs(0, 0x42, 0x5201, size, 0, 0, 0)
    for code in (0, 1, 0x16):
        response = pack_response(dialect, 8, 0x42, 0x5201, code, 0xBEEF, payload)
        assert response[:13] == b"\x08" + theirs(1, 0x42, 0x5201, size, code == 1, code, 0xBEEF)
        assert unpack(dialect, response + b"pad") == CciMessage(
            8, 1, 0x42, 0x5201, size, code == 1, code, 0xBEEF, payload, 3
        )


def test_the_header_is_the_declared_one() -> None:
    header = CciMessageHeader.unpack(pack_response(STANDARD, 7, 5, 0x5100, 1, 9, b"xyz")[1:13])
    assert (header.category.category, header.tag, header.opcode) == (1, 5, 0x5100)
    assert (header.payload.length, header.payload.background_operation) == (3, True)
    assert (header.return_code, header.vendor_status) == (1, 9)


def test_a_message_that_is_cut_off() -> None:
    message = unpack(STANDARD, pack_request(STANDARD, 7, 0, 0x5100, b"0123456789")[:18])
    assert (message.length, message.payload, message.surplus) == (10, b"01234", 0)
    with pytest.raises(ValueError, match="a CXL message of 12 bytes, its type and header alone have 13"):
        unpack(STANDARD, bytes(12))


@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_payload_that_is_too_long(dialect) -> None:
    with pytest.raises(ValueError, match="2097152 bytes, at most 2097151 are possible"):
        pack_request(dialect, 7, 0, 0, bytes(1 << 21))
