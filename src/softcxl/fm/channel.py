"""How a command gets to a component and its answer back: as a message to an endpoint, or inside a command to another
component."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from softcxl.fm.errors import BadAnswer, CommandRefused, FmError
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.registry import NAMES
from softcxl.spec.fm.mld_port import (
    TUNNEL_MANAGEMENT_COMMAND,
    TunnelRequest,
    TunnelResponse,
    TunnelTarget,
    TunnelTargetType,
)
from softcxl.spec.mctp.cci import CciCategory, CciMessageHeader
from softcxl.spec.mctp.packet import MessageType
from softcxl.transport.mctp import Dialect
from softcxl.transport.mctp.cci import pack_request, unpack
from softcxl.wire import LayoutError

HEADER = CciMessageHeader.__layout__.size
"""Bytes of a message before its payload, its type's byte aside."""

TUNNEL = TunnelRequest.__layout__.size + HEADER
"""Bytes of a payload that a tunnel takes from the one inside it."""

_TYPE = bytes([MessageType.CXL_CCI])


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back to a command: a return code (`ReturnCode` where it is one), and its output payload."""

    code: int
    payload: bytes = b""
    vendor_status: int = 0


class Channel(Protocol):
    """A way for commands to a component."""

    @property
    def name(self) -> str:
        """Which component, for messages."""

    @property
    def dialect(self) -> Dialect:
        """How its messages are laid out."""

    async def exchange(self, opcode: int, payload: bytes) -> Answer:
        """Send a command and return what came back, whatever its return code. Several may be under way at a time.
        Raises `NoAnswer` and `BadAnswer`."""

    def notifications(self) -> AsyncIterator[tuple[int, bytes]]:
        """What the component sends by itself from now on: opcode and payload. Ends with the connection. Raises
        `FmError` where nothing can come."""


class TunnelChannel:
    """Commands to a component behind another one, by Tunnel Management Command (CXL 3.1 §7.6.7.3.1).

    `number` is a port or LD ID; `where` says what is there.
    """

    def __init__(self, outer: Channel, target: TunnelTargetType, number: int, where: str) -> None:
        self.outer, self.target, self.number, self.where = outer, target, number, where
        self.name = f"{where} of {outer.name}"
        self._tags = itertools.cycle(range(256))

    @property
    def dialect(self) -> Dialect:
        return self.outer.dialect

    async def exchange(self, opcode: int, payload: bytes) -> Answer:
        tag = next(self._tags)
        # As of CXL 3.0 the message inside has no type's byte.
        lead = _TYPE if self.dialect is Dialect.CXL2 else b""
        inner = lead + pack_request(self.dialect, MessageType.CXL_CCI, tag, opcode, payload)[len(_TYPE) :]
        request = TunnelRequest(
            port_or_ld=self.number,
            target=TunnelTarget.make(type=self.target),
            command_size=len(inner),
            message=inner,
        )
        command = TUNNEL_MANAGEMENT_COMMAND
        answer = await self.outer.exchange(command.opcode, request.pack())
        if answer.code != ReturnCode.SUCCESS:
            asked = f"{naming(command.opcode)} to {self.where} with {naming(opcode)}"
            raise CommandRefused(asked, None, self.outer.name, answer.code, answer.vendor_status)
        try:
            response = TunnelResponse.unpack(answer.payload)
        except LayoutError as error:
            raise BadAnswer(f"{self.name}: {error}") from None
        message = response.message[: response.response_size]
        if len(message) < response.response_size:
            given = f"{len(message)} bytes, its size is said to be {response.response_size}"
            raise BadAnswer(f"{self.name}: the response of {naming(command.opcode)} has {given}")
        return self._read(message if lead else _TYPE + message, opcode, tag)

    def _read(self, message: bytes, opcode: int, tag: int) -> Answer:
        """The answer in a tunnelled message, its type's byte included."""
        where = f"{self.name}: the response to {naming(opcode)}"
        try:
            found = unpack(self.dialect, message)
        except ValueError:
            given = f"{max(0, len(message) - len(_TYPE))} bytes, its header alone {HEADER}"
            raise BadAnswer(f"{where} has {given}") from None
        if message[: len(_TYPE)] != _TYPE:
            raise BadAnswer(f"{where} begins with message type {message[0]:02X}h, not {_TYPE[0]:02X}h")
        if found.category != CciCategory.RESPONSE:
            raise BadAnswer(f"{where} has category byte {message[1]:02X}h, which is no response's")
        if found.tag != tag:
            raise BadAnswer(f"{where} has tag {found.tag:02X}h, the request {tag:02X}h")
        if found.opcode != opcode:
            raise BadAnswer(f"{where} says that it is one to {naming(found.opcode)}")
        if len(found.payload) != found.length or found.surplus:
            given = f"{len(found.payload) + found.surplus} bytes, its header says {found.length}"
            raise BadAnswer(f"{where} has a payload of {given}")
        return Answer(found.code, found.payload, found.vendor_status)

    def notifications(self) -> AsyncIterator[tuple[int, bytes]]:
        raise FmError(f"{self.name}: notifications come from the endpoint itself, not through a tunnel")


def naming(opcode: int) -> str:
    """A command as the standard has it: `Bind vPPB (5201h)`."""
    return f"{NAMES.get(opcode, 'command')} ({opcode:04X}h)"
