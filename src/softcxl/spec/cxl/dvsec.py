"""CXL DVSECs: the CXL capabilities of a function, in its extended configuration space (CXL 3.1 §8.1).

Each is a block from its own offset 0, as an extended capability is.
"""

from __future__ import annotations

import enum

from softcxl.spec.pci.extended import DvsecHeader, DvsecHeader1, DvsecHeader2
from softcxl.wire import RO, RW, RW1CS, RWL, RWO, RWS, Block, HwInit, Register, at, bit, bits

VENDOR_CXL = 0x1E98
"""Vendor ID of the CXL Consortium: its DVSECs and its data objects (CXL 3.1 §8.1.1)."""


class DvsecId(enum.IntEnum):
    """DVSEC IDs of the CXL Consortium (CXL 3.1 Table 8-2)."""

    DEVICE = 0x0
    NON_CXL_FUNCTION_MAP = 0x2
    PORT_EXTENSIONS = 0x3
    PORT_GPF = 0x4
    DEVICE_GPF = 0x5
    FLEX_BUS_PORT = 0x7
    REGISTER_LOCATOR = 0x8
    MLD = 0x9
    TEST_CAPABILITY = 0xA


# -- 0: device ---------------------------------------------------------------------------------------------


class DeviceHeader1(DvsecHeader1, spec="CXL 3.1 §8.1.3"):
    """Header 1 of the DVSEC for CXL devices."""

    vendor_id = bits(15, 0, RO, reset=VENDOR_CXL)
    revision = bits(19, 16, RO, reset=3)
    length = bits(31, 20, RO, reset=0x3C)


class DeviceHeader2(DvsecHeader2, spec="CXL 3.1 §8.1.3"):
    """Header 2 of the DVSEC for CXL devices."""

    dvsec_id = bits(15, 0, RO, reset=DvsecId.DEVICE)


class ResetTimeout(enum.IntEnum):
    """How long a CXL Reset may take (CXL 3.1 §8.1.3.1)."""

    MS_10 = 0
    MS_100 = 1
    S_1 = 2
    S_10 = 3
    S_100 = 4


class CxlCapability(Register, width=16, spec="CXL 3.1 §8.1.3.1"):
    """DVSEC CXL Capability (0Ah)."""

    cache_capable = bit(0, HwInit)
    io_capable = bit(1, RO, "always set", reset=True)
    mem_capable = bit(2, HwInit)
    mem_hw_init_mode = bit(3, HwInit, "memory becomes active without software's help")
    hdm_count = bits(5, 4, HwInit, "range registers in use, 1 or 2; 0 without memory")
    cache_writeback_invalidate_capable = bit(6, HwInit)
    reset_capable = bit(7, HwInit, "answers CXL Reset")
    reset_timeout = bits(10, 8, HwInit, ResetTimeout)
    reset_mem_clear_capable = bit(11, HwInit, "can clear volatile memory in a CXL Reset")
    tsp_capable = bit(12, HwInit)
    multiple_logical_device = bit(13, HwInit)
    viral_capable = bit(14, HwInit)
    pm_init_reporting_capable = bit(15, HwInit)


class CxlControl(Register, width=16, spec="CXL 3.1 §8.1.3.2"):
    """DVSEC CXL Control (0Ch). The device locks it when CONFIG_LOCK is set."""

    cache_enable = bit(0, RWL)
    io_enable = bit(1, RO, "always set", reset=True)
    mem_enable = bit(2, RWL)
    cache_sf_coverage = bits(7, 3, RWL)
    cache_sf_granularity = bits(10, 8, RWL)
    cache_clean_eviction = bit(11, RWL)
    direct_p2p_mem_enable = bit(12, RWL)
    viral_enable = bit(14, RWL)


class CxlStatus(Register, width=16, spec="CXL 3.1 §8.1.3.3"):
    """DVSEC CXL Status (0Eh)."""

    viral = bit(14, RW1CS, "the device has entered viral containment")


class CxlControl2(Register, width=16, spec="CXL 3.1 §8.1.3.4"):
    """DVSEC CXL Control2 (10h)."""

    disable_caching = bit(0, RW)
    initiate_cache_writeback = bit(1, RW, "a one starts write-back and invalidation; reads as zero")
    initiate_reset = bit(2, RW, "a one starts a CXL Reset; reads as zero")
    reset_mem_clear_enable = bit(3, RW)
    desired_volatile_state = bit(4, RWS, "after a hot reset; set: kept")
    modified_completion_enable = bit(5, RW)


class CxlStatus2(Register, width=16, spec="CXL 3.1 §8.1.3.5"):
    """DVSEC CXL Status2 (12h)."""

    cache_invalid = bit(0, RO)
    reset_complete = bit(1, RO)
    reset_error = bit(2, RO)
    volatile_preservation_error = bit(3, RW1CS)
    pm_init_complete = bit(15, RO)


class CxlLock(Register, width=16, spec="CXL 3.1 §8.1.3.6"):
    """DVSEC CXL Lock (14h)."""

    config_lock = bit(0, RWO, "RWL registers of this DVSEC turn read-only until the next conventional reset")


class CacheSizeUnit(enum.IntEnum):
    """Unit of the cache size (CXL 3.1 §8.1.3.7)."""

    NOT_REPORTED = 0
    KIB_64 = 1
    MIB_1 = 2


class CxlCapability2(Register, width=16, spec="CXL 3.1 §8.1.3.7"):
    """DVSEC CXL Capability2 (16h)."""

    cache_size_unit = bits(3, 0, HwInit, CacheSizeUnit)
    fallback_capability = bits(5, 4, HwInit)
    modified_completion_capable = bit(6, HwInit)
    no_clean_writeback = bit(7, HwInit)
    cache_size = bits(15, 8, HwInit, "in units of `cache_size_unit`")


class RangeSizeHigh(Register, width=32, spec="CXL 3.1 §8.1.3.8.1"):
    """DVSEC CXL Range Size High (18h, 28h)."""

    memory_size_high = bits(31, 0, HwInit, "bits 63:32 of the size in bytes")


class MediaType(enum.IntEnum):
    """Media type and class of a range (CXL 3.1 §8.1.3.8.2)."""

    VOLATILE = 0
    NON_VOLATILE = 1
    CDAT = 2


class MemoryClass(enum.IntEnum):
    """Class of a range's memory (CXL 3.1 §8.1.3.8.2)."""

    MEMORY = 0
    STORAGE = 1
    CDAT = 2


class ActiveTimeout(enum.IntEnum):
    """How long memory may take to turn active after a reset (CXL 3.1 §8.1.3.8.2)."""

    S_1 = 0
    S_4 = 1
    S_16 = 2
    S_64 = 3
    S_256 = 4


class RangeSizeLow(Register, width=32, spec="CXL 3.1 §8.1.3.8.2"):
    """DVSEC CXL Range Size Low (1Ch, 2Ch)."""

    memory_info_valid = bit(0, RO, "the size registers hold")
    memory_active = bit(1, RO, "memory is ready")
    media_type = bits(4, 2, HwInit, MediaType)
    memory_class = bits(7, 5, HwInit, MemoryClass)
    desired_interleave = bits(12, 8, HwInit, "0: none, 1: 256 B, 2: 4 KiB, 3 to 7: 512 B, 1, 2, 8, 16 KiB")
    memory_active_timeout = bits(15, 13, HwInit, ActiveTimeout)
    memory_active_degraded = bit(16, RO)
    memory_size_low = bits(31, 28, HwInit, "bits 31:28 of the size in bytes")


class RangeBaseHigh(Register, width=32, spec="CXL 3.1 §8.1.3.8.3"):
    """DVSEC CXL Range Base High (20h, 30h)."""

    memory_base_high = bits(31, 0, RWL, "bits 63:32 of the host physical address")


class RangeBaseLow(Register, width=32, spec="CXL 3.1 §8.1.3.8.4"):
    """DVSEC CXL Range Base Low (24h, 34h)."""

    memory_base_low = bits(31, 28, RWL, "bits 31:28 of the host physical address")


class CxlCapability3(Register, width=16, spec="CXL 3.1 §8.1.3.9"):
    """DVSEC CXL Capability3 (38h): whether volatile memory lives through resets."""

    default_volatile_state_cold = bit(0, HwInit)
    default_volatile_state_warm = bit(1, HwInit)
    default_volatile_state_hot = bit(2, HwInit)
    volatile_state_configurable = bit(3, HwInit, "Control2 chooses for hot resets")
    direct_p2p_mem_capable = bit(4, HwInit)


class DeviceDvsec(Block, size=0x3C, spec="CXL 3.1 §8.1.3"):
    """PCIe DVSEC for CXL Devices (DVSEC ID 0)."""

    header = at(0x00, DvsecHeader)
    header1 = at(0x04, DeviceHeader1)
    header2 = at(0x08, DeviceHeader2)
    capability = at(0x0A, CxlCapability)
    control = at(0x0C, CxlControl)
    status = at(0x0E, CxlStatus)
    control2 = at(0x10, CxlControl2)
    status2 = at(0x12, CxlStatus2)
    lock = at(0x14, CxlLock)
    capability2 = at(0x16, CxlCapability2)
    range1_size_high = at(0x18, RangeSizeHigh)
    range1_size_low = at(0x1C, RangeSizeLow)
    range1_base_high = at(0x20, RangeBaseHigh)
    range1_base_low = at(0x24, RangeBaseLow)
    range2_size_high = at(0x28, RangeSizeHigh)
    range2_size_low = at(0x2C, RangeSizeLow)
    range2_base_high = at(0x30, RangeBaseHigh)
    range2_base_low = at(0x34, RangeBaseLow)
    capability3 = at(0x38, CxlCapability3)


# -- 5: GPF of a device ------------------------------------------------------------------------------------


class TimeScale(enum.IntEnum):
    """Scale of a GPF time (CXL 3.1 §8.1.6, §8.1.7)."""

    US_1 = 0
    US_10 = 1
    US_100 = 2
    MS_1 = 3
    MS_10 = 4
    MS_100 = 5
    S_1 = 6
    S_10 = 7


class DeviceGpfHeader1(DvsecHeader1, spec="CXL 3.1 §8.1.7"):
    """Header 1 of the GPF DVSEC for CXL devices."""

    vendor_id = bits(15, 0, RO, reset=VENDOR_CXL)
    revision = bits(19, 16, RO, reset=0)
    length = bits(31, 20, RO, reset=0x10)


class DeviceGpfHeader2(DvsecHeader2, spec="CXL 3.1 §8.1.7"):
    """Header 2 of the GPF DVSEC for CXL devices."""

    dvsec_id = bits(15, 0, RO, reset=DvsecId.DEVICE_GPF)


class GpfPhase2Duration(Register, width=16, spec="CXL 3.1 §8.1.7.1"):
    """GPF Phase 2 Duration (0Ah): the longest the device takes to save its data."""

    time_base = bits(3, 0, HwInit, "multiplied by the scale")
    time_scale = bits(11, 8, HwInit, TimeScale)


class GpfPhase2Power(Register, width=32, spec="CXL 3.1 §8.1.7.2"):
    """GPF Phase 2 Power (0Ch)."""

    active_power = bits(31, 0, HwInit, "drawn while data is saved, in mW")


class DeviceGpfDvsec(Block, size=0x10, spec="CXL 3.1 §8.1.7"):
    """GPF DVSEC for CXL Device (DVSEC ID 5)."""

    header = at(0x00, DvsecHeader)
    header1 = at(0x04, DeviceGpfHeader1)
    header2 = at(0x08, DeviceGpfHeader2)
    phase2_duration = at(0x0A, GpfPhase2Duration)
    phase2_power = at(0x0C, GpfPhase2Power)


# -- 8: register locator -----------------------------------------------------------------------------------


class RegisterLocatorHeader1(DvsecHeader1, spec="CXL 3.1 §8.1.9"):
    """Header 1 of the Register Locator DVSEC, with three entries."""

    vendor_id = bits(15, 0, RO, reset=VENDOR_CXL)
    revision = bits(19, 16, RO, reset=0)
    length = bits(31, 20, HwInit, "0Ch and 8 for each entry", reset=0x24)


class RegisterLocatorHeader2(DvsecHeader2, spec="CXL 3.1 §8.1.9"):
    """Header 2 of the Register Locator DVSEC."""

    dvsec_id = bits(15, 0, RO, reset=DvsecId.REGISTER_LOCATOR)


class RegisterBlockId(enum.IntEnum):
    """What a register block holds (CXL 3.1 §8.1.9.1)."""

    EMPTY = 0x00
    COMPONENT = 0x01
    BAR_VIRTUALIZATION_ACL = 0x02
    DEVICE = 0x03
    CPMU = 0x04
    VENDOR = 0xFF


REGISTER_BLOCK_ALIGNMENT = 0x10000
"""A register block's offset in its BAR is a multiple of this (CXL 3.1 §8.1.9.1)."""


class RegisterBlockOffsetLow(Register, width=32, spec="CXL 3.1 §8.1.9.1"):
    """Register Offset Low of an entry."""

    bar = bits(2, 0, HwInit, "which BAR maps the block")
    block_id = bits(15, 8, HwInit, RegisterBlockId)
    offset_low = bits(31, 16, HwInit, "bits 31:16 of the block's offset in that BAR")


class RegisterBlockOffsetHigh(Register, width=32, spec="CXL 3.1 §8.1.9.2"):
    """Register Offset High of an entry."""

    offset_high = bits(31, 0, HwInit, "bits 63:32 of the block's offset in its BAR")


class RegisterLocatorDvsec(Block, size=0x24, spec="CXL 3.1 §8.1.9"):
    """Register Locator DVSEC (DVSEC ID 8) with three entries; those not needed stay `EMPTY`."""

    header = at(0x00, DvsecHeader)
    header1 = at(0x04, RegisterLocatorHeader1)
    header2 = at(0x08, RegisterLocatorHeader2)
    block1_low = at(0x0C, RegisterBlockOffsetLow)
    block1_high = at(0x10, RegisterBlockOffsetHigh)
    block2_low = at(0x14, RegisterBlockOffsetLow)
    block2_high = at(0x18, RegisterBlockOffsetHigh)
    block3_low = at(0x1C, RegisterBlockOffsetLow)
    block3_high = at(0x20, RegisterBlockOffsetHigh)
