"""Data of features, logs, security passthrough, QoS and dynamic capacity, by Linux `drivers/cxl/core/edac.c`, QEMU
`include/hw/cxl/cxl_device.h` and `hw/cxl/cxl-mailbox-utils.c` (PPR and sparing: Huawei's patches to it), libcxlmi
`src/cxlmi/api-types.h`. Every field has a value of its own."""

from __future__ import annotations

from uuid import UUID

from softcxl.spec.command import dynamic_capacity, events, maintenance, passthrough, qos
from softcxl.spec.cxl import logs, repair, scrub
from tests.spec.vectors import Mask, Payload, c, u24

_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
_ID_BYTES = bytes.fromhex("00112233445566778899aabbccddeeff")
_COMPONENT = bytes(range(0x40, 0x50))

_EXTENT = c("QQ16sH6x", 0x1000_0000, 0x2000_0000, b"t" * 16, 0x0304)  # QEMU CXLDCExtentRaw
_UPDATED = c("QQ8x", 0x3000_0000, 0x4000_0000)
_REGION = c("QQQQIB3x", 0x4000_0000, 5, 0x5000_0000, 0x200000, 0x01020304, 1)
_REGION_FIELDS = {
    "base": 0x4000_0000,
    "decode_length": 5,
    "length": 0x5000_0000,
    "block_size": 0x200000,
    "dsmad_handle": 0x01020304,
    "flags.sanitize_on_release": True,
}
_TEST = c("HBBHHB7x", 0x0102, 3, 4, 0x1F | 5 << 5, 0x0607, 8)
_TEST_FIELDS = {
    "test_id": 0x0102,
    "algorithm": 3,
    "execution_time": 4,
    "attributes.update_poison_list": True,
    "attributes.addressing_modes": 5,
    "patterns": 0x0607,
    "prbs_length": 8,
}
_RESULTS = c("HQQBBII4x", 0x0102, 0x1111, 0x2222, 2, 1, 0x3333, 0x4444)
_RESULTS_FIELDS = {
    "test_id": 0x0102,
    "start_time": 0x1111,
    "end_time": 0x2222,
    "result": logs.MediaTestResult.ABORTED,
    "flags.signatures_overflow": True,
    "uncorrectable_errors": 0x3333,
    "correctable_errors": 0x4444,
}
_SIGNATURE = c("HQHBB", 0x0102, 0x2000 | 1 << 3 | 1 << 1 | 1, 0x07FF, 3, 4) + c(
    "3sBB3sH32s16sB7x", u24(0x050607), 8, 9, u24(0x0A0B0C), 0x0D0E, bytes(range(0x20)), _COMPONENT, 0xF
)
_SIGNATURE_FIELDS = {
    "iteration": 0x0102,
    "address.volatile": True,
    "address.error_type": 1,
    "address.inverse_pattern": True,
    "address.dpa": 0x2000 // 64,
    "validity": 0x07FF,
    "channel": 3,
    "rank": 4,
    "nibble_mask": 0x050607,
    "bank_group": 8,
    "bank": 9,
    "row": 0x0A0B0C,
    "column": 0x0D0E,
    "correction_mask": bytes(range(0x20)),
    "component_identifier": _COMPONENT,
    "sub_channel": 0xF,
}
_LONG = _RESULTS + c("QI4x", 0x5555, 1) + _SIGNATURE
_LONG_FIELDS = _RESULTS_FIELDS | {
    "capacity_tested": 0x5555,
    "signature_count": 1,
    **{f"signatures.0.{name}": value for name, value in _SIGNATURE_FIELDS.items()},
}
_ECS_ENTRY = _COMPONENT + c("HBHBQ4x", 4 | 1 << 3, 1, 0x0203, 4, 0x0506_0708_090A_0B0C)
_ECS_ENTRY_FIELDS = {
    "component_identifier": _COMPONENT,
    "configuration": 0xC,
    "errors.error_found": True,
    "errors.error_count": 0x0203,
    "errors.max_row_errors": 4,
    "errors.max_row_address": 0x0506_0708_090A_0B0C,
}

PAYLOADS = [
    # Scrubbing
    Payload(
        "Linux cxl_scrub_rd_attrbs",
        scrub.PatrolScrubReadable,
        c("BHB", 3, 1 << 8 | 12, 1),
        {
            "capabilities.cycle_changeable": True,
            "capabilities.real_time_reporting": True,
            "cycle.current": 12,
            "cycle.minimum": 1,
            "flags.enable": True,
        },
    ),
    Payload(
        "QEMU CXLMemPatrolScrubWriteAttrs",
        scrub.PatrolScrubWritable,
        c("BB", 24, 1),
        {"cycle": 24, "flags.enable": True},
    ),
    Payload(
        "Linux cxl_ecs_fru_rd_attrbs",
        scrub.EcsFruReadable,
        c("BHB", 1, 5 | 1 << 3, 7),
        {
            "capabilities.real_time_reporting": True,
            "configuration.threshold": scrub.EcsThreshold.COUNT_4096,
            "configuration.count_mode": scrub.EcsCountMode.CODEWORDS,
            "configuration.reset_counter": False,
            "flags": 7,
        },
    ),
    Payload(
        "QEMU CXLMemECSReadAttrs",
        scrub.EcsReadable,
        c("BBHBBHB", 1, 1, 3, 0, 0, 4, 0),
        {
            "log_capabilities.entry_type": scrub.EcsLogEntryType.MEDIA_FRU,
            "frus.0.configuration.threshold": scrub.EcsThreshold.COUNT_256,
            "frus.1.configuration.threshold": scrub.EcsThreshold.COUNT_1024,
        },
    ),
    Payload(
        "Linux cxl_ecs_fru_wr_attrbs",
        scrub.EcsFruWritable,
        c("H", 3 | 1 << 4),
        {"configuration.threshold": scrub.EcsThreshold.COUNT_256, "configuration.reset_counter": True},
    ),
    Payload(
        "QEMU CXLMemECSWriteAttrs",
        scrub.EcsWritable,
        c("BHHH", 0, 3, 4, 5),
        {"log_capabilities": 0, "frus.2.configuration": 5},
    ),
    Payload("standard Table 8-90, entry", scrub.EcsLogEntry, _ECS_ENTRY, _ECS_ENTRY_FIELDS),
    Payload(
        "standard Table 8-90",
        scrub.EcsLog,
        c("I", 1 | 1 << 10 | 1 << 11) + _ECS_ENTRY,
        {
            "header.entry_count": 1,
            "header.component_identifier_format": True,
            "header.entry_type": scrub.EcsLogEntryType.MEDIA_FRU,
            **{f"entries.0.{name}": value for name, value in _ECS_ENTRY_FIELDS.items()},
        },
    ),
    # Repair
    Payload(
        "Linux cxl_memdev_ppr_rd_attrbs",
        repair.PprReadable,
        c("BHHBB9xBHB", 0x11, 1, 0x0100, 1, 0, 0xF, 5, 3),
        {
            "maximum_latency": 0x11,
            "capabilities.device_initiated": True,
            "mode.device_initiated": False,
            "maintenance_class": maintenance.MaintenanceClass.PPR,
            "maintenance_subclass": maintenance.PprSubclass.SOFT,
            "ppr_capabilities.dpa": True,
            "ppr_capabilities.device_initiated_at_boot": True,
            "restrictions.media_inaccessible": True,
            "restrictions.data_lost": True,
            "ppr_mode.sparing_event_record": True,
            "ppr_mode.device_initiated_at_boot": True,
        },
    ),
    Payload(
        "QEMU CXLMemSoftPPRWriteAttrs",
        repair.PprWritable,
        c("HB", 1, 2),
        {"mode.device_initiated": True, "ppr_mode.device_initiated_at_boot": True},
    ),
    Payload(
        "Linux cxl_memdev_sparing_rd_attrbs",
        repair.SparingReadable,
        c("BHHBB9xxH", 0x12, 0, 1, 2, 3, 6),
        {
            "maximum_latency": 0x12,
            "capabilities.device_initiated": False,
            "mode.device_initiated": True,
            "maintenance_class": maintenance.MaintenanceClass.MEMORY_SPARING,
            "maintenance_subclass": maintenance.SparingSubclass.RANK,
            "restrictions.unsafe_in_use": False,
            "restrictions.hard_sparing": True,
            "restrictions.soft_sparing": True,
        },
    ),
    Payload(
        "QEMU CXLMemSparingWriteAttrs", repair.SparingWritable, c("H", 1), {"mode.device_initiated": True}
    ),
    # Logs
    Payload(
        "standard Table 8-89",
        logs.ComponentStateDump,
        c("IBBHQ16sI28x", 4, 5, 2, 0x0607, 0x0809, _ID_BYTES, 1) + b"dump",
        {
            "data_length": 4,
            "auto_populate_count": 5,
            "event_log": events.EventLog.FAILURE,
            "event_record_handle": 0x0607,
            "timestamp": 0x0809,
            "format": _ID,
            "flags.auto_populated": True,
            "data": b"dump",
        },
    ),
    Payload("standard Table 8-93", logs.MediaTest, _TEST, _TEST_FIELDS),
    Payload(
        "standard Table 8-92",
        logs.MediaTestCapabilityLog,
        c("BIBBB8x", 1, 0x02030405, 6, 7, 8) + _TEST,
        {
            "count": 1,
            "error_signatures": 0x02030405,
            "long_log_version": 6,
            "short_log_version": 7,
            "capabilities.metadata_area_testing": True,
            **{f"tests.0.{name}": value for name, value in _TEST_FIELDS.items()},
        },
    ),
    Payload("standard Table 8-96", logs.MediaTestResults, _RESULTS, _RESULTS_FIELDS),
    Payload(
        "standard Table 8-95",
        logs.MediaTestResultsShortLog,
        c("BBB13x", 1, 1, 3) + _RESULTS,
        {
            "count": 1,
            "version": 1,
            "result": logs.MediaTestsResult.ABORTED_AFTER_FAILURE,
            "results.0.test_id": 0x0102,
        },
    ),
    Payload("standard Table 8-100", logs.ErrorSignature, _SIGNATURE, _SIGNATURE_FIELDS),
    Payload("standard Table 8-99", logs.MediaTestLongResults, _LONG, _LONG_FIELDS),
    Payload(
        "standard Table 8-98",
        logs.MediaTestResultsLongLog,
        c("BBB13x", 2, 1, 2) + _LONG + _LONG,
        {
            "count": 2,
            "version": 1,
            "result": logs.MediaTestsResult.ABORTED,
            **{f"results.1.{name}": value for name, value in _LONG_FIELDS.items()},
        },
    ),
    # Security passthrough
    Payload(
        "libcxlmi cxlmi_cmd_memdev_security_send_req",
        passthrough.SecuritySendRequest,
        c("BH5x", 0xEF, 0x0102) + b"data",
        {"protocol": 0xEF, "protocol_specific": 0x0102, "data": b"data"},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_security_receive_req",
        passthrough.SecurityReceiveRequest,
        c("BH5x", 0xEF, 0x0102),
        {"protocol": 0xEF, "protocol_specific": 0x0102},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_security_receive: the data alone",
        passthrough.SecurityReceiveResponse,
        b"data",
        {"data": b"data"},
    ),
    # QoS
    Payload(
        "libcxlmi cxlmi_cmd_memdev_get_sld_qos_control_rsp",
        qos.SldQosControl,
        c("BBBB", 2, 11, 26, 9),
        {
            "control.egress_port_congestion": False,
            "control.temporary_throughput_reduction": True,
            "egress_moderate_percentage": 11,
            "egress_severe_percentage": 26,
            "backpressure_sample_interval": 9,
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_get_sld_qos_status_rsp",
        qos.GetSldQosStatusResponse,
        c("B", 42),
        {"backpressure_average_percentage": 42},
    ),
    # Dynamic capacity
    Payload(
        "libcxlmi cxlmi_cmd_memdev_get_dc_config_req",
        dynamic_capacity.GetDcConfigurationRequest,
        c("BB", 8, 2),
        {"count": 8, "start_index": 2},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_get_dc_config_rsp.region_configs",
        dynamic_capacity.DcRegion,
        _REGION,
        _REGION_FIELDS,
    ),
    Payload(
        "QEMU cmd_dcd_get_dyn_cap_config",
        dynamic_capacity.GetDcConfigurationResponse,
        c("BB6x", 3, 1) + _REGION + c("IIII", 0x11, 0x12, 0x13, 0x14),
        {
            "available": 3,
            "count": 1,
            **{f"regions.0.{name}": value for name, value in _REGION_FIELDS.items()},
            "extents_supported": 0x11,
            "extents_available": 0x12,
            "tags_supported": 0x13,
            "tags_available": 0x14,
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_get_dc_extent_list_req",
        dynamic_capacity.GetDcExtentListRequest,
        c("II", 0x0102, 0x0304),
        {"count": 0x0102, "start_index": 0x0304},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_memdev_get_dc_extent_list_rsp",
        dynamic_capacity.GetDcExtentListResponse,
        c("III4x", 1, 0x0203, 0x0405) + _EXTENT,
        {
            "count": 1,
            "total": 0x0203,
            "generation": 0x0405,
            "extents.0.start_dpa": 0x1000_0000,
            "extents.0.length": 0x2000_0000,
            "extents.0.tag": b"t" * 16,
            "extents.0.shared_sequence": 0x0304,
        },
    ),
    Payload(
        "QEMU CXLUpdateDCExtentListInPl.updated_entries",
        dynamic_capacity.UpdatedExtent,
        _UPDATED,
        {"start_dpa": 0x3000_0000, "length": 0x4000_0000},
    ),
    Payload(
        "QEMU CXLUpdateDCExtentListInPl",
        dynamic_capacity.UpdateExtentListRequest,
        c("IB3x", 2, 1) + _UPDATED + _UPDATED,
        {"count": 2, "flags.more": True, "extents.1.length": 0x4000_0000},
    ),
]

MASKS = [
    Mask("CXL_SCRUB_CONTROL_CHANGEABLE", scrub.PatrolScrubCapabilities.cycle_changeable, 1 << 0),
    Mask("CXL_SCRUB_CONTROL_REALTIME", scrub.PatrolScrubCapabilities.real_time_reporting, 1 << 1),
    Mask("CXL_SCRUB_CONTROL_CYCLE_MASK", scrub.PatrolScrubCycle.current, 0x00FF),
    Mask("CXL_SCRUB_CONTROL_MIN_CYCLE_MASK", scrub.PatrolScrubCycle.minimum, 0xFF00),
    Mask("CXL_SCRUB_CONTROL_ENABLE", scrub.PatrolScrubFlags.enable, 1 << 0),
    Mask("CXL_ECS_LOG_ENTRY_TYPE_MASK", scrub.EcsLogCapabilities.entry_type, 0x3),
    Mask("CXL_ECS_REALTIME_REPORT_CAP_MASK", scrub.EcsCapabilities.real_time_reporting, 1 << 0),
    Mask("CXL_ECS_THRESHOLD_COUNT_MASK", scrub.EcsConfiguration.threshold, 0x7),
    Mask("CXL_ECS_COUNT_MODE_MASK", scrub.EcsConfiguration.count_mode, 1 << 3),
    Mask("CXL_ECS_RESET_COUNTER_MASK", scrub.EcsConfiguration.reset_counter, 1 << 4),
    Mask("CXL_PPR_OP_CAP_DEVICE_INITIATED", repair.MaintenanceCapabilities.device_initiated, 1 << 0),
    Mask("CXL_PPR_OP_MODE_DEV_INITIATED", repair.MaintenanceMode.device_initiated, 1 << 0),
    Mask("CXL_PPR_FLAG_DPA_SUPPORT_MASK", repair.PprCapabilities.dpa, 1 << 0),
    Mask("CXL_PPR_FLAG_NIB_SUPPORT_MASK", repair.PprCapabilities.nibble_mask, 1 << 1),
    Mask("CXL_PPR_FLAG_MEM_SPARING_EV_REC_..", repair.PprCapabilities.sparing_event_record, 1 << 2),
    Mask("CXL_PPR_FLAG_DEV_INITED_PPR_AT_BOOT_..", repair.PprCapabilities.device_initiated_at_boot, 1 << 3),
    Mask("CXL_PPR_RESTRICTION_FLAG_MEDIA_ACCESSIBLE_MASK", repair.PprRestrictions.media_inaccessible, 1 << 0),
    Mask("CXL_PPR_RESTRICTION_FLAG_DATA_RETAINED_MASK", repair.PprRestrictions.data_lost, 1 << 2),
    Mask("CXL_PPR_SPARING_EV_REC_EN_MASK", repair.PprMode.sparing_event_record, 1 << 0),
    Mask("CXL_PPR_DEV_INITED_PPR_AT_BOOT_EN_MASK", repair.PprMode.device_initiated_at_boot, 1 << 1),
    Mask("CXL_SPARING_RD_CAP_SAFE_IN_USE_MASK", repair.SparingRestrictions.unsafe_in_use, 1 << 0),
    Mask("CXL_SPARING_RD_CAP_HARD_SPARING_MASK", repair.SparingRestrictions.hard_sparing, 1 << 1),
    Mask("CXL_SPARING_RD_CAP_SOFT_SPARING_MASK", repair.SparingRestrictions.soft_sparing, 1 << 2),
]
