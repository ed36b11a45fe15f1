"""Device registers: the block that holds a device's status and mailboxes, with its capability array."""

from __future__ import annotations

from typing import TypeVar

from softcxl.spec.cxl.device import (
    CapabilitiesArray,
    DeviceCapabilityHeader,
    DeviceType,
)
from softcxl.wire import Block, RegisterFile

B = TypeVar("B", bound=Block)

_STRIDE = CapabilitiesArray.__layout__.size


class DeviceRegisters:
    """The device register block `file`, and the capability array in it that `list_capability` extends."""

    def __init__(self, file: RegisterFile, device_type: DeviceType) -> None:
        self.file = file
        self.array = file.place(0, CapabilitiesArray).array
        self.array.type = device_type

    def add(
        self,
        offset: int,
        capability_id: int,
        version: int,
        block: type[B],
        *,
        hooks: object = None,
    ) -> B:
        """Place `block` at byte `offset` and list it. Vendors' own capabilities have IDs from 8000h on."""
        placed = self.file.place(offset, block, hooks=hooks)
        self.list_capability(capability_id, version, offset, block.__layout__.size)
        return placed

    def list_capability(self, capability_id: int, version: int, offset: int, length: int) -> None:
        """Add an entry to the capability array. Sizes in bytes. Raises `DeclarationError` where it is full."""
        number = self.array.count + 1
        header = self.file.place(_STRIDE * number, DeviceCapabilityHeader)
        header.identity.capability_id = capability_id  # type: ignore[assignment]  # vendors' are no members
        header.identity.version = version
        header.offset.value = offset
        header.length.value = length
        self.array.count = number
