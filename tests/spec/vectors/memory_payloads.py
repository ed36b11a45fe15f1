"""Payloads of the memory device command sets (40h to 45h), by Linux `drivers/cxl/cxlmem.h`, libcxlmi
`src/cxlmi/api-types.h` and ndctl `cxl/lib/private.h`. Every field has a value of its own."""

from __future__ import annotations

from softcxl.spec.command import (
    health,
    label,
    media,
    memory,
    poison,
    security,
)
from tests.spec.vectors import Payload, c, u24

PAYLOADS = [
    # Memory devices
    Payload(
        "libcxlmi cxlmi_cmd_memdev_identify_rsp",
        memory.IdentifyMemoryDevice,
        c("16sQQQQHHHHI3sHBBH", b"1.2.3", 8, 5, 3, 1, 10, 11, 12, 13, 0x20000, u24(256), 128, 3, 2, 14),
        {
            "fw_revision": "1.2.3",
            "total_capacity": 8,
            "volatile_only_capacity": 5,
            "persistent_only_capacity": 3,
            "partition_alignment": 1,
            "informational_event_log_size": 10,
            "warning_event_log_size": 11,
            "failure_event_log_size": 12,
            "fatal_event_log_size": 13,
            "lsa_size": 0x20000,
            "poison_list_maximum": 256,
            "inject_poison_limit": 128,
            "poison_handling": 3,
            "qos_telemetry": 2,
            "dynamic_capacity_event_log_size": 14,
        },
    ),
    Payload(
        "Linux cxl_mbox_get_partition_info",
        memory.GetPartitionInfoResponse,
        c("QQQQ", 1, 2, 3, 4),
        {"active_volatile": 1, "active_persistent": 2, "next_volatile": 3, "next_persistent": 4},
    ),
    Payload(
        "Linux cxl_mbox_set_partition_info",
        memory.SetPartitionInfoRequest,
        c("QB", 0x0102_0304_0506_0708, 1),
        {"volatile_capacity": 0x0102_0304_0506_0708, "flags.immediate": True},
    ),
    # Label storage
    Payload(
        "Linux cxl_mbox_get_lsa",
        label.GetLsaRequest,
        c("II", 0x01020304, 0x05060708),
        {"offset": 0x01020304, "length": 0x05060708},
    ),
    Payload("QEMU cmd_ccls_get_lsa: the data alone", label.GetLsaResponse, b"labels", {"data": b"labels"}),
    Payload(
        "Linux cxl_mbox_set_lsa",
        label.SetLsaRequest,
        c("I4x", 0x01020304) + b"labels",
        {"offset": 0x01020304, "data": b"labels"},
    ),
    # Health
    Payload(
        "ndctl cxl_cmd_get_alert_config",
        health.GetAlertConfigurationResponse,
        c("BBBBhhhhHH", 0x15, 0x0A, 95, 80, 85, -20, 70, -5, 1000, 2000),
        {
            "valid.life_used": True,
            "valid.over_temperature": False,
            "valid.under_temperature": True,
            "valid.corrected_volatile_errors": False,
            "valid.corrected_persistent_errors": True,
            "programmable": 0x0A,
            "life_used_critical": 95,
            "life_used_warning": 80,
            "over_temperature_critical": 85,
            "under_temperature_critical": -20,
            "over_temperature_warning": 70,
            "under_temperature_warning": -5,
            "corrected_volatile_errors_warning": 1000,
            "corrected_persistent_errors_warning": 2000,
        },
    ),
    Payload(
        "ndctl cxl_cmd_set_alert_config",
        health.SetAlertConfigurationRequest,
        c("BBBxhhHH", 0x1F, 0x03, 80, 70, -5, 1000, 2000),
        {
            "valid": 0x1F,
            "enable": 0x03,
            "life_used_warning": 80,
            "over_temperature_warning": 70,
            "under_temperature_warning": -5,
            "corrected_volatile_errors_warning": 1000,
            "corrected_persistent_errors_warning": 2000,
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_get_shutdown_state_rsp",
        health.GetShutdownStateResponse,
        c("B", 1),
        {"state": health.ShutdownState.DIRTY},
    ),
    Payload(
        "Linux cxl_mbox_set_shutdown_state_in",
        health.SetShutdownStateRequest,
        c("B", 0),
        {"state": health.ShutdownState.CLEAN},
    ),
    # Poison
    Payload(
        "Linux cxl_mbox_poison_in",
        poison.GetPoisonListRequest,
        c("QQ", 0x1000, 0x40),
        {"address": 0x1000, "length": 0x40},
    ),
    Payload(
        "Linux cxl_mbox_poison_out.record",
        poison.MediaErrorRecord,
        c("QI4x", 0x1000_0000_0040 | 3, 2),
        {"address.dpa": 0x1000_0000_0040 // 64, "address.source": poison.PoisonSource.INJECTED, "length": 2},
    ),
    Payload(
        "Linux cxl_mbox_poison_out",
        poison.GetPoisonListResponse,
        c("BxQH20x", 0x7, 0x0102_0304_0506_0708, 1) + c("QI4x", 0x80 | 7, 4),
        {
            "flags.more": True,
            "flags.overflow": True,
            "flags.scan_in_progress": True,
            "overflow_timestamp": 0x0102_0304_0506_0708,
            "count": 1,
            "records.0.address.dpa": 2,
            "records.0.address.source": poison.PoisonSource.VENDOR,
            "records.0.length": 4,
        },
    ),
    Payload(
        "Linux cxl_mbox_inject_poison",
        poison.InjectPoisonRequest,
        c("Q", 0x0102_0304_0506_0740),
        {"address": 0x0102_0304_0506_0740},
    ),
    Payload(
        "Linux cxl_mbox_clear_poison",
        poison.ClearPoisonRequest,
        c("Q64s", 0x40, bytes(range(64))),
        {"address": 0x40, "write_data": bytes(range(64))},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_get_scan_media_capabilities_req",
        poison.ScanMediaRange,
        c("QQ", 0x1000, 0x40),
        {"address": 0x1000, "length": 0x40},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_get_scan_media_capabilities_rsp",
        poison.GetScanMediaCapabilitiesResponse,
        c("I", 0x01020304),
        {"estimated_time": 0x01020304},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_scan_media_req",
        poison.ScanMediaRequest,
        c("QQB", 0x1000, 0x40, 1),
        {"address": 0x1000, "length": 0x40, "flags.no_event_log": True},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_get_scan_media_results_rsp",
        poison.GetScanMediaResultsResponse,
        c("QQBxH12x", 0x2000, 0x80, 1, 1) + c("QI4x", 0x40 | 2, 1),
        {
            "restart_address": 0x2000,
            "restart_length": 0x80,
            "flags.more": True,
            "count": 1,
            "records.0.address.dpa": 1,
            "records.0.address.source": poison.PoisonSource.INTERNAL,
        },
    ),
    # Erasure
    Payload(
        "libcxlmi cxlmi_cmd_memdev_media_ops_dpa_range_list_entry",
        media.DpaRange,
        c("QQ", 0x1000, 0x2000),
        {"start": 0x1000, "length": 0x2000},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_media_operations_sanitize_req",
        media.MediaOperationsRequest,
        c("BB2xI", 1, 1, 2) + c("QQQQ", 0x1000, 0x2000, 0x4000, 0x8000),
        {
            "operation_class": media.MediaOperationClass.SANITIZE,
            "operation_subclass": media.SanitizeSubclass.WRITE_ZEROS,
            "range_count": 2,
            "ranges.0.start": 0x1000,
            "ranges.1.length": 0x8000,
            "arguments": b"",
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_media_operations_discovery_req",
        media.MediaOperationsRequest,
        c("BB2xIHH", 0, 0, 0, 1, 2),
        {
            "operation_class": media.MediaOperationClass.GENERAL,
            "operation_subclass": media.GeneralSubclass.DISCOVERY,
            "ranges": [],
            "arguments": c("HH", 1, 2),
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_media_operations_discovery_req.discovery_osa",
        media.DiscoveryArguments,
        c("HH", 0x0102, 0x0304),
        {"start_index": 0x0102, "count": 0x0304},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_media_ops_supported_list_entry",
        media.SupportedOperation,
        c("BB", 1, 0),
        {"operation_class": 1, "operation_subclass": media.SanitizeSubclass.SANITIZE},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_media_operations_discovery_rsp",
        media.MediaOperationsDiscoveryResponse,
        c("QHHBB", 0x40, 3, 1, 1, 0),
        {"granularity": 0x40, "total": 3, "count": 1, "operations.0.operation_class": 1},
    ),
    # Security
    Payload(
        "libcxlmi cxlmi_cmd_memdev_get_security_state_rsp",
        security.GetSecurityStateResponse,
        c("I", 0x2A),
        {
            "state.user_passphrase_set": False,
            "state.master_passphrase_set": True,
            "state.locked": False,
            "state.frozen": True,
            "state.user_attempts_reached": False,
            "state.master_attempts_reached": True,
        },
    ),
    Payload(
        "Linux cxl_set_pass",
        security.SetPassphraseRequest,
        c("B31x32s32s", 1, b"o" * 32, b"n" * 32),
        {
            "passphrase_type": security.PassphraseType.USER,  # CXL_PMEM_SEC_PASS_USER
            "current_passphrase": b"o" * 32,
            "new_passphrase": b"n" * 32,
        },
    ),
    Payload(
        "Linux cxl_disable_pass",
        security.DisablePassphraseRequest,
        c("B31x32s", 0, b"p" * 32),
        {"passphrase_type": security.PassphraseType.MASTER, "current_passphrase": b"p" * 32},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_unlock_req",
        security.UnlockRequest,
        b"p" * 32,
        {"current_passphrase": b"p" * 32},
    ),
    Payload(
        "Linux cxl_pass_erase",
        security.PassphraseSecureEraseRequest,
        c("B31x32s", 1, b"p" * 32),
        {"passphrase_type": security.PassphraseType.USER, "current_passphrase": b"p" * 32},
    ),
]
