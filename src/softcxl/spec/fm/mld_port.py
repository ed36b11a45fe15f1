"""MLD ports: commands and requests sent on to a logical device behind a port (opcodes 5300h to 5302h)."""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command
from softcxl.spec.fm.switch import ConfigurationResponse, ConfigurationTransaction
from softcxl.wire import RO, Record, Register, bit, bits, reserved, tail, u8, u16, u32, u64, word

FM_OWNED_LD: Final = 0xFFFF
"""LD ID of the FM-owned logical device (CXL 3.1 §7.6.7.3.1)."""

MAX_MEMORY_TRANSACTION: Final = 0x1000
"""Bytes of a Send LD CXL.io Memory Request at most (CXL 3.1 §7.6.7.3.3)."""

MAX_TUNNELS: Final = 3
"""Layers of tunnels that a multi-headed device processes (CXL 3.1 §7.6.7.3.1)."""


class TunnelTargetType(enum.IntEnum):
    """Target Type of a tunnel (CXL 3.1 §7.6.7.3.1)."""

    PORT_OR_LD = 0
    LD_POOL_CCI = 1


class TunnelTarget(Register, width=8, spec="CXL 3.1 §7.6.7.3.1"):
    """Where a tunnelled command goes."""

    type = bits(3, 0, RO, TunnelTargetType)


class TunnelRequest(Record, size=0x04, spec="CXL 3.1 §7.6.7.3.1"):
    """Tunnel Management Command input payload.

    The message is a `CciMessageHeader` and its payload. As of CXL 2.0 it begins with the MCTP message type, a byte
    that the command size counts.
    """

    port_or_ld: int = u8("to a switch: port, to an MLD: LD ID")
    target: TunnelTarget = word(TunnelTarget)
    command_size: int = u16("of the message, in bytes")
    message: bytes = tail()


class TunnelResponse(Record, size=0x04, spec="CXL 3.1 §7.6.7.3.1"):
    """Tunnel Management Command output payload."""

    response_size: int = u16("of the message, in bytes")
    _reserved: None = reserved(2)
    message: bytes = tail("a `CciMessageHeader` and its payload")


class SendLdConfigurationRequest(Record, size=0x0C, spec="CXL 3.1 §7.6.7.3.2"):
    """Send LD CXL.io Configuration Request input payload."""

    port: int = u8("PPB ID: the physical port")
    transaction: ConfigurationTransaction = word(ConfigurationTransaction)
    ld: int = u16("LD ID")
    _reserved: None = reserved(2)
    data: int = u32("to write")


class MemoryTransaction(Register, width=24, spec="CXL 3.1 §7.6.7.3.3"):
    """A memory request: which bytes of its first and last dwords, which way."""

    first_byte_enables = bits(15, 12, RO, "one bit a byte of the first dword")
    last_byte_enables = bits(19, 16, RO, "one bit a byte of the last dword")
    write = bit(23, RO, "set: write, clear: read")


class SendLdMemoryRequest(Record, size=0x10, spec="CXL 3.1 §7.6.7.3.3"):
    """Send LD CXL.io Memory Request input payload."""

    port: int = u8("physical port")
    transaction: MemoryTransaction = word(MemoryTransaction)
    ld: int = u16("LD ID")
    length: int = u16("in bytes, up to `MAX_MEMORY_TRANSACTION`")
    address: int = u64("in the device's memory space")
    data: bytes = tail("to write; empty for a read")


class SendLdMemoryResponse(Record, size=0x04, spec="CXL 3.1 §7.6.7.3.3"):
    """Send LD CXL.io Memory Request output payload."""

    size: int = u16("bytes that were transferred")
    _reserved: None = reserved(2)
    data: bytes = tail("that was read; empty for a write")


TUNNEL_MANAGEMENT_COMMAND: Final = Command(
    0x5300,
    "Tunnel Management Command",
    TunnelRequest,
    TunnelResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.3.1",
)
SEND_LD_CXL_IO_CONFIGURATION_REQUEST: Final = Command(
    0x5301,
    "Send LD CXL.io Configuration Request",
    SendLdConfigurationRequest,
    ConfigurationResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.3.2",
)
SEND_LD_CXL_IO_MEMORY_REQUEST: Final = Command(
    0x5302,
    "Send LD CXL.io Memory Request",
    SendLdMemoryRequest,
    SendLdMemoryResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.3.3",
)

COMMANDS: Final = (
    TUNNEL_MANAGEMENT_COMMAND,
    SEND_LD_CXL_IO_CONFIGURATION_REQUEST,
    SEND_LD_CXL_IO_MEMORY_REQUEST,
)
