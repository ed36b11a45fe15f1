"""Firmware: slots, transfer and activation (opcodes 0200h to 0202h)."""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.wire import RO, Record, Register, ascii, bit, bits, reserved, tail, u8, u32, word  # noqa: A004

TRANSFER_UNIT: Final = 128
"""Bytes in a unit of Transfer FW's offset; every part but the last is a multiple (CXL 3.1 §8.2.9.3.2)."""

MAX_SLOTS: Final = 4


class FirmwareSlots(Register, width=8, spec="CXL 3.1 §8.2.9.3.1"):
    """FW Slot Info."""

    active = bits(2, 0, RO, "slot that runs, from 1")
    staged = bits(5, 3, RO, "slot that runs after the next cold reset; 0: the active one")


class FirmwareActivation(Register, width=8, spec="CXL 3.1 §8.2.9.3.1"):
    """FW Activation Capabilities."""

    online = bit(0, RO, "firmware can be activated without a reset")


class GetFwInfoResponse(Record, size=0x50, spec="CXL 3.1 §8.2.9.3.1"):
    """Get FW Info output payload."""

    slots_supported: int = u8("1 to 4")
    slots: FirmwareSlots = word(FirmwareSlots)
    activation: FirmwareActivation = word(FirmwareActivation)
    _reserved: None = reserved(0x0D)
    slot1_revision: str = ascii(0x10, "empty where the slot is")
    slot2_revision: str = ascii(0x10)
    slot3_revision: str = ascii(0x10)
    slot4_revision: str = ascii(0x10)


class TransferAction(enum.IntEnum):
    """Which part of a package is transferred (CXL 3.1 §8.2.9.3.2)."""

    FULL = 0
    INITIATE = 1
    CONTINUE = 2
    END = 3
    ABORT = 4


class TransferFwRequest(Record, size=0x80, spec="CXL 3.1 §8.2.9.3.2"):
    """Transfer FW input payload."""

    action: TransferAction = u8(TransferAction)
    slot: int = u8("where the package goes, from 1; read with `FULL` and `END`")
    _reserved1: None = reserved(2)
    offset: int = u32("of this part in the package, in units of 128 bytes")
    _reserved2: None = reserved(0x78)
    data: bytes = tail()


class ActivateAction(enum.IntEnum):
    """When firmware is activated (CXL 3.1 §8.2.9.3.3)."""

    ONLINE = 0
    NEXT_COLD_RESET = 1


class ActivateFwRequest(Record, size=0x02, spec="CXL 3.1 §8.2.9.3.3"):
    """Activate FW input payload."""

    action: ActivateAction = u8(ActivateAction)
    slot: int = u8("from 1")


GET_FW_INFO: Final = Command(0x0200, "Get FW Info", None, GetFwInfoResponse, NO_EFFECT, "CXL 3.1 §8.2.9.3.1")
TRANSFER_FW: Final = Command(
    0x0201,
    "Transfer FW",
    TransferFwRequest,
    None,
    CommandEffects.make(config_change_after_cold_reset=True, background_operation=True),
    "CXL 3.1 §8.2.9.3.2",
)
ACTIVATE_FW: Final = Command(
    0x0202,
    "Activate FW",
    ActivateFwRequest,
    None,
    CommandEffects.make(
        config_change_after_cold_reset=True,
        immediate_config_change=True,
        background_operation=True,
    ),
    "CXL 3.1 §8.2.9.3.3",
)

COMMANDS: Final = (GET_FW_INFO, TRANSFER_FW, ACTIVATE_FW)
