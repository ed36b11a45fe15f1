"""Partitions: capacity that software moves between volatile and persistent (CXL 3.1 §8.2.9.9.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softcxl.device.capacity import Capacity
from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.device.persist import StatePage
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.memory import (
    CAPACITY_UNIT,
    GET_PARTITION_INFO,
    SET_PARTITION_INFO,
    GetPartitionInfoResponse,
    SetPartitionInfoRequest,
)

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3


def divided(page: StatePage, factory: Capacity, alignment: int) -> Capacity:
    """The capacity as it was divided when power went: `factory`'s where it never was otherwise.

    Raises `ValueError` for an `alignment` (bytes) that cannot be or that `factory` is not divided by.
    """
    if alignment < 0 or alignment % CAPACITY_UNIT:
        raise ValueError(f"partition alignment of {alignment:#x} bytes: multiples of 256 MiB are allowed")
    if not alignment:
        return factory
    if factory.volatile % alignment or factory.persistent % alignment:
        raise ValueError(f"partitions are not multiples of their alignment, {alignment:#x} bytes")

    def read(section: dict[str, Any]) -> Capacity:
        for volatile in (int(section["volatile"]), int(section["next"] or 0)):
            if not 0 <= volatile <= factory.total or volatile % alignment:
                raise ValueError(section)
        return _with(factory, int(section["volatile"]))

    return page.take("partition", read) or factory


def _with(capacity: Capacity, volatile: int) -> Capacity:
    return Capacity(volatile, capacity.total - volatile, capacity.dynamic)


class PartitionCommands(CommandSet):
    """Get and Set Partition Info of a device whose capacity can all be either, in parts of `alignment` bytes.

    Whatever changes loses its data, which are the bytes from the first address on that is in another partition than
    before: all of the persistent ones. A change at once is refused while a committed decoder maps any of these; one
    for later happens when power comes on. `discarded` is the first address that lost its data when this device was
    made, for whoever finds bytes of it in other places then.
    """

    def __init__(self, device: Type3, alignment: int) -> None:
        self._device, self.alignment = device, alignment
        self.discarded: int | None = None
        self.next: int | None = device.page.take(
            "partition", lambda section: None if section["next"] is None else int(section["next"])
        )

    def power_on(self) -> None:
        """Power has come: capacity is divided as was asked for."""
        if self.next is not None:
            self._divide(self.next)

    @command(GET_PARTITION_INFO)
    def get_partition_info(self) -> GetPartitionInfoResponse:
        capacity = self._device.capacity
        following = None if self.next is None else _with(capacity, self.next)
        return GetPartitionInfoResponse(
            active_volatile=capacity.volatile // CAPACITY_UNIT,
            active_persistent=capacity.persistent // CAPACITY_UNIT,
            next_volatile=following.volatile // CAPACITY_UNIT if following else 0,
            next_persistent=following.persistent // CAPACITY_UNIT if following else 0,
        )

    @command(SET_PARTITION_INFO)
    def set_partition_info(self, request: SetPartitionInfoRequest) -> None:
        device, volatile = self._device, request.volatile_capacity * CAPACITY_UNIT
        if volatile > device.capacity.total or volatile % self.alignment:
            raise CommandError(ReturnCode.INVALID_INPUT)
        if not request.flags.immediate:
            following = None if volatile == device.capacity.volatile else volatile
            device.page.put("partition", volatile=device.capacity.volatile, next=following)
            self.next = following
            return
        start, end = min(volatile, device.capacity.volatile), device.capacity.total
        changes = volatile != device.capacity.volatile
        if changes and any(
            one.dpa < end and start < one.dpa + one.dpa_size for one in device.decoders.mappings
        ):
            raise CommandError(ReturnCode.INVALID_INPUT)
        self._divide(volatile)

    def _divide(self, volatile: int) -> None:
        device, old = self._device, self._device.capacity
        device.page.put("partition", volatile=volatile, next=None)
        self.next = None
        if volatile == old.volatile:
            return
        self.discarded = min(volatile, old.volatile)
        self.discard()
        device.divide(_with(old, volatile))

    def discard(self) -> None:
        """Clear what has changed its partition, wherever it rests by now."""
        if self.discarded is not None:
            size = self._device.capacity.total - self.discarded
            self._device.space.clear(self.discarded, size)
            self._device.poison.clear(self.discarded, size)
