"""The TCP door, byte by byte: what jack sends and takes, and what no fabric manager should send."""

from __future__ import annotations

import gc
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from softcxl.transport.errors import DoorError, DoorInUse
from softcxl.transport.mctp import Dialect, Endpoint, MctpTcpDoor, Node, tcp
from tests.transport.mctp.interfaces import ECHO, FILL, LATE, NEVER, Plain

PACKET = 68
STALE = b"\xee" * 64
"""jack's requests carry whatever was in its buffer."""


def cci(
    opcode: int, payload: bytes = b"", *, tag: int = 0, category: int = 0, length: int | None = None
) -> bytes:
    """Type 07h, category, tag, reserved, opcode, length, return code and vendor status: 13 bytes, and the payload."""
    size = len(payload) if length is None else length
    return (
        bytes([7, category, tag, 0])
        + opcode.to_bytes(2, "little")
        + size.to_bytes(3, "little")
        + bytes(4)
        + payload
    )


def packet(flags: int, payload: bytes, *, eids: bytes = b"\0\0", version: int = 1) -> bytes:
    return bytes([version]) + eids + bytes([flags]) + (payload + STALE)[:64]


class Peer:
    """A fabric manager, as far as a socket goes."""

    def __init__(self, door: MctpTcpDoor) -> None:
        self.sock = socket.create_connection(door.address)
        self.sock.settimeout(300)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *packets: bytes) -> None:
        self.sock.sendall(b"".join(packets))

    def packet(self) -> bytes:
        data = b""
        while len(data) < PACKET:
            more = self.sock.recv(PACKET - len(data))
            assert more, "the door closed the connection"
            data += more
        return data

    def ended(self) -> bool:
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def echo(self, payload: bytes = b"hello", flags: int = 0xC8) -> bytes:
        self.send(packet(flags, cci(ECHO, payload)))
        return self.packet()


class Switch:
    """Answers Identify Switch Device as a switch does: 73 bytes."""

    payload_max = 4096

    def execute(self, opcode: int, payload: bytes) -> Plain:
        return Plain(payload=bytes(range(73))) if opcode == 0x5100 else Plain(code=3)

    def close(self) -> None:
        pass


@pytest.fixture
def jack():
    """A door in jack's dialect, and jack at it."""
    with (
        MctpTcpDoor({8: Endpoint("switch", lambda send: Switch())}, port=0, dialect=Dialect.CXL2) as door,
        Peer(door) as peer,
    ):
        yield peer


# -- what jack sends, recorded by a proxy ------------------------------------------------------------------------


def test_identify_switch_of_jack(jack) -> None:
    jack.send(packet(0xC8, bytes.fromhex("07 00000000 51 000000 0000 0000")))
    first, second = jack.packet(), jack.packet()
    assert first[:4].hex(" ") == "01 00 00 80"
    # category 1 in bits 7:4, tag, reserved, opcode, 73 bytes, Success
    assert first[4:17].hex(" ") == "07 10 00 00 00 51 49 00 00 00 00 00 00"
    assert second[:4].hex(" ") == "01 00 00 50"
    assert first[17:] + second[4 : 4 + 22] == bytes(range(73))
    assert second[26:] == bytes(42)


def test_a_request_of_jack_in_five_packets() -> None:
    """`jack show port -a`: Get Physical Port State of 255 ports, 269 bytes with type and header."""
    heads = [
        "0100008807000000015100010000000000ff00010203",
        "0100001832333435363738393a3b3c3d3e3f40414243",
        "0100002872737475767778797a7b7c7d7e7f80818283",
        "01000038b2b3b4b5b6b7",
        "01000048f2f3f4f5f6f7",
    ]
    ports = bytes(range(255))
    body = bytes.fromhex("07 00000001 51 000100 0000 0000") + b"\xff" + ports
    sent = [
        bytes([1, 0, 0, flags]) + (body[64 * n : 64 * n + 64] + STALE)[:64]
        for n, flags in enumerate((0x88, 0x18, 0x28, 0x38, 0x48))
    ]
    assert [one.hex()[: len(head)] for one, head in zip(sent, heads, strict=True)] == heads
    took: list[bytes] = []

    class Ports(Switch):
        def execute(self, opcode: int, payload: bytes) -> Plain:
            took.append(payload)
            return Plain()

    with (
        MctpTcpDoor({8: Endpoint("switch", lambda send: Ports())}, port=0, dialect=Dialect.CXL2) as door,
        Peer(door) as peer,
    ):
        peer.send(*sent)
        assert peer.packet()[4:17].hex(" ") == "07 10 00 00 01 51 00 00 00 00 00 00 00"
    assert took == [b"\xff" + ports]


def test_packet_numbers_of_jack_go_on_over_messages(jack) -> None:
    for n in range(9):
        jack.send(packet(0xC8 | n % 4 << 4, cci(0x5100, tag=n)))
        first, second = jack.packet(), jack.packet()
        assert (first[3], second[3]) == (0x80 | 2 * n % 4 << 4, 0x40 | (2 * n + 1) % 4 << 4)
        assert first[6] == n


def test_a_command_that_is_not_there_is_unsupported_to_jack(jack) -> None:
    jack.send(packet(0xC8, cci(0x5600)))
    assert jack.packet()[4:17].hex(" ") == "07 10 00 00 00 56 00 00 00 03 00 00 00"


def test_jack_loses_the_last_byte_of_some_sizes(jack) -> None:
    """It counts packets without the type byte: 12 + 52 bytes go into one packet, where 65 would have to."""
    jack.send(packet(0xC8, cci(0x5100, bytes(52))[:64]))
    assert jack.packet()[4:17].hex(" ") == "07 10 00 00 00 51 00 00 00 16 00 00 00"


def test_control_messages_of_jack(jack) -> None:
    jack.send(packet(0xC8, bytes.fromhex("00 80 02")))  # Get Endpoint ID
    assert jack.packet()[:11].hex(" ") == "01 00 00 c0 00 00 02 00 08 02 00"
    jack.send(packet(0xD8, bytes.fromhex("00 80 05")))  # Get Message Type Support
    assert jack.packet()[:11].hex(" ") == "01 00 00 d0 00 00 05 00 02 07 08"
    jack.send(packet(0xE8, bytes.fromhex("00 80 04 ff")))  # Get MCTP Version Support
    assert jack.packet()[:13].hex(" ") == "01 00 00 e0 00 00 04 00 04 f1 f0 ff 00"
    jack.send(packet(0xF8, bytes.fromhex("00 80 01 00 0c")))  # Set Endpoint ID 12
    assert jack.packet()[:11].hex(" ") == "01 00 00 f0 00 00 01 00 00 0c 00"
    jack.send(packet(0xC8, bytes.fromhex("00 80 02")))
    assert jack.packet()[:11].hex(" ") == "01 00 00 c0 00 00 02 00 0c 03 00"


# -- packets ----------------------------------------------------------------------------------------------------------


def test_the_standard_has_its_category_in_the_low_bits(door) -> None:
    with Peer(door) as peer:
        assert (
            peer.echo(b"hello")[:22].hex(" ")
            == "01 00 00 c0 07 01 00 00 00 c0 05 00 00 00 00 00 00 68 65 6c 6c 6f"
        )


def test_answers_swap_endpoint_ids_and_keep_tags(door) -> None:
    with Peer(door) as peer:
        peer.send(packet(0xCD, cci(ECHO, tag=0x99), eids=b"\x09\x2a"))
        answer = peer.packet()
        assert answer[:4].hex(" ") == "01 2a 09 c5"
        assert answer[6] == 0x99


def test_requests_in_pieces_of_a_byte(door) -> None:
    with Peer(door) as peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in packet(0xC8, cci(ECHO, b"slowly")):
            peer.send(bytes([byte]))
        assert peer.packet()[17:23] == b"slowly"


def test_requests_of_several_tags_that_are_mixed(door) -> None:
    bodies = {tag: cci(ECHO, bytes([tag]) * 100) for tag in range(8)}
    with Peer(door) as peer:
        peer.send(*(packet(0x88 | tag | tag % 4 << 4, body[:64]) for tag, body in bodies.items()))
        peer.send(*(packet(0x48 | tag | tag % 4 << 4, body[64:]) for tag, body in bodies.items()))
        for tag in bodies:
            first, second = peer.packet(), peer.packet()
            assert (first[3] & 0x0F, second[3] & 0x0F) == (tag, tag)
            assert first[17:] + second[4 : 4 + 49] == bytes([tag]) * 100


@pytest.mark.parametrize(
    "ignored",
    [
        packet(0x48, b"an end without a beginning"),
        packet(0x08, b"a middle"),
        packet(0xC0, cci(ECHO)),  # a response
        packet(0xC8, cci(ECHO, category=1)),  # its header says so, too
        packet(0xC8, cci(ECHO), eids=b"\x0a\x00"),  # nobody has this ID
        packet(0xC8, cci(ECHO), eids=b"\xff\x00"),  # commands to everybody
        packet(0xC8, b"\x70 vendor"),
        packet(0xC8, b"\x87" + cci(ECHO)[1:]),  # with an integrity check, which these messages have not
        packet(0xC8, b"\x00\x00\x02"),  # a control response
        packet(0xC8, b"\x00\xc0\x02"),  # a control datagram
        packet(0x88, cci(ECHO)) + packet(0x48 | 3 << 4, b"out of order"),
    ],
)
def test_what_has_no_answer_is_let_by(door, ignored) -> None:
    with Peer(door) as peer:
        peer.send(ignored)
        assert peer.echo(b"next")[17:21] == b"next"


@pytest.mark.parametrize(
    "request_",
    [
        cci(ECHO, b"four", length=60),  # more than there is
        cci(ECHO, length=1 << 20),
    ],
)
def test_lengths_that_are_wrong(door, request_) -> None:
    with Peer(door) as peer:
        peer.send(packet(0xC8, request_))
        answer = peer.packet()
        assert (answer[4:6].hex(), answer[13]) == ("0701", 0x16)


def test_a_packet_too_many(door) -> None:
    with Peer(door) as peer:
        peer.send(packet(0x88, cci(ECHO, b"x")), packet(0x58, b"more than padding"))
        assert peer.packet()[13] == 0x16


def test_everybody_is_asked_for_an_endpoint_id(door) -> None:
    with Peer(door) as peer:
        peer.send(packet(0xC8, bytes.fromhex("00 81 02"), eids=b"\xff\x00"))
        assert peer.packet()[:9].hex(" ") == "01 00 08 c0 00 01 02 00 08"


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\nHost: me\r\n\r\n" + bytes(64), bytes(68), b"\x02" * 68]
)
def test_garbage_ends_its_own_connection_only(door, garbage) -> None:
    with Peer(door) as good, Peer(door) as bad:
        good.echo()
        bad.send(garbage)
        assert bad.ended()
        assert good.echo(b"fine", 0xD8)[17:21] == b"fine"


def test_what_was_asked_before_garbage_is_answered(door) -> None:
    with Peer(door) as peer:
        peer.send(packet(0xC8, cci(ECHO, b"first")), bytes(68))
        assert peer.packet()[17:22] == b"first"
        assert peer.ended()


# -- connections --------------------------------------------------------------------------------------------------


def test_whoever_says_that_he_is_done_still_gets_his_answers(door) -> None:
    with Peer(door) as peer:
        peer.send(*(packet(0xC8 | n % 8, cci(FILL, (200).to_bytes(4, "little"), tag=n)) for n in range(200)))
        peer.sock.shutdown(socket.SHUT_WR)
        for n in range(200):
            answer = [peer.packet() for _ in range(4)]
            assert answer[0][6] == n
        assert peer.ended()


def test_a_peer_that_does_not_read_is_waited_for(door) -> None:
    size = 300_000
    packets = -(-(13 + size) // 64)
    with Peer(door) as peer, Peer(door) as other:
        peer.send(*(packet(0xC8, cci(FILL, size.to_bytes(4, "little"), tag=n)) for n in range(40)))
        assert other.echo(b"meanwhile")[17:26] == b"meanwhile"
        for n in range(40):
            body = b"".join(peer.packet()[4:] for _ in range(packets))
            assert body[2] == n
            assert body[13 : 13 + size] == (bytes(range(256)) * (size // 256 + 1))[:size]


@pytest.mark.parametrize(
    "last",
    [
        b"",
        packet(0xC8, cci(ECHO))[:30],
        packet(0x88, cci(ECHO, bytes(500))),
        packet(0xC8, cci(LATE)),
        packet(0xC8, cci(NEVER)),
        packet(0xC8, cci(FILL, (1 << 20).to_bytes(4, "little"))) * 20,
    ],
)
def test_a_peer_that_leaves_in_the_midst(door, served, last) -> None:
    with Peer(door) as peer:
        peer.echo()
        peer.send(last)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # by a reset
    served.wait_closed(1)
    served.released.set()
    with Peer(door) as peer:
        assert peer.echo(b"next")[17:21] == b"next"


def test_a_hundred_connections(door, served) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(door)) for _ in range(100)]
        for n, peer in enumerate(peers):
            peer.send(packet(0xC8, cci(ECHO, bytes([n]))))
        assert [peer.packet()[17] for peer in peers] == list(range(100))
        assert door.connections == 100
        assert len(served.opened) == 100
    served.wait_closed(100)


def test_one_connection_too_many(door, monkeypatch) -> None:
    monkeypatch.setattr(tcp, "MAX_CONNECTIONS", 2)
    with Peer(door) as first, Peer(door) as second, Peer(door) as third:
        first.echo()
        second.echo()
        assert third.ended()
        assert first.echo(b"fine", 0xD8)[17:21] == b"fine"


def test_nothing_is_left_behind(served) -> None:
    def state() -> tuple[int, int]:
        gc.collect()  # what earlier tests have let go of is not ours
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    before = state()
    for _ in range(3):
        with MctpTcpDoor({8: served.endpoint("first")}, port=0) as door:
            for n in range(30):
                with Peer(door) as peer:
                    peer.send((packet(0xC8, cci(LATE)), packet(0x88, cci(ECHO)), bytes(68), b"cut")[n % 4])
            with Peer(door) as peer:
                peer.echo()
        door.close()
    assert state() == before
    assert len(served.closed) == len(served.opened)


def test_a_door_opens_again_at_its_port(served) -> None:
    door = MctpTcpDoor({8: served.endpoint("first")}, port=0)
    for _ in range(2):
        door.open()
        with pytest.raises(DoorError, match="open already"):
            door.open()
        with Peer(door) as peer:
            peer.echo()
        door.close()


def test_where_nobody_can_listen(door, served) -> None:
    endpoints = {8: served.endpoint("first")}
    with pytest.raises(
        DoorInUse, match=rf"127\.0\.0\.1:{door.address[1]}: cannot listen: Address already in use"
    ):
        MctpTcpDoor(endpoints, port=door.address[1]).open()
    with pytest.raises(DoorError, match=r"192\.0\.2\.1:0: cannot listen: Cannot assign requested address"):
        MctpTcpDoor(endpoints, "192.0.2.1", 0).open()
    with pytest.raises(DoorError, match=r"127\.0\.0\.1:70000: cannot listen: ports are 0 to 65535"):
        MctpTcpDoor(endpoints, port=70000).open()
    with pytest.raises(ValueError, match="endpoint ID 7: 8 to 254 are allowed"):
        MctpTcpDoor({7: served.endpoint("first")})
    with pytest.raises(ValueError, match="a node has one endpoint at least"):
        Node({})


def test_a_door_may_be_closed_by_what_it_serves() -> None:
    class Closing(Switch):
        def execute(self, opcode: int, payload: bytes) -> Plain:
            door.close()
            return Plain()

    door = MctpTcpDoor({8: Endpoint("closing", lambda send: Closing())}, port=0)
    door.open()
    with Peer(door) as peer:
        peer.send(packet(0xC8, cci(ECHO)))
        assert peer.packet()[13] == 0
        assert peer.ended()
    door.close()
    door.close()
