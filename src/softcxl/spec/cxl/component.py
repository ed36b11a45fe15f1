"""CXL.cache and CXL.mem registers of a component: capability array, RAS, snoop filter, timeout and isolation, BI.

The link is in `softcxl.spec.cxl.link`, HDM decoders are in `softcxl.spec.cxl.hdm`, security and IDE in
`softcxl.spec.cxl.security`.
"""

from __future__ import annotations

import enum

from softcxl.wire import RO, ROS, RW, RW1CS, RWS, Block, HwInit, Register, at, bit, bits

COMPONENT_BLOCK_SIZE = 0x10000
"""Bytes of a component register block (CXL 3.1 §8.2.3)."""

CACHE_MEM_OFFSET = 0x1000
"""Where the CXL.cache and CXL.mem registers begin in it (CXL 3.1 Table 8-21)."""

CACHE_MEM_SIZE = 0x1000
"""Bytes of the CXL.cache and CXL.mem registers (CXL 3.1 Table 8-21)."""


class ComponentCapabilityId(enum.IntEnum):
    """Capability IDs of the CXL.cache and CXL.mem registers (CXL 3.1 Table 8-22)."""

    NULL = 0x0
    CXL = 0x1
    RAS = 0x2
    SECURITY = 0x3
    LINK = 0x4
    HDM_DECODER = 0x5
    EXTENDED_SECURITY = 0x6
    IDE = 0x7
    SNOOP_FILTER = 0x8
    TIMEOUT_ISOLATION = 0x9
    CACHE_MEM_EXTENDED = 0xA
    BI_ROUTE_TABLE = 0xB
    BI_DECODER = 0xC
    CACHE_ID_ROUTE_TABLE = 0xD
    CACHE_ID_DECODER = 0xE
    EXTENDED_HDM_DECODER = 0xF
    EXTENDED_METADATA = 0x10


class CxlCapabilityHeader(Register, width=32, spec="CXL 3.1 §8.2.4.1"):
    """CXL Capability Header Register, at the start of the CXL.cache and CXL.mem registers."""

    capability_id = bits(15, 0, RO, ComponentCapabilityId, reset=ComponentCapabilityId.CXL)
    version = bits(19, 16, RO, reset=1)
    cache_mem_version = bits(23, 20, RO, reset=1)
    array_size = bits(31, 24, HwInit, "capability headers that follow, null ones included")


class ComponentCapabilityHeader(Register, width=32, spec="CXL 3.1 §8.2.4.2"):
    """A capability's header in the array; §8.2.4.2 to §8.2.4.16 print one for each capability."""

    capability_id = bits(15, 0, HwInit, ComponentCapabilityId)
    version = bits(19, 16, HwInit)
    pointer = bits(31, 20, HwInit, "byte offset from the CXL Capability Header Register")


class CapabilityArray(Block, spec="CXL 3.1 §8.2.4.1"):
    """The head of the capability array; its `ComponentCapabilityEntry`s follow, 4 bytes each."""

    header = at(0x00, CxlCapabilityHeader)


class ComponentCapabilityEntry(Block, spec="CXL 3.1 §8.2.4.2"):
    """One entry of the capability array."""

    header = at(0x00, ComponentCapabilityHeader)


# -- RAS ---------------------------------------------------------------------------------------------------

RAS_VERSION = 3
"""Version of the RAS capability in CXL 3.1."""


class RasUncorrectableStatus(Register, width=32, spec="CXL 3.1 §8.2.4.17.1"):
    """Uncorrectable Error Status Register."""

    cache_data_parity = bit(0, RW1CS)
    cache_address_parity = bit(1, RW1CS)
    cache_be_parity = bit(2, RW1CS)
    cache_data_ecc = bit(3, RW1CS)
    mem_data_parity = bit(4, RW1CS)
    mem_address_parity = bit(5, RW1CS)
    mem_be_parity = bit(6, RW1CS)
    mem_data_ecc = bit(7, RW1CS)
    reinit_threshold = bit(8, RW1CS)
    reserved_encoding = bit(9, RW1CS)
    poison_received = bit(10, RW1CS)
    receiver_overflow = bit(11, RW1CS)
    internal = bit(14, RW1CS, "the header log says more, where the component defines it")
    ide_tx = bit(15, RW1CS)
    ide_rx = bit(16, RW1CS)


class RasUncorrectableMask(Register, width=32, spec="CXL 3.1 §8.2.4.17.2"):
    """Uncorrectable Error Mask Register: a one keeps the error from being signalled."""

    cache_data_parity = bit(0, RWS, reset=True)
    cache_address_parity = bit(1, RWS, reset=True)
    cache_be_parity = bit(2, RWS, reset=True)
    cache_data_ecc = bit(3, RWS, reset=True)
    mem_data_parity = bit(4, RWS, reset=True)
    mem_address_parity = bit(5, RWS, reset=True)
    mem_be_parity = bit(6, RWS, reset=True)
    mem_data_ecc = bit(7, RWS, reset=True)
    reinit_threshold = bit(8, RWS, reset=True)
    reserved_encoding = bit(9, RWS, reset=True)
    poison_received = bit(10, RWS, reset=True)
    receiver_overflow = bit(11, RWS, reset=True)
    internal = bit(14, RWS, reset=True)
    ide_tx = bit(15, RWS, reset=True)
    ide_rx = bit(16, RWS, reset=True)


class RasUncorrectableSeverity(Register, width=32, spec="CXL 3.1 §8.2.4.17.3"):
    """Uncorrectable Error Severity Register: a one makes the error fatal."""

    cache_data_parity = bit(0, RWS, reset=True)
    cache_address_parity = bit(1, RWS, reset=True)
    cache_be_parity = bit(2, RWS, reset=True)
    cache_data_ecc = bit(3, RWS, reset=True)
    mem_data_parity = bit(4, RWS, reset=True)
    mem_address_parity = bit(5, RWS, reset=True)
    mem_be_parity = bit(6, RWS, reset=True)
    mem_data_ecc = bit(7, RWS, reset=True)
    reinit_threshold = bit(8, RWS, reset=True)
    reserved_encoding = bit(9, RWS, reset=True)
    poison_received = bit(10, RWS, reset=True)
    receiver_overflow = bit(11, RWS, reset=True)
    internal = bit(14, RWS, reset=True)
    ide_tx = bit(15, RWS, reset=True)
    ide_rx = bit(16, RWS, reset=True)


class RasCorrectableStatus(Register, width=32, spec="CXL 3.1 §8.2.4.17.4"):
    """Correctable Error Status Register."""

    cache_data_ecc = bit(0, RW1CS)
    mem_data_ecc = bit(1, RW1CS)
    crc_threshold = bit(2, RW1CS)
    retry_threshold = bit(3, RW1CS)
    cache_poison_received = bit(4, RW1CS)
    mem_poison_received = bit(5, RW1CS)
    physical_layer = bit(6, RW1CS)


class RasCorrectableMask(Register, width=32, spec="CXL 3.1 §8.2.4.17.5"):
    """Correctable Error Mask Register: a one keeps the error from being signalled."""

    cache_data_ecc = bit(0, RWS, reset=True)
    mem_data_ecc = bit(1, RWS, reset=True)
    crc_threshold = bit(2, RWS, reset=True)
    retry_threshold = bit(3, RWS, reset=True)
    cache_poison_received = bit(4, RWS, reset=True)
    mem_poison_received = bit(5, RWS, reset=True)
    physical_layer = bit(6, RWS, reset=True)


class RasControl(Register, width=32, spec="CXL 3.1 §8.2.4.17.6"):
    """Error Capabilities and Control Register."""

    first_error_pointer = bits(5, 0, ROS, "bit number of the first error in Uncorrectable Error Status")
    multiple_header_recording_capable = bit(9, RO, "devices set it", reset=True)
    poison_enabled = bit(13, RO)


class RasHeaderLog(Register, width=512, spec="CXL 3.1 §8.2.4.17.7"):
    """Header Log Registers (18h to 57h): sixteen dwords about the first error."""

    value = bits(511, 0, ROS)


class Ras(Block, size=0x58, spec="CXL 3.1 §8.2.4.17"):
    """CXL RAS Capability Structure."""

    uncorrectable_status = at(0x00, RasUncorrectableStatus)
    uncorrectable_mask = at(0x04, RasUncorrectableMask)
    uncorrectable_severity = at(0x08, RasUncorrectableSeverity)
    correctable_status = at(0x0C, RasCorrectableStatus)
    correctable_mask = at(0x10, RasCorrectableMask)
    control = at(0x14, RasControl)
    header_log = at(0x18, RasHeaderLog)


# -- snoop filter ------------------------------------------------------------------------------------------

SNOOP_FILTER_VERSION = 1
"""Version of the Snoop Filter capability."""


class SnoopFilterGroupId(Register, width=32, spec="CXL 3.1 §8.2.4.23.1"):
    """Snoop Filter Group ID Register."""

    group_id = bits(15, 0, HwInit, "alike on all ports that share a snoop filter")


class SnoopFilterEffectiveSize(Register, width=32, spec="CXL 3.1 §8.2.4.23.2"):
    """Snoop Filter Effective Size Register."""

    capacity = bits(31, 0, HwInit, "cache that the group's filter can track, in multiples of 64 KiB")


class SnoopFilter(Block, spec="CXL 3.1 §8.2.4.23"):
    """CXL Snoop Filter Capability Structure, of a root port."""

    group_id = at(0x00, SnoopFilterGroupId)
    effective_size = at(0x04, SnoopFilterEffectiveSize)


# -- timeout and isolation ---------------------------------------------------------------------------------


class TimeoutCapability(Register, width=32, spec="CXL 3.1 §8.2.4.24.1"):
    """CXL Timeout and Isolation Capability Register."""

    mem_timeout_ranges = bits(3, 0, HwInit)
    mem_timeout_supported = bit(4, HwInit)
    cache_timeout_ranges = bits(11, 8, HwInit)
    cache_timeout_supported = bit(12, HwInit)
    mem_isolation_supported = bit(16, HwInit)
    mem_isolation_link_down_supported = bit(17, HwInit)
    cache_isolation_supported = bit(18, HwInit)
    cache_isolation_link_down_supported = bit(19, HwInit)
    err_cor_signaling_supported = bit(25, HwInit)
    interrupt_supported = bit(26, HwInit)
    interrupt_message_number = bits(31, 27, RO)


class TimeoutControl(Register, width=32, spec="CXL 3.1 §8.2.4.24.2"):
    """CXL Timeout and Isolation Control Register."""

    mem_timeout_value = bits(3, 0, RW, "0: default; 1, 2: halves of range A; 5, 6: of B; 9, 10: of C")
    mem_timeout_enable = bit(4, RW)
    cache_timeout_value = bits(11, 8, RW)
    cache_timeout_enable = bit(12, RW)
    mem_isolation_enable = bit(16, RW)
    mem_isolation_link_down_enable = bit(17, RW)
    cache_isolation_enable = bit(18, RW)
    cache_isolation_link_down_enable = bit(19, RW)
    err_cor_signaling_enable = bit(25, RW)
    interrupt_enable = bit(26, RW)


class TimeoutStatus(Register, width=32, spec="CXL 3.1 §8.2.4.24.3"):
    """CXL Timeout and Isolation Status Register."""

    mem_timeout = bit(0, RW1CS)
    cache_timeout = bit(4, RW1CS)
    mem_isolation = bit(8, RW1CS)
    mem_isolation_link_down = bit(9, RW1CS)
    cache_isolation = bit(12, RW1CS)
    cache_isolation_link_down = bit(13, RW1CS)
    root_port_busy = bit(14, RO, "transactions are still outstanding after isolation")


class TimeoutIsolation(Block, size=0x10, spec="CXL 3.1 §8.2.4.24"):
    """CXL Timeout and Isolation Capability Structure, of a root port."""

    capability = at(0x00, TimeoutCapability)
    control = at(0x08, TimeoutControl)
    status = at(0x0C, TimeoutStatus)


# -- back-invalidate ---------------------------------------------------------------------------------------


class BiRouteTableCapability(Register, width=32, spec="CXL 3.1 §8.2.4.26.1"):
    """CXL BI RT Capability Register."""

    explicit_commit = bit(0, HwInit, "changes need a commit")


class BiRouteTableControl(Register, width=32, spec="CXL 3.1 §8.2.4.26.2"):
    """CXL BI RT Control Register."""

    commit = bit(0, RW)


class BiStatus(Register, width=32, spec="CXL 3.1 §8.2.4.26.3"):
    """CXL BI RT Status Register and, alike, CXL BI Decoder Status Register (§8.2.4.27.3)."""

    committed = bit(0, RO)
    error_not_committed = bit(1, RO)
    commit_timeout_scale = bits(11, 8, HwInit, "0: 1 µs, each step ten times more, up to 7: 10 s")
    commit_timeout_base = bits(15, 12, HwInit, "multiplied by the scale")


class BiRouteTable(Block, size=0x0C, spec="CXL 3.1 §8.2.4.26"):
    """CXL BI Route Table Capability Structure, of a switch's upstream port."""

    capability = at(0x00, BiRouteTableCapability)
    control = at(0x04, BiRouteTableControl)
    status = at(0x08, BiStatus)


class BiDecoderCapability(Register, width=32, spec="CXL 3.1 §8.2.4.27.1"):
    """CXL BI Decoder Capability Register."""

    hdm_d_capable = bit(0, HwInit)
    explicit_commit = bit(1, HwInit, "changes need a commit")


class BiDecoderControl(Register, width=32, spec="CXL 3.1 §8.2.4.27.2"):
    """CXL BI Decoder Control Register."""

    bi_forward = bit(0, RW)
    bi_enable = bit(1, RW)
    commit = bit(2, RW)


class BiDecoder(Block, size=0x0C, spec="CXL 3.1 §8.2.4.27"):
    """CXL BI Decoder Capability Structure."""

    capability = at(0x00, BiDecoderCapability)
    control = at(0x04, BiDecoderControl)
    status = at(0x08, BiStatus)
