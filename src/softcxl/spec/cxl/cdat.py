"""The Coherent Device Attribute Table, and the data objects that read it (CDAT 1.03, CXL 3.1 §8.1.11).

Entries are records with their type and length filled in; the table is a `CdatHeader` and the entries in turn.
"""

from __future__ import annotations

import enum
from typing import Final

from softcxl.wire import RO, Record, Register, bit, bits, reserved, tail, u8, u16, u32, u64, word

DATA_OBJECT_TYPE_CDAT: Final = 0x02
"""Type of the Table Access data object, of the CXL vendor ID (CXL 3.1 §8.1.11.1)."""

LAST_ENTRY: Final = 0xFFFF
"""Entry handle that a response to a read of the last entry carries (CXL 3.1 §8.1.11.1)."""


class CdatHeader(Record, size=0x10, spec="CDAT 1.03 §2, Table 1"):
    """CDAT Table Format."""

    length: int = u32("of the whole table, in bytes")
    revision: int = u8(default=2)
    checksum: int = u8("makes the bytes of the table add up to zero, modulo 256")
    _reserved: None = reserved(6)
    sequence: int = u32("changes when the table does")


class CdatType(enum.IntEnum):
    """CDAT Structure Types (CDAT 1.03 Table 2)."""

    DSMAS = 0
    DSLBIS = 1
    DSMSCIS = 2
    DSIS = 3
    DSEMTS = 4
    SSLBIS = 5


class CdatEntryHeader(Record, size=0x04, spec="CDAT 1.03 Table 2"):
    """What every CDAT entry begins with."""

    type: int = u8("a `CdatType`")
    _reserved: None = reserved(1)
    length: int = u16("of the entry, in bytes")


class DsmasFlags(Register, width=8, spec="CDAT 1.03 Table 4"):
    """Flags of a DSMAS."""

    non_volatile = bit(2, RO)
    shareable = bit(3, RO)
    hardware_managed_coherency = bit(4, RO)
    dynamic_capacity = bit(5, RO)
    read_only = bit(6, RO)


class Dsmas(Record, size=0x18, spec="CDAT 1.03 §2.1, Table 3"):
    """Device Scoped Memory Affinity Structure: a range of device addresses with like properties."""

    type: CdatType = u8(CdatType, default=CdatType.DSMAS)
    _reserved1: None = reserved(1)
    length: int = u16(default=0x18)
    handle: int = u8("DSMADHandle: names the range to other entries")
    flags: DsmasFlags = word(DsmasFlags)
    _reserved2: None = reserved(2)
    dpa_base: int = u64("in bytes")
    dpa_length: int = u64("in bytes")


class LatencyBandwidthType(enum.IntEnum):
    """What a DSLBIS or SSLBIS tells, as in ACPI's HMAT (ACPI 6.5 Table 5.148)."""

    ACCESS_LATENCY = 0
    READ_LATENCY = 1
    WRITE_LATENCY = 2
    ACCESS_BANDWIDTH = 3
    READ_BANDWIDTH = 4
    WRITE_BANDWIDTH = 5


class Dslbis(Record, size=0x18, spec="CDAT 1.03 §2.2, Table 5"):
    """Device Scoped Latency and Bandwidth Information Structure."""

    type: CdatType = u8(CdatType, default=CdatType.DSLBIS)
    _reserved1: None = reserved(1)
    length: int = u16(default=0x18)
    handle: int = u8("of the DSMAS")
    flags: int = u8("as in ACPI's HMAT; 0: the memory itself")
    data_type: int = u8("a `LatencyBandwidthType`")
    _reserved2: None = reserved(1)
    entry_base_unit: int = u64("a unit of the entries, in ps or MB/s")
    entry0: int = u16("latency or bandwidth in base units, between port and memory")
    entry1: int = u16()
    entry2: int = u16()
    _reserved3: None = reserved(2)


class CacheAttributes(Register, width=32, spec="ACPI 6.5 Table 5.149"):
    """Cache Attributes of a memory side cache, as in ACPI's HMAT."""

    total_levels = bits(3, 0, RO)
    level = bits(7, 4, RO)
    associativity = bits(11, 8, RO, "0: none, 1: direct mapped, 2: complex")
    write_policy = bits(15, 12, RO, "0: none, 1: write back, 2: write through")
    line_size = bits(31, 16, RO, "bytes")


class Dsmscis(Record, size=0x14, spec="CDAT 1.03 §2.3, Table 6"):
    """Device Scoped Memory Side Cache Information Structure."""

    type: CdatType = u8(CdatType, default=CdatType.DSMSCIS)
    _reserved1: None = reserved(1)
    length: int = u16(default=0x14)
    handle: int = u8("of the DSMAS")
    _reserved2: None = reserved(3)
    size: int = u64("bytes of the cache")
    attributes: CacheAttributes = word(CacheAttributes)


class DsisFlags(Register, width=8, spec="CDAT 1.03 Table 7"):
    """Flags of a DSIS."""

    memory_attached = bit(0, RO, "the handle is that of a DSMAS")


class Dsis(Record, size=0x08, spec="CDAT 1.03 §2.4, Table 7"):
    """Device Scoped Initiator Structure."""

    type: CdatType = u8(CdatType, default=CdatType.DSIS)
    _reserved1: None = reserved(1)
    length: int = u16(default=0x08)
    flags: DsisFlags = word(DsisFlags)
    handle: int = u8("of a DSMAS, or of the initiator alone")
    _reserved2: None = reserved(2)


class EfiMemoryType(enum.IntEnum):
    """EFI memory type and attribute (CDAT 1.03 Table 8)."""

    CONVENTIONAL = 0
    SPECIFIC_PURPOSE = 1
    RESERVED = 2


class Dsemts(Record, size=0x18, spec="CDAT 1.03 §2.5, Table 8"):
    """Device Scoped EFI Memory Type Structure."""

    type: CdatType = u8(CdatType, default=CdatType.DSEMTS)
    _reserved1: None = reserved(1)
    length: int = u16(default=0x18)
    handle: int = u8("of the DSMAS")
    memory_type: int = u8("an `EfiMemoryType`")
    _reserved2: None = reserved(2)
    dpa_offset: int = u64("from the start of the DSMAS range, in bytes")
    dpa_length: int = u64("in bytes")


SSLBIS_UPSTREAM_PORT: Final = 0x0100
SSLBIS_ANY_PORT: Final = 0xFFFF


class Sslbe(Record, size=0x08, spec="CDAT 1.03 Table 10"):
    """One entry of an SSLBIS: between two ports of a switch."""

    port_x: int = u16("a downstream port, or one of the two constants")
    port_y: int = u16("a downstream port, or one of the two constants")
    value: int = u16("latency or bandwidth in base units")
    _reserved: None = reserved(2)


class Sslbis(Record, size=0x10, spec="CDAT 1.03 §2.6, Table 9"):
    """Switch Scoped Latency and Bandwidth Information Structure. `length` is 10h and 8 for each entry."""

    type: CdatType = u8(CdatType, default=CdatType.SSLBIS)
    _reserved1: None = reserved(1)
    length: int = u16(default=0x10)
    data_type: int = u8("a `LatencyBandwidthType`")
    _reserved2: None = reserved(3)
    entry_base_unit: int = u64("a unit of the entries, in ps or MB/s")
    entries: list[Sslbe] = tail(Sslbe)


class ReadEntryRequest(Record, size=0x04, spec="CXL 3.1 §8.1.11.1, Table 8-13"):
    """CDAT Read Entry Request, the body of the data object."""

    request_code: int = u8("0: read entry")
    table_type: int = u8("0: CDAT")
    entry_handle: int = u16("0: the table's header, else as the response before said")


class ReadEntryResponse(Record, size=0x04, spec="CXL 3.1 §8.1.11.1, Table 8-14"):
    """CDAT Read Entry Response, the body of the data object."""

    response_code: int = u8("0: read entry")
    table_type: int = u8("0: CDAT")
    entry_handle: int = u16("of the next entry, FFFFh after the last")
    entry: bytes = tail("the entry, a whole number of dwords")
