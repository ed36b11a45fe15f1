"""One device's label storage area, read and written as drivers/nvdimm/label.c does.

Whatever the area holds, garbage or what was torn by a crash, reading it ends in the labels that are good.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from uuid import UUID

from softcxl.host.errors import LabelError
from softcxl.host.memdev import Memdev
from softcxl.spec.command.label import GET_LSA, SET_LSA, GetLsaRequest, SetLsaRequest
from softcxl.spec.cxl.label import (
    INDEX_ALIGNMENT,
    INDEX_SIGNATURE,
    LABEL_SIZE,
    REGION_LABEL,
    LabelIndex,
    RegionLabel,
)

_NEXT = {1: 2, 2: 3, 3: 1}
"""Sequence numbers go round, so that of two neighbours the later one is known."""

_SLOTS_LEAST = 2


def fletcher64(data: bytes) -> int:
    """The checksum of labels: sums of 32-bit words, and of those sums."""
    low = high = 0
    for word in struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4]):
        low = low + word & 0xFFFFFFFF
        high = high + low & 0xFFFFFFFF
    return high << 32 | low


class LabelArea:
    """The label storage area of `memdev`. Raises `LabelError` for a device without one, or too small a one."""

    def __init__(self, memdev: Memdev) -> None:
        self.memdev = memdev
        size = memdev.label_storage_size
        # Room for the index blocks is reckoned with a few slots too many, as Linux does.
        self._index_size = _index_size(size // LABEL_SIZE)
        self.slots = (size - 2 * self._index_size) // LABEL_SIZE
        if self.slots < _SLOTS_LEAST:
            raise LabelError(f"{memdev.name}: a label storage area of {size} bytes has no room for labels")
        self._index_size = _index_size(self.slots)
        self._current: LabelIndex | None = None
        self._number = 0
        self._find()

    @property
    def usable(self) -> bool:
        """It has a valid index block."""
        return self._current is not None

    def prepare(self) -> None:
        """Initialise the area if it has no valid index block. Raises `LabelError` where no slot is free."""
        if self._current is None:
            free = _bitmap(self.slots)
            for number, sequence in ((0, 3), (1, 2)):
                self._write_index(number, sequence, free)
            self._find()
        if next(self._free_slots(), None) is None:
            raise LabelError(
                f"{self.memdev.name}: all {self.slots} slots of its label storage area are in use"
            )

    def regions(self) -> Iterator[RegionLabel]:
        """The region labels that are in use and whole."""
        for slot, data in self._labels():
            if data[:16] == REGION_LABEL.bytes:
                label = RegionLabel.unpack(data)
                if label.slot == slot:
                    yield label

    def replace(self, label: RegionLabel) -> None:
        """Write a label in place of the one of the same region. Raises `LabelError` where no slot is free."""
        slot = next(self._free_slots(), None)
        if self._current is None or slot is None:
            raise LabelError(f"{self.memdev.name}: no slot of its label storage area is free")
        old = [one.slot for one in self.regions() if one.uuid == label.uuid]
        made = label.replace(slot=slot, checksum=0)
        made.checksum = fletcher64(made.pack())
        self._write(2 * self._index_size + slot * LABEL_SIZE, made.pack())
        self._mark(taken=[slot], freed=old)

    def remove(self, uuid: UUID) -> None:
        """Free the slots of a region's labels."""
        old = [one.slot for one in self.regions() if one.uuid == uuid]
        if old:
            self._mark(taken=[], freed=old)

    # -- index blocks ----------------------------------------------------------------------------------------

    def _find(self) -> None:
        valid = {}
        for number in (0, 1):
            data = self._read(number * self._index_size, self._index_size)
            if data[:16] != INDEX_SIGNATURE:
                continue
            index = LabelIndex.unpack(data)
            if self._holds(index, number, data):
                valid[number] = index
        if len(valid) == 2:
            first, second = valid[0].sequence & 3, valid[1].sequence & 3
            del valid[0 if _NEXT[first] == second else 1]
        for number, index in valid.items():
            self._number, self._current = number, index

    def _holds(self, index: LabelIndex, number: int, data: bytes) -> bool:
        return (
            index.checksum == fletcher64(index.replace(checksum=0).pack())
            and index.label_size == 1
            and index.sequence & 3 != 0
            and index.offset == number * self._index_size
            and index.other_offset == (1 - number) * self._index_size
            and index.label_offset == 2 * self._index_size
            and index.size == len(data)
            and index.slot_count <= self.slots
        )

    def _mark(self, *, taken: list[int], freed: list[int]) -> None:
        assert self._current is not None
        free = bytearray(self._current.free)
        for slot in taken:
            free[slot // 8] &= ~(1 << slot % 8)
        for slot in freed:
            free[slot // 8] |= 1 << slot % 8
        self._write_index(1 - self._number, _NEXT[self._current.sequence & 3], bytes(free))
        self._find()

    def _write_index(self, number: int, sequence: int, free: bytes) -> None:
        room = self._index_size - LabelIndex.__layout__.size
        index = LabelIndex(
            signature=INDEX_SIGNATURE,
            sequence=sequence,
            offset=number * self._index_size,
            size=self._index_size,
            other_offset=(1 - number) * self._index_size,
            label_offset=2 * self._index_size,
            slot_count=self.slots,
            free=free.ljust(room, b"\0")[:room],
        )
        index.checksum = fletcher64(index.pack())
        self._write(number * self._index_size, index.pack())

    # -- slots -----------------------------------------------------------------------------------------------

    def _free_slots(self) -> Iterator[int]:
        if self._current is not None:
            free = self._current.free
            yield from (slot for slot in range(self._current.slot_count) if free[slot // 8] >> slot % 8 & 1)

    def _labels(self) -> Iterator[tuple[int, bytes]]:
        """(slot, bytes) of each slot in use whose checksum holds."""
        if self._current is None:
            return
        free = set(self._free_slots())
        for slot in range(self._current.slot_count):
            if slot in free:
                continue
            data = self._read(2 * self._index_size + slot * LABEL_SIZE, LABEL_SIZE)
            if fletcher64(data[:-8] + bytes(8)) == int.from_bytes(data[-8:], "little"):
                yield slot, data

    # -- bytes -----------------------------------------------------------------------------------------------

    def _read(self, offset: int, size: int) -> bytes:
        step, data = self.memdev.mailbox.payload_max, b""
        for start in range(offset, offset + size, step):
            length = min(step, offset + size - start)
            data += self.memdev.mailbox.send(GET_LSA, GetLsaRequest(offset=start, length=length))
        if len(data) != size:
            raise LabelError(f"{self.memdev.name}: {len(data)} of {size} bytes of labels came")
        return data

    def _write(self, offset: int, data: bytes) -> None:
        step = self.memdev.mailbox.payload_max - SetLsaRequest.__layout__.size
        for start in range(0, len(data), step):
            part = data[start : start + step]
            self.memdev.mailbox.send(SET_LSA, SetLsaRequest(offset=offset + start, data=part))


def _index_size(slots: int) -> int:
    used = LabelIndex.__layout__.size + -(-slots // 8)
    return -(-used // INDEX_ALIGNMENT) * INDEX_ALIGNMENT


def _bitmap(slots: int) -> bytes:
    return ((1 << slots) - 1).to_bytes(-(-slots // 8), "little")
