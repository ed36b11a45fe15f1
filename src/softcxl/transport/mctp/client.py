"""A fabric manager's end of MCTP over TCP, for asyncio.

::

    async with await MctpClient.connect("127.0.0.1", 2508) as client:
        answer = await client.command(0x5100)
        print(ReturnCode(answer.code), answer.payload)
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
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
from softcxl.spec.mctp.tcp import DEFAULT_PORT, PACKET_SIZE, PAYLOAD_SIZE
from softcxl.transport.mctp.cci import (
    CXL_TYPES,
    MAX_PAYLOAD,
    PREFIX_SIZE,
    Dialect,
    pack_request,
    pack_response,
    unpack,
)
from softcxl.transport.mctp.errors import ConnectionEnded, ControlError, MessageError, NoAnswer, PacketError
from softcxl.transport.mctp.packet import Assembler, Fragmenter, Message
from softcxl.transport.mctp.tcp import MAX_PORT
from softcxl.wire import LayoutError, Record

log = logging.getLogger(__name__)

_R = TypeVar("_R", bound=Record)
_TAGS = 8
_MAX_MESSAGE = PREFIX_SIZE + MAX_PAYLOAD + PAYLOAD_SIZE
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


@dataclass(slots=True)
class _Tags:
    """The message tags that are free for one endpoint, and who waits for one."""

    free: deque[int] = field(default_factory=lambda: deque(range(_TAGS)))
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class MctpClient(asyncio.Protocol):
    """A connection to the endpoints behind one address; made by `connect`.

    Any number of requests may be awaited at a time: up to eight an endpoint are under way, as MCTP has tags, the others
    wait. A request without an answer within `timeout` seconds raises `NoAnswer`, and the connection goes on; what comes
    too late is dropped. Once the connection has ended every request raises `ConnectionEnded`.
    """

    def __init__(
        self, address: str, *, eid: int, source: int, dialect: Dialect, timeout: float, notify: Notify | None
    ) -> None:
        self.address, self.eid, self.dialect, self.timeout, self.notify = (
            address,
            eid,
            dialect,
            timeout,
            notify,
        )
        self._source = source
        self._assembler = Assembler(_MAX_MESSAGE, running=True)
        self._fragmenter = Fragmenter(PAYLOAD_SIZE, padded=True)
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._tags: dict[int, _Tags] = {}
        self._under_way: dict[tuple[int, int], tuple[Callable[[bytes], bool], asyncio.Future[bytes]]] = {}
        self._number = 0
        self._ended: str | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

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
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                _, client = await loop.create_connection(
                    lambda: cls(
                        address, eid=eid, source=source, dialect=dialect, timeout=timeout, notify=notify
                    ),
                    host,
                    port,
                )
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
        if self._transport is not None:
            self._end("the connection was closed here")
            self._transport.close()
        await self.ended()

    async def ended(self) -> None:
        """Until the connection has ended, from whichever side."""
        await asyncio.shield(self._gone)

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

        answer = await self._exchange(says, body, ours, eid, timeout)
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
        answer = await self._exchange(
            says, header + parameters, lambda answer: answer.startswith(expected), eid, timeout
        )
        data = answer[_CONTROL_PREFIX:]
        if not data:
            raise MessageError(f"{self.address}: {says}: the response has no completion code")
        if data[0] != CompletionCode.SUCCESS:
            raise ControlError(f"{self.address}: {says}", data[0])
        return data

    async def _exchange(
        self, says: str, body: bytes, ours: Callable[[bytes], bool], eid: int | None, timeout: float | None
    ) -> bytes:
        eid = self.eid if eid is None else eid
        seconds = self.timeout if timeout is None else timeout
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                tag = await self._take_tag(eid)
                try:
                    if self._transport is None or self._ended is not None:
                        raise ConnectionEnded(f"{self.address}: {self._ended}")
                    self._under_way[eid, tag] = ours, answer
                    self._transmit(Message(eid, self._source, tag, True, body))
                    return await answer
                finally:
                    self._under_way.pop((eid, tag), None)
                    self._return_tag(eid, tag)
        except TimeoutError:
            raise NoAnswer(
                f"{self.address}: no answer from endpoint {eid} to {says} within {seconds:g} s"
            ) from None

    def _next(self) -> int:
        self._number = (self._number + 1) & 0xFF
        return self._number

    async def _take_tag(self, eid: int) -> int:
        tags = self._tags.get(eid)
        if tags is None:
            tags = self._tags[eid] = _Tags()
        while not tags.free:
            turn = asyncio.get_running_loop().create_future()
            tags.waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake(tags)  # it was ours to take, and somebody else may
                raise
            finally:
                if turn in tags.waiting:
                    tags.waiting.remove(turn)
        return tags.free.popleft()

    def _return_tag(self, eid: int, tag: int) -> None:
        tags = self._tags[eid]
        tags.free.append(tag)
        self._wake(tags)

    @staticmethod
    def _wake(tags: _Tags) -> None:
        while tags.waiting:
            turn = tags.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    # -- the connection --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport), "a stream has one that writes"
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """As `asyncio.Protocol`."""
        self._end(
            "the other end closed the connection" if error is None else f"the connection ended: {error}"
        )
        self._transport = None
        if not self._gone.done():
            self._gone.set_result(None)

    def _end(self, why: str) -> None:
        if self._ended is None:
            self._ended = why
        for _, answer in self._under_way.values():
            if not answer.done():
                answer.set_exception(ConnectionEnded(f"{self.address}: {self._ended}"))

    def data_received(self, data: bytes) -> None:
        """As `asyncio.Protocol`."""
        if self._rest:
            data = self._rest + data
        at = 0
        try:
            while len(data) - at >= PACKET_SIZE:
                message = self._assembler.take(data[at : at + PACKET_SIZE])
                at += PACKET_SIZE
                if message is not None:
                    self._take(message)
        except PacketError as error:
            self._end(f"what came is no MCTP: {error}")
            if self._transport is not None:
                self._transport.abort()
        self._rest = data[at:]

    def _take(self, message: Message) -> None:
        if message.owner:
            self._asked(message)
            return
        waiting = self._under_way.get((message.source, message.tag))
        if waiting is None:
            return  # too late
        ours, answer = waiting
        if not answer.done() and ours(message.body):
            answer.set_result(message.body)

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
        self._transmit(Message(message.source, message.destination, message.tag, False, body))

    def _transmit(self, message: Message) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._fragmenter.cut(message)))

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
