"""Guest memory: shared or not, sealed or not, in the protocol's form or that of the first QEMU."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from softcxl.testing.vfio_client import Client
from softcxl.transport.vfio_user import Door
from tests.transport.conftest import open_files
from tests.transport.ports import BAR, ScratchPort

GUEST = 0x100000
SIZE = 0x4000


def mapped() -> int:
    return Path("/proc/self/maps").read_text().count("/memfd:")


@pytest.fixture(params=["sealed", "shared", "messages", "early QEMU's messages"])
def kind(request: pytest.FixtureRequest, client: Client) -> str:
    client.early_qemu = request.param == "early QEMU's messages"
    return str(request.param)


@pytest.fixture
def guest(client: Client, port: ScratchPort, kind: str) -> bytearray:
    """Memory of the guest, and registers that copy 16 bytes: 0x100 reads them from it, 0x200 writes them to
    it."""
    memory = client.dma_map(GUEST, SIZE, shared=kind in ("sealed", "shared"), sealed=kind == "sealed")

    def fetch(size: int) -> bytes:
        assert port.bus is not None
        return port.bus.dma_read(GUEST + 0x10, size)

    def store(data: bytes) -> None:
        assert port.bus is not None
        port.bus.dma_write(GUEST + 0x20, data)

    port.on_read[0x100] = fetch
    port.on_write[0x200] = store
    return memory.view  # type: ignore[return-value]


def test_a_port_reads_and_writes_guest_memory_inside_a_command(
    client: Client, guest: bytearray, kind: str, door: Door
) -> None:
    guest[0x10:0x20] = bytes(range(1, 17))
    assert client.read(BAR, 0x100, 16) == bytes(range(1, 17))
    client.write(BAR, 0x200, b"sixteen bytes ok")
    assert guest[0x20:0x30] == b"sixteen bytes ok"
    assert guest[0x30:0x40] == bytes(16)
    direct = kind in ("sealed", "shared")
    assert (door.traffic.dma_direct, door.traffic.dma_messages) == ((2, 0) if direct else (0, 2))


def test_a_posted_write_that_uses_guest_memory(client: Client, guest: bytearray) -> None:
    client.write(BAR, 0x200, b"posted", posted=True)
    client.reset()
    assert guest[0x20:0x26] == b"posted"


def test_a_thread_of_the_device_uses_guest_memory(
    client: Client, guest: bytearray, port: ScratchPort
) -> None:
    results: list[bytes] = []

    def work() -> None:
        assert port.bus is not None
        for number in range(50):
            port.bus.dma_write(GUEST, number.to_bytes(4, "little"))
            results.append(port.bus.dma_read(GUEST, 4))

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(100):  # the guest goes on meanwhile
        client.read(BAR, 0x100, 16)
    client.serve_until(lambda: not thread.is_alive())
    thread.join(60)
    assert results == [number.to_bytes(4, "little") for number in range(50)]


def test_a_thread_that_holds_what_the_door_waits_for(
    client: Client, guest: bytearray, port: ScratchPort
) -> None:
    """The usual case of a device with one lock: nobody may wait for the other."""
    lock = threading.Lock()
    entered, answers = threading.Event(), []

    def locked(size: int) -> bytes:
        entered.set()
        with lock:
            return bytes(size)

    def work() -> None:
        with lock:
            client.send(
                9, (0x300).to_bytes(8, "little") + (0).to_bytes(4, "little") + (4).to_bytes(4, "little")
            )
            assert entered.wait(60)
            assert port.bus is not None
            answers.append(port.bus.dma_read(GUEST + 0x10, 4))

    guest[0x10:0x14] = b"1234"
    port.on_read[0x300] = locked
    thread = threading.Thread(target=work)
    thread.start()
    client.serve_until(lambda: not thread.is_alive())
    thread.join(60)
    assert answers == [b"1234"]


def test_commands_that_come_before_the_reply_wait_their_turn(client: Client, port: ScratchPort) -> None:
    client.dma_map(GUEST, SIZE, shared=False)
    client.memory[GUEST].view[0x10:0x14] = b"DMA!"
    assert port.bus is not None
    bus = port.bus
    port.on_read[0x100] = lambda size: bus.dma_read(GUEST + 0x10, size)
    first = client.send(
        9, (0x100).to_bytes(8, "little") + (0).to_bytes(4, "little") + (4).to_bytes(4, "little")
    )
    others = [client.send(13) for _ in range(10)]
    assert client.wait(first).payload[16:] == b"DMA!"
    for other in others:
        client.wait(other).check()
    assert port.calls[-11:] == [("read", BAR, 0x100, 4), *[("reset",)] * 10]


def test_large_transfers_are_split(stranger: Client, port: ScratchPort, door: Door) -> None:
    stranger.negotiate({"max_data_xfer_size": 0x1000})
    memory = stranger.dma_map(GUEST, SIZE, shared=False)
    data = os.urandom(0x2800)

    def copy(_: bytes) -> None:
        assert port.bus is not None
        port.bus.dma_write(GUEST, data)
        assert port.bus.dma_read(GUEST, 0x2800) == data

    port.on_write[0] = copy
    stranger.write(BAR, 0, b"x")
    assert memory.view[:0x2800] == data


def test_an_access_across_ranges(client: Client, port: ScratchPort, door: Door) -> None:
    assert port.bus is not None
    views = [client.dma_map(GUEST + n * 0x1000, 0x1000, sealed=bool(n % 2)).view for n in (2, 0, 1)]
    views = [views[1], views[2], views[0]]
    port.bus.dma_write(GUEST + 0xFFE, b"ab" + b"c" * 0x1000 + b"de")
    assert views[0][-2:] == b"ab"
    assert views[1][:] == b"c" * 0x1000
    assert views[2][:2] == b"de"
    assert port.bus.dma_read(GUEST + 0xFFF, 3) == b"bcc"
    assert door.traffic.dma_direct == 2


@pytest.mark.parametrize(
    ("address", "size"), [(GUEST - 1, 1), (GUEST - 1, 2), (GUEST + SIZE, 1), (GUEST + SIZE - 1, 2), (0, 1)]
)
def test_memory_that_is_not_mapped(client: Client, port: ScratchPort, address: int, size: int) -> None:
    client.dma_map(GUEST, SIZE)
    assert port.bus is not None
    for attempt in (
        lambda: port.bus.dma_read(address, size),
        lambda: port.bus.dma_write(address, bytes(size)),
    ):
        with pytest.raises(OSError) as failure:
            attempt()
        assert failure.value.errno == errno.EFAULT


def test_access_rights(client: Client, port: ScratchPort) -> None:
    client.dma_map(GUEST, SIZE, sealed=True, writeable=False)
    client.dma_map(GUEST + SIZE, SIZE, readable=False)
    assert port.bus is not None
    assert port.bus.dma_read(GUEST, 4) == bytes(4)
    port.bus.dma_write(GUEST + SIZE, b"1234")
    with pytest.raises(PermissionError):
        port.bus.dma_write(GUEST, b"x")
    with pytest.raises(PermissionError):
        port.bus.dma_read(GUEST + SIZE, 1)
    with pytest.raises(PermissionError):
        port.bus.dma_read(GUEST + SIZE - 1, 2)


def test_only_sealed_memory_is_mapped_and_only_when_used(client: Client, port: ScratchPort) -> None:
    client.dma_map(GUEST, SIZE)
    client.dma_map(GUEST + SIZE, SIZE, sealed=True)
    assert port.bus is not None
    before = mapped()
    port.bus.dma_read(GUEST, 4)
    assert mapped() == before
    port.bus.dma_read(GUEST + SIZE, 4)
    assert mapped() == before + 1
    client.dma_unmap(GUEST + SIZE, SIZE)
    assert mapped() == before - 1  # the client's own view is gone too
    with pytest.raises(OSError):
        port.bus.dma_read(GUEST + SIZE, 4)


def test_a_file_that_is_too_short_is_reached_by_messages_and_kills_nobody(
    client: Client, port: ScratchPort, door: Door
) -> None:
    for sealed in (False, True):
        client.dma_map(GUEST, SIZE, length=0x1000, sealed=sealed)
        client.memory[GUEST].view[0x2000:0x2004] = b"live"
        port.on_read[0] = lambda size: port.bus.dma_read(GUEST + 0x2000, size)  # type: ignore[union-attr]
        port.on_write[0] = lambda data: port.bus.dma_write(GUEST + 0x2000, data)  # type: ignore[union-attr]
        assert client.read(BAR, 0, 4) == b"live"
        client.write(BAR, 0, b"LIVE")
        assert client.memory[GUEST].view[0x2000:0x2004] == b"LIVE"
        assert os.fstat(client.memory[GUEST].fd).st_size == 0x1000
        client.dma_unmap(GUEST, SIZE)
    assert door.traffic.dma_messages == 4


def test_a_descriptor_that_cannot_be_used_is_let_go(client: Client, port: ScratchPort) -> None:
    held = open_files()
    reader, writer = os.pipe()
    request = b"".join(
        part.to_bytes(size, "little") for part, size in ((32, 4), (3, 4), (0, 8), (GUEST, 8), (SIZE, 8))
    )
    client.call(2, request, [reader])
    os.close(reader)
    os.close(writer)
    assert open_files() == held


def test_unmap_all(client: Client, port: ScratchPort) -> None:
    for n in range(5):
        client.dma_map(GUEST + n * SIZE, SIZE, sealed=True)
    assert port.bus is not None
    port.bus.dma_read(GUEST, 4)
    client.dma_unmap_all()
    with pytest.raises(OSError):
        port.bus.dma_read(GUEST, 4)
    client.dma_map(GUEST, SIZE)


@pytest.mark.parametrize(
    ("address", "size"), [(GUEST, 0x1000), (GUEST - 0x1000, 0x2000), (GUEST + 0x3000, 0x9000)]
)
def test_overlaps_are_refused(client: Client, address: int, size: int) -> None:
    client.dma_map(GUEST, SIZE)
    with pytest.raises(FileExistsError):
        client.dma_map(address, size)
    client.dma_map(GUEST - 0x1000, 0x1000)
    client.dma_map(GUEST + SIZE, 0x1000)


def test_the_top_of_the_address_space(client: Client, port: ScratchPort) -> None:
    client.dma_map((1 << 64) - 0x1000, 0x1000)
    assert port.bus is not None
    assert port.bus.dma_read((1 << 64) - 4, 4) == bytes(4)


def test_a_client_that_does_not_answer(port: ScratchPort, path: Path) -> None:
    with Door(port, path, dma_timeout=0.05), Client(path, answers=False) as client:
        client.negotiate()
        client.dma_map(GUEST, SIZE, shared=False)
        errors: list[int | None] = []

        def attempt(size: int) -> bytes:
            assert port.bus is not None
            try:
                return port.bus.dma_read(GUEST, size)
            except OSError as error:
                errors.append(error.errno)
                return b"\xff" * size

        port.on_read[0] = attempt
        assert client.read(BAR, 0, 4) == b"\xff" * 4
        assert errors == [errno.ETIMEDOUT]
        # An answer that comes too late is dropped.
        client.answers = True
        for message in client.unanswered:
            client.answer(message)
        client.memory[GUEST].view[:4] = b"late"
        while (found := client.read(BAR, 0, 4)) == b"\xff" * 4:
            pass  # this machine is busy: it took too long again
        assert found == b"late"


@pytest.mark.parametrize("error", [errno.EFAULT, errno.ENODEV, 0])
def test_a_client_that_refuses(client: Client, port: ScratchPort, error: int) -> None:
    client.dma_map(GUEST, SIZE, shared=False)
    client.answer = lambda message: client.reply(message, b"", error or errno.EIO)  # type: ignore[method-assign]
    errors: list[int | None] = []

    def attempt(data: bytes) -> None:
        assert port.bus is not None
        try:
            port.bus.dma_write(GUEST, data)
        except OSError as refusal:
            errors.append(refusal.errno)

    port.on_write[0] = attempt
    client.write(BAR, 0, b"x")
    assert errors == [error or errno.EIO]


def test_a_client_that_goes_while_it_is_asked(port: ScratchPort, path: Path) -> None:
    with Door(port, path) as door:
        with Client(path, answers=False) as client:
            client.negotiate()
            client.dma_map(GUEST, SIZE, shared=False)
            bus = port.bus
            assert bus is not None
            errors: list[int | None] = []

            def attempt() -> None:
                try:
                    bus.dma_read(GUEST, 4)
                except OSError as error:
                    errors.append(error.errno)

            thread = threading.Thread(target=attempt)
            thread.start()
            client.serve_until(lambda: bool(client.unanswered))
        thread.join(60)
        assert errors == [errno.ENOTCONN]
        assert port.detached.wait(60)
        with pytest.raises(OSError):  # nor does the old bus work any more
            bus.dma_read(GUEST, 4)
        bus.interrupt(1, 0)
        assert door.traffic.interrupts_dropped == 1
