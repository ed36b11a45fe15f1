"""Extended capabilities, from 100h of configuration space: AER, serial number, ACS, DOE, DVSEC headers.

Each is a block from its own offset 0. The header's `next_offset` is the builder's to fill in.
"""

from __future__ import annotations

import enum

from softcxl.wire import RO, ROS, RW, RW1C, RW1CS, RW1S, RWS, Block, HwInit, Register, at, bit, bits


class ExtendedCapabilityId(enum.IntEnum):
    """Extended capability IDs (PCI Code and ID Assignment Specification)."""

    NULL = 0x0000
    ADVANCED_ERROR_REPORTING = 0x0001
    DEVICE_SERIAL_NUMBER = 0x0003
    VENDOR_SPECIFIC = 0x000B
    ACCESS_CONTROL_SERVICES = 0x000D
    DOWNSTREAM_PORT_CONTAINMENT = 0x001D
    DVSEC = 0x0023
    DATA_OBJECT_EXCHANGE = 0x002E


class ExtendedCapabilityHeader(Register, width=32, spec="PCIe 6.0 §7.9.2"):
    """The four bytes that begin every extended capability."""

    capability_id = bits(15, 0, RO, ExtendedCapabilityId)
    version = bits(19, 16, RO, reset=1)
    next_offset = bits(31, 20, HwInit, "configuration-space offset of the next one, 0 in the last")


# -- Advanced Error Reporting ------------------------------------------------------------------------------


class AerHeader(ExtendedCapabilityHeader, spec="PCIe 6.0 §7.8.4.1"):
    """Extended capability header of Advanced Error Reporting."""

    capability_id = bits(15, 0, RO, ExtendedCapabilityId, reset=ExtendedCapabilityId.ADVANCED_ERROR_REPORTING)
    version = bits(19, 16, RO, reset=2)


class UncorrectableErrorStatus(Register, width=32, spec="PCIe 6.0 §7.8.4.2"):
    """Uncorrectable Error Status Register."""

    data_link_protocol = bit(4, RW1CS)
    surprise_down = bit(5, RW1CS)
    poisoned_tlp_received = bit(12, RW1CS)
    flow_control_protocol = bit(13, RW1CS)
    completion_timeout = bit(14, RW1CS)
    completer_abort = bit(15, RW1CS)
    unexpected_completion = bit(16, RW1CS)
    receiver_overflow = bit(17, RW1CS)
    malformed_tlp = bit(18, RW1CS)
    ecrc = bit(19, RW1CS)
    unsupported_request = bit(20, RW1CS)
    acs_violation = bit(21, RW1CS)
    internal = bit(22, RW1CS, "CXL.cache and CXL.mem errors are signalled by it too (CXL 3.1 §12.2.2)")
    mc_blocked_tlp = bit(23, RW1CS)
    atomic_egress_blocked = bit(24, RW1CS)
    tlp_prefix_blocked = bit(25, RW1CS)
    poisoned_tlp_egress_blocked = bit(26, RW1CS)
    dmwr_egress_blocked = bit(27, RW1CS)
    ide_check_failed = bit(28, RW1CS)
    misrouted_ide_tlp = bit(29, RW1CS)
    pcrc_check_failed = bit(30, RW1CS)
    tlp_translation_egress_blocked = bit(31, RW1CS)


class UncorrectableErrorMask(Register, width=32, spec="PCIe 6.0 §7.8.4.3"):
    """Uncorrectable Error Mask Register: a one keeps the error from being reported."""

    data_link_protocol = bit(4, RWS)
    surprise_down = bit(5, RWS)
    poisoned_tlp_received = bit(12, RWS)
    flow_control_protocol = bit(13, RWS)
    completion_timeout = bit(14, RWS)
    completer_abort = bit(15, RWS)
    unexpected_completion = bit(16, RWS)
    receiver_overflow = bit(17, RWS)
    malformed_tlp = bit(18, RWS)
    ecrc = bit(19, RWS)
    unsupported_request = bit(20, RWS)
    acs_violation = bit(21, RWS)
    internal = bit(22, RWS, reset=True)
    mc_blocked_tlp = bit(23, RWS)
    atomic_egress_blocked = bit(24, RWS)
    tlp_prefix_blocked = bit(25, RWS)
    poisoned_tlp_egress_blocked = bit(26, RWS)
    dmwr_egress_blocked = bit(27, RWS)
    ide_check_failed = bit(28, RWS)
    misrouted_ide_tlp = bit(29, RWS)
    pcrc_check_failed = bit(30, RWS)
    tlp_translation_egress_blocked = bit(31, RWS)


class UncorrectableErrorSeverity(Register, width=32, spec="PCIe 6.0 §7.8.4.4"):
    """Uncorrectable Error Severity Register: a one makes the error fatal."""

    data_link_protocol = bit(4, RWS, reset=True)
    surprise_down = bit(5, RWS, reset=True)
    poisoned_tlp_received = bit(12, RWS)
    flow_control_protocol = bit(13, RWS, reset=True)
    completion_timeout = bit(14, RWS)
    completer_abort = bit(15, RWS)
    unexpected_completion = bit(16, RWS)
    receiver_overflow = bit(17, RWS, reset=True)
    malformed_tlp = bit(18, RWS, reset=True)
    ecrc = bit(19, RWS)
    unsupported_request = bit(20, RWS)
    acs_violation = bit(21, RWS)
    internal = bit(22, RWS, reset=True)
    mc_blocked_tlp = bit(23, RWS)
    atomic_egress_blocked = bit(24, RWS)
    tlp_prefix_blocked = bit(25, RWS)
    poisoned_tlp_egress_blocked = bit(26, RWS)
    dmwr_egress_blocked = bit(27, RWS)
    ide_check_failed = bit(28, RWS)
    misrouted_ide_tlp = bit(29, RWS)
    pcrc_check_failed = bit(30, RWS)
    tlp_translation_egress_blocked = bit(31, RWS)


class CorrectableErrorStatus(Register, width=32, spec="PCIe 6.0 §7.8.4.5"):
    """Correctable Error Status Register."""

    receiver = bit(0, RW1CS)
    bad_tlp = bit(6, RW1CS)
    bad_dllp = bit(7, RW1CS)
    replay_num_rollover = bit(8, RW1CS)
    replay_timer_timeout = bit(12, RW1CS)
    advisory_non_fatal = bit(13, RW1CS)
    internal = bit(14, RW1CS)
    header_log_overflow = bit(15, RW1CS)


class CorrectableErrorMask(Register, width=32, spec="PCIe 6.0 §7.8.4.6"):
    """Correctable Error Mask Register: a one keeps the error from being reported."""

    receiver = bit(0, RWS)
    bad_tlp = bit(6, RWS)
    bad_dllp = bit(7, RWS)
    replay_num_rollover = bit(8, RWS)
    replay_timer_timeout = bit(12, RWS)
    advisory_non_fatal = bit(13, RWS, reset=True)
    internal = bit(14, RWS, reset=True)
    header_log_overflow = bit(15, RWS, reset=True)


class AerControl(Register, width=32, spec="PCIe 6.0 §7.8.4.7"):
    """Advanced Error Capabilities and Control Register."""

    first_error_pointer = bits(4, 0, ROS, "bit number of the first error in Uncorrectable Error Status")
    ecrc_generation_capable = bit(5, RO)
    ecrc_generation_enable = bit(6, RWS)
    ecrc_check_capable = bit(7, RO)
    ecrc_check_enable = bit(8, RWS)
    multiple_header_recording_capable = bit(9, RO)
    multiple_header_recording_enable = bit(10, RWS)
    tlp_prefix_log_present = bit(11, ROS)
    completion_timeout_log_capable = bit(12, RO)
    header_log_size = bits(17, 13, HwInit)
    logged_in_flit_mode = bit(18, ROS)
    logged_tlp_size = bits(23, 19, ROS)


class HeaderLog(Register, width=128, spec="PCIe 6.0 §7.8.4.8"):
    """Header Log Register: the header of the TLP of the first error."""

    value = bits(127, 0, ROS)


class TlpPrefixLog(Register, width=128, spec="PCIe 6.0 §7.8.4.12"):
    """TLP Prefix Log Register: the prefixes of the TLP of the first error."""

    value = bits(127, 0, ROS)


class AdvancedErrorReporting(Block, size=0x48, spec="PCIe 6.0 §7.8.4"):
    """Advanced Error Reporting Extended Capability of an endpoint: without the root's registers at 2Ch."""

    header = at(0x00, AerHeader)
    uncorrectable_status = at(0x04, UncorrectableErrorStatus)
    uncorrectable_mask = at(0x08, UncorrectableErrorMask)
    uncorrectable_severity = at(0x0C, UncorrectableErrorSeverity)
    correctable_status = at(0x10, CorrectableErrorStatus)
    correctable_mask = at(0x14, CorrectableErrorMask)
    control = at(0x18, AerControl)
    header_log = at(0x1C, HeaderLog)
    tlp_prefix_log = at(0x38, TlpPrefixLog)


# -- Device Serial Number ----------------------------------------------------------------------------------


class SerialNumberHeader(ExtendedCapabilityHeader, spec="PCIe 6.0 §7.9.3.1"):
    """Extended capability header of the Device Serial Number."""

    capability_id = bits(15, 0, RO, ExtendedCapabilityId, reset=ExtendedCapabilityId.DEVICE_SERIAL_NUMBER)


class SerialNumber(Register, width=64, spec="PCIe 6.0 §7.9.3.2"):
    """Serial Number Register, an EUI-64; the lower half stands first."""

    value = bits(63, 0, HwInit)


class DeviceSerialNumber(Block, size=0x0C, spec="PCIe 6.0 §7.9.3"):
    """Device Serial Number Extended Capability."""

    header = at(0x00, SerialNumberHeader)
    serial_number = at(0x04, SerialNumber)


# -- Access Control Services -------------------------------------------------------------------------------


class AcsHeader(ExtendedCapabilityHeader, spec="PCIe 6.0 §7.7.11.1"):
    """Extended capability header of Access Control Services."""

    capability_id = bits(15, 0, RO, ExtendedCapabilityId, reset=ExtendedCapabilityId.ACCESS_CONTROL_SERVICES)


class AcsCapabilities(Register, width=16, spec="PCIe 6.0 §7.7.11.2"):
    """ACS Capability Register."""

    source_validation = bit(0, RO)
    translation_blocking = bit(1, RO)
    p2p_request_redirect = bit(2, HwInit)
    p2p_completion_redirect = bit(3, HwInit)
    upstream_forwarding = bit(4, RO)
    p2p_egress_control = bit(5, HwInit)
    direct_translated_p2p = bit(6, HwInit)
    enhanced = bit(7, RO)
    egress_control_vector_size = bits(15, 8, HwInit, "bits; 0 means 256")


class AcsControl(Register, width=16, spec="PCIe 6.0 §7.7.11.3"):
    """ACS Control Register."""

    source_validation = bit(0, RW)
    translation_blocking = bit(1, RW)
    p2p_request_redirect = bit(2, RW)
    p2p_completion_redirect = bit(3, RW)
    upstream_forwarding = bit(4, RW)
    p2p_egress_control = bit(5, RW)
    direct_translated_p2p = bit(6, RW)


class AccessControlServices(Block, size=0x08, spec="PCIe 6.0 §7.7.11"):
    """Access Control Services Extended Capability, without an egress control vector."""

    header = at(0x00, AcsHeader)
    capabilities = at(0x04, AcsCapabilities)
    control = at(0x06, AcsControl)


# -- Data Object Exchange ----------------------------------------------------------------------------------


class DoeHeader(ExtendedCapabilityHeader, spec="PCIe 6.0 §7.9.24.1"):
    """Extended capability header of Data Object Exchange."""

    capability_id = bits(15, 0, RO, ExtendedCapabilityId, reset=ExtendedCapabilityId.DATA_OBJECT_EXCHANGE)


class DoeCapabilities(Register, width=32, spec="PCIe 6.0 §7.9.24.2"):
    """DOE Capabilities Register."""

    interrupt_support = bit(0, HwInit)
    interrupt_message_number = bits(11, 1, RO)


class DoeControl(Register, width=32, spec="PCIe 6.0 §7.9.24.3"):
    """DOE Control Register. Both commands read as zero: the mailbox takes them back as it obeys."""

    abort = bit(0, RW1S, "drop every data object under way, and any error")
    interrupt_enable = bit(1, RW)
    go = bit(31, RW1S, "the object written is complete: act on it")


class DoeStatus(Register, width=32, spec="PCIe 6.0 §7.9.24.4"):
    """DOE Status Register."""

    busy = bit(0, RO, "cannot take a data object now")
    interrupt_status = bit(1, RW1C)
    error = bit(2, RO, "stays until an abort")
    data_object_ready = bit(31, RO, "a response waits in the read mailbox")


class DoeWriteMailbox(Register, width=32, spec="PCIe 6.0 §7.9.24.5"):
    """DOE Write Data Mailbox Register: each write adds a dword to the object. Reads as zero."""

    value = bits(31, 0, RW)


class DoeReadMailbox(Register, width=32, spec="PCIe 6.0 §7.9.24.6"):
    """DOE Read Data Mailbox Register: the response's current dword; any write moves on."""

    value = bits(31, 0, RO, "the value written is never stored, whence the law")


class DataObjectExchange(Block, size=0x18, spec="PCIe 6.0 §7.9.24"):
    """Data Object Exchange Extended Capability."""

    header = at(0x00, DoeHeader)
    capabilities = at(0x04, DoeCapabilities)
    control = at(0x08, DoeControl)
    status = at(0x0C, DoeStatus)
    write_mailbox = at(0x10, DoeWriteMailbox)
    read_mailbox = at(0x14, DoeReadMailbox)


# -- Designated Vendor-Specific ----------------------------------------------------------------------------


class DvsecHeader(ExtendedCapabilityHeader, spec="PCIe 6.0 §7.9.6.1"):
    """Extended capability header of a Designated Vendor-Specific Extended Capability."""

    capability_id = bits(15, 0, RO, ExtendedCapabilityId, reset=ExtendedCapabilityId.DVSEC)


class DvsecHeader1(Register, width=32, spec="PCIe 6.0 §7.9.6.2"):
    """Designated Vendor-Specific Header 1."""

    vendor_id = bits(15, 0, RO, "who defines the rest")
    revision = bits(19, 16, RO)
    length = bits(31, 20, RO, "bytes, from the extended capability header on")


class DvsecHeader2(Register, width=16, spec="PCIe 6.0 §7.9.6.3"):
    """Designated Vendor-Specific Header 2."""

    dvsec_id = bits(15, 0, RO, "which structure of that vendor")
