"""An endpoint that answers from a table, byte for byte: what a client sends is seen, and what it is told is chosen."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from softcxl.fm.channel import Answer
from softcxl.transport.mctp import Dialect, MctpClient

# CXL 3.1 Figure 7-19: category, tag, reserved, opcode, 21 bits of length and the background bit, return code, vendor
# status; by hand, and not from softcxl.spec.
_LEAD = struct.Struct("<BBBHHBHH")

Told = tuple[int, bytes]
Handler = Callable[[bytes], Told] | bytes | int


def message(
    category: int, tag: int, opcode: int, payload: bytes = b"", code: int = 0, status: int = 0
) -> bytes:
    size = len(payload)
    return _LEAD.pack(category, tag, 0, opcode, size & 0xFFFF, size >> 16, code, status) + payload


def parts(data: bytes) -> tuple[int, int, int, bytes]:
    """Category, tag, opcode and payload of a request."""
    category, tag, _, opcode, low, high, code, status = _LEAD.unpack_from(data)
    assert (code, status) == (0, 0)
    payload = data[_LEAD.size :]
    assert len(payload) == low | high << 16
    return category, tag, opcode, payload


def told(handler: Handler, payload: bytes) -> Told:
    if isinstance(handler, bytes):
        return 0, handler
    return (handler, b"") if isinstance(handler, int) else handler(payload)


@dataclass
class Scripted:
    """A channel to an endpoint. A handler of a command is its output payload, a return code, a function of the input
    to both, or a list of these, one a time, of which the last stays."""

    handlers: Mapping[int, Handler | list[Handler]]
    name: str = "endpoint"
    dialect: Dialect = Dialect.STANDARD
    vendor_status: int = 0
    asked: list[tuple[int, bytes]] = field(default_factory=list)
    coming: asyncio.Queue[tuple[int, bytes] | None] = field(default_factory=asyncio.Queue)

    async def exchange(self, opcode: int, payload: bytes) -> Answer:
        self.asked.append((opcode, payload))
        handler = self.handlers.get(opcode, 0x03)  # Unsupported
        if isinstance(handler, list):
            handler = handler.pop(0) if len(handler) > 1 else handler[0]
        return Answer(*told(handler, payload), self.vendor_status)

    async def notifications(self) -> AsyncIterator[tuple[int, bytes]]:
        while (one := await self.coming.get()) is not None:
            yield one

    def inputs(self, opcode: int) -> list[str]:
        """The inputs that a command was sent with, in hex."""
        return [payload.hex() for asked, payload in self.asked if asked == opcode]


def connecting_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the timeout that a test gives be that of answers: what it waits for in vain is one, never a connection."""
    connect = MctpClient.connect

    async def patient(*place: Any, timeout: float, **how: Any) -> MctpClient:
        client = await connect(*place, timeout=60, **how)
        client.timeout = timeout
        return client

    monkeypatch.setattr(MctpClient, "connect", patient)


def tunnelled(
    handlers: Mapping[int, Handler],
    *,
    lead: bytes = b"",
    category: int = 0x01,
    bend: Callable[[bytes], bytes] = lambda data: data,
) -> Callable[[bytes], Told]:
    """A handler of Tunnel Management Command, with a component behind it. `bend` changes its answers' messages."""

    def handle(payload: bytes) -> Told:
        size = int.from_bytes(payload[2:4], "little")
        inner = payload[4:]
        assert len(inner) == size
        assert inner.startswith(lead)
        given, tag, opcode, data = parts(inner[len(lead) :])
        assert given == 0
        code, output = told(handlers.get(opcode, 0x03), data)
        answer = bend(lead + message(category, tag, opcode, output, code))
        return 0, struct.pack("<HH", len(answer), 0) + answer

    return handle


def switch_of(handlers, kind, **options):
    """A component of a kind (`Switch`, `Device`) at the other end of a `Scripted`, and that. Nothing is waited for."""
    channel = Scripted(handlers, **options)
    return kind(channel, pause=_at_once), channel


async def _at_once(seconds: float) -> None:
    assert 0 < seconds <= 1


@dataclass
class Reply:
    code: int
    payload: bytes
    vendor_status: int = 0


class Scripts:
    """A command interface behind a door that answers from a table."""

    payload_max = 1 << 16

    def __init__(self, handlers: dict[int, Handler]) -> None:
        self.handlers = handlers
        self.senders: list[Callable[[int, bytes], None]] = []
        self.asked: list[tuple[int, str]] = []

    def open(self, send):
        self.senders.append(send)
        return self

    def execute(self, opcode, payload):
        self.asked.append((opcode, payload.hex()))
        return Reply(*told(self.handlers.get(opcode, 0x03), payload))

    def close(self):
        pass
