"""The PCI Express capability, version 2, as an endpoint shows it.

Slot and root registers are reserved in an endpoint and not declared: they read as zero.
Reset values are those of a 32 GT/s x8 link that is up.
"""

from __future__ import annotations

import enum

from softcxl.spec.pci.capability import CapabilityHeader, CapabilityId
from softcxl.wire import RO, ROS, RW, RW1C, RW1CS, RWS, Block, HwInit, Register, at, bit, bits


class PortType(enum.IntEnum):
    """Device/Port Type (PCIe 6.0 §7.5.3.2)."""

    ENDPOINT = 0x0
    LEGACY_ENDPOINT = 0x1
    ROOT_PORT = 0x4
    UPSTREAM_PORT = 0x5
    DOWNSTREAM_PORT = 0x6
    ROOT_COMPLEX_INTEGRATED_ENDPOINT = 0x9
    ROOT_COMPLEX_EVENT_COLLECTOR = 0xA


class LinkSpeed(enum.IntEnum):
    """Link speeds as numbers of bits in the Supported Link Speeds Vector (PCIe 6.0 §7.5.3.18)."""

    GT_2_5 = 1
    GT_5 = 2
    GT_8 = 3
    GT_16 = 4
    GT_32 = 5
    GT_64 = 6


class ExpressHeader(CapabilityHeader, spec="PCIe 6.0 §7.5.3.1"):
    """PCI Express Capability List Register."""

    capability_id = bits(7, 0, RO, CapabilityId, reset=CapabilityId.PCI_EXPRESS)


class ExpressCapabilities(Register, width=16, spec="PCIe 6.0 §7.5.3.2"):
    """PCI Express Capabilities Register."""

    version = bits(3, 0, RO, reset=2)
    port_type = bits(7, 4, RO, PortType)
    slot_implemented = bit(8, HwInit, "ports only")
    interrupt_message_number = bits(13, 9, RO)
    flit_mode_supported = bit(15, HwInit)


class DeviceCapabilities(Register, width=32, spec="PCIe 6.0 §7.5.3.3"):
    """Device Capabilities Register."""

    max_payload_size_supported = bits(2, 0, HwInit, "128 bytes << value", reset=1)
    phantom_functions = bits(4, 3, RO)
    extended_tag_supported = bit(5, RO, reset=True)
    l0s_acceptable_latency = bits(8, 6, RO)
    l1_acceptable_latency = bits(11, 9, RO)
    role_based_error_reporting = bit(15, RO, reset=True)
    err_cor_subclass_capable = bit(16, RO)
    slot_power_limit_value = bits(25, 18, RO)
    slot_power_limit_scale = bits(27, 26, RO)
    function_level_reset_capable = bit(28, RO, reset=True)
    mixed_mps_supported = bit(29, HwInit)
    tee_io_supported = bit(30, HwInit)


class DeviceControl(Register, width=16, spec="PCIe 6.0 §7.5.3.4"):
    """Device Control Register."""

    correctable_error_reporting = bit(0, RW)
    non_fatal_error_reporting = bit(1, RW)
    fatal_error_reporting = bit(2, RW)
    unsupported_request_reporting = bit(3, RW)
    relaxed_ordering = bit(4, RW, reset=True)
    max_payload_size = bits(7, 5, RW, "128 bytes << value")
    extended_tag = bit(8, RW)
    phantom_functions = bit(9, RO, "hardwired to zero: not supported")
    aux_power = bit(10, RO, "hardwired to zero: not needed")
    no_snoop = bit(11, RW, reset=True)
    max_read_request_size = bits(14, 12, RW, "128 bytes << value", reset=2)
    initiate_function_level_reset = bit(15, RW, "a one resets the function; reads as zero")


class DeviceStatus(Register, width=16, spec="PCIe 6.0 §7.5.3.5"):
    """Device Status Register."""

    correctable_error_detected = bit(0, RW1C)
    non_fatal_error_detected = bit(1, RW1C)
    fatal_error_detected = bit(2, RW1C)
    unsupported_request_detected = bit(3, RW1C)
    aux_power_detected = bit(4, RO)
    transactions_pending = bit(5, RO)
    emergency_power_reduction = bit(6, RW1C)


class LinkCapabilities(Register, width=32, spec="PCIe 6.0 §7.5.3.6"):
    """Link Capabilities Register."""

    max_link_speed = bits(3, 0, HwInit, LinkSpeed, reset=LinkSpeed.GT_32)
    max_link_width = bits(9, 4, HwInit, "lanes", reset=8)
    aspm_support = bits(11, 10, RO, "bit 0: L0s, bit 1: L1")
    l0s_exit_latency = bits(14, 12, RO)
    l1_exit_latency = bits(17, 15, RO)
    clock_power_management = bit(18, RO)
    surprise_down_error_reporting = bit(19, RO, "downstream ports only")
    data_link_layer_active_reporting = bit(20, RO, "downstream ports only")
    bandwidth_notification = bit(21, RO, "downstream ports only")
    aspm_optionality_compliance = bit(22, RO, "always set", reset=True)
    port_number = bits(31, 24, HwInit)


class LinkControl(Register, width=16, spec="PCIe 6.0 §7.5.3.7"):
    """Link Control Register of an endpoint; bits that only ports have read as zero."""

    aspm_control = bits(1, 0, RW, "bit 0: L0s, bit 1: L1")
    read_completion_boundary = bit(3, RW, "clear: 64 bytes, set: 128 bytes")
    common_clock_configuration = bit(6, RW)
    extended_synch = bit(7, RW)
    clock_power_management = bit(8, RO, "hardwired to zero: not capable")
    autonomous_width_disable = bit(9, RW)


class LinkStatus(Register, width=16, spec="PCIe 6.0 §7.5.3.8"):
    """Link Status Register of an endpoint."""

    current_link_speed = bits(3, 0, RO, LinkSpeed, reset=LinkSpeed.GT_32)
    negotiated_link_width = bits(9, 4, RO, "lanes", reset=8)
    link_training = bit(11, RO, "downstream ports only")
    slot_clock_configuration = bit(12, HwInit, "uses the platform's reference clock", reset=True)
    data_link_layer_active = bit(13, RO, "only where Link Capabilities reports it")


class DeviceCapabilities2(Register, width=32, spec="PCIe 6.0 §7.5.3.15"):
    """Device Capabilities 2 Register."""

    completion_timeout_ranges = bits(3, 0, HwInit)
    completion_timeout_disable = bit(4, RO, reset=True)
    ari_forwarding = bit(5, RO, "ports only")
    atomic_routing = bit(6, RO, "ports only")
    atomic_completer_32 = bit(7, RO)
    atomic_completer_64 = bit(8, RO)
    cas_completer_128 = bit(9, RO)
    no_ro_enabled_pr_pr_passing = bit(10, HwInit)
    latency_tolerance_reporting = bit(11, RO)
    tph_completer = bits(13, 12, RO)
    tag_10_bit_completer = bit(16, HwInit)
    tag_10_bit_requester = bit(17, HwInit)
    obff = bits(19, 18, HwInit)
    extended_fmt_field = bit(20, RO)
    end_end_tlp_prefix = bit(21, HwInit)
    max_end_end_tlp_prefixes = bits(23, 22, HwInit, "0: four")
    emergency_power_reduction = bits(25, 24, HwInit)
    emergency_power_reduction_init = bit(26, HwInit)
    frs = bit(31, HwInit)


class DeviceControl2(Register, width=16, spec="PCIe 6.0 §7.5.3.16"):
    """Device Control 2 Register of an endpoint; what Device Capabilities 2 lacks is hardwired to zero."""

    completion_timeout_value = bits(3, 0, RW)
    completion_timeout_disable = bit(4, RW)
    ari_forwarding = bit(5, RO, "ports only")
    atomic_requester = bit(6, RW)
    atomic_egress_blocking = bit(7, RO, "ports only")
    ido_request = bit(8, RW)
    ido_completion = bit(9, RW)
    latency_tolerance_reporting = bit(10, RO)
    emergency_power_reduction_request = bit(11, RO)
    tag_10_bit_requester = bit(12, RO)
    obff = bits(14, 13, RO)
    end_end_tlp_prefix_blocking = bit(15, RO)


class DeviceStatus2(Register, width=16, spec="PCIe 6.0 §7.5.3.17"):
    """Device Status 2 Register: reserved."""


class LinkCapabilities2(Register, width=32, spec="PCIe 6.0 §7.5.3.18"):
    """Link Capabilities 2 Register."""

    supported_link_speeds = bits(7, 1, HwInit, "bit n: `LinkSpeed` n + 1", reset=0b0011111)
    crosslink = bit(8, RO)
    lower_skp_generation = bits(15, 9, HwInit)
    lower_skp_reception = bits(22, 16, HwInit)
    retimer_presence_detect = bit(23, HwInit)
    two_retimers_presence_detect = bit(24, HwInit)
    drs = bit(31, HwInit)


class LinkControl2(Register, width=16, spec="PCIe 6.0 §7.5.3.19"):
    """Link Control 2 Register."""

    target_link_speed = bits(3, 0, RWS, LinkSpeed, reset=LinkSpeed.GT_32)
    enter_compliance = bit(4, RWS)
    autonomous_speed_disable = bit(5, RWS)
    selectable_de_emphasis = bit(6, HwInit, "downstream ports only")
    transmit_margin = bits(9, 7, RWS)
    enter_modified_compliance = bit(10, RWS)
    compliance_sos = bit(11, RWS)
    compliance_preset = bits(15, 12, RWS)


class LinkStatus2(Register, width=16, spec="PCIe 6.0 §7.5.3.20"):
    """Link Status 2 Register."""

    current_de_emphasis = bit(0, RO)
    equalization_8gt_complete = bit(1, ROS)
    equalization_8gt_phase_1 = bit(2, ROS)
    equalization_8gt_phase_2 = bit(3, ROS)
    equalization_8gt_phase_3 = bit(4, ROS)
    equalization_request_8gt = bit(5, RW1CS)
    retimer_presence = bit(6, ROS)
    two_retimers_presence = bit(7, ROS)
    crosslink_resolution = bits(9, 8, RO)
    flit_mode = bit(10, RO, "the link runs in flit mode; Linux takes it for CXL 256-byte flits")


class PciExpress(Block, size=0x3C, spec="PCIe 6.0 §7.5.3"):
    """PCI Express Capability Structure of an endpoint."""

    header = at(0x00, ExpressHeader)
    capabilities = at(0x02, ExpressCapabilities)
    device_capabilities = at(0x04, DeviceCapabilities)
    device_control = at(0x08, DeviceControl)
    device_status = at(0x0A, DeviceStatus)
    link_capabilities = at(0x0C, LinkCapabilities)
    link_control = at(0x10, LinkControl)
    link_status = at(0x12, LinkStatus)
    device_capabilities_2 = at(0x24, DeviceCapabilities2)
    device_control_2 = at(0x28, DeviceControl2)
    device_status_2 = at(0x2A, DeviceStatus2)
    link_capabilities_2 = at(0x2C, LinkCapabilities2)
    link_control_2 = at(0x30, LinkControl2)
    link_status_2 = at(0x32, LinkStatus2)
