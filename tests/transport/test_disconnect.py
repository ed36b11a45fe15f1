"""A client that goes at any byte leaves nothing behind, and takes nobody along."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path

import pytest

from softcxl.testing.vfio_client import Client, Gone
from softcxl.transport.vfio_user import Door
from softcxl.transport.vfio_user.recording import DescriptorKind, EntryKind, entries
from tests.transport.conftest import holdings
from tests.transport.ports import CONFIG, QemuPort, ScratchPort
from tests.transport.test_recording import RECORDED

LOG = RECORDED / "qemu-11.1-mapped.log"


def commands() -> list[tuple[bytes, tuple[tuple[DescriptorKind, int], ...]]]:
    return [
        (entry.message, entry.descriptors or ())
        for entry in entries(LOG)
        if entry.kind == EntryKind.FROM_CLIENT
    ]


def descriptors(kinds: tuple[tuple[DescriptorKind, int], ...]) -> list[int]:
    fds = []
    for kind, size in kinds:
        fds.append(os.eventfd(0) if kind == DescriptorKind.EVENTFD else os.memfd_create("guest"))
        if kind == DescriptorKind.FILE:
            os.ftruncate(fds[-1], size)
    return fds


def send(client: Client, message: bytes, kinds: tuple[tuple[DescriptorKind, int], ...]) -> None:
    fds = descriptors(kinds)
    try:
        client.send_bytes(message, fds if message else ())
    finally:
        for fd in fds:
            os.close(fd)


def cuts() -> list[int]:
    """Every byte of the first message of each kind, and a few places in all others."""
    seen: set[bytes] = set()
    found: list[int] = []
    at = 0
    for message, _ in commands():
        kind = message[2:4]
        found += (
            range(at, at + len(message)) if kind not in seen else [at, at + 1, at + 16, at + len(message) - 1]
        )
        seen.add(kind)
        at += len(message)
    return [*found, at]


class Visited(QemuPort):
    """Counts the visits that have ended, each of them once."""

    def __init__(self, mappable: bool) -> None:
        super().__init__(mappable=mappable)
        self.gone = threading.Semaphore(0)

    def detach(self) -> None:
        super().detach()
        self.gone.release()


def test_a_real_session_cut_at_every_byte(no_leaks: None, path: Path, tmp_path: Path) -> None:
    """Each visit plays QEMU's session up to one byte and goes. Another door serves its client all the while."""
    script = commands()
    port, bystander = Visited(mappable=True), ScratchPort()
    places = cuts()
    with (
        Door(port, path) as door,
        Door(bystander, tmp_path / "other.sock") as other,
        Client(other.path) as guest,
    ):
        guest.negotiate()
        with Client(path) as client:
            client.negotiate()
        assert port.gone.acquire(timeout=60)
        held = holdings()
        for cut in places:
            with Client(path) as client:
                left = cut
                for message, kinds in script:
                    send(client, message[:left], kinds)
                    left -= len(message)
                    if left <= 0:
                        break
                client.close()
            if cut >= len(script[0][0]):
                assert port.gone.acquire(timeout=60)
            assert guest.read(CONFIG, 0, 2) == b"\x00\x01"
        # The last visit may still be going: one more, that is seen to its end, comes after it.
        with Client(path) as client:
            client.negotiate()
        assert port.gone.acquire(timeout=60)
        port.finish()
        assert holdings() == held
        assert (door.traffic.faults, door.traffic.protocol_errors) == (0, 0)
        assert door.traffic.connections == len(places) + 2
        assert other.traffic.reads == len(places)
    port.close()
    bystander.close()


def test_the_largest_message_cut_short(port: ScratchPort, door: Door, client: Client) -> None:
    client.send_bytes(bytes.fromhex("01000a00 2000100000000000 00000000".replace(" ", "")) + bytes(1 << 19))
    client.close()
    assert port.detached.wait(60)


@pytest.mark.parametrize("reads", [True, False])
def test_a_client_that_goes_with_replies_on_the_way(
    port: ScratchPort, door: Door, client: Client, reads: bool
) -> None:
    for _ in range(100):
        try:
            client.send(9, bytes(12) + (4).to_bytes(4, "little"))
        except Gone:
            break
    if reads:
        client.receive()
    client.close()
    assert port.detached.wait(60)
    with Client(door.path) as next_one:
        next_one.negotiate()


def test_a_door_that_closes_amid_commands_ends_the_connection_and_resets_none(
    port: ScratchPort, path: Path
) -> None:
    """QEMU 11.1 aborts where reading fails, which ECONNRESET does: of a client in the middle of commands, and of one
    that waits to be taken."""
    reached, go_on = threading.Event(), threading.Event()

    def held_up(size: int) -> bytes:
        reached.set()
        go_on.wait(60)
        return bytes(size)

    port.on_read[0x100] = held_up
    with Door(port, path) as door, Client(path) as client, Client(path) as waiting:
        client.negotiate()
        waiting.send_bytes(bytes(16))
        client.send(9, (0x100).to_bytes(8, "little") + bytes(4) + (4).to_bytes(4, "little"))
        assert reached.wait(60)
        for _ in range(10):
            client.send(9, bytes(12) + (4).to_bytes(4, "little"))
        closing = threading.Thread(target=door.close)
        closing.start()
        assert ended(client)  # the door has sent it away, and what it sent is unread
        go_on.set()
        closing.join()
        assert os.read(client.fileno(), 1) == b""
        assert os.read(waiting.fileno(), 1) == b""


def ended(client: Client) -> bool:
    ready = select.poll()
    ready.register(client.fileno(), select.POLLRDHUP)
    return bool(ready.poll(60_000))
