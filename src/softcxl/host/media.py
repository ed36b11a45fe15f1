"""What a host asks its memory devices about their condition: health, firmware, partitions, and poison with where that
is in host addresses. Health, firmware and partitions have the names that ``cxl list`` gives them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any

from softcxl.host import explain
from softcxl.host.errors import AccessError, RegionError
from softcxl.spec.command.firmware import GET_FW_INFO, GetFwInfoResponse
from softcxl.spec.command.health import (
    GET_ALERT_CONFIGURATION,
    GET_HEALTH_INFO,
    Alerts,
    GetAlertConfigurationResponse,
)
from softcxl.spec.command.logs import (
    COMMAND_EFFECTS_LOG,
    GET_LOG,
    GET_SUPPORTED_LOGS,
    GetLogRequest,
    GetSupportedLogsResponse,
)
from softcxl.spec.command.memory import CAPACITY_UNIT, GET_PARTITION_INFO, GetPartitionInfoResponse
from softcxl.spec.command.poison import (
    CLEAR_POISON,
    GET_POISON_LIST,
    INJECT_POISON,
    POISON_UNIT,
    ClearPoisonRequest,
    GetPoisonListRequest,
    GetPoisonListResponse,
    InjectPoisonRequest,
    PoisonSource,
)
from softcxl.spec.cxl.events import AdditionalState, DeviceHealth, MediaHealth

if TYPE_CHECKING:
    from softcxl.host.memdev import Memdev
    from softcxl.host.region import Region
    from softcxl.host.system import System

_SOURCES: dict[int, str] = {
    PoisonSource.UNKNOWN: "Unknown",
    PoisonSource.EXTERNAL: "External",
    PoisonSource.INTERNAL: "Internal",
    PoisonSource.INJECTED: "Injected",
    PoisonSource.VENDOR: "Vendor Specific",
}

_MEDIA = {
    "media_normal": MediaHealth.NORMAL,
    "media_not_ready": MediaHealth.NOT_READY,
    "media_persistence_lost": MediaHealth.WRITE_PERSISTENCY_LOST,
    "media_data_lost": MediaHealth.ALL_DATA_LOST,
    "media_powerloss_persistence_loss": MediaHealth.WRITE_PERSISTENCY_LOSS_ON_POWER_LOSS,
    "media_shutdown_persistence_loss": MediaHealth.WRITE_PERSISTENCY_LOSS_ON_SHUTDOWN,
    "media_persistence_loss_imminent": MediaHealth.WRITE_PERSISTENCY_LOSS_IMMINENT,
    "media_powerloss_data_loss": MediaHealth.ALL_DATA_LOSS_ON_POWER_LOSS,
    "media_shutdown_data_loss": MediaHealth.ALL_DATA_LOSS_ON_SHUTDOWN,
    "media_data_loss_imminent": MediaHealth.ALL_DATA_LOSS_IMMINENT,
}

_CEL_ENTRY = Struct("<HH")
_NOT_REPORTED_LIFE, _NOT_REPORTED_TEMPERATURE = 0xFF, 0x7FFF


@dataclass(frozen=True, slots=True)
class Poison:
    """A poisoned stretch of a device: `length` bytes from `dpa`, which is at `hpa` where a region has it. In host
    addresses a stretch is no longer than the interleave granularity."""

    memdev: Memdev
    dpa: int
    length: int
    source: str
    hpa: int | None = None


@dataclass(frozen=True, slots=True)
class PoisonRecord:
    """A record of a poison list as the device gives it, addresses and lengths in bytes; `flags` and `overflow_time`
    (ns since 1970, 0 without overflow) are those of the answer that it came in."""

    dpa: int
    length: int
    source: int
    flags: int
    overflow_time: int


def poison_records(memdev: Memdev) -> Iterator[PoisonRecord]:
    """The device's poison list, partition by partition. Raises `MailboxError`."""
    for mode in memdev.partitions:
        start, end = memdev.partitions[mode]
        request = GetPoisonListRequest(address=start, length=(end - start) // POISON_UNIT)
        more = True
        while more:
            answer = memdev.mailbox.ask(GET_POISON_LIST, GetPoisonListResponse, request)
            more = answer.flags.more and bool(answer.records)
            overflow = answer.overflow_timestamp if answer.flags.overflow else 0
            for record in answer.records:
                yield PoisonRecord(
                    record.address.dpa * POISON_UNIT,
                    record.length * POISON_UNIT,
                    record.address.source,
                    int(answer.flags),
                    overflow,
                )


def poison(memdev: Memdev) -> Iterator[Poison]:
    """The device's poison list, as it gives it."""
    for one in poison_records(memdev):
        yield Poison(memdev, one.dpa, one.length, _SOURCES.get(one.source, "Reserved"))


def region_poison(system: System, region: Region) -> list[Poison]:
    """The poison in a region, in the order of its addresses."""
    found = []
    for target in region.targets:
        if target is None or target.dpa is None:
            continue
        for one in poison(target.memdev):
            start, end = max(one.dpa, target.dpa[0]), min(one.dpa + one.length, target.dpa[1])
            while start < end:
                # To the end of the granule: there another device's addresses begin.
                offset = (start - target.dpa[0]) % region.granularity
                length = end - start if region.ways == 1 else min(end - start, region.granularity - offset)
                hpa = explain.translate(system, target.memdev, start)
                found.append(Poison(target.memdev, start, length, one.source, hpa))
                start += length
    return sorted(found, key=lambda one: one.hpa or 0)


def injectable(memdev: Memdev) -> bool:
    """Whether its driver offers to inject poison: the device has the command (Linux drivers/cxl/mem.c)."""
    return memdev.endpoint is not None and INJECT_POISON.opcode in _opcodes(memdev)


def _opcodes(memdev: Memdev) -> set[int]:
    """Those of the device's Command Effects Log."""
    box = memdev.mailbox
    logs = box.ask(GET_SUPPORTED_LOGS, GetSupportedLogsResponse).logs
    size = next((one.size for one in logs if one.identifier == COMMAND_EFFECTS_LOG), 0)
    entries = b"".join(
        box.send(
            GET_LOG,
            GetLogRequest(identifier=COMMAND_EFFECTS_LOG, offset=at, length=min(box.payload_max, size - at)),
        )
        for at in range(0, size, box.payload_max)
    )
    return {opcode for opcode, _ in _CEL_ENTRY.iter_unpack(entries)}


def inject(system: System, region: Region, offset: int) -> None:
    """Poison the 64 bytes at `offset` of a region, by a command to the device that has them."""
    way = _line(system, region, offset)
    way.memdev.mailbox.send(INJECT_POISON, InjectPoisonRequest(address=way.dpa))


def clear(system: System, region: Region, offset: int, data: bytes = bytes(POISON_UNIT)) -> None:
    """Take the poison off the 64 bytes at `offset` of a region, by a command; they are `data` then."""
    way = _line(system, region, offset)
    way.memdev.mailbox.send(CLEAR_POISON, ClearPoisonRequest(address=way.dpa, write_data=data))


def _line(system: System, region: Region, offset: int) -> explain.Explanation:
    if not 0 <= offset < region.size or offset % POISON_UNIT:
        raise AccessError(
            f"{region.name}: offset {offset:#x} is not a multiple of 64 within its {region.size:#x} bytes"
        )
    if not region.committed:
        raise RegionError(f"{region.name} is not committed")
    return explain.explain(system, region.hpa + offset)


def health(memdev: Memdev) -> dict[str, Any]:
    """The device's health, as ``cxl list -H`` names it."""
    info = memdev.mailbox.ask(GET_HEALTH_INFO, DeviceHealth)
    status, more = info.health_status, info.additional_status
    answer: dict[str, Any] = {
        "maintenance_needed": status.maintenance_needed,
        "performance_degraded": status.performance_degraded,
        "hw_replacement_needed": status.hardware_replacement_needed,
    }
    answer |= {name: info.media_status == value for name, value in _MEDIA.items()}
    answer |= {
        "ext_life_used": _state(more.life_used),
        "ext_temperature": _state(more.device_temperature),
        "ext_corrected_volatile": _state(more.corrected_volatile_errors),
        "ext_corrected_persistent": _state(more.corrected_persistent_errors),
    }
    if info.life_used != _NOT_REPORTED_LIFE:
        answer["life_used_percent"] = info.life_used
    if info.device_temperature != _NOT_REPORTED_TEMPERATURE:
        answer["temperature"] = info.device_temperature
    return answer | {
        "dirty_shutdowns": info.dirty_shutdown_count,
        "volatile_errors": info.corrected_volatile_error_count,
        "pmem_errors": info.corrected_persistent_error_count,
    }


def alerts(memdev: Memdev) -> dict[str, Any]:
    """The device's thresholds, as ``cxl list -A`` names them; temperatures below 0 °C are 65536 too high there."""
    config = memdev.mailbox.ask(GET_ALERT_CONFIGURATION, GetAlertConfigurationResponse)

    def each(kind: str, of: Alerts) -> dict[str, bool]:
        return {
            f"life_used_prog_warn_threshold_{kind}": of.life_used,
            f"dev_over_temperature_prog_warn_threshold_{kind}": of.over_temperature,
            f"dev_under_temperature_prog_warn_threshold_{kind}": of.under_temperature,
            f"corrected_volatile_mem_err_prog_warn_threshold_{kind}": of.corrected_volatile_errors,
            f"corrected_pmem_err_prog_warn_threshold_{kind}": of.corrected_persistent_errors,
        }

    return {
        **each("valid", config.valid),
        **each("writable", config.programmable),
        "life_used_crit_alert_threshold": config.life_used_critical,
        "life_used_prog_warn_threshold": config.life_used_warning,
        "dev_over_temperature_crit_alert_threshold": config.over_temperature_critical & 0xFFFF,
        "dev_under_temperature_crit_alert_threshold": config.under_temperature_critical & 0xFFFF,
        "dev_over_temperature_prog_warn_threshold": config.over_temperature_warning & 0xFFFF,
        "dev_under_temperature_prog_warn_threshold": config.under_temperature_warning & 0xFFFF,
        "corrected_volatile_mem_err_prog_warn_threshold": config.corrected_volatile_errors_warning,
        "corrected_pmem_err_prog_warn_threshold": config.corrected_persistent_errors_warning,
    }


def _state(value: AdditionalState | bool | int) -> str:
    return {0: "normal", 1: "warning", 2: "critical"}.get(int(value), "unknown")


def partition(memdev: Memdev) -> dict[str, int]:
    """How the device's capacity is divided, as ``cxl list -I`` names it. Sizes in bytes."""
    identity = memdev.identity
    answer = {
        "total_size": identity.total_capacity * CAPACITY_UNIT,
        "volatile_only_size": identity.volatile_only_capacity * CAPACITY_UNIT,
        "persistent_only_size": identity.persistent_only_capacity * CAPACITY_UNIT,
        "partition_alignment_size": identity.partition_alignment * CAPACITY_UNIT,
    }
    if identity.partition_alignment:
        info = memdev.mailbox.ask(GET_PARTITION_INFO, GetPartitionInfoResponse)
        answer |= {
            "active_volatile_size": info.active_volatile * CAPACITY_UNIT,
            "active_persistent_size": info.active_persistent * CAPACITY_UNIT,
            "next_volatile_size": info.next_volatile * CAPACITY_UNIT,
            "next_persistent_size": info.next_persistent * CAPACITY_UNIT,
        }
    return answer


def firmware(memdev: Memdev) -> dict[str, Any]:
    """The device's firmware slots, as ``cxl list -F`` names them."""
    info = memdev.mailbox.ask(GET_FW_INFO, GetFwInfoResponse)
    answer: dict[str, Any] = {"num_slots": info.slots_supported, "active_slot": info.slots.active}
    if 0 < info.slots.staged <= info.slots_supported:
        answer["staged_slot"] = info.slots.staged
    answer["online_activate_capable"] = info.activation.online
    revisions = (info.slot1_revision, info.slot2_revision, info.slot3_revision, info.slot4_revision)
    for number, revision in enumerate(revisions[: info.slots_supported], 1):
        if revision:
            answer[f"slot_{number}_version"] = revision
    return answer | {"fw_update_in_progress": False}
