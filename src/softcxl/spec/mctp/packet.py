"""Packets: the transport header, and what the first byte of a message says (DSP0236 1.3 §8)."""

from __future__ import annotations

import enum
from typing import Final

from softcxl.wire import RO, Record, Register, bit, bits, u8, word

BASELINE_TRANSMISSION_UNIT: Final = 64
"""Bytes of a packet's payload that every endpoint takes (DSP0236 1.3 §8.3)."""

HEADER_VERSION: Final = 1
NULL_EID: Final = 0x00
"""Endpoint ID that stands for the receiver on the physical bus, where it has none yet (DSP0236 1.3 §8.2)."""

FIRST_EID: Final = 0x08
"""First endpoint ID that an endpoint can have; those before are reserved, but for the null one."""

BROADCAST_EID: Final = 0xFF


class MessageType(enum.IntEnum):
    """Message types, by the integer that a message begins with (DSP0239 Table 1)."""

    CONTROL = 0x00
    PLDM = 0x01
    NCSI = 0x02
    ETHERNET = 0x03
    NVME_MI = 0x04
    SPDM = 0x05
    SECURED = 0x06
    CXL_FM_API = 0x07
    CXL_CCI = 0x08
    VENDOR_PCI = 0x7E
    VENDOR_IANA = 0x7F


class PacketVersion(Register, width=8, spec="DSP0236 1.3 §8.1"):
    """First byte of the transport header."""

    header_version = bits(3, 0, RO, reset=HEADER_VERSION)


class PacketFlags(Register, width=8, spec="DSP0236 1.3 §8.1"):
    """Last byte of the transport header."""

    tag = bits(2, 0, RO, "with both endpoints and the owner bit, names the message")
    tag_owner = bit(3, RO, "the sender made the tag: set in requests, clear in responses")
    sequence = bits(5, 4, RO, "goes up by one a packet of a message, modulo 4")
    end_of_message = bit(6, RO)
    start_of_message = bit(7, RO)


class PacketHeader(Record, size=0x04, spec="DSP0236 1.3 §8.1"):
    """MCTP transport header."""

    version: PacketVersion = word(PacketVersion, default=HEADER_VERSION)
    destination: int = u8("endpoint ID")
    source: int = u8("endpoint ID")
    flags: PacketFlags = word(PacketFlags)


class MessageTypeByte(Register, width=8, spec="DSP0236 1.3 §8.1"):
    """First byte of a message, in its first packet."""

    type = bits(6, 0, RO, MessageType)
    integrity_check = bit(7, RO, "the message ends in an integrity check")
