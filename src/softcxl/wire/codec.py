"""What the generated methods of records call, and the errors they raise."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any
from uuid import UUID

from softcxl.wire.errors import LayoutError, RangeError, ValueUnknown
from softcxl.wire.item import Item

if TYPE_CHECKING:
    import enum


class Members(dict[int, Any]):
    """The members of an enum by number; a number that is none raises `ValueUnknown` naming the item."""

    def __init__(self, kind: type[enum.IntEnum], where: str) -> None:
        super().__init__({int(member): member for member in kind})
        self.kind, self.where = kind, where

    def __missing__(self, value: int) -> Any:
        try:
            return self.kind(value)
        except ValueError:
            allowed = ", ".join(f"{member.value:#x} {member.name}" for member in self.kind)
            raise ValueUnknown(f"{self.where}: {value:#x} is none of {allowed}") from None


def text(value: bytes, where: str) -> str:
    """NUL-padded ASCII as a string."""
    try:
        return value.partition(b"\0")[0].decode("ascii")
    except UnicodeDecodeError:
        raise ValueUnknown(f"{where}: {value!r} is not ASCII text") from None


@functools.lru_cache(maxsize=1024)
def uuid_of(value: bytes) -> UUID:
    """Sixteen bytes in RFC 4122 order as a UUID. Few different ones occur, and making one is slow."""
    return UUID(bytes=value)


@functools.lru_cache(maxsize=1024)
def guid_of(value: bytes) -> UUID:
    """Sixteen bytes, the first three groups little-endian, as a UUID."""
    return UUID(bytes_le=value)


def fit(value: Any, size: int, where: str) -> bytes:
    """`value` as bytes of at most `size`, or `RangeError`."""
    data = bytes(value)
    if len(data) > size:
        raise RangeError(f"{where}: {len(data)} bytes do not fit {size}")
    return data


def ascii_of(value: str, size: int, where: str) -> bytes:
    """`value` as at most `size` bytes of ASCII, or `RangeError`."""
    try:
        data = value.encode("ascii")
    except UnicodeEncodeError:
        raise RangeError(f"{where}: {value!r} is not ASCII") from None
    if len(data) > size:
        raise RangeError(f"{where}: {len(data)} characters do not fit {size} bytes")
    return data


def small(value: Any, size: int, where: str) -> bytes:
    """`value` (an int or a register) as `size` little-endian bytes, or `RangeError`."""
    number = value.__index__()
    if not 0 <= number < 1 << 8 * size:
        raise RangeError(f"{where}: {number:#x} does not fit {8 * size} bits")
    return bytes(number.to_bytes(size, "little"))


def length(where: str, *lengths: int) -> int:
    """The one length of several lists that share a count, or `RangeError`."""
    if len(set(lengths)) != 1:
        raise RangeError(f"{where}: counts lists of different lengths, {', '.join(map(str, lengths))}")
    return lengths[0]


def many(element: Any, data: Any, offset: int, count: int, where: str) -> tuple[list[Any], int]:
    """A list of `count` elements from `offset`, or as many as fill `data` exactly where `count` is -1."""
    size = element.size if isinstance(element, Item) else element.__layout__.fixed_size
    left = len(data) - offset
    if size is None:
        return _varying(element, data, offset, count)
    if count < 0:
        count, rest = divmod(left, size)
        if rest:
            raise LayoutError(f"{where}: {left} bytes are no whole number of {size}-byte items")
    end = offset + count * size
    if count * size > left:
        raise LayoutError(f"{where}: {count} items of {size} bytes do not fit the {left} bytes left")
    if not isinstance(element, Item):
        parse = element._parse
        return [parse(data, at)[0] for at in range(offset, end, size)], end
    if element.kind == "u24":
        found = [int.from_bytes(data[at : at + 3], "little") for at in range(offset, end, 3)]
    else:
        found = list(struct.unpack_from(f"<{count}{element.code}", data, offset))
    if element.of is not None:
        found = list(map(Members(element.of, where).__getitem__, found))
    return found, end


def _varying(element: Any, data: Any, offset: int, count: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    while (count < 0 and offset < len(data)) or len(found) < count:
        one, offset = element._parse(data, offset)
        found.append(one)
    return found, offset


def packed(element: Any, values: Any, where: str) -> bytes:
    """A list of elements as bytes."""
    if not isinstance(element, Item):
        return b"".join([value.pack() for value in values])
    if element.kind == "u24":
        return b"".join([small(value, 3, where) for value in values])
    try:
        return struct.pack(f"<{len(values)}{element.code}", *values)
    except struct.error:
        raise next(_misfits(element, value, where) for value in values if not _fits(element, value)) from None


def _fits(item: Item, value: Any) -> bool:
    if item.kind == "u24":
        return hasattr(value, "__index__") and 0 <= value < 1 << 24
    try:
        struct.pack(f"<{item.code}", value)
    except struct.error:
        return False
    return True


def _misfits(item: Item, value: Any, where: str) -> RangeError:
    bits = 8 * (item.size or 0)
    if not hasattr(value, "__index__"):
        return RangeError(f"{where}: {value!r} is no integer")
    signed = item.kind == "int" and item.code.islower()
    lo, hi = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return RangeError(f"{where}: {value!r} does not fit {bits} bits ({lo} to {hi:#x})")


def out_of_range(record: Any, where: str) -> RangeError:
    """The error for the first value of `record` that does not fit its item, nested records included."""
    items: tuple[Item, ...] = record.__layout__.fields
    lists = {item.count: len(getattr(record, item.name)) for item in items if item.kind == "counted"}
    for item in items:
        if item.kind == "reserved":
            continue
        value, name = getattr(record, item.name), f"{where}.{item.name}"
        if item.kind in ("int", "u24") and not _fits(item, value := lists.get(item.name, value)):
            return _misfits(item, value, name)
        if item.kind == "word":
            number = value.__index__() if hasattr(value, "__index__") else value
            if not isinstance(number, int) or not 0 <= number < 1 << 8 * (item.size or 0):
                return RangeError(f"{name}: {number!r} does not fit {8 * (item.size or 0)} bits")
        if item.kind == "nested" and item.size is not None:
            try:
                value.pack()
            except RangeError as error:
                return error
    return RangeError(f"{where}: a value does not fit its item")  # pragma: no cover


def wrong_size(cls: Any, data: Any, offset: int = 0) -> LayoutError:
    """The error for bytes that end too soon, or go on too long, for the record class `cls`."""
    layout = cls.__layout__
    least = (
        "exactly" if layout.fixed_size is not None and offset == 0 and len(data) > layout.size else "at least"
    )
    return LayoutError(
        f"{cls.__name__}: {max(0, len(data) - offset)} bytes given, {least} {layout.size} needed"
    )
