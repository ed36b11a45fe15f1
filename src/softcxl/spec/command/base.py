"""What every command has: an opcode, payloads, effects, and a return code for an answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from softcxl.wire import RO, Record, Register, bit, u16, word


class ReturnCode(enum.IntEnum):
    """Command Return Codes (CXL 3.1 Table 8-34)."""

    SUCCESS = 0x00
    BACKGROUND_STARTED = 0x01
    """The command was accepted and goes on in the background."""
    INVALID_INPUT = 0x02
    """An input is not allowed."""
    UNSUPPORTED = 0x03
    """The command is not supported."""
    INTERNAL_ERROR = 0x04
    RETRY_REQUIRED = 0x05
    """A passing error: a single retry may succeed."""
    BUSY = 0x06
    """A background command is under way."""
    MEDIA_DISABLED = 0x07
    """The command needs the media, and they are disabled."""
    FW_TRANSFER_IN_PROGRESS = 0x08
    """Only one firmware package is transferred at a time."""
    FW_TRANSFER_OUT_OF_ORDER = 0x09
    """The transfer was aborted: a part came out of order."""
    FW_VERIFICATION_FAILED = 0x0A
    """The firmware package was not saved: its verification failed."""
    INVALID_SLOT = 0x0B
    """The firmware slot does not exist or cannot be used for this."""
    FW_ROLLED_BACK = 0x0C
    """The new firmware did not start, and the one before it runs again."""
    COLD_RESET_REQUIRED = 0x0D
    """The new firmware did not start, and a cold reset is needed."""
    INVALID_HANDLE = 0x0E
    """An event record handle is invalid or out of order."""
    INVALID_PHYSICAL_ADDRESS = 0x0F
    INJECT_POISON_LIMIT = 0x10
    """No more poison can be injected before some is cleared."""
    PERMANENT_MEDIA_FAILURE = 0x11
    """Poison was not cleared: the media are at fault."""
    ABORTED = 0x12
    """The background command was aborted."""
    INVALID_SECURITY_STATE = 0x13
    INCORRECT_PASSPHRASE = 0x14
    UNSUPPORTED_MAILBOX = 0x15
    """The command is not supported on the mailbox or CCI it came by."""
    INVALID_PAYLOAD_LENGTH = 0x16
    INVALID_LOG = 0x17
    """The log or log page is not supported."""
    INTERRUPTED = 0x18
    """An asynchronous event kept the command from completing."""
    UNSUPPORTED_FEATURE_VERSION = 0x19
    UNSUPPORTED_FEATURE_SELECTION = 0x1A
    FEATURE_TRANSFER_IN_PROGRESS = 0x1B
    """Only one transfer of a feature's data is under way at a time."""
    FEATURE_TRANSFER_OUT_OF_ORDER = 0x1C
    """The transfer was aborted: a part came out of order."""
    RESOURCES_EXHAUSTED = 0x1D
    INVALID_EXTENT_LIST = 0x1E
    """A dynamic capacity extent list has an invalid address or length."""
    TRANSFER_OUT_OF_ORDER = 0x1F
    """The transfer of input was aborted: a part came out of order."""
    ABORT_NOT_SUPPORTED = 0x20
    """The background command under way cannot be aborted."""


class CommandEffects(Register, width=16, spec="CXL 3.1 Table 8-75"):
    """Command Effect, of an entry of the Command Effects Log."""

    config_change_after_cold_reset = bit(0, RO)
    immediate_config_change = bit(1, RO)
    immediate_data_change = bit(2, RO)
    immediate_policy_change = bit(3, RO)
    immediate_log_change = bit(4, RO)
    security_state_change = bit(5, RO)
    background_operation = bit(6, RO)
    secondary_mailbox_supported = bit(7, RO)
    abort_supported = bit(8, RO, "Request Abort Background Operation works on it")
    reset_effects_valid = bit(9, RO, "the two bits that follow hold")
    config_change_after_conventional_reset = bit(10, RO)
    config_change_after_cxl_reset = bit(11, RO)


class CelEntry(Record, size=0x04, spec="CXL 3.1 §8.2.9.5.2.1"):
    """One entry of the Command Effects Log."""

    opcode: int = u16()
    effects: CommandEffects = word(CommandEffects)


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """One command as the standard defines it.

    `request` and `response` are None where the payload is empty. `effects` is what the standard lists; a
    device that does less, or does it at once, says so in its own log. `surplus` is how many bytes more than the
    standard's request software is known to send; they say nothing.
    """

    opcode: int
    name: str
    request: type[Record] | None
    response: type[Record] | None
    effects: CommandEffects
    spec: str
    surplus: int = 0

    @property
    def background(self) -> bool:
        """The command may go on in the background."""
        return self.effects.background_operation

    def __repr__(self) -> str:
        return f"<{self.name} {self.opcode:04X}h>"


NO_EFFECT: Final = CommandEffects()
