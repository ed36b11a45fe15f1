"""What ports have and endpoints have not: header type 1, slots, the root's registers, containment of errors.

A port is a PCI-PCI bridge: a root port, or the upstream or a downstream port of a switch. I/O space is not
forwarded: the windows for it are hardwired to zero.
"""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.pci.express import (
    DeviceCapabilities,
    DeviceControl,
    LinkCapabilities,
    LinkControl,
    LinkStatus,
    PciExpress,
)
from softcxl.spec.pci.extended import AdvancedErrorReporting, ExtendedCapabilityHeader, ExtendedCapabilityId
from softcxl.spec.pci.header import CommonHeader, ExpansionRom
from softcxl.wire import RO, ROS, RW, RW1C, RW1CS, RW1S, Block, HwInit, Register, at, bit, bits

CLASS_PCI_BRIDGE: Final = 0x060400
"""Class code, sub-class and programming interface of a PCI-PCI bridge (PCI Code and ID Assignment)."""

WINDOW_UNIT: Final = 0x100000
"""Memory windows of a bridge begin at, and are as long as, multiples of 1 MiB (PCIe 6.0 §7.5.1.3.8)."""

# -- header type 1 -----------------------------------------------------------------------------------------


class BusNumber(Register, width=8, spec="PCIe 6.0 §7.5.1.3.2"):
    """Primary (18h), Secondary (19h) or Subordinate (1Ah) Bus Number Register."""

    value = bits(7, 0, RW)


class SecondaryLatencyTimer(Register, width=8, spec="PCIe 6.0 §7.5.1.3.5"):
    """Secondary Latency Timer: hardwired to zero in PCI Express."""

    value = bits(7, 0, RO)


class IoBound(Register, width=8, spec="PCIe 6.0 §7.5.1.3.6"):
    """I/O Base or Limit Register of a bridge that forwards no I/O: hardwired to zero."""

    value = bits(7, 0, RO)


class SecondaryStatus(Register, width=16, spec="PCIe 6.0 §7.5.1.3.7"):
    """Secondary Status Register."""

    capable_66_mhz = bit(5, RO, "no meaning in PCI Express")
    fast_back_to_back_capable = bit(7, RO, "no meaning in PCI Express")
    master_data_parity_error = bit(8, RW1C)
    devsel_timing = bits(10, 9, RO, "no meaning in PCI Express")
    signaled_target_abort = bit(11, RW1C)
    received_target_abort = bit(12, RW1C)
    received_master_abort = bit(13, RW1C)
    received_system_error = bit(14, RW1C, "an ERR_FATAL or ERR_NONFATAL message came from below")
    detected_parity_error = bit(15, RW1C)


class MemoryBound(Register, width=16, spec="PCIe 6.0 §7.5.1.3.8"):
    """Memory Base or Limit Register; the window is empty where the limit lies below the base."""

    address = bits(15, 4, RW, "bits 31:20 of the address")


class PrefetchableBound(Register, width=16, spec="PCIe 6.0 §7.5.1.3.9"):
    """Prefetchable Memory Base or Limit Register."""

    width_64 = bits(3, 0, RO, "1: the upper halves hold address bits 63:32", reset=1)
    address = bits(15, 4, RW, "bits 31:20 of the address")


class PrefetchableUpper(Register, width=32, spec="PCIe 6.0 §7.5.1.3.10"):
    """Prefetchable Base Upper 32 Bits or Limit Upper 32 Bits Register."""

    address = bits(31, 0, RW, "bits 63:32 of the address")


class IoUpper(Register, width=16, spec="PCIe 6.0 §7.5.1.3.11"):
    """I/O Base Upper 16 Bits or Limit Upper 16 Bits Register: hardwired to zero."""

    value = bits(15, 0, RO)


class BridgeControl(Register, width=16, spec="PCIe 6.0 §7.5.1.3.13"):
    """Bridge Control Register."""

    parity_error_response = bit(0, RW)
    serr_enable = bit(1, RW, "ERR_COR, ERR_NONFATAL and ERR_FATAL messages from below are forwarded")
    isa_enable = bit(2, RW)
    vga_enable = bit(3, RO, "hardwired to zero: no VGA")
    vga_16_bit_decode = bit(4, RO, "hardwired to zero: no VGA")
    master_abort_mode = bit(5, RO, "no meaning in PCI Express")
    secondary_bus_reset = bit(6, RW, "all below are held in hot reset while it is set")
    fast_back_to_back_enable = bit(7, RO, "no meaning in PCI Express")


class Type1Header(CommonHeader, size=0x40, spec="PCIe 6.0 §7.5.1.3"):
    """Type 1 Configuration Space Header."""

    primary_bus = at(0x18, BusNumber)
    secondary_bus = at(0x19, BusNumber)
    subordinate_bus = at(0x1A, BusNumber)
    secondary_latency_timer = at(0x1B, SecondaryLatencyTimer)
    io_base = at(0x1C, IoBound)
    io_limit = at(0x1D, IoBound)
    secondary_status = at(0x1E, SecondaryStatus)
    memory_base = at(0x20, MemoryBound)
    memory_limit = at(0x22, MemoryBound)
    prefetchable_base = at(0x24, PrefetchableBound)
    prefetchable_limit = at(0x26, PrefetchableBound)
    prefetchable_base_upper = at(0x28, PrefetchableUpper)
    prefetchable_limit_upper = at(0x2C, PrefetchableUpper)
    io_base_upper = at(0x30, IoUpper)
    io_limit_upper = at(0x32, IoUpper)
    expansion_rom = at(0x38, ExpansionRom)
    bridge_control = at(0x3E, BridgeControl)


# -- PCI Express capability of a port ----------------------------------------------------------------------


class PortDeviceCapabilities(DeviceCapabilities, spec="PCIe 6.0 §7.5.3.3"):
    """Device Capabilities Register of a port, which has no function-level reset."""

    function_level_reset_capable = bit(28, RO, "endpoints only")


class PortDeviceControl(DeviceControl, spec="PCIe 6.0 §7.5.3.4"):
    """Device Control Register of a port."""

    initiate_function_level_reset = bit(15, RO, "endpoints only")


class PortLinkCapabilities(LinkCapabilities, spec="PCIe 6.0 §7.5.3.6"):
    """Link Capabilities Register of a port; the builder clears what an upstream port has not."""

    surprise_down_error_reporting = bit(19, HwInit, "downstream ports only", reset=True)
    data_link_layer_active_reporting = bit(20, HwInit, "downstream ports only", reset=True)


class PortLinkControl(LinkControl, spec="PCIe 6.0 §7.5.3.7"):
    """Link Control Register of a downstream port."""

    link_disable = bit(4, RW, "the link is down while it is set")
    retrain_link = bit(5, RW, "a one trains the link anew; reads as zero")


class PortLinkStatus(LinkStatus, spec="PCIe 6.0 §7.5.3.8"):
    """Link Status Register of a port."""

    data_link_layer_active = bit(13, RO, "the link is up")


class SlotCapabilities(Register, width=32, spec="PCIe 6.0 §7.5.3.9"):
    """Slot Capabilities Register."""

    attention_button_present = bit(0, HwInit)
    power_controller_present = bit(1, HwInit)
    mrl_sensor_present = bit(2, HwInit)
    attention_indicator_present = bit(3, HwInit)
    power_indicator_present = bit(4, HwInit)
    hot_plug_surprise = bit(5, HwInit, "a device may be pulled without notice")
    hot_plug_capable = bit(6, HwInit)
    slot_power_limit_value = bits(14, 7, HwInit)
    slot_power_limit_scale = bits(16, 15, HwInit)
    interlock_present = bit(17, HwInit)
    no_command_completed = bit(18, HwInit)
    physical_slot_number = bits(31, 19, HwInit)


class Indicator(enum.IntEnum):
    """What an attention or power indicator shows (PCIe 6.0 §7.5.3.10)."""

    RESERVED = 0
    ON = 1
    BLINKING = 2
    OFF = 3


class SlotControl(Register, width=16, spec="PCIe 6.0 §7.5.3.10"):
    """Slot Control Register. A write is a command; Command Completed answers it."""

    attention_button_pressed_enable = bit(0, RW)
    power_fault_detected_enable = bit(1, RW)
    mrl_sensor_changed_enable = bit(2, RW)
    presence_detect_changed_enable = bit(3, RW)
    command_completed_enable = bit(4, RW)
    hot_plug_interrupt_enable = bit(5, RW)
    attention_indicator = bits(7, 6, RW, Indicator, reset=Indicator.OFF)
    power_indicator = bits(9, 8, RW, Indicator, reset=Indicator.ON)
    power_off = bit(10, RW, "Power Controller Control")
    interlock = bit(11, RO, "hardwired to zero: no interlock")
    link_state_changed_enable = bit(12, RW)
    auto_power_limit_disable = bit(13, RW)
    in_band_presence_disable = bit(14, RO, "hardwired to zero: not supported")


class SlotStatus(Register, width=16, spec="PCIe 6.0 §7.5.3.11"):
    """Slot Status Register."""

    attention_button_pressed = bit(0, RW1C)
    power_fault_detected = bit(1, RW1C)
    mrl_sensor_changed = bit(2, RW1C)
    presence_detect_changed = bit(3, RW1C)
    command_completed = bit(4, RW1C)
    mrl_sensor_open = bit(5, RO)
    presence_detect = bit(6, RO, "a device is in the slot")
    interlock_engaged = bit(7, RO)
    link_state_changed = bit(8, RW1C)


class RootControl(Register, width=16, spec="PCIe 6.0 §7.5.3.12"):
    """Root Control Register."""

    system_error_on_correctable = bit(0, RW)
    system_error_on_non_fatal = bit(1, RW)
    system_error_on_fatal = bit(2, RW)
    pme_interrupt_enable = bit(3, RW)
    rrs_software_visibility_enable = bit(4, RO, "hardwired to zero: not capable")


class RootCapabilities(Register, width=16, spec="PCIe 6.0 §7.5.3.13"):
    """Root Capabilities Register."""

    rrs_software_visibility = bit(0, RO)


class RootStatus(Register, width=32, spec="PCIe 6.0 §7.5.3.14"):
    """Root Status Register."""

    pme_requester_id = bits(15, 0, RO)
    pme_status = bit(16, RW1C)
    pme_pending = bit(17, RO)


class SlotCapabilities2(Register, width=32, spec="PCIe 6.0 §7.5.3.21"):
    """Slot Capabilities 2 Register."""

    in_band_presence_disable_supported = bit(0, RO)


class SlotControl2(Register, width=16, spec="PCIe 6.0 §7.5.3.22"):
    """Slot Control 2 Register: reserved."""


class SlotStatus2(Register, width=16, spec="PCIe 6.0 §7.5.3.23"):
    """Slot Status 2 Register: reserved."""


class PortExpress(PciExpress, size=0x3C, spec="PCIe 6.0 §7.5.3"):
    """PCI Express Capability Structure of a port. Slot registers mean something where a slot is implemented,
    root registers in a root port."""

    device_capabilities = at(0x04, PortDeviceCapabilities)
    device_control = at(0x08, PortDeviceControl)
    link_capabilities = at(0x0C, PortLinkCapabilities)
    link_control = at(0x10, PortLinkControl)
    link_status = at(0x12, PortLinkStatus)
    slot_capabilities = at(0x14, SlotCapabilities)
    slot_control = at(0x18, SlotControl)
    slot_status = at(0x1A, SlotStatus)
    root_control = at(0x1C, RootControl)
    root_capabilities = at(0x1E, RootCapabilities)
    root_status = at(0x20, RootStatus)
    slot_capabilities_2 = at(0x34, SlotCapabilities2)
    slot_control_2 = at(0x38, SlotControl2)
    slot_status_2 = at(0x3A, SlotStatus2)


# -- AER of a root port ------------------------------------------------------------------------------------


class RootErrorCommand(Register, width=32, spec="PCIe 6.0 §7.8.4.9"):
    """Root Error Command Register: which error messages interrupt."""

    correctable_enable = bit(0, RW)
    non_fatal_enable = bit(1, RW)
    fatal_enable = bit(2, RW)


class RootErrorStatus(Register, width=32, spec="PCIe 6.0 §7.8.4.10"):
    """Root Error Status Register."""

    correctable = bit(0, RW1CS, "an ERR_COR message came")
    multiple_correctable = bit(1, RW1CS)
    uncorrectable = bit(2, RW1CS, "an ERR_NONFATAL or ERR_FATAL message came")
    multiple_uncorrectable = bit(3, RW1CS)
    first_uncorrectable_fatal = bit(4, RW1CS)
    non_fatal = bit(5, RW1CS)
    fatal = bit(6, RW1CS)
    error_subclass = bits(8, 7, RO)
    interrupt_message_number = bits(31, 27, RO)


class ErrorSource(Register, width=32, spec="PCIe 6.0 §7.8.4.11"):
    """Error Source Identification Register: requester IDs of the first messages."""

    correctable = bits(15, 0, ROS)
    uncorrectable = bits(31, 16, ROS)


class RootErrorReporting(AdvancedErrorReporting, size=0x48, spec="PCIe 6.0 §7.8.4"):
    """Advanced Error Reporting Extended Capability of a root port."""

    root_command = at(0x2C, RootErrorCommand)
    root_status = at(0x30, RootErrorStatus)
    error_source = at(0x34, ErrorSource)


# -- Downstream Port Containment ---------------------------------------------------------------------------


class DpcHeader(ExtendedCapabilityHeader, spec="PCIe 6.0 §7.9.14.1"):
    """Extended capability header of Downstream Port Containment."""

    capability_id = bits(
        15, 0, RO, ExtendedCapabilityId, reset=ExtendedCapabilityId.DOWNSTREAM_PORT_CONTAINMENT
    )


class DpcCapability(Register, width=16, spec="PCIe 6.0 §7.9.14.2"):
    """DPC Capability Register."""

    interrupt_message_number = bits(4, 0, RO)
    root_port_extensions = bit(5, RO)
    poisoned_tlp_egress_blocking = bit(6, RO)
    software_triggering = bit(7, RO, reset=True)
    pio_log_size = bits(11, 8, RO)
    link_active_err_cor = bit(12, RO)
    pio_log_size_4 = bit(13, RO)


class DpcTrigger(enum.IntEnum):
    """What triggers containment (PCIe 6.0 §7.9.14.3)."""

    DISABLED = 0
    FATAL = 1
    NON_FATAL_OR_FATAL = 2


class DpcControl(Register, width=16, spec="PCIe 6.0 §7.9.14.3"):
    """DPC Control Register."""

    trigger_enable = bits(1, 0, RW, DpcTrigger)
    completion_control = bit(
        2, RW, "requests from above complete with: set: unsupported request, clear: abort"
    )
    interrupt_enable = bit(3, RW)
    err_cor_enable = bit(4, RW)
    poisoned_tlp_egress_blocking_enable = bit(5, RO, "hardwired to zero: not supported")
    software_trigger = bit(6, RW1S, "a one triggers; reads as zero")
    link_active_err_cor_enable = bit(7, RO, "hardwired to zero: not supported")


class DpcReason(enum.IntEnum):
    """Why containment was triggered (PCIe 6.0 §7.9.14.4)."""

    UNMASKED_UNCORRECTABLE = 0
    ERR_NONFATAL = 1
    ERR_FATAL = 2
    EXTENSION = 3


class DpcReasonExtension(enum.IntEnum):
    """More of the reason (PCIe 6.0 §7.9.14.4)."""

    PIO_ERROR = 0
    SOFTWARE = 1


class DpcStatus(Register, width=16, spec="PCIe 6.0 §7.9.14.4"):
    """DPC Status Register."""

    triggered = bit(0, RW1CS, "the link is held down until software clears it")
    reason = bits(2, 1, ROS, DpcReason)
    interrupt_status = bit(3, RW1CS)
    root_port_busy = bit(4, RO)
    reason_extension = bits(6, 5, ROS, DpcReasonExtension)
    pio_first_error_pointer = bits(12, 8, ROS)


class DpcErrorSource(Register, width=16, spec="PCIe 6.0 §7.9.14.5"):
    """DPC Error Source ID Register: requester ID of the message that triggered."""

    value = bits(15, 0, ROS)


class DownstreamPortContainment(Block, size=0x0C, spec="PCIe 6.0 §7.9.14"):
    """Downstream Port Containment Extended Capability, without root port extensions."""

    header = at(0x00, DpcHeader)
    capability = at(0x04, DpcCapability)
    control = at(0x06, DpcControl)
    status = at(0x08, DpcStatus)
    error_source = at(0x0A, DpcErrorSource)
