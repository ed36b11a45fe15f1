"""The label storage area: two index blocks, then slots with the labels of regions and namespaces (CXL 3.1 §9.13.2).

Nothing is updated in place: a label goes to a free slot, then the older index block is written with the next sequence
number and becomes the current one.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from softcxl.wire import RO, Record, Register, ascii, bit, raw, reserved, tail, u8, u16, u32, u64, word  # noqa: A004
from softcxl.wire import uuid as identifier

INDEX_SIGNATURE: Final = b"NAMESPACE_INDEX\0"
INDEX_ALIGNMENT: Final = 256
LABEL_SIZE: Final = 256

REGION_LABEL: Final = UUID("529d7c61-da07-47c4-a93f-ecdf2c06f444")
"""The type of a region label (CXL 3.1 §9.13.2.4)."""

NAMESPACE_LABEL: Final = UUID("68bb2c0a-5a77-4937-9f85-3caf41a0f93c")
"""The type of a namespace label (CXL 3.1 §9.13.2.5)."""


class LabelIndex(Record, size=0x48, spec="CXL 3.1 §9.13.2.2"):
    """Label Index Block. Its size is a multiple of 256 bytes."""

    signature: bytes = raw(16, "`INDEX_SIGNATURE`")
    _flags: None = reserved(3)
    label_size: int = u8("1: labels of 256 bytes", default=1)
    sequence: int = u32("1, 2, 3, then 1 again; of two valid blocks the later one counts")
    offset: int = u64("of this block in the area, in bytes")
    size: int = u64("of this block, in bytes")
    other_offset: int = u64("of the other block")
    label_offset: int = u64("of the first slot")
    slot_count: int = u32()
    major: int = u16(default=2)
    minor: int = u16(default=1)
    checksum: int = u64("Fletcher 64 of the block with this item zero")
    free: bytes = tail("a bit for each slot, the lowest first; set: free")


class LabelFlags(Register, width=32, spec="CXL 3.1 §9.13.2.3"):
    """Flags of a label."""

    updating = bit(3, RO, "the set of labels it belongs to was being written")


class RegionLabel(Record, size=0x100, spec="CXL 3.1 §9.13.2.4"):
    """Region Label: one device's part of an interleave set."""

    type: UUID = identifier(default=REGION_LABEL)
    uuid: UUID = identifier("of the region")
    flags: LabelFlags = word(LabelFlags)
    label_count: int = u16("interleave ways of the region, and so labels on as many devices")
    position: int = u16("of this device in the interleave set")
    dpa: int = u64("at which its part begins")
    raw_size: int = u64("bytes of its part")
    hpa: int = u64("at which the region is to be mapped")
    slot: int = u32("that this label is in")
    interleave_granularity: int = u32("256 bytes << value")
    alignment: int = u32("in units of 256 MiB")
    _reserved: None = reserved(0xAC)
    checksum: int = u64("Fletcher 64 of the label with this item zero")


class NamespaceLabel(Record, size=0x100, spec="CXL 3.1 §9.13.2.5"):
    """Namespace Label: a part of a region that has a use of its own."""

    type: UUID = identifier(default=NAMESPACE_LABEL)
    uuid: UUID = identifier("of the namespace")
    name: str = ascii(64)
    flags: LabelFlags = word(LabelFlags)
    range_count: int = u16("labels that make up the namespace")
    position: int = u16("of this label among them")
    dpa: int = u64("at which it begins")
    raw_size: int = u64("in bytes")
    slot: int = u32("that this label is in")
    alignment: int = u32("in units of 256 MiB")
    region_uuid: UUID = identifier("of the region that it is in")
    abstraction_uuid: UUID = identifier("what it is to be used by")
    lba_size: int = u16("bytes of a block, for those that have blocks")
    _reserved: None = reserved(0x56)
    checksum: int = u64("Fletcher 64 of the label with this item zero")
