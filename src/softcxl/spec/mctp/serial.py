"""MCTP over a serial line: frames between flags (DSP0253 1.0).

A frame is a `SerialHeader`, the packet with its flags and escapes escaped, a `SerialTrailer`. The frame check sequence
is over revision, byte count and packet, before escaping.
"""

from __future__ import annotations

from typing import Final

from softcxl.wire import Record, raw, u8

FLAG: Final = 0x7E
ESCAPE: Final = 0x7D
"""Goes before a byte that is a flag or an escape, which is then sent exclusive-or `ESCAPE_MASK`."""

ESCAPE_MASK: Final = 0x20

FCS_INITIAL: Final = 0xFFFF
FCS_POLYNOMIAL: Final = 0x8408
"""CRC-CCITT, low bit first (x^16 + x^12 + x^5 + 1), without a final complement."""

MAX_PACKET: Final = 68
"""Bytes of a packet at the baseline transmission unit, its header included."""


class SerialHeader(Record, size=0x03, spec="DSP0253 1.0"):
    """What a frame begins with."""

    flag: int = u8(default=FLAG)
    revision: int = u8("of the binding", default=1)
    byte_count: int = u8("of the packet, before escaping")


class SerialTrailer(Record, size=0x03, spec="DSP0253 1.0"):
    """What a frame ends in."""

    fcs: bytes = raw(2, "frame check sequence, high byte first")
    flag: int = u8(default=FLAG)
