"""Event records: 128 bytes, a common header and what its UUID says follows (CXL 3.2 §8.2.10.2.1).

Numbers in records (types, statuses) are plain ints, so that a record of a later revision still unpacks; the
enums beside them name the values known here.
"""

from __future__ import annotations

import enum
from typing import Final
from uuid import UUID

from softcxl.wire import (
    RO,
    Record,
    Register,
    bit,
    bits,
    i16,
    nested,
    raw,
    reserved,
    u8,
    u16,
    u24,
    u32,
    u64,
    uuid,
    word,
)

EVENT_RECORD_SIZE: Final = 0x80

GENERAL_MEDIA_EVENT: Final = UUID("fbcd0a77-c260-417f-85a9-088b1621eba6")
DRAM_EVENT: Final = UUID("601dcbb3-9c06-4eab-b8af-4e9bfb5c9624")
MEMORY_MODULE_EVENT: Final = UUID("fe927475-dd59-4339-a586-79bab113b774")
MEMORY_SPARING_EVENT: Final = UUID("e71f3a40-2d29-4092-8a39-4d1c966c7c65")
DYNAMIC_CAPACITY_EVENT: Final = UUID("ca95afa7-f183-4018-8c2f-95268e101a2a")


class EventSeverity(enum.IntEnum):
    """Event Record Severity (CXL 3.2 Table 8-55)."""

    INFORMATIONAL = 0
    WARNING = 1
    FAILURE = 2
    FATAL = 3


class EventFlags(Register, width=24, spec="CXL 3.2 Table 8-55"):
    """Event Record Flags."""

    severity = bits(1, 0, RO, EventSeverity)
    permanent_condition = bit(2, RO)
    maintenance_needed = bit(3, RO)
    performance_degraded = bit(4, RO)
    hardware_replacement_needed = bit(5, RO)
    maintenance_subclass_valid = bit(6, RO)
    ld_id_valid = bit(7, RO)
    head_id_valid = bit(8, RO)


class EventHeader(Record, size=0x30, spec="CXL 3.2 §8.2.10.2.1, Table 8-55"):
    """What every event record begins with."""

    identifier: UUID = uuid("which record this is")
    length: int = u8("of the whole record, in bytes", default=EVENT_RECORD_SIZE)
    flags: EventFlags = word(EventFlags)
    handle: int = u16("names the record in its log, never 0; the device gives it")
    related_handle: int = u16("of another record of the same event, 0: none")
    timestamp: int = u64("ns since 1970; 0: the clock was not set")
    maintenance_class: int = u8("of the maintenance asked for, 0: none")
    maintenance_subclass: int = u8("where `maintenance_subclass_valid`")
    ld_id: int = u16("where `ld_id_valid`")
    head_id: int = u8("where `head_id_valid`")
    _reserved: None = reserved(0x0B)


class EventRecord(Record, size=EVENT_RECORD_SIZE, spec="CXL 3.2 §8.2.10.2.1"):
    """An event record of any kind, as a log holds it."""

    header: EventHeader = nested(EventHeader)
    data: bytes = raw(0x50, "as `header.identifier` says")


# -- media events ------------------------------------------------------------------------------------------


class EventAddress(Register, width=64, spec="CXL 3.2 Table 8-57"):
    """Physical Address of a media event."""

    volatile = bit(0, RO, "the address is of volatile memory")
    not_repairable = bit(1, RO)
    dpa = bits(63, 6, RO, "device physical address, in units of 64 bytes")


class EventDescriptor(Register, width=8, spec="CXL 3.2 Table 8-57"):
    """Memory Event Descriptor."""

    uncorrectable = bit(0, RO)
    threshold = bit(1, RO, "a count has passed its threshold")
    poison_list_overflow = bit(2, RO)


class ThresholdEventFlags(Register, width=8, spec="CXL 3.2 Table 8-57"):
    """Advanced Programmable Corrected Memory Error Threshold Event Flags."""

    multiple_components = bit(0, RO, "the errors are of several media components")
    threshold_exceeded = bit(1, RO, "set: the programmed threshold, clear: a report was asked for")


class GeneralMediaEventType(enum.IntEnum):
    """Memory Event Type of a general media event (CXL 3.2 Table 8-57)."""

    ECC_ERROR = 0
    INVALID_ADDRESS = 1
    DATA_PATH_ERROR = 2
    TE_STATE_VIOLATION = 3
    SCRUB_MEDIA_ECC_ERROR = 4
    CME_COUNTER_EXPIRATION = 5
    CKID_VIOLATION = 6


class DramEventType(enum.IntEnum):
    """Memory Event Type of a DRAM event (CXL 3.2 Table 8-58)."""

    MEDIA_ECC_ERROR = 0
    SCRUB_MEDIA_ECC_ERROR = 1
    INVALID_ADDRESS = 2
    DATA_PATH_ERROR = 3
    TE_STATE_VIOLATION = 4
    CME_COUNTER_EXPIRATION = 5
    CKID_VIOLATION = 6


class MemoryEventSubType(enum.IntEnum):
    """Memory Event Sub-Type of general media and DRAM events (CXL 3.2 Table 8-57)."""

    NOT_REPORTED = 0
    INTERNAL_DATAPATH_ERROR = 1
    LINK_COMMAND_TRAINING_ERROR = 2
    LINK_CONTROL_TRAINING_ERROR = 3
    LINK_DATA_TRAINING_ERROR = 4
    LINK_CRC_ERROR = 5


class TransactionType(enum.IntEnum):
    """Transaction Type: what met the event (CXL 3.2 Table 8-57)."""

    UNKNOWN = 0
    HOST_READ = 1
    HOST_WRITE = 2
    HOST_SCAN_MEDIA = 3
    HOST_INJECT_POISON = 4
    MEDIA_SCRUB = 5
    MEDIA_MANAGEMENT = 6
    ERROR_CHECK_SCRUB = 7
    MEDIA_INITIALIZATION = 8


class GeneralMediaValidity(Register, width=16, spec="CXL 3.2 Table 8-57"):
    """Validity Flags of a general media event."""

    channel = bit(0, RO)
    rank = bit(1, RO)
    device = bit(2, RO)
    component_identifier = bit(3, RO)
    component_identifier_format = bit(4, RO, "set: the component identifier is a PLDM one")


class GeneralMediaEvent(Record, size=EVENT_RECORD_SIZE, spec="CXL 3.2 §8.2.10.2.1.1, Table 8-57"):
    """General Media Event Record."""

    header: EventHeader = nested(EventHeader)
    address: EventAddress = word(EventAddress)
    descriptor: EventDescriptor = word(EventDescriptor)
    event_type: int = u8("a `GeneralMediaEventType`")
    transaction_type: int = u8("a `TransactionType`")
    validity: GeneralMediaValidity = word(GeneralMediaValidity)
    channel: int = u8()
    rank: int = u8()
    device: int = u24("one bit a device of the rank")
    component_identifier: bytes = raw(0x10)
    threshold_flags: ThresholdEventFlags = word(ThresholdEventFlags)
    corrected_error_count: int = u24()
    sub_type: int = u8("a `MemoryEventSubType`")
    _reserved: None = reserved(0x29)


class DramValidity(Register, width=16, spec="CXL 3.2 Table 8-58"):
    """Validity Flags of a DRAM event."""

    channel = bit(0, RO)
    rank = bit(1, RO)
    nibble_mask = bit(2, RO)
    bank_group = bit(3, RO)
    bank = bit(4, RO)
    row = bit(5, RO)
    column = bit(6, RO)
    correction_mask = bit(7, RO)
    component_identifier = bit(8, RO)
    component_identifier_format = bit(9, RO, "set: the component identifier is a PLDM one")
    sub_channel = bit(10, RO)


class DramEvent(Record, size=EVENT_RECORD_SIZE, spec="CXL 3.2 §8.2.10.2.1.2, Table 8-58"):
    """DRAM Event Record."""

    header: EventHeader = nested(EventHeader)
    address: EventAddress = word(EventAddress)
    descriptor: EventDescriptor = word(EventDescriptor)
    event_type: int = u8("a `DramEventType`")
    transaction_type: int = u8("a `TransactionType`")
    validity: DramValidity = word(DramValidity)
    channel: int = u8()
    rank: int = u8()
    nibble_mask: int = u24("one bit a nibble of the data bus")
    bank_group: int = u8()
    bank: int = u8()
    row: int = u24()
    column: int = u16()
    correction_mask: bytes = raw(0x20, "one bit a bit of the cache line that was corrected")
    component_identifier: bytes = raw(0x10)
    sub_channel: int = u8()
    threshold_flags: ThresholdEventFlags = word(ThresholdEventFlags)
    corrected_error_count: int = u24("of volatile memory")
    sub_type: int = u8("a `MemoryEventSubType`")
    _reserved: None = reserved(0x01)


# -- device health -----------------------------------------------------------------------------------------


class HealthStatus(Register, width=8, spec="CXL 3.1 §8.2.9.9.3.1"):
    """Health Status."""

    maintenance_needed = bit(0, RO)
    performance_degraded = bit(1, RO)
    hardware_replacement_needed = bit(2, RO)
    memory_capacity_degraded = bit(3, RO)


class MediaHealth(enum.IntEnum):
    """Media Status: whether the media keep data (CXL 3.1 §8.2.9.9.3.1)."""

    NORMAL = 0
    NOT_READY = 1
    WRITE_PERSISTENCY_LOST = 2
    ALL_DATA_LOST = 3
    WRITE_PERSISTENCY_LOSS_ON_POWER_LOSS = 4
    WRITE_PERSISTENCY_LOSS_ON_SHUTDOWN = 5
    WRITE_PERSISTENCY_LOSS_IMMINENT = 6
    ALL_DATA_LOSS_ON_POWER_LOSS = 7
    ALL_DATA_LOSS_ON_SHUTDOWN = 8
    ALL_DATA_LOSS_IMMINENT = 9


class AdditionalState(enum.IntEnum):
    """Two-bit states of Additional Status (CXL 3.1 §8.2.9.9.3.1)."""

    NORMAL = 0
    WARNING = 1
    CRITICAL = 2


class AdditionalStatus(Register, width=8, spec="CXL 3.1 §8.2.9.9.3.1"):
    """Additional Status: which thresholds have been passed."""

    life_used = bits(1, 0, RO, AdditionalState)
    device_temperature = bits(3, 2, RO, AdditionalState)
    corrected_volatile_errors = bit(4, RO, "the programmed warning threshold is passed")
    corrected_persistent_errors = bit(5, RO, "the programmed warning threshold is passed")


class DeviceHealth(Record, size=0x12, spec="CXL 3.1 §8.2.9.9.3.1"):
    """Get Health Info output payload, which a memory module event carries too."""

    health_status: HealthStatus = word(HealthStatus)
    media_status: int = u8("a `MediaHealth`")
    additional_status: AdditionalStatus = word(AdditionalStatus)
    life_used: int = u8("percent; FFh: not reported")
    device_temperature: int = i16("in °C; 7FFFh: not reported")
    dirty_shutdown_count: int = u32("times that writes were lost at a shutdown")
    corrected_volatile_error_count: int = u32()
    corrected_persistent_error_count: int = u32()


class MemoryModuleEventType(enum.IntEnum):
    """Device Event Type of a memory module event (CXL 3.2 Table 8-59)."""

    HEALTH_STATUS_CHANGE = 0
    MEDIA_STATUS_CHANGE = 1
    LIFE_USED_CHANGE = 2
    TEMPERATURE_CHANGE = 3
    DATA_PATH_ERROR = 4
    LSA_ERROR = 5
    UNRECOVERABLE_SIDEBAND_BUS_ERROR = 6
    MEDIA_FRU_ERROR = 7
    POWER_MANAGEMENT_FAULT = 8


class MemoryModuleSubType(enum.IntEnum):
    """Device Event Sub-Type of a memory module event (CXL 3.2 Table 8-59)."""

    NOT_REPORTED = 0
    INVALID_CONFIG_DATA = 1
    UNSUPPORTED_CONFIG_DATA = 2
    UNSUPPORTED_MEDIA_FRU = 3


class MemoryModuleValidity(Register, width=16, spec="CXL 3.2 Table 8-59"):
    """Validity Flags of a memory module event."""

    component_identifier = bit(0, RO)
    component_identifier_format = bit(1, RO, "set: the component identifier is a PLDM one")


class MemoryModuleEvent(Record, size=EVENT_RECORD_SIZE, spec="CXL 3.2 §8.2.10.2.1.3, Table 8-59"):
    """Memory Module Event Record."""

    header: EventHeader = nested(EventHeader)
    event_type: int = u8("a `MemoryModuleEventType`")
    health: DeviceHealth = nested(DeviceHealth)
    validity: MemoryModuleValidity = word(MemoryModuleValidity)
    component_identifier: bytes = raw(0x10)
    sub_type: int = u8("a `MemoryModuleSubType`")
    _reserved: None = reserved(0x2A)


# -- memory sparing ----------------------------------------------------------------------------------------


class SparingResult(enum.IntEnum):
    """Result of a memory sparing event (CXL 3.2 Table 8-60)."""

    SUCCESS = 0x00
    RESOURCES_EXHAUSTED = 0x01
    FAILURE = 0xFF


class SpareResources(enum.IntEnum):
    """Spare Resources Available of a memory sparing event (CXL 3.2 Table 8-60)."""

    NONE = 0
    ONE = 1
    TWO = 2
    THREE_OR_MORE = 3


class SparingFlags(Register, width=8, spec="CXL 3.2 Table 8-60"):
    """Flags of a memory sparing event."""

    query_resources = bit(0, RO, "the operation only asked for resources")
    hard_sparing = bit(1, RO, "set: permanent, clear: until the next reset")
    device_initiated = bit(2, RO)


class SparingValidity(Register, width=16, spec="CXL 3.2 Table 8-60"):
    """Validity Flags of a memory sparing event."""

    channel = bit(0, RO)
    rank = bit(1, RO)
    nibble_mask = bit(2, RO)
    bank_group = bit(3, RO)
    bank = bit(4, RO)
    row = bit(5, RO)
    column = bit(6, RO)
    component_identifier = bit(7, RO)
    component_identifier_format = bit(8, RO, "set: the component identifier is a PLDM one")
    sub_channel = bit(9, RO)


class MemorySparingEvent(Record, size=EVENT_RECORD_SIZE, spec="CXL 3.2 §8.2.10.2.1.4, Table 8-60"):
    """Memory Sparing Event Record. The table repeats the header's maintenance class and subclass first."""

    header: EventHeader = nested(EventHeader)
    maintenance_class: int = u8()
    maintenance_subclass: int = u8()
    flags: SparingFlags = word(SparingFlags)
    result: int = u8("a `SparingResult`")
    validity: SparingValidity = word(SparingValidity)
    _reserved1: None = reserved(6)
    resources_available: int = u16("a `SpareResources`")
    channel: int = u8()
    rank: int = u8()
    nibble_mask: int = u24("one bit a nibble of the data bus")
    bank_group: int = u8()
    bank: int = u8()
    row: int = u24()
    column: int = u16()
    component_identifier: bytes = raw(0x10)
    sub_channel: int = u8()
    _reserved2: None = reserved(0x25)


# -- dynamic capacity --------------------------------------------------------------------------------------


class DynamicCapacityExtent(Record, size=0x28, spec="CXL 3.1 §8.2.9.9.9.1"):
    """Dynamic Capacity Extent."""

    start_dpa: int = u64("in bytes")
    length: int = u64("in bytes")
    tag: bytes = raw(0x10, "zero: none")
    shared_sequence: int = u16("position among the extents of a tag in a shareable region, else 0")
    _reserved: None = reserved(6)


class DynamicCapacityEventType(enum.IntEnum):
    """Dynamic Capacity Event Type (CXL 3.1 Table 8-50)."""

    ADD_CAPACITY = 0
    RELEASE_CAPACITY = 1
    FORCED_RELEASE_CAPACITY = 2
    REGION_CONFIGURATION_UPDATED = 3
    ADD_CAPACITY_RESPONSE = 4
    CAPACITY_RELEASED = 5


class DynamicCapacityValidity(Register, width=8, spec="CXL 3.1 Table 8-50"):
    """Validity Flags of a dynamic capacity event."""

    extents_available = bit(0, RO)
    tags_available = bit(1, RO)


class DynamicCapacityFlags(Register, width=8, spec="CXL 3.1 Table 8-50"):
    """Flags of a dynamic capacity event."""

    more = bit(0, RO, "the next record belongs to this one")


class DynamicCapacityEvent(Record, size=EVENT_RECORD_SIZE, spec="CXL 3.1 Table 8-50"):
    """Dynamic Capacity Event Record."""

    header: EventHeader = nested(EventHeader)
    event_type: int = u8("a `DynamicCapacityEventType`")
    validity: DynamicCapacityValidity = word(DynamicCapacityValidity)
    host_id: int = u16("to the fabric manager: the host it is about")
    updated_region: int = u8("of a region configuration update")
    flags: DynamicCapacityFlags = word(DynamicCapacityFlags)
    _reserved1: None = reserved(2)
    extent: DynamicCapacityExtent = nested(DynamicCapacityExtent)
    _reserved2: None = reserved(0x18)
    extents_available: int = u32("that the device can still take")
    tags_available: int = u32("that the device can still take")
