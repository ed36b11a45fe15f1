"""QoS telemetry of a single logical device (opcodes 4700h to 4702h)."""

from __future__ import annotations

from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.wire import RO, Record, Register, bit, u8, word


class QosTelemetryControl(Register, width=8, spec="CXL 3.1 §8.2.9.9.8.1"):
    """QoS Telemetry Control."""

    egress_port_congestion = bit(0, RO, "congestion of the egress port counts in DevLoad")
    temporary_throughput_reduction = bit(1, RO, "a temporary reduction of throughput counts in DevLoad")


class SldQosControl(Record, size=0x04, spec="CXL 3.1 §8.2.9.9.8.1"):
    """Get SLD QoS Control output payload and Set SLD QoS Control input payload."""

    control: QosTelemetryControl = word(QosTelemetryControl)
    egress_moderate_percentage: int = u8("threshold of moderate congestion, 1 to 100", default=10)
    egress_severe_percentage: int = u8("threshold of severe congestion, 1 to 100", default=25)
    backpressure_sample_interval: int = u8("in ns, 0 to 15; 0: not sampled", default=8)


class GetSldQosStatusResponse(Record, size=0x01, spec="CXL 3.1 §8.2.9.9.8.3"):
    """Get SLD QoS Status output payload."""

    backpressure_average_percentage: int = u8("0 to 100")


GET_SLD_QOS_CONTROL: Final = Command(
    0x4700,
    "Get SLD QoS Control",
    None,
    SldQosControl,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.8.1",
)
SET_SLD_QOS_CONTROL: Final = Command(
    0x4701,
    "Set SLD QoS Control",
    SldQosControl,
    None,
    CommandEffects.make(immediate_policy_change=True),
    "CXL 3.1 §8.2.9.9.8.2",
)
GET_SLD_QOS_STATUS: Final = Command(
    0x4702,
    "Get SLD QoS Status",
    None,
    GetSldQosStatusResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.8.3",
)

COMMANDS: Final = (GET_SLD_QOS_CONTROL, SET_SLD_QOS_CONTROL, GET_SLD_QOS_STATUS)
