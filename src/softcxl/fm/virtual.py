"""A switch's virtual switches from the fabric manager's side: what their vPPBs are bound to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from softcxl.fm.bitmap import set_bits
from softcxl.fm.channel import naming
from softcxl.fm.errors import BadAnswer, CommandRefused, FmError, NoAnswer
from softcxl.fm.interface import Progress
from softcxl.fm.ports import SwitchComponent
from softcxl.spec.command.base import Command
from softcxl.spec.fm.vcs import (
    BIND_VPPB,
    GENERATE_AER_EVENT,
    GET_VIRTUAL_CXL_SWITCH_INFO,
    NO_LD,
    UNBIND_VPPB,
    AerError,
    BindingStatus,
    BindVppbRequest,
    GenerateAerEventRequest,
    GetVcsInfoRequest,
    GetVcsInfoResponse,
    UnbindOption,
    UnbindOptions,
    UnbindVppbRequest,
    VcsInformation,
    VcsState,
    VppbInformation,
)
from softcxl.wire import LayoutError

#: What counts virtual switches and vPPBs is a byte.
_MOST = 255
_INVALID = VcsState.INVALID_VCS_ID


@dataclass(slots=True)
class VirtualSwitch:
    """A virtual CXL switch: its ID, its state (a `VcsState`), the physical port that is its upstream port, and what
    each of its vPPBs is bound to."""

    id: int
    state: int
    usp: int
    vppbs: list[VppbInformation]


class VirtualSwitches(SwitchComponent):
    """Commands 5200h to 5203h of a switch."""

    async def virtual_switches(self, ids: Iterable[int] | None = None) -> list[VirtualSwitch]:
        """These virtual CXL switches, all if None, with all their vPPBs (Get Virtual CXL Switch Info, 5200h).

        One that there is not has the state `VcsState.INVALID_VCS_ID`.
        """
        if ids is None:
            identity = await self.identify_switch()
            ids = sorted({*range(identity.vcs_count), *set_bits(identity.active_vcss)})
        wanted = list(dict.fromkeys(ids))
        found: dict[int, VirtualSwitch] = {}
        block, entry = VcsInformation.__layout__.size, VppbInformation.__layout__.size
        room = await self.room() - GetVcsInfoResponse.__layout__.size
        limit = min(_MOST, max(1, (room - block) // entry))
        count = min(_MOST, max(1, room // (block + limit * entry)))
        for at in range(0, len(wanted), count):
            rest, start = wanted[at : at + count], 0
            while rest:
                blocks = await self._virtual_switches(rest, start, limit)
                start += limit
                for one, vppbs in blocks:
                    known = found.setdefault(one.vcs, VirtualSwitch(one.vcs, one.state, one.usp, []))
                    known.vppbs += vppbs
                rest = [one.vcs for one, _ in blocks if one.vppb_count > start and one.state != _INVALID]
        return [found[one] for one in wanted if one in found]

    async def _virtual_switches(
        self, ids: Sequence[int], start: int, limit: int
    ) -> list[tuple[VcsInformation, list[VppbInformation]]]:
        """Some vPPBs of each of these virtual switches, from the vPPB `start` on."""
        request = GetVcsInfoRequest(start_vppb=start, vppb_limit=limit, vcss=list(ids))
        response = await self._get(GetVcsInfoResponse, GET_VIRTUAL_CXL_SWITCH_INFO, request)
        where = f"{self.name}: {naming(GET_VIRTUAL_CXL_SWITCH_INFO.opcode)}"
        found: list[tuple[VcsInformation, list[VppbInformation]]] = []
        at = 0
        for _ in range(response.count):
            try:
                one, at = VcsInformation.parse(response.blocks, at)
                vppbs = []
                if one.state != _INVALID:
                    for _ in range(min(limit, max(0, one.vppb_count - start))):
                        vppb, at = VppbInformation.parse(response.blocks, at)
                        vppbs.append(vppb)
            except LayoutError as error:
                raise BadAnswer(f"{where}: {error}") from None
            if one.vcs not in ids or any(one.vcs == other.vcs for other, _ in found):
                why = "more than once" if one.vcs in ids else "which was not asked for"
                raise BadAnswer(f"{where}: virtual switch {one.vcs}, {why}")
            found.append((one, vppbs))
        if len(response.blocks) - at:
            raise BadAnswer(f"{where}: {len(response.blocks) - at} bytes after what it says there is")
        return found

    async def vppb(self, vcs: int, vppb: int) -> VppbInformation:
        """What a vPPB is bound to (5200h). Raises `FmError` where it is not there."""
        found = [one for _, vppbs in await self._virtual_switches([vcs], vppb, 1) for one in vppbs]
        if not found:
            raise FmError(f"{self.name}: there is no vPPB {vppb} of VCS {vcs}")
        return found[0]

    async def bind(
        self,
        vcs: int,
        vppb: int,
        port: int,
        ld: int | None = None,
        *,
        wait: bool = True,
        progress: Progress | None = None,
    ) -> bool:
        """Bind a vPPB to a physical port, or to a logical device behind it (Bind vPPB, 5201h).

        Returns whether it is bound: False where that has begun and goes on, which is waited for unless `wait` is False.
        """
        request = BindVppbRequest(vcs=vcs, vppb=vppb, port=port, ld=NO_LD if ld is None else ld)

        def bound(found: VppbInformation) -> bool:
            free = found.status in (BindingStatus.UNBOUND, BindingStatus.IN_PROGRESS)
            return not free and found.port == port and (ld is None or found.ld == ld)

        return await self._change(BIND_VPPB, request, wait, progress, bound)

    async def unbind(
        self,
        vcs: int,
        vppb: int,
        option: UnbindOption = UnbindOption.MANAGED_HOT_REMOVE,
        *,
        wait: bool = True,
        progress: Progress | None = None,
    ) -> bool:
        """Unbind a vPPB (5202h): the host gives up what is there, or loses it (`SURPRISE_HOT_REMOVE`).

        Returns whether it is unbound: False where that has begun and goes on, which is waited for unless `wait` is
        False.
        """
        request = UnbindVppbRequest(vcs=vcs, vppb=vppb, options=UnbindOptions.make(option=option))

        def unbound(found: VppbInformation) -> bool:
            return found.status == BindingStatus.UNBOUND

        return await self._change(UNBIND_VPPB, request, wait, progress, unbound)

    async def _change(
        self,
        command: Command,
        request: BindVppbRequest | UnbindVppbRequest,
        wait: bool,
        progress: Progress | None,
        wanted: Callable[[VppbInformation], bool],
    ) -> bool:
        """Change a binding. There is one background operation for all fabric managers, so what counts in the end is
        what the vPPB is, if the switch says."""
        if not await self.start(command, request):
            return True
        if not wait:
            return False
        trouble: FmError | None = None
        try:
            await self.wait(command, request, progress)
        except (CommandRefused, NoAnswer) as error:
            trouble = error
        try:
            is_so = wanted(await self.vppb(request.vcs, request.vppb))
        except FmError:
            is_so = trouble is None
        if is_so:
            return True
        what = f"vPPB {request.vppb} of VCS {request.vcs} is not as it was asked to be"
        message = (
            f"{self.name}: {naming(command.opcode)} has ended, and {what}: somebody has changed it since"
        )
        raise trouble or NoAnswer(message)

    async def generate_aer_event(
        self, vcs: int, vppb: int, position: int, *, uncorrectable: bool = False, header: bytes = b""
    ) -> None:
        """Have a vPPB report the AER error at a bit of its error status register (Generate AER Event, 5203h).

        `header` is the TLP header for the header log, 32 bytes at most.
        """
        error = AerError.make(position=position, uncorrectable=uncorrectable)
        request = GenerateAerEventRequest(vcs=vcs, vppb=vppb, error=error, header=header)
        await self._do(GENERATE_AER_EVENT, request)
