"""Capabilities of the first 256 bytes of configuration space: power management, MSI, MSI-X.

Each is a block from its own offset 0. The header's `next_pointer` is the builder's to fill in.
"""

from __future__ import annotations

import enum

from softcxl.wire import RO, RW, RW1CS, RWS, Block, HwInit, Register, at, bit, bits


class CapabilityId(enum.IntEnum):
    """Capability IDs (PCI Code and ID Assignment Specification)."""

    NULL = 0x00
    POWER_MANAGEMENT = 0x01
    MSI = 0x05
    VENDOR_SPECIFIC = 0x09
    PCI_EXPRESS = 0x10
    MSIX = 0x11


class CapabilityHeader(Register, width=16, spec="PCIe 6.0 §7.9.1"):
    """The two bytes that begin every capability."""

    capability_id = bits(7, 0, RO, CapabilityId)
    next_pointer = bits(15, 8, HwInit, "configuration-space offset of the next capability, 0 in the last")


# -- power management --------------------------------------------------------------------------------------


class PowerState(enum.IntEnum):
    """Device power states (PCIe 6.0 §5.3.1)."""

    D0 = 0
    D1 = 1
    D2 = 2
    D3_HOT = 3


class PowerManagementHeader(CapabilityHeader, spec="PCIe 6.0 §7.5.2"):
    """Capability header of the Power Management capability."""

    capability_id = bits(7, 0, RO, CapabilityId, reset=CapabilityId.POWER_MANAGEMENT)


class PowerManagementCapabilities(Register, width=16, spec="PCIe 6.0 §7.5.2.1"):
    """Power Management Capabilities Register."""

    version = bits(2, 0, RO, "3: Power Management Interface Specification 1.2", reset=3)
    pme_clock = bit(3, RO, "no meaning in PCI Express")
    immediate_readiness_d0 = bit(4, RO, "ready right after a return to D0")
    device_specific_initialization = bit(5, RO)
    aux_current = bits(8, 6, RO)
    d1_support = bit(9, RO)
    d2_support = bit(10, RO)
    pme_support = bits(15, 11, RO, "one bit for each of D0, D1, D2, D3hot, D3cold that can signal PME")


class PowerManagementControlStatus(Register, width=16, spec="PCIe 6.0 §7.5.2.2"):
    """Power Management Control/Status Register."""

    power_state = bits(1, 0, RW, PowerState)
    no_soft_reset = bit(3, RO, "keeps its configuration from D3hot to D0", reset=True)
    pme_enable = bit(8, RWS)
    data_select = bits(12, 9, RO, "hardwired to zero: there is no Data register")
    data_scale = bits(14, 13, RO)
    pme_status = bit(15, RW1CS)


class PowerManagement(Block, size=0x08, spec="PCIe 6.0 §7.5.2"):
    """PCI Power Management Capability Structure."""

    header = at(0x00, PowerManagementHeader)
    capabilities = at(0x02, PowerManagementCapabilities)
    control_status = at(0x04, PowerManagementControlStatus)


# -- MSI ---------------------------------------------------------------------------------------------------


class MsiHeader(CapabilityHeader, spec="PCIe 6.0 §7.7.1"):
    """Capability header of the MSI capability."""

    capability_id = bits(7, 0, RO, CapabilityId, reset=CapabilityId.MSI)


class MsiControl(Register, width=16, spec="PCIe 6.0 §7.7.1.2"):
    """Message Control Register for MSI."""

    enable = bit(0, RW)
    multiple_message_capable = bits(3, 1, HwInit, "vectors asked for, as a power of two, at most 5")
    multiple_message_enable = bits(6, 4, RW, "vectors granted, as a power of two")
    address_64_capable = bit(7, RO, reset=True)
    per_vector_masking_capable = bit(8, HwInit, reset=True)
    extended_data_capable = bit(9, RO)
    extended_data_enable = bit(10, RO, "hardwired to zero: not capable")


class MessageAddressLow(Register, width=32, spec="PCIe 6.0 §7.7.1.3"):
    """Message Address Register."""

    address = bits(31, 2, RW, "bits 31:2 of the address written")


class MessageAddressHigh(Register, width=32, spec="PCIe 6.0 §7.7.1.4"):
    """Message Upper Address Register."""

    address = bits(31, 0, RW, "bits 63:32 of the address written")


class MsiData(Register, width=16, spec="PCIe 6.0 §7.7.1.5"):
    """Message Data Register for MSI."""

    value = bits(15, 0, RW, "data of vector 0; its low bits carry the vector's number")


class MsiMask(Register, width=32, spec="PCIe 6.0 §7.7.1.7"):
    """Mask Bits Register for MSI."""

    vectors = bits(31, 0, RW, "one bit a vector: may not be sent")


class MsiPending(Register, width=32, spec="PCIe 6.0 §7.7.1.8"):
    """Pending Bits Register for MSI."""

    vectors = bits(31, 0, RO, "one bit a vector: waits for its mask bit to clear")


class Msi(Block, size=0x18, spec="PCIe 6.0 §7.7.1"):
    """MSI Capability Structure, with 64-bit addresses and per-vector masking."""

    header = at(0x00, MsiHeader)
    control = at(0x02, MsiControl)
    address_low = at(0x04, MessageAddressLow)
    address_high = at(0x08, MessageAddressHigh)
    data = at(0x0C, MsiData)
    mask = at(0x10, MsiMask)
    pending = at(0x14, MsiPending)


# -- MSI-X -------------------------------------------------------------------------------------------------


class MsixHeader(CapabilityHeader, spec="PCIe 6.0 §7.7.2"):
    """Capability header of the MSI-X capability."""

    capability_id = bits(7, 0, RO, CapabilityId, reset=CapabilityId.MSIX)


class MsixControl(Register, width=16, spec="PCIe 6.0 §7.7.2.2"):
    """Message Control Register for MSI-X."""

    table_size = bits(10, 0, HwInit, "vectors, less one")
    function_mask = bit(14, RW, "all vectors are masked")
    enable = bit(15, RW)


class MsixTable(Register, width=32, spec="PCIe 6.0 §7.7.2.3"):
    """Table Offset / Table BIR Register for MSI-X."""

    bar = bits(2, 0, HwInit, "which BAR maps the table")
    offset = bits(31, 3, HwInit, "of the table in that BAR, in units of 8 bytes")


class MsixPending(Register, width=32, spec="PCIe 6.0 §7.7.2.4"):
    """PBA Offset / PBA BIR Register for MSI-X."""

    bar = bits(2, 0, HwInit, "which BAR maps the pending bit array")
    offset = bits(31, 3, HwInit, "of the array in that BAR, in units of 8 bytes")


class Msix(Block, size=0x0C, spec="PCIe 6.0 §7.7.2"):
    """MSI-X Capability Structure."""

    header = at(0x00, MsixHeader)
    control = at(0x02, MsixControl)
    table = at(0x04, MsixTable)
    pending = at(0x08, MsixPending)


class MsixData(Register, width=32, spec="PCIe 6.0 §7.7.2.7"):
    """Message Data Register of an MSI-X table entry."""

    value = bits(31, 0, RW)


class MsixVectorControl(Register, width=32, spec="PCIe 6.0 §7.7.2.8"):
    """Vector Control Register of an MSI-X table entry."""

    mask = bit(0, RW, "may not be sent", reset=True)


class MsixEntry(Block, size=0x10, spec="PCIe 6.0 §7.7.2"):
    """One entry of an MSI-X table, in memory that a BAR maps."""

    address_low = at(0x00, MessageAddressLow)
    address_high = at(0x04, MessageAddressHigh)
    data = at(0x08, MsixData)
    vector_control = at(0x0C, MsixVectorControl)
