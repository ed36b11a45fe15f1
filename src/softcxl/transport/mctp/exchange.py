"""Requests and answers over a connection, by message tags: what a client does before it knows what they say."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from softcxl.spec.mctp.tcp import PACKET_SIZE, PAYLOAD_SIZE
from softcxl.transport.mctp.cci import MAX_PAYLOAD, PREFIX_SIZE
from softcxl.transport.mctp.errors import ConnectionEnded, NoAnswer, PacketError
from softcxl.transport.mctp.packet import Assembler, Fragmenter, Message

_TAGS = 8
_MAX_MESSAGE = PREFIX_SIZE + MAX_PAYLOAD + PAYLOAD_SIZE


@dataclass(slots=True)
class _Tags:
    """The message tags that are free for one endpoint, and who waits for one."""

    free: deque[int] = field(default_factory=lambda: deque(range(_TAGS)))
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Exchange(asyncio.Protocol):
    """A connection to `address` over which bodies of messages are asked and answered, in the framing of TCP.

    `source` is our endpoint ID. `asked` gets each request that comes from the other end.
    """

    def __init__(self, address: str, source: int, asked: Callable[[Message], None]) -> None:
        self.address = address
        self._source, self._asked = source, asked
        self._assembler = Assembler(_MAX_MESSAGE, running=True)
        self._fragmenter = Fragmenter(PAYLOAD_SIZE, padded=True)
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._tags: dict[int, _Tags] = {}
        self._under_way: dict[tuple[int, int], tuple[Callable[[bytes], bool], asyncio.Future[bytes]]] = {}
        self._ended: str | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ended(self) -> None:
        """Until the connection has ended, from whichever side."""
        await asyncio.shield(self._gone)

    async def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._end("the connection was closed here")
            self._transport.close()
        await self.ended()

    async def ask(
        self, eid: int, body: bytes, ours: Callable[[bytes], bool], seconds: float, says: str
    ) -> bytes:
        """The body of the message that answers this one, for which `ours` is true; what is not ours came too late for
        an earlier one. Raises `NoAnswer` and `ConnectionEnded`, telling what `says`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        tags = self._tags.get(eid)
        if tags is None:
            tags = self._tags[eid] = _Tags()
        answer: asyncio.Future[bytes] = loop.create_future()
        try:
            if not tags.free:
                await self._turn(tags, seconds)
            if self._transport is None or self._ended is not None:
                self._wake(tags)  # whoever waits has to learn of it, too
                raise ConnectionEnded(f"{self.address}: {self._ended}")
            tag = tags.free.popleft()
            self._under_way[eid, tag] = ours, answer
            # asyncio.timeout costs several times as much, and this is the way of every command.
            timer = loop.call_at(deadline, _expire, answer)
            try:
                self.transmit(Message(eid, self._source, tag, True, body))
                return await answer
            finally:
                timer.cancel()
                del self._under_way[eid, tag]
                # The one that was used last comes next: who asks one thing at a time always has tag 0, as tools of
                # CXL 2.0's time do; CSE answers control messages with it whatever they had.
                tags.free.appendleft(tag)
                self._wake(tags)
        except TimeoutError:
            raise NoAnswer(
                f"{self.address}: no answer from endpoint {eid} to {says} within {seconds:g} s"
            ) from None

    async def _turn(self, tags: _Tags, seconds: float) -> None:
        """Wait until a tag is free. Raises `TimeoutError`."""
        async with asyncio.timeout(seconds):
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
        # One that closes with messages of ours unread is said to have reset the connection
        closed = error is None or isinstance(error, (ConnectionResetError, BrokenPipeError))
        self._end("the other end closed the connection" if closed else f"the connection ended: {error}")
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

    def transmit(self, message: Message) -> None:
        """Send a message, where the connection has not ended."""
        if self._transport is not None:
            self._transport.write(b"".join(self._fragmenter.cut(message)))


def _expire(answer: asyncio.Future[bytes]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
