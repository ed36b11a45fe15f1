"""A switch's physical ports from the fabric manager's side, and what is reached through them."""

from __future__ import annotations

from collections.abc import Iterable

from softcxl.fm import access
from softcxl.fm.bitmap import set_bits
from softcxl.fm.channel import naming
from softcxl.fm.component import Component
from softcxl.fm.errors import BadAnswer
from softcxl.spec.command.base import Command
from softcxl.spec.fm.mld_port import (
    MAX_MEMORY_TRANSACTION,
    SEND_LD_CXL_IO_CONFIGURATION_REQUEST,
    SEND_LD_CXL_IO_MEMORY_REQUEST,
    SendLdConfigurationRequest,
    SendLdMemoryRequest,
    SendLdMemoryResponse,
)
from softcxl.spec.fm.switch import (
    GET_PHYSICAL_PORT_STATE,
    IDENTIFY_SWITCH_DEVICE,
    PHYSICAL_PORT_CONTROL,
    SEND_PPB_CXL_IO_CONFIGURATION_REQUEST,
    ConfigurationResponse,
    ConfigurationTransaction,
    GetPhysicalPortStateRequest,
    GetPhysicalPortStateResponse,
    IdentifySwitchDeviceResponse,
    PhysicalPortControlRequest,
    PortInformation,
    PortOperation,
    SendPpbConfigurationRequest,
)
from softcxl.wire import Record

#: What counts ports is a byte.
_MOST = 255


class SwitchComponent(Component):
    """A component that is a switch."""

    async def identify_switch(self) -> IdentifySwitchDeviceResponse:
        """Identify Switch Device (5100h): how many ports, virtual switches and vPPBs there are, which active."""
        return await self._get(IdentifySwitchDeviceResponse, IDENTIFY_SWITCH_DEVICE)


class PhysicalPorts(SwitchComponent):
    """Commands 5101h to 5103h, 5301h and 5302h of a switch."""

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
