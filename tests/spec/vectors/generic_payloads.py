"""Payloads of the generic command sets (00h to 06h), by Linux `drivers/cxl/cxlmem.h`, `core/edac.c` and
`include/uapi/cxl/features.h`, libcxlmi `src/cxlmi/api-types.h` and QEMU. Every field has a value of its own, so
that two fields that changed places show."""

from __future__ import annotations

from uuid import UUID

from softcxl.spec.command import (
    base,
    events,
    features,
    firmware,
    information,
    logs,
    maintenance,
    timestamp,
)
from tests.spec.vectors import Payload, c, u24

_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
_ID_BYTES = bytes.fromhex("00112233445566778899aabbccddeeff")  # uuid_t: in the order of its text

PAYLOADS = [
    Payload("Linux cxl_cel_entry", base.CelEntry, c("HH", 0x4400, 0x64), {"opcode": 0x4400, "effects": 0x64}),
    # Information and status
    Payload(
        "libcxlmi cxlmi_cmd_identify_rsp",
        information.IdentifyResponse,
        c("HHHHQBB", 0x1AF4, 0x0D93, 0x1234, 0x5678, 0xC0FFEE01, 9, 3),
        {
            "vendor_id": 0x1AF4,
            "device_id": 0x0D93,
            "subsystem_vendor_id": 0x1234,
            "subsystem_id": 0x5678,
            "serial_number": 0xC0FFEE01,
            "max_message_size": 9,
            "component_type": information.ComponentType.TYPE_3,
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_bg_op_status_rsp",
        information.BackgroundOperationStatusResponse,
        c("BxHHH", 1 | 42 << 1, 0x4400, 0x12, 0xBEEF),
        {
            "status.in_progress": True,
            "status.percentage_complete": 42,
            "opcode": 0x4400,
            "return_code": base.ReturnCode.ABORTED,
            "vendor_status": 0xBEEF,
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_get_response_msg_limit_rsp",
        information.ResponseMessageLimit,
        c("B", 12),
        {"limit": 12},
    ),
    # Events
    Payload(
        "libcxlmi cxlmi_cmd_get_event_records_req",
        events.GetEventRecordsRequest,
        c("B", 2),
        {"event_log": events.EventLog.FAILURE},
    ),
    Payload(
        "Linux cxl_get_event_payload",
        events.GetEventRecordsResponse,
        c("BxHQQH10x", 3, 0x1122, 0x1111_2222_3333_4444, 0x5555_6666_7777_8888, 1)
        + c("16sB111x", _ID_BYTES, 0x80),
        {
            "flags.overflow": True,
            "flags.more_event_records": True,
            "overflow_error_count": 0x1122,
            "first_overflow_timestamp": 0x1111_2222_3333_4444,
            "last_overflow_timestamp": 0x5555_6666_7777_8888,
            "record_count": 1,
            "records.0.header.identifier": _ID,
            "records.0.header.length": 0x80,
        },
    ),
    Payload(
        "Linux cxl_mbox_clear_event_payload",
        events.ClearEventRecordsRequest,
        c("BBB3xHHH", 3, 1, 3, 0x0102, 0x0304, 0x0506),
        {
            "event_log": events.EventLog.FATAL,
            "flags.clear_all": True,
            "handle_count": 3,
            "handles": [0x0102, 0x0304, 0x0506],
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_get_event_interrupt_policy_rsp",
        events.GetEventInterruptPolicyResponse,
        c("BBBBB", 0x11, 0x21, 0x31, 0x42, 0x50),
        {
            "informational.mode": events.InterruptMode.MSI,
            "informational.message_number": 1,
            "warning.message_number": 2,
            "failure.message_number": 3,
            "fatal.message_number": 4,
            "fatal.mode": events.InterruptMode.FIRMWARE,
            "dynamic_capacity.message_number": 5,
            "dynamic_capacity.mode": events.InterruptMode.NONE,
        },
    ),
    Payload(
        "Linux cxl_event_interrupt_policy",
        events.SetEventInterruptPolicyRequest,
        c("BBBB", 0x01, 0x02, 0x11, 0x22),
        {
            "informational": 0x01,
            "warning": 0x02,
            "failure": 0x11,
            "fatal": 0x22,
            "dynamic_capacity": [],
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_set_event_interrupt_policy_req",
        events.SetEventInterruptPolicyRequest,
        c("BBBBB", 0x01, 0x02, 0x11, 0x22, 0x31),
        {"fatal": 0x22, "dynamic_capacity": [0x31]},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_get_mctp_event_interrupt_policy_rsp",
        events.MctpEventInterruptPolicy,
        c("H", 0x801F),
        {"settings": 0x801F, "settings.dynamic_capacity": True, "settings.background_operation": True},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_event_notification_req",
        events.EventNotificationRequest,
        c("H", 0x0008),
        {"events.fatal": True, "events.failure": False},
    ),
    # Firmware
    Payload(
        "Linux cxl_mbox_get_fw_info",
        firmware.GetFwInfoResponse,
        c("BBB13x16s16s16s16s", 3, 2 | 1 << 3, 1, b"1.0", b"2.0-rc1", b"", b"0123456789abcdef"),
        {
            "slots_supported": 3,
            "slots.active": 2,
            "slots.staged": 1,
            "activation.online": True,
            "slot1_revision": "1.0",
            "slot2_revision": "2.0-rc1",
            "slot3_revision": "",
            "slot4_revision": "0123456789abcdef",
        },
    ),
    Payload(
        "Linux cxl_mbox_transfer_fw",
        firmware.TransferFwRequest,
        c("BB2xI120x", 3, 2, 0x01020304) + bytes(range(128)),
        {
            "action": firmware.TransferAction.END,
            "slot": 2,
            "offset": 0x01020304,
            "data": bytes(range(128)),
        },
    ),
    Payload(
        "Linux cxl_mbox_activate_fw",
        firmware.ActivateFwRequest,
        c("BB", 1, 3),
        {"action": firmware.ActivateAction.NEXT_COLD_RESET, "slot": 3},
    ),
    # Timestamp
    Payload(
        "Linux cxl_mbox_set_timestamp_in",
        timestamp.Timestamp,
        c("Q", 0x0123_4567_89AB_CDEF),
        {"timestamp": 0x0123_4567_89AB_CDEF},
    ),
    # Logs
    Payload(
        "Linux cxl_gsl_entry",
        logs.SupportedLog,
        c("16sI", _ID_BYTES, 0x01020304),
        {"identifier": _ID, "size": 0x01020304},
    ),
    Payload(
        "Linux cxl_mbox_get_supported_logs",
        logs.GetSupportedLogsResponse,
        c("H6x", 2) + c("16sI", _ID_BYTES, 0x64) + c("16sI", bytes(16), 0x65),
        {"count": 2, "logs.0.identifier": _ID, "logs.0.size": 0x64, "logs.1.size": 0x65},
    ),
    Payload(
        "Linux cxl_mbox_get_log",
        logs.GetLogRequest,
        c("16sII", _ID_BYTES, 0x01020304, 0x05060708),
        {"identifier": _ID, "offset": 0x01020304, "length": 0x05060708},
    ),
    Payload("QEMU cmd_logs_get_log: the log alone", logs.GetLogResponse, b"log", {"data": b"log"}),
    Payload(
        "libcxlmi cxlmi_cmd_get_log_capabilities_req, .._clear_log_req, .._populate_log_req",
        logs.LogIdentifier,
        _ID_BYTES,
        {"identifier": _ID},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_get_log_capabilities_rsp",
        logs.GetLogCapabilitiesResponse,
        c("I", 0x9),
        {"parameters": 0x9},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_get_supported_logs_sublist_req",
        logs.GetSupportedLogsSubListRequest,
        c("BB", 7, 3),
        {"max_entries": 7, "start_index": 3},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_get_supported_logs_sublist_rsp",
        logs.GetSupportedLogsSubListResponse,
        c("BxHB3x", 1, 0x0203, 4) + c("16sI", _ID_BYTES, 5),
        {"count": 1, "total": 0x0203, "start_index": 4, "logs.0.identifier": _ID, "logs.0.size": 5},
    ),
    # Features
    Payload(
        "Linux cxl_mbox_get_sup_feats_in",
        features.GetSupportedFeaturesRequest,
        c("IH2x", 0x01020304, 0x0506),
        {"count": 0x01020304, "starting_index": 0x0506},
    ),
    Payload(
        "Linux cxl_feat_entry",
        features.SupportedFeature,
        c("16sHHHIBBH18x", _ID_BYTES, 0x0102, 0x0304, 0x0506, 0x71, 8, 9, 0x0A02),
        {
            "identifier": _ID,
            "index": 0x0102,
            "get_size": 0x0304,
            "set_size": 0x0506,
            "attributes.changeable": True,  # CXL_FEATURE_F_CHANGEABLE BIT(0)
            "attributes.deepest_reset_persistence": 0,
            "attributes.persists_over_fw_update": True,  # CXL_FEATURE_F_PERSIST_FW_UPDATE BIT(4)
            "attributes.default_selection_supported": True,  # CXL_FEATURE_F_DEFAULT_SEL BIT(5)
            "attributes.saved_selection_supported": True,  # CXL_FEATURE_F_SAVED_SEL BIT(6)
            "get_version": 8,
            "set_version": 9,
            "set_effects": 0x0A02,
        },
    ),
    Payload(
        "Linux cxl_mbox_get_sup_feats_out",
        features.GetSupportedFeaturesResponse,
        c("HH4x", 1, 0x0203) + c("16sH30x", _ID_BYTES, 4),
        {"count": 1, "total": 0x0203, "features.0.identifier": _ID, "features.0.index": 4},
    ),
    Payload(
        "Linux cxl_mbox_get_feat_in",
        features.GetFeatureRequest,
        c("16sHHB", _ID_BYTES, 0x0102, 0x0304, 2),
        {"identifier": _ID, "offset": 0x0102, "count": 0x0304, "selection": features.FeatureSelection.SAVED},
    ),
    Payload(
        "QEMU cmd_features_get_feature: the data alone", features.GetFeatureResponse, b"x", {"data": b"x"}
    ),
    Payload(
        "Linux cxl_mbox_set_feat_in",
        features.SetFeatureRequest,
        c("16sIHB9x", _ID_BYTES, 3 | 1 << 3, 0x0405, 6) + b"data",
        {
            "identifier": _ID,
            "flags.transfer": features.FeatureTransfer.FINISH,  # CXL_SET_FEAT_FLAG_FINISH_DATA_TRANSFER
            "flags.saved_across_reset": True,  # CXL_SET_FEAT_FLAG_DATA_SAVED_ACROSS_RESET BIT(3)
            "offset": 0x0405,
            "version": 6,
            "data": b"data",
        },
    ),
    # Maintenance
    Payload(
        "Linux cxl_memdev_maintenance_pi",
        maintenance.PerformMaintenanceRequest,
        c("BB", 2, 1) + b"data",
        {
            "maintenance_class": maintenance.MaintenanceClass.MEMORY_SPARING,
            "maintenance_subclass": maintenance.SparingSubclass.ROW,
            "data": b"data",
        },
    ),
    Payload(
        "Linux cxl_memdev_ppr_maintenance_attrbs",
        maintenance.PprMaintenance,
        c("BQ3s", 1, 0x0123_4567_89AB_CDC0, u24(0x0A0B0C)),
        {"flags.query_resources": True, "dpa": 0x0123_4567_89AB_CDC0, "nibble_mask": 0x0A0B0C},
    ),
    Payload(
        "Linux cxl_memdev_sparing_in_payload",
        maintenance.SparingMaintenance,
        c("BBB3sBB3sHB", 0xE, 1, 2, u24(0x030405), 6, 7, u24(0x08090A), 0x0B0C, 0xD),
        {
            "flags.query_resources": False,  # CXL_SPARING_QUERY_RESOURCE_FLAG BIT(0)
            "flags.hard_sparing": True,  # CXL_SET_HARD_SPARING_FLAG BIT(1)
            "flags.sub_channel_valid": True,  # CXL_SPARING_SUB_CHNL_VALID_FLAG BIT(2)
            "flags.nibble_mask_valid": True,  # CXL_SPARING_NIB_MASK_VALID_FLAG BIT(3)
            "channel": 1,
            "rank": 2,
            "nibble_mask": 0x030405,
            "bank_group": 6,
            "bank": 7,
            "row": 0x08090A,
            "column": 0x0B0C,
            "sub_channel": 0xD,
        },
    ),
]
