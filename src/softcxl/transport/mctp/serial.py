"""MCTP over a serial line (DSP0253 1.0): frames between flags, with a check; see `softcxl.spec.mctp.serial`.

Linux escapes the packet only, not the header and the frame check sequence, so a flag within a frame need not end it:
the byte count tells.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from softcxl.spec.mctp.packet import BASELINE_TRANSMISSION_UNIT
from softcxl.spec.mctp.serial import (
    ESCAPE,
    ESCAPE_MASK,
    FCS_INITIAL,
    FCS_POLYNOMIAL,
    FLAG,
    SerialHeader,
    SerialTrailer,
)
from softcxl.transport.errors import DoorError
from softcxl.transport.mctp.cci import Dialect
from softcxl.transport.mctp.door import LoopDoor
from softcxl.transport.mctp.loop import Loop
from softcxl.transport.mctp.node import Node
from softcxl.transport.mctp.packet import HEADER_SIZE, Fragmenter, Message
from softcxl.transport.mctp.port import Endpoint
from softcxl.transport.mctp.stream import Stream

REVISION: Final = 1
_HEADER_SIZE = SerialHeader.__layout__.size
_TRAILER_SIZE = SerialTrailer.__layout__.size
_MAX_BYTES = 0xFF
_ESCAPES = {FLAG: bytes((ESCAPE, FLAG ^ ESCAPE_MASK)), ESCAPE: bytes((ESCAPE, ESCAPE ^ ESCAPE_MASK))}


def _fcs_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (FCS_POLYNOMIAL if byte & 1 else 0)
    return byte


_FCS = tuple(map(_fcs_of, range(256)))


def fcs(data: bytes) -> int:
    """Frame check sequence over revision, byte count and packet, 16 bits."""
    value = FCS_INITIAL
    for byte in data:
        value = value >> 8 ^ _FCS[(value ^ byte) & 0xFF]
    return value


def frame(packet: bytes) -> bytes:
    """The frame of a packet. Raises `ValueError` where it has more than 255 bytes."""
    if len(packet) > _MAX_BYTES:
        raise ValueError(f"a packet of {len(packet)} bytes, a frame has {_MAX_BYTES} at most")
    check = fcs(bytes((REVISION, len(packet))) + packet)
    escaped = packet.replace(bytes((ESCAPE,)), _ESCAPES[ESCAPE]).replace(bytes((FLAG,)), _ESCAPES[FLAG])
    header, trailer = SerialHeader(byte_count=len(packet)), SerialTrailer(fcs=check.to_bytes(2, "big"))
    return header.pack() + escaped + trailer.pack()


class SerialFraming:
    """Finds frames in what comes over the line; whatever is between them, or is broken, is skipped and counted in
    `broken`."""

    running = False
    padding = 0

    def __init__(self) -> None:
        self._cut = Fragmenter(BASELINE_TRANSMISSION_UNIT).cut
        self.broken = 0

    def next(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """The next good packet in `data` from `at` on, and where to go on; None where more has to come."""
        while True:
            start = data.find(FLAG, at)
            if start < 0:
                return None, len(data)
            found = self._frame(data, start)
            if found is None:
                return None, start
            packet, end = found
            if packet is not None:
                return packet, end
            at = start + 1  # the flag that ends what is no frame may begin one

    def _frame(self, data: bytes, start: int) -> tuple[bytes | None, int] | None:
        """The packet of the frame that begins with the flag at `start` (None for no frame), and its end; None where
        that cannot be told yet."""
        if start + 1 < len(data) and data[start + 1] == FLAG:
            return None, start  # the end of a frame, and the beginning of the next
        if len(data) < start + _HEADER_SIZE:
            return None
        revision, count = data[start + 1], data[start + 2]
        if revision != REVISION or count < HEADER_SIZE:
            return self._bad(start)
        packet = bytearray()
        at = start + _HEADER_SIZE
        while len(packet) < count:
            if at >= len(data):
                return None
            byte = data[at]
            if byte == FLAG:
                return self._bad(start)
            if byte == ESCAPE:
                if at + 1 >= len(data):
                    return None
                at += 1
                if data[at] == FLAG:
                    return self._bad(start)
                byte = data[at] ^ ESCAPE_MASK
            packet.append(byte)
            at += 1
        end = at + _TRAILER_SIZE
        if end > len(data):
            return None
        if data[end - 1] != FLAG or int.from_bytes(data[at : at + 2], "big") != fcs(
            bytes((revision, count)) + packet
        ):
            return self._bad(start)
        return bytes(packet), end - 1  # its last flag may be the next one's first

    def _bad(self, start: int) -> tuple[None, int]:
        self.broken += 1
        return None, start

    def frames(self, message: Message) -> list[bytes]:
        """What is sent for a message."""
        return [frame(packet) for packet in self._cut(message)]


class MctpSerialDoor(LoopDoor):
    """Serves endpoints over a serial line, from `open` (or `with`) until `close`, or until the line ends.

    `fd` is what to read and write: a terminal or pseudo-terminal in raw mode, or a stream socket such as that of a
    serial port of QEMU; the door uses a copy of it, without blocking. `endpoints` and `dialect` are as in
    `MctpTcpDoor`. Whatever is no frame on the line is skipped.
    """

    def __init__(
        self, endpoints: Mapping[int, Endpoint] | Node, fd: int, *, dialect: Dialect = Dialect.STANDARD
    ) -> None:
        self.node = endpoints if isinstance(endpoints, Node) else Node(endpoints)
        self.dialect = dialect
        self.framing = SerialFraming()
        self._given = fd
        self._stream: Stream | None = None

    @property
    def connected(self) -> bool:
        """The line has not ended."""
        return self._stream is not None

    @property
    def title(self) -> str:
        return f"serial line {self._given}"

    def open(self) -> None:
        """Start to listen. Raises `DoorError` where nothing can be read there."""
        if self._loop is not None:
            raise DoorError(f"{self.title}: this door is open already")
        name = f"MCTP serial {self._given}"
        try:
            fd = os.dup(self._given)
        except OSError as error:
            raise DoorError(f"{self.title}: {error.strerror}") from error
        os.set_blocking(fd, False)
        self._loop = Loop(name)
        try:
            self._stream = Stream(
                self._loop,
                fd,
                lambda size: os.read(fd, size),
                lambda data: os.write(fd, data),
                lambda: os.close(fd),
                self.framing,
                self.node,
                self.dialect,
                name,
                self._ended,
            )
        except OSError as error:
            os.close(fd)
            self._loop.stop(0)
            self._loop = None
            raise DoorError(f"{self.title}: cannot be waited for: {error.strerror}") from error
        self._loop.start()

    def _ended(self) -> None:
        self._stream = None

    def _shut(self) -> None:
        if self._stream is not None:
            self._stream.close()
