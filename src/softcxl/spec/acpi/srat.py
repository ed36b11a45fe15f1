"""The System Resource Affinity Table: which processors, memory and generic ports are near each other.

Structures are records with their type and length filled in.
"""

from __future__ import annotations

import enum

from softcxl.spec.acpi.sdt import SdtHeader
from softcxl.wire import (
    RO,
    Record,
    Register,
    ascii,  # noqa: A004
    bit,
    nested,
    reserved,
    tail,
    u8,
    u24,
    u32,
    u64,
    word,
)


class Srat(Record, size=0x30, spec="ACPI 6.5 §5.2.16"):
    """System Resource Affinity Table."""

    header: SdtHeader = nested(SdtHeader)
    table_revision: int = u32("always 1", default=1)
    _reserved: None = reserved(8)
    structures: bytes = tail("affinity structures, one after another")


class SratType(enum.IntEnum):
    """Affinity structures (ACPI 6.5 §5.2.16)."""

    PROCESSOR = 0
    MEMORY = 1
    GENERIC_PORT = 6


class AffinityFlags(Register, width=32, spec="ACPI 6.5 §5.2.16.1"):
    """Flags of a processor or a generic port."""

    enabled = bit(0, RO, "the structure counts")


class MemoryAffinityFlags(Register, width=32, spec="ACPI 6.5 §5.2.16.2"):
    """Flags of a range of memory."""

    enabled = bit(0, RO, "the structure counts")
    hot_pluggable = bit(1, RO)
    non_volatile = bit(2, RO)


class ProcessorAffinity(Record, size=0x10, spec="ACPI 6.5 §5.2.16.1"):
    """Processor Local APIC Affinity Structure."""

    type: SratType = u8(SratType, default=SratType.PROCESSOR)
    length: int = u8(default=0x10)
    domain_low: int = u8("bits 7:0 of the proximity domain")
    apic_id: int = u8()
    flags: AffinityFlags = word(AffinityFlags)
    sapic_eid: int = u8()
    domain_high: int = u24("bits 31:8 of the proximity domain")
    clock_domain: int = u32()


class MemoryAffinity(Record, size=0x28, spec="ACPI 6.5 §5.2.16.2"):
    """Memory Affinity Structure."""

    type: SratType = u8(SratType, default=SratType.MEMORY)
    length: int = u8(default=0x28)
    domain: int = u32("proximity domain")
    _reserved1: None = reserved(2)
    base: int = u64("in bytes")
    size: int = u64("in bytes")
    _reserved2: None = reserved(4)
    flags: MemoryAffinityFlags = word(MemoryAffinityFlags)
    _reserved3: None = reserved(8)


class GenericPortAffinity(Record, size=0x20, spec="ACPI 6.5 §5.2.16.7"):
    """Generic Port Affinity Structure of a port that ACPI names, as it does a CXL host bridge."""

    type: SratType = u8(SratType, default=SratType.GENERIC_PORT)
    length: int = u8(default=0x20)
    _reserved1: None = reserved(1)
    handle_type: int = u8("0: the handle is ACPI's, 1: PCI's")
    domain: int = u32("proximity domain")
    hid: str = ascii(8, "_HID of the port")
    uid: int = u32("_UID of the port")
    _reserved2: None = reserved(4)
    flags: AffinityFlags = word(AffinityFlags)
    _reserved3: None = reserved(4)
