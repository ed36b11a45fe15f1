"""A switch from the fabric manager's side: its ports, its virtual switches, and who is bound to what."""

from __future__ import annotations

from uuid import UUID

from softcxl.fm.device import Device
from softcxl.fm.ports import PhysicalPorts
from softcxl.fm.virtual import VirtualSwitches
from softcxl.spec.fm.mld_port import TunnelTargetType
from softcxl.spec.fm.switch import (
    GET_DOMAIN_VALIDATION_SV,
    GET_DOMAIN_VALIDATION_SV_STATE,
    GET_VCS_DOMAIN_VALIDATION_SV_STATE,
    SET_DOMAIN_VALIDATION_SV,
    DomainValidationState,
    DomainValidationStateResponse,
    DomainValidationSv,
    VcsIdRequest,
)


class Switch(PhysicalPorts, VirtualSwitches):
    """A physical switch. `port` leads to the device behind one of its ports."""

    def port(self, port: int) -> Device:
        """The device behind a physical port; of an MLD its FM-owned LD. Commands to it are tunnelled (5300h)."""
        return self.tunnel(Device, TunnelTargetType.PORT_OR_LD, port, f"port {port}")

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
