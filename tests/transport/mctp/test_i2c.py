"""DSP0237 block writes, as Linux drivers/net/mctp/mctp-i2c.c sends and takes them."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcxl.transport.errors import DoorError
from softcxl.transport.mctp import MctpI2cDoor
from softcxl.transport.mctp.cci import Dialect, pack_request, unpack
from softcxl.transport.mctp.errors import PacketError
from softcxl.transport.mctp.i2c import Block, pack_block, pec, unpack_block
from softcxl.transport.mctp.packet import Assembler, Fragmenter, Message
from tests.transport.mctp.interfaces import ECHO, TELL

DEVICE, HOST = 0x1D, 0x10


def linux_pec(data: bytes) -> int:
    """i2c_smbus_pec of drivers/i2c/i2c-core-smbus.c: its polynomial is 1070h shifted left by 3."""
    crc = 0
    for byte in data:
        value = (crc ^ byte) << 8
        for _ in range(8):
            if value & 0x8000:
                value ^= 0x1070 << 3
            value <<= 1
        crc = value >> 8 & 0xFF
    return crc


def test_the_check_is_the_one_known_as_smbus() -> None:
    assert pec(b"123456789") == 0xF4  # the catalogue's check value


def test_a_block_by_hand() -> None:
    packet = bytes.fromhex("010809c8") + b"hello"
    head = bytes([DEVICE << 1, 0x0F, 1 + 9, HOST << 1 | 1]) + packet
    assert pack_block(Block(DEVICE, HOST, packet)) == head + bytes([linux_pec(head)])


@given(st.integers(0, 127), st.integers(0, 127), st.binary(min_size=4, max_size=254))
def test_blocks_come_back(destination, source, packet) -> None:
    data = pack_block(Block(destination, source, packet))
    assert data[-1] == linux_pec(data[:-1])
    assert unpack_block(data) == (destination, source, packet)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data[:-1], "byte count"),
        (lambda data: data + b"\0", "byte count"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "packet error code"),
        (lambda data: data[:6] + bytes([data[6] ^ 0x10]) + data[7:], "packet error code"),
        (lambda data: bytes([data[0] | 1]) + data[1:], "no block write of MCTP"),
        (lambda data: data[:1] + b"\x10" + data[2:], "no block write of MCTP"),
        (lambda data: data[:3] + bytes([data[3] & ~1]) + data[4:], "no block write of MCTP"),
        (lambda data: data[:8], "8 bytes, one with a packet has 9"),
        (lambda data: b"", "0 bytes"),
    ],
)
def test_damaged_blocks_are_refused(change, says) -> None:
    with pytest.raises(PacketError, match=says):
        unpack_block(change(pack_block(Block(DEVICE, HOST, b"\x01\x08\x09\xc8hello"))))


def test_what_fits_in_no_block() -> None:
    with pytest.raises(ValueError, match="255 bytes, a block has room for 254"):
        pack_block(Block(DEVICE, HOST, bytes(255)))
    with pytest.raises(ValueError, match="I2C address 0x80: 0 to 0x7f are allowed"):
        pack_block(Block(0x80, HOST, bytes(4)))


class Bus:
    """The management controller's end of a bus."""

    def __init__(self, sock: socket.socket, address: int = HOST) -> None:
        self.sock, self.address = sock, address
        self.assembler = Assembler(1 << 21)

    def send(self, body: bytes, *, to: int = DEVICE) -> None:
        for packet in Fragmenter().cut(Message(8, 0x20, 0, True, body)):
            self.sock.send(pack_block(Block(to, self.address, packet)))

    def receive(self) -> Message:
        while True:
            block = unpack_block(self.sock.recv(300))
            assert (block.destination, block.source) == (self.address, DEVICE)
            if (message := self.assembler.take(block.packet)) is not None:
                return message


@pytest.fixture(params=[socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def bus(request, served):
    ours, theirs = socket.socketpair(socket.AF_UNIX, request.param)
    with ours, theirs, MctpI2cDoor({8: served.endpoint("first")}, ours.fileno(), DEVICE) as door:
        yield Bus(theirs), door


def command(opcode: int, payload: bytes = b"") -> bytes:
    return pack_request(Dialect.STANDARD, 8, 3, opcode, payload)


def test_commands_over_a_bus(bus) -> None:
    controller, _ = bus
    for size in (0, 10, 1000, 100_000):
        payload = (bytes(range(256)) * 400)[:size]
        controller.send(command(ECHO, payload)) if size < 5000 else controller.send(
            command(0xC001, size.to_bytes(4, "little"))
        )
        message = controller.receive()
        answer = unpack(Dialect.STANDARD, message.body)
        assert (message.destination, message.source, answer.tag) == (0x20, 8, 3)
        assert answer.payload == payload


def test_damage_and_messages_to_others_are_let_by(bus, served) -> None:
    controller, door = bus
    controller.send(command(ECHO), to=DEVICE + 1)
    controller.sock.send(b"\x3a\x0f\x05noise")
    controller.sock.send(pack_block(Block(DEVICE, HOST, b"\x02\x08\x09\xc8")))
    controller.send(command(ECHO, b"still here"))
    assert unpack(Dialect.STANDARD, controller.receive().body).payload == b"still here"
    assert door.broken == 2
    assert len(served.opened) == 1


def test_controllers_on_one_bus_are_told_apart(bus, served) -> None:
    controller, _ = bus
    controller.send(command(ECHO))
    controller.receive()
    other = Bus(controller.sock, 0x11)
    other.send(command(TELL, b"\x02\x00"))
    got = [other.receive(), other.receive()]
    assert sorted(one.owner for one in got) == [False, True]
    assert len(served.opened) == 2


def test_the_bus_ends(served) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, MctpI2cDoor({8: served.endpoint("first")}, ours.fileno(), DEVICE):
        controller = Bus(theirs)
        controller.send(command(ECHO))
        controller.receive()
        theirs.close()
        served.wait_closed(1)


def test_a_stream_is_no_bus(served) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(DoorError, match="a stream does not keep transactions apart"):
        MctpI2cDoor({8: served.endpoint("first")}, ours.fileno(), DEVICE).open()
    with pytest.raises(ValueError, match="I2C address 0x99"):
        MctpI2cDoor({8: served.endpoint("first")}, 0, 0x99)
