"""Virtual switch commands (CXL 3.1 §7.6.7.2): what vPPBs are bound to, binding and unbinding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.device.cci import Background, CommandError, CommandSet, command
from softcxl.spec.command.base import CommandEffects, ReturnCode
from softcxl.spec.fm.vcs import (
    BIND_VPPB,
    GENERATE_AER_EVENT,
    GET_VIRTUAL_CXL_SWITCH_INFO,
    NO_BOUND_LD,
    NO_LD,
    UNBIND_VPPB,
    BindVppbRequest,
    GenerateAerEventRequest,
    GetVcsInfoRequest,
    GetVcsInfoResponse,
    UnbindOption,
    UnbindVppbRequest,
    VcsInformation,
    VcsState,
    VppbInformation,
)
from softcxl.spec.pci.extended import CorrectableErrorStatus, UncorrectableErrorStatus
from softcxl.switch.binding import Bind, Unbind

if TYPE_CHECKING:
    from softcxl.switch.fm.management import Commands
    from softcxl.switch.physical import PhysicalSwitch
    from softcxl.switch.virtual import Vppb

_CORRECTABLE = {field.lo: field.name for field in CorrectableErrorStatus.__layout__.fields}
_UNCORRECTABLE = {field.lo: field.name for field in UncorrectableErrorStatus.__layout__.fields}
"""Errors by the position of their bit."""

_HEADER_LOG = 16
"""Bytes of the header log; those of the prefixes that may follow have no register here."""

_IN_BACKGROUND = CommandEffects.make(background_operation=True, abort_supported=True)


class VirtualSwitchCommands(CommandSet):
    """Commands 5200h to 5203h of `switch`. vPPBs are numbered from 0, the downstream ones alone."""

    def __init__(self, switch: PhysicalSwitch, commands: Commands) -> None:
        self._switch, self._commands = switch, commands

    @command(GET_VIRTUAL_CXL_SWITCH_INFO)
    def get_vcs_info(self, request: GetVcsInfoRequest) -> GetVcsInfoResponse:
        """Of a virtual switch that is not there: Invalid VCS ID, and no vPPBs. Invalid Input for more than a response
        can hold, too: ask for fewer at a time."""
        if not request.vppb_limit or not request.count:
            raise CommandError(ReturnCode.INVALID_INPUT)
        blocks = b"".join(self._block(vcs, request.start_vppb, request.vppb_limit) for vcs in request.vcss)
        if GetVcsInfoResponse.__layout__.size + len(blocks) > self._switch.payload_max:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return GetVcsInfoResponse(count=request.count, blocks=blocks)

    def _block(self, vcs: int, start: int, limit: int) -> bytes:
        virtual = self._switch.virtual.get(vcs)
        if virtual is None:
            return VcsInformation(vcs=vcs, state=VcsState.INVALID_VCS_ID, usp=0, vppb_count=0).pack()
        told = VcsInformation(
            vcs=vcs, state=VcsState.ENABLED, usp=virtual.upstream, vppb_count=len(virtual.vppbs)
        )
        with self._switch.lock:
            return told.pack() + b"".join(_told(vppb) for vppb in virtual.vppbs[start : start + limit])

    @command(BIND_VPPB, effects=_IN_BACKGROUND)
    def bind_vppb(self, request: BindVppbRequest) -> Background:
        ld = None if request.ld == NO_LD else request.ld
        return self._commands.follow(Bind(self._switch, request.vcs, request.vppb, request.port, ld))

    @command(UNBIND_VPPB, effects=_IN_BACKGROUND)
    def unbind_vppb(self, request: UnbindVppbRequest) -> Background:
        option = request.options.option
        if option not in tuple(UnbindOption):
            raise CommandError(ReturnCode.INVALID_INPUT)
        operation = Unbind(self._switch, request.vcs, request.vppb, UnbindOption(option))
        operation.run()
        return self._commands.follow(operation)

    @command(GENERATE_AER_EVENT)
    def generate_aer_event(self, request: GenerateAerEventRequest) -> None:
        """Numbers vPPBs otherwise: 0 is the upstream one. Invalid Input for a bit that is no error's."""
        virtual = self._switch.virtual.get(request.vcs)
        if virtual is None or request.vppb > len(virtual.vppbs):
            raise CommandError(ReturnCode.INVALID_INPUT)
        correctable = not request.error.uncorrectable
        name = (_CORRECTABLE if correctable else _UNCORRECTABLE).get(request.error.position)
        if name is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        header = int.from_bytes(request.header[:_HEADER_LOG], "little")
        virtual.tenant.error(
            request.vppb - 1 if request.vppb else None, name, correctable=correctable, header=header
        )


def _told(vppb: Vppb) -> bytes:
    port = vppb.port
    return VppbInformation(
        status=vppb.status,
        port=0 if port is None else port.number,
        ld=NO_BOUND_LD if vppb.ld is None else vppb.ld,
    ).pack()
