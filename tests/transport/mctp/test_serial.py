"""DSP0253 frames, as Linux drivers/net/mctp/mctp-serial.c sends and takes them."""

from __future__ import annotations

import os
import pty
import socket
import tty
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcxl.transport.errors import DoorError
from softcxl.transport.mctp import Endpoint, MctpSerialDoor
from softcxl.transport.mctp.cci import Dialect, pack_request, unpack
from softcxl.transport.mctp.packet import Assembler, Fragmenter, Message
from softcxl.transport.mctp.serial import SerialFraming, fcs, frame
from tests.transport.mctp.interfaces import ECHO, TELL


def linux_frame(packet: bytes) -> bytes:
    """What mctp_serial_tx_work writes: crc_ccitt of lib/crc/crc-ccitt.c over revision, length and packet."""
    check = 0xFFFF
    for byte in bytes([1, len(packet)]) + packet:
        check ^= byte
        for _ in range(8):
            check = check >> 1 ^ (0x8408 if check & 1 else 0)
    escaped = b"".join(
        bytes([0x7D, byte & ~0x20]) if byte in (0x7D, 0x7E) else bytes([byte]) for byte in packet
    )
    return bytes([0x7E, 1, len(packet)]) + escaped + bytes([check >> 8, check & 0xFF, 0x7E])


def packets(framing: SerialFraming, data: bytes) -> list[bytes]:
    found, at = [], 0
    while (step := framing.next(data, at))[0] is not None:
        found.append(step[0])
        at = step[1]
    return found


def test_the_check_is_the_one_known_as_mcrf4xx() -> None:
    assert fcs(b"123456789") == 0x6F91  # the catalogue's check value


@given(st.binary(min_size=4, max_size=255))
def test_frames_are_what_linux_sends(packet) -> None:
    assert frame(packet) == linux_frame(packet)
    assert packets(SerialFraming(), linux_frame(packet)) == [packet]


def test_a_frame_by_hand() -> None:
    # 7E and 7D in the packet: 1, 8, 9, C8h, then both
    assert frame(bytes.fromhex("010809c87e7d"))[:11].hex() == "7e01" + "06" + "010809c8" + "7d5e" + "7d5d"


def test_a_packet_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="256 bytes, a frame has 255 at most"):
        frame(bytes(256))


GOOD = b"\x01\x08\x09\xc8hello"


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"noise without a flag",
        b"\x7e",
        b"\x7e\x7e\x7e",
        b"\x7e\x02\x05",  # another revision
        b"\x7e\x01\x00\xff\xff\x7e",  # no packet in it
        b"\x7e\x01\x03abc\x00\x00\x7e",
        linux_frame(GOOD)[:-4],  # cut off
        linux_frame(GOOD)[:5],
        linux_frame(GOOD)[:-2] + b"\x00\x7e",  # a wrong check
        linux_frame(GOOD)[:6] + b"!" + linux_frame(GOOD)[7:],
        b"\x7e\x01\x05\x01\x08\x09\xc8\x7d",  # ends in an escape
        b"\x7e\x01\xff" + b"x" * 20,
    ],
)
def test_a_frame_after_noise_is_found(noise) -> None:
    framing = SerialFraming()
    assert packets(framing, noise + linux_frame(GOOD) + linux_frame(GOOD)) == [GOOD, GOOD]


def test_a_flag_between_two_frames_may_belong_to_both() -> None:
    assert packets(SerialFraming(), linux_frame(GOOD)[:-1] + linux_frame(GOOD)) == [GOOD, GOOD]


def test_broken_frames_are_counted() -> None:
    framing = SerialFraming()
    assert packets(framing, linux_frame(GOOD)[:-2] + b"\x00\x7e") == []
    assert framing.broken == 1


@given(st.binary(max_size=600), st.lists(st.integers(1, 50)))
def test_noise_in_any_pieces_hides_no_later_frame(noise, cuts) -> None:
    framing = SerialFraming()
    stream = noise + b"\x7e" * 2 + bytes(520).replace(b"\0", b"\x7e") + linux_frame(GOOD)
    rest, found = b"", []
    while stream:
        size = cuts.pop() if cuts else len(stream)
        rest, stream = rest + stream[:size], stream[size:]
        at = 0
        while True:
            packet, at = framing.next(rest, at)
            if packet is None:
                break
            found.append(packet)
        rest = rest[at:]
        assert len(rest) <= 3 + 2 * 255 + 3
    assert found[-1] == GOOD


# -- the door -------------------------------------------------------------------------------------------------------


class Manager:
    """The other end of the line, as a kernel has it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.cut = Fragmenter()
        self.framing, self.assembler = SerialFraming(), Assembler(1 << 21)
        self.rest = b""

    def send(self, body: bytes, *, tag: int = 0, eid: int = 8) -> None:
        for one in self.cut.cut(Message(eid, 0x20, tag, True, body)):
            os.write(self.fd, linux_frame(one))

    def receive(self) -> Message:
        while True:
            packet, at = self.framing.next(self.rest, 0)
            self.rest = self.rest[at:]
            if packet is None:
                self.rest += os.read(self.fd, 4096)
            elif (message := self.assembler.take(packet)) is not None:
                return message

    def command(self, opcode: int, payload: bytes = b"") -> bytes:
        self.send(pack_request(Dialect.STANDARD, 7, 1, opcode, payload))
        message = self.receive()
        assert (message.destination, message.source, message.owner) == (0x20, 8, False)
        return unpack(Dialect.STANDARD, message.body).payload


def test_commands_over_a_pseudo_terminal(served) -> None:
    ours, theirs = pty.openpty()
    try:
        tty.setraw(theirs)
        with MctpSerialDoor({8: served.endpoint("first")}, ours) as door:
            manager = Manager(theirs)
            payload = bytes(range(256)) * 3
            assert manager.command(ECHO, payload) == payload
            os.write(theirs, b"\x00garbage\x7e\x01\x7e")
            manager.send(b"\x08 too short")  # no header: there is nothing to answer to
            assert manager.command(ECHO, b"again") == b"again"
            assert door.connected
    finally:
        os.close(ours)
        os.close(theirs)
    served.wait_closed(1)


def test_commands_and_events_over_a_socket(served) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, MctpSerialDoor({8: served.endpoint("first")}, ours.fileno()) as door:
        manager = Manager(theirs.fileno())
        big = bytes(range(256)) * 800
        manager.send(pack_request(Dialect.STANDARD, 7, 1, TELL, b"\x01\x00"))
        got = [manager.receive(), manager.receive()]
        told = next(one for one in got if one.owner)
        event = unpack(Dialect.STANDARD, told.body)
        assert (event.category, event.opcode, event.payload) == (0, 0x0106, b"\x01\x00")
        assert (told.destination, told.source) == (0x20, 8)
        assert manager.command(ECHO, big) == big
        theirs.close()
        served.wait_closed(1)
        door.close()
        door.close()


def test_a_descriptor_that_is_none() -> None:
    nobody = {8: Endpoint("nobody", lambda send: None)}  # type: ignore[arg-type,return-value]
    with pytest.raises(DoorError, match="serial line 9999: Bad file descriptor"):
        MctpSerialDoor(nobody, 9999).open()
    with Path(__file__).open("rb") as file, pytest.raises(DoorError, match="cannot be waited for"):
        MctpSerialDoor(nobody, file.fileno()).open()
