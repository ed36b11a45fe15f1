"""Fabric manager API, by libcxlmi `src/cxlmi/api-types.h` and `cxlmi.c`, jack's `fmapi.c` (CXL 2.0) and QEMU
`hw/cxl/cxl-mailbox-utils.c`, `include/hw/cxl/cxl_port.h`. Every field has a value of its own."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from softcxl.spec.cxl.events import EventHeader
from softcxl.spec.fm import dcd, events, mhd, mld, mld_port, switch, vcs
from tests.spec.vectors import Payload, c

_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
_ID_BYTES = bytes.fromhex("00112233445566778899aabbccddeeff")
_TAG = b"t" * 16
_PORTS, _VCSS = bytes(range(0x20)), bytes(range(0x20, 0x40))

_PORT = c("BBBxBBBBBBBBBHB", 7, 3, 2, 4, 6, 16, 8, 0x1F, 5, 4, 4, 1, 0xB, 15)
_PORT_FIELDS = {
    "port": 7,
    "configuration.state": switch.PortConfigurationState.DSP,
    "configuration.gae": False,
    "connected_device.mode": switch.ConnectedDeviceMode.VH_68B,
    "connected_device_type": switch.ConnectedDeviceType.TYPE_3_SLD,
    "supported_modes.vh_68b": True,
    "supported_modes.flit_256b": True,
    "supported_modes.rcd": False,
    "maximum_link_width": 16,
    "negotiated_link_width": 8,
    "supported_link_speeds": 0x1F,
    "maximum_link_speed": 5,
    "current_link_speed": 4,
    "ltssm_state": switch.LtssmState.L0,
    "first_lane": 1,
    "link_state.lane_reversal": True,
    "link_state.perst": True,
    "link_state.present": False,
    "link_state.power_off": True,
    "supported_ld_count": 15,
}
_EXTENT = c("QQ16sH6x", 0x1000_0000, 0x2000_0000, _TAG, 0x0304)
_EXTENT_FIELDS: dict[str, Any] = {
    "start_dpa": 0x1000_0000,
    "length": 0x2000_0000,
    "tag": _TAG,
    "shared_sequence": 0x0304,
}
_REGION = c("QQQQB3xB3x", 0x4000_0000, 5, 0x5000_0000, 0x200000, 0x2C, 1)
_REGION_FIELDS: dict[str, Any] = {
    "base": 0x4000_0000,
    "decode_length": 5,
    "length": 0x5000_0000,
    "block_size": 0x200000,
    "attributes.non_volatile": True,  # QEMU build_dsmas_flags, CXL_DSMAS_FLAGS_NONVOLATILE
    "attributes.shareable": True,
    "attributes.dynamic_capacity": True,
    "flags.sanitize_on_release": True,
}
_TAG_ENTRY = c("16sB3x32s32s", _TAG, 1, _PORTS, _VCSS)
_TAG_FIELDS: dict[str, Any] = {
    "tag": _TAG,
    "flags.fm_reference": True,
    "references": _PORTS,
    "pending": _VCSS,
}
_HEAD = c("BBBBBBBBB", 3, 16, 8, 0x1F, 5, 4, 4, 1, 3)
_HEAD_FIELDS: dict[str, Any] = {
    "port": 3,
    "maximum_link_width": 16,
    "negotiated_link_width": 8,
    "supported_link_speeds": 0x1F,
    "maximum_link_speed": 5,
    "current_link_speed": 4,
    "ltssm_state": switch.LtssmState.L0,
    "first_lane": 1,
    "link_state.lane_reversal": True,
    "link_state.perst": True,
}
_HEADER = EventHeader(identifier=_ID).pack()


def _of(prefix: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in fields.items()}


PAYLOADS = [
    # Physical switch
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_identify_sw_device_rsp",
        switch.IdentifySwitchDeviceResponse,
        c("BxBB32s32sHHB", 1, 2, 3, _PORTS, _VCSS, 0x0405, 0x0607, 8),
        {
            "ingress_port": 1,
            "port_count": 2,
            "vcs_count": 3,
            "active_ports": _PORTS,
            "active_vcss": _VCSS,
            "vppb_count": 0x0405,
            "bound_vppb_count": 0x0607,
            "hdm_decoder_count": 8,
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_phys_port_state_req",
        switch.GetPhysicalPortStateRequest,
        c("BBB", 2, 7, 9),
        {"count": 2, "ports": [7, 9]},
    ),
    Payload("QEMU cxl_fmapi_port_state_info_block", switch.PortInformation, _PORT, _PORT_FIELDS),
    Payload(
        "QEMU cxl_fmapi_get_phys_port_state_resp_pl",
        switch.GetPhysicalPortStateResponse,
        c("B3x", 2) + _PORT + _PORT,
        {"count": 2, **_of("ports.1", _PORT_FIELDS)},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_phys_port_control_req",
        switch.PhysicalPortControlRequest,
        c("BB", 7, 2),
        {"port": 7, "operation": switch.PortOperation.RESET_PPB},
    ),
    Payload(
        "jack FMOB_PSC_CFG_REQ",
        switch.SendPpbConfigurationRequest,
        c("BBBBI", 7, 0x12, 0xA << 4 | 3, 1 << 7, 0x04050607),
        {
            "port": 7,
            "transaction.register_number": 0x12,
            "transaction.extended_register_number": 3,
            "transaction.first_byte_enables": 0xA,
            "transaction.write": True,
            "data": 0x04050607,
        },
    ),
    Payload("jack FMOB_PSC_CFG_RSP", switch.ConfigurationResponse, c("I", 0x01020304), {"data": 0x01020304}),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_domain_validation_sv_state_rsp",
        switch.DomainValidationStateResponse,
        c("B", 1),
        {"state": switch.DomainValidationState.SET},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_set_domain_validation_sv_req",
        switch.DomainValidationSv,
        _ID_BYTES,
        {"secret_value": _ID},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_domain_validation_sv_req", switch.VcsIdRequest, c("B", 5), {"vcs": 5}
    ),
    # Virtual CXL switches
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_vcs_info_req",
        vcs.GetVcsInfoRequest,
        c("BBBBB", 1, 255, 2, 3, 4),
        {"start_vppb": 1, "vppb_limit": 255, "count": 2, "vcss": [3, 4]},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_vppb_info",
        vcs.VppbInformation,
        c("BBBx", 3, 7, 5),
        {"status": vcs.BindingStatus.BOUND_LD, "port": 7, "ld": 5},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_vcs_info_block",
        vcs.VcsInformation,
        c("BBBB", 1, 255, 3, 4),
        {"vcs": 1, "state": vcs.VcsState.INVALID_VCS_ID, "usp": 3, "vppb_count": 4},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_vcs_info_rsp",
        vcs.GetVcsInfoResponse,
        c("B3x", 1) + c("BBBB", 1, 1, 3, 1) + c("BBBx", 0, 0, 0xFF),
        {"count": 1, "blocks": bytes.fromhex("010103010000ff00")},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_bind_vppb_req",
        vcs.BindVppbRequest,
        c("BBBxH", 1, 2, 3, 0xFFFF),
        {"vcs": 1, "vppb": 2, "port": 3, "ld": vcs.NO_LD},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_unbind_vppb_req",
        vcs.UnbindVppbRequest,
        c("BBB", 1, 2, 2),
        {"vcs": 1, "vppb": 2, "options.option": vcs.UnbindOption.SURPRISE_HOT_REMOVE},
    ),
    Payload(
        "jack FMOB_VSC_AER_REQ",
        vcs.GenerateAerEventRequest,
        c("BBxxI32s", 1, 2, 1 << 31 | 20, _PORTS),
        {"vcs": 1, "vppb": 2, "error.position": 20, "error.uncorrectable": True, "header": _PORTS},
    ),
    # MLD ports
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_tunnel_command_req",
        mld_port.TunnelRequest,
        c("BBH", 7, 1, 4) + b"data",
        {
            "port_or_ld": 7,
            "target.type": mld_port.TunnelTargetType.LD_POOL_CCI,
            "command_size": 4,
            "message": b"data",
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_tunnel_command_rsp",
        mld_port.TunnelResponse,
        c("Hxx", 4) + b"data",
        {"response_size": 4, "message": b"data"},
    ),
    Payload(
        "jack FMOB_MPC_CFG_REQ",
        mld_port.SendLdConfigurationRequest,
        c("BBBBHxxI", 7, 0x12, 0xA << 4 | 3, 0, 0x0405, 0x06070809),
        {
            "port": 7,
            "transaction.register_number": 0x12,
            "transaction.extended_register_number": 3,
            "transaction.first_byte_enables": 0xA,
            "transaction.write": False,
            "ld": 0x0405,
            "data": 0x06070809,
        },
    ),
    Payload(
        "jack FMOB_MPC_MEM_REQ",
        mld_port.SendLdMemoryRequest,
        c("BxBBHHQ", 7, 0xA << 4, 1 << 7 | 5, 0x0102, 4, 0x0304_0506_0708_090A) + b"data",
        {
            "port": 7,
            "transaction.first_byte_enables": 0xA,
            "transaction.last_byte_enables": 5,
            "transaction.write": True,
            "ld": 0x0102,
            "length": 4,
            "address": 0x0304_0506_0708_090A,
            "data": b"data",
        },
    ),
    Payload(
        "jack FMOB_MPC_MEM_RSP",
        mld_port.SendLdMemoryResponse,
        c("Hxx", 4) + b"data",
        {"size": 4, "data": b"data"},
    ),
    # Logical devices
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_ld_info_rsp",
        mld.GetLdInfoResponse,
        c("QHB", 0x0102_0304_0506_0708, 16, 2),
        {
            "memory_size": 0x0102_0304_0506_0708,
            "ld_count": 16,
            "qos_telemetry.egress_port_congestion": False,
            "qos_telemetry.temporary_throughput_reduction": True,
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_ld_allocations_req",
        mld.GetLdAllocationsRequest,
        c("BB", 1, 16),
        {"start": 1, "limit": 16},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_ld_allocations_list",
        mld.LdAllocation,
        c("QQ", 0x0102, 0x0304),
        {"range1": 0x0102, "range2": 0x0304},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_ld_allocations_rsp",
        mld.GetLdAllocationsResponse,
        c("BBBB", 4, 2, 1, 1) + c("QQ", 5, 6),
        {
            "ld_count": 4,
            "granularity": mld.MemoryGranularity.GIB_1,
            "start": 1,
            "count": 1,
            "allocations.0.range1": 5,
            "allocations.0.range2": 6,
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_set_ld_allocations_req, .._rsp",
        mld.LdAllocations,
        c("BBxx", 1, 3) + c("QQ", 5, 6),
        {"count": 1, "start": 3, "allocations.0.range1": 5, "allocations.0.range2": 6},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_qos_control_rsp",
        mld.QosControl,
        c("BBBBHB", 1, 11, 26, 9, 0x0102, 65),
        {
            "control.egress_port_congestion": True,
            "control.temporary_throughput_reduction": False,
            "egress_moderate_percentage": 11,
            "egress_severe_percentage": 26,
            "backpressure_sample_interval": 9,
            "request_completion_basis": 0x0102,
            "completion_collection_interval": 65,
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_qos_status_rsp",
        mld.GetQosStatusResponse,
        c("B", 42),
        {"backpressure_average_percentage": 42},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_qos_allocated_bw_req, cxlmi_cmd_fmapi_get_qos_bw_limit_req",
        mld.QosBandwidthRequest,
        c("BB", 16, 1),
        {"count": 16, "start": 1},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_set_qos_allocated_bw_req, cxlmi_cmd_fmapi_set_qos_bw_limit_req",
        mld.QosBandwidth,
        c("BBBB", 2, 1, 64, 128),
        {"count": 2, "start": 1, "fractions": [64, 128]},
    ),
    # Heads
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_multiheaded_info_req",
        mhd.GetMultiHeadedInfoRequest,
        c("BB", 1, 16),
        {"start": 1, "limit": 16},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_multiheaded_info_rsp",
        mhd.GetMultiHeadedInfoResponse,
        c("BBxxBBxxBBB", 8, 4, 1, 3, 0, 2, 0xFF),
        {"ld_count": 8, "head_count": 4, "start": 1, "count": 3, "ld_map": [0, 2, mhd.NO_HEAD]},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_head_info_req",
        mhd.GetHeadInfoRequest,
        c("BB", 1, 2),
        {"start": 1, "count": 2},
    ),
    Payload("libcxlmi cxlmi_cmd_fmapi_get_head_info_blkfmt", mhd.HeadInformation, _HEAD, _HEAD_FIELDS),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_head_info_rsp",
        mhd.GetHeadInfoResponse,
        c("B3x", 1) + _HEAD,
        {"count": 1, **_of("heads.0", _HEAD_FIELDS)},
    ),
    # Dynamic capacity
    Payload(
        "QEMU cmd_fm_get_dcd_info",
        dcd.GetDcdInfoResponse,
        c("BBxxHxxHBxQ8Q", 2, 8, 5, 2, 0xF, 0x0102, *(1 << bit for bit in range(20, 28))),
        {
            "host_count": 2,
            "region_count": 8,
            "selection_policies.free": True,
            "selection_policies.contiguous": False,
            "selection_policies.prescriptive": True,
            "removal_policies.tag_based": False,
            "removal_policies.prescriptive": True,
            "sanitize_on_release_configurable": 0xF,
            "total_capacity": 0x0102,
            **{f"block_sizes{index}": 1 << 20 + index for index in range(8)},
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_get_host_dc_region_config_req",
        dcd.GetHostDcRegionConfigurationRequest,
        c("HBB", 0x0102, 8, 3),
        {"host": 0x0102, "count": 8, "start_index": 3},
    ),
    Payload(
        "QEMU cmd_fm_get_host_dc_region_config, record",
        dcd.HostDcRegion,
        _REGION,
        _REGION_FIELDS,
    ),
    Payload(
        "QEMU cmd_fm_get_host_dc_region_config",
        dcd.GetHostDcRegionConfigurationResponse,
        c("HBB", 0x0102, 3, 1) + _REGION + c("IIII", 0x11, 0x12, 0x13, 0x14),
        {
            "host": 0x0102,
            "available": 3,
            "count": 1,
            **_of("regions.0", _REGION_FIELDS),
            "extents_supported": 0x11,
            "extents_available": 0x12,
            "tags_supported": 0x13,
            "tags_available": 0x14,
        },
    ),
    Payload(
        "QEMU cmd_fm_set_dc_region_config",
        dcd.SetDcRegionConfigurationRequest,
        c("B3xQB3x", 7, 0x200000, 1),
        {"region": 7, "block_size": 0x200000, "flags.sanitize_on_release": True},
    ),
    Payload(
        "QEMU cmd_fm_get_dc_region_extent_list, in",
        dcd.GetDcRegionExtentListsRequest,
        c("HxxII", 0x0102, 0x0304, 0x0506),
        {"host": 0x0102, "count": 0x0304, "start_index": 0x0506},
    ),
    Payload(
        "QEMU cmd_fm_get_dc_region_extent_list, out",
        dcd.GetDcRegionExtentListsResponse,
        c("HxxIIII4x", 0x0102, 0x0304, 1, 0x0506, 0x0708) + _EXTENT,
        {
            "host": 0x0102,
            "start_index": 0x0304,
            "count": 1,
            "total": 0x0506,
            "generation": 0x0708,
            **_of("extents.0", _EXTENT_FIELDS),
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_initiate_dc_add_req.ext_count",
        dcd.ExtentList,
        c("I", 2) + _EXTENT + _EXTENT,
        {"count": 2, **_of("extents.1", _EXTENT_FIELDS)},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_initiate_dc_add_req",
        dcd.InitiateDynamicCapacityAddRequest,
        c("HBBQ16sI", 0x0102, 2, 7, 0x0304_0506, _TAG, 1) + _EXTENT,
        {
            "host": 0x0102,
            "options.policy": dcd.SelectionPolicy.PRESCRIPTIVE,
            "region": 7,
            "length": 0x0304_0506,
            "tag": _TAG,
            "extents": c("I", 1) + _EXTENT,
        },
    ),
    Payload(
        "QEMU cmd_fm_initiate_dc_release",
        dcd.InitiateDynamicCapacityReleaseRequest,
        c("HBxQ16sI", 0x0102, 1 | 1 << 4, 0x0304_0506, _TAG, 1) + _EXTENT,
        {
            "host": 0x0102,
            "options.policy": dcd.RemovalPolicy.PRESCRIPTIVE,
            "options.forced": True,  # CXL_FORCED_REMOVAL_MASK 1 << 4
            "options.sanitize": False,
            "length": 0x0304_0506,
            "tag": _TAG,
            "extents": c("I", 1) + _EXTENT,
        },
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_dc_add_ref_req, .._remove_ref_req", dcd.TagRequest, _TAG, {"tag": _TAG}
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_dc_list_tags_req",
        dcd.ListTagsRequest,
        c("II", 0x0102, 0x0304),
        {"start_index": 0x0102, "limit": 0x0304},
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_dc_list_tags_rsp.tags_list", dcd.TagInformation, _TAG_ENTRY, _TAG_FIELDS
    ),
    Payload(
        "libcxlmi cxlmi_cmd_fmapi_dc_list_tags_rsp",
        dcd.ListTagsResponse,
        c("IIIB3x", 0x0102, 0x0304, 1, 2) + _TAG_ENTRY,
        {
            "generation": 0x0102,
            "total": 0x0304,
            "count": 1,
            "valid.references": False,
            "valid.pending": True,
            **_of("tags.0", _TAG_FIELDS),
        },
    ),
    # Event records
    Payload(
        "standard Table 7-79",
        events.PhysicalSwitchEvent,
        _HEADER + c("BBHx", 7, 1, 0x0102) + _PORT[1:15] + bytes(0x3D),
        {
            "header.identifier": _ID,
            "port": 7,
            "event_type": events.PhysicalSwitchEventType.SLOT_STATUS_REGISTER_UPDATED,
            "slot_status": 0x0102,
            **{name: value for name, value in _PORT_FIELDS.items() if name != "supported_ld_count"},
        },
    ),
    Payload(
        "standard Table 7-80",
        events.VirtualSwitchEvent,
        _HEADER + c("BBBBBBHH70x", 1, 2, 3, 3, 5, 6, 0x0708, 0x090A),
        {
            "header.identifier": _ID,
            "vcs": 1,
            "vppb": 2,
            "event_type": events.VirtualSwitchEventType.SLOT_CONTROL_REGISTER_UPDATED,
            "binding_status": vcs.BindingStatus.BOUND_LD,
            "bound_port": 5,
            "bound_ld": 6,
            "link_control": 0x0708,
            "slot_control": 0x090A,
        },
    ),
    Payload(
        "standard Table 7-81",
        events.MldPortEvent,
        _HEADER + c("BBxx8s68x", 2, 7, b"ERRFATAL"),
        {
            "header.identifier": _ID,
            "event_type": events.MldPortEventType.FATAL_ERROR_MESSAGE,
            "port": 7,
            "message": b"ERRFATAL",
        },
    ),
]
