"""The first 64 bytes of an endpoint's configuration space (header type 0)."""

from __future__ import annotations

import enum

from softcxl.wire import RO, RW, RW1C, Block, HwInit, Register, at, bit, bits

CONFIG_SPACE_SIZE = 4096
"""Bytes of configuration space of a PCI Express function (PCIe 6.0 §7.2)."""

BAR_COUNT = 6


class VendorId(Register, width=16, spec="PCIe 6.0 §7.5.1.1.1"):
    """Vendor ID Register."""

    value = bits(15, 0, HwInit, "manufacturer, assigned by PCI-SIG")


class DeviceId(Register, width=16, spec="PCIe 6.0 §7.5.1.1.2"):
    """Device ID Register."""

    value = bits(15, 0, HwInit, "device, assigned by its vendor")


class PciCommand(Register, width=16, spec="PCIe 6.0 §7.5.1.1.3"):
    """Command Register."""

    io_space_enable = bit(0, RO, "responds to I/O requests; hardwired to zero where no BAR is an I/O BAR")
    memory_space_enable = bit(1, RW, "responds to memory requests that its BARs claim")
    bus_master_enable = bit(2, RW, "may issue memory and I/O requests, interrupts by message among them")
    special_cycle_enable = bit(3, RO, "no meaning in PCI Express")
    memory_write_and_invalidate = bit(4, RO, "no meaning in PCI Express")
    vga_palette_snoop = bit(5, RO, "no meaning in PCI Express")
    parity_error_response = bit(6, RW, "poisoned requests are logged in Master Data Parity Error")
    idsel_stepping = bit(7, RO, "no meaning in PCI Express")
    serr_enable = bit(8, RW, "non-fatal and fatal errors are reported to the root complex")
    fast_back_to_back = bit(9, RO, "no meaning in PCI Express")
    interrupt_disable = bit(10, RW, "may not signal INTx")


class PciStatus(Register, width=16, spec="PCIe 6.0 §7.5.1.1.4"):
    """Status Register."""

    immediate_readiness = bit(0, RO, "ready for configuration requests right after reset")
    interrupt_status = bit(3, RO, "an INTx interrupt is pending")
    capabilities_list = bit(4, RO, "always set in PCI Express", reset=True)
    capable_66_mhz = bit(5, RO, "no meaning in PCI Express")
    fast_back_to_back_capable = bit(7, RO, "no meaning in PCI Express")
    master_data_parity_error = bit(8, RW1C)
    devsel_timing = bits(10, 9, RO, "no meaning in PCI Express")
    signaled_target_abort = bit(11, RW1C)
    received_target_abort = bit(12, RW1C)
    received_master_abort = bit(13, RW1C)
    signaled_system_error = bit(14, RW1C)
    detected_parity_error = bit(15, RW1C, "received a poisoned TLP, whatever Parity Error Response says")


class RevisionId(Register, width=8, spec="PCIe 6.0 §7.5.1.1.5"):
    """Revision ID Register."""

    value = bits(7, 0, HwInit, "revision, assigned by its vendor")


class ClassCode(Register, width=24, spec="PCIe 6.0 §7.5.1.1.6"):
    """Class Code Register. A CXL memory device is 05h, 02h, 10h (CXL 3.1 §8.1.12.1)."""

    programming_interface = bits(7, 0, HwInit)
    sub_class = bits(15, 8, HwInit)
    base_class = bits(23, 16, HwInit)


CLASS_CXL_MEMORY_DEVICE = 0x050210
"""Class code, sub-class and programming interface of a CXL memory device (CXL 3.1 §8.1.12.1)."""

CLASS_CXL_SWITCH_MAILBOX_CCI = 0x0C0B00
"""Class code, sub-class and programming interface of a switch's mailbox CCI function (CXL 3.1 §7.2.9)."""


class CacheLineSize(Register, width=8, spec="PCIe 6.0 §7.5.1.1.7"):
    """Cache Line Size Register: kept for old software, without effect."""

    value = bits(7, 0, RW, "in units of 4 bytes")


class LatencyTimer(Register, width=8, spec="PCIe 6.0 §7.5.1.1.8"):
    """Latency Timer Register: hardwired to zero in PCI Express."""

    value = bits(7, 0, RO)


class HeaderType(Register, width=8, spec="PCIe 6.0 §7.5.1.1.9"):
    """Header Type Register."""

    layout = bits(6, 0, RO, "0: endpoint, 1: bridge")
    multi_function = bit(7, HwInit, "the device may have more functions than this one")


class Bist(Register, width=8, spec="PCIe 6.0 §7.5.1.1.10"):
    """BIST Register, of a function without a built-in self-test."""

    completion_code = bits(3, 0, RO)
    start = bit(6, RO)
    capable = bit(7, RO)


class BaseAddress(Register, width=32, spec="PCIe 6.0 §7.5.1.2.1"):
    """Base Address Register as it lies in the header.

    Which bits take a write follows from the size of what the register maps, so the function that owns the
    header clears the rest after each write. `MemoryBar` names the fields of a low half.
    """

    value = bits(31, 0, RW)


class BarType(enum.IntEnum):
    """How wide an address a memory BAR takes (PCIe 6.0 Table 7-9)."""

    BITS_32 = 0
    BITS_64 = 2


class MemoryBar(Register, width=32, spec="PCIe 6.0 §7.5.1.2.1"):
    """What a Base Address Register that maps memory holds: a 32-bit one, or the low half of a 64-bit one."""

    io_space = bit(0, RO, "clear: memory")
    type = bits(2, 1, RO, BarType)
    prefetchable = bit(3, RO, "reads have no side effect")
    address = bits(31, 4, RW, "in units of 16 bytes")


class CardbusCis(Register, width=32, spec="PCIe 6.0 §7.5.1.2.2"):
    """Cardbus CIS Pointer: no meaning in PCI Express."""

    value = bits(31, 0, RO)


class SubsystemVendorId(Register, width=16, spec="PCIe 6.0 §7.5.1.2.3"):
    """Subsystem Vendor ID Register."""

    value = bits(15, 0, HwInit)


class SubsystemId(Register, width=16, spec="PCIe 6.0 §7.5.1.2.3"):
    """Subsystem ID Register."""

    value = bits(15, 0, HwInit)


class ExpansionRom(Register, width=32, spec="PCIe 6.0 §7.5.1.2.4"):
    """Expansion ROM Base Address Register, of a function without a ROM: hardwired to zero."""

    enable = bit(0, RO)
    validation_status = bits(3, 1, RO)
    validation_details = bits(7, 4, RO)
    address = bits(31, 11, RO, "in units of 2 KiB")


class CapabilitiesPointer(Register, width=8, spec="PCIe 6.0 §7.5.1.1.11"):
    """Capabilities Pointer: configuration-space offset of the first capability."""

    value = bits(7, 0, HwInit)


class InterruptLine(Register, width=8, spec="PCIe 6.0 §7.5.1.1.12"):
    """Interrupt Line Register: a note that system software leaves for its drivers."""

    value = bits(7, 0, RW)


class InterruptPin(Register, width=8, spec="PCIe 6.0 §7.5.1.1.13"):
    """Interrupt Pin Register."""

    value = bits(7, 0, HwInit, "0: no INTx, 1 to 4: INTA to INTD")


class MinimumGrant(Register, width=8, spec="PCIe 6.0 §7.5.1.2.5"):
    """Min_Gnt Register: hardwired to zero in PCI Express."""

    value = bits(7, 0, RO)


class MaximumLatency(Register, width=8, spec="PCIe 6.0 §7.5.1.2.5"):
    """Max_Lat Register: hardwired to zero in PCI Express."""

    value = bits(7, 0, RO)


class CommonHeader(Block, size=0x40, spec="PCIe 6.0 §7.5.1.1"):
    """What headers of both types have alike. BARs 0 and 1 are the only two of a bridge."""

    vendor_id = at(0x00, VendorId)
    device_id = at(0x02, DeviceId)
    command = at(0x04, PciCommand)
    status = at(0x06, PciStatus)
    revision_id = at(0x08, RevisionId)
    class_code = at(0x09, ClassCode)
    cache_line_size = at(0x0C, CacheLineSize)
    latency_timer = at(0x0D, LatencyTimer)
    header_type = at(0x0E, HeaderType)
    bist = at(0x0F, Bist)
    bar0 = at(0x10, BaseAddress)
    bar1 = at(0x14, BaseAddress)
    capabilities_pointer = at(0x34, CapabilitiesPointer)
    interrupt_line = at(0x3C, InterruptLine)
    interrupt_pin = at(0x3D, InterruptPin)


class Type0Header(CommonHeader, size=0x40, spec="PCIe 6.0 §7.5.1.2"):
    """Type 0 Configuration Space Header."""

    bar2 = at(0x18, BaseAddress)
    bar3 = at(0x1C, BaseAddress)
    bar4 = at(0x20, BaseAddress)
    bar5 = at(0x24, BaseAddress)
    cardbus_cis = at(0x28, CardbusCis)
    subsystem_vendor_id = at(0x2C, SubsystemVendorId)
    subsystem_id = at(0x2E, SubsystemId)
    expansion_rom = at(0x30, ExpansionRom)
    minimum_grant = at(0x3E, MinimumGrant)
    maximum_latency = at(0x3F, MaximumLatency)
