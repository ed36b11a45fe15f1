"""MLD port commands (CXL 3.1 §7.6.7.3): tunnels to what is in a port, and requests to its logical devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.device.cci import CommandError, CommandSet, Reply, command
from softcxl.device.tunnel import answered, carried
from softcxl.pci.function import Function
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.mld_port import (
    FM_OWNED_LD,
    MAX_MEMORY_TRANSACTION,
    SEND_LD_CXL_IO_CONFIGURATION_REQUEST,
    SEND_LD_CXL_IO_MEMORY_REQUEST,
    TUNNEL_MANAGEMENT_COMMAND,
    SendLdConfigurationRequest,
    SendLdMemoryRequest,
    SendLdMemoryResponse,
    TunnelRequest,
    TunnelResponse,
    TunnelTargetType,
)
from softcxl.switch.fm.access import configuration_request, enabled, runs
from softcxl.switch.occupant import CommandInterface, Occupant, machines

if TYPE_CHECKING:
    from softcxl.spec.fm.switch import ConfigurationResponse
    from softcxl.switch.physical import PhysicalSwitch
    from softcxl.switch.physical_port import PhysicalPort


class MldPortCommands(CommandSet):
    """Commands 5300h to 5302h of `switch`.

    Of a port that is not there, or has nothing that could be meant: Invalid Input. Of one whose link is down: Retry
    Required. All doors have the same command interface at the end of a tunnel; it sends no Event Notifications.
    """

    def __init__(self, switch: PhysicalSwitch) -> None:
        self._switch = switch
        self._tunnels: dict[int, tuple[Occupant, CommandInterface]] = {}

    # -- tunnels -------------------------------------------------------------------------------------------------

    @command(TUNNEL_MANAGEMENT_COMMAND)
    def tunnel(self, request: TunnelRequest) -> TunnelResponse:
        if request.target.type != TunnelTargetType.PORT_OR_LD:
            raise CommandError(ReturnCode.INVALID_INPUT)
        message = carried(request)
        return answered(self._end(self._port(request.port_or_ld)), message)

    def _end(self, port: PhysicalPort) -> CommandInterface:
        """The command interface of what is in the port: of a device of logical devices its FM-owned one's."""
        device = port.device
        opened = self._tunnels.get(port.number)
        if opened is not None:
            if opened[0] is device:
                return opened[1]
            del self._tunnels[port.number]
            opened[1].close()
        management = getattr(device, "management", None)
        if device is None or management is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        made: CommandInterface = management(lambda notification: None)
        if isinstance(device, Function):
            made = _Locked(device, made)
        self._tunnels[port.number] = device, made
        return made

    def close(self) -> None:
        """Let go of the command interfaces at the ends of tunnels."""
        while self._tunnels:
            self._tunnels.popitem()[1][1].close()

    def _port(self, number: int) -> PhysicalPort:
        port = self._switch.ports.get(number)
        if port is None or port.virtual is not None or port.device is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        if not port.link_up:
            raise CommandError(ReturnCode.RETRY_REQUIRED)
        return port

    # -- requests ------------------------------------------------------------------------------------------------

    @command(SEND_LD_CXL_IO_CONFIGURATION_REQUEST)
    def send_ld_configuration_request(self, request: SendLdConfigurationRequest) -> ConfigurationResponse:
        function = self._logical(request.port, request.ld)
        with machines([function]):
            return configuration_request(function, request.transaction, request.data)

    @command(SEND_LD_CXL_IO_MEMORY_REQUEST)
    def send_ld_memory_request(self, request: SendLdMemoryRequest) -> SendLdMemoryResponse:
        """Of what no BAR claims: Invalid Input. Bytes that are not enabled are not written, and read as zero.

        A read may have as many bytes of data, which mean nothing: jack sends them.
        """
        function = self._logical(request.port, request.ld)
        length, write = request.length, request.transaction.write
        if not 1 <= length <= MAX_MEMORY_TRANSACTION:
            raise CommandError(ReturnCode.INVALID_INPUT)
        if len(request.data) != length and (write or request.data):
            raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH)
        lanes = runs(enabled(request.transaction, request.address, length), length)
        answer = bytearray(0 if write else length)
        with machines([function]), function.lock:
            bar, offset = _claimed(function, request.address, length)
            for first, end in lanes:
                if write:
                    function.write(bar, offset + first, request.data[first:end])
                else:
                    answer[first:end] = function.read(bar, offset + first, end - first)
        return SendLdMemoryResponse(size=length, data=bytes(answer))

    def _logical(self, number: int, ld: int) -> Function:
        """A logical device in a port that is bound to no host, or the FM-owned one."""
        port = self._port(number)
        device = port.device
        if device is None or isinstance(device, Function) or ld in port.bindings:
            raise CommandError(ReturnCode.INVALID_INPUT)
        found = device.fm_owned if ld == FM_OWNED_LD else device.function(ld)
        if found is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return found


def _claimed(function: Function, address: int, length: int) -> tuple[int, int]:
    """The BAR that claims all of a range of addresses, and where in it that begins."""
    for start, end, bar in function.claims():
        if start <= address and address + length <= end:
            return bar, address - start
    raise CommandError(ReturnCode.INVALID_INPUT)


class _Locked:
    """A device's command interface, which wants the device's lock."""

    def __init__(self, device: Function, interface: CommandInterface) -> None:
        self._device, self._interface = device, interface

    def execute(self, opcode: int, payload: bytes) -> Reply:
        with self._device.lock:
            return self._interface.execute(opcode, payload)

    def close(self) -> None:
        self._interface.close()
