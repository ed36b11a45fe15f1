"""Packets: what a message is cut into for the way, and its assembly at the other end (DSP0236 1.3 §8).

`Assembler` takes packets in the order in which they come, of any number of messages at a time, and drops what no
message is made of; nothing that it is given makes it fail or grow.
"""

from __future__ import annotations

import logging
from struct import Struct
from typing import Final, NamedTuple

from softcxl.spec.mctp.packet import (
    BASELINE_TRANSMISSION_UNIT,
    HEADER_VERSION,
    PacketFlags,
    PacketHeader,
    PacketVersion,
)
from softcxl.transport.mctp.errors import PacketError

log = logging.getLogger(__name__)

HEADER_SIZE: Final = PacketHeader.__layout__.size
_HEADER = Struct("BBBB")
_VERSION = PacketVersion.header_version.mask
_TAG = PacketFlags.tag.mask
_OWNER = PacketFlags.tag_owner.mask
_KEY = _TAG | _OWNER
_SEQUENCE = PacketFlags.sequence.lo
_MODULO = 4
_START = PacketFlags.start_of_message.mask
_END = PacketFlags.end_of_message.mask
_WHOLE = _START | _END


class Message(NamedTuple):
    """A message, from its type byte on.

    `owner`: the sender made the tag, so it is a request. `truncated`: there was more than the receiver takes; `body`
    then is what the first packet had.
    """

    destination: int
    source: int
    tag: int
    owner: bool
    body: bytes
    truncated: bool = False


class Fragmenter:
    """Cuts messages into packets of `unit` bytes of payload at most.

    With `padded`, as over TCP, all packets have `unit` bytes, and their sequence numbers go on over messages; else a
    message's packets begin at 0.
    """

    def __init__(self, unit: int = BASELINE_TRANSMISSION_UNIT, *, padded: bool = False) -> None:
        self._unit, self._padded = unit, padded
        self._sequence = 0

    def cut(self, message: Message) -> list[bytes]:
        """The packets of a message."""
        destination, source, tag, owner, body, _ = message
        flags = tag | (_OWNER if owner else 0)
        unit, padded = self._unit, self._padded
        sequence = self._sequence if padded else 0
        if len(body) <= unit:
            header = _HEADER.pack(HEADER_VERSION, destination, source, flags | _WHOLE | sequence << _SEQUENCE)
            if padded:
                self._sequence = (sequence + 1) % _MODULO
                return [header + body.ljust(unit, b"\0")]
            return [header + body]
        packets = []
        last = (len(body) - 1) // unit
        for index in range(last + 1):
            mark = (_START if index == 0 else 0) | (_END if index == last else 0)
            header = _HEADER.pack(HEADER_VERSION, destination, source, flags | mark | sequence << _SEQUENCE)
            payload = body[index * unit : (index + 1) * unit]
            packets.append(header + (payload.ljust(unit, b"\0") if padded else payload))
            sequence = (sequence + 1) % _MODULO
        self._sequence = sequence
        return packets


class _Partial:
    """A message of which the end has not come."""

    __slots__ = ("parts", "sequence", "size", "truncated", "unit")

    def __init__(self, payload: bytes, sequence: int) -> None:
        self.parts, self.size, self.unit = [payload], len(payload), len(payload)
        self.sequence = sequence
        self.truncated = False


class Assembler:
    """Makes messages of packets.

    A message is dropped where a packet of it is missing, or of another size than those before, or where its tag
    begins anew; and the oldest one where more than `messages` are under way. Of one that has more than `limit`
    bytes, or that would make all that is under way twice as much, only the beginning is kept.

    With `running`, as over TCP, a sequence number may follow that of the last packet of the connection as well as
    that of its own message: both are done where messages are mixed.

    `dropped` counts packets that became part of no message.
    """

    def __init__(self, limit: int, *, messages: int = 16, running: bool = False) -> None:
        self._limit, self._messages, self._running = limit, messages, running
        self._under_way: dict[int, _Partial] = {}
        self._held = 0
        self._last = -1
        self.dropped = 0

    @property
    def under_way(self) -> int:
        """How many messages have begun and not ended."""
        return len(self._under_way)

    @property
    def held(self) -> int:
        """Bytes kept of those."""
        return self._held

    def take(self, packet: bytes) -> Message | None:
        """The message that ends in this packet. Raises `PacketError` for what is no packet at all."""
        if len(packet) < HEADER_SIZE:
            raise PacketError(f"a packet of {len(packet)} bytes, its header alone has {HEADER_SIZE}")
        version, destination, source, flags = _HEADER.unpack_from(packet)
        if version & _VERSION != HEADER_VERSION:
            raise PacketError(f"MCTP header version {version & _VERSION}, only {HEADER_VERSION} is known")
        before, self._last = self._last, flags >> _SEQUENCE & (_MODULO - 1)
        if flags & _WHOLE == _WHOLE:
            if self._under_way:
                self._forget(destination << 16 | source << 8 | flags & _KEY)
            return Message(destination, source, flags & _TAG, flags & _OWNER != 0, packet[HEADER_SIZE:])
        key = destination << 16 | source << 8 | flags & _KEY
        payload = packet[HEADER_SIZE:]
        if flags & _START:
            self._begin(key, payload)
            return None
        partial = self._under_way.get(key)
        if partial is None:
            self._drop("no message of its tag has begun")
            return None
        follows = (partial.sequence + 1) % _MODULO == self._last
        if not follows and not (self._running and (before + 1) % _MODULO == self._last):
            self._forget(key)
            self._drop("its sequence number does not follow")
            return None
        end = flags & _END
        if len(payload) > partial.unit or (not end and len(payload) != partial.unit):
            self._forget(key)
            self._drop("its size differs from those before")
            return None
        partial.sequence = self._last
        self._append(partial, payload)
        if not end:
            return None
        self._forget(key, 0)
        body = b"".join(partial.parts)
        return Message(destination, source, flags & _TAG, flags & _OWNER != 0, body, partial.truncated)

    def _begin(self, key: int, payload: bytes) -> None:
        self._forget(key)
        if len(self._under_way) >= self._messages:
            self._forget(next(iter(self._under_way)))
        self._under_way[key] = _Partial(payload, self._last)
        self._held += len(payload)

    def _append(self, partial: _Partial, payload: bytes) -> None:
        if partial.truncated:
            return
        size = partial.size + len(payload)
        if size > self._limit or self._held + len(payload) > 2 * self._limit:
            partial.truncated = True
            del partial.parts[1:]
            self._held -= partial.size - partial.unit
            partial.size = partial.unit
            return
        partial.parts.append(payload)
        partial.size = size
        self._held += len(payload)

    def _forget(self, key: int, dropped: int = 1) -> None:
        partial = self._under_way.pop(key, None)
        if partial is not None:
            self._held -= partial.size
            self.dropped += dropped * len(partial.parts)

    def _drop(self, why: str) -> None:
        self.dropped += 1
        log.debug("a packet is dropped: %s", why)
