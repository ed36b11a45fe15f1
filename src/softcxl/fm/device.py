"""A memory device from the fabric manager's side: its logical devices, their memory and bandwidth, its heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from softcxl.fm.channel import naming
from softcxl.fm.dynamic import DynamicCapacity
from softcxl.fm.errors import BadAnswer
from softcxl.spec.command.base import Command
from softcxl.spec.fm.mhd import (
    GET_HEAD_INFO,
    GET_MULTI_HEADED_INFO,
    NO_HEAD,
    GetHeadInfoRequest,
    GetHeadInfoResponse,
    GetMultiHeadedInfoRequest,
    GetMultiHeadedInfoResponse,
    HeadInformation,
)
from softcxl.spec.fm.mld import (
    GET_LD_ALLOCATIONS,
    GET_LD_INFO,
    GET_QOS_ALLOCATED_BW,
    GET_QOS_BW_LIMIT,
    GET_QOS_CONTROL,
    GET_QOS_STATUS,
    SET_LD_ALLOCATIONS,
    SET_QOS_ALLOCATED_BW,
    SET_QOS_BW_LIMIT,
    SET_QOS_CONTROL,
    GetLdAllocationsRequest,
    GetLdAllocationsResponse,
    GetLdInfoResponse,
    GetQosStatusResponse,
    LdAllocation,
    LdAllocations,
    MemoryGranularity,
    QosBandwidth,
    QosBandwidthRequest,
    QosControl,
)
from softcxl.spec.fm.mld_port import TunnelTargetType

_GRANULARITIES = {
    MemoryGranularity.MIB_256: 256 << 20,
    MemoryGranularity.MIB_512: 512 << 20,
    MemoryGranularity.GIB_1: 1 << 30,
}
_MOST = 255


@dataclass(frozen=True, slots=True)
class Allocations:
    """Memory of logical devices: for each LD ID from 0 the sizes of its range 1 and range 2 in bytes, multiples of
    `granularity`."""

    granularity: int
    ranges: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Heads:
    """A multi-headed device: how many heads, and for each logical device of its pool the port number of its head, None
    where it has none."""

    head_count: int
    ld_heads: list[int | None]


class Device(DynamicCapacity):
    """A memory device, or one of its logical devices. `ld` and `pool` lead to what is behind its FM-owned LD."""

    def ld(self, ld: int) -> Device:
        """A logical device of this MLD. Commands to it are tunnelled (5300h)."""
        return self.tunnel(Device, TunnelTargetType.PORT_OR_LD, ld, f"LD {ld}")

    @property
    def pool(self) -> Device:
        """The LD pool's command interface of this multi-headed device. Commands to it are tunnelled (5300h)."""
        return self.tunnel(Device, TunnelTargetType.LD_POOL_CCI, 0, "LD pool")

    # -- logical devices -------------------------------------------------------------------------------------

    async def ld_info(self) -> GetLdInfoResponse:
        """Get LD Info (5400h): the device's memory in bytes, its logical devices, its QoS telemetry."""
        return await self._get(GetLdInfoResponse, GET_LD_INFO)

    async def ld_allocations(self) -> Allocations:
        """The memory of all logical devices (Get LD Allocations, 5401h)."""
        found: list[LdAllocation] = []
        while True:
            request = GetLdAllocationsRequest(start=len(found), limit=min(_MOST, await self._entries()))
            response = await self._get(GetLdAllocationsResponse, GET_LD_ALLOCATIONS, request)
            self._continues(GET_LD_ALLOCATIONS, response.start, len(found), response.count, response.ld_count)
            found += response.allocations
            if len(found) >= response.ld_count:
                break
        if response.granularity not in _GRANULARITIES:
            what = f"memory granularity {response.granularity}, which is none of 0 to 2"
            raise BadAnswer(f"{self.name}: {naming(GET_LD_ALLOCATIONS.opcode)}: {what}")
        unit = _GRANULARITIES[MemoryGranularity(response.granularity)]
        return Allocations(unit, [(one.range1 * unit, one.range2 * unit) for one in found])

    async def set_ld_allocations(
        self, ranges: Sequence[tuple[int, int]], start: int = 0
    ) -> list[tuple[int, int]]:
        """Give logical devices memory, from LD ID `start` on: the sizes of range 1 and range 2 of each in bytes,
        multiples of the device's granularity (Set LD Allocations, 5402h). What they have then."""
        unit = (await self.ld_allocations()).granularity
        for one in (size for pair in ranges for size in pair):
            if one < 0 or one % unit:
                raise ValueError(f"{one} bytes for a logical device; multiples of {unit} bytes are allowed")
        entries = [LdAllocation(range1=first // unit, range2=second // unit) for first, second in ranges]
        request = LdAllocations(start=start, allocations=entries)
        response = await self._get(LdAllocations, SET_LD_ALLOCATIONS, request)
        return [(one.range1 * unit, one.range2 * unit) for one in response.allocations]

    async def _entries(self) -> int:
        room = await self.room() - GetLdAllocationsResponse.__layout__.size
        return max(1, room // LdAllocation.__layout__.size)

    def _continues(self, command: Command, start: int, wanted: int, count: int, total: int) -> None:
        """A page of a list begins where it was asked to, and goes on while the list does."""
        if start != wanted or (not count and wanted < total):
            what = f"{count} entries from {start}; from {wanted} on there are {max(0, total - wanted)}"
            raise BadAnswer(f"{self.name}: {naming(command.opcode)}: {what}")

    # -- quality of service ----------------------------------------------------------------------------------

    async def qos_control(self) -> QosControl:
        """Get QoS Control (5403h)."""
        return await self._get(QosControl, GET_QOS_CONTROL)

    async def set_qos_control(self, control: QosControl) -> QosControl:
        """Set QoS Control (5404h). What is in effect then."""
        return await self._get(QosControl, SET_QOS_CONTROL, control)

    async def qos_status(self) -> int:
        """How much backpressure there is on average, in percent (Get QoS Status, 5405h)."""
        return (await self._get(GetQosStatusResponse, GET_QOS_STATUS)).backpressure_average_percentage

    async def allocated_bandwidth(self, count: int, start: int = 0) -> list[int]:
        """What logical devices are allocated of the device's bandwidth, in 1/256, `count` of them from LD ID `start`
        on (Get QoS Allocated BW, 5406h)."""
        return await self._bandwidth(GET_QOS_ALLOCATED_BW, count, start)

    async def set_allocated_bandwidth(self, fractions: Sequence[int], start: int = 0) -> list[int]:
        """Allocate bandwidth, in 1/256 of the device's, from LD ID `start` on (Set QoS Allocated BW, 5407h). What is in
        effect then."""
        return await self._set_bandwidth(SET_QOS_ALLOCATED_BW, fractions, start)

    async def bandwidth_limit(self, count: int, start: int = 0) -> list[int]:
        """What logical devices are limited to of the device's bandwidth, in 1/256, `count` of them from LD ID `start`
        on (Get QoS BW Limit, 5408h)."""
        return await self._bandwidth(GET_QOS_BW_LIMIT, count, start)

    async def set_bandwidth_limit(self, fractions: Sequence[int], start: int = 0) -> list[int]:
        """Limit bandwidth, in 1/256 of the device's, from LD ID `start` on (Set QoS BW Limit, 5409h). What is in effect
        then."""
        return await self._set_bandwidth(SET_QOS_BW_LIMIT, fractions, start)

    async def _bandwidth(self, command: Command, count: int, start: int) -> list[int]:
        response = await self._get(QosBandwidth, command, QosBandwidthRequest(count=count, start=start))
        return self._fractions(command, response, count, start)

    async def _set_bandwidth(self, command: Command, fractions: Sequence[int], start: int) -> list[int]:
        request = QosBandwidth(start=start, fractions=list(fractions))
        response = await self._get(QosBandwidth, command, request)
        return self._fractions(command, response, len(fractions), start)

    def _fractions(self, command: Command, response: QosBandwidth, count: int, start: int) -> list[int]:
        if response.start != start or response.count > count:
            what = f"{response.count} entries from LD {response.start}; {count} from {start} were asked for"
            raise BadAnswer(f"{self.name}: {naming(command.opcode)}: {what}")
        return response.fractions

    # -- heads -----------------------------------------------------------------------------------------------

    async def heads(self) -> Heads:
        """Which head each logical device of a multi-headed device has (Get Multi-Headed Info, 5500h)."""
        found: list[int | None] = []
        while True:
            request = GetMultiHeadedInfoRequest(start=len(found), limit=_MOST)
            response = await self._get(GetMultiHeadedInfoResponse, GET_MULTI_HEADED_INFO, request)
            self._continues(
                GET_MULTI_HEADED_INFO, response.start, len(found), response.count, response.ld_count
            )
            found += [None if one == NO_HEAD else one for one in response.ld_map]
            if len(found) >= response.ld_count:
                return Heads(response.head_count, found)

    async def head_info(self, count: int, start: int = 0) -> list[HeadInformation]:
        """The links of heads, `count` of them from head `start` on (Get Head Info, 5501h)."""
        request = GetHeadInfoRequest(start=start, count=count)
        return (await self._get(GetHeadInfoResponse, GET_HEAD_INFO, request)).heads
