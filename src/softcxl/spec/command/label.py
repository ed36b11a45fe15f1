"""Label storage: a small persistent area for namespace and region labels (opcodes 4102h and 4103h)."""

from __future__ import annotations

from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.wire import Record, reserved, tail, u32


class GetLsaRequest(Record, size=0x08, spec="CXL 3.1 §8.2.9.9.2.3"):
    """Get LSA input payload."""

    offset: int = u32("in bytes")
    length: int = u32("bytes to return")


class GetLsaResponse(Record, size=0x00, spec="CXL 3.1 §8.2.9.9.2.3"):
    """Get LSA output payload."""

    data: bytes = tail()


class SetLsaRequest(Record, size=0x08, spec="CXL 3.1 §8.2.9.9.2.4"):
    """Set LSA input payload."""

    offset: int = u32("in bytes")
    _reserved: None = reserved(4)
    data: bytes = tail()


GET_LSA: Final = Command(0x4102, "Get LSA", GetLsaRequest, GetLsaResponse, NO_EFFECT, "CXL 3.1 §8.2.9.9.2.3")
SET_LSA: Final = Command(
    0x4103,
    "Set LSA",
    SetLsaRequest,
    None,
    CommandEffects.make(immediate_config_change=True, immediate_data_change=True),
    "CXL 3.1 §8.2.9.9.2.4",
)

COMMANDS: Final = (GET_LSA, SET_LSA)
