"""Event records, by Linux `include/cxl/event.h`, `drivers/cxl/core/trace.h` and QEMU `include/hw/cxl/cxl_events.h`;
UUIDs, by Linux `cxlmem.h` and `include/cxl/features.h`."""

from __future__ import annotations

from uuid import UUID

from softcxl.spec.command import features, logs
from softcxl.spec.cxl import events
from tests.spec.vectors import Mask, Payload, c, u24

# Linux UUID_INIT(a, b, c, d0 .. d7) as it lies in memory: the bytes of the text, in order
UUIDS = [
    ("CXL_EVENT_GEN_MEDIA_UUID", events.GENERAL_MEDIA_EVENT, "fbcd0a77c260417f85a9088b1621eba6"),
    ("CXL_EVENT_DRAM_UUID", events.DRAM_EVENT, "601dcbb39c064eabb8af4e9bfb5c9624"),
    ("CXL_EVENT_MEM_MODULE_UUID", events.MEMORY_MODULE_EVENT, "fe927475dd594339a58679bab113b774"),
    ("CXL_EVENT_MEM_SPARING_UUID", events.MEMORY_SPARING_EVENT, "e71f3a402d2940928a394d1c966c7c65"),
    ("QEMU dynamic_capacity_uuid", events.DYNAMIC_CAPACITY_EVENT, "ca95afa7f18340188c2f95268e101a2a"),
    ("DEFINE_CXL_CEL_UUID", logs.COMMAND_EFFECTS_LOG, "0da9c0b5bf414b788f7996b1623b3f17"),
    ("DEFINE_CXL_VENDOR_DEBUG_UUID", logs.VENDOR_DEBUG_LOG, "5e1819d911a9400c811fd60719403d86"),
    # libcxlmi docs/Generic-Component-Commands.md
    ("libcxlmi state dump", logs.COMPONENT_STATE_DUMP_LOG, "b3fab4cf01b64332943e5e9962f23567"),
    ("libcxlmi ECS log", logs.ECS_LOG, "f1720d60a7a94306a00311948f9e077c"),
    ("libcxlmi test capability", logs.MEDIA_TEST_CAPABILITY_LOG, "e6dfa32cd13e4a5c8ca899bebbf731a4"),
    ("libcxlmi short results", logs.MEDIA_TEST_RESULTS_SHORT_LOG, "2c2555228ce411ecb9090242ac120002"),
    ("libcxlmi long results", logs.MEDIA_TEST_RESULTS_LONG_LOG, "c1fe0b3e7a00448ea24ea6aabbfe587a"),
    ("CXL_FEAT_PATROL_SCRUB_UUID", features.PATROL_SCRUB, "96dad7d6fde8482ba73375774e06db8a"),
    ("CXL_FEAT_ECS_UUID", features.ERROR_CHECK_SCRUB, "e5b13f2223284a14b8bab9691e893386"),
    ("CXL_FEAT_SPPR_UUID", features.SOFT_PPR, "892ba475fad8474e9d3e692c917568bb"),
    ("CXL_FEAT_HPPR_UUID", features.HARD_PPR, "80ea4521786f4127afb1ec7459fb0e24"),
    ("CXL_FEAT_CACHELINE_SPARING_UUID", features.CACHELINE_SPARING, "96c3338691dd44c79ecbfdaf6503bac4"),
    ("CXL_FEAT_ROW_SPARING_UUID", features.ROW_SPARING, "450ebf67b1354f97a498c2d57f279bed"),
    ("CXL_FEAT_BANK_SPARING_UUID", features.BANK_SPARING, "78b7963690ac4b64a4effaac5d18a863"),
    ("CXL_FEAT_RANK_SPARING_UUID", features.RANK_SPARING, "34dbaff5055242818f76da0b5e7a76a7"),
]

_ID_BYTES = bytes.fromhex("00112233445566778899aabbccddeeff")
_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
_COMPONENT = bytes(range(0x40, 0x50))

# Linux uuid_t id and struct cxl_event_record_hdr
_HEADER = c(
    "16sB3sHHQBBHB11x",
    _ID_BYTES,
    0x80,
    u24(0x1FF),
    0x0102,
    0x0304,
    0x0506_0708_090A_0B0C,
    0x0D,
    0x0E,
    0x0F10,
    0x11,
)
_HEADER_FIELDS = {
    "header.identifier": _ID,
    "header.length": 0x80,
    "header.flags": 0x1FF,
    "header.handle": 0x0102,
    "header.related_handle": 0x0304,
    "header.timestamp": 0x0506_0708_090A_0B0C,
    "header.maintenance_class": 0x0D,
    "header.maintenance_subclass": 0x0E,
    "header.ld_id": 0x0F10,
    "header.head_id": 0x11,
}
# Linux struct cxl_event_media_hdr, after its header
_MEDIA = c("QBBBHBB", 0x2000 | 3, 5, 2, 8, 0x01FF, 0x21, 0x22)
_MEDIA_FIELDS = {
    "address.dpa": 0x2000 // 64,
    "address.volatile": True,
    "address.not_repairable": True,
    "descriptor.uncorrectable": True,
    "descriptor.threshold": False,
    "descriptor.poison_list_overflow": True,
    "event_type": 2,
    "transaction_type": events.TransactionType.MEDIA_INITIALIZATION,
    "validity": 0x01FF,
    "channel": 0x21,
    "rank": 0x22,
}
# Linux struct cxl_get_health_info
_HEALTH = c("BBBBhIII", 0xA, 7, 0b11_10_01, 50, -40, 0x61626364, 0x65666768, 0x696A6B6C)
_HEALTH_FIELDS = {
    "health_status.maintenance_needed": False,
    "health_status.performance_degraded": True,
    "health_status.hardware_replacement_needed": False,
    "health_status.memory_capacity_degraded": True,
    "media_status": events.MediaHealth.ALL_DATA_LOSS_ON_POWER_LOSS,
    "additional_status.life_used": events.AdditionalState.WARNING,
    "additional_status.device_temperature": events.AdditionalState.CRITICAL,
    "additional_status.corrected_volatile_errors": True,
    "additional_status.corrected_persistent_errors": True,
    "life_used": 50,
    "device_temperature": -40,
    "dirty_shutdown_count": 0x61626364,
    "corrected_volatile_error_count": 0x65666768,
    "corrected_persistent_error_count": 0x696A6B6C,
}
# QEMU CXLDCExtentRaw
_EXTENT = c("QQ16sH6x", 0x1000_0000, 0x2000_0000, b"t" * 16, 0x0304)
_EXTENT_FIELDS = {
    "start_dpa": 0x1000_0000,
    "length": 0x2000_0000,
    "tag": b"t" * 16,
    "shared_sequence": 0x0304,
}

PAYLOADS = [
    Payload(
        "Linux cxl_event_record_hdr",
        events.EventHeader,
        _HEADER,
        {name.removeprefix("header."): value for name, value in _HEADER_FIELDS.items()},
    ),
    Payload(
        "Linux cxl_event_generic",
        events.EventRecord,
        _HEADER + bytes(range(0x50)),
        _HEADER_FIELDS | {"data": bytes(range(0x50))},
    ),
    Payload(
        "Linux cxl_event_gen_media",
        events.GeneralMediaEvent,
        _HEADER + _MEDIA + c("3s16sB3sB41x", u24(0x232425), _COMPONENT, 3, u24(0x262728), 4),
        _HEADER_FIELDS
        | _MEDIA_FIELDS
        | {
            "device": 0x232425,
            "component_identifier": _COMPONENT,
            "threshold_flags.multiple_components": True,
            "threshold_flags.threshold_exceeded": True,
            "corrected_error_count": 0x262728,
            "sub_type": events.MemoryEventSubType.LINK_DATA_TRAINING_ERROR,
        },
    ),
    Payload(
        "Linux cxl_event_dram",
        events.DramEvent,
        _HEADER
        + _MEDIA
        + c("3sBB3sH", u24(0x232425), 0x26, 0x27, u24(0x28292A), 0x2B2C)
        + c("32s16sBB3sBx", bytes(range(0x60, 0x80)), _COMPONENT, 0x2D, 2, u24(0x2E2F30), 5),
        _HEADER_FIELDS
        | _MEDIA_FIELDS
        | {
            "nibble_mask": 0x232425,
            "bank_group": 0x26,
            "bank": 0x27,
            "row": 0x28292A,
            "column": 0x2B2C,
            "correction_mask": bytes(range(0x60, 0x80)),
            "component_identifier": _COMPONENT,
            "sub_channel": 0x2D,
            "threshold_flags": 2,
            "corrected_error_count": 0x2E2F30,
            "sub_type": events.MemoryEventSubType.LINK_CRC_ERROR,
        },
    ),
    Payload("Linux cxl_get_health_info", events.DeviceHealth, _HEALTH, _HEALTH_FIELDS),
    Payload(
        "Linux cxl_event_mem_module",
        events.MemoryModuleEvent,
        _HEADER + c("B", 3) + _HEALTH + c("H16sB42x", 3, _COMPONENT, 2),
        _HEADER_FIELDS
        | {f"health.{name}": value for name, value in _HEALTH_FIELDS.items()}
        | {
            "event_type": events.MemoryModuleEventType.TEMPERATURE_CHANGE,
            "validity.component_identifier": True,
            "validity.component_identifier_format": True,
            "component_identifier": _COMPONENT,
            "sub_type": events.MemoryModuleSubType.UNSUPPORTED_CONFIG_DATA,
        },
    ),
    Payload(
        "Linux cxl_event_mem_sparing",
        events.MemorySparingEvent,
        _HEADER
        + c("BBBBH6xHBB", 2, 1, 6, 9, 0x03FF, 0x2122, 0x23, 0x24)
        + c("3sBB3sH16sB37x", u24(0x252627), 0x28, 0x29, u24(0x2A2B2C), 0x2D2E, _COMPONENT, 0x2F),
        _HEADER_FIELDS
        | {
            "maintenance_class": 2,
            "maintenance_subclass": 1,
            "flags": 6,
            "result": 9,
            "validity": 0x03FF,
            "resources_available": 0x2122,
            "channel": 0x23,
            "rank": 0x24,
            "nibble_mask": 0x252627,
            "bank_group": 0x28,
            "bank": 0x29,
            "row": 0x2A2B2C,
            "column": 0x2D2E,
            "component_identifier": _COMPONENT,
            "sub_channel": 0x2F,
        },
    ),
    Payload("QEMU CXLDCExtentRaw", events.DynamicCapacityExtent, _EXTENT, _EXTENT_FIELDS),
    Payload(
        "QEMU CXLEventDynamicCapacity",
        events.DynamicCapacityEvent,
        _HEADER + c("BBHBB2x", 4, 1, 0x2223, 0x24, 1) + _EXTENT + c("24xII", 0x25262728, 0x292A2B2C),
        _HEADER_FIELDS
        | {f"extent.{name}": value for name, value in _EXTENT_FIELDS.items()}
        | {
            "event_type": events.DynamicCapacityEventType.ADD_CAPACITY_RESPONSE,
            "validity": 1,
            "host_id": 0x2223,
            "updated_region": 0x24,
            "flags.more": True,
            "extents_available": 0x25262728,
            "tags_available": 0x292A2B2C,
        },
    ),
]

_flags, _gm, _dram, _sparing = (
    events.EventFlags,
    events.GeneralMediaValidity,
    events.DramValidity,
    events.SparingValidity,
)
_parameters = logs.LogParameters
MASKS = [
    Mask("QEMU CXL_LOG_CAP_CLEAR_SUPPORTED", _parameters.clear_supported, 1 << 0),
    Mask("QEMU CXL_LOG_CAP_POPULATE_SUPPORTED", _parameters.populate_supported, 1 << 1),
    Mask("QEMU CXL_LOG_CAP_AUTO_POPULATE_SUPPORTED", _parameters.auto_populate_supported, 1 << 2),
    Mask("QEMU CXL_LOG_CAP_PERSISTENT_COLD_RESET_SUPPORTED", _parameters.persistent, 1 << 3),
    Mask("CXL_EVENT_RECORD_FLAG_PERMANENT", _flags.permanent_condition, 1 << 2),
    Mask("CXL_EVENT_RECORD_FLAG_MAINT_NEEDED", _flags.maintenance_needed, 1 << 3),
    Mask("CXL_EVENT_RECORD_FLAG_PERF_DEGRADED", _flags.performance_degraded, 1 << 4),
    Mask("CXL_EVENT_RECORD_FLAG_HW_REPLACE", _flags.hardware_replacement_needed, 1 << 5),
    Mask("CXL_EVENT_RECORD_FLAG_MAINT_OP_SUB_CLASS_VALID", _flags.maintenance_subclass_valid, 1 << 6),
    Mask("CXL_EVENT_RECORD_FLAG_LD_ID_VALID", _flags.ld_id_valid, 1 << 7),
    Mask("CXL_EVENT_RECORD_FLAG_HEAD_ID_VALID", _flags.head_id_valid, 1 << 8),
    Mask("CXL_DPA_VOLATILE", events.EventAddress.volatile, 1 << 0),
    Mask("CXL_DPA_NOT_REPAIRABLE", events.EventAddress.not_repairable, 1 << 1),
    Mask("CXL_DPA_MASK", events.EventAddress.dpa, 0xFFFF_FFFF_FFFF_FFC0),
    Mask("CXL_GMER_EVT_DESC_UNCORECTABLE_EVENT", events.EventDescriptor.uncorrectable, 1 << 0),
    Mask("CXL_GMER_EVT_DESC_THRESHOLD_EVENT", events.EventDescriptor.threshold, 1 << 1),
    Mask("CXL_GMER_EVT_DESC_POISON_LIST_OVERFLOW", events.EventDescriptor.poison_list_overflow, 1 << 2),
    Mask("CXL_GMER_CME_EV_FLAG_CME_MULTIPLE_MEDIA", events.ThresholdEventFlags.multiple_components, 1 << 0),
    Mask("CXL_GMER_CME_EV_FLAG_THRESHOLD_EXCEEDED", events.ThresholdEventFlags.threshold_exceeded, 1 << 1),
    Mask("CXL_GMER_VALID_CHANNEL", _gm.channel, 1 << 0),
    Mask("CXL_GMER_VALID_RANK", _gm.rank, 1 << 1),
    Mask("CXL_GMER_VALID_DEVICE", _gm.device, 1 << 2),
    Mask("CXL_GMER_VALID_COMPONENT", _gm.component_identifier, 1 << 3),
    Mask("CXL_GMER_VALID_COMPONENT_ID_FORMAT", _gm.component_identifier_format, 1 << 4),
    Mask("CXL_DER_VALID_CHANNEL", _dram.channel, 1 << 0),
    Mask("CXL_DER_VALID_RANK", _dram.rank, 1 << 1),
    Mask("CXL_DER_VALID_NIBBLE", _dram.nibble_mask, 1 << 2),
    Mask("CXL_DER_VALID_BANK_GROUP", _dram.bank_group, 1 << 3),
    Mask("CXL_DER_VALID_BANK", _dram.bank, 1 << 4),
    Mask("CXL_DER_VALID_ROW", _dram.row, 1 << 5),
    Mask("CXL_DER_VALID_COLUMN", _dram.column, 1 << 6),
    Mask("CXL_DER_VALID_CORRECTION_MASK", _dram.correction_mask, 1 << 7),
    Mask("CXL_DER_VALID_COMPONENT", _dram.component_identifier, 1 << 8),
    Mask("CXL_DER_VALID_COMPONENT_ID_FORMAT", _dram.component_identifier_format, 1 << 9),
    Mask("CXL_DER_VALID_SUB_CHANNEL", _dram.sub_channel, 1 << 10),
    Mask("CXL_MMER_VALID_COMPONENT", events.MemoryModuleValidity.component_identifier, 1 << 0),
    Mask(
        "CXL_MMER_VALID_COMPONENT_ID_FORMAT", events.MemoryModuleValidity.component_identifier_format, 1 << 1
    ),
    Mask("CXL_MSER_QUERY_RESOURCE_FLAG", events.SparingFlags.query_resources, 1 << 0),
    Mask("CXL_MSER_HARD_SPARING_FLAG", events.SparingFlags.hard_sparing, 1 << 1),
    Mask("CXL_MSER_DEV_INITED_FLAG", events.SparingFlags.device_initiated, 1 << 2),
    Mask("CXL_MSER_VALID_CHANNEL", _sparing.channel, 1 << 0),
    Mask("CXL_MSER_VALID_RANK", _sparing.rank, 1 << 1),
    Mask("CXL_MSER_VALID_NIBBLE", _sparing.nibble_mask, 1 << 2),
    Mask("CXL_MSER_VALID_BANK_GROUP", _sparing.bank_group, 1 << 3),
    Mask("CXL_MSER_VALID_BANK", _sparing.bank, 1 << 4),
    Mask("CXL_MSER_VALID_ROW", _sparing.row, 1 << 5),
    Mask("CXL_MSER_VALID_COLUMN", _sparing.column, 1 << 6),
    Mask("CXL_MSER_VALID_COMPONENT_ID", _sparing.component_identifier, 1 << 7),
    Mask("CXL_MSER_VALID_COMPONENT_ID_FORMAT", _sparing.component_identifier_format, 1 << 8),
    Mask("CXL_MSER_VALID_SUB_CHANNEL", _sparing.sub_channel, 1 << 9),
]

# (source, member, value): the Windows SDK's cxl.h
NUMBERS = [
    ("CxlSparingResult_Success", events.SparingResult.SUCCESS, 0),
    ("CxlSparingResult_ResourcesExhausted", events.SparingResult.RESOURCES_EXHAUSTED, 1),
    ("CxlSparingResult_GeneralFailure", events.SparingResult.FAILURE, 0xFF),
    ("CxlSpareResources_NoneAvailable", events.SpareResources.NONE, 0),
    ("CxlSpareResources_OneAvailable", events.SpareResources.ONE, 1),
    ("CxlSpareResources_TwoAvailable", events.SpareResources.TWO, 2),
    ("CxlSpareResources_ThreeOrMoreAvailable", events.SpareResources.THREE_OR_MORE, 3),
]

# Linux drivers/cxl/core/trace.h, each list in order from 0
ENUMS = [
    (
        "CXL_GMER_MEM_EVT_TYPE_*",
        events.GeneralMediaEventType,
        [
            "ECC_ERROR",
            "INVALID_ADDRESS",
            "DATA_PATH_ERROR",
            "TE_STATE_VIOLATION",
            "SCRUB_MEDIA_ECC_ERROR",
            "CME_COUNTER_EXPIRATION",
            "CKID_VIOLATION",
        ],
    ),
    (
        "CXL_DER_MEM_EVT_TYPE_*",
        events.DramEventType,
        [
            "MEDIA_ECC_ERROR",
            "SCRUB_MEDIA_ECC_ERROR",
            "INVALID_ADDRESS",
            "DATA_PATH_ERROR",
            "TE_STATE_VIOLATION",
            "CME_COUNTER_EXPIRATION",
            "CKID_VIOLATION",
        ],
    ),
    (
        "CXL_GMER_MEM_EVT_SUB_TYPE_*",
        events.MemoryEventSubType,
        [
            "NOT_REPORTED",
            "INTERNAL_DATAPATH_ERROR",
            "LINK_COMMAND_TRAINING_ERROR",
            "LINK_CONTROL_TRAINING_ERROR",
            "LINK_DATA_TRAINING_ERROR",
            "LINK_CRC_ERROR",
        ],
    ),
    (
        "CXL_GMER_TRANS_*",
        events.TransactionType,
        [
            "UNKNOWN",
            "HOST_READ",
            "HOST_WRITE",
            "HOST_SCAN_MEDIA",
            "HOST_INJECT_POISON",
            "MEDIA_SCRUB",
            "MEDIA_MANAGEMENT",
            "ERROR_CHECK_SCRUB",
            "MEDIA_INITIALIZATION",
        ],
    ),
    (
        "CXL_MMER_*",
        events.MemoryModuleEventType,
        [
            "HEALTH_STATUS_CHANGE",
            "MEDIA_STATUS_CHANGE",
            "LIFE_USED_CHANGE",
            "TEMPERATURE_CHANGE",
            "DATA_PATH_ERROR",
            "LSA_ERROR",
            "UNRECOVERABLE_SIDEBAND_BUS_ERROR",
            "MEDIA_FRU_ERROR",
            "POWER_MANAGEMENT_FAULT",
        ],
    ),
    (
        "CXL_MMER_DEV_EVT_SUB_TYPE_*",
        events.MemoryModuleSubType,
        ["NOT_REPORTED", "INVALID_CONFIG_DATA", "UNSUPPORTED_CONFIG_DATA", "UNSUPPORTED_MEDIA_FRU"],
    ),
    (
        "CXL_DHI_MS_*",
        events.MediaHealth,
        [
            "NORMAL",
            "NOT_READY",
            "WRITE_PERSISTENCY_LOST",
            "ALL_DATA_LOST",
            "WRITE_PERSISTENCY_LOSS_ON_POWER_LOSS",
            "WRITE_PERSISTENCY_LOSS_ON_SHUTDOWN",
            "WRITE_PERSISTENCY_LOSS_IMMINENT",
            "ALL_DATA_LOSS_ON_POWER_LOSS",
            "ALL_DATA_LOSS_ON_SHUTDOWN",
            "ALL_DATA_LOSS_IMMINENT",
        ],
    ),
    ("CXL_DHI_AS_*", events.AdditionalState, ["NORMAL", "WARNING", "CRITICAL"]),
    (
        "QEMU CXLDCEventType",
        events.DynamicCapacityEventType,
        [
            "ADD_CAPACITY",
            "RELEASE_CAPACITY",
            "FORCED_RELEASE_CAPACITY",
            "REGION_CONFIGURATION_UPDATED",
            "ADD_CAPACITY_RESPONSE",
            "CAPACITY_RELEASED",
        ],
    ),
]
