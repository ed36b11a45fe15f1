"""Features: settings known by UUID (opcodes 0500h to 0502h)."""

from __future__ import annotations

import enum
from typing import Final
from uuid import UUID

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.wire import RO, Record, Register, bit, bits, counted, reserved, tail, u8, u16, u32, uuid, word

PATROL_SCRUB: Final = UUID("96dad7d6-fde8-482b-a733-75774e06db8a")
ERROR_CHECK_SCRUB: Final = UUID("e5b13f22-2328-4a14-b8ba-b9691e893386")
SOFT_PPR: Final = UUID("892ba475-fad8-474e-9d3e-692c917568bb")
HARD_PPR: Final = UUID("80ea4521-786f-4127-afb1-ec7459fb0e24")
CACHELINE_SPARING: Final = UUID("96c33386-91dd-44c7-9ecb-fdaf6503bac4")
ROW_SPARING: Final = UUID("450ebf67-b135-4f97-a498-c2d57f279bed")
BANK_SPARING: Final = UUID("78b79636-90ac-4b64-a4ef-faac5d18a863")
RANK_SPARING: Final = UUID("34dbaff5-0552-4281-8f76-da0b5e7a76a7")

STANDARD: Final = (
    PATROL_SCRUB,
    ERROR_CHECK_SCRUB,
    SOFT_PPR,
    HARD_PPR,
    CACHELINE_SPARING,
    ROW_SPARING,
    BANK_SPARING,
    RANK_SPARING,
)
"""The features that the standard defines."""


class FeatureAttributes(Register, width=32, spec="CXL 3.1 §8.2.9.6.1"):
    """Attribute Flags of a feature."""

    changeable = bit(0, RO)
    deepest_reset_persistence = bits(3, 1, RO, "the deepest reset that the value lives through; 0: none")
    persists_over_fw_update = bit(4, RO)
    default_selection_supported = bit(5, RO, "its default value can be read")
    saved_selection_supported = bit(6, RO, "its saved value can be read")


class SupportedFeature(Record, size=0x30, spec="CXL 3.1 §8.2.9.6.1"):
    """One entry of the list of supported features."""

    identifier: UUID = uuid()
    index: int = u16()
    get_size: int = u16("largest size that Get Feature returns, in bytes")
    set_size: int = u16("largest size that Set Feature takes, in bytes; 0: not changeable")
    attributes: FeatureAttributes = word(FeatureAttributes)
    get_version: int = u8()
    set_version: int = u8()
    set_effects: CommandEffects = word(CommandEffects)
    _reserved: None = reserved(0x12)


class GetSupportedFeaturesRequest(Record, size=0x08, spec="CXL 3.1 §8.2.9.6.1"):
    """Get Supported Features input payload."""

    count: int = u32("bytes of output to return at most")
    starting_index: int = u16()
    _reserved: None = reserved(2)


class GetSupportedFeaturesResponse(Record, size=0x08, spec="CXL 3.1 §8.2.9.6.1"):
    """Get Supported Features output payload."""

    count: int = u16()
    total: int = u16("features that the device supports")
    _reserved: None = reserved(4)
    features: list[SupportedFeature] = counted(SupportedFeature, "count")


class FeatureSelection(enum.IntEnum):
    """Which value of a feature (CXL 3.1 §8.2.9.6.2)."""

    CURRENT = 0
    DEFAULT = 1
    SAVED = 2


class GetFeatureRequest(Record, size=0x15, spec="CXL 3.1 §8.2.9.6.2"):
    """Get Feature input payload."""

    identifier: UUID = uuid()
    offset: int = u16("in bytes")
    count: int = u16("bytes to return")
    selection: int = u8("a `FeatureSelection`; others have a return code of their own")


class GetFeatureResponse(Record, size=0x00, spec="CXL 3.1 §8.2.9.6.2"):
    """Get Feature output payload."""

    data: bytes = tail()


class FeatureTransfer(enum.IntEnum):
    """Which part of a feature's data is transferred (CXL 3.1 §8.2.9.6.3)."""

    FULL = 0
    INITIATE = 1
    CONTINUE = 2
    FINISH = 3
    ABORT = 4


class SetFeatureFlags(Register, width=32, spec="CXL 3.1 §8.2.9.6.3"):
    """Set Feature Flags."""

    transfer = bits(2, 0, RO, FeatureTransfer)
    saved_across_reset = bit(3, RO)


class SetFeatureRequest(Record, size=0x20, spec="CXL 3.1 §8.2.9.6.3"):
    """Set Feature input payload."""

    identifier: UUID = uuid()
    flags: SetFeatureFlags = word(SetFeatureFlags)
    offset: int = u16("in bytes")
    version: int = u8()
    _reserved: None = reserved(9)
    data: bytes = tail()


GET_SUPPORTED_FEATURES: Final = Command(
    0x0500,
    "Get Supported Features",
    GetSupportedFeaturesRequest,
    GetSupportedFeaturesResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.6.1",
)
GET_FEATURE: Final = Command(
    0x0501,
    "Get Feature",
    GetFeatureRequest,
    GetFeatureResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.6.2",
)
SET_FEATURE: Final = Command(
    0x0502,
    "Set Feature",
    SetFeatureRequest,
    None,
    CommandEffects.make(
        config_change_after_cold_reset=True,
        immediate_config_change=True,
        immediate_data_change=True,
        immediate_policy_change=True,
        immediate_log_change=True,
        security_state_change=True,
        background_operation=True,
    ),
    "CXL 3.1 §8.2.9.6.3",
)

COMMANDS: Final = (GET_SUPPORTED_FEATURES, GET_FEATURE, SET_FEATURE)
