"""Physical switch commands (CXL 3.1 §7.6.7.1): what the switch is, its ports, what is done to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.pci.region import CONFIG_REGION
from softcxl.spec.command.base import ReturnCode
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
    PortOperation,
    SendPpbConfigurationRequest,
)
from softcxl.switch.fm.port_state import information, nothing

if TYPE_CHECKING:
    from softcxl.pci.function import Function
    from softcxl.switch.physical import PhysicalSwitch
    from softcxl.switch.physical_port import PhysicalPort

_DWORD = 4


class PhysicalSwitchCommands(CommandSet):
    """Commands 5100h to 5103h of `switch`."""

    def __init__(self, switch: PhysicalSwitch) -> None:
        self._switch = switch

    @command(IDENTIFY_SWITCH_DEVICE)
    def identify_switch_device(self) -> IdentifySwitchDeviceResponse:
        switch = self._switch
        active = sum(1 << port.number for port in switch.ports.values() if port.enabled)
        vppbs = [vppb for virtual in switch.virtual.values() for vppb in virtual.vppbs]
        return IdentifySwitchDeviceResponse(
            ingress_port=0,
            port_count=len(switch.ports),
            vcs_count=len(switch.virtual),
            active_ports=active.to_bytes(0x20, "little"),
            active_vcss=((1 << len(switch.virtual)) - 1).to_bytes(0x20, "little"),
            vppb_count=len(vppbs),
            bound_vppb_count=sum(vppb.port is not None for vppb in vppbs),
            hdm_decoder_count=switch.hdm_decoders,
        )

    @command(GET_PHYSICAL_PORT_STATE)
    def get_physical_port_state(self, request: GetPhysicalPortStateRequest) -> GetPhysicalPortStateResponse:
        """Of a port that is not there: Invalid Port ID, and nothing else."""
        ports = [self._switch.ports.get(number) for number in request.ports]
        found = [
            nothing(number) if port is None else information(port)
            for number, port in zip(request.ports, ports, strict=True)
        ]
        return GetPhysicalPortStateResponse(count=len(found), ports=found)

    @command(PHYSICAL_PORT_CONTROL)
    def physical_port_control(self, request: PhysicalPortControlRequest) -> None:
        """Of a port that no host has for itself."""
        port = self._free(request.port)
        if request.operation == PortOperation.ASSERT_PERST:
            port.assert_perst()
        elif request.operation == PortOperation.DEASSERT_PERST:
            port.deassert_perst()
        elif request.operation == PortOperation.RESET_PPB:
            port.reset_ppb()
        else:
            raise CommandError(ReturnCode.INVALID_INPUT)

    @command(SEND_PPB_CXL_IO_CONFIGURATION_REQUEST)
    def send_ppb_configuration_request(self, request: SendPpbConfigurationRequest) -> ConfigurationResponse:
        port = self._free(request.port)
        assert port.ppb is not None, "only an upstream port has none"
        return configuration_request(port.ppb, request.transaction, request.data)

    def _free(self, number: int) -> PhysicalPort:
        """A downstream port that is the fabric manager's: unbound, or with logical devices."""
        port = self._switch.ports.get(number)
        if port is None or port.virtual is not None or None in port.bindings:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return port


def configuration_request(
    function: Function, transaction: ConfigurationTransaction, data: int
) -> ConfigurationResponse:
    """Read or write a dword of configuration space. Bytes that are not enabled are not written, and read as zero."""
    offset = transaction.extended_register_number << 8 | transaction.register_number
    if offset % _DWORD:
        raise CommandError(ReturnCode.INVALID_INPUT)
    given, answer = data.to_bytes(_DWORD, "little"), bytearray(_DWORD)
    for first, end in runs(transaction.first_byte_enables, _DWORD):
        if transaction.write:
            function.write(CONFIG_REGION, offset + first, given[first:end])
        else:
            answer[first:end] = function.read(CONFIG_REGION, offset + first, end - first)
    return ConfigurationResponse(data=int.from_bytes(answer, "little"))


def runs(enables: int, count: int) -> list[tuple[int, int]]:
    """Of `count` bytes those that are enabled, one bit each: where each run of them begins and ends."""
    found: list[tuple[int, int]] = []
    for place in range(count):
        if enables >> place & 1:
            if found and found[-1][1] == place:
                found[-1] = found[-1][0], place + 1
            else:
                found.append((place, place + 1))
    return found
