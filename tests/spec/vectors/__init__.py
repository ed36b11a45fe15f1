"""What other projects say of the tables that `softcxl.spec` declares.

Masks, offsets, sizes and byte layouts here were taken from Linux 7.2, QEMU, libcxlmi and ndctl, never from our own
declarations: a number copied wrongly from the standard shows as a disagreement. Names are those of the source.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from softcxl.wire import Record, Register


@dataclass(frozen=True)
class Place:
    """A register: where the source has it (byte offset in its structure) and how wide (bits)."""

    name: str
    register: type[Register]
    offset: int
    width: int


@dataclass(frozen=True)
class Mask:
    """A field: the source's name for it and its mask."""

    name: str
    field: Any
    mask: int


@dataclass(frozen=True)
class Payload:
    """Bytes laid out as the source's structure `name`, and the value of every field in them.

    A name that begins with "standard" says that no other project has the structure: the bytes are the standard's
    table, read once more.
    """

    name: str
    record: type[Record]
    data: bytes
    fields: dict[str, Any]

    @property
    def second_source(self) -> bool:
        """Another project has this structure."""
        return not self.name.startswith("standard ")


def c(layout: str, *values: Any) -> bytes:
    """The bytes of a packed little-endian C structure: `struct` codes in the order of its members."""
    return struct.pack("<" + layout, *values)


def u24(value: int) -> bytes:
    """A C `u8[3]` that holds a little-endian number."""
    return value.to_bytes(3, "little")
