"""What a record is made of: one function an item kind, named as the standards' tables name them.

Each is used as a default in a record's class body, `total_capacity: int = u64("in multiples of 256 MiB")`, so
that the annotation is the type that a reader, mypy and pyright see.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from softcxl.wire.errors import DeclarationError

if TYPE_CHECKING:
    from softcxl.wire.register import Register

NIL = UUID(int=0)
MISSING: Any = type("MISSING", (), {"__repr__": lambda self: "MISSING"})()


@dataclass(slots=True)
class Item:
    """One item of a record as declared.

    `kind` says how it is packed; `size` is in bytes, None where it depends on the bytes. `of` is the enum,
    register or record of its value; `count` names the item that counts a list.
    """

    kind: Literal["int", "u24", "ascii", "uuid", "raw", "reserved", "word", "nested", "counted", "tail"]
    size: int | None
    code: str = ""
    doc: str = ""
    of: Any = None
    default: Any = MISSING
    little: bool = False
    count: str = ""
    name: str = field(default="", init=False)


def _integer(code: str, size: int, first: Any, doc: str, default: Any, kind: Any = "int") -> Any:
    of: Any = None
    if isinstance(first, str):
        doc = first or doc
    else:
        of = first
    if of is not None and not (isinstance(of, type) and issubclass(of, enum.IntEnum)):
        raise DeclarationError(f"an integer item takes an IntEnum or a description, not {of!r}")
    for member in () if of is None else of:
        if not 0 <= member < 1 << 8 * size:
            raise DeclarationError(
                f"{type(member).__name__}.{member.name} = {int(member):#x} does not fit {size} bytes"
            )
    if default is MISSING:
        if of is None:
            default = 0
        elif 0 in set(map(int, of)):
            default = of(0)
    return Item(kind, size, code, doc, of, default)


def u8(kind: Any = "", doc: str = "", *, default: Any = MISSING) -> Any:
    """An unsigned byte, or a member of the `IntEnum` given first; any other number does not unpack."""
    return _integer("B", 1, kind, doc, default)


def u16(kind: Any = "", doc: str = "", *, default: Any = MISSING) -> Any:
    """A little-endian unsigned 16-bit integer or `IntEnum` member."""
    return _integer("H", 2, kind, doc, default)


def u24(kind: Any = "", doc: str = "", *, default: Any = MISSING) -> Any:
    """A little-endian unsigned 24-bit integer or `IntEnum` member."""
    return _integer("3s", 3, kind, doc, default, "u24")


def u32(kind: Any = "", doc: str = "", *, default: Any = MISSING) -> Any:
    """A little-endian unsigned 32-bit integer or `IntEnum` member."""
    return _integer("I", 4, kind, doc, default)


def u64(kind: Any = "", doc: str = "", *, default: Any = MISSING) -> Any:
    """A little-endian unsigned 64-bit integer or `IntEnum` member."""
    return _integer("Q", 8, kind, doc, default)


def i8(doc: str = "", *, default: int = 0) -> Any:
    """A signed byte."""
    return _integer("b", 1, doc, "", default)


def i16(doc: str = "", *, default: int = 0) -> Any:
    """A little-endian signed 16-bit integer."""
    return _integer("h", 2, doc, "", default)


def i32(doc: str = "", *, default: int = 0) -> Any:
    """A little-endian signed 32-bit integer."""
    return _integer("i", 4, doc, "", default)


def ascii(size: int, doc: str = "", *, default: str = "") -> Any:  # noqa: A001 - the standards' word
    """ASCII text in `size` bytes, padded with NULs; unpacks up to the first NUL."""
    return Item("ascii", size, f"{size}s", doc, default=default)


def uuid(doc: str = "", *, little: bool = False, default: UUID = NIL) -> Any:
    """A UUID in RFC 4122 byte order, or with its first three groups little-endian."""
    return Item("uuid", 16, "16s", doc, default=default, little=little)


def raw(size: int, doc: str = "", *, default: bytes = b"") -> Any:
    """`size` bytes as they are; a shorter value is padded with zeros."""
    return Item("raw", size, f"{size}s", doc, default=default.ljust(size, b"\0"))


def reserved(size: int, *, init: Literal[False] = False) -> Any:
    """`size` bytes that are zero when packed and ignored when unpacked."""
    return Item("reserved", size, f"{size}x")


def word(kind: type[Register], doc: str = "", *, default: int = 0) -> Any:
    """A word of bit fields, declared as a `Register`."""
    size = kind.__layout__.size
    return Item("word", size, f"{size}s", doc, kind, default)


def nested(kind: Any, doc: str = "", *, default: Any = MISSING) -> Any:
    """Another record, in place."""
    size = kind.__layout__.fixed_size
    return Item("nested", size, f"{size}s" if size is not None else "", doc, kind, default)


def counted(kind: Any, count: str, doc: str = "") -> Any:
    """A list of records or integers (`counted(u32, "count")`), as many as the earlier item `count` says.

    `pack` fills the count in.
    """
    return Item("counted", None, "", doc, _element(kind), count=count, default=None)


def tail(kind: Any = None, doc: str = "") -> Any:
    """All that is left: bytes, or a list of records or integers."""
    if isinstance(kind, str):
        kind, doc = None, kind
    return Item("tail", None, "", doc, None if kind is None else _element(kind), default=None)


def _element(kind: Any) -> Any:
    """A record class as it is; an integer item function as its item."""
    if isinstance(kind, type):
        return kind
    item = kind()
    if not isinstance(item, Item) or item.kind not in ("int", "u24"):
        raise DeclarationError(f"a list holds records or integers, not {kind!r}")
    return item
