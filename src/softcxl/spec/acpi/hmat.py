"""The Heterogeneous Memory Attribute Table: how far memory is from who uses it."""

from __future__ import annotations

import enum

from softcxl.spec.acpi.sdt import SdtHeader
from softcxl.wire import Record, counted, nested, reserved, tail, u8, u16, u32, u64


class Hmat(Record, size=0x28, spec="ACPI 6.5 §5.2.28"):
    """Heterogeneous Memory Attribute Table."""

    header: SdtHeader = nested(SdtHeader)
    _reserved: None = reserved(4)
    structures: bytes = tail("HMAT structures, one after another")


class HmatType(enum.IntEnum):
    """HMAT Structure Types (ACPI 6.5 §5.2.28)."""

    PROXIMITY_DOMAIN_ATTRIBUTES = 0
    LATENCY_AND_BANDWIDTH = 1
    MEMORY_SIDE_CACHE = 2


class HmatDataType(enum.IntEnum):
    """What the entries of a latency and bandwidth structure are (ACPI 6.5 §5.2.28.4)."""

    ACCESS_LATENCY = 0
    READ_LATENCY = 1
    WRITE_LATENCY = 2
    ACCESS_BANDWIDTH = 3
    READ_BANDWIDTH = 4
    WRITE_BANDWIDTH = 5


class LatencyAndBandwidth(Record, size=0x20, spec="ACPI 6.5 §5.2.28.4"):
    """System Locality Latency and Bandwidth Information Structure. Its maker sets `length`."""

    type: HmatType = u16(HmatType, default=HmatType.LATENCY_AND_BANDWIDTH)
    _reserved1: None = reserved(2)
    length: int = u32("in bytes: 20h, 4 for each initiator and target, 2 for each entry")
    flags: int = u8("0: of the memory itself, not of a cache before it")
    data_type: HmatDataType = u8(HmatDataType)
    min_transfer_size: int = u8("2-based logarithm of bytes; 0: any")
    _reserved2: None = reserved(1)
    initiator_count: int = u32()
    target_count: int = u32()
    _reserved3: None = reserved(4)
    entry_base_unit: int = u64("what the entries are in: ps, or MB/s")
    initiators: list[int] = counted(u32, "initiator_count", "proximity domains")
    targets: list[int] = counted(u32, "target_count", "proximity domains")
    entries: list[int] = tail(u16, "a row of the targets for each initiator")
