"""Physical switch: what it is, its ports, and whom a virtual switch belongs to (opcodes 5100h to 5107h)."""

from __future__ import annotations

import enum
from typing import Final
from uuid import UUID

from softcxl.spec.command.base import NO_EFFECT, Command
from softcxl.wire import RO, Record, Register, bit, bits, counted, raw, reserved, u8, u16, u32, uuid, word


class IdentifySwitchDeviceResponse(Record, size=0x49, spec="CXL 3.1 §7.6.7.1.1"):
    """Identify Switch Device output payload."""

    ingress_port: int = u8("port that the request came by; of other buses, an index from 0")
    _reserved: None = reserved(1)
    port_count: int = u8("physical ports, those that are disabled too")
    vcs_count: int = u8("virtual CXL switches that there can be")
    active_ports: bytes = raw(0x20, "one bit a port that is enabled, port 0 in bit 0 of the first byte")
    active_vcss: bytes = raw(0x20, "one bit a virtual CXL switch that is enabled")
    vppb_count: int = u16("vPPBs of all virtual CXL switches")
    bound_vppb_count: int = u16()
    hdm_decoder_count: int = u8("of an upstream port")


class GetPhysicalPortStateRequest(Record, size=0x01, spec="CXL 3.1 §7.6.7.1.2"):
    """Get Physical Port State input payload."""

    count: int = u8()
    ports: list[int] = counted(u8, "count", "port IDs")


class PortConfigurationState(enum.IntEnum):
    """Current Port Configuration State (CXL 3.2 §7.6.7.1.2)."""

    DISABLED = 0
    BIND_IN_PROGRESS = 1
    UNBIND_IN_PROGRESS = 2
    DSP = 3
    USP = 4
    FABRIC_PORT = 5
    INVALID_PORT_ID = 0xF


class PortConfiguration(Register, width=8, spec="CXL 3.2 §7.6.7.1.2"):
    """Current Port Configuration State of a port information block."""

    state = bits(3, 0, RO, PortConfigurationState)
    gae = bit(4, RO, "a global memory access endpoint is there; of upstream ports of PBR switches")


class ConnectedDeviceMode(enum.IntEnum):
    """Connected Device Mode (CXL 3.2 §7.6.7.1.2)."""

    NOT_CXL = 0
    RCD = 1
    VH_68B = 2
    FLIT_256B = 3
    LATENCY_OPTIMIZED_256B = 4
    PBR = 5


class ConnectedDevice(Register, width=8, spec="CXL 3.2 §7.6.7.1.2"):
    """Connected Device Mode of a port information block; of downstream ports alone."""

    mode = bits(3, 0, RO, ConnectedDeviceMode)


class ConnectedDeviceType(enum.IntEnum):
    """Connected Device Type (CXL 3.2 §7.6.7.1.2)."""

    NONE = 0
    PCIE = 1
    TYPE_1 = 2
    TYPE_2_OR_HBR_SWITCH = 3
    TYPE_3_SLD = 4
    TYPE_3_MLD = 5
    PBR_COMPONENT = 6


class CxlModes(Register, width=8, spec="CXL 3.2 §7.6.7.1.2"):
    """Supported CXL Modes of a port."""

    rcd = bit(0, RO)
    vh_68b = bit(1, RO)
    flit_256b = bit(2, RO)
    latency_optimized_256b = bit(3, RO)
    pbr = bit(4, RO)


class LtssmState(enum.IntEnum):
    """LTSSM State (CXL 3.2 §7.6.7.1.2)."""

    DETECT = 0
    POLLING = 1
    CONFIGURATION = 2
    RECOVERY = 3
    L0 = 4
    L0S = 5
    L1 = 6
    L2 = 7
    DISABLED = 8
    LOOPBACK = 9
    HOT_RESET = 10


class PortLinkState(Register, width=16, spec="CXL 3.2 §7.6.7.1.2"):
    """Link State Flags of a port."""

    lane_reversal = bit(0, RO)
    perst = bit(1, RO, "PERST# is asserted")
    present = bit(2, RO, "PRSNT# is asserted")
    power_off = bit(3, RO)


class PortInformation(Record, size=0x10, spec="CXL 3.2 §7.6.7.1.2"):
    """Port Information Block. Link widths and speeds are encoded as in the PCIe link capability registers."""

    port: int = u8()
    configuration: PortConfiguration = word(PortConfiguration)
    connected_device: ConnectedDevice = word(ConnectedDevice)
    _reserved: None = reserved(1)
    connected_device_type: int = u8("a `ConnectedDeviceType`")
    supported_modes: CxlModes = word(CxlModes)
    maximum_link_width: int = u8("lanes")
    negotiated_link_width: int = u8("lanes")
    supported_link_speeds: int = u8("one bit a speed, 2.5 GT/s in bit 0")
    maximum_link_speed: int = u8("1: 2.5 GT/s, then a step a generation")
    current_link_speed: int = u8("1: 2.5 GT/s, then a step a generation")
    ltssm_state: int = u8("an `LtssmState`")
    first_lane: int = u8("lowest lane that was negotiated")
    link_state: PortLinkState = word(PortLinkState)
    supported_ld_count: int = u8("logical devices that the port can address")


class GetPhysicalPortStateResponse(Record, size=0x04, spec="CXL 3.1 §7.6.7.1.2"):
    """Get Physical Port State output payload."""

    count: int = u8()
    _reserved: None = reserved(3)
    ports: list[PortInformation] = counted(PortInformation, "count")


class PortOperation(enum.IntEnum):
    """Port Opcode (CXL 3.1 §7.6.7.1.3)."""

    ASSERT_PERST = 0
    DEASSERT_PERST = 1
    RESET_PPB = 2


class PhysicalPortControlRequest(Record, size=0x02, spec="CXL 3.1 §7.6.7.1.3"):
    """Physical Port Control input payload."""

    port: int = u8("PPB ID: the physical port")
    operation: int = u8("a `PortOperation`")


class ConfigurationTransaction(Register, width=24, spec="CXL 3.1 §7.6.7.1.4"):
    """A configuration request: which dword, which of its bytes, which way."""

    register_number = bits(7, 0, RO, "Register Number of the request's header")
    extended_register_number = bits(11, 8, RO, "Extended Register Number of the request's header")
    first_byte_enables = bits(15, 12, RO, "one bit a byte of the dword")
    write = bit(23, RO, "set: write, clear: read")


class SendPpbConfigurationRequest(Record, size=0x08, spec="CXL 3.1 §7.6.7.1.4"):
    """Send PPB CXL.io Configuration Request input payload."""

    port: int = u8("PPB ID: the physical port")
    transaction: ConfigurationTransaction = word(ConfigurationTransaction)
    data: int = u32("to write")


class ConfigurationResponse(Record, size=0x04, spec="CXL 3.1 §7.6.7.1.4"):
    """Output payload of Send PPB and of Send LD CXL.io Configuration Request."""

    data: int = u32("that was read")


class DomainValidationState(enum.IntEnum):
    """Secret Value State (CXL 3.1 §7.6.7.1.5)."""

    NOT_SET = 0
    SET = 1


class DomainValidationStateResponse(Record, size=0x01, spec="CXL 3.1 §7.6.7.1.5"):
    """Output payload of Get Domain Validation SV State, and of Get VCS Domain Validation SV State."""

    state: int = u8("a `DomainValidationState`")


class DomainValidationSv(Record, size=0x10, spec="CXL 3.1 §7.6.7.1.6"):
    """Set Domain Validation SV input payload, and Get Domain Validation SV output payload."""

    secret_value: UUID = uuid("names a host's hierarchy; set once")


class VcsIdRequest(Record, size=0x01, spec="CXL 3.1 §7.6.7.1.7"):
    """Input payload of Get VCS Domain Validation SV State, and of Get Domain Validation SV."""

    vcs: int = u8()


IDENTIFY_SWITCH_DEVICE: Final = Command(
    0x5100,
    "Identify Switch Device",
    None,
    IdentifySwitchDeviceResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.1.1",
)
GET_PHYSICAL_PORT_STATE: Final = Command(
    0x5101,
    "Get Physical Port State",
    GetPhysicalPortStateRequest,
    GetPhysicalPortStateResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.1.2",
)
PHYSICAL_PORT_CONTROL: Final = Command(
    0x5102,
    "Physical Port Control",
    PhysicalPortControlRequest,
    None,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.1.3",
)
SEND_PPB_CXL_IO_CONFIGURATION_REQUEST: Final = Command(
    0x5103,
    "Send PPB CXL.io Configuration Request",
    SendPpbConfigurationRequest,
    ConfigurationResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.1.4",
)
GET_DOMAIN_VALIDATION_SV_STATE: Final = Command(
    0x5104,
    "Get Domain Validation SV State",
    None,
    DomainValidationStateResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.1.5",
)
SET_DOMAIN_VALIDATION_SV: Final = Command(
    0x5105,
    "Set Domain Validation SV",
    DomainValidationSv,
    None,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.1.6",
)
GET_VCS_DOMAIN_VALIDATION_SV_STATE: Final = Command(
    0x5106,
    "Get VCS Domain Validation SV State",
    VcsIdRequest,
    DomainValidationStateResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.1.7",
)
GET_DOMAIN_VALIDATION_SV: Final = Command(
    0x5107,
    "Get Domain Validation SV",
    VcsIdRequest,
    DomainValidationSv,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.1.8",
)

COMMANDS: Final = (
    IDENTIFY_SWITCH_DEVICE,
    GET_PHYSICAL_PORT_STATE,
    PHYSICAL_PORT_CONTROL,
    SEND_PPB_CXL_IO_CONFIGURATION_REQUEST,
    GET_DOMAIN_VALIDATION_SV_STATE,
    SET_DOMAIN_VALIDATION_SV,
    GET_VCS_DOMAIN_VALIDATION_SV_STATE,
    GET_DOMAIN_VALIDATION_SV,
)
