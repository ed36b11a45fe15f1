"""Fabric manager API: identifiers, bits and numbers, by the sources that `fm_payloads` names."""

from __future__ import annotations

from softcxl.spec.fm import dcd, events, mld, mld_port, switch, vcs
from softcxl.spec.pci import header
from tests.spec.vectors import Mask

# libcxlmi docs/Generic-Component-Commands.md
UUIDS = [
    ("libcxlmi physical switch", events.PHYSICAL_SWITCH_EVENT, "77cf92719c02470b9fe4bc7b75f2da97"),
    ("libcxlmi virtual switch", events.VIRTUAL_SWITCH_EVENT, "40d2642533964c4da5da3d47263af425"),
    ("libcxlmi MLD port", events.MLD_PORT_EVENT, "8dc443630c964710b7bf04bb99534c3f"),
]

_modes = switch.CxlModes
MASKS = [
    Mask("CXL_PORT_SUPPORTS_RCD", _modes.rcd, 1 << 0),
    Mask("CXL_PORT_SUPPORTS_68B_VH", _modes.vh_68b, 1 << 1),
    Mask("CXL_PORT_SUPPORTS_256B", _modes.flit_256b, 1 << 2),
    Mask("CXL_PORT_SUPPORTS_LO_256B", _modes.latency_optimized_256b, 1 << 3),
    Mask("CXL_PORT_SUPPORTS_PBR", _modes.pbr, 1 << 4),
    Mask("jack FMLF_LANE_REVERSAL_BIT", switch.PortLinkState.lane_reversal, 1 << 0),
    Mask("jack FMLF_PERST_STATE_BIT", switch.PortLinkState.perst, 1 << 1),
    Mask("jack FMLF_PRSNT_STATE_BIT", switch.PortLinkState.present, 1 << 2),
    Mask("jack FMLF_PWRCTL_STATE_BIT", switch.PortLinkState.power_off, 1 << 3),
    Mask("QEMU CXL_EXTENT_REMOVAL_POLICY_MASK", dcd.ReleaseOptions.policy, 0x0F),
    Mask("QEMU CXL_FORCED_REMOVAL_MASK", dcd.ReleaseOptions.forced, 1 << 4),
]

# (source, member, value)
NUMBERS = [
    ("CXL_PORT_CONFIG_STATE_INVALID_PORT_ID", switch.PortConfigurationState.INVALID_PORT_ID, 0xF),
    ("CXL_PORT_CONFIG_STATE_FABRIC_PORT", switch.PortConfigurationState.FABRIC_PORT, 5),
    ("CXL_PORT_CONFIG_STATE_USP", switch.PortConfigurationState.USP, 4),
    ("CXL_PORT_CONFIG_STATE_DSP", switch.PortConfigurationState.DSP, 3),
    (
        "CXL_PORT_CONFIG_STATE_UNBIND_IN_PROGRESS",
        switch.PortConfigurationState.UNBIND_IN_PROGRESS,
        2,
    ),
    ("CXL_PORT_CONFIG_STATE_BIND_IN_PROGRESS", switch.PortConfigurationState.BIND_IN_PROGRESS, 1),
    ("jack FMVS_ENABLED", vcs.VcsState.ENABLED, 1),
    ("jack FMVS_INVALID", vcs.VcsState.INVALID_VCS_ID, 0xFF),
    ("jack FM_LD_MEM_REQ_LEN", mld_port.MAX_MEMORY_TRANSACTION, 4096),
    ("jack FM_MAX_NUM_LD", mld.MAX_LDS, 16),
    ("QEMU cswmbcci_class_init, programming interface 0", header.CLASS_CXL_SWITCH_MAILBOX_CCI, 0x0C0B << 8),
]

# Each list in order from 0
ENUMS = [
    (
        "CXL_PORT_CONNECTED_DEV_MODE_*",
        switch.ConnectedDeviceMode,
        ["NOT_CXL", "RCD", "VH_68B", "FLIT_256B", "LATENCY_OPTIMIZED_256B", "PBR"],
    ),
    (
        "CXL_PORT_CONNECTED_DEV_TYPE_*",
        switch.ConnectedDeviceType,
        [
            "NONE",
            "PCIE",
            "TYPE_1",
            "TYPE_2_OR_HBR_SWITCH",
            "TYPE_3_SLD",
            "TYPE_3_MLD",
            "PBR_COMPONENT",
        ],
    ),
    (
        "jack _FMLS",
        switch.LtssmState,
        [
            "DETECT",
            "POLLING",
            "CONFIGURATION",
            "RECOVERY",
            "L0",
            "L0S",
            "L1",
            "L2",
            "DISABLED",
            "LOOPBACK",
            "HOT_RESET",
        ],
    ),
    ("jack _FMPO", switch.PortOperation, ["ASSERT_PERST", "DEASSERT_PERST", "RESET_PPB"]),
    (
        "jack _FMBS, a PID aside",
        vcs.BindingStatus,
        ["UNBOUND", "IN_PROGRESS", "BOUND_PORT", "BOUND_LD", "BOUND_PID"],
    ),
    (
        "jack _FMUB",
        vcs.UnbindOption,
        ["WAIT_FOR_LINK_DOWN", "MANAGED_HOT_REMOVE", "SURPRISE_HOT_REMOVE"],
    ),
    ("libcxlmi TUNNEL_TARGET_TYPE_*", mld_port.TunnelTargetType, ["PORT_OR_LD", "LD_POOL_CCI"]),
    ("jack _FMMG", mld.MemoryGranularity, ["MIB_256", "MIB_512", "GIB_1"]),
    (
        "QEMU CXLExtentSelectionPolicy",
        dcd.SelectionPolicy,
        ["FREE", "CONTIGUOUS", "PRESCRIPTIVE", "ENABLE_SHARED_ACCESS"],
    ),
    ("QEMU CXLExtentRemovalPolicy", dcd.RemovalPolicy, ["TAG_BASED", "PRESCRIPTIVE"]),
    (
        "jack _FMET",
        events.PhysicalSwitchEventType,
        ["LINK_STATE_CHANGE", "SLOT_STATUS_REGISTER_UPDATED"],
    ),
    (
        "jack _FMVT",
        events.VirtualSwitchEventType,
        [
            "BINDING_CHANGE",
            "SECONDARY_BUS_RESET",
            "LINK_CONTROL_REGISTER_UPDATED",
            "SLOT_CONTROL_REGISTER_UPDATED",
        ],
    ),
    (
        "jack _FMMR",
        events.MldPortEventType,
        ["CORRECTABLE_ERROR_MESSAGE", "NONFATAL_ERROR_MESSAGE", "FATAL_ERROR_MESSAGE"],
    ),
]
