"""The client against the door: commands, control messages, tags, notifications, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Coroutine
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pytest

from softcxl.spec.mctp.control import BASE_VERSION, CompletionCode
from softcxl.spec.mctp.packet import MessageType
from softcxl.transport.mctp import (
    ConnectionEnded,
    ControlError,
    Dialect,
    MctpClient,
    MessageError,
    NoAnswer,
)
from tests.transport.mctp.interfaces import BACKGROUND, ECHO, FAIL, FILL, LATE, LATE_FAIL, NEVER, TELL


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def connect(door, timeout: float = 60, **how) -> Coroutine[Any, Any, MctpClient]:
    return MctpClient.connect(*door.address, dialect=door.dialect, timeout=timeout, **how)


@pytest.mark.parametrize("size", [0, 1, 50, 51, 52, 64, 114, 115, 116, 1000, 4096, 70_000, 1 << 20])
@pytest.mark.parametrize("which", ["door", "old_door"])
def test_commands_of_any_size_come_back_whole(request, which, size) -> None:
    door = request.getfixturevalue(which)

    async def work() -> None:
        async with await connect(door) as client:
            payload = bytes(range(251)) * (size // 251 + 1)
            answer = await client.command(ECHO, payload[:size])
            assert answer == (0, payload[:size], 0, False)

    run(work())


def test_endpoints_are_told_apart_by_their_ids(door, served) -> None:
    async def work() -> None:
        async with await connect(door) as client:
            assert (await client.command(1)) == (3, b"first", 0x1234, False)
            assert (await client.command(1, eid=9, type=MessageType.CXL_CCI)).payload == b"second"
            assert (await client.command(1, eid=8)).payload == b"first"
            assert [one.name for one in served.opened] == ["first", "second"]
        async with await connect(door, eid=9) as client:
            assert (await client.command(1)).payload == b"second"

    run(work())
    served.wait_closed(3)


def test_what_goes_on_in_the_background_is_said(door, old_door) -> None:
    async def work() -> None:
        for one in (door, old_door):
            async with await connect(one) as client:
                assert (await client.command(BACKGROUND)) == (1, b"", 0, True)

    run(work())


def test_an_answer_that_takes_time_lets_others_by(door, served) -> None:
    async def work() -> None:
        async with await connect(door) as client:
            late = asyncio.create_task(client.command(LATE, b"late", timeout=60))
            never = asyncio.create_task(client.command(NEVER, timeout=60))
            assert (await client.command(ECHO, b"at once")).payload == b"at once"
            assert not late.done()
            served.released.set()
            assert (await late).payload == b"late"
            assert not never.done()
            never.cancel()

    run(work())


def test_more_requests_than_tags_wait_for_their_turn(door) -> None:
    async def work() -> None:
        async with await connect(door) as client:
            answers = await asyncio.gather(
                *(client.command(ECHO, bytes([n]) * n, eid=8 + n % 2) for n in range(100))
            )
            assert [one.payload for one in answers] == [bytes([n]) * n for n in range(100)]

    run(work())


def test_who_waits_for_a_tag_and_gives_up_takes_none_with_him(door, served) -> None:
    async def work() -> None:
        async with await connect(door) as client:
            late = [asyncio.create_task(client.command(LATE, timeout=60)) for _ in range(8)]
            waiting = [asyncio.create_task(client.command(ECHO, timeout=60)) for _ in range(3)]
            await client.command(ECHO, eid=9)  # by now all of them have begun
            waiting[0].cancel()
            with pytest.raises(NoAnswer):
                await client.command(ECHO, timeout=0.001)
            served.released.set()
            assert all(one.code == 0 for one in await asyncio.gather(*late, *waiting[1:]))
            assert waiting[0].cancelled()
            answers = await asyncio.gather(*(client.command(ECHO) for _ in range(16)))
            assert all(one.code == 0 for one in answers)

    run(work())


def test_a_failure_of_the_endpoint_is_internal_error(door, caplog) -> None:
    async def work() -> None:
        async with await connect(door) as client:
            with caplog.at_level(logging.CRITICAL):
                assert (await client.command(FAIL)).code == 4
                assert (await client.command(LATE_FAIL)).code == 4
            assert (await client.command(ECHO)).code == 0

    run(work())


def test_event_notifications_reach_who_asked(door) -> None:
    async def work() -> None:
        told: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()
        async with await connect(door, notify=lambda *what: told.put_nowait(what), source=0x20) as client:
            for n in range(20):
                await client.command(TELL, bytes([n, 0]), eid=9)
                assert await told.get() == (9, 0x0106, bytes([n, 0]))
            assert (await client.command(ECHO, eid=9)).code == 0

    run(work())


def test_control_messages(door) -> None:
    async def work() -> None:
        async with await connect(door) as client:
            assert (await client.endpoint_id()).eid == 8
            assert (await client.endpoint_id(eid=9)).eid == 9
            assert await client.endpoint_ids() == [8, 9]
            assert await client.endpoint_uuid(eid=9) == uuid5(NAMESPACE_OID, "softcxl/second")
            assert await client.message_types() == [7, 8]
            base = await client.versions(BASE_VERSION)
            assert base[-1].pack().hex() == "f1f3f100"
            assert [one.pack().hex() for one in await client.versions(7)] == ["f1f0f000"]
            with pytest.raises(ControlError, match="80h"):
                await client.versions(MessageType.SPDM)
            with pytest.raises(ControlError, match="UNSUPPORTED_COMMAND") as refused:
                await client.control(0x77)
            assert refused.value.code == CompletionCode.UNSUPPORTED_COMMAND

    run(work())


def test_an_endpoint_gets_another_id(door) -> None:
    async def work() -> None:
        async with await connect(door) as client:
            taken = await client.set_endpoint_id(9)
            assert (taken.status.rejected, taken.eid) == (1, 8)
            accepted = await client.set_endpoint_id(0x40)
            assert (accepted.status.rejected, accepted.eid) == (0, 0x40)
            assert (await client.command(1, eid=0x40)).payload == b"first"
            assert (await client.command(1)).payload == b"first"
            with pytest.raises(NoAnswer, match=r"no answer from endpoint 8 to command 0001h within 0\.1 s"):
                await client.command(1, eid=8, timeout=0.1)
            assert await client.endpoint_ids() == [0x40, 9]
            for bad in (0, 7, 255):
                with pytest.raises(ControlError, match="INVALID_DATA"):
                    await client.set_endpoint_id(bad)

    run(work())


def test_the_other_dialect_is_recognised(door, old_door) -> None:
    async def work() -> None:
        async with await MctpClient.connect(*door.address, dialect=Dialect.CXL2) as client:
            with pytest.raises(MessageError, match="category byte 01h, as in the dialect 'standard'"):
                await client.command(ECHO)
        async with await MctpClient.connect(*old_door.address) as client:
            with pytest.raises(MessageError, match="category byte 10h, as in the dialect 'cxl2'"):
                await client.command(ECHO)

    run(work())


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionEnded, match=f"127.0.0.1:{port}: cannot connect"):
        run(MctpClient.connect("127.0.0.1", port))
    with pytest.raises(ConnectionEnded, match="cannot connect: ports are 1 to 65535"):
        run(MctpClient.connect("127.0.0.1", 70000))


def test_requests_end_with_the_connection(door) -> None:
    async def work() -> None:
        client = await connect(door)
        waiting = [asyncio.create_task(client.command(NEVER, timeout=60)) for _ in range(40)]
        await client.command(ECHO, eid=9)
        await asyncio.to_thread(door.close)
        for one in waiting:
            with pytest.raises(ConnectionEnded, match="the other end closed the connection"):
                await one
        with pytest.raises(ConnectionEnded):
            await client.command(ECHO)
        await client.close()
        await client.close()

    run(work())


def reset(connection: socket.socket) -> None:
    """Close, so that the other end is told of a reset, as where something of it was unread."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
    connection.close()


def test_who_closes_with_messages_unread_has_closed_the_connection() -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = await MctpClient.connect(*listener.getsockname())
            asked = asyncio.create_task(client.command(ECHO, timeout=60))
            connection, _ = await asyncio.to_thread(listener.accept)
            await asyncio.to_thread(connection.recv, 1, socket.MSG_PEEK)
            reset(connection)
            for one in (asked, client.command(ECHO)):
                with pytest.raises(ConnectionEnded, match="the other end closed the connection"):
                    await one
            await client.close()

    run(work())


@pytest.mark.parametrize("ends", [False, True], ids=["reset", "ended, then reset"])
def test_who_has_closed_is_found_out_by_writing(ends: bool) -> None:
    """The loop has not heard of it yet; the write fails with ECONNRESET, or EPIPE where the end was told before."""

    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = await MctpClient.connect(*listener.getsockname())
            connection, _ = listener.accept()
            if ends:
                connection.shutdown(socket.SHUT_WR)
            reset(connection)
            with pytest.raises(ConnectionEnded, match="the other end closed the connection"):
                await client.command(ECHO, timeout=60)
            await client.close()

    run(work())


def test_what_is_too_long_fits_in_no_message(door) -> None:
    async def work() -> None:
        async with await connect(door) as client:
            with pytest.raises(MessageError, match="2097152 bytes, at most 2097151"):
                await client.command(ECHO, bytes(1 << 21))
            assert (await client.command(ECHO, bytes((1 << 20) + 1))).code == 0x16
            assert (await client.command(ECHO, bytes((1 << 21) - 1), timeout=60)).code == 0x16
            answer = await client.command(FILL, (1 << 21).to_bytes(4, "little"))
            assert answer.code == 4

    run(work())
