"""What the memory device is and how its capacity is divided: Identify and the partition commands."""

from __future__ import annotations

from dataclasses import dataclass

from softcxl.device.cci import CommandSet, command
from softcxl.device.firmware import FirmwareCommands
from softcxl.spec.command.memory import (
    CAPACITY_UNIT,
    GET_PARTITION_INFO,
    IDENTIFY_MEMORY_DEVICE,
    GetPartitionInfoResponse,
    IdentifyMemoryDevice,
)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Bytes of volatile and of persistent capacity; DPA 0 is the first byte of the volatile one. Then come the
    device addresses, `dynamic` bytes of them, of dynamic capacity, which is in no total."""

    volatile: int
    persistent: int
    dynamic: int = 0

    def __post_init__(self) -> None:
        for name in ("volatile", "persistent"):
            size = getattr(self, name)
            if size < 0 or size % CAPACITY_UNIT:
                raise ValueError(f"{name} capacity of {size:#x} bytes: multiples of 256 MiB are allowed")
        if not self.end:
            raise ValueError("a memory device has some capacity, volatile, persistent or dynamic")

    @property
    def total(self) -> int:
        return self.volatile + self.persistent

    @property
    def end(self) -> int:
        """The first address that the device does not have."""
        return self.total + self.dynamic


class CapacityCommands(CommandSet):
    """Identify Memory Device and Get Partition Info, of a device whose partitions are fixed."""

    def __init__(
        self,
        capacity: Capacity,
        firmware: FirmwareCommands,
        *,
        event_log_depth: int,
        lsa_size: int,
        poison_list_max: int,
        partition_alignment: int = 0,
    ) -> None:
        self.capacity, self._firmware = capacity, firmware
        self._identity = IdentifyMemoryDevice(
            total_capacity=capacity.total // CAPACITY_UNIT,
            volatile_only_capacity=0 if partition_alignment else capacity.volatile // CAPACITY_UNIT,
            persistent_only_capacity=0 if partition_alignment else capacity.persistent // CAPACITY_UNIT,
            partition_alignment=partition_alignment // CAPACITY_UNIT,
            informational_event_log_size=event_log_depth,
            warning_event_log_size=event_log_depth,
            failure_event_log_size=event_log_depth,
            fatal_event_log_size=event_log_depth,
            lsa_size=lsa_size,
            poison_list_maximum=poison_list_max,
            inject_poison_limit=0,
            dynamic_capacity_event_log_size=event_log_depth if capacity.dynamic else 0,
        )
        self._identity.poison_handling.injects_persistent_poison = True
        qos = self._identity.qos_telemetry
        qos.egress_port_congestion = qos.temporary_throughput_reduction = True

    @command(IDENTIFY_MEMORY_DEVICE)
    def identify(self) -> IdentifyMemoryDevice:
        self._identity.fw_revision = self._firmware.active
        return self._identity

    @command(GET_PARTITION_INFO)
    def get_partition_info(self) -> GetPartitionInfoResponse:
        volatile, persistent = (
            self.capacity.volatile // CAPACITY_UNIT,
            self.capacity.persistent // CAPACITY_UNIT,
        )
        return GetPartitionInfoResponse(
            active_volatile=volatile, active_persistent=persistent, next_volatile=0, next_persistent=0
        )
