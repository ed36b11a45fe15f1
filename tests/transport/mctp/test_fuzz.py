"""Whatever bytes come, at either end: nothing hangs, nothing leaks, and the next one is served."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcxl.transport.mctp import Dialect, MctpClient, MctpError, MctpI2cDoor, MctpSerialDoor, MctpTcpDoor
from softcxl.transport.mctp.cci import pack_response
from softcxl.transport.mctp.i2c import Block, pack_block
from softcxl.transport.mctp.packet import Fragmenter, Message
from softcxl.transport.mctp.serial import SerialFraming, frame
from tests.transport.mctp.interfaces import ECHO, FILL, LATE, NEVER, TELL, Echoing

OPCODES = (ECHO, FILL, TELL, LATE, NEVER, 0x5100)


def packet(flags: int, eid: int, payload: bytes) -> bytes:
    return bytes([1, eid, 0, flags]) + payload.ljust(64, b"\0")[:64]


def command(opcode: int, length: int, payload: bytes) -> bytes:
    return (
        bytes([7, 0, 0, 0]) + opcode.to_bytes(2, "little") + length.to_bytes(3, "little") + bytes(4) + payload
    )


bodies = st.one_of(
    st.binary(max_size=64),
    st.builds(command, st.sampled_from(OPCODES), st.integers(0, 60), st.binary(max_size=51)),
    st.binary(max_size=20).map(lambda data: b"\x00" + data),
)
packets = st.builds(packet, st.integers(0, 255), st.sampled_from([0, 8, 9, 255]), bodies)
streams = st.lists(st.one_of(packets, packets, packets, st.binary(max_size=200)), max_size=30).map(b"".join)


def resources() -> tuple[int, int]:
    gc.collect()  # what earlier tests have let go of is not ours
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


@pytest.fixture(scope="module")
def fuzzed():
    before = resources()
    served = Echoing()
    with MctpTcpDoor({8: served.endpoint("first"), 9: served.endpoint("second")}, port=0) as door:
        yield door, served
    assert resources() == before
    assert len(served.closed) == len(served.opened)


@given(stream=streams, cuts=st.lists(st.integers(1, 200), max_size=20), leave=st.booleans())
@settings(max_examples=150)
def test_any_bytes_at_the_door(fuzzed, stream, cuts, leave) -> None:
    door, _ = fuzzed
    with socket.create_connection(door.address) as peer:
        peer.settimeout(300)
        try:
            for size in cuts:
                peer.sendall(stream[:size])
                stream = stream[size:]
            peer.sendall(stream)
            if not leave:
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1 << 16):
                    pass
        except OSError:
            pass  # the door has had enough
    with socket.create_connection(door.address) as peer:
        peer.settimeout(300)
        peer.sendall(packet(0xC8, 8, command(ECHO, 4, b"next")))
        data = b""
        while len(data) < 68:
            data += peer.recv(68 - len(data))
        assert data[17:21] == b"next"


@given(
    noise=st.lists(
        st.one_of(st.binary(max_size=60), st.just(b"\x7e\x01\x44"), st.just(b"\x7d\x7e")), max_size=20
    )
)
@settings(max_examples=60)
def test_any_bytes_on_a_serial_line(noise) -> None:
    served = Echoing()
    ours, theirs = socket.socketpair()
    with ours, theirs, MctpSerialDoor({8: served.endpoint("first")}, ours.fileno()):
        theirs.settimeout(300)
        theirs.sendall(b"".join(noise) + b"\x7e" * 520)
        theirs.sendall(frame(b"\x01\x08\x09\xc9" + command(ECHO, 4, b"next")))
        framing, data, found = SerialFraming(), b"", b""
        while b"next" not in found:
            answer, at = framing.next(data, 0)
            data = data[at:]
            if answer is None:
                data += theirs.recv(4096)
            else:
                found = answer
        assert found.endswith(b"next")


def block(packet: bytes) -> bytes:
    return pack_block(Block(0x1D, 0x10, packet))


@given(
    transactions=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=300),
            st.binary(min_size=4, max_size=254).map(block),
            packets.map(block),
        ),
        max_size=30,
    )
)
@settings(max_examples=60)
def test_any_transactions_on_an_i2c_bus(transactions) -> None:
    served = Echoing()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, MctpI2cDoor({8: served.endpoint("first")}, ours.fileno(), 0x1D):
        theirs.settimeout(300)
        for one in transactions:
            theirs.send(one)
        theirs.send(block(b"\x01\x08\x09\xc9" + command(ECHO, 4, b"next")))
        while not theirs.recv(300)[:-1].endswith(b"next"):
            pass


# -- the client -----------------------------------------------------------------------------------------------------


async def _against(server: Callable[[bytes], bytes], work: Callable[[MctpClient], Awaitable[None]]) -> None:
    """Run `work` with a client of a server that answers each packet with what `server` says."""

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(server(await reader.readexactly(68)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with (
        await asyncio.start_server(visit, "127.0.0.1", 0) as listener,
        await MctpClient.connect(*listener.sockets[0].getsockname()[:2], timeout=60) as client,
    ):
        await work(client)


@given(answer=streams)
@settings(max_examples=60)
def test_any_answer_is_an_answer_or_an_error(answer) -> None:
    async def work(client: MctpClient) -> None:
        for request in (
            client.command(ECHO, timeout=0.01),
            client.control(2, timeout=0.01),
            client.command(ECHO, timeout=0.01, eid=9),
        ):
            try:
                await request
            except MctpError:
                pass

    asyncio.run(_against(lambda request: answer, work))


def _answered(cut: Fragmenter, opcode: int, payload: bytes, request: bytes) -> list[bytes]:
    body = pack_response(Dialect.STANDARD, 7, request[6], opcode, 0, 0, payload)
    return cut.cut(Message(0, request[1], request[3] & 7, False, body))


def test_answers_in_another_order_and_mixed() -> None:
    held: list[bytes] = []
    cut = Fragmenter(padded=True)

    def server(request: bytes) -> bytes:
        held.append(request)
        if len(held) < 8:
            return b""
        answers = [_answered(cut, ECHO, one[17:18] * 100, one) for one in reversed(held)]
        mixed = [answer[part] for part in range(2) for answer in answers]
        return b"".join(
            one[:3] + bytes([one[3] & 0xCF | n % 4 << 4]) + one[4:] for n, one in enumerate(mixed)
        )

    async def work(client: MctpClient) -> None:
        answers = await asyncio.gather(*(client.command(ECHO, bytes([n])) for n in range(8)))
        assert [one.payload for one in answers] == [bytes([n]) * 100 for n in range(8)]

    asyncio.run(_against(server, work))


def test_an_answer_that_comes_too_late_is_nobodys() -> None:
    cut = Fragmenter(padded=True)
    held: list[bytes] = []

    def server(request: bytes) -> bytes:
        held.append(request)
        if len(held) <= 8:
            return b""  # eight tags, all of them given up
        late = [_answered(cut, ECHO, b"late", one) for one in held[-9:-8]]
        return b"".join(b"".join(one) for one in [*late, _answered(cut, ECHO, b"right", request)])

    async def work(client: MctpClient) -> None:
        for _ in range(8):
            with pytest.raises(MctpError, match="no answer"):
                await client.command(ECHO, timeout=0.001)
        for _ in range(4):
            assert (await client.command(ECHO)).payload == b"right"

    asyncio.run(_against(server, work))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda answer: bytes(68), "what came is no MCTP: MCTP header version 0"),
        (lambda answer: answer[:8] + b"\x00\x00" + answer[10:], "the response says that it is one to 0000h"),
        (lambda answer: answer[:5] + b"\x05" + answer[6:], "the response has category byte 05h"),
        (
            lambda answer: answer[:10] + b"\xff" + answer[11:],
            "ends after 51 bytes of payload, its header says 255",
        ),
    ],
)
def test_answers_that_make_no_sense(change, says) -> None:
    cut = Fragmenter(padded=True)

    async def work(client: MctpClient) -> None:
        with pytest.raises(MctpError, match=says):
            await client.command(ECHO)

    def server(request: bytes) -> bytes:
        return bytes(change(_answered(cut, ECHO, b"x", request)[0]))

    asyncio.run(_against(server, work))


def test_requests_of_an_endpoint_get_an_answer(caplog) -> None:
    """Event Notification, one whose payload is cut off, and control requests, which a manager does not take."""
    cut = Fragmenter(padded=True)
    whole = bytes.fromhex("08 00 07 00 0601 020000 0000 0000") + b"\x02\x00"
    short = bytes.fromhex("08 00 08 00 0601 ff0000 0000 0000")
    answers: list[bytes] = []

    def server(request: bytes) -> bytes:
        if not request[3] & 8:
            answers.append(request[4:17])
            return b""
        asked = [Message(0, 9, tag, True, body) for tag, body in enumerate((whole, short, b"\x00\x80\x02"))]
        own = _answered(cut, ECHO, b"", request)
        return b"".join(one for message in asked for one in cut.cut(message)) + b"".join(own)

    async def work(client: MctpClient) -> None:
        told: list[tuple[int, int, bytes]] = []
        client.notify = lambda *what: told.append(what)
        await client.command(ECHO)
        assert told == [(9, 0x0106, b"\x02\x00")]

        def fail(*what: object) -> None:
            raise RuntimeError("as asked for")

        client.notify = fail
        with caplog.at_level(logging.ERROR):
            await client.command(ECHO)
        assert "as asked for" in caplog.text
        client.notify = None
        await client.command(ECHO)
        await client.command(ECHO)  # by now the answers to the others have been taken

    asyncio.run(_against(server, work))
    codes = [(int.from_bytes(one[9:11], "little"), one[:5].hex()) for one in answers[:6]]
    assert codes == [(0, "0801070006"), (0x16, "0801080006")] * 2 + [(3, "0801070006"), (0x16, "0801080006")]


def test_a_routing_table_that_goes_in_circles() -> None:
    def server(request: bytes) -> bytes:
        body = bytes([0, request[5] & 0x1F, 0x0A, 0, 0, 0])
        return bytes([1, 0, 0, 0xC0 | request[3] & 7]) + body.ljust(64, b"\0")

    async def work(client: MctpClient) -> None:
        with pytest.raises(MctpError, match="the routing table goes on at 0 after 0"):
            await client.endpoint_ids()

    asyncio.run(_against(server, work))
