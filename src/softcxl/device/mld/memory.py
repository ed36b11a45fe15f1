"""The memory of logical devices, as a fabric manager deals it out (opcodes 5400h to 5402h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.device.mld.allocation import GRANULARITIES, Allocation
from softcxl.device.mld.errors import LogicalDeviceError
from softcxl.spec.command.base import CommandEffects, ReturnCode
from softcxl.spec.command.memory import QosTelemetry
from softcxl.spec.fm.mld import (
    GET_LD_ALLOCATIONS,
    GET_LD_INFO,
    SET_LD_ALLOCATIONS,
    GetLdAllocationsRequest,
    GetLdAllocationsResponse,
    GetLdInfoResponse,
    LdAllocation,
    LdAllocations,
)

if TYPE_CHECKING:
    from softcxl.device.mld.head import Head


class MemoryCommands(CommandSet):
    """Get LD Info, Get and Set LD Allocations, of the logical devices of `head`.

    Set LD Allocations does all that it is asked, or nothing: Invalid Input for a logical device that is not there or
    in use (its allocation stays, unless what is asked for is what it has), and for more than there is.
    """

    def __init__(self, head: Head) -> None:
        self._head, self._mld = head, head.mld

    @command(GET_LD_INFO)
    def get_ld_info(self) -> GetLdInfoResponse:
        return GetLdInfoResponse(
            memory_size=self._mld.volatile + self._mld.persistent,
            ld_count=len(self._head.lds),
            qos_telemetry=QosTelemetry.make(egress_port_congestion=True, temporary_throughput_reduction=True),
        )

    @command(GET_LD_ALLOCATIONS)
    def get_ld_allocations(self, request: GetLdAllocationsRequest) -> GetLdAllocationsResponse:
        head = self._head
        if not request.limit:
            raise CommandError(ReturnCode.INVALID_INPUT)
        found = self._list(request.start, request.limit)
        return GetLdAllocationsResponse(
            ld_count=len(head.lds),
            granularity=GRANULARITIES[self._mld.granularity],
            start=request.start,
            count=len(found),
            allocations=found,
        )

    @command(
        SET_LD_ALLOCATIONS,
        effects=CommandEffects.make(immediate_config_change=True, immediate_data_change=True),
    )
    def set_ld_allocations(self, request: LdAllocations) -> LdAllocations:
        head, unit, start = self._head, self._mld.granularity, request.start
        if not request.count or start + request.count > len(head.lds):
            raise CommandError(ReturnCode.INVALID_INPUT)
        wanted = {
            head.lds[start + number]: Allocation(one.range1 * unit, one.range2 * unit)
            for number, one in enumerate(request.allocations)
        }
        try:
            self._mld.allocate(wanted)
        except LogicalDeviceError as error:
            raise CommandError(error.code) from error
        return LdAllocations(count=request.count, start=start, allocations=self._list(start, request.count))

    def _list(self, start: int, limit: int) -> list[LdAllocation]:
        unit, each = self._mld.granularity, self._mld.allocations.each
        return [
            LdAllocation(range1=each[ld].volatile // unit, range2=each[ld].persistent // unit)
            for ld in self._head.lds[start : start + limit]
        ]
