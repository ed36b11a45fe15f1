"""Security protocols of storage, passed through (CXL 3.2 §8.2.10.9.7): the one that tells which there are."""

from __future__ import annotations

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.spec.command.base import NO_EFFECT, ReturnCode
from softcxl.spec.command.passthrough import (
    SECURITY_RECEIVE,
    SECURITY_SEND,
    SecurityReceiveRequest,
    SecurityReceiveResponse,
    SecuritySendRequest,
)

INFORMATION = 0x00
"""The security protocol that tells of the others (SPC-5 §7.7.1.2); its numbers are big-endian."""

_ANSWERS = {
    0x0000: bytes(6) + (1).to_bytes(2, "big") + bytes([INFORMATION]),  # the protocols there are
    0x0001: bytes(4),  # no certificate
    0x0002: bytes(4),  # no compliance information
}


class PassthroughCommands(CommandSet):
    """Security Send and Security Receive, with protocol 00h alone; nothing can be sent to that one."""

    @command(SECURITY_RECEIVE)
    def security_receive(self, request: SecurityReceiveRequest) -> SecurityReceiveResponse:
        answer = _ANSWERS.get(request.protocol_specific) if request.protocol == INFORMATION else None
        if answer is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return SecurityReceiveResponse(data=answer)

    @command(SECURITY_SEND, effects=NO_EFFECT)
    def security_send(self, request: SecuritySendRequest) -> None:
        raise CommandError(ReturnCode.INVALID_INPUT)
