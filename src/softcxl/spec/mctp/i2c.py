"""MCTP over SMBus and I2C: packets as block writes with a packet error code (DSP0237 1.2)."""

from __future__ import annotations

from typing import Final

from softcxl.wire import RO, Record, Register, bit, bits, u8, word

COMMAND_CODE: Final = 0x0F
PEC_POLYNOMIAL: Final = 0x07
"""CRC-8, high bit first, from 0, over everything from the destination on (SMBus §6.4)."""

MAX_BYTE_COUNT: Final = 255


class I2cDestination(Register, width=8, spec="DSP0237 1.2"):
    """First byte of the transaction."""

    read = bit(0, RO, "clear: it is a write")
    address = bits(7, 1, RO, "of the receiver")


class I2cSource(Register, width=8, spec="DSP0237 1.2"):
    """The sender, as a byte of the block."""

    mctp = bit(0, RO, "set, so that no receiver takes it for a plain address", reset=True)
    address = bits(7, 1, RO, "of the sender")


class I2cHeader(Record, size=0x04, spec="DSP0237 1.2"):
    """What goes before the packet; the packet error code follows it, one byte."""

    destination: I2cDestination = word(I2cDestination)
    command: int = u8(default=COMMAND_CODE)
    byte_count: int = u8("bytes that follow, the source's and the packet's, not the packet error code")
    source: I2cSource = word(I2cSource, default=1)
