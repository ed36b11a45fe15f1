"""The security state of a device on which no passphrase can be set."""

from __future__ import annotations

from softcxl.device.cci import CommandSet, command
from softcxl.spec.command.security import GET_SECURITY_STATE, GetSecurityStateResponse


class SecurityCommands(CommandSet):
    """Get Security State."""

    @command(GET_SECURITY_STATE)
    def get_security_state(self) -> GetSecurityStateResponse:
        return GetSecurityStateResponse()
