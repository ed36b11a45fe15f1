"""Security passthrough: messages of the security protocols of storage, as they are (opcodes 4600h and 4601h)."""

from __future__ import annotations

from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.wire import Record, reserved, tail, u8, u16


class SecuritySendRequest(Record, size=0x08, spec="CXL 3.2 §8.2.10.9.7.1"):
    """Security Send input payload."""

    protocol: int = u8("Security Protocol, as SFSC numbers them")
    protocol_specific: int = u16("SP Specific, as the protocol says")
    _reserved: None = reserved(5)
    data: bytes = tail()


class SecurityReceiveRequest(Record, size=0x08, spec="CXL 3.2 §8.2.10.9.7.2"):
    """Security Receive input payload."""

    protocol: int = u8("Security Protocol, as SFSC numbers them")
    protocol_specific: int = u16("SP Specific, as the protocol says")
    _reserved: None = reserved(5)


class SecurityReceiveResponse(Record, size=0x00, spec="CXL 3.2 §8.2.10.9.7.2"):
    """Security Receive output payload."""

    data: bytes = tail()


SECURITY_SEND: Final = Command(
    0x4600,
    "Security Send",
    SecuritySendRequest,
    None,
    CommandEffects.make(
        config_change_after_cold_reset=True,
        immediate_config_change=True,
        immediate_data_change=True,
        immediate_policy_change=True,
        immediate_log_change=True,
        security_state_change=True,
    ),
    "CXL 3.2 §8.2.10.9.7.1",
)
SECURITY_RECEIVE: Final = Command(
    0x4601,
    "Security Receive",
    SecurityReceiveRequest,
    SecurityReceiveResponse,
    NO_EFFECT,
    "CXL 3.2 §8.2.10.9.7.2",
)

COMMANDS: Final = (SECURITY_SEND, SECURITY_RECEIVE)
