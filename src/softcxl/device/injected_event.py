"""Event records from names and values: what `device.inject.event` and scenario files log."""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from softcxl.spec.cxl.events import (
    DRAM_EVENT,
    DYNAMIC_CAPACITY_EVENT,
    GENERAL_MEDIA_EVENT,
    MEMORY_MODULE_EVENT,
    MEMORY_SPARING_EVENT,
    DramEvent,
    DynamicCapacityEvent,
    EventHeader,
    EventRecord,
    GeneralMediaEvent,
    MemoryModuleEvent,
    MemorySparingEvent,
)
from softcxl.wire import Record, Register

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

#: The kinds of events by name: the record, and the identifier in its header.
KINDS: Mapping[str, tuple[Callable[..., Any], UUID]] = {
    "general-media": (GeneralMediaEvent, GENERAL_MEDIA_EVENT),
    "dram": (DramEvent, DRAM_EVENT),
    "memory-module": (MemoryModuleEvent, MEMORY_MODULE_EVENT),
    "memory-sparing": (MemorySparingEvent, MEMORY_SPARING_EVENT),
    "dynamic-capacity": (DynamicCapacityEvent, DYNAMIC_CAPACITY_EVENT),
    "vendor": (EventRecord, UUID("00000000-0000-4000-8000-000000000001")),
}

_LINE = 64
_UNFIT = (
    ValueError,
    TypeError,
    OverflowError,
    AttributeError,
    struct.error,
)  # what packing a wrong value raises


def event_record(device: Type3 | None, kind: str, fields: Mapping[str, Any]) -> Any:
    """The record of an event of that `kind`, one of `KINDS`, with `fields`.

    A field is an item of the record, of its header, of a record within it (`life_used` of a memory module's health), or
    one bit or field of a flags word (`permanent_condition`); `dpa` is an address in bytes.
    Without a device it is the record of any. Raises `ValueError`.
    """
    if kind not in KINDS:
        raise ValueError(f"event {kind!r}: there are {', '.join(KINDS)}")
    made, identifier = KINDS[kind]
    record = made(header=EventHeader(identifier=identifier))
    if isinstance(record, MemoryModuleEvent) and device is not None:
        record.health = device.health.condition()
    known: dict[str, Any] = dict(_places(record))
    for name, value in fields.items():
        if name == "dpa" and "address" in known:
            _put_address(device, record, value)
            continue
        if name not in known:
            names = sorted(known) + (["dpa"] if "address" in known else [])
            raise ValueError(f"a {kind} event has no {name!r}; it has {', '.join(names)}")
        _put(kind, known[name], name, value)
        validity = getattr(record, "validity", None)
        if validity is not None and name in _bits(validity):
            setattr(validity, name, True)
    try:
        record.pack()
    except _UNFIT as error:
        raise ValueError(f"{kind} event: {error}") from None
    return record


def _put_address(device: Type3 | None, record: Any, dpa: Any) -> None:
    end = 1 << 64 if device is None else device.capacity.end
    if not isinstance(dpa, int) or not 0 <= dpa < end:
        raise ValueError(f"DPA {dpa!r}: the device has {end:#x} bytes")
    record.address.dpa = dpa // _LINE
    record.address.volatile = device is not None and device.volatile_at(dpa)


def _put(kind: str, holder: Any, name: str, value: Any) -> None:
    before = getattr(holder, name)
    try:
        if isinstance(before, Register):
            before.assign(int(value))
        elif isinstance(before, bytes):
            setattr(holder, name, bytes(value).ljust(len(before), b"\0"))
        elif isinstance(before, UUID):
            setattr(holder, name, UUID(str(value)))
        else:
            setattr(
                holder, name, type(before)(value) if isinstance(before, enum.IntEnum | bool) else int(value)
            )
    except _UNFIT as error:
        raise ValueError(f"{kind} event: {name} cannot be {value!r}: {error}") from None


def _places(record: Any) -> Iterator[tuple[str, Any]]:
    """Each name that can be set, with the object that has it; of one name the outermost."""
    deeper: list[Any] = []
    for item in type(record).__layout__.fields:
        if item.kind == "reserved":
            continue
        value = getattr(record, item.name)
        if isinstance(value, Record):
            deeper.append(value)
            continue
        if isinstance(value, Register) and item.name != "address":
            deeper.append(value)
        yield item.name, record
    own = {item.name for item in type(record).__layout__.fields}
    for one in deeper:
        inner = ((name, one) for name in _bits(one)) if isinstance(one, Register) else _places(one)
        yield from (pair for pair in inner if pair[0] not in own)


def _bits(register: Register) -> list[str]:
    return [field.name for field in type(register).__layout__.fields]
