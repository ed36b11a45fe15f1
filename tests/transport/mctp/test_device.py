"""Devices and switches behind a door: their interfaces, events, faults and background commands over MCTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from softcxl.device.cci import Later, Reply
from softcxl.device.type3 import Type3
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import DramEvent, EventHeader
from softcxl.switch.physical import PhysicalSwitch
from softcxl.transport.mctp import CommandInterface, Endpoint, MctpClient, MctpTcpDoor, NoAnswer, Send

IDENTIFY, IDENTIFY_MEMORY_DEVICE, GET_HEALTH = 0x0001, 0x4000, 0x4200
SET_MCTP_POLICY, EVENT_NOTIFICATION = 0x0105, 0x0106
IDENTIFY_SWITCH, BIND = 0x5100, 0x5201


class Managed:
    """A device's interface, with its lock."""

    def __init__(self, device: Type3, send: Send, closed: threading.Event) -> None:
        self._lock, self._closed = device.lock, closed
        self._interface = device.management(lambda told: send(EVENT_NOTIFICATION, told.pack()))
        self.payload_max = self._interface.payload_max

    def execute(self, opcode: int, payload: bytes) -> Reply:
        with self._lock:
            return self._locked(self._interface.execute(opcode, payload))

    def _locked(self, reply: Reply) -> Reply:
        if not isinstance(reply, Later):
            return reply
        held = reply

        def run() -> Reply:
            with self._lock:
                return self._locked(held.run())

        return replace(held, run=run)

    def close(self) -> None:
        self._interface.close()
        self._closed.set()


def serve(
    open_: Callable[[Send], CommandInterface], work: Callable[[MctpClient, list[bytes]], Awaitable[None]]
) -> None:
    """Run `work` with a client, and the notifications that it has had."""
    told: list[bytes] = []

    async def visit(address: tuple[str, int]) -> None:
        async with await MctpClient.connect(
            *address, timeout=300, notify=lambda eid, opcode, payload: told.append(payload)
        ) as client:
            await work(client, told)

    with MctpTcpDoor({8: Endpoint("here", open_)}, port=0) as door:
        asyncio.run(visit(door.address))


@pytest.fixture
def device():
    device = Type3("mem0", volatile=256 << 20, serial=0xC0FFEE)
    yield device
    device.close()


@pytest.fixture
def closed() -> threading.Event:
    return threading.Event()


def test_a_device_answers_and_tells_of_events(device, closed) -> None:
    async def work(client: MctpClient, told: list[bytes]) -> None:
        answer = await client.command(IDENTIFY)
        assert (answer.code, answer.payload[8:16]) == (0, (0xC0FFEE).to_bytes(8, "little"))
        warning = (1 << EventLog.WARNING).to_bytes(2, "little")
        assert (await client.command(SET_MCTP_POLICY, warning)).payload == warning
        device.record_event(EventLog.INFORMATIONAL, DramEvent(header=EventHeader()))
        device.record_event(EventLog.WARNING, DramEvent(header=EventHeader()))
        await client.command(IDENTIFY)  # what was told before is here before
        assert told == [warning]

    serve(lambda send: Managed(device, send, closed), work)
    assert closed.wait(300)
    device.record_event(EventLog.WARNING, DramEvent(header=EventHeader()))


def test_commands_that_are_late_or_never_done(device, closed) -> None:
    device.inject.delay(IDENTIFY_MEMORY_DEVICE, 0.01, times=1)
    device.inject.hang(GET_HEALTH, times=1)

    async def work(client: MctpClient, told: list[bytes]) -> None:
        late = asyncio.create_task(client.command(IDENTIFY_MEMORY_DEVICE))
        hangs = asyncio.create_task(client.command(GET_HEALTH, timeout=0.05))
        assert (await client.command(0x0002)).code == 0
        assert (await late).code == 0
        with pytest.raises(NoAnswer, match="no answer from endpoint 0 to command 4200h within"):
            await hangs
        assert (await client.command(GET_HEALTH)).code == 0

    serve(lambda send: Managed(device, send, closed), work)


def test_a_switch_binds_in_the_background(device) -> None:
    switch = PhysicalSwitch("rack", ports=2, virtual=[("left", 2)], serial=7)
    switch.ports[0].insert(device)

    async def work(client: MctpClient, told: list[bytes]) -> None:
        done = (1 << 15).to_bytes(2, "little")
        assert (await client.command(SET_MCTP_POLICY, done)).payload == done
        answer = await client.command(BIND, bytes([0, 1, 0, 0, 0xFF, 0xFF]))
        assert (answer.code, answer.background) == (ReturnCode.BACKGROUND_STARTED, True)
        while not told:
            await client.command(IDENTIFY_SWITCH)
        assert told == [done]
        assert (await client.command(IDENTIFY_SWITCH)).payload[0x46:0x48] == b"\x01\x00"

    serve(lambda send: switch.management(lambda told: send(EVENT_NOTIFICATION, told.pack())), work)
    assert switch.virtual[0].vppbs[1].port is switch.ports[0]
