"""Memory devices: what the device is and how its capacity is divided (opcodes 4000h, 4100h, 4101h)."""

from __future__ import annotations

from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.wire import RO, Record, Register, ascii, bit, u16, u24, u32, u64, word  # noqa: A004

CAPACITY_UNIT: Final = 256 << 20
"""Bytes in a unit of capacity (CXL 3.1 §8.2.9.9.1.1)."""


class PoisonHandling(Register, width=8, spec="CXL 3.1 §8.2.9.9.1.1"):
    """Poison Handling Capabilities."""

    injects_persistent_poison = bit(0, RO, "poison injected is kept over resets")
    scans_for_poison = bit(1, RO, "looks for poison in its media by itself")


class QosTelemetry(Register, width=8, spec="CXL 3.1 §8.2.9.9.1.1"):
    """QoS Telemetry Capabilities."""

    egress_port_congestion = bit(0, RO)
    temporary_throughput_reduction = bit(1, RO)


class IdentifyMemoryDevice(Record, size=0x45, spec="CXL 3.1 §8.2.9.9.1.1"):
    """Identify Memory Device output payload."""

    fw_revision: str = ascii(0x10, "of the active firmware")
    total_capacity: int = u64("in multiples of 256 MiB")
    volatile_only_capacity: int = u64("in multiples of 256 MiB")
    persistent_only_capacity: int = u64("in multiples of 256 MiB")
    partition_alignment: int = u64("in multiples of 256 MiB; 0: capacity cannot be moved between partitions")
    informational_event_log_size: int = u16("records")
    warning_event_log_size: int = u16("records")
    failure_event_log_size: int = u16("records")
    fatal_event_log_size: int = u16("records")
    lsa_size: int = u32("bytes of label storage")
    poison_list_maximum: int = u24("records of the poison list")
    inject_poison_limit: int = u16("addresses that can hold injected poison; 0: no limit")
    poison_handling: PoisonHandling = word(PoisonHandling)
    qos_telemetry: QosTelemetry = word(QosTelemetry)
    dynamic_capacity_event_log_size: int = u16("records")


class GetPartitionInfoResponse(Record, size=0x20, spec="CXL 3.1 §8.2.9.9.2.1"):
    """Get Partition Info output payload."""

    active_volatile: int = u64("in multiples of 256 MiB, what is volatile only included")
    active_persistent: int = u64("in multiples of 256 MiB, what is persistent only included")
    next_volatile: int = u64("after the next cold reset, in multiples of 256 MiB")
    next_persistent: int = u64("after the next cold reset, in multiples of 256 MiB")


class SetPartitionFlags(Register, width=8, spec="CXL 3.1 §8.2.9.9.2.2"):
    """Set Partition Info flags."""

    immediate = bit(0, RO, "set: now, clear: at the next cold reset")


class SetPartitionInfoRequest(Record, size=0x09, spec="CXL 3.1 §8.2.9.9.2.2"):
    """Set Partition Info input payload."""

    volatile_capacity: int = u64("in multiples of 256 MiB, of what can be either")
    flags: SetPartitionFlags = word(SetPartitionFlags)


IDENTIFY_MEMORY_DEVICE: Final = Command(
    0x4000,
    "Identify Memory Device",
    None,
    IdentifyMemoryDevice,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.1.1",
)
GET_PARTITION_INFO: Final = Command(
    0x4100,
    "Get Partition Info",
    None,
    GetPartitionInfoResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.2.1",
)
SET_PARTITION_INFO: Final = Command(
    0x4101,
    "Set Partition Info",
    SetPartitionInfoRequest,
    None,
    CommandEffects.make(
        config_change_after_cold_reset=True,
        immediate_config_change=True,
        immediate_data_change=True,
    ),
    "CXL 3.1 §8.2.9.9.2.2",
    surplus=1,  # Linux (drivers/cxl/core/mbox.c) takes it to have 10 bytes
)

COMMANDS: Final = (IDENTIFY_MEMORY_DEVICE, GET_PARTITION_INFO, SET_PARTITION_INFO)
