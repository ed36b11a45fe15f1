"""A real socket between the library and what is at the other end: our own door, and peers that misbehave."""

import asyncio
import json
import struct
from contextlib import aclosing, asynccontextmanager

import pytest

from softcxl import fm
from softcxl.device.type3 import Type3
from softcxl.spec.command.events import EventLog, MctpEventInterrupts
from softcxl.transport.control import Door
from softcxl.transport.mctp import Endpoint, MctpTcpDoor
from tests.fm.scripted import Scripts, connecting_takes_its_time

IDENTITY = struct.pack("<HHHHQBB", 0x1AF4, 2, 3, 4, 5, 12, 3)


@pytest.fixture
def scripts():
    return Scripts({0x0001: IDENTITY})


@pytest.fixture(params=list(fm.Dialect), ids=lambda one: one.value)
def dialect(request):
    return request.param


@pytest.fixture
def address(scripts, dialect):
    endpoints = {8: Endpoint("first", scripts.open), 9: Endpoint("second", Scripts({}).open)}
    with MctpTcpDoor(endpoints, port=0, dialect=dialect) as door:
        yield f"tcp:127.0.0.1:{door.address[1]}"


def test_a_command_and_its_answer(address, dialect):
    async def ask():
        async with fm.connect(address, dialect=dialect) as switch:
            return await switch.identify()

    assert asyncio.run(ask()).serial_number == 5


def test_endpoints_by_their_ids(address, dialect):
    async def ask():
        async with fm.Connection.open(address, dialect=dialect) as connection:
            first, second = [
                await connection.endpoint(fm.Component, eid) for eid in await connection.endpoint_ids()
            ]
            assert (await first.identify()).serial_number == 5
            with pytest.raises(
                fm.CommandRefused, match=r"^endpoint 9 at tcp:.*: Identify \(0001h\): Unsupported"
            ):
                await second.identify()

    asyncio.run(ask())


def test_control_messages(address, dialect):
    async def ask():
        async with fm.Connection.open(address, dialect=dialect) as connection:
            assert (await connection.endpoint_id(9)).eid == 9
            assert await connection.message_types() == [7, 8]
            assert (await connection.versions(0xFF))[-1].major == 0xF1
            assert await connection.endpoint_uuid(8) != await connection.endpoint_uuid(9)
            assert (await connection.set_endpoint_id(20, 9)).eid == 20
            assert await connection.endpoint_ids() == [8, 20]
            with pytest.raises(fm.EndpointRefused, match=r"completion code 80h") as refused:
                await connection.versions(0x01)
            assert refused.value.code == 0x80

    asyncio.run(ask())


@pytest.mark.parametrize("types", [(7,), (8,)])
def test_an_endpoint_is_sent_the_messages_that_it_takes(scripts, types):
    # As QEMU: a switch takes FM API messages alone, a memory device CCI messages alone.
    scripts.handlers[0x5100] = bytes(0x49)
    with MctpTcpDoor({8: Endpoint("first", scripts.open, types=types)}, port=0) as door:

        async def ask():
            async with fm.connect(f"tcp:127.0.0.1:{door.address[1]}") as switch:
                return await switch.identify(), await switch.identify_switch()

        assert asyncio.run(ask())[0].serial_number == 5


def test_the_wrong_dialect_is_told_of(address, dialect):
    other = next(one for one in fm.Dialect if one is not dialect)

    async def ask():
        async with fm.connect(address, dialect=other) as switch:
            await switch.identify()

    with pytest.raises(fm.BadAnswer, match=f"^tcp:127.*as in the dialect '{dialect.value}'"):
        asyncio.run(ask())


def test_notifications_reach_whoever_listens(address, dialect, scripts):
    async def ask():
        async with fm.Connection.open(address, dialect=dialect) as connection:
            first = await connection.endpoint(fm.Component, 8)
            second = await connection.endpoint(fm.Component, 9)
            heard, deaf = first.notifications(), second.notifications()
            await first.identify()
            await second.execute(0)
            scripts.senders[0](0x0106, b"\x02\x80")
            return await anext(heard), deaf

        # the connection has ended, and so have they

    async def both():
        events, deaf = await ask()
        assert events == MctpEventInterrupts.make(warning=True, background_operation=True)
        assert [one async for one in deaf] == []

    asyncio.run(both())


class Guarded:
    """A real device's command interface, with its lock."""

    payload_max = 4096

    def __init__(self, device, send):
        self.device = device
        self.interface = device.management(lambda request: send(0x0106, request.pack()))

    def execute(self, opcode, payload):
        with self.device.lock:
            return self.interface.execute(opcode, payload)

    def close(self):
        self.interface.close()


def test_a_real_devices_events():
    device = Type3("mem0", volatile=256 << 20, serial=7)
    with MctpTcpDoor({8: Endpoint("mem0", lambda send: Guarded(device, send))}, port=0) as door:

        async def follow():
            async with fm.connect(f"tcp:127.0.0.1:{door.address[1]}", fm.Device) as mem0:
                assert (await mem0.identify()).serial_number == 7
                opcodes = {one.opcode for one in await mem0.command_effects()}
                device.inject.event(EventLog.WARNING, "general-media", dpa=0x1000)
                async with aclosing(mem0.follow_events([EventLog.WARNING, EventLog.FAILURE])) as events:
                    found = [await anext(events)]
                    device.inject.event(EventLog.FAILURE, "general-media", dpa=0x2000)
                    found.append(await anext(events))
                return opcodes, found

        opcodes, found = asyncio.run(follow())
    assert {0x0001, 0x0100, 0x4000} <= opcodes
    assert [log for log, _ in found] == [EventLog.WARNING, EventLog.FAILURE]
    assert [event.address.dpa << 6 for _, event in found] == [0x1000, 0x2000]


# -- nobody, and those who misbehave -------------------------------------------------------------------------


def test_nobody_listens():
    async def ask():
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
        async with fm.connect(f"tcp:127.0.0.1:{port}"):
            pass

    with pytest.raises(fm.NoAnswer, match=r"^tcp:127\.0\.0\.1:\d+: cannot connect: ") as error:
        asyncio.run(ask())
    assert error.value.exit_code == 3


@asynccontextmanager
async def peer(answer):
    """A server that has `answer` (reader, writer) for each client; its address."""
    clients = set()

    async def serve(reader, writer):
        clients.add(writer)
        await answer(reader, writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        try:
            yield f"tcp:127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            for writer in clients:
                writer.close()
                await writer.wait_closed()


def test_a_peer_that_says_nothing(monkeypatch):
    connecting_takes_its_time(monkeypatch)

    async def silent(reader, writer):
        await reader.read()

    async def ask():
        async with (
            peer(silent) as address,
            fm.connect(address, dialect=fm.Dialect.CXL2, timeout=0.05) as switch,
        ):
            await switch.identify()

    with pytest.raises(fm.NoAnswer, match=r"no answer from endpoint 0 to command 0001h within 0\.05 s"):
        asyncio.run(ask())


def test_a_peer_that_hangs_up():
    async def rude(reader, writer):
        await reader.readexactly(68)
        writer.close()

    async def ask():
        async with peer(rude) as address, fm.connect(address, dialect=fm.Dialect.CXL2) as switch:
            await switch.identify()

    with pytest.raises(fm.NoAnswer, match="the other end closed the connection"):
        asyncio.run(ask())


def test_a_peer_of_cxl_2_is_alone_and_answers_control_messages_with_tag_0():
    """As CSE, whose packets these are: Get Endpoint ID, Get Message Type Support and Get Endpoint UUID."""
    answers = {2: "00 000000", 5: "00 02 0708", 3: "00 7b9cba2af8414276a04dd5f78ba640ef"}

    async def cse(reader, writer):
        sequence = 0
        while request := await reader.read(68):
            assert request[4] == 0x00
            instance, command = request[5] & 0x1F, request[6]
            opened[0]._client.timeout = 60  # of what is asked later
            if command in answers:  # else it keeps silent
                head = bytes([1, 0, 0, 0xC0 | sequence % 4 << 4, 0, instance, command])
                writer.write((head + bytes.fromhex(answers[command])).ljust(68, b"\0"))
                sequence += 1

    opened = []

    async def ask():
        async with (
            peer(cse) as address,
            fm.Connection.open(address, dialect=fm.Dialect.CXL2, timeout=60) as connection,
        ):
            opened.append(connection)
            connection._client.timeout = 0.05
            assert await connection.endpoint_ids() == [0]
            assert await connection.message_types() == [7, 8]
            assert (await connection.endpoint_uuid()).hex.startswith("7b9cba2a")

    asyncio.run(ask())


def test_a_peer_that_knows_no_control_messages_gets_fm_api_messages():
    async def plain(reader, writer):
        while request := await reader.read(68):
            if request[4] == 0x07:
                tag, opcode = request[6], request[8:10]
                head = bytes([1, 0, 0, 0xC0 | request[3] & 7, 7, 0x01, tag, 0]) + opcode + bytes([18, 0, 0])
                writer.write((head + bytes(4) + IDENTITY).ljust(68, b"\0"))

    async def ask():
        async with peer(plain) as address, fm.Connection.open(address, timeout=60) as connection:
            connection._client.timeout = 0.05
            switch = await connection.endpoint(fm.Switch)
            connection._client.timeout = 60
            return await switch.identify()

    assert asyncio.run(ask()).serial_number == 5


@pytest.mark.parametrize(
    ("header", "says"),
    [
        # category, tag, reserved, opcode; length; return code, vendor status
        (lambda tag: bytes([0x01, tag, 0, 2, 0]) + bytes(7), "says that it is one to 0002h"),
        (lambda tag: bytes([0x00, tag, 0, 1, 0]) + bytes(7), "has category byte 00h"),
        (lambda tag: bytes([0x01, tag, 0, 1, 0, 60, 0, 0]) + bytes(4), r"ends after \d+ bytes of payload"),
    ],
)
def test_a_peer_that_lies(header, says):
    async def liar(reader, writer):
        while request := await reader.readexactly(68):
            kind, tag = request[4], request[6]
            lead = bytes([1, request[2], request[1], 0xC0 | request[3] & 0x37])
            body = b"\x05\x04" if kind == 0 else header(tag)  # control: Unsupported Command
            if kind == 0:
                body = bytes([0x00, request[6], 0x05])
                body = bytes([request[5] & 0x1F]) + body[1:]
            writer.write((lead + bytes([kind]) + body).ljust(68, b"\0"))

    async def ask():
        async with peer(liar) as address, fm.connect(address, dialect=fm.Dialect.STANDARD) as switch:
            await switch.identify()

    with pytest.raises(fm.BadAnswer, match=says):
        asyncio.run(ask())


def test_an_address_that_is_none():
    async def ask():
        async with fm.connect("localhost"):
            pass

    with pytest.raises(fm.AddressError, match=r"'localhost' is no address of an endpoint; tcp:HOST:PORT"):
        asyncio.run(ask())


# -- a server of ours says where -----------------------------------------------------------------------------


class Server:
    """What answers at a control socket."""

    def __init__(self, answer: object) -> None:
        self.line = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.asked: list[object] = []

    def answer(self, line, client):
        self.asked.append(json.loads(line))
        return self.line, True

    def refuse(self, reason):
        return self.line


def test_a_server_of_ours_says_where_its_endpoints_are(address, dialect, tmp_path):
    said = json.dumps(
        {"address": address, "dialect": dialect.value, "endpoints": {"8": "first", "9": "second"}}
    )
    server = Server({"version": 1, "status": 0, "stdout": said, "stderr": ""})

    async def ask():
        async with fm.Connection.open(f"unix:{tmp_path}/control") as connection:
            assert connection.names == {"first": 8, "second": 9}
            assert connection.dialect is dialect
            return await (await connection.endpoint(fm.Switch)).identify()

    with Door(server, tmp_path / "control"):
        assert asyncio.run(ask()).serial_number == 5
    assert server.asked == [{"version": 1, "verb": "fm"}]


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (
            {"status": 1, "stdout": "", "stderr": "softcxl: no FM API endpoint here\n"},
            fm.NoAnswer,
            "no FM API endpoint here$",
        ),
        (b"hello", fm.BadAnswer, "what listens there is no server of SoftCXL"),
        ([], fm.BadAnswer, "what listens there is no server of SoftCXL"),
        (
            {"status": 0, "stdout": "{}", "stderr": ""},
            fm.BadAnswer,
            "what listens there is no server of SoftCXL",
        ),
        (
            {"status": 0, "stdout": '{"address": 1, "dialect": 2}', "stderr": ""},
            fm.BadAnswer,
            "no server of SoftCXL",
        ),
    ],
)
def test_a_server_that_does_not_say(answer, error, says, tmp_path):
    async def ask():
        async with fm.connect(f"unix:{tmp_path}/control"):
            pass

    with (
        Door(Server(answer), tmp_path / "control"),
        pytest.raises(error, match=f"^unix:{tmp_path}/control: .*{says}"),
    ):
        asyncio.run(ask())


def test_no_server_listens(tmp_path):
    async def ask():
        async with fm.connect(f"unix:{tmp_path}/control"):
            pass

    with pytest.raises(fm.NoAnswer, match="no server listens there"):
        asyncio.run(ask())
