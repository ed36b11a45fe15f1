"""Declarations as people and programs read them: Markdown tables and plain values for JSON."""

from __future__ import annotations

import enum
from typing import Any
from uuid import UUID

from softcxl.wire.block import Block
from softcxl.wire.record import Record
from softcxl.wire.register import Register


def describe(declared: type[Register] | type[Block] | type[Record]) -> str:
    """The declaration of a register, block or record as a Markdown table, with its description and clause."""
    layout = declared.__layout__
    header: tuple[str, ...]
    if issubclass(declared, Register):
        header, rows = ("Bits", "Field", "Access", "Reset", "Meaning"), _register_rows(declared)
    elif issubclass(declared, Block):
        header, rows = ("Offset", "Register", "Width", "Meaning"), _block_rows(declared)
    else:
        header, rows = ("Offset", "Item", "Size", "Meaning"), _record_rows(declared)
    lines = [" | ".join(cells) for cells in (header, ["---"] * len(header), *rows)]
    title = f"**{layout.name}**" + (f" ({layout.spec})" if layout.spec else "")
    summary = layout.doc.split("\n\n")[0].replace("\n", " ")
    return "\n".join([title, "", summary, "", *(f"| {line} |" for line in lines), ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _choices(kind: Any) -> str:
    if not (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        return ""
    return "; ".join(f"{member.value:X}h {member.name.lower()}" for member in kind)


def _meaning(doc: str, kind: Any) -> str:
    return _cell(": ".join(part for part in (doc, _choices(kind)) if part))


def _register_rows(declared: type[Register]) -> list[tuple[str, ...]]:
    return [
        (
            str(field.hi) if field.hi == field.lo else f"{field.hi}:{field.lo}",
            f"`{field.name}`",
            field.law.name,
            f"{field.reset:X}h",
            _meaning(field.doc, field.kind),
        )
        for field in reversed(declared.__layout__.fields)
    ]


def _block_rows(declared: type[Block]) -> list[tuple[str, ...]]:
    return [
        (
            f"{placed.offset:02X}h",
            f"`{placed.name}` ({placed.register.__layout__.name})",
            str(placed.register.__layout__.width),
            _cell(placed.doc or placed.register.__layout__.doc.split("\n\n")[0]),
        )
        for placed in declared.__layout__.registers
    ]


def _record_rows(declared: type[Record]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    offset, known = 0, True
    for item in declared.__layout__.fields:
        size = "varies" if item.size is None else str(item.size)
        name = "reserved" if item.kind == "reserved" else f"`{item.name}`"
        of = item.of if isinstance(item.of, type) else None
        kind = f" ({of.__name__})" if of is not None and not issubclass(of, enum.Enum) else ""
        rows.append((f"{offset:02X}h" if known else "…", name + kind, size, _meaning(item.doc, item.of)))
        known = known and item.size is not None
        offset += item.size or 0
    return rows


def to_plain(value: Any) -> Any:
    """A register, block, record or field value as dicts, lists, numbers and strings, ready for JSON."""
    if isinstance(value, Register):
        fields = value.__layout__.fields
        return {field.name: to_plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Block):
        return {
            placed.name: to_plain(getattr(value, placed.name)) for placed in type(value).__layout__.registers
        }
    if isinstance(value, Record):
        names = [item.name for item in value.__layout__.fields if item.kind != "reserved"]
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, list | tuple):
        return [to_plain(one) for one in value]
    return value
