"""Records: the payloads, tables and messages of the standards, packed in order.

The class body is the table; `pack` and `unpack` are generated once, at import, and can be read at
`Record.__layout__.source`.

>>> from softcxl.wire import Record, ascii, u64, u24, reserved
>>> class Identity(Record, size=0x1E, spec="CXL 3.1 §8.2.9.9.1.1"):
...     fw_revision: str = ascii(16)
...     total_capacity: int = u64("in multiples of 256 MiB")
...     poison_list_max: int = u24()
...     _reserved: None = reserved(3)
>>> Identity(fw_revision="1.0", total_capacity=2, poison_list_max=256).pack().hex()
'312e30000000000000000000000000000200000000000000000100000000'
"""

from __future__ import annotations

import copy
import inspect
import struct
from dataclasses import dataclass
from typing import Any, ClassVar, Self, dataclass_transform

from softcxl.wire.codec import wrong_size
from softcxl.wire.errors import DeclarationError, LayoutError, RangeError
from softcxl.wire.generate import generate
from softcxl.wire.item import MISSING, Item, reserved


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """A record's table. `size` is in bytes, the smallest one where it varies; `fixed_size` then is None."""

    name: str
    spec: str
    doc: str
    size: int
    fixed_size: int | None
    fields: tuple[Item, ...]
    source: str


# To a type checker an item that is no field specifier is a default, which is what makes it optional.
@dataclass_transform(kw_only_default=True, field_specifiers=(reserved,))
class Record:
    """Base of all records.

    Subclass with `spec=` and, to have it checked, `size=` (bytes; the least where it varies). Arguments are
    keywords; equality is by value.
    """

    __layout__: ClassVar[RecordLayout]
    __hash__ = None  # type: ignore[assignment]

    def __init_subclass__(cls, *, size: int | None = None, spec: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = getattr(cls, "__layout__", None)
        items = list(inherited.fields) if inherited else []
        annotated = vars(cls).get("__annotations__")
        for name, value in list(vars(cls).items()):
            if isinstance(value, Item):
                if annotated is not None and name not in annotated:
                    raise DeclarationError(f"{cls.__name__}.{name}: needs a type, as `{name}: int = u8()`")
                value.name = name
                items.append(value)
                delattr(cls, name)
        _check(cls, items)
        least = sum(item.of.__layout__.size if item.kind == "nested" else item.size or 0 for item in items)
        fixed = least if all(item.size is not None for item in items) else None
        if size is not None and size != least:
            raise DeclarationError(f"{cls.__name__}: the items add up to {least:#x} bytes, not {size:#x}")
        source, namespace = generate(cls.__name__, items)
        for method in ("__init__", "pack"):
            setattr(cls, method, _named(namespace[method], cls))
        for method in ("_parse", "unpack"):
            # `unpack` is made for fixed sizes only: a record that extends one of those takes the general one
            # back.
            made = _named(namespace[method], cls) if method in namespace else vars(Record)[method].__func__
            setattr(cls, method, classmethod(made))
        cls.__layout__ = RecordLayout(
            name=cls.__name__,
            spec=spec or (inherited.spec if inherited else ""),
            doc=inspect.cleandoc(cls.__doc__ or ""),
            size=least,
            fixed_size=fixed,
            fields=tuple(items),
            source=source,
        )

    def pack(self) -> bytes:
        """The record's bytes. Raises `RangeError` where a value does not fit its item."""
        return b""  # of no items, as this base has; every record has its own, generated

    @classmethod
    def _parse(cls, data: Any, offset: int) -> tuple[Self, int]:
        return cls.__new__(cls), offset

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Self:
        """The record that `data` holds, all of it. Raises `LayoutError` where it is short or long."""
        record, end = cls.parse(data, 0)
        if end != len(data):
            raise LayoutError(f"{cls.__name__}: {len(data)} bytes given, {end} used")
        return record

    @classmethod
    def unpack_from(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Self:
        """The record that starts at byte `offset` of `data`; what follows it is left alone."""
        return cls.parse(data, offset)[0]

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[Self, int]:
        """The record that starts at byte `offset` of `data`, and the offset where it ends."""
        if offset < 0:
            raise LayoutError(f"{cls.__name__}: offset {offset} is before the first byte")
        try:
            return cls._parse(data, offset)
        except struct.error:
            raise wrong_size(cls, data, offset) from None

    def replace(self, **changes: Any) -> Self:
        """A copy with the named items changed; it shares no word, nested record or list with this one."""
        kept = {name: copy.deepcopy(getattr(self, name)) for name in self._names() if name not in changes}
        return type(self)(**kept, **changes)

    @classmethod
    def _names(cls) -> list[str]:
        return [item.name for item in cls.__layout__.fields if item.kind != "reserved"]

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._names())
        return f"{type(self).__name__}({shown})"


def _named(function: Any, owner: type) -> Any:
    function.__qualname__, function.__module__ = f"{owner.__qualname__}.{function.__name__}", owner.__module__
    function.__doc__ = getattr(Record, function.__name__).__doc__
    return function


def _check(cls: type, items: list[Item]) -> None:
    seen: dict[str, Item] = {}
    for position, item in enumerate(items):
        where = f"{cls.__name__}.{item.name}"
        if item.name in _TAKEN:
            raise DeclarationError(f"{where}: that name is taken by Record itself")
        if item.name.startswith("_") and item.kind != "reserved":
            raise DeclarationError(f"{where}: only reserved items begin with an underscore")
        if item.name in seen:
            raise DeclarationError(f"{where}: declared twice")
        if item.kind == "tail" and position != len(items) - 1:
            raise DeclarationError(f"{where}: a tail is the last item")
        if item.kind == "counted":
            count = seen.get(item.count)
            if count is None or count.kind not in ("int", "u24") or count.of is not None:
                raise DeclarationError(f"{where}: its count {item.count!r} is no earlier integer item")
        if item.kind in ("counted", "tail") and item.of is not None and not _least(item.of):
            raise DeclarationError(f"{where}: a list of items that may take no byte has no length")
        seen[item.name] = item


def _least(element: Any) -> int:
    return int(element.size or 0) if isinstance(element, Item) else int(element.__layout__.size)


_TAKEN = frozenset(("self", "__layout__", "pack", "unpack", "unpack_from", "parse", "replace"))

__all__ = ["MISSING", "RangeError", "Record", "RecordLayout"]
