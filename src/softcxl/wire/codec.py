"""Generates a record's `__init__`, `pack` and `_parse` from its items, as plain Python text.

Runs of items of fixed size share one `struct.Struct`, so that a record of fixed size packs in a single call.
"""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

from softcxl.wire.errors import LayoutError, RangeError
from softcxl.wire.item import MISSING, Item


def enum_member(kind: Any, value: int, where: str) -> Any:
    """`kind(value)`, or `LayoutError` naming the item and what is allowed."""
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(f"{member.value:#x} {member.name}" for member in kind)
        raise LayoutError(f"{where}: {value:#x} is none of {allowed}") from None


def text(value: bytes) -> str:
    """NUL-padded ASCII as a string."""
    return value.split(b"\0", 1)[0].decode("ascii")


def fit(value: Any, size: int, where: str) -> bytes:
    """`value` as bytes of at most `size`, or `RangeError`."""
    data = value.encode("ascii", "replace") if isinstance(value, str) else bytes(value)
    if len(data) > size:
        raise RangeError(f"{where}: {len(data)} bytes do not fit {size}")
    return data


def small(value: int, size: int, where: str) -> bytes:
    """`value` as `size` little-endian bytes, or `RangeError`."""
    if not 0 <= value < 1 << 8 * size:
        raise RangeError(f"{where}: {value:#x} does not fit {8 * size} bits")
    return int(value).to_bytes(size, "little")


def many(element: Any, data: Any, offset: int, count: int, where: str) -> tuple[list[Any], int]:
    """A list of `count` elements from `offset`, or as many as fill `data` exactly where `count` is -1."""
    if isinstance(element, Item):
        size = element.size or 0
        if count < 0:
            count = (len(data) - offset) // size
            if offset + count * size != len(data):
                raise LayoutError(
                    f"{where}: {len(data) - offset} bytes are no whole number of {size}-byte items"
                )
        end = offset + count * size
        if end > len(data):
            raise LayoutError(
                f"{where}: {count} items of {size} bytes do not fit the {len(data) - offset} left"
            )
        if element.code == "3s":
            return [int.from_bytes(data[at : at + 3], "little") for at in range(offset, end, 3)], end
        return list(struct.unpack_from(f"<{count}{element.code}", data, offset)), end
    found: list[Any] = []
    while (count < 0 and offset < len(data)) or len(found) < count:
        one, offset = element._parse(data, offset)
        found.append(one)
    return found, offset


def packed(element: Any, values: Any, where: str) -> bytes:
    """A list of elements as bytes."""
    if isinstance(element, Item):
        return b"".join(small(value, element.size or 0, where) for value in values)
    return b"".join([value.pack() for value in values])


def out_of_range(record: Any, items: list[Item]) -> RangeError:
    """The error for the first integer of `record` that does not fit its item."""
    for item in items:
        if item.kind == "int":
            value = getattr(record, item.name)
            try:
                struct.pack(f"<{item.code}", value)
            except struct.error:
                return RangeError(
                    f"{type(record).__name__}.{item.name}: {value!r} does not fit {item.size} bytes"
                )
    return RangeError(f"{type(record).__name__}: a value does not fit its item")  # pragma: no cover


def generate(name: str, items: list[Item]) -> tuple[str, dict[str, Any]]:
    """The source of the three methods, and the names it defines."""
    space: dict[str, Any] = {
        "struct_error": struct.error, "enum_member": enum_member, "text": text, "fit": fit, "small": small,
        "many": many, "packed": packed, "out_of_range": out_of_range, "UUID": UUID, "ITEMS": items,
    }  # fmt: skip
    for item in items:
        space[f"of_{item.name}"] = item.of
        space[f"default_{item.name}"] = item.default
    source = "\n".join([*_init(items), "", *_pack(name, items, space), "", *_parse(name, items, space), ""])
    exec(compile(source, f"<record {name}>", "exec"), space)
    return source, space


def _init(items: list[Item]) -> list[str]:
    arguments, lines = [], []
    for item in items:
        key = item.name
        if item.kind == "reserved":
            continue
        if item.kind == "word":
            arguments.append(f"{key}=None")
            lines.append(
                f"    self.{key} = of_{key}(default_{key}) if {key} is None else"
                f" {key} if isinstance({key}, of_{key}) else of_{key}({key})"
            )
        elif item.kind == "nested" and item.default is MISSING:
            arguments.append(f"{key}=None")
            lines.append(f"    self.{key} = of_{key}() if {key} is None else {key}")
        elif item.kind in ("counted", "tail"):
            arguments.append(f"{key}=None")
            empty = "b''" if item.of is None else "[]"
            copied = f"bytes({key})" if item.of is None else f"list({key})"
            lines.append(f"    self.{key} = {empty} if {key} is None else {copied}")
        else:
            arguments.append(key if item.default is MISSING else f"{key}=default_{key}")
            lines.append(f"    self.{key} = {key}")
    for item in items:
        if item.kind == "counted":
            lines.append(f"    self.{item.count} = len(self.{item.name})")
    star = ["*", *arguments] if arguments else []
    return [f"def __init__({', '.join(['self', *star])}):", *(lines or ["    pass"])]


def _runs(items: list[Item]) -> list[list[Item]]:
    """Items in runs: neighbours of fixed size together, each of varying size alone."""
    runs: list[list[Item]] = []
    for item in items:
        if item.size is not None and runs and runs[-1][-1].size is not None:
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def _to_struct(name: str, item: Item, counts: dict[str, str]) -> str:
    value, where = f"self.{item.name}", repr(f"{name}.{item.name}")
    if item.name in counts:
        value = f"len(self.{counts[item.name]})"
    match item.kind:
        case "u24":
            return f"small({value}, 3, {where})"
        case "ascii" | "raw":
            return f"fit({value}, {item.size}, {where})"
        case "uuid":
            return f"{value}.bytes_le" if item.little else f"{value}.bytes"
        case "word":
            return f"{value}._data[{value}._at : {value}._at + {item.size}]"
        case "nested":
            return f"{value}.pack()"
    return value


def _from_struct(name: str, item: Item) -> str:
    key, where = item.name, repr(f"{name}.{item.name}")
    value = key
    match item.kind:
        case "u24":
            value = f"int.from_bytes({key}, 'little')"
        case "ascii":
            return f"text({key})"
        case "uuid":
            return f"UUID(bytes_le={key})" if item.little else f"UUID(bytes={key})"
        case "word":
            return f"of_{key}.over(bytearray({key}), 0)"
        case "nested":
            return f"of_{key}._parse({key}, 0)[0]"
    return f"enum_member(of_{key}, {value}, {where})" if item.of is not None else value


def _pack(name: str, items: list[Item], space: dict[str, Any]) -> list[str]:
    counts = {item.count: item.name for item in items if item.kind == "counted"}
    parts = []
    for index, run in enumerate(_runs(items)):
        first = run[0]
        where = repr(f"{name}.{first.name}")
        if first.size is not None:
            space[f"run{index}"] = struct.Struct("<" + "".join(item.code for item in run))
            values = [_to_struct(name, item, counts) for item in run if item.kind != "reserved"]
            parts.append(f"run{index}.pack({', '.join(values)})")
        elif first.kind == "nested":
            parts.append(f"self.{first.name}.pack()")
        elif first.of is None:
            parts.append(f"bytes(self.{first.name})")
        else:
            parts.append(f"packed(of_{first.name}, self.{first.name}, {where})")
    body = " + ".join(parts) or "b''"
    return [
        "def pack(self):",
        "    try:",
        f"        return {body}",
        "    except struct_error:",
        "        raise out_of_range(self, ITEMS) from None",
    ]


def _parse(name: str, items: list[Item], space: dict[str, Any]) -> list[str]:
    lines = ["def _parse(cls, data, offset):", "    self = cls.__new__(cls)"]
    for index, run in enumerate(_runs(items)):
        first = run[0]
        where = repr(f"{name}.{first.name}")
        if first.size is not None:
            names = [item.name for item in run if item.kind != "reserved"]
            if names:
                lines.append(f"    {', '.join(names)}, = run{index}.unpack_from(data, offset)")
            else:
                lines.append(f"    run{index}.unpack_from(data, offset)")
            lines.append(f"    offset += {space[f'run{index}'].size}")
            for item in run:
                if item.kind != "reserved":
                    lines.append(f"    self.{item.name} = {_from_struct(name, item)}")
        elif first.kind == "nested":
            lines.append(f"    self.{first.name}, offset = of_{first.name}._parse(data, offset)")
        elif first.of is None:
            lines += [f"    self.{first.name} = bytes(data[offset:])", "    offset = len(data)"]
        else:
            count = f"self.{first.count}" if first.kind == "counted" else "-1"
            lines.append(
                f"    self.{first.name}, offset = many(of_{first.name}, data, offset, {count}, {where})"
            )
    return [*lines, "    return self, offset"]
