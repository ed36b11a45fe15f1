"""Messages that are wrong: what gets an errno and goes on, and what ends that connection and nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from struct import pack

import pytest

from softcxl.spec.vfio_user import Command
from softcxl.testing.vfio_client import Client, Gone
from softcxl.transport.vfio_user import Door
from tests.transport.conftest import open_files
from tests.transport.ports import BAR, BAR_SIZE, CONFIG, READ_ONLY, WRITE_ONLY, ScratchPort

MAX = 16 + 16 + (1 << 20)

REFUSED = {
    "info short": (Command.DEVICE_GET_INFO, bytes(15), errno.EINVAL),
    "info long": (Command.DEVICE_GET_INFO, pack("<IIIII", 16, 0, 0, 0, 0), errno.EINVAL),
    "info argsz": (Command.DEVICE_GET_INFO, pack("<IIII", 15, 0, 0, 0), errno.EINVAL),
    "region info short": (Command.DEVICE_GET_REGION_INFO, bytes(31), errno.EINVAL),
    "region info argsz": (Command.DEVICE_GET_REGION_INFO, pack("<IIIIQQ", 31, 0, 0, 0, 0, 0), errno.EINVAL),
    "region info index": (Command.DEVICE_GET_REGION_INFO, pack("<IIIIQQ", 32, 0, 9, 0, 0, 0), errno.EINVAL),
    "irq info short": (Command.DEVICE_GET_IRQ_INFO, bytes(12), errno.EINVAL),
    "irq info argsz": (Command.DEVICE_GET_IRQ_INFO, pack("<IIII", 12, 0, 0, 0), errno.EINVAL),
    "irq info index": (Command.DEVICE_GET_IRQ_INFO, pack("<IIII", 16, 0, 5, 0), errno.EINVAL),
    "reset with payload": (Command.DEVICE_RESET, b"x", errno.EINVAL),
    "read short": (Command.REGION_READ, bytes(15), errno.EINVAL),
    "read long": (Command.REGION_READ, pack("<QII", 0, BAR, 4) + b"data", errno.EINVAL),
    "read nothing": (Command.REGION_READ, pack("<QII", 0, BAR, 0), errno.EINVAL),
    "read over the end": (Command.REGION_READ, pack("<QII", BAR_SIZE - 3, BAR, 4), errno.EINVAL),
    "read far": (Command.REGION_READ, pack("<QII", (1 << 64) - 4, BAR, 4), errno.EINVAL),
    "read too much": (Command.REGION_READ, pack("<QII", 0, BAR, 0xFFFFFFFF), errno.EINVAL),
    "read no such region": (Command.REGION_READ, pack("<QII", 0, 9, 4), errno.EINVAL),
    "read region of no size": (Command.REGION_READ, pack("<QII", 0, 1, 4), errno.EINVAL),
    "read write-only": (Command.REGION_READ, pack("<QII", 0, WRITE_ONLY, 4), errno.EACCES),
    "write short": (Command.REGION_WRITE, bytes(15), errno.EINVAL),
    "write nothing": (Command.REGION_WRITE, pack("<QII", 0, BAR, 0), errno.EINVAL),
    "write less than counted": (Command.REGION_WRITE, pack("<QII", 0, BAR, 4) + b"abc", errno.EINVAL),
    "write more than counted": (Command.REGION_WRITE, pack("<QII", 0, BAR, 4) + b"abcde", errno.EINVAL),
    "write over the end": (Command.REGION_WRITE, pack("<QII", BAR_SIZE - 3, BAR, 4) + b"abcd", errno.EINVAL),
    "write far": (Command.REGION_WRITE, pack("<QII", (1 << 64) - 4, BAR, 4) + b"abcd", errno.EINVAL),
    "write no such region": (Command.REGION_WRITE, pack("<QII", 0, 0xFFFFFFFF, 4) + b"abcd", errno.EINVAL),
    "write read-only": (Command.REGION_WRITE, pack("<QII", 0, READ_ONLY, 4) + b"abcd", errno.EACCES),
    "multi short": (Command.REGION_WRITE_MULTI, bytes(7), errno.EINVAL),
    "multi without writes": (Command.REGION_WRITE_MULTI, pack("<Q", 1), errno.EINVAL),
    "multi with too many": (Command.REGION_WRITE_MULTI, pack("<Q", 0) + bytes(24), errno.EINVAL),
    "multi absurd count": (Command.REGION_WRITE_MULTI, pack("<Q", (1 << 64) - 1), errno.EINVAL),
    "multi wide write": (Command.REGION_WRITE_MULTI, pack("<QQII8s", 1, 0, BAR, 9, b""), errno.EINVAL),
    "map short": (Command.DMA_MAP, bytes(31), errno.EINVAL),
    "map long": (Command.DMA_MAP, pack("<IIQQQ", 32, 3, 0, 0, 0x1000) + b"x", errno.EINVAL),
    "map argsz": (Command.DMA_MAP, pack("<IIQQQ", 31, 3, 0, 0, 0x1000), errno.EINVAL),
    "map flags": (Command.DMA_MAP, pack("<IIQQQ", 32, 7, 0, 0, 0x1000), errno.EINVAL),
    "map nothing": (Command.DMA_MAP, pack("<IIQQQ", 32, 3, 0, 0, 0), errno.EINVAL),
    "map odd size": (Command.DMA_MAP, pack("<IIQQQ", 32, 3, 0, 0, 0x1001), errno.EINVAL),
    "map odd address": (Command.DMA_MAP, pack("<IIQQQ", 32, 3, 0, 0x800, 0x1000), errno.EINVAL),
    "map past the end": (Command.DMA_MAP, pack("<IIQQQ", 32, 3, 0, 0xFFFFFFFFFFFFF000, 0x2000), errno.EINVAL),
    "unmap short": (Command.DMA_UNMAP, bytes(23), errno.EINVAL),
    "unmap argsz": (Command.DMA_UNMAP, pack("<IIQQ", 23, 0, 0, 0x1000), errno.EINVAL),
    "unmap unknown": (Command.DMA_UNMAP, pack("<IIQQ", 24, 0, 0, 0x1000), errno.ENOENT),
    "unmap flags": (Command.DMA_UNMAP, pack("<IIQQ", 24, 4, 0, 0x1000), errno.EINVAL),
    "unmap with dirty pages": (Command.DMA_UNMAP, pack("<IIQQ", 24, 1, 0, 0x1000), errno.ENOTSUP),
    "unmap all of a range": (Command.DMA_UNMAP, pack("<IIQQ", 24, 2, 0, 0x1000), errno.EINVAL),
    "irqs short": (Command.DEVICE_SET_IRQS, bytes(19), errno.EINVAL),
    "irqs argsz small": (Command.DEVICE_SET_IRQS, pack("<IIIII", 19, 0x21, 1, 0, 1), errno.EINVAL),
    "irqs argsz large": (Command.DEVICE_SET_IRQS, pack("<IIIII", 21, 0x21, 1, 0, 1), errno.EINVAL),
    "irqs no data kind": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x20, 1, 0, 1), errno.EINVAL),
    "irqs two data kinds": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x23, 1, 0, 1), errno.EINVAL),
    "irqs no action": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x01, 1, 0, 1), errno.EINVAL),
    "irqs two actions": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x31, 1, 0, 1), errno.EINVAL),
    "irqs flags": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x61, 1, 0, 1), errno.EINVAL),
    "irqs no such type": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x21, 5, 0, 1), errno.EINVAL),
    "irqs beyond the last": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x21, 1, 4, 1), errno.EINVAL),
    "irqs too many": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x21, 1, 0, 5), errno.EINVAL),
    "irqs wrapping": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x21, 1, 2, 0xFFFFFFFF), errno.EINVAL),
    "irqs none from 1": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x21, 1, 1, 0), errno.EINVAL),
    "irqs none with events": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x24, 1, 0, 0), errno.EINVAL),
    "irqs mask none": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x09, 1, 0, 0), errno.EINVAL),
    "irqs few booleans": (Command.DEVICE_SET_IRQS, pack("<IIIIIB", 21, 0x22, 1, 0, 2, 1), errno.EINVAL),
    "irqs mask an error": (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x09, 4, 0, 1), errno.EINVAL),
}  # fmt: skip


@pytest.mark.parametrize(("command", "payload", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_and_the_connection_goes_on(
    client: Client, port: ScratchPort, command: Command, payload: bytes, error: int
) -> None:
    message = client.wait(client.send(command, payload))
    assert (message.header.flags.error, message.header.error, message.payload) == (True, error, b"")
    client.reset()
    assert port.calls == [("attach",), ("reset",)]


@pytest.fixture
def events() -> Iterator[list[int]]:
    events = [os.eventfd(0) for _ in range(20)]
    yield events
    for event in events:
        os.close(event)


@pytest.mark.parametrize(
    ("command", "payload", "count"),
    [
        (Command.DEVICE_GET_INFO, pack("<IIII", 16, 0, 0, 0), 1),
        (Command.REGION_READ, pack("<QII", 0, CONFIG, 4), 1),
        (Command.DEVICE_RESET, b"", 2),
        (Command.DMA_MAP, pack("<IIQQQ", 32, 3, 0, 0x1000, 0x1000), 2),
        (Command.DMA_MAP, pack("<IIQQQ", 32, 3, 0x800, 0x1000, 0x1000), 1),
        (Command.DMA_MAP, pack("<IIQQQ", 32, 3, (1 << 63) - 0x1000, 0x1000, 0x1000), 1),
        (Command.DMA_UNMAP, pack("<IIQQ", 24, 0, 0, 0x1000), 1),
        (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x21, 1, 0, 1), 1),
        (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x24, 2, 0, 1), 2),
        (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x24, 2, 0, 2), 1),
        (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x24, 2, 0, 17), 17),
        (Command.DEVICE_SET_IRQS, pack("<IIIII", 20, 0x24, 2, 0, 20), 20),
        (0x7FFF, b"", 3),
    ],
)
def test_descriptors_out_of_place_are_refused_and_closed(
    client: Client, events: list[int], command: int, payload: bytes, count: int
) -> None:
    held = open_files()
    with pytest.raises(OSError) as refusal:
        client.call(command, payload, events[:count])
    assert refusal.value.errno == (errno.ENOSYS if command == 0x7FFF else errno.EINVAL)
    client.reset()
    assert open_files() == held


def test_a_descriptor_that_is_no_eventfd(client: Client, port: ScratchPort) -> None:
    with pytest.raises(OSError) as refusal:
        client.set_irqs(1, 0, 1, events=[port.fd])
    assert refusal.value.errno == errno.EINVAL


def test_descriptors_with_the_payload_are_dropped(client: Client, events: list[int]) -> None:
    message = pack("<HHIII", 1, Command.REGION_READ, 32, 0, 0) + pack("<QII", 0, CONFIG, 4)
    held = open_files()
    client.send_bytes(message[:16])
    client.send_bytes(message[16:], events[:3])
    assert client.receive().check() == message[16:] + bytes(range(4))
    assert open_files() == held


def test_a_message_byte_by_byte_with_descriptors_on_the_way(client: Client, events: list[int]) -> None:
    message = pack("<HHIII", 1, Command.DEVICE_SET_IRQS, 36, 0, 0) + pack("<IIIII", 20, 0x24, 1, 0, 2)
    for position in range(len(message)):
        client.send_bytes(
            message[position : position + 1], events[position : position + 1] if position < 2 else ()
        )
    client.receive().check()
    for position in range(len(message)):  # 16 of them are too many for two vectors, and fit
        client.send_bytes(message[position : position + 1], events[:1] if position < 16 else ())
    with pytest.raises(OSError):
        client.receive().check()
    for position in range(len(message)):  # these do not even fit
        client.send_bytes(message[position : position + 1], events[:2] if position < 16 else ())
    with pytest.raises(OSError):
        client.receive().check()
    client.reset()


@pytest.mark.parametrize(
    "head",
    [
        pack("<HHIII", 1, Command.DEVICE_RESET, 0, 0, 0),
        pack("<HHIII", 1, Command.DEVICE_RESET, 15, 0, 0),
        pack("<HHIII", 1, Command.REGION_READ, MAX + 1, 0, 0),
        pack("<HHIII", 1, Command.REGION_READ, 0xFFFFFFFF, 0, 0),
        pack("<HHIII", 1, Command.DEVICE_RESET, 16, 2, 0),
        pack("<HHIII", 1, Command.DEVICE_RESET, 16, 0xF, 0),
        b"\xff" * 16,
    ],
)
def test_a_header_that_makes_no_sense_ends_that_connection_only(
    client: Client, port: ScratchPort, door: Door, head: bytes
) -> None:
    client.send_bytes(head)
    assert client.is_gone()
    assert port.detached.wait(60)
    assert door.traffic.protocol_errors == 1
    with Client(door.path) as next_one:
        next_one.negotiate()
        assert next_one.read(CONFIG, 0, 2) == b"\x00\x01"


def test_replies_that_nobody_asked_for_are_dropped(client: Client) -> None:
    client.send_bytes(pack("<HHIII", 1, Command.DMA_READ, 20, 1, 0) + b"what")
    event = os.eventfd(0)
    client.send_bytes(pack("<HHIII", 2, Command.REGION_READ, 16, 0x21, 5), [event])
    os.close(event)
    client.reset()


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) - 1])
def test_the_largest_messages(client: Client, port: ScratchPort, size: int) -> None:
    # 1 MiB is more than any region here has: refused, but read to its end.
    with pytest.raises(OSError) as refusal:
        client.write(BAR, 0, bytes(size))
    assert refusal.value.errno == errno.EINVAL
    data = os.urandom(BAR_SIZE)
    client.write(BAR, 0, data)
    assert client.read(BAR, 0, BAR_SIZE) == data


@pytest.mark.parametrize("failure", [ValueError("a bug"), OSError(errno.ENOENT, "a bug"), KeyError("a bug")])
def test_a_port_that_raises_is_answered_with_eio_and_logged_once(
    client: Client, port: ScratchPort, door: Door, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    def fail(_: object) -> bytes:
        raise failure

    port.on_read[0] = fail
    port.on_write[0] = fail  # type: ignore[assignment]
    port.reset = lambda: fail(0)  # type: ignore[method-assign,assignment]
    for _ in range(2):
        for attempt in (lambda: client.read(BAR, 0, 4), lambda: client.write(BAR, 0, b"1234"), client.reset):
            with pytest.raises(OSError) as refusal:
                attempt()
            assert refusal.value.errno == errno.EIO
    client.write(BAR, 0, b"1234", posted=True)
    assert client.read(CONFIG, 0, 1) == b"\0"
    assert door.traffic.faults == 7
    logged = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(logged) == 3
    assert all(record.exc_info for record in logged)


def test_a_port_that_gives_too_few_bytes(client: Client, port: ScratchPort, door: Door) -> None:
    port.on_read[0] = lambda size: bytes(size - 1)
    with pytest.raises(OSError) as refusal:
        client.read(BAR, 0, 4)
    assert refusal.value.errno == errno.EIO


def test_a_refused_client_cannot_go_on(stranger: Client) -> None:
    stranger.send(Command.DEVICE_RESET)
    assert stranger.is_gone()
    with pytest.raises(Gone):
        stranger.receive()
