"""Device registers: the capability array and the capabilities of a memory device (CXL 3.1 §8.2.8)."""

from __future__ import annotations

import enum

from softcxl.wire import RO, RW, RW1S, Block, HwInit, Register, at, bit, bits


class DeviceCapabilityId(enum.IntEnum):
    """Capability IDs of device registers (CXL 3.1 §8.2.8.2.1, §8.2.8.5)."""

    ARRAY = 0x0000
    DEVICE_STATUS = 0x0001
    PRIMARY_MAILBOX = 0x0002
    SECONDARY_MAILBOX = 0x0003
    MEMORY_DEVICE_STATUS = 0x4000


class DeviceType(enum.IntEnum):
    """What the device registers are of (CXL 3.1 §8.2.8.1)."""

    INFERRED = 0
    MEMORY_DEVICE = 1
    SWITCH = 2


class DeviceCapabilityArray(Register, width=64, spec="CXL 3.1 §8.2.8.1"):
    """CXL Device Capabilities Array Register; its upper 64 bits are reserved."""

    capability_id = bits(15, 0, RO, DeviceCapabilityId)
    version = bits(23, 16, RO, reset=1)
    type = bits(27, 24, HwInit, DeviceType, "0: told by the class code")
    count = bits(47, 32, HwInit, "capability headers that follow")


class CapabilitiesArray(Block, size=0x10, spec="CXL 3.1 §8.2.8.1"):
    """The start of a device register block; its `DeviceCapabilityHeader`s follow, 16 bytes each."""

    array = at(0x00, DeviceCapabilityArray)


class DeviceCapabilityIdentity(Register, width=32, spec="CXL 3.1 §8.2.8.2"):
    """Bits 31:0 of a CXL Device Capability Header Register."""

    capability_id = bits(15, 0, HwInit, DeviceCapabilityId)
    version = bits(23, 16, HwInit)


class DeviceCapabilityOffset(Register, width=32, spec="CXL 3.1 §8.2.8.2"):
    """Bits 63:32 of a CXL Device Capability Header Register."""

    value = bits(31, 0, HwInit, "of the capability, in bytes from the start of the device register block")


class DeviceCapabilityLength(Register, width=32, spec="CXL 3.1 §8.2.8.2"):
    """Bits 95:64 of a CXL Device Capability Header Register."""

    value = bits(31, 0, HwInit, "of the capability, in bytes")


class DeviceCapabilityHeader(Block, size=0x10, spec="CXL 3.1 §8.2.8.2"):
    """CXL Device Capability Header Register."""

    identity = at(0x00, DeviceCapabilityIdentity)
    offset = at(0x04, DeviceCapabilityOffset)
    length = at(0x08, DeviceCapabilityLength)


# -- device status -----------------------------------------------------------------------------------------

DEVICE_STATUS_VERSION = 2
"""Version of the device status capability in CXL 3.1: with the dynamic capacity bit."""


class EventStatus(Register, width=64, spec="CXL 3.1 §8.2.8.3.1"):
    """Event Status Register: which event logs hold records."""

    informational = bit(0, RO)
    warning = bit(1, RO)
    failure = bit(2, RO)
    fatal = bit(3, RO)
    dynamic_capacity = bit(4, RO)


class DeviceStatus(Block, size=0x08, spec="CXL 3.1 §8.2.8.3"):
    """Device Status Registers."""

    event_status = at(0x00, EventStatus)


# -- mailbox -----------------------------------------------------------------------------------------------

MAILBOX_VERSION = 1
"""Version of the mailbox capabilities in CXL 3.1."""

MAILBOX_PAYLOAD_OFFSET = 0x20
"""Where the payload registers begin in the mailbox (CXL 3.1 §8.2.8.4.8)."""


class MailboxCapabilities(Register, width=32, spec="CXL 3.1 §8.2.8.4.3"):
    """Mailbox Capabilities Register."""

    payload_size = bits(4, 0, HwInit, "of the payload registers: 1 << value bytes, 8 to 20", reset=8)
    doorbell_interrupt_capable = bit(5, HwInit)
    background_interrupt_capable = bit(6, HwInit)
    interrupt_message_number = bits(10, 7, HwInit, "MSI or MSI-X vector of both interrupts")
    ready_time = bits(18, 11, HwInit, "longest wait for Mailbox Interfaces Ready, in s; 0: not said")
    type = bits(22, 19, HwInit, DeviceType)


class MailboxControl(Register, width=32, spec="CXL 3.1 §8.2.8.4.4"):
    """Mailbox Control Register."""

    doorbell = bit(0, RW1S, "a one submits the command; read-only until the device clears it")
    doorbell_interrupt = bit(1, RW, "interrupt when the doorbell clears")
    background_interrupt = bit(2, RW, "interrupt when a background command completes")


class MailboxCommand(Register, width=64, spec="CXL 3.1 §8.2.8.4.5"):
    """Command Register."""

    opcode = bits(15, 0, RW)
    payload_length = bits(35, 16, RW, "bytes of input; of output when the doorbell has cleared")


class MailboxStatus(Register, width=64, spec="CXL 3.1 §8.2.8.4.6"):
    """Mailbox Status Register."""

    background_operation = bit(0, RO, "a background command is under way")
    return_code = bits(47, 32, RO, "a `ReturnCode`, of the command last submitted")
    vendor_status = bits(63, 48, RO, "vendor-specific extended status")


class BackgroundStatus(Register, width=64, spec="CXL 3.1 §8.2.8.4.7"):
    """Background Command Status Register."""

    opcode = bits(15, 0, RO, "of the background command last started")
    percentage_complete = bits(22, 16, RO, "0 to 100")
    return_code = bits(47, 32, RO, "a `ReturnCode`, once complete")
    vendor_status = bits(63, 48, RO, "vendor-specific extended status")


class Mailbox(Block, size=MAILBOX_PAYLOAD_OFFSET, spec="CXL 3.1 §8.2.8.4"):
    """Mailbox Registers, without the payload that follows them."""

    capabilities = at(0x00, MailboxCapabilities)
    control = at(0x04, MailboxControl)
    command = at(0x08, MailboxCommand)
    status = at(0x10, MailboxStatus)
    background_status = at(0x18, BackgroundStatus)


# -- memory device status ----------------------------------------------------------------------------------

MEMORY_DEVICE_STATUS_VERSION = 1
"""Version of the memory device status capability in CXL 3.1."""


class MediaStatus(enum.IntEnum):
    """Whether the media can be used (CXL 3.1 §8.2.8.5.1.1)."""

    NOT_READY = 0
    READY = 1
    ERROR = 2
    DISABLED = 3


class ResetNeeded(enum.IntEnum):
    """What brings the device back (CXL 3.1 §8.2.8.5.1.1)."""

    NONE = 0
    COLD = 1
    WARM = 2
    HOT = 3
    CXL = 4


class MemoryDeviceStatus(Register, width=64, spec="CXL 3.1 §8.2.8.5.1.1"):
    """Memory Device Status Register."""

    fatal = bit(0, RO, "the device is in a fatal state")
    firmware_halt = bit(1, RO, "firmware has stopped")
    media_status = bits(3, 2, RO, MediaStatus)
    mailbox_ready = bit(4, RO, "the mailboxes accept commands")
    reset_needed = bits(7, 5, RO, ResetNeeded)


class MemoryDevice(Block, size=0x08, spec="CXL 3.1 §8.2.8.5.1"):
    """Memory Device Status Registers."""

    status = at(0x00, MemoryDeviceStatus)
