"""Multi-logical devices: memory and bandwidth of logical devices (opcodes 5400h to 5409h)."""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.spec.command.memory import QosTelemetry
from softcxl.spec.command.qos import QosTelemetryControl
from softcxl.wire import Record, counted, reserved, u8, u16, u64, word

MAX_LDS: Final = 16
"""Logical devices of an MLD at most (CXL 3.1 §2.4)."""

_ALLOCATION_CHANGE: Final = CommandEffects.make(
    config_change_after_cold_reset=True,
    immediate_config_change=True,
    immediate_data_change=True,
    reset_effects_valid=True,
    config_change_after_conventional_reset=True,
    config_change_after_cxl_reset=True,
)


class GetLdInfoResponse(Record, size=0x0B, spec="CXL 3.1 §7.6.7.4.1"):
    """Get LD Info output payload."""

    memory_size: int = u64("of the device, in bytes")
    ld_count: int = u16("logical devices that the device supports")
    qos_telemetry: QosTelemetry = word(QosTelemetry)


class MemoryGranularity(enum.IntEnum):
    """Memory Granularity: what allocations are multiples of (CXL 3.1 §7.6.7.4.2)."""

    MIB_256 = 0
    MIB_512 = 1
    GIB_1 = 2


class GetLdAllocationsRequest(Record, size=0x02, spec="CXL 3.1 §7.6.7.4.2"):
    """Get LD Allocations input payload."""

    start: int = u8("LD ID of the first to return")
    limit: int = u8("entries to return at most, 1 or more")


class LdAllocation(Record, size=0x10, spec="CXL 3.1 §7.6.7.4.2"):
    """LD Allocation List entry."""

    range1: int = u64("in multiples of the granularity")
    range2: int = u64("in multiples of the granularity")


class GetLdAllocationsResponse(Record, size=0x04, spec="CXL 3.1 §7.6.7.4.2"):
    """Get LD Allocations output payload."""

    ld_count: int = u8("logical devices that are enabled")
    granularity: int = u8("a `MemoryGranularity`")
    start: int = u8("LD ID of the first entry")
    count: int = u8("entries that follow")
    allocations: list[LdAllocation] = counted(LdAllocation, "count")


class LdAllocations(Record, size=0x04, spec="CXL 3.1 §7.6.7.4.3"):
    """Set LD Allocations payload: as asked for, and as it then is."""

    count: int = u8("logical devices, 1 or more")
    start: int = u8("LD ID of the first")
    _reserved: None = reserved(2)
    allocations: list[LdAllocation] = counted(LdAllocation, "count")


class QosControl(Record, size=0x07, spec="CXL 3.1 §7.6.7.4.4"):
    """Get QoS Control output payload, and Set QoS Control's both."""

    control: QosTelemetryControl = word(QosTelemetryControl)
    egress_moderate_percentage: int = u8("threshold of moderate congestion, 1 to 100", default=10)
    egress_severe_percentage: int = u8("threshold of severe congestion, 1 to 100", default=25)
    backpressure_sample_interval: int = u8("in ns, 0 to 15; 0: not sampled", default=8)
    request_completion_basis: int = u16("ReqCmpBasis: requests and recent responses; 0: no limits")
    completion_collection_interval: int = u8("in ns", default=64)


class GetQosStatusResponse(Record, size=0x01, spec="CXL 3.1 §7.6.7.4.6"):
    """Get QoS Status output payload."""

    backpressure_average_percentage: int = u8("0 to 100")


class QosBandwidthRequest(Record, size=0x02, spec="CXL 3.1 §7.6.7.4.7"):
    """Input payload of Get QoS Allocated BW, and of Get QoS BW Limit."""

    count: int = u8("logical devices, 1 or more")
    start: int = u8("LD ID of the first")


class QosBandwidth(Record, size=0x02, spec="CXL 3.1 §7.6.7.4.7"):
    """Output payload of Get and Set QoS Allocated BW and of Get and Set QoS BW Limit, input of both Sets."""

    count: int = u8("logical devices, 1 or more")
    start: int = u8("LD ID of the first")
    fractions: list[int] = counted(u8, "count", "of the device's bandwidth, in 1/256")


GET_LD_INFO: Final = Command(0x5400, "Get LD Info", None, GetLdInfoResponse, NO_EFFECT, "CXL 3.1 §7.6.7.4.1")
GET_LD_ALLOCATIONS: Final = Command(
    0x5401,
    "Get LD Allocations",
    GetLdAllocationsRequest,
    GetLdAllocationsResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.4.2",
)
SET_LD_ALLOCATIONS: Final = Command(
    0x5402,
    "Set LD Allocations",
    LdAllocations,
    LdAllocations,
    _ALLOCATION_CHANGE,
    "CXL 3.1 §7.6.7.4.3",
)
GET_QOS_CONTROL: Final = Command(
    0x5403,
    "Get QoS Control",
    None,
    QosControl,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.4.4",
)
SET_QOS_CONTROL: Final = Command(
    0x5404,
    "Set QoS Control",
    QosControl,
    QosControl,
    CommandEffects.make(immediate_policy_change=True),
    "CXL 3.1 §7.6.7.4.5",
)
GET_QOS_STATUS: Final = Command(
    0x5405,
    "Get QoS Status",
    None,
    GetQosStatusResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.4.6",
)
GET_QOS_ALLOCATED_BW: Final = Command(
    0x5406,
    "Get QoS Allocated BW",
    QosBandwidthRequest,
    QosBandwidth,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.4.7",
)
SET_QOS_ALLOCATED_BW: Final = Command(
    0x5407,
    "Set QoS Allocated BW",
    QosBandwidth,
    QosBandwidth,
    _ALLOCATION_CHANGE,
    "CXL 3.1 §7.6.7.4.8",
)
GET_QOS_BW_LIMIT: Final = Command(
    0x5408,
    "Get QoS BW Limit",
    QosBandwidthRequest,
    QosBandwidth,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.4.9",
)
SET_QOS_BW_LIMIT: Final = Command(
    0x5409,
    "Set QoS BW Limit",
    QosBandwidth,
    QosBandwidth,
    _ALLOCATION_CHANGE,
    "CXL 3.1 §7.6.7.4.10",
)

COMMANDS: Final = (
    GET_LD_INFO,
    GET_LD_ALLOCATIONS,
    SET_LD_ALLOCATIONS,
    GET_QOS_CONTROL,
    SET_QOS_CONTROL,
    GET_QOS_STATUS,
    GET_QOS_ALLOCATED_BW,
    SET_QOS_ALLOCATED_BW,
    GET_QOS_BW_LIMIT,
    SET_QOS_BW_LIMIT,
)
