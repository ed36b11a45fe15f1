"""Commands inside commands: the message that a Tunnel Management Command carries (CXL 3.1 §7.6.7.3.1).

A message is a `CciMessageHeader` and its payload. As of CXL 2.0 it begins with the MCTP message type, and has its
category in bits 7:4; the answer is of the same kind as the request.
"""

from __future__ import annotations

from typing import Final, Protocol

from softcxl.device.cci import CommandError, Reply
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.mld_port import TunnelRequest, TunnelResponse
from softcxl.spec.mctp.cci import CciCategory, CciMessageCategory, CciMessageHeader, CciPayloadLength
from softcxl.spec.mctp.packet import MessageType

_TYPES: Final = (bytes([MessageType.CXL_FM_API]), bytes([MessageType.CXL_CCI]))
_HEADER: Final = CciMessageHeader.__layout__.size
OVERHEAD: Final = TunnelResponse.__layout__.size + _HEADER + 1
"""Bytes that a tunnel adds to the payload of a command or of its answer, at most."""


class CommandInterface(Protocol):
    """Where a tunnel ends."""

    def execute(self, opcode: int, payload: bytes) -> Reply:
        """Answer one command."""


def carried(request: TunnelRequest) -> bytes:
    """The message in a tunnel. Raises `CommandError` where it is not all there."""
    if request.command_size > len(request.message):
        raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH)
    return request.message[: request.command_size]


def answered(interface: CommandInterface, message: bytes) -> TunnelResponse:
    """Have `interface` answer the command in `message`. Raises `CommandError` for what is no whole request."""
    kind = message[:1] if message[:1] in _TYPES else b""
    body = message[len(kind) :]
    if len(body) < _HEADER:
        raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH)
    header, payload = CciMessageHeader.unpack(body[:_HEADER]), body[_HEADER:]
    if int(header.category):
        raise CommandError(ReturnCode.INVALID_INPUT)
    if header.payload.length != len(payload):
        raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH)
    reply = interface.execute(header.opcode, payload)
    response = CciMessageHeader(
        category=CciMessageCategory(CciCategory.RESPONSE << 4 if kind else CciCategory.RESPONSE),
        tag=header.tag,
        opcode=header.opcode,
        payload=CciPayloadLength.make(
            length=len(reply.payload),
            background_operation=reply.code is ReturnCode.BACKGROUND_STARTED,
        ),
        return_code=reply.code,
        vendor_status=reply.vendor_status,
    )
    inner = kind + response.pack() + reply.payload
    return TunnelResponse(response_size=len(inner), message=inner)
