"""Event records of switches and devices, by what their UUID says they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from uuid import UUID

from softcxl.spec.command.events import GetEventRecordsResponse
from softcxl.spec.cxl.events import (
    DRAM_EVENT,
    DYNAMIC_CAPACITY_EVENT,
    GENERAL_MEDIA_EVENT,
    MEMORY_MODULE_EVENT,
    MEMORY_SPARING_EVENT,
    DramEvent,
    DynamicCapacityEvent,
    EventRecord,
    GeneralMediaEvent,
    MemoryModuleEvent,
    MemorySparingEvent,
)
from softcxl.spec.fm.events import (
    MLD_PORT_EVENT,
    PHYSICAL_SWITCH_EVENT,
    VIRTUAL_SWITCH_EVENT,
    MldPortEvent,
    PhysicalSwitchEvent,
    VirtualSwitchEvent,
)

Event = (
    PhysicalSwitchEvent
    | VirtualSwitchEvent
    | MldPortEvent
    | DynamicCapacityEvent
    | GeneralMediaEvent
    | DramEvent
    | MemoryModuleEvent
    | MemorySparingEvent
    | EventRecord
)
"""An event record, read as what it is; `EventRecord` where that is not known."""

KINDS: Final[Mapping[UUID, type[Event]]] = MappingProxyType(
    {
        PHYSICAL_SWITCH_EVENT: PhysicalSwitchEvent,
        VIRTUAL_SWITCH_EVENT: VirtualSwitchEvent,
        MLD_PORT_EVENT: MldPortEvent,
        DYNAMIC_CAPACITY_EVENT: DynamicCapacityEvent,
        GENERAL_MEDIA_EVENT: GeneralMediaEvent,
        DRAM_EVENT: DramEvent,
        MEMORY_MODULE_EVENT: MemoryModuleEvent,
        MEMORY_SPARING_EVENT: MemorySparingEvent,
    }
)
"""Event records that are known, by their UUID."""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """What Get Event Records returned: `records`, oldest first, and whether there are `more` in the log.

    `lost` counts the records that were dropped because the log was full (FFFFh: that many or more), the first of them
    at `first_lost`, the last at `last_lost` (ns since 1970).
    """

    records: list[Event]
    more: bool = False
    lost: int = 0
    first_lost: int = 0
    last_lost: int = 0

    @classmethod
    def of(cls, response: GetEventRecordsResponse) -> EventBatch:
        """From the command's output."""
        records = [read(one) for one in response.records]
        more = bool(response.flags.more_event_records)
        if not response.flags.overflow:
            return cls(records, more)
        return cls(
            records,
            more,
            response.overflow_error_count,
            response.first_overflow_timestamp,
            response.last_overflow_timestamp,
        )


def read(record: EventRecord) -> Event:
    """A record as what its UUID says it is."""
    kind = KINDS.get(record.header.identifier)
    return record if kind is None else kind.unpack(record.pack())
