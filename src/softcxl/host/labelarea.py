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

_CHECKSUM = 64  # where an index block's is


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
        self._broken: list[str] = []
        self._find()

    @property
    def usable(self) -> bool:
        """It has a valid index block."""
        return self._current is not None

    def damage(self) -> list[str]:
        """What of the area does not hold, each in words: index blocks, and slots that are in use."""
        taken = set(range(self._current.slot_count if self._current else 0)) - self._free
        faults = ((slot, self._label_fault(slot, self._label(slot))) for slot in sorted(taken))
        return [*self._broken, *(f"slot {slot} is in use, and {why}" for slot, why in faults if why)]

    def prepare(self) -> None:
        """Initialise the area if it has no valid index block. Raises `LabelError` where no slot is free."""
        if self._current is None:
            free = _bitmap(self.slots)
            for number, sequence in ((0, 3), (1, 2)):
                self._write_index(number, sequence, free)
            self._find()
        if min(self._free, default=None) is None:
            raise LabelError(
                f"{self.memdev.name}: all {self.slots} slots of its label storage area are in use"
            )

    def regions(self) -> Iterator[RegionLabel]:
        """The region labels that are in use and whole."""
        for slot in range(self._current.slot_count if self._current else 0):
            data = b"" if slot in self._free else self._label(slot)
            if data[:16] == REGION_LABEL.bytes and not self._label_fault(slot, data):
                yield RegionLabel.unpack(data)

    def replace(self, label: RegionLabel) -> None:
        """Write a label in place of the one of the same region. Raises `LabelError` where no slot is free."""
        slot = min(self._free, default=None)
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
        valid, broken = {}, []
        for number in (0, 1):
            data = self._read(number * self._index_size, self._index_size)
            index = LabelIndex.unpack(data)
            fault = self._fault(index, number, data)
            if not fault:
                valid[number] = index
            elif any(data):  # one that was never written is nothing to speak of
                broken.append(f"index block {number} does not hold: {fault}")
        if len(valid) == 2:
            first, second = valid[0].sequence & 3, valid[1].sequence & 3
            if first == second:  # no writer leaves that; Linux takes the second then
                broken.append(f"both index blocks have sequence number {first}")
            del valid[0 if second in (first, _NEXT[first]) else 1]
        self._broken = broken
        for number, index in valid.items():
            self._number, self._current = number, index
        free = self._current.free if self._current else b""
        slots = range(self._current.slot_count if self._current else 0)
        self._free = {slot for slot in slots if free[slot // 8] >> slot % 8 & 1}

    def _fault(self, index: LabelIndex, number: int, data: bytes) -> str:
        """Why an index block does not hold; nothing if it does."""
        if index.signature != INDEX_SIGNATURE:
            return "it has no signature"
        if index.checksum != fletcher64(data[:_CHECKSUM] + bytes(8) + data[_CHECKSUM + 8 :]):
            return "its checksum is wrong"
        expected = {
            "label_size": 1,
            "offset": number * self._index_size,
            "other_offset": (1 - number) * self._index_size,
            "label_offset": 2 * self._index_size,
            "size": self._index_size,
        }
        for name, value in expected.items():
            if getattr(index, name) != value:
                return f"its {name} is {getattr(index, name):#x}, not {value:#x}"
        if not index.sequence & 3:
            return "its sequence number is 0, which no block has"
        if index.slot_count > self.slots:
            return f"it has {index.slot_count} slots, and there is room for {self.slots}"
        return ""

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

    def _label(self, slot: int) -> bytes:
        return self._read(2 * self._index_size + slot * LABEL_SIZE, LABEL_SIZE)

    def _label_fault(self, slot: int, data: bytes) -> str:
        """Why the label in a slot does not hold; nothing if it does, or is of a kind that is not looked at here."""
        if fletcher64(data[:-8] + bytes(8)) != int.from_bytes(data[-8:], "little"):
            return "its label's checksum is wrong"
        if data[:16] == REGION_LABEL.bytes and RegionLabel.unpack(data).slot != slot:
            return f"its label says that it is in slot {RegionLabel.unpack(data).slot}"
        return ""

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
