"""Dynamic capacity, as a host sees it: regions, extents, and what it accepts and gives back (opcodes 4800h to 4803h).

The fabric manager's side is `softcxl.spec.fm.dcd`.
"""

from __future__ import annotations

from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.spec.cxl.events import DynamicCapacityExtent
from softcxl.wire import RO, Record, Register, bit, counted, reserved, u8, u32, u64, word

MAX_REGIONS: Final = 8
"""Dynamic capacity regions of a device at most (CXL 3.1 §9.13.3)."""


class DcRegionFlags(Register, width=8, spec="CXL 3.1 §8.2.9.9.9.1"):
    """Flags of a dynamic capacity region."""

    sanitize_on_release = bit(0, RO, "what an extent held is erased when it is released")


class DcRegion(Record, size=0x28, spec="CXL 3.1 §8.2.9.9.9.1"):
    """DC Region Configuration."""

    base: int = u64("device physical address, a multiple of 256 MiB")
    decode_length: int = u64("in multiples of 256 MiB: what HDM decoders map, the capacity that may come")
    length: int = u64("in bytes: what can be added, at most the decode length")
    block_size: int = u64("in bytes: extents begin and end at multiples of it")
    dsmad_handle: int = u32("Handle of the region's DSMAS in the CDAT")
    flags: DcRegionFlags = word(DcRegionFlags)
    _reserved: None = reserved(3)


class GetDcConfigurationRequest(Record, size=0x02, spec="CXL 3.1 §8.2.9.9.9.1"):
    """Get Dynamic Capacity Configuration input payload."""

    count: int = u8("regions to return at most")
    start_index: int = u8("of the first region to return")


class GetDcConfigurationResponse(Record, size=0x18, spec="CXL 3.1 §8.2.9.9.9.1"):
    """Get Dynamic Capacity Configuration output payload."""

    available: int = u8("regions that the device has")
    count: int = u8("regions that follow")
    _reserved: None = reserved(6)
    regions: list[DcRegion] = counted(DcRegion, "count")
    extents_supported: int = u32()
    extents_available: int = u32("that can still be added")
    tags_supported: int = u32()
    tags_available: int = u32("that can still be used")


class GetDcExtentListRequest(Record, size=0x08, spec="CXL 3.1 §8.2.9.9.9.2"):
    """Get Dynamic Capacity Extent List input payload."""

    count: int = u32("extents to return at most; 0: none, only what else the answer says")
    start_index: int = u32("of the first extent to return")


class GetDcExtentListResponse(Record, size=0x10, spec="CXL 3.1 §8.2.9.9.9.2"):
    """Get Dynamic Capacity Extent List output payload: the extents that the host has accepted."""

    count: int = u32()
    total: int = u32("extents in the list")
    generation: int = u32("changes whenever the list does")
    _reserved: None = reserved(4)
    extents: list[DynamicCapacityExtent] = counted(DynamicCapacityExtent, "count")


class UpdatedExtent(Record, size=0x18, spec="CXL 3.1 §8.2.9.9.9.3"):
    """Updated Extent."""

    start_dpa: int = u64("in bytes")
    length: int = u64("in bytes")
    _reserved: None = reserved(8)


class DcResponseFlags(Register, width=8, spec="CXL 3.1 §8.2.9.9.9.3"):
    """Flags of an update to the extent list."""

    more = bit(0, RO, "the list goes on in the next command, and is used when its last part has come")


class UpdateExtentListRequest(Record, size=0x08, spec="CXL 3.1 §8.2.9.9.9.3"):
    """Input payload of Add Dynamic Capacity Response (an empty list accepts nothing) and of Release Dynamic
    Capacity."""

    count: int = u32()
    flags: DcResponseFlags = word(DcResponseFlags)
    _reserved: None = reserved(3)
    extents: list[UpdatedExtent] = counted(UpdatedExtent, "count")


GET_DYNAMIC_CAPACITY_CONFIGURATION: Final = Command(
    0x4800,
    "Get Dynamic Capacity Configuration",
    GetDcConfigurationRequest,
    GetDcConfigurationResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.9.1",
)
GET_DYNAMIC_CAPACITY_EXTENT_LIST: Final = Command(
    0x4801,
    "Get Dynamic Capacity Extent List",
    GetDcExtentListRequest,
    GetDcExtentListResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.9.2",
)
ADD_DYNAMIC_CAPACITY_RESPONSE: Final = Command(
    0x4802,
    "Add Dynamic Capacity Response",
    UpdateExtentListRequest,
    None,
    CommandEffects.make(immediate_data_change=True),
    "CXL 3.1 §8.2.9.9.9.3",
)
RELEASE_DYNAMIC_CAPACITY: Final = Command(
    0x4803,
    "Release Dynamic Capacity",
    UpdateExtentListRequest,
    None,
    CommandEffects.make(immediate_data_change=True),
    "CXL 3.1 §8.2.9.9.9.4",
)

COMMANDS: Final = (
    GET_DYNAMIC_CAPACITY_CONFIGURATION,
    GET_DYNAMIC_CAPACITY_EXTENT_LIST,
    ADD_DYNAMIC_CAPACITY_RESPONSE,
    RELEASE_DYNAMIC_CAPACITY,
)
