"""Little-endian unsigned words of any size in a buffer, with `struct.Struct`'s methods."""

from __future__ import annotations

import struct
from typing import Any

_STRUCTS = {1: struct.Struct("<B"), 2: struct.Struct("<H"), 4: struct.Struct("<I"), 8: struct.Struct("<Q")}


class Wide:
    """A word of a size that struct has no code for."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size

    def unpack(self, data: Any) -> tuple[int]:
        return (int.from_bytes(data, "little"),)

    def unpack_from(self, buffer: Any, offset: int) -> tuple[int]:
        return (int.from_bytes(buffer[offset : offset + self.size], "little"),)

    def pack_into(self, buffer: Any, offset: int, value: int) -> None:
        buffer[offset : offset + self.size] = value.to_bytes(self.size, "little")


def word_of(size: int) -> struct.Struct | Wide:
    """How words of `size` bytes are read and written."""
    return _STRUCTS.get(size) or Wide(size)
