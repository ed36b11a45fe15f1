"""CPMU registers, by Linux `drivers/perf/cxl_pmu.c` and `drivers/cxl/pmu.h`."""

from __future__ import annotations

from softcxl.spec.cxl import cpmu
from softcxl.spec.cxl.cpmu import Cpmu
from softcxl.wire import Block, Register
from tests.spec.vectors import Mask, Place

PLACES = [
    Place("CXL_PMU_CAP_REG", Cpmu.capability, 0x00, 64),
    Place("CXL_PMU_OVERFLOW_REG", Cpmu.overflow_status, 0x10, 64),
    Place("CXL_PMU_FREEZE_REG", Cpmu.freeze, 0x18, 64),
]

SIZES: list[tuple[str, type[Block], int]] = [("CXL_PMU_REGMAP_SIZE", Cpmu, 0xE00)]

_cap, _event, _counter = cpmu.CpmuCapability, cpmu.EventCapability, cpmu.CounterConfiguration
MASKS = [
    Mask("CXL_PMU_CAP_NUM_COUNTERS_MSK", _cap.counters, 0x3F),
    Mask("CXL_PMU_CAP_COUNTER_WIDTH_MSK", _cap.counter_width, 0xFF00),
    Mask("CXL_PMU_CAP_NUM_EVN_CAP_REG_SUP_MSK", _cap.event_capabilities, 0x1F0_0000),
    Mask("CXL_PMU_CAP_FILTERS_SUP_MSK, CXL_PMU_FILTER_HDM", _cap.hdm_decoder_filter, 1 << 32),
    Mask("CXL_PMU_CAP_FILTERS_SUP_MSK, .._CHAN_RANK_BANK", _cap.channel_rank_bank_filter, 1 << 33),
    Mask("CXL_PMU_CAP_MSI_N_MSK", _cap.interrupt_message_number, 0xF << 44),
    Mask("CXL_PMU_CAP_WRITEABLE_WHEN_FROZEN", _cap.writable_when_frozen, 1 << 48),
    Mask("CXL_PMU_CAP_FREEZE", _cap.freeze, 1 << 49),
    Mask("CXL_PMU_CAP_INT", _cap.interrupt, 1 << 50),
    Mask("CXL_PMU_CAP_VERSION_MSK", _cap.version, 0xF << 60),
    Mask("CXL_PMU_EVENT_CAP_SUPPORTED_EVENTS_MSK", _event.supported_events, 0xFFFF_FFFF),
    Mask("CXL_PMU_EVENT_CAP_GROUP_ID_MSK", _event.group_id, 0xFFFF << 32),
    Mask("CXL_PMU_EVENT_CAP_VENDOR_ID_MSK", _event.vendor_id, 0xFFFF << 48),
    Mask("CXL_PMU_COUNTER_CFG_TYPE_MSK", _counter.type, 0x3),
    Mask("CXL_PMU_COUNTER_CFG_ENABLE", _counter.enable, 1 << 8),
    Mask("CXL_PMU_COUNTER_CFG_INT_ON_OVRFLW", _counter.interrupt_on_overflow, 1 << 9),
    Mask("CXL_PMU_COUNTER_CFG_FREEZE_ON_OVRFLW", _counter.freeze_on_overflow, 1 << 10),
    Mask("CXL_PMU_COUNTER_CFG_EDGE", _counter.edge, 1 << 11),
    Mask("CXL_PMU_COUNTER_CFG_INVERT", _counter.invert, 1 << 12),
    Mask("CXL_PMU_COUNTER_CFG_THRESHOLD_MSK", _counter.threshold, 0xFF_0000),
    Mask("CXL_PMU_COUNTER_CFG_EVENTS_MSK", _counter.events, 0xFFFF_FFFF << 24),
    Mask("CXL_PMU_COUNTER_CFG_EVENT_GRP_ID_IDX_MSK", _counter.event_group_index, 0x1F << 59),
    Mask("CXL_PMU_FILTER_CFG_VALUE_MSK", cpmu.FilterConfiguration.value, 0xFFFF_FFFF),
]

# (source, register, bits that software can store, reset value: Linux sets every filter to this for "off")
WRITES: list[tuple[str, type[Register], int | None, int]] = [
    ("cxl_pmu_event_start", cpmu.FilterConfiguration, 0xFFFF_FFFF, 0xFFFF_FFFF),
    ("cxl_pmu_pmu_enable", cpmu.CpmuFreeze, (1 << 64) - 1, 0),
    ("__cxl_pmu_read", cpmu.Counter, (1 << 64) - 1, 0),
]

# (source, member, value)
NUMBERS = [
    ("CXL_PMU_EVENT_CAP_REG", cpmu.EVENT_CAPABILITY_OFFSET, 0x100),
    ("CXL_PMU_COUNTER_CFG_REG", cpmu.CONFIGURATION_OFFSET, 0x200),
    ("CXL_PMU_FILTER_CFG_REG", cpmu.FILTER_OFFSET, 0x400),
    ("CXL_PMU_FILTER_CFG_REG: filters of a counter", cpmu.FILTERS, 8),
    ("CXL_PMU_COUNTER_REG", cpmu.COUNTER_OFFSET, 0xC00),
    ("CXL_PMU_COUNTER_REG: stride", cpmu.WORD, 8),
    ("CXL_PMU_MAX_COUNTERS", cpmu.MAX_COUNTERS, 64),
    ("CXL_PMU_COUNTER_CFG_TYPE_FREE_RUN", cpmu.CounterType.FREE_RUNNING, 0),
    ("CXL_PMU_COUNTER_CFG_TYPE_FIXED_FUN", cpmu.CounterType.FIXED_FUNCTION, 1),
    ("CXL_PMU_COUNTER_CFG_TYPE_CONFIGURABLE", cpmu.CounterType.CONFIGURABLE, 2),
    ("CXL_PMU_GID_CLOCK_TICKS", cpmu.EventGroup.BASE, 0x00),
    ("CXL_PMU_GID_D2H_REQ", cpmu.EventGroup.D2H_REQ, 0x10),
    ("CXL_PMU_GID_D2H_RSP", cpmu.EventGroup.D2H_RSP, 0x11),
    ("CXL_PMU_GID_H2D_REQ", cpmu.EventGroup.H2D_REQ, 0x12),
    ("CXL_PMU_GID_H2D_RSP", cpmu.EventGroup.H2D_RSP, 0x13),
    ("CXL_PMU_GID_CACHE_DATA", cpmu.EventGroup.CACHE_DATA, 0x14),
    ("CXL_PMU_GID_M2S_REQ", cpmu.EventGroup.M2S_REQ, 0x20),
    ("CXL_PMU_GID_M2S_RWD", cpmu.EventGroup.M2S_RWD, 0x21),
    ("CXL_PMU_GID_M2S_BIRSP", cpmu.EventGroup.M2S_BIRSP, 0x22),
    ("CXL_PMU_GID_S2M_BISNP", cpmu.EventGroup.S2M_BISNP, 0x23),
    ("CXL_PMU_GID_S2M_NDR", cpmu.EventGroup.S2M_NDR, 0x24),
    ("CXL_PMU_GID_S2M_DRS", cpmu.EventGroup.S2M_DRS, 0x25),
    ("CXL_PMU_GID_DDR", cpmu.EventGroup.DDR_INTERFACE, 0x8000),
    ("clock_ticks", cpmu.BaseEvent.CLOCK_TICKS, 0),
    ("m2s_req_meminv", cpmu.M2sReqEvent.MEM_INV, 0),
    ("m2s_req_memrd", cpmu.M2sReqEvent.MEM_RD, 1),
    ("m2s_req_memrddata", cpmu.M2sReqEvent.MEM_RD_DATA, 2),
    ("m2s_req_memrdfwd", cpmu.M2sReqEvent.MEM_RD_FWD, 3),
    ("m2s_req_memwrfwd", cpmu.M2sReqEvent.MEM_WR_FWD, 4),
    ("m2s_req_memrdtee", cpmu.M2sReqEvent.MEM_RD_TEE, 5),
    ("m2s_req_memrddatatee", cpmu.M2sReqEvent.MEM_RD_DATA_TEE, 6),
    ("m2s_req_memspecrd", cpmu.M2sReqEvent.MEM_SPEC_RD, 8),
    ("m2s_req_meminvnt", cpmu.M2sReqEvent.MEM_INV_NT, 9),
    ("m2s_req_memcleanevict", cpmu.M2sReqEvent.MEM_CLEAN_EVICT, 10),
    ("m2s_rwd_memwr", cpmu.M2sRwdEvent.MEM_WR, 1),
    ("m2s_rwd_memwrptl", cpmu.M2sRwdEvent.MEM_WR_PTL, 2),
    ("m2s_rwd_biconflict", cpmu.M2sRwdEvent.BI_CONFLICT, 4),
    ("s2m_ndr_cmp", cpmu.S2mNdrEvent.CMP, 0),
    ("s2m_ndr_cmps", cpmu.S2mNdrEvent.CMP_S, 1),
    ("s2m_ndr_cmpe", cpmu.S2mNdrEvent.CMP_E, 2),
    ("s2m_ndr_cmpm", cpmu.S2mNdrEvent.CMP_M, 3),
    ("s2m_ndr_biconflictack", cpmu.S2mNdrEvent.BI_CONFLICT_ACK, 4),
    ("s2m_drs_memdata", cpmu.S2mDrsEvent.MEM_DATA, 0),
    ("s2m_drs_memdatanxm", cpmu.S2mDrsEvent.MEM_DATA_NXM, 1),
    ("ddr_act", cpmu.DdrEvent.ACTIVATE, 0),
    ("ddr_pre", cpmu.DdrEvent.PRECHARGE, 1),
    ("ddr_casrd", cpmu.DdrEvent.CAS_READ, 2),
    ("ddr_caswr", cpmu.DdrEvent.CAS_WRITE, 3),
    ("ddr_refresh", cpmu.DdrEvent.REFRESH, 4),
    ("ddr_selfrefreshent", cpmu.DdrEvent.SELF_REFRESH_ENTRY, 5),
    ("ddr_rfm", cpmu.DdrEvent.RFM, 6),
]
