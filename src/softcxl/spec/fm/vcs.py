"""Virtual CXL switches: their vPPBs, and what these are bound to (opcodes 5200h to 5203h)."""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.wire import RO, Record, Register, bit, bits, counted, raw, reserved, tail, u8, u16, word

NO_LD: Final = 0xFFFF
"""LD ID of a Bind vPPB to a port whose device is no MLD (CXL 3.1 §7.6.7.2.2)."""

NO_BOUND_LD: Final = 0xFF
"""Bound LD ID of a vPPB that is not bound to a logical device (CXL 3.1 §7.6.7.2.1)."""


class GetVcsInfoRequest(Record, size=0x03, spec="CXL 3.1 §7.6.7.2.1"):
    """Get Virtual CXL Switch Info input payload."""

    start_vppb: int = u8("first vPPB of each switch to return")
    vppb_limit: int = u8("vPPBs of each switch to return at most, 1 or more")
    count: int = u8("1 or more")
    vcss: list[int] = counted(u8, "count", "IDs of virtual CXL switches")


class VcsState(enum.IntEnum):
    """VCS State (CXL 3.1 §7.6.7.2.1)."""

    DISABLED = 0
    ENABLED = 1
    INVALID_VCS_ID = 0xFF


class VcsInformation(Record, size=0x04, spec="CXL 3.1 §7.6.7.2.1"):
    """VCS Information Block, before its vPPBs: as many `VppbInformation`s as the request's limit says, or all."""

    vcs: int = u8()
    state: int = u8("a `VcsState`")
    usp: int = u8("physical port that is its upstream port")
    vppb_count: int = u8("vPPBs that the switch has, not those that follow")


class BindingStatus(enum.IntEnum):
    """vPPB Binding Status (CXL 3.1 §7.6.7.2.1)."""

    UNBOUND = 0
    IN_PROGRESS = 1
    BOUND_PORT = 2
    BOUND_LD = 3
    BOUND_PID = 4


class VppbInformation(Record, size=0x04, spec="CXL 3.1 §7.6.7.2.1"):
    """What a vPPB is bound to, of a VCS Information Block."""

    status: int = u8("a `BindingStatus`")
    port: int = u8("physical port")
    ld: int = u8("LD ID; `NO_BOUND_LD`: none", default=NO_BOUND_LD)
    _reserved: None = reserved(1)


class GetVcsInfoResponse(Record, size=0x04, spec="CXL 3.1 §7.6.7.2.1"):
    """Get Virtual CXL Switch Info output payload.

    Its blocks do not say how long they are: each has the lesser of the request's limit and the switch's vPPBs from
    the request's first on.
    """

    count: int = u8("virtual CXL switches that follow")
    _reserved: None = reserved(3)
    blocks: bytes = tail("for each switch a `VcsInformation` and its `VppbInformation`s")


class BindVppbRequest(Record, size=0x06, spec="CXL 3.1 §7.6.7.2.2"):
    """Bind vPPB input payload."""

    vcs: int = u8()
    vppb: int = u8()
    port: int = u8("physical port")
    _reserved: None = reserved(1)
    ld: int = u16("LD ID; `NO_LD`: the port's device is no MLD", default=NO_LD)


class UnbindOption(enum.IntEnum):
    """Unbind Option (CXL 3.1 §7.6.7.2.3)."""

    WAIT_FOR_LINK_DOWN = 0
    MANAGED_HOT_REMOVE = 1
    SURPRISE_HOT_REMOVE = 2


class UnbindOptions(Register, width=8, spec="CXL 3.1 §7.6.7.2.3"):
    """How a vPPB is unbound."""

    option = bits(3, 0, RO, UnbindOption)


class UnbindVppbRequest(Record, size=0x03, spec="CXL 3.1 §7.6.7.2.3"):
    """Unbind vPPB input payload."""

    vcs: int = u8()
    vppb: int = u8()
    options: UnbindOptions = word(UnbindOptions)


class AerError(Register, width=32, spec="CXL 3.1 §7.6.7.2.4"):
    """AER Error: a bit of an error status register."""

    position = bits(4, 0, RO, "of the bit in the register that the severity says")
    uncorrectable = bit(31, RO, "set: uncorrectable error status, clear: correctable error status")


class GenerateAerEventRequest(Record, size=0x28, spec="CXL 3.1 §7.6.7.2.4"):
    """Generate AER Event input payload."""

    vcs: int = u8()
    vppb: int = u8("0: the upstream port, then downstream ones in order of device and function")
    _reserved: None = reserved(2)
    error: AerError = word(AerError)
    header: bytes = raw(0x20, "TLP header for the header log")


GET_VIRTUAL_CXL_SWITCH_INFO: Final = Command(
    0x5200,
    "Get Virtual CXL Switch Info",
    GetVcsInfoRequest,
    GetVcsInfoResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.2.1",
)
BIND_VPPB: Final = Command(
    0x5201,
    "Bind vPPB",
    BindVppbRequest,
    None,
    CommandEffects.make(background_operation=True),
    "CXL 3.1 §7.6.7.2.2",
)
UNBIND_VPPB: Final = Command(
    0x5202,
    "Unbind vPPB",
    UnbindVppbRequest,
    None,
    CommandEffects.make(background_operation=True),
    "CXL 3.1 §7.6.7.2.3",
)
GENERATE_AER_EVENT: Final = Command(
    0x5203,
    "Generate AER Event",
    GenerateAerEventRequest,
    None,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.2.4",
)

COMMANDS: Final = (GET_VIRTUAL_CXL_SWITCH_INFO, BIND_VPPB, UNBIND_VPPB, GENERATE_AER_EVENT)
