"""Timestamp: the device's clock (opcodes 0300h and 0301h)."""

from __future__ import annotations

from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.wire import Record, u64


class Timestamp(Record, size=0x08, spec="CXL 3.1 §8.2.9.4"):
    """Get Timestamp output payload and Set Timestamp input payload."""

    timestamp: int = u64("ns since 1970, without leap seconds; 0: never set since the last reset")


GET_TIMESTAMP: Final = Command(0x0300, "Get Timestamp", None, Timestamp, NO_EFFECT, "CXL 3.1 §8.2.9.4.1")
SET_TIMESTAMP: Final = Command(
    0x0301,
    "Set Timestamp",
    Timestamp,
    None,
    CommandEffects.make(immediate_policy_change=True),
    "CXL 3.1 §8.2.9.4.2",
)

COMMANDS: Final = (GET_TIMESTAMP, SET_TIMESTAMP)
