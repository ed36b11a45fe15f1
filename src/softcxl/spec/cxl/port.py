"""CXL DVSECs of links, ports and multi-logical devices: the rest of CXL 3.1 §8.1."""

from __future__ import annotations

from softcxl.spec.cxl.dvsec import VENDOR_CXL, DvsecId, TimeScale
from softcxl.spec.pci.extended import DvsecHeader, DvsecHeader1, DvsecHeader2
from softcxl.wire import RO, RW, RW1CS, Block, HwInit, Register, at, bit, bits

# -- 2: functions without CXL ------------------------------------------------------------------------------


class FunctionMapHeader1(DvsecHeader1, spec="CXL 3.1 §8.1.4"):
    """Header 1 of the Non-CXL Function Map DVSEC."""

    vendor_id = bits(15, 0, RO, reset=VENDOR_CXL)
    revision = bits(19, 16, RO, reset=0)
    length = bits(31, 20, RO, reset=0x2C)


class FunctionMapHeader2(DvsecHeader2, spec="CXL 3.1 §8.1.4"):
    """Header 2 of the Non-CXL Function Map DVSEC."""

    dvsec_id = bits(15, 0, RO, reset=DvsecId.NON_CXL_FUNCTION_MAP)


class FunctionMap(Register, width=256, spec="CXL 3.1 §8.1.4"):
    """Non-CXL Function Map Registers 0 to 7 (0Ch to 2Bh)."""

    functions = bits(255, 0, HwInit, "bit 32 r + b: register r, bit b; a one: takes no part in CXL")


class NonCxlFunctionMapDvsec(Block, size=0x2C, spec="CXL 3.1 §8.1.4"):
    """Non-CXL Function Map DVSEC (DVSEC ID 2)."""

    header = at(0x00, DvsecHeader)
    header1 = at(0x04, FunctionMapHeader1)
    header2 = at(0x08, FunctionMapHeader2)
    map = at(0x0C, FunctionMap)


# -- 3: extensions for ports -------------------------------------------------------------------------------


class PortExtensionsHeader1(DvsecHeader1, spec="CXL 3.1 §8.1.5"):
    """Header 1 of the CXL Extensions DVSEC for Ports."""

    vendor_id = bits(15, 0, RO, reset=VENDOR_CXL)
    revision = bits(19, 16, RO, reset=0)
    length = bits(31, 20, RO, reset=0x28)


class PortExtensionsHeader2(DvsecHeader2, spec="CXL 3.1 §8.1.5"):
    """Header 2 of the CXL Extensions DVSEC for Ports."""

    dvsec_id = bits(15, 0, RO, reset=DvsecId.PORT_EXTENSIONS)


class PortExtensionStatus(Register, width=16, spec="CXL 3.1 §8.1.5.1"):
    """CXL Port Extension Status (0Ah)."""

    pm_init_complete = bit(0, RO)
    viral = bit(14, RW1CS)


class PortExtensionControl(Register, width=16, spec="CXL 3.1 §8.1.5.2"):
    """Port Control Extensions (0Ch)."""

    unmask_sbr = bit(0, RW, "Secondary Bus Reset works although the link runs CXL")
    unmask_link_disable = bit(1, RW, "Link Disable works although the link runs CXL")
    alternate_memory_id_enable = bit(2, RW)
    alternate_bus_master_enable = bit(3, RW)
    uio_to_hdm_enable = bit(4, RW)
    viral_enable = bit(14, RW)


class AlternateBusNumber(Register, width=8, spec="CXL 3.1 §8.1.5.3"):
    """Alternate Bus Base (0Eh) or Limit (0Fh)."""

    number = bits(7, 0, RW)


class AlternateMemoryBound(Register, width=16, spec="CXL 3.1 §8.1.5.5"):
    """Alternate (Prefetchable) Memory Base or Limit (10h to 17h)."""

    address = bits(15, 4, RW, "bits 31:20 of the address")


class AlternatePrefetchableHigh(Register, width=32, spec="CXL 3.1 §8.1.5.9"):
    """Alternate Memory Prefetchable Base High (18h) or Limit High (1Ch)."""

    address = bits(31, 0, RW, "bits 63:32 of the address")


class RcrbBase(Register, width=32, spec="CXL 3.1 §8.1.5.11"):
    """CXL RCRB Base (20h)."""

    enable = bit(0, RW)
    address_low = bits(31, 13, RW, "bits 31:13 of the address")


class RcrbBaseHigh(Register, width=32, spec="CXL 3.1 §8.1.5.12"):
    """CXL RCRB Base High (24h)."""

    address_high = bits(31, 0, RW, "bits 63:32 of the address")


class PortExtensionsDvsec(Block, size=0x28, spec="CXL 3.1 §8.1.5"):
    """CXL Extensions DVSEC for Ports (DVSEC ID 3)."""

    header = at(0x00, DvsecHeader)
    header1 = at(0x04, PortExtensionsHeader1)
    header2 = at(0x08, PortExtensionsHeader2)
    status = at(0x0A, PortExtensionStatus)
    control = at(0x0C, PortExtensionControl)
    alternate_bus_base = at(0x0E, AlternateBusNumber)
    alternate_bus_limit = at(0x0F, AlternateBusNumber)
    alternate_memory_base = at(0x10, AlternateMemoryBound)
    alternate_memory_limit = at(0x12, AlternateMemoryBound)
    alternate_prefetchable_base = at(0x14, AlternateMemoryBound)
    alternate_prefetchable_limit = at(0x16, AlternateMemoryBound)
    alternate_prefetchable_base_high = at(0x18, AlternatePrefetchableHigh)
    alternate_prefetchable_limit_high = at(0x1C, AlternatePrefetchableHigh)
    rcrb_base = at(0x20, RcrbBase)
    rcrb_base_high = at(0x24, RcrbBaseHigh)


# -- 4: GPF of a port --------------------------------------------------------------------------------------


class PortGpfHeader1(DvsecHeader1, spec="CXL 3.1 §8.1.6"):
    """Header 1 of the GPF DVSEC for CXL ports."""

    vendor_id = bits(15, 0, RO, reset=VENDOR_CXL)
    revision = bits(19, 16, RO, reset=0)
    length = bits(31, 20, RO, reset=0x10)


class PortGpfHeader2(DvsecHeader2, spec="CXL 3.1 §8.1.6"):
    """Header 2 of the GPF DVSEC for CXL ports."""

    dvsec_id = bits(15, 0, RO, reset=DvsecId.PORT_GPF)


class GpfPhaseControl(Register, width=16, spec="CXL 3.1 §8.1.6.1"):
    """GPF Phase 1 Control (0Ch) or Phase 2 Control (0Eh)."""

    timeout_base = bits(3, 0, RW, "multiplied by the scale")
    timeout_scale = bits(11, 8, RW, TimeScale)


class PortGpfDvsec(Block, size=0x10, spec="CXL 3.1 §8.1.6"):
    """GPF DVSEC for CXL Port (DVSEC ID 4)."""

    header = at(0x00, DvsecHeader)
    header1 = at(0x04, PortGpfHeader1)
    header2 = at(0x08, PortGpfHeader2)
    phase1_control = at(0x0C, GpfPhaseControl)
    phase2_control = at(0x0E, GpfPhaseControl)


# -- 7: flex bus port --------------------------------------------------------------------------------------


class FlexBusHeader1(DvsecHeader1, spec="CXL 3.1 §8.2.1.3"):
    """Header 1 of the Flex Bus Port DVSEC."""

    vendor_id = bits(15, 0, RO, reset=VENDOR_CXL)
    revision = bits(19, 16, RO, reset=2)
    length = bits(31, 20, RO, reset=0x20)


class FlexBusHeader2(DvsecHeader2, spec="CXL 3.1 §8.2.1.3"):
    """Header 2 of the Flex Bus Port DVSEC."""

    dvsec_id = bits(15, 0, RO, reset=DvsecId.FLEX_BUS_PORT)


class FlexBusCapability(Register, width=16, spec="CXL 3.1 §8.2.1.3.1"):
    """DVSEC Flex Bus Port Capability (0Ah)."""

    cache_capable = bit(0, HwInit)
    io_capable = bit(1, RO, "always set", reset=True)
    mem_capable = bit(2, HwInit)
    flit_68b_vh_capable = bit(5, HwInit)
    multi_logical_device_capable = bit(6, HwInit)
    latency_optimized_256b_flit_capable = bit(13, HwInit)
    pbr_flit_capable = bit(14, HwInit)


class FlexBusControl(Register, width=16, spec="CXL 3.1 §8.2.1.3.2"):
    """DVSEC Flex Bus Port Control (0Ch), of an upstream port: read-only there."""

    cache_enable = bit(0, RO)
    io_enable = bit(1, RO, "always set", reset=True)
    mem_enable = bit(2, RO)
    sync_header_bypass_enable = bit(3, RO)
    drift_buffer_enable = bit(4, RO)
    flit_68b_vh_enable = bit(5, RO)
    multi_logical_device_enable = bit(6, RO)
    disable_rcd_training = bit(7, RO)
    retimer1_present = bit(8, RO)
    retimer2_present = bit(9, RO)
    latency_optimized_256b_flit_enable = bit(13, RO)
    pbr_flit_enable = bit(14, RO)


class FlexBusStatus(Register, width=16, spec="CXL 3.1 §8.2.1.3.3"):
    """DVSEC Flex Bus Port Status (0Eh): what the link was trained to."""

    cache_enabled = bit(0, RO)
    io_enabled = bit(1, RO)
    mem_enabled = bit(2, RO)
    sync_header_bypass_enabled = bit(3, RO)
    drift_buffer_enabled = bit(4, RO)
    flit_68b_vh_enabled = bit(5, RO)
    multi_logical_device_enabled = bit(6, RO)
    even_half_failed = bit(7, RW1CS)
    correctable_protocol_id_framing_error = bit(8, RW1CS)
    uncorrectable_protocol_id_framing_error = bit(9, RW1CS)
    unexpected_protocol_id_dropped = bit(10, RW1CS)
    retimers_present_mismatched = bit(11, RW1CS)
    enable_bits_phase2_mismatch = bit(12, RW1CS)
    latency_optimized_256b_flit_enabled = bit(13, RO)
    pbr_flit_enabled = bit(14, RO)


class FlexBusModifiedTs(Register, width=32, spec="CXL 3.1 §8.2.1.3.4"):
    """DVSEC Flex Bus Port Received Modified TS Data Phase1 (10h)."""

    received_data_phase1 = bits(23, 0, RO)


class FlexBusCapability2(Register, width=32, spec="CXL 3.1 §8.2.1.3.5"):
    """DVSEC Flex Bus Port Capability2 (14h)."""

    nop_hint_capable = bit(0, HwInit)


class FlexBusControl2(Register, width=32, spec="CXL 3.1 §8.2.1.3.6"):
    """DVSEC Flex Bus Port Control2 (18h)."""

    nop_hint_enable = bit(0, RW)


class FlexBusStatus2(Register, width=32, spec="CXL 3.1 §8.2.1.3.7"):
    """DVSEC Flex Bus Port Status2 (1Ch)."""

    nop_hint_info = bits(1, 0, RO)


class FlexBusPortDvsec(Block, size=0x20, spec="CXL 3.1 §8.2.1.3"):
    """PCIe DVSEC for Flex Bus Port (DVSEC ID 7)."""

    header = at(0x00, DvsecHeader)
    header1 = at(0x04, FlexBusHeader1)
    header2 = at(0x08, FlexBusHeader2)
    capability = at(0x0A, FlexBusCapability)
    control = at(0x0C, FlexBusControl)
    status = at(0x0E, FlexBusStatus)
    received_modified_ts = at(0x10, FlexBusModifiedTs)
    capability2 = at(0x14, FlexBusCapability2)
    control2 = at(0x18, FlexBusControl2)
    status2 = at(0x1C, FlexBusStatus2)


# -- 9: multi-logical device -------------------------------------------------------------------------------


class MldHeader1(DvsecHeader1, spec="CXL 3.1 §8.1.10"):
    """Header 1 of the MLD DVSEC."""

    vendor_id = bits(15, 0, RO, reset=VENDOR_CXL)
    revision = bits(19, 16, RO, reset=0)
    length = bits(31, 20, RO, reset=0x10)


class MldHeader2(DvsecHeader2, spec="CXL 3.1 §8.1.10"):
    """Header 2 of the MLD DVSEC."""

    dvsec_id = bits(15, 0, RO, reset=DvsecId.MLD)


class NumberOfLds(Register, width=16, spec="CXL 3.1 §8.1.10.1"):
    """Number of LDs Supported (0Ah)."""

    count = bits(15, 0, HwInit)


class LdIdHotReset(Register, width=16, spec="CXL 3.1 §8.1.10.2"):
    """LD-ID Hot Reset Vector (0Ch)."""

    logical_devices = bits(15, 0, RW, "one bit an LD-ID: a one starts its hot reset; reads as zero")


class MldDvsec(Block, size=0x10, spec="CXL 3.1 §8.1.10"):
    """MLD DVSEC (DVSEC ID 9), in the FM-owned logical device."""

    header = at(0x00, DvsecHeader)
    header1 = at(0x04, MldHeader1)
    header2 = at(0x08, MldHeader2)
    supported = at(0x0A, NumberOfLds)
    hot_reset_vector = at(0x0C, LdIdHotReset)
