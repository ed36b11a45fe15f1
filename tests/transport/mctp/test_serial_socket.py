"""Serial lines at a Unix socket. Frames that Linux 7.2's mctp-serial sent over ttyS1 of a guest, own endpoint ID 9, and
check sequences that it sent for packets as long as answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.transport.errors import DoorError, DoorInUse
from softcxl.transport.mctp import MctpSerialSocket
from tests.transport.mctp.frames import exactly, fcs, framed
from tests.transport.mctp.interfaces import Echoing

IDENTIFY_SWITCH = "7e0111010809c807000000005100000000000000cfd87e"
ESCAPED = "7e0114010809c8080000000100030000000000007d5e7d5d00c0667e"  # opcode 0001h, payload 7e 7d 00
GET_EID = "7e0107010809c800800201dd7e"
CHECKED = {
    "010908c0070100000051040000000000007e7d0102": 0x3AD4,
    "010809c0070100000051040000000000007e7d0102": 0x76CB,
}


@pytest.fixture
def door(served: Echoing, tmp_path: Path) -> Iterator[MctpSerialSocket]:
    with MctpSerialSocket({8: served.endpoint("first")}, tmp_path / "line") as door:
        yield door


def line(door: MctpSerialSocket) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(300)
    sock.connect(str(door.path))
    return sock


def answers(sock: socket.socket, request: str, packet: str) -> None:
    sock.sendall(bytes.fromhex(request))
    expected = framed(bytes.fromhex(packet))
    assert exactly(sock, len(expected)).hex() == expected.hex()


def test_the_check_sequence_is_linux_s() -> None:
    for packet, check in CHECKED.items():
        body = bytes.fromhex(packet)
        assert fcs(bytes([1, len(body)]) + body) == check


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_what_linux_sends_is_answered(door: MctpSerialSocket, step: int) -> None:
    with line(door) as sock:
        request = bytes.fromhex(IDENTIFY_SWITCH)
        for at in range(0, len(request), step):  # a UART gives them one by one
            sock.sendall(request[at : at + step])
        # version, to, from, flags | type | response, tag, opcode, length, code 3, vendor status | "first"
        expected = framed(bytes.fromhex("010908c0" + "07" + "010000005105000003003412") + b"first")
        assert exactly(sock, len(expected)).hex() == expected.hex()


def test_escaped_bytes_and_control_messages(door: MctpSerialSocket) -> None:
    with line(door) as sock:
        answers(sock, ESCAPED, "010908c0" + "08" + "010000010005000003003412" + b"first".hex())
        answers(sock, GET_EID, "010908c0" + "000002" + "00080200")


def test_a_line_ends_and_another_comes(door: MctpSerialSocket, served: Echoing) -> None:
    for count in (1, 2):
        with line(door) as sock:
            answers(sock, IDENTIFY_SWITCH, "010908c007010000005105000003003412" + b"first".hex())
        served.wait_closed(count)


def test_lines_at_once_do_not_meet(door: MctpSerialSocket) -> None:
    with line(door) as one, line(door) as two:
        one.sendall(bytes.fromhex(IDENTIFY_SWITCH)[:9])
        answers(two, IDENTIFY_SWITCH, "010908c007010000005105000003003412" + b"first".hex())
        assert door.lines == 2
        answers(one, IDENTIFY_SWITCH[18:], "010908c007010000005105000003003412" + b"first".hex())


def test_closing_ends_lines(served: Echoing, tmp_path: Path) -> None:
    door = MctpSerialSocket({8: served.endpoint("first")}, tmp_path / "line")
    door.open()
    with line(door) as sock:
        answers(sock, IDENTIFY_SWITCH, "010908c007010000005105000003003412" + b"first".hex())
        door.close()
        assert sock.recv(1) == b""
    assert not door.path.exists()
    door.close()


def test_refusals(door: MctpSerialSocket, tmp_path: Path) -> None:
    with pytest.raises(DoorError, match="this door is open already"):
        door.open()
    with pytest.raises(DoorInUse, match="a live server listens there"):
        MctpSerialSocket(door.node, door.path).open()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(DoorError, match="exists and is no socket"):
        MctpSerialSocket(door.node, file).open()
    with pytest.raises(ValueError, match="8 to 254"):
        MctpSerialSocket({3: door.node.endpoints[8]}, tmp_path / "other")
