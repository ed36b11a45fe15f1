"""Component registers: the 64 KiB block that holds a component's CXL.cache and CXL.mem capabilities."""

from __future__ import annotations

from typing import TypeVar

from softcxl.spec.cxl.component import (
    CACHE_MEM_OFFSET,
    CapabilityArray,
    ComponentCapabilityEntry,
    ComponentCapabilityId,
)
from softcxl.wire import Block, DeclarationError, RegisterFile

B = TypeVar("B", bound=Block)


_FIRST = 0x80  # room for the array's own header and 31 more
_ALIGNMENT = 0x10


class ComponentRegisters:
    """The component register block `file`, and the capability array in it that `add` extends."""

    def __init__(self, file: RegisterFile) -> None:
        self.file = file
        self.array = file.place(CACHE_MEM_OFFSET, CapabilityArray)
        self._end = CACHE_MEM_OFFSET + _FIRST

    def add(
        self,
        capability_id: ComponentCapabilityId,
        version: int,
        block: type[B],
        *,
        size: int | None = None,
        hooks: object = None,
    ) -> B:
        """Append a capability: `block` at the next free place, `size` bytes kept for it, listed in the array."""
        number = self.array.header.array_size + 1
        if 4 * (number + 1) > _FIRST:
            raise DeclarationError(f"{block.__name__}: the capability array is full")
        entry = self.file.place(CACHE_MEM_OFFSET + 4 * number, ComponentCapabilityEntry)
        entry.header.capability_id = capability_id
        entry.header.version = version
        entry.header.pointer = self._end - CACHE_MEM_OFFSET
        self.array.header.array_size = number
        placed = self.file.place(self._end, block, hooks=hooks)
        self._end += (size or block.__layout__.size) + _ALIGNMENT - 1 & ~(_ALIGNMENT - 1)
        return placed
