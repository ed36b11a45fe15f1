"""CPMU: performance counters that describe themselves (CXL 3.1 §8.2.7).

`Cpmu` is the head of the register block. Arrays follow at fixed places: event capabilities, counter configurations,
filters and counters; their strides are `WORD` bytes, and of a counter's `FILTERS` filters 4 bytes each.
"""

from __future__ import annotations

import enum
from typing import Final

from softcxl.wire import RW, RW1C, Block, HwInit, Register, at, bit, bits

CPMU_SIZE: Final = 0xE00
"""Bytes of the register block."""

WORD: Final = 8
EVENT_CAPABILITY_OFFSET: Final = 0x100
CONFIGURATION_OFFSET: Final = 0x200
FILTER_OFFSET: Final = 0x400
COUNTER_OFFSET: Final = 0xC00

MAX_EVENT_CAPABILITIES: Final = 32
MAX_COUNTERS: Final = 64
FILTERS: Final = 8
"""Filter registers of a counter, one a filter ID."""

ANY: Final = 0xFFFFFFFF
"""Value of a filter that lets everything through."""


class CounterType(enum.IntEnum):
    """What a counter counts (CXL 3.1 §8.2.7.2.1)."""

    FREE_RUNNING = 0
    FIXED_FUNCTION = 1
    CONFIGURABLE = 2


class FilterId(enum.IntEnum):
    """Filters that a counter can have (CXL 3.1 §8.2.7.2.2)."""

    HDM_DECODER = 0
    CHANNEL_RANK_BANK = 1


class CpmuCapability(Register, width=64, spec="CXL 3.1 §8.2.7.1.1"):
    """CPMU Capability."""

    counters = bits(5, 0, HwInit, "counters less one")
    counter_width = bits(15, 8, HwInit, "bits of a counter, 1 to 64")
    event_capabilities = bits(24, 20, HwInit, "event capability registers less one")
    hdm_decoder_filter = bit(32, HwInit, "`FilterId.HDM_DECODER` is supported")
    channel_rank_bank_filter = bit(33, HwInit, "`FilterId.CHANNEL_RANK_BANK` is supported")
    interrupt_message_number = bits(47, 44, HwInit, "MSI or MSI-X vector of overflows")
    writable_when_frozen = bit(48, HwInit, "counters can be written while they are frozen")
    freeze = bit(49, HwInit, "counters can be frozen")
    interrupt = bit(50, HwInit, "an overflow can interrupt")
    version = bits(63, 60, HwInit, reset=1)


class CpmuOverflowStatus(Register, width=64, spec="CXL 3.1 §8.2.7.1.2"):
    """CPMU Overflow Status."""

    overflow = bits(63, 0, RW1C, "one bit a counter that has overflowed")


class CpmuFreeze(Register, width=64, spec="CXL 3.1 §8.2.7.1.3"):
    """CPMU Freeze."""

    freeze = bits(63, 0, RW, "one bit a counter that stands still")


class Cpmu(Block, size=CPMU_SIZE, spec="CXL 3.1 §8.2.7"):
    """CPMU Register Block, without the registers that come in arrays."""

    capability = at(0x00, CpmuCapability)
    overflow_status = at(0x10, CpmuOverflowStatus)
    freeze = at(0x18, CpmuFreeze)


class EventCapability(Register, width=64, spec="CXL 3.1 §8.2.7.1.4"):
    """CPMU Event Capabilities: the events of one group that can be counted."""

    supported_events = bits(31, 0, HwInit, "one bit an event of the group")
    group_id = bits(47, 32, HwInit, "an `EventGroup` where the vendor is CXL's")
    vendor_id = bits(63, 48, HwInit, "who defines the group")


class CounterConfiguration(Register, width=64, spec="CXL 3.1 §8.2.7.2.1"):
    """CPMU Counter Configuration.

    The fields that say what is counted can be written in configurable counters alone; in fixed-function ones the
    device sets events and group.
    """

    type = bits(1, 0, HwInit, CounterType)
    enable = bit(8, RW)
    interrupt_on_overflow = bit(9, RW)
    freeze_on_overflow = bit(10, RW, "all counters freeze when this one overflows")
    edge = bit(11, RW, "counts when the condition becomes true, not how long it is")
    invert = bit(12, RW, "the condition is a number of events below the threshold")
    threshold = bits(23, 16, RW, "events a cycle; 0: every event counts")
    events = bits(55, 24, RW, "one bit an event of the group that is counted")
    event_group_index = bits(63, 59, RW, "of the event capability register of the group")


class FilterConfiguration(Register, width=32, spec="CXL 3.1 §8.2.7.2.2"):
    """CPMU Filter Configuration."""

    value = bits(31, 0, RW, "what is counted, as the filter says; `ANY`: everything", reset=ANY)


class Counter(Register, width=64, spec="CXL 3.1 §8.2.7.2.3"):
    """CPMU Counter Data."""

    value = bits(63, 0, RW, "bits beyond the counter's width are zero")


class EventCapabilityEntry(Block, spec="CXL 3.1 §8.2.7.1.4"):
    """One of the event capabilities, at `EVENT_CAPABILITY_OFFSET`."""

    capability = at(0x00, EventCapability)


class CounterConfigurationEntry(Block, spec="CXL 3.1 §8.2.7.2.1"):
    """One of the counter configurations, at `CONFIGURATION_OFFSET`."""

    configuration = at(0x00, CounterConfiguration)


class FilterEntry(Block, spec="CXL 3.1 §8.2.7.2.2"):
    """One of a counter's filters, at `FILTER_OFFSET`."""

    filter = at(0x00, FilterConfiguration)


class CounterEntry(Block, spec="CXL 3.1 §8.2.7.2.3"):
    """One of the counters, at `COUNTER_OFFSET`."""

    counter = at(0x00, Counter)


class EventGroup(enum.IntEnum):
    """Event groups of CXL's vendor ID (CXL 3.1 Table 13-5)."""

    BASE = 0x00
    D2H_REQ = 0x10
    D2H_RSP = 0x11
    H2D_REQ = 0x12
    H2D_RSP = 0x13
    CACHE_DATA = 0x14
    M2S_REQ = 0x20
    M2S_RWD = 0x21
    M2S_BIRSP = 0x22
    S2M_BISNP = 0x23
    S2M_NDR = 0x24
    S2M_DRS = 0x25
    DDR_INTERFACE = 0x8000


class BaseEvent(enum.IntEnum):
    """Events of the base group, by bit (CXL 3.1 Table 13-5)."""

    CLOCK_TICKS = 0


class M2sReqEvent(enum.IntEnum):
    """Events of CXL.mem requests without data, by bit (CXL 3.1 Table 13-5)."""

    MEM_INV = 0
    MEM_RD = 1
    MEM_RD_DATA = 2
    MEM_RD_FWD = 3
    MEM_WR_FWD = 4
    MEM_RD_TEE = 5
    MEM_RD_DATA_TEE = 6
    MEM_SPEC_RD = 8
    MEM_INV_NT = 9
    MEM_CLEAN_EVICT = 10


class M2sRwdEvent(enum.IntEnum):
    """Events of CXL.mem requests with data, by bit (CXL 3.1 Table 13-5)."""

    MEM_WR = 1
    MEM_WR_PTL = 2
    BI_CONFLICT = 4


class S2mNdrEvent(enum.IntEnum):
    """Events of CXL.mem responses without data, by bit (CXL 3.1 Table 13-5)."""

    CMP = 0
    CMP_S = 1
    CMP_E = 2
    CMP_M = 3
    BI_CONFLICT_ACK = 4


class S2mDrsEvent(enum.IntEnum):
    """Events of CXL.mem responses with data, by bit (CXL 3.1 Table 13-5)."""

    MEM_DATA = 0
    MEM_DATA_NXM = 1


class DdrEvent(enum.IntEnum):
    """Events of the DDR interface, by bit (CXL 3.1 Table 13-5)."""

    ACTIVATE = 0
    PRECHARGE = 1
    CAS_READ = 2
    CAS_WRITE = 3
    REFRESH = 4
    SELF_REFRESH_ENTRY = 5
    RFM = 6
