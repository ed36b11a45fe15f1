"""The fabric manager's commands for dynamic capacity, 5600h to 5608h (CXL 3.1 §7.6.7.6), over a `DynamicCapacity`.

Who has a command interface adds an `OwnerCommands` to it: the FM-owned LD of an MLD, and every door beside the
mailboxes of a device that has dynamic capacity (`Type3.management`). A mailbox has none of these.

What an add or release by a command comes to, its owner is told by the records that `DynamicCapacity.listeners` get. An
offer ends after `DynamicCapacity.timeout` seconds without an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.device.dynamic.errors import DynamicCapacityError
from softcxl.device.dynamic.extents import NO_TAG, Extent
from softcxl.device.dynamic.selection import Selection
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.memory import CAPACITY_UNIT
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
    RemovalPolicies,
    RemovalPolicy,
    SelectionPolicies,
    SetDcRegionConfigurationRequest,
    TagBitmaps,
    TagFlags,
    TagInformation,
    TagRequest,
)
from softcxl.wire import LayoutError

if TYPE_CHECKING:
    from softcxl.device.dynamic.capacity import DynamicCapacity
    from softcxl.device.dynamic.host import HostCapacity
    from softcxl.device.dynamic.tags import TagUse

E = TypeVar("E", Selection, RemovalPolicy)

_BITMAP_BYTES = 0x20


class OwnerCommands(CommandSet):
    """The nine commands over `owner`. `payload_max` (bytes) bounds how many extents or tags a reply carries.

    Hosts are known by their number: the LD ID, 0 where the device is one logical device. A refusal is the return code
    of the `DynamicCapacityError` that the owner's method raises; none changes anything.
    """

    def __init__(self, owner: DynamicCapacity, payload_max: int) -> None:
        self._owner, self._payload_max = owner, payload_max

    # -- regions -------------------------------------------------------------------------------------------------

    @command(GET_DCD_INFO)
    def get_dcd_info(self) -> GetDcdInfoResponse:
        owner = self._owner
        with owner.lock:
            regions = owner.regions
            return GetDcdInfoResponse(
                host_count=owner.hosts_supported,
                region_count=len(regions),
                selection_policies=SelectionPolicies.make(free=True, contiguous=True, prescriptive=True),
                removal_policies=RemovalPolicies.make(tag_based=True, prescriptive=True),
                sanitize_on_release_configurable=(1 << len(regions)) - 1,
                total_capacity=sum(one.length for one in regions) // CAPACITY_UNIT,
                **{f"block_sizes{number}": one.block_sizes for number, one in enumerate(regions)},
            )

    @command(GET_HOST_DC_REGION_CONFIGURATION)
    def get_host_region_configuration(
        self, request: GetHostDcRegionConfigurationRequest
    ) -> GetHostDcRegionConfigurationResponse:
        owner, start = self._owner, request.start_index
        with owner.lock:
            self._host(request.host)
            if start >= len(owner.regions):
                raise CommandError(ReturnCode.INVALID_INPUT)
            regions = [one.described() for one in owner.regions[start : start + request.count]]
            return GetHostDcRegionConfigurationResponse(
                host=request.host,
                available=len(owner.regions),
                count=len(regions),
                regions=regions,
                extents_supported=owner.extents_supported,
                extents_available=owner.extents_available,
                tags_supported=owner.tags_supported,
                tags_available=owner.tags_available,
            )

    @command(SET_DC_REGION_CONFIGURATION)
    def set_region_configuration(self, request: SetDcRegionConfigurationRequest) -> None:
        with _refusals():
            self._owner.configure(
                request.region,
                block_size=request.block_size,
                sanitize_on_release=request.flags.sanitize_on_release,
            )

    # -- extents -------------------------------------------------------------------------------------------------

    @command(GET_DC_REGION_EXTENT_LISTS)
    def get_extent_lists(self, request: GetDcRegionExtentListsRequest) -> GetDcRegionExtentListsResponse:
        with self._owner.lock:
            host, start = self._host(request.host), request.start_index
            if start > len(host.accepted):
                raise CommandError(ReturnCode.INVALID_INPUT)
            room = self._room(
                GetDcRegionExtentListsResponse.__layout__.size, DynamicCapacityExtent.__layout__.size
            )
            found = [one.record() for one in host.accepted[start : start + min(request.count, room)]]
            return GetDcRegionExtentListsResponse(
                host=request.host,
                start_index=start,
                count=len(found),
                total=len(host.accepted),
                generation=host.generation,
                extents=found,
            )

    @command(INITIATE_DYNAMIC_CAPACITY_ADD)
    def initiate_add(self, request: InitiateDynamicCapacityAddRequest) -> None:
        selection = _known(Selection, request.options, AddOptions.policy.mask)
        if selection is not Selection.PRESCRIPTIVE:
            with _refusals():
                self._owner.add(
                    region=request.region,
                    length=request.length,
                    selection=selection,
                    tag=UUID(bytes=request.tag),
                    host=request.host,
                )
            return
        extents = _listed(request.extents)
        tags = {one.tag for one in extents}
        if len(tags) > 1:  # the records of one offer have one tag, by which the host tells it from others
            raise CommandError(ReturnCode.INVALID_EXTENT_LIST)
        with _refusals(), self._owner.lock:
            self._owner.add(
                region=self._region_of(extents),
                selection=selection,
                extents=extents,
                tag=tags.pop() if tags else NO_TAG,
                host=request.host,
            )

    @command(INITIATE_DYNAMIC_CAPACITY_RELEASE)
    def initiate_release(self, request: InitiateDynamicCapacityReleaseRequest) -> None:
        options = request.options
        policy = _known(RemovalPolicy, options, ReleaseOptions.policy.mask)
        by_tag = policy is RemovalPolicy.TAG_BASED
        with _refusals():
            self._owner.release(
                extents=None if by_tag else _listed(request.extents),
                tag=UUID(bytes=request.tag) if by_tag else None,
                length=request.length if by_tag else None,
                host=request.host,
                forced=options.forced,
                sanitize=options.sanitize,
            )

    # -- tags ----------------------------------------------------------------------------------------------------

    @command(DYNAMIC_CAPACITY_ADD_REFERENCE)
    def add_reference(self, request: TagRequest) -> None:
        with _refusals():
            self._owner.refer(UUID(bytes=request.tag))

    @command(DYNAMIC_CAPACITY_REMOVE_REFERENCE)
    def remove_reference(self, request: TagRequest) -> None:
        with _refusals():
            self._owner.forget(UUID(bytes=request.tag))

    @command(DYNAMIC_CAPACITY_LIST_TAGS)
    def list_tags(self, request: ListTagsRequest) -> ListTagsResponse:
        with self._owner.lock:
            tags, start = self._owner.tags, request.start_index
            if start > len(tags):
                raise CommandError(ReturnCode.INVALID_INPUT)
            room = self._room(ListTagsResponse.__layout__.size, TagInformation.__layout__.size)
            found = [_information(one) for one in tags[start : start + min(request.limit, room)]]
            return ListTagsResponse(
                generation=self._owner.tags_generation,
                total=len(tags),
                count=len(found),
                valid=TagBitmaps.make(references=True, pending=True),
                tags=found,
            )

    # -- what they have in common ----------------------------------------------------------------------------------

    def _host(self, number: int) -> HostCapacity:
        host = self._owner.hosts.get(number)
        if host is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return host

    def _region_of(self, extents: Sequence[Extent]) -> int:
        """The number of the region that the first extent begins in; the owner refuses what is not in it."""
        if not extents:
            raise CommandError(ReturnCode.INVALID_EXTENT_LIST)
        region = self._owner.region_of(extents[0].start)
        return self._owner.regions.index(region)

    def _room(self, head: int, each: int) -> int:
        return (self._payload_max - head) // each


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except DynamicCapacityError as error:
        raise CommandError(error.code) from error


def _known(kind: type[E], options: AddOptions | ReleaseOptions, mask: int) -> E:
    try:
        return kind(int(options) & mask)
    except ValueError:
        raise CommandError(ReturnCode.INVALID_INPUT) from None


def _listed(tail: bytes) -> list[Extent]:
    """The extents at the end of a request, all of which it is."""
    try:
        given = ExtentList.unpack(tail).extents
    except LayoutError:
        raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH) from None
    return [Extent(one.start_dpa, one.length, UUID(bytes=one.tag), one.shared_sequence) for one in given]


def _information(use: TagUse) -> TagInformation:
    return TagInformation(
        tag=use.tag.bytes,
        flags=TagFlags.make(fm_reference=use.referenced),
        references=_bitmap(use.hosts),
        pending=_bitmap(use.pending),
    )


def _bitmap(hosts: Sequence[int]) -> bytes:
    return sum(1 << host for host in hosts).to_bytes(_BITMAP_BYTES, "little")
