"""Hypothesis strategies from declarations: every instance they make is one that the standard allows.

>>> from hypothesis import given
>>> from softcxl.testing.strategies import records
>>> from softcxl.wire import Record, ascii, u16
>>> class Slot(Record, size=6):
...     name: str = ascii(4)
...     serial: int = u16()
>>> @given(records(Slot))
... def round_trip(slot: Slot) -> None:
...     assert Slot.unpack(slot.pack()) == slot
>>> round_trip()
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import strategies as st

if TYPE_CHECKING:
    from softcxl.wire import Field, Record, Register
    from softcxl.wire.item import Item

R = TypeVar("R", bound="Record")
W = TypeVar("W", bound="Register")

_PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
_LONGEST = 8
"""Elements in a generated list: enough for order and arithmetic to show, few enough to read in a failure."""


def registers(cls: type[W]) -> st.SearchStrategy[W]:
    """Values of the register `cls`: each field any value of its type, bits that have no name zero."""
    return st.builds(cls.make, **{field.name: _field(field) for field in cls.__layout__.fields})


def records(cls: type[R], **items: st.SearchStrategy[Any]) -> st.SearchStrategy[R]:
    """Records of `cls`: each item any value it can hold, or from the strategy given for it by name.

    Lists have up to 8 elements, a tail of bytes up to 64; counts follow their lists.
    """
    layout = cls.__layout__
    counts = {item.count: item for item in layout.fields if item.kind == "counted"}
    known = {item.name for item in layout.fields if item.kind != "reserved" and item.name not in counts}
    if unknown := items.keys() - known:
        raise TypeError(f"{cls.__name__} has no items {', '.join(sorted(unknown))}; it has {sorted(known)}")
    made = {item.name: _item(item) for item in layout.fields if item.name in known}
    shared = [
        item.name for item in layout.fields if item.kind == "counted" and counts[item.count] is not item
    ]
    if shared:
        raise TypeError(
            f"{cls.__name__}: {', '.join(shared)} shares its count with another list: build it by hand"
        )
    return st.builds(cls, **(made | items))


def _field(field: Field[Any]) -> st.SearchStrategy[Any]:
    if issubclass(field.kind, enum.Enum):
        return st.sampled_from(field.kind)
    return st.booleans() if field.kind is bool else st.integers(0, field.ones)


def _item(item: Item) -> st.SearchStrategy[Any]:
    size = item.size or 0
    match item.kind:
        case "int" | "u24":
            return _integer(item)
        case "ascii":
            return st.text(_PRINTABLE, max_size=size)
        case "uuid":
            return st.uuids()
        case "raw":
            return st.binary(min_size=size, max_size=size)
        case "word":
            return registers(item.of)
        case "nested":
            return records(item.of)
    if item.of is None:
        return st.binary(max_size=64)
    return st.lists(
        _integer(item.of) if not isinstance(item.of, type) else records(item.of), max_size=_LONGEST
    )


def _integer(item: Item) -> st.SearchStrategy[int]:
    if item.of is not None:
        return st.sampled_from(item.of)
    bits = 8 * (item.size or 0)
    if item.code.islower() and item.kind == "int":
        return st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return st.integers(0, (1 << bits) - 1)
