"""A fabric manager's end of MCTP over TCP, for asyncio.

::

    async with await MctpClient.connect("127.0.0.1", 2508) as client:
        answer = await client.command(0x5100)
        print(ReturnCode(answer.code), answer.payload)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, Self, TypeVar
from uuid import UUID

from softcxl.spec.command.base import ReturnCode
from softcxl.spec.mctp.cci import CciCategory
from softcxl.spec.mctp.control import (
    NO_MORE_ENTRIES,
    CompletionCode,
    ControlCommand,
    ControlHeader,
    ControlInstance,
    GetEndpointIdResponse,
    GetEndpointUuidResponse,
    GetMessageTypeSupportResponse,
    GetRoutingTableEntriesRequest,
    GetRoutingTableEntriesResponse,
    GetVersionSupportRequest,
    GetVersionSupportResponse,
    MctpVersion,
    RoutingTableEntry,
    SetEndpointIdOperation,
    SetEndpointIdRequest,
    SetEndpointIdResponse,
)
from softcxl.spec.mctp.packet import NULL_EID, MessageType
from softcxl.spec.mctp.tcp import DEFAULT_PORT
from softcxl.transport.mctp.cci import (
    CXL_TYPES,
    PREFIX_SIZE,
    Dialect,
    pack_request,
    pack_response,
    unpack,
)
from softcxl.transport.mctp.errors import ConnectionEnded, ControlError, MessageError
from softcxl.transport.mctp.exchange import Exchange
from softcxl.transport.mctp.packet import Message
from softcxl.transport.mctp.tcp import MAX_PORT
from softcxl.wire import LayoutError, Record

log = logging.getLogger(__name__)

_R = TypeVar("_R", bound=Record)
_RESPONSE = int(CciCategory.RESPONSE)
_CONTROL_PREFIX = 1 + ControlHeader.__layout__.size

Notify = Callable[[int, int, bytes], None]
"""Told of a request of an endpoint: its ID, opcode and payload. Called in the event loop."""


class CciResponse(NamedTuple):
    """What a command was answered. `code` is a `ReturnCode`; `background`: work goes on in the background."""

    code: int
    payload: bytes
    vendor_status: int
    background: bool


class MctpClient:
    """A connection to the endpoints behind one address; made by `connect`.

    Any number of requests may be awaited at a time: up to eight an endpoint are under way, as MCTP has tags, the others
    wait. A request without an answer within `timeout` seconds raises `NoAnswer`, and the connection goes on; what comes
    too late is dropped. Once the connection has ended every request raises `ConnectionEnded`.
    """

    def __init__(
        self, address: str, *, eid: int, source: int, dialect: Dialect, timeout: float, notify: Notify | None
    ) -> None:
        self.address, self.eid, self.dialect, self.timeout = address, eid, dialect, timeout
        self.notify = notify
        self._exchange = Exchange(address, source, self._asked)
        self._number = 0

    @classmethod
    async def connect(
        cls,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        eid: int = NULL_EID,
        source: int = NULL_EID,
        dialect: Dialect = Dialect.STANDARD,
        timeout: float = 5.0,
        notify: Notify | None = None,
    ) -> MctpClient:
        """Connect. `eid` is the endpoint that requests go to unless they say another one, 0 the first one there;
        `source` is our own. `notify` hears Event Notifications and other requests of endpoints.

        Raises `ConnectionEnded` where nobody answers within `timeout` seconds.
        """
        address = f"{host}:{port}"
        if not 0 < port <= MAX_PORT:
            raise ConnectionEnded(f"{address}: cannot connect: ports are 1 to {MAX_PORT}")
        client = cls(address, eid=eid, source=source, dialect=dialect, timeout=timeout, notify=notify)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                await loop.create_connection(lambda: client._exchange, host, port)
        except TimeoutError:
            raise ConnectionEnded(f"{address}: nobody answered within {timeout:g} s") from None
        except OSError as error:
            raise ConnectionEnded(f"{address}: cannot connect: {error.strerror or error}") from error
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; requests under way raise `ConnectionEnded`. More than once does no harm."""
        await self._exchange.close()

    async def ended(self) -> None:
        """Until the connection has ended, from whichever side."""
        await self._exchange.ended()

    # -- requests --------------------------------------------------------------------------------------------

    async def command(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        eid: int | None = None,
        timeout: float | None = None,
        type: int = MessageType.CXL_FM_API,
    ) -> CciResponse:
        """Send a command of the FM API or of a component's command interface, and wait for its response.

        Raises `NoAnswer`, `ConnectionEnded`, and `MessageError` for a response that makes no sense, as it does in the
        other dialect, or for a payload of more than 2 MiB. A return code other than success is no error here.
        """
        tag = self._next()
        try:
            body = pack_request(self.dialect, type, tag, opcode, payload)
        except ValueError as error:
            raise MessageError(f"command {opcode:04X}h: {error}") from None
        says = f"command {opcode:04X}h"

        def ours(answer: bytes) -> bool:
            return answer[0] == type and (len(answer) < PREFIX_SIZE or answer[2] == tag)

        answer = await self._ask(says, body, ours, eid, timeout)
        return self._response(says, opcode, answer)

    def _response(self, says: str, opcode: int, answer: bytes) -> CciResponse:
        where = f"{self.address}: {says}: the response"
        try:
            message = unpack(self.dialect, answer)
        except ValueError:
            raise MessageError(f"{where} ends within its header") from None
        if message.category != _RESPONSE:
            other = next(one for one in Dialect if one is not self.dialect)
            hint = (
                "" if unpack(other, answer).category != _RESPONSE else f", as in the dialect '{other.value}'"
            )
            raise MessageError(f"{where} has category byte {answer[1]:02X}h{hint}")
        if message.opcode != opcode:
            raise MessageError(f"{where} says that it is one to {message.opcode:04X}h")
        if len(message.payload) != message.length:
            raise MessageError(
                f"{where} ends after {len(message.payload)} bytes of payload, its header says {message.length}"
            )
        return CciResponse(message.code, message.payload, message.vendor_status, message.background)

    async def control(
        self, command: int, parameters: bytes = b"", *, eid: int | None = None, timeout: float | None = None
    ) -> bytes:
        """Send an MCTP control request, and wait for what follows the header of its response: the completion code
        (success) and data, and padding.

        Raises `ControlError` for another completion code, and as `command` does.
        """
        instance = self._next() & ControlInstance.instance.mask
        header = bytes(
            (MessageType.CONTROL, int(ControlInstance.make(request=True, instance=instance)), command)
        )
        expected = bytes((MessageType.CONTROL, instance, command))
        says = f"control command {command:02X}h"
        answer = await self._ask(
            says, header + parameters, lambda answer: answer.startswith(expected), eid, timeout
        )
        data = answer[_CONTROL_PREFIX:]
        if not data:
            raise MessageError(f"{self.address}: {says}: the response has no completion code")
        if data[0] != CompletionCode.SUCCESS:
            raise ControlError(f"{self.address}: {says}", data[0])
        return data

    async def _ask(
        self, says: str, body: bytes, ours: Callable[[bytes], bool], eid: int | None, timeout: float | None
    ) -> bytes:
        return await self._exchange.ask(
            self.eid if eid is None else eid, body, ours, self.timeout if timeout is None else timeout, says
        )

    def _next(self) -> int:
        self._number = (self._number + 1) & 0xFF
        return self._number

    def _asked(self, message: Message) -> None:
        """An endpoint has a request: tell of it, and answer."""
        if message.body[0] not in CXL_TYPES:
            return
        try:
            request = unpack(self.dialect, message.body)
        except ValueError:
            return
        code = ReturnCode.UNSUPPORTED
        if len(request.payload) != request.length:
            code = ReturnCode.INVALID_PAYLOAD_LENGTH
        elif self.notify is not None:
            code = ReturnCode.SUCCESS
            try:
                self.notify(message.source, request.opcode, request.payload)
            except Exception:
                log.exception("%s: whoever is told of notifications failed", self.address)
        body = pack_response(self.dialect, request.type, request.tag, request.opcode, code, 0, b"")
        self._exchange.transmit(Message(message.source, message.destination, message.tag, False, body))

    # -- control protocol ------------------------------------------------------------------------------------

    async def endpoint_id(self, *, eid: int | None = None) -> GetEndpointIdResponse:
        """Get Endpoint ID."""
        return self._parse(GetEndpointIdResponse, await self.control(ControlCommand.GET_ENDPOINT_ID, eid=eid))

    async def set_endpoint_id(self, new: int, *, eid: int | None = None) -> SetEndpointIdResponse:
        """Set Endpoint ID; the response tells whether the endpoint took it."""
        request = SetEndpointIdRequest(operation=SetEndpointIdOperation.SET, eid=new)
        return self._parse(
            SetEndpointIdResponse, await self.control(ControlCommand.SET_ENDPOINT_ID, request.pack(), eid=eid)
        )

    async def endpoint_uuid(self, *, eid: int | None = None) -> UUID:
        """Get Endpoint UUID."""
        data = await self.control(ControlCommand.GET_ENDPOINT_UUID, eid=eid)
        return self._parse(GetEndpointUuidResponse, data).identifier

    async def versions(self, message_type: int, *, eid: int | None = None) -> list[MctpVersion]:
        """Get MCTP Version Support, of a message type or of `softcxl.spec.mctp.control.BASE_VERSION`."""
        request = GetVersionSupportRequest(message_type=message_type)
        data = await self.control(ControlCommand.GET_VERSION_SUPPORT, request.pack(), eid=eid)
        return self._parse(GetVersionSupportResponse, data).versions

    async def message_types(self, *, eid: int | None = None) -> list[int]:
        """Get Message Type Support: what the endpoint takes beside control messages."""
        data = await self.control(ControlCommand.GET_MESSAGE_TYPE_SUPPORT, eid=eid)
        return self._parse(GetMessageTypeSupportResponse, data).types

    def _parse(self, record: type[_R], data: bytes) -> _R:
        try:
            return record.unpack_from(data)
        except LayoutError as error:
            raise MessageError(f"{self.address}: a response that makes no sense: {error}") from None

    async def endpoint_ids(self) -> list[int]:
        """All endpoint IDs at this address: the first one's routing table, or its own ID where it has none."""
        found: list[int] = []
        handle = 0
        while handle != NO_MORE_ENTRIES:
            request = GetRoutingTableEntriesRequest(handle=handle)
            try:
                data = await self.control(
                    ControlCommand.GET_ROUTING_TABLE_ENTRIES, request.pack(), eid=NULL_EID
                )
            except ControlError as error:
                if error.code != CompletionCode.UNSUPPORTED_COMMAND or found:
                    raise
                return [(await self.endpoint_id(eid=NULL_EID)).eid]
            response = self._parse(GetRoutingTableEntriesResponse, data)
            at = 0
            for _ in range(response.count):
                entry = self._parse(RoutingTableEntry, response.entries[at:])
                at += RoutingTableEntry.__layout__.size + entry.address_size
                found += range(entry.first_eid, entry.first_eid + entry.range_size)
            if response.next_handle <= handle:
                raise MessageError(
                    f"{self.address}: the routing table goes on at {response.next_handle} after {handle}"
                )
            handle = response.next_handle
        return found
