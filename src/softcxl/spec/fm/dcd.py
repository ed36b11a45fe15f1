"""Dynamic capacity, as a fabric manager sees it: regions, extents, tags, adding and releasing (opcodes 5600h to 5608h).

A host's side is `softcxl.spec.command.dynamic_capacity`.
"""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.spec.command.dynamic_capacity import DcRegionFlags
from softcxl.spec.cxl.cdat import DsmasFlags
from softcxl.spec.cxl.events import DynamicCapacityExtent
from softcxl.wire import (
    RO,
    Record,
    Register,
    bit,
    bits,
    counted,
    raw,
    reserved,
    tail,
    u8,
    u16,
    u32,
    u64,
    word,
)

_CAPACITY_CHANGE: Final = CommandEffects.make(
    config_change_after_cold_reset=True,
    immediate_config_change=True,
    immediate_data_change=True,
    reset_effects_valid=True,
    config_change_after_conventional_reset=True,
    config_change_after_cxl_reset=True,
)
_REFERENCE_CHANGE: Final = CommandEffects.make(
    config_change_after_cold_reset=True,
    immediate_config_change=True,
    reset_effects_valid=True,
    config_change_after_conventional_reset=True,
    config_change_after_cxl_reset=True,
)


class SelectionPolicy(enum.IntEnum):
    """Selection Policy: which extents capacity is added as (CXL 3.1 §7.6.7.6.5)."""

    FREE = 0
    CONTIGUOUS = 1
    PRESCRIPTIVE = 2
    ENABLE_SHARED_ACCESS = 3


class RemovalPolicy(enum.IntEnum):
    """Removal Policy: which extents are released (CXL 3.1 §7.6.7.6.6)."""

    TAG_BASED = 0
    PRESCRIPTIVE = 1


class SelectionPolicies(Register, width=16, spec="CXL 3.1 §7.6.7.6.1"):
    """Supported Add Capacity Selection Policies."""

    free = bit(0, RO)
    contiguous = bit(1, RO)
    prescriptive = bit(2, RO)


class RemovalPolicies(Register, width=16, spec="CXL 3.1 §7.6.7.6.1"):
    """Supported Release Capacity Removal Policies."""

    tag_based = bit(0, RO)
    prescriptive = bit(1, RO)


class GetDcdInfoResponse(Record, size=0x54, spec="CXL 3.1 §7.6.7.6.1"):
    """Get DCD Info output payload. In a mask of block sizes bit n is 2^n bytes."""

    host_count: int = u8("hosts that the device supports")
    region_count: int = u8("regions of a host, 1 to 8")
    _reserved1: None = reserved(2)
    selection_policies: SelectionPolicies = word(SelectionPolicies)
    _reserved2: None = reserved(2)
    removal_policies: RemovalPolicies = word(RemovalPolicies)
    sanitize_on_release_configurable: int = u8("one bit a region")
    _reserved3: None = reserved(1)
    total_capacity: int = u64("in multiples of 256 MiB")
    block_sizes0: int = u64("mask of those that region 0 supports")
    block_sizes1: int = u64()
    block_sizes2: int = u64()
    block_sizes3: int = u64()
    block_sizes4: int = u64()
    block_sizes5: int = u64()
    block_sizes6: int = u64()
    block_sizes7: int = u64()


class GetHostDcRegionConfigurationRequest(Record, size=0x04, spec="CXL 3.1 §7.6.7.6.2"):
    """Get Host DC Region Configuration input payload."""

    host: int = u16("LD ID of the host's interface")
    count: int = u8("regions to return at most")
    start_index: int = u8("of the first region to return")


class HostDcRegion(Record, size=0x28, spec="CXL 3.1 §7.6.7.6.2"):
    """DC Region Configuration, to the fabric manager."""

    base: int = u64("device physical address, a multiple of 256 MiB")
    decode_length: int = u64("in multiples of 256 MiB: what HDM decoders map, the capacity that may come")
    length: int = u64("in bytes: what can be added, at most the decode length")
    block_size: int = u64("in bytes: extents begin and end at multiples of it")
    attributes: DsmasFlags = word(DsmasFlags, "as in the region's DSMAS")
    _reserved1: None = reserved(3)
    flags: DcRegionFlags = word(DcRegionFlags)
    _reserved2: None = reserved(3)


class GetHostDcRegionConfigurationResponse(Record, size=0x14, spec="CXL 3.1 §7.6.7.6.2"):
    """Get Host DC Region Configuration output payload."""

    host: int = u16("LD ID of the host's interface")
    available: int = u8("regions that there are")
    count: int = u8("regions that follow")
    regions: list[HostDcRegion] = counted(HostDcRegion, "count")
    extents_supported: int = u32()
    extents_available: int = u32("that can still be added")
    tags_supported: int = u32()
    tags_available: int = u32("that can still be used")


class SetDcRegionConfigurationRequest(Record, size=0x10, spec="CXL 3.1 §7.6.7.6.3"):
    """Set DC Region Configuration input payload."""

    region: int = u8("0 to 7")
    _reserved1: None = reserved(3)
    block_size: int = u64("in bytes")
    flags: DcRegionFlags = word(DcRegionFlags)
    _reserved2: None = reserved(3)


class GetDcRegionExtentListsRequest(Record, size=0x0C, spec="CXL 3.1 §7.6.7.6.4"):
    """Get DC Region Extent Lists input payload."""

    host: int = u16("LD ID of the host's interface")
    _reserved: None = reserved(2)
    count: int = u32("extents to return at most; 0: none, only what else the answer says")
    start_index: int = u32("of the first extent to return")


class GetDcRegionExtentListsResponse(Record, size=0x18, spec="CXL 3.1 §7.6.7.6.4"):
    """Get DC Region Extent Lists output payload."""

    host: int = u16("LD ID of the host's interface")
    _reserved1: None = reserved(2)
    start_index: int = u32("of the first extent that follows")
    count: int = u32()
    total: int = u32("extents in the list")
    generation: int = u32("changes whenever the list does")
    _reserved2: None = reserved(4)
    extents: list[DynamicCapacityExtent] = counted(DynamicCapacityExtent, "count")


class ExtentList(Record, size=0x04, spec="CXL 3.1 §7.6.7.6.5"):
    """Extents of a prescriptive add or release."""

    count: int = u32()
    extents: list[DynamicCapacityExtent] = counted(DynamicCapacityExtent, "count")


class AddOptions(Register, width=8, spec="CXL 3.1 §7.6.7.6.5"):
    """How capacity is added."""

    policy = bits(3, 0, RO, SelectionPolicy)


class InitiateDynamicCapacityAddRequest(Record, size=0x1C, spec="CXL 3.1 §7.6.7.6.5"):
    """Initiate Dynamic Capacity Add input payload."""

    host: int = u16("LD ID of the host's interface")
    options: AddOptions = word(AddOptions)
    region: int = u8("0 to 7; not of a prescriptive add")
    length: int = u64("in bytes; of a free or contiguous add")
    tag: bytes = raw(0x10, "not of a prescriptive add, whose extents have theirs")
    extents: bytes = tail("an `ExtentList`, of a prescriptive add; of others nothing, or one that is ignored")


class ReleaseOptions(Register, width=8, spec="CXL 3.1 §7.6.7.6.6"):
    """How capacity is released."""

    policy = bits(3, 0, RO, RemovalPolicy)
    forced = bit(4, RO, "the host loses the capacity at once, without being asked")
    sanitize = bit(5, RO, "what was released is erased, shared capacity when its last host has released it")


class InitiateDynamicCapacityReleaseRequest(Record, size=0x1C, spec="CXL 3.1 §7.6.7.6.6"):
    """Initiate Dynamic Capacity Release input payload."""

    host: int = u16("LD ID of the host's interface")
    options: ReleaseOptions = word(ReleaseOptions)
    _reserved: None = reserved(1)
    length: int = u64("in bytes; of a release by tag")
    tag: bytes = raw(0x10, "of a release by tag")
    extents: bytes = tail(
        "an `ExtentList`, of a prescriptive release; of others nothing, or one that is ignored"
    )


class TagRequest(Record, size=0x10, spec="CXL 3.1 §7.6.7.6.7"):
    """Input payload of Dynamic Capacity Add Reference, and of Dynamic Capacity Remove Reference."""

    tag: bytes = raw(0x10)


class ListTagsRequest(Record, size=0x08, spec="CXL 3.1 §7.6.7.6.9"):
    """Dynamic Capacity List Tags input payload."""

    start_index: int = u32("of the first tag to return")
    limit: int = u32("tags to return at most; 0: none, only what else the answer says")


class TagFlags(Register, width=8, spec="CXL 3.1 §7.6.7.6.9"):
    """Flags of a tag."""

    fm_reference = bit(0, RO, "the fabric manager holds a reference")


class TagInformation(Record, size=0x54, spec="CXL 3.1 §7.6.7.6.9"):
    """Dynamic Capacity Tag Information."""

    tag: bytes = raw(0x10)
    flags: TagFlags = word(TagFlags)
    _reserved: None = reserved(3)
    references: bytes = raw(
        0x20, "one bit a logical device that has the capacity, LD 0 in bit 0 of the first byte"
    )
    pending: bytes = raw(0x20, "one bit a logical device that was offered the capacity and has not answered")


class TagBitmaps(Register, width=8, spec="CXL 3.1 §7.6.7.6.9"):
    """Validity Bitmap: which bitmaps of a tag's information hold."""

    references = bit(0, RO)
    pending = bit(1, RO)


class ListTagsResponse(Record, size=0x10, spec="CXL 3.1 §7.6.7.6.9"):
    """Dynamic Capacity List Tags output payload."""

    generation: int = u32("changes whenever the rest would")
    total: int = u32("tags that there are")
    count: int = u32()
    valid: TagBitmaps = word(TagBitmaps)
    _reserved: None = reserved(3)
    tags: list[TagInformation] = counted(TagInformation, "count")


GET_DCD_INFO: Final = Command(
    0x5600,
    "Get DCD Info",
    None,
    GetDcdInfoResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.6.1",
)
GET_HOST_DC_REGION_CONFIGURATION: Final = Command(
    0x5601,
    "Get Host DC Region Configuration",
    GetHostDcRegionConfigurationRequest,
    GetHostDcRegionConfigurationResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.6.2",
)
SET_DC_REGION_CONFIGURATION: Final = Command(
    0x5602,
    "Set DC Region Configuration",
    SetDcRegionConfigurationRequest,
    None,
    _CAPACITY_CHANGE,
    "CXL 3.1 §7.6.7.6.3",
)
GET_DC_REGION_EXTENT_LISTS: Final = Command(
    0x5603,
    "Get DC Region Extent Lists",
    GetDcRegionExtentListsRequest,
    GetDcRegionExtentListsResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.6.4",
)
INITIATE_DYNAMIC_CAPACITY_ADD: Final = Command(
    0x5604,
    "Initiate Dynamic Capacity Add",
    InitiateDynamicCapacityAddRequest,
    None,
    _CAPACITY_CHANGE,
    "CXL 3.1 §7.6.7.6.5",
)
INITIATE_DYNAMIC_CAPACITY_RELEASE: Final = Command(
    0x5605,
    "Initiate Dynamic Capacity Release",
    InitiateDynamicCapacityReleaseRequest,
    None,
    _CAPACITY_CHANGE,
    "CXL 3.1 §7.6.7.6.6",
)
DYNAMIC_CAPACITY_ADD_REFERENCE: Final = Command(
    0x5606,
    "Dynamic Capacity Add Reference",
    TagRequest,
    None,
    _REFERENCE_CHANGE,
    "CXL 3.1 §7.6.7.6.7",
)
DYNAMIC_CAPACITY_REMOVE_REFERENCE: Final = Command(
    0x5607,
    "Dynamic Capacity Remove Reference",
    TagRequest,
    None,
    _REFERENCE_CHANGE,
    "CXL 3.1 §7.6.7.6.8",
)
DYNAMIC_CAPACITY_LIST_TAGS: Final = Command(
    0x5608,
    "Dynamic Capacity List Tags",
    ListTagsRequest,
    ListTagsResponse,
    NO_EFFECT,
    "CXL 3.1 §7.6.7.6.9",
)

COMMANDS: Final = (
    GET_DCD_INFO,
    GET_HOST_DC_REGION_CONFIGURATION,
    SET_DC_REGION_CONFIGURATION,
    GET_DC_REGION_EXTENT_LISTS,
    INITIATE_DYNAMIC_CAPACITY_ADD,
    INITIATE_DYNAMIC_CAPACITY_RELEASE,
    DYNAMIC_CAPACITY_ADD_REFERENCE,
    DYNAMIC_CAPACITY_REMOVE_REFERENCE,
    DYNAMIC_CAPACITY_LIST_TAGS,
)
