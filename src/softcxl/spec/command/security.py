"""Security of persistent memory: passphrases, locking and freezing (opcodes 4500h to 4505h)."""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.wire import RO, Record, Register, bit, raw, reserved, u8, word

PASSPHRASE_SIZE: Final = 0x20


class SecurityState(Register, width=32, spec="CXL 3.1 §8.2.9.9.6.1"):
    """Security State."""

    user_passphrase_set = bit(0, RO)
    master_passphrase_set = bit(1, RO)
    locked = bit(2, RO, "persistent memory cannot be accessed until it is unlocked")
    frozen = bit(3, RO, "nothing here changes until the next cold reset")
    user_attempts_reached = bit(4, RO, "no more tries of the user passphrase until the next cold reset")
    master_attempts_reached = bit(5, RO, "no more tries of the master passphrase until the next cold reset")


class GetSecurityStateResponse(Record, size=0x04, spec="CXL 3.1 §8.2.9.9.6.1"):
    """Get Security State output payload."""

    state: SecurityState = word(SecurityState)


class PassphraseType(enum.IntEnum):
    """Whose passphrase (CXL 3.1 §8.2.9.9.6.2)."""

    MASTER = 0
    USER = 1


class SetPassphraseRequest(Record, size=0x60, spec="CXL 3.1 §8.2.9.9.6.2"):
    """Set Passphrase input payload."""

    passphrase_type: PassphraseType = u8(PassphraseType)
    _reserved: None = reserved(0x1F)
    current_passphrase: bytes = raw(PASSPHRASE_SIZE, "ignored where none is set")
    new_passphrase: bytes = raw(PASSPHRASE_SIZE)


class DisablePassphraseRequest(Record, size=0x40, spec="CXL 3.1 §8.2.9.9.6.3"):
    """Disable Passphrase input payload."""

    passphrase_type: PassphraseType = u8(PassphraseType)
    _reserved: None = reserved(0x1F)
    current_passphrase: bytes = raw(PASSPHRASE_SIZE)


class UnlockRequest(Record, size=0x20, spec="CXL 3.1 §8.2.9.9.6.4"):
    """Unlock input payload."""

    current_passphrase: bytes = raw(PASSPHRASE_SIZE, "the user passphrase")


class PassphraseSecureEraseRequest(Record, size=0x40, spec="CXL 3.1 §8.2.9.9.6.6"):
    """Passphrase Secure Erase input payload."""

    passphrase_type: PassphraseType = u8(PassphraseType)
    _reserved: None = reserved(0x1F)
    current_passphrase: bytes = raw(PASSPHRASE_SIZE)


GET_SECURITY_STATE: Final = Command(
    0x4500,
    "Get Security State",
    None,
    GetSecurityStateResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.6.1",
)
SET_PASSPHRASE: Final = Command(
    0x4501,
    "Set Passphrase",
    SetPassphraseRequest,
    None,
    CommandEffects.make(security_state_change=True),
    "CXL 3.1 §8.2.9.9.6.2",
)
DISABLE_PASSPHRASE: Final = Command(
    0x4502,
    "Disable Passphrase",
    DisablePassphraseRequest,
    None,
    CommandEffects.make(security_state_change=True),
    "CXL 3.1 §8.2.9.9.6.3",
)
UNLOCK: Final = Command(
    0x4503,
    "Unlock",
    UnlockRequest,
    None,
    CommandEffects.make(security_state_change=True),
    "CXL 3.1 §8.2.9.9.6.4",
)
FREEZE_SECURITY_STATE: Final = Command(
    0x4504,
    "Freeze Security State",
    None,
    None,
    CommandEffects.make(security_state_change=True),
    "CXL 3.1 §8.2.9.9.6.5",
)
PASSPHRASE_SECURE_ERASE: Final = Command(
    0x4505,
    "Passphrase Secure Erase",
    PassphraseSecureEraseRequest,
    None,
    CommandEffects.make(immediate_data_change=True, security_state_change=True),
    "CXL 3.1 §8.2.9.9.6.6",
)

COMMANDS: Final = (
    GET_SECURITY_STATE,
    SET_PASSPHRASE,
    DISABLE_PASSPHRASE,
    UNLOCK,
    FREEZE_SECURITY_STATE,
    PASSPHRASE_SECURE_ERASE,
)
