"""The memory-mapped configuration table: where PCI Express configuration space is in host addresses (ECAM)."""

from __future__ import annotations

from softcxl.spec.acpi.sdt import SdtHeader
from softcxl.wire import Record, nested, reserved, tail, u8, u16, u64


class McfgAllocation(Record, size=0x10, spec="PCI Firmware 3.3 §4.1.2"):
    """Configuration Space Base Address Allocation Structure: the ECAM of a range of buses."""

    base: int = u64("host physical address at which bus 0 of the segment is, or would be")
    segment: int = u16("PCI segment group")
    start_bus: int = u8()
    end_bus: int = u8("the last one, included")
    _reserved: None = reserved(4)


class Mcfg(Record, size=0x2C, spec="PCI Firmware 3.3 §4.1.2"):
    """PCI Express Memory Mapped Configuration Space Base Address Description Table."""

    header: SdtHeader = nested(SdtHeader)
    _reserved: None = reserved(8)
    allocations: list[McfgAllocation] = tail(McfgAllocation)
