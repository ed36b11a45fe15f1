"""Events recorded in Python, fetched by the kernel at the device's interrupt, printed by its tracepoints.

Expected words are those of the kernel's own tables (drivers/cxl/core/trace.h).
"""

from __future__ import annotations

from uuid import UUID

import pytest

from softcxl import Fabric, Type3
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import (
    DRAM_EVENT,
    GENERAL_MEDIA_EVENT,
    MEMORY_MODULE_EVENT,
    MEMORY_SPARING_EVENT,
    AdditionalStatus,
    DeviceHealth,
    DramEvent,
    DramEventType,
    DramValidity,
    EventAddress,
    EventDescriptor,
    EventFlags,
    EventHeader,
    EventRecord,
    GeneralMediaEvent,
    GeneralMediaEventType,
    GeneralMediaValidity,
    HealthStatus,
    MediaHealth,
    MemoryEventSubType,
    MemoryModuleEvent,
    MemoryModuleEventType,
    MemoryModuleSubType,
    MemoryModuleValidity,
    MemorySparingEvent,
    SparingFlags,
    SparingValidity,
    ThresholdEventFlags,
    TransactionType,
)
from tests.kernel.conftest import Linux
from tests.kernel.listing import check_listing
from tests.kernel.traces import Traces, until

TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, serial: 0xC0FFEE01, event_log_depth: 40}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0]}}
    windows: [{size: 512MiB, targets: [hb0]}]
"""
MIB = 1 << 20
DEPTH = 40
LOGS = {
    EventLog.INFORMATIONAL: "Informational",
    EventLog.WARNING: "Warning",
    EventLog.FAILURE: "Failure",
    EventLog.FATAL: "Fatal",
}
VENDOR_EVENT = UUID("5e6f7a8b-0102-4304-8506-0708090a0b0c")
PLDM = bytes([0b11, *range(0x21, 0x27), *range(0x31, 0x35), *5 * [0]])
"""A component identifier: both parts valid, six bytes of entity, four of resource."""


def test_the_listing_field_by_field(guest: Linux) -> None:
    check_listing(guest, "test_events")


@pytest.fixture
def device(fabric: Fabric) -> Type3:
    return fabric.devices["mem0"]


@pytest.fixture
def traces(guest: Linux) -> Traces:
    return Traces(guest)


def emptied(device: Type3) -> None:
    """The kernel has cleared every log."""
    found = until(
        lambda: {log.name: len(held.records) for log, held in device.events.logs.items()},
        lambda counts: not any(counts.values()),
    )
    assert found == {"INFORMATIONAL": 0, "WARNING": 0, "FAILURE": 0, "FATAL": 0}
    with device.lock:
        assert int(device.status.event_status) == 0


def hex_bytes(data: bytes) -> str:
    return " ".join(f"{byte:02x}" for byte in data)


def general_media() -> GeneralMediaEvent:
    return GeneralMediaEvent(
        header=EventHeader(identifier=GENERAL_MEDIA_EVENT),
        address=EventAddress.make(dpa=0x123440 // 64, volatile=True, not_repairable=True),
    )


@pytest.mark.parametrize("log", LOGS)
def test_a_general_media_event_in_each_log(
    guest: Linux, device: Type3, traces: Traces, log: EventLog
) -> None:
    before = device.timestamp.now()
    event = general_media()
    event.header.flags = EventFlags.make(
        permanent_condition=True, hardware_replacement_needed=True, head_id_valid=True, ld_id_valid=True
    )
    event.header.related_handle = 0x1F2
    event.header.maintenance_class = 2
    event.header.maintenance_subclass = 1
    event.header.ld_id, event.header.head_id = 0xA3, 0x0B
    event.descriptor = EventDescriptor.make(uncorrectable=True, threshold=True)
    event.event_type = GeneralMediaEventType.SCRUB_MEDIA_ECC_ERROR
    event.sub_type = MemoryEventSubType.LINK_CRC_ERROR
    event.transaction_type = TransactionType.MEDIA_SCRUB
    event.validity = GeneralMediaValidity.make(
        channel=True, rank=True, device=True, component_identifier=True, component_identifier_format=True
    )
    event.channel, event.rank, event.device = 7, 3, 0xABCDEF
    event.component_identifier = PLDM
    event.threshold_flags = ThresholdEventFlags.make(threshold_exceeded=True)
    event.corrected_error_count = 0x012345
    assert device.record_event(log, event)
    [seen] = traces.wait("cxl_general_media")
    # the severity is in the lowest two bits of the flags; the kernel has no words for it and prints the rest
    severity = f" | {int(log):#x}" if log else ""
    assert before <= int(seen.pop("time")) <= device.timestamp.now()
    assert 0 < int(seen.pop("handle"), 16) < 0x10000
    assert seen == {
        "memdev": guest.memdev(device),
        "host": "0000:0d:00.0",
        "serial": str(0xC0FFEE01),
        "log": LOGS[log],
        "uuid": str(GENERAL_MEDIA_EVENT),
        "len": "128",
        "flags": "PERMANENT_CONDITION | HARDWARE_REPLACEMENT_NEEDED | LD_ID_VALID | HEAD_ID_VALID" + severity,
        "related_handle": "1f2",
        "maint_op_class": "2",
        "maint_op_sub_class": "1",
        "ld_id": "a3",
        "head_id": "b",
        "dpa": "123440",
        "dpa_flags": "VOLATILE|NOT_REPAIRABLE",
        "descriptor": "UNCORRECTABLE_EVENT|THRESHOLD_EVENT",
        "type": "Scrub Media ECC Error",
        "sub_type": "Media Link CRC Error",
        "transaction_type": "Internal Media Scrub",
        "channel": "7",
        "rank": "3",
        "device": "abcdef",
        "validity_flags": "CHANNEL|RANK|DEVICE|COMPONENT|COMPONENT PLDM FORMAT",
        "comp_id": hex_bytes(PLDM),
        "comp_id_pldm_valid_flags": "PLDM Entity ID | Resource ID",
        "pldm_entity_id": hex_bytes(PLDM[1:7]),
        "pldm_resource_id": hex_bytes(PLDM[7:11]),
        "hpa": "ffffffffffffffff",
        "hpa_alias0": "ffffffffffffffff",
        "region": "",
        "region_uuid": str(UUID(int=0)),
        "cme_threshold_ev_flags": "Exceeded Programmable Threshold",
        "cme_count": str(0x012345),
    }
    emptied(device)


def test_a_dram_event(device: Type3, traces: Traces) -> None:
    correction = bytes(range(0x20))
    device.record_event(
        EventLog.WARNING,
        DramEvent(
            header=EventHeader(identifier=DRAM_EVENT),
            address=EventAddress.make(dpa=0x0FFFFFC0 // 64, volatile=True),
            descriptor=EventDescriptor.make(uncorrectable=True, threshold=True, poison_list_overflow=True),
            event_type=DramEventType.DATA_PATH_ERROR,
            sub_type=MemoryEventSubType.INTERNAL_DATAPATH_ERROR,
            transaction_type=TransactionType.HOST_WRITE,
            validity=DramValidity(0x7FF),
            channel=5,
            rank=6,
            nibble_mask=0x00FF01,
            bank_group=2,
            bank=9,
            row=0x10203,
            column=0x0405,
            correction_mask=correction,
            component_identifier=PLDM,
            sub_channel=1,
            threshold_flags=ThresholdEventFlags.make(multiple_components=True),
            corrected_error_count=17,
        ),
    )
    [seen] = traces.wait("cxl_dram")
    wanted = {
        "log": "Warning",
        "uuid": str(DRAM_EVENT),
        "dpa": "fffffc0",
        "dpa_flags": "VOLATILE",
        "descriptor": "UNCORRECTABLE_EVENT|THRESHOLD_EVENT|POISON_LIST_OVERFLOW",
        "type": "Data Path Error",
        "sub_type": "Internal Datapath Error",
        "transaction_type": "Host Write",
        "channel": "5",
        "rank": "6",
        "nibble_mask": "ff01",
        "bank_group": "2",
        "bank": "9",
        "row": str(0x10203),
        "column": str(0x0405),
        "cor_mask": hex_bytes(correction),
        "validity_flags": "CHANNEL|RANK|NIBBLE|BANK GROUP|BANK|ROW|COLUMN|CORRECTION MASK|COMPONENT"
        "|COMPONENT PLDM FORMAT|SUB CHANNEL",
        "comp_id": hex_bytes(PLDM),
        "pldm_entity_id": hex_bytes(PLDM[1:7]),
        "pldm_resource_id": hex_bytes(PLDM[7:11]),
        "sub_channel": "1",
        "cme_threshold_ev_flags": "Corrected Memory Errors in Multiple Media Components",
        "cvme_count": "17",
    }
    assert {key: seen.get(key) for key in wanted} == wanted
    emptied(device)


def test_a_memory_module_event(device: Type3, traces: Traces) -> None:
    device.record_event(
        EventLog.FATAL,
        MemoryModuleEvent(
            header=EventHeader(identifier=MEMORY_MODULE_EVENT),
            event_type=MemoryModuleEventType.TEMPERATURE_CHANGE,
            sub_type=MemoryModuleSubType.UNSUPPORTED_CONFIG_DATA,
            health=DeviceHealth(
                health_status=HealthStatus.make(maintenance_needed=True, memory_capacity_degraded=True),
                media_status=MediaHealth.WRITE_PERSISTENCY_LOSS_ON_SHUTDOWN,
                additional_status=AdditionalStatus(0b10_0110),
                life_used=87,
                device_temperature=-19,
                dirty_shutdown_count=70000,
                corrected_volatile_error_count=80001,
                corrected_persistent_error_count=3,
            ),
            validity=MemoryModuleValidity(0b11),
            component_identifier=PLDM,
        ),
    )
    [seen] = traces.wait("cxl_memory_module")
    wanted = {
        "log": "Fatal",
        "uuid": str(MEMORY_MODULE_EVENT),
        "event_type": "Temperature Change",
        "event_sub_type": "Unsupported Config Data",
        "health_status": "MAINTENANCE_NEEDED|MEM_CAPACITY_DEGRADED",
        "media_status": "Write Persistency Loss in Event of Shutdown",
        "as_life_used": "Critical",
        "as_dev_temp": "Warning",
        "as_cor_vol_err_cnt": "Normal",
        "as_cor_per_err_cnt": "Warning",
        "life_used": "87",
        "device_temp": "-19",
        "dirty_shutdown_cnt": "70000",
        "cor_vol_err_cnt": "80001",
        "cor_per_err_cnt": "3",
        "validity_flags": "COMPONENT|COMPONENT PLDM FORMAT",
        "comp_id": hex_bytes(PLDM),
        "pldm_entity_id": hex_bytes(PLDM[1:7]),
        "pldm_resource_id": hex_bytes(PLDM[7:11]),
    }
    assert {key: seen.get(key) for key in wanted} == wanted
    emptied(device)


def test_a_memory_sparing_event(device: Type3, traces: Traces) -> None:
    device.record_event(
        EventLog.INFORMATIONAL,
        MemorySparingEvent(
            header=EventHeader(
                identifier=MEMORY_SPARING_EVENT, flags=EventFlags.make(maintenance_subclass_valid=True)
            ),
            flags=SparingFlags.make(hard_sparing=True, device_initiated=True),
            result=4,
            validity=SparingValidity(0x3FF),
            resources_available=300,
            channel=1,
            rank=2,
            nibble_mask=0xF0000F,
            bank_group=3,
            bank=4,
            row=0x0A0B0C,
            column=0x0D0E,
            component_identifier=PLDM,
            sub_channel=1,
        ),
    )
    [seen] = traces.wait("cxl_memory_sparing")
    wanted = {
        "log": "Informational",
        "uuid": str(MEMORY_SPARING_EVENT),
        "flags": "Hard Sparing|Device Initiated Sparing",
        "result": "4",
        "validity_flags": "CHANNEL|RANK|NIBBLE|BANK GROUP|BANK|ROW|COLUMN|COMPONENT ID"
        "|COMPONENT ID PLDM FORMAT|SUB CHANNEL",
        "avail": "300",
        "channel": "1",
        "rank": "2",
        "nibble_mask": "f0000f",
        "bank_group": "3",
        "bank": "4",
        "row": str(0x0A0B0C),
        "column": str(0x0D0E),
        "sub_channel": "1",
        "comp_id": hex_bytes(PLDM),
    }
    assert {key: seen.get(key) for key in wanted} == wanted
    emptied(device)


def test_a_vendors_own_event_is_printed_as_bytes(device: Type3, traces: Traces) -> None:
    data = bytes(range(0xA0, 0xF0))
    device.record_event(EventLog.FAILURE, EventRecord(header=EventHeader(identifier=VENDOR_EVENT), data=data))
    [text] = traces.wait_texts("cxl_generic_event")
    assert "log=Failure : time=" in text
    assert f"uuid={VENDOR_EVENT} " in text
    assert text.endswith(" : " + hex_bytes(data))
    emptied(device)


def test_an_event_in_a_region_is_found_at_its_host_address(
    guest: Linux, device: Type3, traces: Traces
) -> None:
    region = guest.create_region(["mem0"])
    device.record_event(EventLog.WARNING, general_media())
    [seen] = traces.wait("cxl_general_media")
    guest.sh(f"cxl destroy-region -f {region['region']}")
    assert seen["region"] == region["region"]
    assert int(seen["hpa"], 16) == region["resource"] + 0x123440
    assert seen["dpa"] == "123440"


def test_a_log_that_overflows_says_how_many_were_lost_and_between_when(device: Type3, traces: Traces) -> None:
    with device.lock:  # the kernel cannot fetch what it is interrupted for until all are there
        taken = [device.record_event(EventLog.FAILURE, general_media()) for _ in range(DEPTH + 3)]
        first = device.events.logs[EventLog.FAILURE].first_overflow
        last = device.events.logs[EventLog.FAILURE].last_overflow
    assert taken == [True] * DEPTH + [False] * 3
    assert 0 < first <= last
    [text] = traces.wait_texts("cxl_overflow")
    assert text.endswith(f"log=Failure : 3 records from {first} to {last}")
    seen = traces.wait("cxl_general_media", DEPTH)
    handles = [int(one["handle"], 16) for one in seen]
    assert len(set(handles)) == DEPTH
    assert {one["log"] for one in seen} == {"Failure"}
    emptied(device)
    assert device.record_event(EventLog.FAILURE, general_media())
    assert len(traces.wait("cxl_general_media", DEPTH + 1)) == DEPTH + 1
    assert len(traces.texts("cxl_overflow")) == 1


def test_events_of_all_logs_at_once_are_all_fetched(device: Type3, traces: Traces) -> None:
    with device.lock:
        for log in LOGS:
            for _ in range(5):
                assert device.record_event(log, general_media())
    seen = traces.wait("cxl_general_media", 20)
    assert sorted(one["log"] for one in seen) == sorted([*LOGS.values()] * 5)
    emptied(device)


def test_one_event_is_one_interrupt(fabric: Fabric, device: Type3, traces: Traces) -> None:
    door = fabric.open_doors["mem0"]
    before = door.traffic.interrupts
    device.record_event(EventLog.WARNING, general_media())
    traces.wait("cxl_general_media")
    emptied(device)
    assert door.traffic.interrupts - before == 1
    assert door.traffic.interrupts_dropped == 0
