"""MCTP over SMBus and I2C (DSP0237 1.2): each packet is a block write, with a packet error code.

There is no reading: whoever has something to say becomes the bus's controller and writes, requests and responses alike.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from softcxl.spec.mctp.i2c import (
    COMMAND_CODE,
    MAX_BYTE_COUNT,
    PEC_POLYNOMIAL,
    I2cDestination,
    I2cHeader,
    I2cSource,
)
from softcxl.spec.mctp.packet import BASELINE_TRANSMISSION_UNIT
from softcxl.transport.errors import DoorError
from softcxl.transport.mctp.cci import Dialect
from softcxl.transport.mctp.conversation import Conversation, LoopLine
from softcxl.transport.mctp.door import LoopDoor
from softcxl.transport.mctp.errors import PacketError
from softcxl.transport.mctp.loop import Loop
from softcxl.transport.mctp.node import Node
from softcxl.transport.mctp.packet import HEADER_SIZE, Assembler, Fragmenter, Message
from softcxl.transport.mctp.port import Endpoint
from softcxl.transport.mctp.stream import MAX_MESSAGE

log = logging.getLogger(__name__)

MAX_PACKET: Final = MAX_BYTE_COUNT - 1
"""Bytes of a packet that a block has room for, beside the sender's address."""

_HEADER_SIZE = I2cHeader.__layout__.size
_BEFORE_BLOCK = _HEADER_SIZE - 1  # destination, command and byte count, which the byte count does not count
_MAX_QUEUE = 1 << 16
_MAX_ADDRESS = 0x7F


def _pec_of(byte: int) -> int:
    for _ in range(8):
        byte = byte << 1 ^ (0x100 | PEC_POLYNOMIAL if byte & 0x80 else 0)
    return byte


_PEC = tuple(map(_pec_of, range(256)))


def pec(data: bytes) -> int:
    """Packet error code of everything from the destination on, 8 bits (SMBus §6.4)."""
    value = 0
    for byte in data:
        value = _PEC[value ^ byte]
    return value


class Block(NamedTuple):
    """A block write: addresses of 7 bits, and the packet."""

    destination: int
    source: int
    packet: bytes


def pack_block(block: Block) -> bytes:
    """The bytes on the bus, from the destination on. Raises `ValueError` for an address of more than 7 bits, or a
    packet of more than 254 bytes."""
    for address in block[:2]:
        if not 0 <= address <= _MAX_ADDRESS:
            raise ValueError(f"I2C address {address:#x}: 0 to {_MAX_ADDRESS:#x} are allowed")
    if len(block.packet) > MAX_PACKET:
        raise ValueError(f"a packet of {len(block.packet)} bytes, a block has room for {MAX_PACKET}")
    header = I2cHeader(
        destination=I2cDestination.make(address=block.destination),
        byte_count=len(block.packet) + 1,
        source=I2cSource.make(address=block.source, mctp=True),
    )
    data = header.pack() + block.packet
    return data + bytes((pec(data),))


def unpack_block(data: bytes) -> Block:
    """A block write's parts. Raises `PacketError` for what is none of MCTP, or is damaged."""
    if len(data) < _HEADER_SIZE + HEADER_SIZE + 1:
        raise PacketError(
            f"a block write of {len(data)} bytes, one with a packet has {_HEADER_SIZE + HEADER_SIZE + 1}"
        )
    header = I2cHeader.unpack_from(data)
    if header.destination.read or header.command != COMMAND_CODE or not header.source.mctp:
        raise PacketError("no block write of MCTP")
    if header.byte_count + _BEFORE_BLOCK + 1 != len(data):
        raise PacketError(f"a byte count of {header.byte_count}, with {len(data) - _BEFORE_BLOCK - 1} bytes")
    if pec(data[:-1]) != data[-1]:
        raise PacketError("a packet error code that is wrong")
    return Block(header.destination.address, header.source.address, data[_HEADER_SIZE:-1])


@dataclass(slots=True, eq=False)
class _Peer:
    """Another controller on the bus."""

    assembler: Assembler
    conversation: Conversation


class MctpI2cDoor(LoopDoor):
    """Serves endpoints on an I2C bus, from `open` (or `with`) until `close`, or until the bus ends.

    `fd` is a socket that keeps transactions apart (SOCK_SEQPACKET or SOCK_DGRAM): each message on it is a block write,
    from the destination's byte to the packet error code, in both directions; the door uses a copy of it, without
    blocking. `address` is ours on the bus (7 bits): block writes to others are not for us. What is damaged is dropped,
    and counted in `broken`; blocks that find 65,536 before them that the bus has not taken are lost, and counted in
    `lost`.
    """

    def __init__(
        self,
        endpoints: Mapping[int, Endpoint] | Node,
        fd: int,
        address: int,
        *,
        dialect: Dialect = Dialect.STANDARD,
    ) -> None:
        if not 0 <= address <= _MAX_ADDRESS:
            raise ValueError(f"I2C address {address:#x}: 0 to {_MAX_ADDRESS:#x} are allowed")
        self.node = endpoints if isinstance(endpoints, Node) else Node(endpoints)
        self.address, self.dialect = address, dialect
        self.broken = self.lost = 0
        self._given = fd
        self._fragmenter = Fragmenter(BASELINE_TRANSMISSION_UNIT)
        self._peers: dict[int, _Peer] = {}
        self._queue: deque[bytes] = deque()
        self._waiting = False  # for the bus to take more
        self._bus: socket.socket | None = None

    @property
    def title(self) -> str:
        return f"I2C address {self.address:#x}"

    def open(self) -> None:
        """Start to listen. Raises `DoorError` where `fd` is no such socket."""
        if self._loop is not None:
            raise DoorError(f"{self.title}: this door is open already")
        try:
            bus = socket.socket(fileno=os.dup(self._given))
        except OSError as error:
            raise DoorError(f"{self.title}: descriptor {self._given}: {error.strerror}") from error
        if bus.type == socket.SOCK_STREAM:
            bus.close()
            raise DoorError(f"{self.title}: a stream does not keep transactions apart")
        bus.setblocking(False)
        self._bus, self._loop = bus, Loop(f"MCTP I2C {self.address:#x}")
        self._loop.watch(bus.fileno(), select.EPOLLIN, self._ready)
        self._loop.start()

    def _shut(self) -> None:
        bus = self._bus
        if bus is None:
            return
        self._bus = None
        assert self._loop is not None, "the door is open"
        self._loop.forget(bus.fileno())
        bus.close()
        for peer in self._peers.values():
            peer.conversation.close()
        self._peers.clear()
        self._queue.clear()

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._drain()
        if self._bus is None or not events & ~select.EPOLLOUT:
            return
        try:
            data = self._bus.recv(_BEFORE_BLOCK + MAX_BYTE_COUNT + 2)
        except BlockingIOError:
            return
        except OSError:
            self._shut()
            return
        if not data:
            self._shut()
            return
        try:
            block = unpack_block(data)
            if block.destination != self.address:
                return
            peer = self._peer(block.source)
            message = peer.assembler.take(block.packet)
        except PacketError as error:
            log.debug("a block write is dropped: %s", error)
            self.broken += 1
            return
        if message is not None:
            peer.conversation.take(message)

    def _peer(self, address: int) -> _Peer:
        peer = self._peers.get(address)
        if peer is None:
            assert self._loop is not None, "the door is open"
            line = LoopLine(self._loop, partial(self._transmit, address))
            peer = _Peer(Assembler(MAX_MESSAGE), Conversation(self.node, self.dialect, line))
            self._peers[address] = peer
        return peer

    def _transmit(self, address: int, message: Message) -> None:
        blocks = [
            pack_block(Block(address, self.address, packet)) for packet in self._fragmenter.cut(message)
        ]
        if len(self._queue) + len(blocks) > _MAX_QUEUE:
            self.lost += len(blocks)
            return
        self._queue += blocks
        if not self._waiting:
            self._drain()

    def _drain(self) -> None:
        """Write blocks, as far as the bus takes them."""
        bus, loop, queue = self._bus, self._loop, self._queue
        if bus is None or loop is None:
            return
        try:
            while queue:
                bus.send(queue[0])
                queue.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._shut()
            return
        if self._waiting != bool(queue):
            self._waiting = bool(queue)
            loop.change(bus.fileno(), select.EPOLLIN | (select.EPOLLOUT if queue else 0))
