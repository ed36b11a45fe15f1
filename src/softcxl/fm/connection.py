"""Connections to endpoints behind a TCP port, and the MCTP control protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import Self, TypeVar, overload
from uuid import UUID
from weakref import WeakSet

from softcxl.fm.address import ServerAddress, TcpAddress, parse
from softcxl.fm.channel import Answer
from softcxl.fm.component import Component
from softcxl.fm.errors import BadAnswer, EndpointRefused, NoAnswer
from softcxl.fm.switch import Switch
from softcxl.spec.mctp.control import GetEndpointIdResponse, MctpVersion, SetEndpointIdResponse
from softcxl.spec.mctp.packet import NULL_EID, MessageType
from softcxl.transport.control import NoServer, converse
from softcxl.transport.mctp import ControlError, Dialect, MctpClient, MctpError, MessageError
from softcxl.transport.mctp import NoAnswer as Silence

C = TypeVar("C", bound=Component)

_FIRST_FM_API = 0x5100
_CXL_TYPES = (MessageType.CXL_FM_API, MessageType.CXL_CCI)


class Connection:
    """A connection to the endpoints behind an address; made by `open`, an async context manager.

    Commands are what its components have: see `endpoint`. Methods here are of the MCTP control protocol (DSP0236): they
    raise `EndpointRefused` for a completion code other than success, `NoAnswer` and `BadAnswer`. `name` is the address
    as it was given, `address` where that is; `names` are endpoint IDs by the names that a server of ours gives them.
    """

    def __init__(self, client: MctpClient, name: str, address: TcpAddress, names: Mapping[str, int]) -> None:
        self.name, self.address, self.names = name, address, names
        self._client = client
        self._hearers: WeakSet[_Hearer] = WeakSet()
        self._types: dict[int, tuple[int, ...]] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, address: str, *, dialect: Dialect | None = None, timeout: float = 5.0
    ) -> AsyncGenerator[Connection]:
        """Connect to an address: `tcp:HOST:PORT`, or `unix:PATH` of a `softcxl serve`, which says where its endpoints
        are and what dialect they speak. An answer that takes longer than `timeout` seconds is none.
        """
        place, spoken, names = await _place(address)
        connection: Connection | None = None

        def notify(eid: int, opcode: int, payload: bytes) -> None:
            if connection is not None:
                connection._heard(eid, opcode, payload)

        with _meaning(address, place):
            client = await MctpClient.connect(
                place.host, place.port, dialect=dialect or spoken, timeout=timeout, notify=notify
            )
        connection = cls(client, address, place, names)
        watch = asyncio.create_task(connection._watch())
        try:
            yield connection
        finally:
            await client.close()
            await watch

    async def _watch(self) -> None:
        await self._client.ended()
        for hearer in self._hearers:
            hearer.queue.put_nowait(None)

    def _heard(self, eid: int, opcode: int, payload: bytes) -> None:
        for hearer in self._hearers:
            if hearer.eid == eid:
                hearer.queue.put_nowait((opcode, payload))

    @property
    def dialect(self) -> Dialect:
        """The dialect that is spoken."""
        return self._client.dialect

    async def endpoint(
        self,
        kind: type[C],
        eid: int = NULL_EID,
        *,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> C:
        """The component with that endpoint ID, 0 being the first one there: a `Switch`, a `Device`, or any
        `Component`."""
        return kind(EndpointChannel(self, eid, await self._types_of(eid)), pause=pause)

    async def _types_of(self, eid: int) -> tuple[int, ...]:
        """Which of CXL's message types an endpoint takes."""
        if self.dialect is Dialect.CXL2:
            return (MessageType.CXL_FM_API,)
        if eid not in self._types:
            try:
                told = await self.message_types(eid)
            except (EndpointRefused, BadAnswer, NoAnswer):
                told = []  # commands will show whether anybody is there
            self._types[eid] = tuple(one for one in _CXL_TYPES if one in told) or _CXL_TYPES[:1]
        return self._types[eid]

    # -- control protocol ------------------------------------------------------------------------------------

    def _meaning(self) -> AbstractContextManager[None]:
        return _meaning(self.name, self.address)

    async def endpoint_ids(self) -> list[int]:
        """The IDs of all endpoints at this address. One that does not answer who else is there, as tools of CXL 2.0's
        time, is alone."""
        with self._meaning():
            try:
                return await self._client.endpoint_ids()
            except Silence:
                return [(await self._client.endpoint_id(eid=NULL_EID)).eid]

    async def endpoint_id(self, eid: int = NULL_EID) -> GetEndpointIdResponse:
        """Get Endpoint ID: an endpoint's ID, what kind it is, and how it got it."""
        with self._meaning():
            return await self._client.endpoint_id(eid=eid)

    async def set_endpoint_id(self, new: int, eid: int = NULL_EID) -> SetEndpointIdResponse:
        """Set Endpoint ID: give an endpoint another ID. The response says whether it took it."""
        with self._meaning():
            response = await self._client.set_endpoint_id(new, eid=eid)
        self._types.clear()
        return response

    async def endpoint_uuid(self, eid: int = NULL_EID) -> UUID:
        """Get Endpoint UUID."""
        with self._meaning():
            return await self._client.endpoint_uuid(eid=eid)

    async def versions(self, message_type: int, eid: int = NULL_EID) -> list[MctpVersion]:
        """Get MCTP Version Support, of a message type or, with FFh, of MCTP itself."""
        with self._meaning():
            return await self._client.versions(message_type, eid=eid)

    async def message_types(self, eid: int = NULL_EID) -> list[int]:
        """Get Message Type Support: the message types that an endpoint takes, control messages aside."""
        with self._meaning():
            return await self._client.message_types(eid=eid)


class EndpointChannel:
    """Commands to the component that is an MCTP endpoint.

    `types` are the message types of CXL's that it takes; where it takes both, commands of the fabric manager API are
    sent as such, others as CCI messages (CXL 3.1 §7.6.3).
    """

    def __init__(self, connection: Connection, eid: int, types: tuple[int, ...]) -> None:
        self.connection, self.eid, self.types = connection, eid, types
        self.name = connection.name if eid == NULL_EID else f"endpoint {eid} at {connection.name}"

    @property
    def dialect(self) -> Dialect:
        return self.connection.dialect

    async def exchange(self, opcode: int, payload: bytes) -> Answer:
        wanted = MessageType.CXL_FM_API if opcode >= _FIRST_FM_API else MessageType.CXL_CCI
        kind = wanted if wanted in self.types else self.types[0]
        with _meaning(self.name, self.connection.address):
            found = await self.connection._client.command(opcode, payload, eid=self.eid, type=kind)
        return Answer(found.code, found.payload, found.vendor_status)

    def notifications(self) -> AsyncIterator[tuple[int, bytes]]:
        return _Hearer(self.connection, self.eid)


class _Hearer:
    """What an endpoint sends, from when this is made."""

    def __init__(self, connection: Connection, eid: int) -> None:
        self.eid = eid
        self.queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        connection._hearers.add(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, bytes]:
        found = await self.queue.get()
        if found is None:
            self.queue.put_nowait(None)
            raise StopAsyncIteration
        return found


@overload
def connect(
    address: str, *, eid: int = ..., dialect: Dialect | None = ..., timeout: float = ...
) -> AbstractAsyncContextManager[Switch]: ...
@overload
def connect(
    address: str, kind: type[C], *, eid: int = ..., dialect: Dialect | None = ..., timeout: float = ...
) -> AbstractAsyncContextManager[C]: ...
def connect(
    address: str,
    kind: type[Component] = Switch,
    *,
    eid: int = NULL_EID,
    dialect: Dialect | None = None,
    timeout: float = 5.0,
) -> AbstractAsyncContextManager[Component]:
    """Connect to an endpoint, and be at its command interface: that of a `Switch`, or of another `kind`.

    `address` is `tcp:HOST:PORT`, or `unix:PATH` of a `softcxl serve`; `eid` names one of the endpoints there, 0 the
    first. `dialect` is the standard's unless said, or as the server says. An answer that takes longer than `timeout`
    seconds is none. Raises `AddressError`, `NoAnswer`, `BadAnswer`.
    """
    return _connect(address, kind, eid, dialect, timeout)


@asynccontextmanager
async def _connect(
    address: str, kind: type[C], eid: int, dialect: Dialect | None, timeout: float
) -> AsyncIterator[C]:
    async with Connection.open(address, dialect=dialect, timeout=timeout) as connection:
        yield await connection.endpoint(kind, eid)


@contextmanager
def _meaning(name: str, address: TcpAddress) -> Iterator[None]:
    """Errors of the transport as what they mean to whoever asked."""
    try:
        yield
    except MctpError as error:
        says = f"{name}: {str(error).removeprefix(f'{address.host}:{address.port}: ')}"
        if isinstance(error, ControlError):
            raise EndpointRefused(says, error.code) from None
        raise (BadAnswer if isinstance(error, MessageError) else NoAnswer)(says) from None


async def _place(text: str) -> tuple[TcpAddress, Dialect, dict[str, int]]:
    """Where endpoints are, the dialect that is spoken unless somebody says another one, and their names."""
    address = parse(text)
    if isinstance(address, TcpAddress):
        return address, Dialect.STANDARD, {}
    return await asyncio.to_thread(_ask, address)


def _ask(server: ServerAddress) -> tuple[TcpAddress, Dialect, dict[str, int]]:
    """Where a server's endpoints are, their dialect and their names: its control socket tells."""
    request = json.dumps({"version": 1, "verb": "fm"}).encode()
    try:
        answer = json.loads(converse(server.path, request))
        status, stdout, stderr = answer["status"], answer["stdout"], answer["stderr"]
        if status:
            raise NoAnswer(f"{server}: {stderr.strip().removeprefix('softcxl: ')}")
        told = json.loads(stdout)
        place = parse(told["address"])
        if not isinstance(place, TcpAddress):
            raise NoAnswer(f"{server}: it says that its endpoints are at {place}")
        names = {str(name): int(eid) for eid, name in told.get("endpoints", {}).items()}
        return place, Dialect(told["dialect"]), names
    except NoServer as error:
        raise NoAnswer(f"{server}: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadAnswer(f"{server}: what listens there is no server of SoftCXL ({error})") from None
