"""Dynamic capacity from the fabric manager's side: regions, extents, tags, and who is given what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from softcxl.fm.bitmap import set_bits
from softcxl.fm.channel import naming
from softcxl.fm.component import Component
from softcxl.fm.errors import BadAnswer
from softcxl.spec.command.dynamic_capacity import MAX_REGIONS, DcRegionFlags
from softcxl.spec.cxl.events import DynamicCapacityExtent
from softcxl.spec.fm.dcd import (
    DYNAMIC_CAPACITY_ADD_REFERENCE,
    DYNAMIC_CAPACITY_LIST_TAGS,
    DYNAMIC_CAPACITY_REMOVE_REFERENCE,
    GET_DC_REGION_EXTENT_LISTS,
    GET_DCD_INFO,
    GET_HOST_DC_REGION_CONFIGURATION,
    INITIATE_DYNAMIC_CAPACITY_ADD,
    INITIATE_DYNAMIC_CAPACITY_RELEASE,
    SET_DC_REGION_CONFIGURATION,
    AddOptions,
    ExtentList,
    GetDcdInfoResponse,
    GetDcRegionExtentListsRequest,
    GetDcRegionExtentListsResponse,
    GetHostDcRegionConfigurationRequest,
    GetHostDcRegionConfigurationResponse,
    InitiateDynamicCapacityAddRequest,
    InitiateDynamicCapacityReleaseRequest,
    ListTagsRequest,
    ListTagsResponse,
    ReleaseOptions,
    RemovalPolicy,
    SelectionPolicy,
    SetDcRegionConfigurationRequest,
    TagInformation,
    TagRequest,
)

NO_TAG = UUID(int=0)

#: A list that changes while it is read is read again, so often.
_READINGS = 8


@dataclass(frozen=True, slots=True)
class Extent:
    """An extent: DPA and length in bytes, its tag (None: it has none), and its place among the extents of a tag in a
    sharable region."""

    start: int
    length: int
    tag: UUID | None = None
    sequence: int = 0

    @classmethod
    def of(cls, record: DynamicCapacityExtent) -> Extent:
        """From a command's output, or an event record."""
        tag = UUID(bytes=record.tag)
        return cls(record.start_dpa, record.length, None if tag == NO_TAG else tag, record.shared_sequence)

    def record(self) -> DynamicCapacityExtent:
        """As a command has it."""
        return DynamicCapacityExtent(
            start_dpa=self.start,
            length=self.length,
            tag=_bytes(self.tag),
            shared_sequence=self.sequence,
        )


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag: whether the fabric manager holds a reference, the LD IDs of the hosts that have its capacity, and of those
    that were offered it and have not answered; None where the device does not say."""

    tag: UUID
    fm_reference: bool
    hosts: list[int] | None
    pending: list[int] | None


class DynamicCapacity(Component):
    """Commands 5600h to 5608h of a device with dynamic capacity. `host` is the LD ID of a host's interface."""

    async def dc_info(self) -> GetDcdInfoResponse:
        """Get DCD Info (5600h): hosts, regions, policies, capacity and block sizes."""
        return await self._get(GetDcdInfoResponse, GET_DCD_INFO)

    async def dc_regions(self, host: int) -> GetHostDcRegionConfigurationResponse:
        """All regions of a host, and how many extents and tags it can have (5601h)."""
        command = GET_HOST_DC_REGION_CONFIGURATION
        found: GetHostDcRegionConfigurationResponse | None = None
        while True:
            start = 0 if found is None else len(found.regions)
            request = GetHostDcRegionConfigurationRequest(host=host, count=MAX_REGIONS, start_index=start)
            response = await self._get(GetHostDcRegionConfigurationResponse, command, request)
            if found is not None:
                response.regions = found.regions + response.regions
            if len(response.regions) >= response.available:
                return response
            if len(response.regions) == start:
                what = f"{response.available} regions, of which it returns {start}"
                raise BadAnswer(f"{self.name}: {naming(command.opcode)}: {what}")
            found = response

    async def set_dc_region(self, region: int, block_size: int, *, sanitize_on_release: bool = False) -> None:
        """Choose a region's block size, in bytes, and whether released extents are erased (5602h)."""
        request = SetDcRegionConfigurationRequest(
            region=region,
            block_size=block_size,
            flags=DcRegionFlags.make(sanitize_on_release=sanitize_on_release),
        )
        await self._do(SET_DC_REGION_CONFIGURATION, request)

    async def dc_extents(self, host: int) -> list[Extent]:
        """All extents that a host has (Get DC Region Extent Lists, 5603h)."""
        command = GET_DC_REGION_EXTENT_LISTS
        room = await self.room() - GetDcRegionExtentListsResponse.__layout__.size
        count = max(1, room // DynamicCapacityExtent.__layout__.size)
        for _ in range(_READINGS):
            found: list[Extent] = []
            generation: int | None = None
            while True:
                request = GetDcRegionExtentListsRequest(host=host, count=count, start_index=len(found))
                response = await self._get(GetDcRegionExtentListsResponse, command, request)
                if generation not in (None, response.generation):
                    break  # the list has changed: from the beginning
                generation = response.generation
                found += map(Extent.of, response.extents)
                if len(found) >= response.total:
                    return found
                if not response.extents:
                    what = f"{response.total} extents, of which it returns {len(found)}"
                    raise BadAnswer(f"{self.name}: {naming(command.opcode)}: {what}")
        raise BadAnswer(f"{self.name}: {naming(command.opcode)}: the list changes whenever it is read")

    # -- adding ----------------------------------------------------------------------------------------------

    async def dc_add(
        self,
        host: int,
        length: int,
        *,
        region: int = 0,
        tag: UUID | None = None,
        contiguous: bool = False,
    ) -> None:
        """Offer a host `length` bytes of a region, in extents of the device's choice or in one (5604h).

        Done when the host has been told; what it makes of that, the dynamic capacity event log says.
        """
        policy = SelectionPolicy.CONTIGUOUS if contiguous else SelectionPolicy.FREE
        await self._add(host, policy, region=region, length=length, tag=tag)

    async def dc_add_extents(self, host: int, extents: Iterable[Extent]) -> None:
        """Offer a host these extents (5604h, prescriptive)."""
        await self._add(host, SelectionPolicy.PRESCRIPTIVE, extents=extents)

    async def dc_share(self, host: int, tag: UUID, *, region: int = 0) -> None:
        """Offer a host the capacity that another one has by this tag (5604h, Enable Shared Access)."""
        await self._add(host, SelectionPolicy.ENABLE_SHARED_ACCESS, region=region, tag=tag)

    async def _add(
        self,
        host: int,
        policy: SelectionPolicy,
        *,
        region: int = 0,
        length: int = 0,
        tag: UUID | None = None,
        extents: Iterable[Extent] = (),
    ) -> None:
        listed = ExtentList(extents=[one.record() for one in extents])
        request = InitiateDynamicCapacityAddRequest(
            host=host,
            options=AddOptions.make(policy=policy),
            region=region,
            length=length,
            tag=_bytes(tag),
            extents=listed.pack(),
        )
        await self._do(INITIATE_DYNAMIC_CAPACITY_ADD, request)

    # -- releasing -------------------------------------------------------------------------------------------

    async def dc_release(
        self, host: int, tag: UUID | None, length: int, *, forced: bool = False, sanitize: bool = False
    ) -> None:
        """Ask a host for `length` bytes that it has by a tag, or without one; or take them, `forced` (5605h).

        With `sanitize` they are erased. Done when the host has been told.
        """
        await self._release(host, RemovalPolicy.TAG_BASED, forced, sanitize, length=length, tag=tag)

    async def dc_release_extents(
        self, host: int, extents: Iterable[Extent], *, forced: bool = False, sanitize: bool = False
    ) -> None:
        """Ask a host for these extents, or take them, `forced` (5605h, prescriptive)."""
        await self._release(host, RemovalPolicy.PRESCRIPTIVE, forced, sanitize, extents=extents)

    async def _release(
        self,
        host: int,
        policy: RemovalPolicy,
        forced: bool,
        sanitize: bool,
        *,
        length: int = 0,
        tag: UUID | None = None,
        extents: Iterable[Extent] = (),
    ) -> None:
        listed = ExtentList(extents=[one.record() for one in extents])
        request = InitiateDynamicCapacityReleaseRequest(
            host=host,
            options=ReleaseOptions.make(policy=policy, forced=forced, sanitize=sanitize),
            length=length,
            tag=_bytes(tag),
            extents=listed.pack(),
        )
        await self._do(INITIATE_DYNAMIC_CAPACITY_RELEASE, request)

    # -- tags ------------------------------------------------------------------------------------------------

    async def dc_add_reference(self, tag: UUID) -> None:
        """Keep a tag's capacity, and what is in it, though no host has it (5606h)."""
        await self._do(DYNAMIC_CAPACITY_ADD_REFERENCE, TagRequest(tag=tag.bytes))

    async def dc_remove_reference(self, tag: UUID) -> None:
        """Let go of a tag's capacity (5607h)."""
        await self._do(DYNAMIC_CAPACITY_REMOVE_REFERENCE, TagRequest(tag=tag.bytes))

    async def dc_tags(self) -> list[Tag]:
        """All tags, and who has their capacity (Dynamic Capacity List Tags, 5608h)."""
        command = DYNAMIC_CAPACITY_LIST_TAGS
        room = await self.room() - ListTagsResponse.__layout__.size
        count = max(1, room // TagInformation.__layout__.size)
        for _ in range(_READINGS):
            found: list[Tag] = []
            generation: int | None = None
            while True:
                request = ListTagsRequest(start_index=len(found), limit=count)
                response = await self._get(ListTagsResponse, command, request)
                if generation not in (None, response.generation):
                    break  # the list has changed: from the beginning
                generation = response.generation
                found += _tags(response)
                if len(found) >= response.total:
                    return found
                if not response.tags:
                    what = f"{response.total} tags, of which it returns {len(found)}"
                    raise BadAnswer(f"{self.name}: {naming(command.opcode)}: {what}")
        raise BadAnswer(f"{self.name}: {naming(command.opcode)}: the list changes whenever it is read")


def _tags(response: ListTagsResponse) -> Sequence[Tag]:
    return [
        Tag(
            UUID(bytes=one.tag),
            bool(one.flags.fm_reference),
            set_bits(one.references) if response.valid.references else None,
            set_bits(one.pending) if response.valid.pending else None,
        )
        for one in response.tags
    ]


def _bytes(tag: UUID | None) -> bytes:
    return NO_TAG.bytes if tag is None else tag.bytes
