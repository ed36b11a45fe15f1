"""Data objects: what travels through a DOE mailbox, a dword at a time.

An object is a `DataObjectHeader` and the body that its vendor and type call for; those of Discovery are here.
"""

from __future__ import annotations

import enum

from softcxl.wire import Record, reserved, u8, u16, u32

VENDOR_PCI_SIG = 0x0001
"""Vendor ID of the data objects that the PCI-SIG defines (PCIe 6.0 §6.30.1)."""

MAX_DWORDS = 1 << 18
"""Longest data object, in dwords, its header included (PCIe 6.0 §6.30.1)."""


class DataObjectType(enum.IntEnum):
    """Data object types of the PCI-SIG (PCIe 6.0 Table 6-34)."""

    DISCOVERY = 0x00
    CMA_SPDM = 0x01
    SECURED_CMA_SPDM = 0x02


class DataObjectHeader(Record, size=0x08, spec="PCIe 6.0 §6.30.1"):
    """Data Object Header 1 and 2."""

    vendor_id: int = u16("who defines the type")
    object_type: int = u8()
    _reserved: None = reserved(1)
    length: int = u32("dwords, header included, in bits 17:0; 0 means 2^18")


class DiscoveryRequest(Record, size=0x04, spec="PCIe 6.0 §6.30.1.1"):
    """DOE Discovery, request body."""

    index: int = u8("which supported data object; 0 first")
    version: int = u8("of the capability, from revision 2 on")
    _reserved: None = reserved(2)


class DiscoveryResponse(Record, size=0x04, spec="PCIe 6.0 §6.30.1.1"):
    """DOE Discovery, response body."""

    vendor_id: int = u16("of the data object at that index; FFFFh past the last")
    object_type: int = u8()
    next_index: int = u8("0 after the last")
