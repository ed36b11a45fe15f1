"""Multi-headed devices: heads, and whose logical devices are whose (opcodes 5500h and 5501h)."""

from __future__ import annotations

from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command
from softcxl.wire import RO, Record, Register, bit, counted, reserved, u8, word

NO_HEAD: Final = 0xFF
"""Entry of the LD map of a logical device that no head has (CXL 3.1 §7.6.7.5.1)."""


class GetMultiHeadedInfoRequest(Record, size=0x02, spec="CXL 3.1 §7.6.7.5.1"):
    """Get Multi-Headed Info input payload."""

    start: int = u8("LD ID of the first to return")
    limit: int = u8("entries to return at most, 1 or more")


class GetMultiHeadedInfoResponse(Record, size=0x08, spec="CXL 3.1 §7.6.7.5.1"):
    """Get Multi-Headed Info output payload."""

    ld_count: int = u8("logical devices of the pool")
    head_count: int = u8()
    _reserved1: None = reserved(2)
    start: int = u8("LD ID of the first entry")
    count: int = u8("entries that follow")
    _reserved2: None = reserved(2)
    ld_map: list[int] = counted(u8, "count", "port number of each one's head; `NO_HEAD`: none")


class GetHeadInfoRequest(Record, size=0x02, spec="CXL 3.1 §7.6.7.5.2"):
    """Get Head Info input payload."""

    start: int = u8("ID of the first head to return")
    count: int = u8()


class HeadLinkState(Register, width=8, spec="CXL 3.1 §7.6.7.5.2"):
    """Link State Flags of a head."""

    lane_reversal = bit(0, RO)
    perst = bit(1, RO, "PERST# is asserted")


class HeadInformation(Record, size=0x09, spec="CXL 3.1 §7.6.7.5.2"):
    """Head Information Block. Link widths and speeds are encoded as in the PCIe link capability registers."""

    port: int = u8("port number of the head's link")
    maximum_link_width: int = u8("lanes")
    negotiated_link_width: int = u8("lanes")
    supported_link_speeds: int = u8("one bit a speed, 2.5 GT/s in bit 0")
    maximum_link_speed: int = u8("1: 2.5 GT/s, then a step a generation")
    current_link_speed: int = u8("1: 2.5 GT/s, then a step a generation")
    ltssm_state: int = u8("an `LtssmState`")
    first_lane: int = u8("lowest lane that was negotiated")
    link_state: HeadLinkState = word(HeadLinkState)


class GetHeadInfoResponse(Record, size=0x04, spec="CXL 3.1 §7.6.7.5.2"):
    """Get Head Info output payload."""

    count: int = u8()
    _reserved: None = reserved(3)
    heads: list[HeadInformation] = counted(HeadInformation, "count")


GET_MULTI_HEADED_INFO: Final = Command(
    0x5500,
    "Get Multi-Headed Info",
    GetMultiHeadedInfoRequest,
    GetMultiHeadedInfoResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.5.1",
)
GET_HEAD_INFO: Final = Command(
    0x5501,
    "Get Head Info",
    GetHeadInfoRequest,
    GetHeadInfoResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.5.2",
)

COMMANDS: Final = (GET_MULTI_HEADED_INFO, GET_HEAD_INFO)
