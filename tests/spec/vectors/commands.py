"""Commands as drivers and devices know them: opcodes, sizes, effects, return codes."""

from __future__ import annotations

from softcxl.spec.command import (
    base,
    dynamic_capacity,
    events,
    features,
    firmware,
    health,
    information,
    label,
    logs,
    maintenance,
    media,
    memory,
    passthrough,
    poison,
    qos,
    security,
    timestamp,
)
from softcxl.spec.fm import dcd, mhd, mld, mld_port, switch, vcs

# Linux enum cxl_opcode
OPCODES = {
    "GET_EVENT_RECORD": (0x0100, events.GET_EVENT_RECORDS),
    "CLEAR_EVENT_RECORD": (0x0101, events.CLEAR_EVENT_RECORDS),
    "GET_EVT_INT_POLICY": (0x0102, events.GET_EVENT_INTERRUPT_POLICY),
    "SET_EVT_INT_POLICY": (0x0103, events.SET_EVENT_INTERRUPT_POLICY),
    "GET_FW_INFO": (0x0200, firmware.GET_FW_INFO),
    "TRANSFER_FW": (0x0201, firmware.TRANSFER_FW),
    "ACTIVATE_FW": (0x0202, firmware.ACTIVATE_FW),
    "GET_TIMESTAMP": (0x0300, timestamp.GET_TIMESTAMP),
    "SET_TIMESTAMP": (0x0301, timestamp.SET_TIMESTAMP),
    "GET_SUPPORTED_LOGS": (0x0400, logs.GET_SUPPORTED_LOGS),
    "GET_LOG": (0x0401, logs.GET_LOG),
    "GET_LOG_CAPS": (0x0402, logs.GET_LOG_CAPABILITIES),
    "CLEAR_LOG": (0x0403, logs.CLEAR_LOG),
    "GET_SUP_LOG_SUBLIST": (0x0405, logs.GET_SUPPORTED_LOGS_SUB_LIST),
    "GET_SUPPORTED_FEATURES": (0x0500, features.GET_SUPPORTED_FEATURES),
    "GET_FEATURE": (0x0501, features.GET_FEATURE),
    "SET_FEATURE": (0x0502, features.SET_FEATURE),
    "DO_MAINTENANCE": (0x0600, maintenance.PERFORM_MAINTENANCE),
    "IDENTIFY": (0x4000, memory.IDENTIFY_MEMORY_DEVICE),
    "GET_PARTITION_INFO": (0x4100, memory.GET_PARTITION_INFO),
    "SET_PARTITION_INFO": (0x4101, memory.SET_PARTITION_INFO),
    "GET_LSA": (0x4102, label.GET_LSA),
    "SET_LSA": (0x4103, label.SET_LSA),
    "GET_HEALTH_INFO": (0x4200, health.GET_HEALTH_INFO),
    "GET_ALERT_CONFIG": (0x4201, health.GET_ALERT_CONFIGURATION),
    "SET_ALERT_CONFIG": (0x4202, health.SET_ALERT_CONFIGURATION),
    "GET_SHUTDOWN_STATE": (0x4203, health.GET_SHUTDOWN_STATE),
    "SET_SHUTDOWN_STATE": (0x4204, health.SET_SHUTDOWN_STATE),
    "GET_POISON": (0x4300, poison.GET_POISON_LIST),
    "INJECT_POISON": (0x4301, poison.INJECT_POISON),
    "CLEAR_POISON": (0x4302, poison.CLEAR_POISON),
    "GET_SCAN_MEDIA_CAPS": (0x4303, poison.GET_SCAN_MEDIA_CAPABILITIES),
    "SCAN_MEDIA": (0x4304, poison.SCAN_MEDIA),
    "GET_SCAN_MEDIA": (0x4305, poison.GET_SCAN_MEDIA_RESULTS),
    "SANITIZE": (0x4400, media.SANITIZE),
    "SECURE_ERASE": (0x4401, media.SECURE_ERASE),
    "GET_SECURITY_STATE": (0x4500, security.GET_SECURITY_STATE),
    "SET_PASSPHRASE": (0x4501, security.SET_PASSPHRASE),
    "DISABLE_PASSPHRASE": (0x4502, security.DISABLE_PASSPHRASE),
    "UNLOCK": (0x4503, security.UNLOCK),
    "FREEZE_SECURITY": (0x4504, security.FREEZE_SECURITY_STATE),
    "PASSPHRASE_SECURE_ERASE": (0x4505, security.PASSPHRASE_SECURE_ERASE),
    # libcxlmi src/cxlmi/private.h: command set and command
    "libcxlmi IS_IDENTIFY": (0x0001, information.IDENTIFY),
    "libcxlmi BACKGROUND_OPERATION_STATUS": (0x0002, information.BACKGROUND_OPERATION_STATUS),
    "libcxlmi GET_RESP_MSG_LIMIT": (0x0003, information.GET_RESPONSE_MESSAGE_LIMIT),
    "libcxlmi SET_RESP_MSG_LIMIT": (0x0004, information.SET_RESPONSE_MESSAGE_LIMIT),
    "libcxlmi BACKGROUND_OPERATION_ABORT": (0x0005, information.REQUEST_ABORT_BACKGROUND_OPERATION),
    "libcxlmi GET_MCTP_EVENT_IRQ_POL": (0x0104, events.GET_MCTP_EVENT_INTERRUPT_POLICY),
    "libcxlmi SET_MCTP_EVENT_IRQ_POL": (0x0105, events.SET_MCTP_EVENT_INTERRUPT_POLICY),
    "libcxlmi NOTIFICATION": (0x0106, events.EVENT_NOTIFICATION),
    "libcxlmi POPULATE_LOG": (0x0404, logs.POPULATE_LOG),
    "libcxlmi MEDIA_OPERATIONS": (0x4402, media.MEDIA_OPERATIONS),
    "libcxlmi SECURITY_SEND": (0x4600, passthrough.SECURITY_SEND),
    "libcxlmi SECURITY_RECEIVE": (0x4601, passthrough.SECURITY_RECEIVE),
    "libcxlmi GET_SLD_QOS_CONTROL": (0x4700, qos.GET_SLD_QOS_CONTROL),
    "libcxlmi SET_SLD_QOS_CONTROL": (0x4701, qos.SET_SLD_QOS_CONTROL),
    "libcxlmi GET_SLD_QOS_STATUS": (0x4702, qos.GET_SLD_QOS_STATUS),
    "libcxlmi GET_DC_CONFIG": (0x4800, dynamic_capacity.GET_DYNAMIC_CAPACITY_CONFIGURATION),
    "libcxlmi GET_DYN_CAP_EXT_LIST": (0x4801, dynamic_capacity.GET_DYNAMIC_CAPACITY_EXTENT_LIST),
    "libcxlmi ADD_DYN_CAP_RSP": (0x4802, dynamic_capacity.ADD_DYNAMIC_CAPACITY_RESPONSE),
    "libcxlmi RELEASE_DYN_CAP": (0x4803, dynamic_capacity.RELEASE_DYNAMIC_CAPACITY),
    "libcxlmi IDENTIFY_SWITCH_DEVICE": (0x5100, switch.IDENTIFY_SWITCH_DEVICE),
    "libcxlmi GET_PHYSICAL_PORT_STATE": (0x5101, switch.GET_PHYSICAL_PORT_STATE),
    "libcxlmi PHYSICAL_PORT_CONTROL": (0x5102, switch.PHYSICAL_PORT_CONTROL),
    "libcxlmi SEND_PPB_CXLIO_CONFIG_REQ": (0x5103, switch.SEND_PPB_CXL_IO_CONFIGURATION_REQUEST),
    "libcxlmi GET_DOMAIN_VALIDATION_SV_STATE": (0x5104, switch.GET_DOMAIN_VALIDATION_SV_STATE),
    "libcxlmi SET_DOMAIN_VALIDATION_SV": (0x5105, switch.SET_DOMAIN_VALIDATION_SV),
    "libcxlmi GET_VCS_DOMAIN_VALIDATION_SV_STATE": (0x5106, switch.GET_VCS_DOMAIN_VALIDATION_SV_STATE),
    "libcxlmi GET_DOMAIN_VALIDATION_SV": (0x5107, switch.GET_DOMAIN_VALIDATION_SV),
    "libcxlmi GET_VCS_INFO": (0x5200, vcs.GET_VIRTUAL_CXL_SWITCH_INFO),
    "libcxlmi BIND_VPPB": (0x5201, vcs.BIND_VPPB),
    "libcxlmi UNBIND_VPPB": (0x5202, vcs.UNBIND_VPPB),
    "jack FMOP_VSC_AER": (0x5203, vcs.GENERATE_AER_EVENT),
    "libcxlmi TUNNEL_MANAGEMENT_COMMAND": (0x5300, mld_port.TUNNEL_MANAGEMENT_COMMAND),
    "libcxlmi SEND_LD_CXLIO_CONFIG_REQ": (0x5301, mld_port.SEND_LD_CXL_IO_CONFIGURATION_REQUEST),
    "libcxlmi SEND_LD_CXLIO_MEM_REQ": (0x5302, mld_port.SEND_LD_CXL_IO_MEMORY_REQUEST),
    "libcxlmi GET_LD_INFO": (0x5400, mld.GET_LD_INFO),
    "libcxlmi GET_LD_ALLOCATIONS": (0x5401, mld.GET_LD_ALLOCATIONS),
    "libcxlmi SET_LD_ALLOCATIONS": (0x5402, mld.SET_LD_ALLOCATIONS),
    "libcxlmi GET_QOS_CONTROL": (0x5403, mld.GET_QOS_CONTROL),
    "libcxlmi SET_QOS_CONTROL": (0x5404, mld.SET_QOS_CONTROL),
    "libcxlmi GET_QOS_STATUS": (0x5405, mld.GET_QOS_STATUS),
    "libcxlmi GET_QOS_ALLOCATED_BW": (0x5406, mld.GET_QOS_ALLOCATED_BW),
    "libcxlmi SET_QOS_ALLOCATED_BW": (0x5407, mld.SET_QOS_ALLOCATED_BW),
    "libcxlmi GET_QOS_BW_LIMIT": (0x5408, mld.GET_QOS_BW_LIMIT),
    "libcxlmi SET_QOS_BW_LIMIT": (0x5409, mld.SET_QOS_BW_LIMIT),
    "libcxlmi GET_MHD_INFO": (0x5500, mhd.GET_MULTI_HEADED_INFO),
    "libcxlmi GET_HEAD_INFO": (0x5501, mhd.GET_HEAD_INFO),
    "libcxlmi GET_DCD_INFO": (0x5600, dcd.GET_DCD_INFO),
    "libcxlmi GET_HOST_DC_REGION_CONFIG": (0x5601, dcd.GET_HOST_DC_REGION_CONFIGURATION),
    "libcxlmi SET_DC_REGION_CONFIG": (0x5602, dcd.SET_DC_REGION_CONFIGURATION),
    "libcxlmi GET_DC_REGION_EXTENT_LIST": (0x5603, dcd.GET_DC_REGION_EXTENT_LISTS),
    "libcxlmi INITIATE_DC_ADD": (0x5604, dcd.INITIATE_DYNAMIC_CAPACITY_ADD),
    "libcxlmi INITIATE_DC_RELEASE": (0x5605, dcd.INITIATE_DYNAMIC_CAPACITY_RELEASE),
    "libcxlmi DC_ADD_REFERENCE": (0x5606, dcd.DYNAMIC_CAPACITY_ADD_REFERENCE),
    "libcxlmi DC_REMOVE_REFERENCE": (0x5607, dcd.DYNAMIC_CAPACITY_REMOVE_REFERENCE),
    "libcxlmi DC_LIST_TAGS": (0x5608, dcd.DYNAMIC_CAPACITY_LIST_TAGS),
}

# Payload sizes as drivers see them: Linux' cxl_mem_commands and QEMU's cxl_cmd_set (input bytes, None: varies)
REQUEST_SIZES = {
    0x0100: 1,
    0x0202: 2,
    0x0300: 0,
    0x0301: 8,
    0x0401: 0x18,
    0x0402: 0x10,
    0x0403: 0x10,
    0x0405: 2,
    0x0500: 8,
    0x0501: 0x15,
    0x4000: 0,
    0x4100: 0,
    0x4101: 9,
    0x4102: 8,
    0x4200: 0,
    0x4201: 0,
    0x4202: 0xC,
    0x4203: 0,
    0x4204: 1,
    0x4300: 0x10,
    0x4301: 8,
    0x4302: 0x48,
    0x4303: 0x10,
    0x4304: 0x11,
    0x4305: 0,
    0x4400: 0,
    0x4401: 0,
    0x4500: 0,
    0x4501: 0x60,
    0x4502: 0x40,
    0x4503: 0x20,
    0x4504: 0,
    0x4505: 0x40,
    0x4800: 2,
    0x4801: 8,
    0x5100: 0,
    0x5102: 2,
    0x5600: 0,
    0x5601: 4,
    0x5602: 16,
    0x5603: 12,
}

# Linux include/uapi/cxl/features.h CXL_CMD_*; bits 7 and 8 by tools/testing/cxl and libcxlmi's "SecSup"
EFFECT_BITS = {
    "config_change_after_cold_reset": 0,
    "immediate_config_change": 1,
    "immediate_data_change": 2,
    "immediate_policy_change": 3,
    "immediate_log_change": 4,
    "security_state_change": 5,
    "background_operation": 6,
    "secondary_mailbox_supported": 7,
    "reset_effects_valid": 9,
    "config_change_after_conventional_reset": 10,
    "config_change_after_cxl_reset": 11,
}

_CAPACITY = {
    "config_change_after_cold_reset",
    "config_change_after_conventional_reset",
    "config_change_after_cxl_reset",
    "immediate_config_change",
    "immediate_data_change",
    "reset_effects_valid",
}

# Effects as Linux' cxl_test and QEMU have them in their Command Effects Logs
EFFECTS = {
    0x0101: {"immediate_log_change"},  # QEMU
    0x0200: set(),  # cxl_test
    0x0201: {"config_change_after_cold_reset", "background_operation"},  # cxl_test
    0x0300: set(),  # QEMU
    0x0301: {"immediate_policy_change"},  # QEMU
    0x0400: set(),  # cxl_test
    0x0401: set(),  # QEMU
    0x0500: set(),  # cxl_test
    0x0501: set(),  # cxl_test
    0x0600: {
        "immediate_config_change",
        "immediate_data_change",
        "immediate_log_change",
        "background_operation",
    },  # QEMU
    0x4000: set(),  # cxl_test
    0x4100: set(),  # cxl_test
    0x4102: set(),  # cxl_test
    0x4103: {"immediate_config_change", "immediate_data_change"},  # cxl_test
    0x4200: set(),  # cxl_test
    0x4202: {"immediate_policy_change"},  # QEMU
    0x4204: {"immediate_policy_change"},  # cxl_test
    0x4300: set(),  # cxl_test
    0x4301: {"immediate_data_change"},  # cxl_test
    0x4302: {"immediate_data_change"},  # cxl_test
    0x4304: {"background_operation"},  # QEMU
    0x4400: {"immediate_data_change", "security_state_change", "background_operation"},  # cxl_test
    0x4402: {"immediate_data_change", "background_operation"},  # QEMU
    0x4800: set(),  # QEMU
    0x4801: set(),  # QEMU
    0x4802: {"immediate_data_change"},  # QEMU
    0x4803: {"immediate_data_change"},  # QEMU
    0x5100: set(),  # QEMU
    0x5101: set(),  # QEMU
    0x5102: set(),  # QEMU
    0x5300: set(),  # QEMU
    0x5600: set(),  # QEMU
    0x5601: set(),  # QEMU
    0x5602: _CAPACITY,  # QEMU, which leaves out that its reset effects are valid
    0x5603: set(),  # QEMU
    0x5604: _CAPACITY,  # QEMU
    0x5605: _CAPACITY,  # QEMU
}

# libcxlmi enum cxlmi_cmd_retcode, in order from 0
RETURN_CODES = {
    "SUCCESS": base.ReturnCode.SUCCESS,
    "BACKGROUND": base.ReturnCode.BACKGROUND_STARTED,
    "INPUT": base.ReturnCode.INVALID_INPUT,
    "UNSUPPORTED": base.ReturnCode.UNSUPPORTED,
    "INTERNAL": base.ReturnCode.INTERNAL_ERROR,
    "RETRY": base.ReturnCode.RETRY_REQUIRED,
    "BUSY": base.ReturnCode.BUSY,
    "MEDIADISABLED": base.ReturnCode.MEDIA_DISABLED,
    "FWINPROGRESS": base.ReturnCode.FW_TRANSFER_IN_PROGRESS,
    "FWOOO": base.ReturnCode.FW_TRANSFER_OUT_OF_ORDER,
    "FWAUTH": base.ReturnCode.FW_VERIFICATION_FAILED,
    "FWSLOT": base.ReturnCode.INVALID_SLOT,
    "FWROLLBACK": base.ReturnCode.FW_ROLLED_BACK,
    "FWRESET": base.ReturnCode.COLD_RESET_REQUIRED,
    "HANDLE": base.ReturnCode.INVALID_HANDLE,
    "PADDR": base.ReturnCode.INVALID_PHYSICAL_ADDRESS,
    "POISONLMT": base.ReturnCode.INJECT_POISON_LIMIT,
    "MEDIAFAILURE": base.ReturnCode.PERMANENT_MEDIA_FAILURE,
    "ABORT": base.ReturnCode.ABORTED,
    "SECURITY": base.ReturnCode.INVALID_SECURITY_STATE,
    "PASSPHRASE": base.ReturnCode.INCORRECT_PASSPHRASE,
    "MBUNSUPPORTED": base.ReturnCode.UNSUPPORTED_MAILBOX,
    "PAYLOADLEN": base.ReturnCode.INVALID_PAYLOAD_LENGTH,
    "LOG": base.ReturnCode.INVALID_LOG,
    "INTERRUPTED": base.ReturnCode.INTERRUPTED,
    "FEATUREVERSION": base.ReturnCode.UNSUPPORTED_FEATURE_VERSION,
    "FEATURESELVALUE": base.ReturnCode.UNSUPPORTED_FEATURE_SELECTION,
    "FEATURETRANSFERIP": base.ReturnCode.FEATURE_TRANSFER_IN_PROGRESS,
    "FEATURETRANSFEROOO": base.ReturnCode.FEATURE_TRANSFER_OUT_OF_ORDER,
    "RESOURCEEXHAUSTED": base.ReturnCode.RESOURCES_EXHAUSTED,
    "EXTLIST": base.ReturnCode.INVALID_EXTENT_LIST,
    "TRANSFEROOO": base.ReturnCode.TRANSFER_OUT_OF_ORDER,
    "NO_BGABORT": base.ReturnCode.ABORT_NOT_SUPPORTED,
}
