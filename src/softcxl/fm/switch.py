"""A switch from the fabric manager's side: its ports, its virtual switches, and who is bound to what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from softcxl.fm import access
from softcxl.fm.bitmap import set_bits
from softcxl.fm.channel import naming
from softcxl.fm.component import Component
from softcxl.fm.device import Device
from softcxl.fm.errors import BadAnswer, CommandRefused, FmError, NoAnswer
from softcxl.fm.interface import Progress
from softcxl.spec.command.base import Command
from softcxl.spec.fm.mld_port import (
    MAX_MEMORY_TRANSACTION,
    SEND_LD_CXL_IO_CONFIGURATION_REQUEST,
    SEND_LD_CXL_IO_MEMORY_REQUEST,
    SendLdConfigurationRequest,
    SendLdMemoryRequest,
    SendLdMemoryResponse,
    TunnelTargetType,
)
from softcxl.spec.fm.switch import (
    GET_DOMAIN_VALIDATION_SV,
    GET_DOMAIN_VALIDATION_SV_STATE,
    GET_PHYSICAL_PORT_STATE,
    GET_VCS_DOMAIN_VALIDATION_SV_STATE,
    IDENTIFY_SWITCH_DEVICE,
    PHYSICAL_PORT_CONTROL,
    SEND_PPB_CXL_IO_CONFIGURATION_REQUEST,
    SET_DOMAIN_VALIDATION_SV,
    ConfigurationResponse,
    ConfigurationTransaction,
    DomainValidationState,
    DomainValidationStateResponse,
    DomainValidationSv,
    GetPhysicalPortStateRequest,
    GetPhysicalPortStateResponse,
    IdentifySwitchDeviceResponse,
    PhysicalPortControlRequest,
    PortInformation,
    PortOperation,
    SendPpbConfigurationRequest,
    VcsIdRequest,
)
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
from softcxl.wire import LayoutError, Record

#: What counts ports, virtual switches and vPPBs is a byte.
_MOST = 255


@dataclass(slots=True)
class VirtualSwitch:
    """A virtual CXL switch: its ID, its state (a `VcsState`), the physical port that is its upstream port, and what
    each of its vPPBs is bound to."""

    id: int
    state: int
    usp: int
    vppbs: list[VppbInformation]


class Switch(Component):
    """A physical switch. `port` leads to the device behind one of its ports."""

    async def identify_switch(self) -> IdentifySwitchDeviceResponse:
        """Identify Switch Device (5100h): how many ports, virtual switches and vPPBs there are, which active."""
        return await self._get(IdentifySwitchDeviceResponse, IDENTIFY_SWITCH_DEVICE)

    # -- physical ports --------------------------------------------------------------------------------------

    async def ports(self, ids: Iterable[int] | None = None) -> list[PortInformation]:
        """The state of these physical ports, of all if None (Get Physical Port State, 5101h).

        A switch may leave out ports that it has not, or say of them that their ID is invalid.
        """
        if ids is None:
            identity = await self.identify_switch()
            ids = sorted({*range(identity.port_count), *set_bits(identity.active_ports)})
        wanted, found = list(dict.fromkeys(ids)), []
        header = GetPhysicalPortStateResponse.__layout__.size
        count = min(_MOST, max(1, (await self.room() - header) // PortInformation.__layout__.size))
        for at in range(0, len(wanted), count):
            asked = wanted[at : at + count]
            request = GetPhysicalPortStateRequest(ports=asked)
            response = await self._get(GetPhysicalPortStateResponse, GET_PHYSICAL_PORT_STATE, request)
            strangers = sorted({one.port for one in response.ports} - set(asked))
            if strangers:
                what = f"ports {', '.join(map(str, strangers))}, which were not asked for"
                raise BadAnswer(f"{self.name}: {naming(GET_PHYSICAL_PORT_STATE.opcode)}: {what}")
            found += response.ports
        return found

    async def control_port(self, port: int, operation: PortOperation) -> None:
        """Assert or deassert a port's PERST#, or reset its PPB (Physical Port Control, 5102h)."""
        await self._do(PHYSICAL_PORT_CONTROL, PhysicalPortControlRequest(port=port, operation=operation))

    def port(self, port: int) -> Device:
        """The device behind a physical port; of an MLD its FM-owned LD. Commands to it are tunnelled (5300h)."""
        return self.tunnel(Device, TunnelTargetType.PORT_OR_LD, port, f"port {port}")

    # -- virtual switches ------------------------------------------------------------------------------------

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

    # -- configuration space and memory ----------------------------------------------------------------------

    async def read_configuration(self, port: int, offset: int, size: int = 4, ld: int | None = None) -> bytes:
        """Bytes of the configuration space of a port's PPB (5103h), or of a logical device behind it (5301h).

        `offset` and `size` are in bytes; each dword is a request of its own.
        """
        found = bytearray()
        for at, count, transaction, _ in access.configuration(offset, size):
            data = await self._configuration(port, ld, transaction, 0)
            found += access.extract(data, offset + at, count)
        return bytes(found)

    async def write_configuration(self, port: int, offset: int, data: bytes, ld: int | None = None) -> None:
        """Write bytes of the configuration space of a port's PPB (5103h), or of a logical device behind it (5301h)."""
        for _, _, transaction, dword in access.configuration(offset, len(data), data):
            await self._configuration(port, ld, transaction, dword)

    async def _configuration(
        self, port: int, ld: int | None, transaction: ConfigurationTransaction, data: int
    ) -> int:
        command: Command
        request: Record
        if ld is None:
            command = SEND_PPB_CXL_IO_CONFIGURATION_REQUEST
            request = SendPpbConfigurationRequest(port=port, transaction=transaction, data=data)
        else:
            command = SEND_LD_CXL_IO_CONFIGURATION_REQUEST
            request = SendLdConfigurationRequest(port=port, transaction=transaction, ld=ld, data=data)
        if not transaction.write:
            return (await self._get(ConfigurationResponse, command, request)).data
        await self.start(command, request)  # what a write returns says nothing
        return 0

    async def read_memory(self, port: int, ld: int, address: int, size: int) -> bytes:
        """`size` bytes from `address` in a logical device's memory space (Send LD CXL.io Memory Request, 5302h)."""
        found = bytearray()
        part = await self._part()
        while len(found) < size:
            count = min(part, size - len(found))
            response = await self._memory(port, ld, address + len(found), count)
            if len(response.data) < count:
                given = f"{len(response.data)} bytes, {count} were asked for"
                raise BadAnswer(f"{self.name}: {naming(SEND_LD_CXL_IO_MEMORY_REQUEST.opcode)}: {given}")
            found += response.data[:count]
        return bytes(found)

    async def write_memory(self, port: int, ld: int, address: int, data: bytes) -> None:
        """Write bytes at `address` in the memory space of a logical device (5302h)."""
        part = await self._part()
        for at in range(0, len(data), part):
            await self._memory(port, ld, address + at, len(data[at : at + part]), data[at : at + part])

    async def _part(self) -> int:
        """Bytes of memory that a request can carry."""
        return min(MAX_MEMORY_TRANSACTION, await self.room() - SendLdMemoryRequest.__layout__.size) & ~0x3F

    async def _memory(
        self, port: int, ld: int, address: int, size: int, data: bytes = b""
    ) -> SendLdMemoryResponse:
        request = SendLdMemoryRequest(
            port=port,
            transaction=access.memory(address, size, bool(data)),
            ld=ld,
            length=size,
            address=address,
            data=data,
        )
        return await self._get(SendLdMemoryResponse, SEND_LD_CXL_IO_MEMORY_REQUEST, request)

    # -- domain validation -----------------------------------------------------------------------------------

    async def has_domain_validation(self, vcs: int | None = None) -> bool:
        """Whether the secret value of this host's domain is set (5104h), or that of a virtual switch (5106h)."""
        command = GET_DOMAIN_VALIDATION_SV_STATE if vcs is None else GET_VCS_DOMAIN_VALIDATION_SV_STATE
        request = None if vcs is None else VcsIdRequest(vcs=vcs)
        response = await self._get(DomainValidationStateResponse, command, request)
        return response.state == DomainValidationState.SET

    async def set_domain_validation(self, secret_value: UUID) -> None:
        """Set the secret value of this host's domain, which works once (Set Domain Validation SV, 5105h)."""
        await self._do(SET_DOMAIN_VALIDATION_SV, DomainValidationSv(secret_value=secret_value))

    async def domain_validation(self, vcs: int) -> UUID:
        """The secret value of a virtual switch's domain (Get Domain Validation SV, 5107h)."""
        request = VcsIdRequest(vcs=vcs)
        return (await self._get(DomainValidationSv, GET_DOMAIN_VALIDATION_SV, request)).secret_value


_INVALID = VcsState.INVALID_VCS_ID
