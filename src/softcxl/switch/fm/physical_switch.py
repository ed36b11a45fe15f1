"""Physical switch commands (CXL 3.1 §7.6.7.1): what the switch is, its ports, what is done to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.switch import (
    GET_DOMAIN_VALIDATION_SV,
    GET_DOMAIN_VALIDATION_SV_STATE,
    GET_PHYSICAL_PORT_STATE,
    GET_VCS_DOMAIN_VALIDATION_SV_STATE,
    IDENTIFY_SWITCH_DEVICE,
    PHYSICAL_PORT_CONTROL,
    SEND_PPB_CXL_IO_CONFIGURATION_REQUEST,
    SET_DOMAIN_VALIDATION_SV,
    DomainValidationState,
    DomainValidationStateResponse,
    DomainValidationSv,
    GetPhysicalPortStateRequest,
    GetPhysicalPortStateResponse,
    IdentifySwitchDeviceResponse,
    PhysicalPortControlRequest,
    PortOperation,
    SendPpbConfigurationRequest,
    VcsIdRequest,
)
from softcxl.switch.fm.access import configuration_request
from softcxl.switch.fm.port_state import information, nothing

if TYPE_CHECKING:
    from softcxl.spec.fm.switch import ConfigurationResponse
    from softcxl.switch.physical import PhysicalSwitch
    from softcxl.switch.physical_port import PhysicalPort
    from softcxl.switch.virtual import VirtualSwitch


class PhysicalSwitchCommands(CommandSet):
    """Commands 5100h to 5107h of `switch`, but for those by which a host sets the secret of its own domain. `ingress`
    is the physical port by which they come, or 0 for another bus, such as MCTP's."""

    def __init__(self, switch: PhysicalSwitch, ingress: int = 0) -> None:
        self._switch, self._ingress = switch, ingress

    @command(IDENTIFY_SWITCH_DEVICE)
    def identify_switch_device(self) -> IdentifySwitchDeviceResponse:
        switch = self._switch
        # Lists, not generators: managers ask this all the time, and it is half the price.
        active = sum([1 << number for number, port in switch.ports.items() if port.enabled])
        vppbs = [vppb.port for virtual in switch.virtual.values() for vppb in virtual.vppbs]
        return IdentifySwitchDeviceResponse(
            ingress_port=self._ingress,
            port_count=len(switch.ports),
            vcs_count=len(switch.virtual),
            active_ports=active.to_bytes(0x20, "little"),
            active_vcss=((1 << len(switch.virtual)) - 1).to_bytes(0x20, "little"),
            vppb_count=len(vppbs),
            bound_vppb_count=len(vppbs) - vppbs.count(None),
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

    @command(GET_VCS_DOMAIN_VALIDATION_SV_STATE)
    def get_vcs_domain_validation_state(self, request: VcsIdRequest) -> DomainValidationStateResponse:
        return state_of(self._virtual(request.vcs))

    @command(GET_DOMAIN_VALIDATION_SV)
    def get_domain_validation(self, request: VcsIdRequest) -> DomainValidationSv:
        """Invalid Input where it is not set."""
        secret = self._virtual(request.vcs).secret
        if secret is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return DomainValidationSv(secret_value=secret)

    def _virtual(self, number: int) -> VirtualSwitch:
        virtual = self._switch.virtual.get(number)
        if virtual is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return virtual

    def _free(self, number: int) -> PhysicalPort:
        """A downstream port that is the fabric manager's: unbound, or with logical devices."""
        port = self._switch.ports.get(number)
        if port is None or port.virtual is not None or None in port.bindings:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return port


class DomainCommands(CommandSet):
    """Commands 5104h and 5105h: a host that is below the upstream port of `virtual` names its hierarchy."""

    def __init__(self, virtual: VirtualSwitch) -> None:
        self._virtual = virtual

    @command(GET_DOMAIN_VALIDATION_SV_STATE)
    def get_domain_validation_state(self) -> DomainValidationStateResponse:
        return state_of(self._virtual)

    @command(SET_DOMAIN_VALIDATION_SV)
    def set_domain_validation(self, request: DomainValidationSv) -> None:
        """It is set once, until the upstream port is reset: Invalid Input where it has been."""
        if self._virtual.secret is not None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        self._virtual.secret = request.secret_value


def state_of(virtual: VirtualSwitch) -> DomainValidationStateResponse:
    """Whether a virtual switch's host has set its secret."""
    known = virtual.secret is not None
    return DomainValidationStateResponse(
        state=DomainValidationState.SET if known else DomainValidationState.NOT_SET
    )
