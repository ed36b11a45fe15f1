"""Maintenance: repair of media (opcode 0600h)."""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.command.base import Command, CommandEffects
from softcxl.wire import RO, Record, Register, bit, tail, u8, u16, u24, u64, word


class MaintenanceClass(enum.IntEnum):
    """Maintenance Operation Class (CXL 3.2 §8.2.10.7.1)."""

    NONE = 0
    PPR = 1
    MEMORY_SPARING = 2
    BUILT_IN_TEST = 3


class PprSubclass(enum.IntEnum):
    """Maintenance Operation Subclass of post package repair (CXL 3.2 §8.2.10.7.1)."""

    SOFT = 0
    HARD = 1


class SparingSubclass(enum.IntEnum):
    """Maintenance Operation Subclass of memory sparing (CXL 3.2 §8.2.10.7.1)."""

    CACHELINE = 0
    ROW = 1
    BANK = 2
    RANK = 3


class PerformMaintenanceRequest(Record, size=0x02, spec="CXL 3.2 §8.2.10.7.1, Table 8-117"):
    """Perform Maintenance input payload."""

    maintenance_class: int = u8("a `MaintenanceClass`")
    maintenance_subclass: int = u8()
    data: bytes = tail("a `PprMaintenance` or a `SparingMaintenance`")


class PprFlags(Register, width=8, spec="CXL 3.2 Table 8-118"):
    """Flags of a post package repair."""

    query_resources = bit(0, RO, "only asks whether there are resources")


class PprMaintenance(Record, size=0x0C, spec="CXL 3.2 §8.2.10.7.1.2, Table 8-118"):
    """sPPR and hPPR maintenance input."""

    flags: PprFlags = word(PprFlags)
    dpa: int = u64("device physical address to repair")
    nibble_mask: int = u24("one bit a nibble of the data bus")


class SparingRequestFlags(Register, width=8, spec="CXL 3.2 Table 8-120"):
    """Flags of a memory sparing."""

    query_resources = bit(0, RO, "only asks whether there are resources")
    hard_sparing = bit(1, RO, "set: permanent, clear: until the next reset")
    sub_channel_valid = bit(2, RO)
    nibble_mask_valid = bit(3, RO)


class SparingMaintenance(Record, size=0x0E, spec="CXL 3.2 §8.2.10.7.1.4, Table 8-120"):
    """Memory sparing maintenance input."""

    flags: SparingRequestFlags = word(SparingRequestFlags)
    channel: int = u8()
    rank: int = u8()
    nibble_mask: int = u24("one bit a nibble of the data bus")
    bank_group: int = u8()
    bank: int = u8()
    row: int = u24()
    column: int = u16()
    sub_channel: int = u8()


PERFORM_MAINTENANCE: Final = Command(
    0x0600,
    "Perform Maintenance",
    PerformMaintenanceRequest,
    None,
    CommandEffects.make(
        immediate_config_change=True,
        immediate_data_change=True,
        immediate_log_change=True,
        background_operation=True,
    ),
    "CXL 3.2 §8.2.10.7.1",
)

COMMANDS: Final = (PERFORM_MAINTENANCE,)
