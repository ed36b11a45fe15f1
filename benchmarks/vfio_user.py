"""What does a guest's access cost at a vfio-user door, beside the socket that it comes through?

The peer is the same exchange without us: a thread that reads 16 bytes, then 16 more, and sends a ready-made
reply. The rows "with wakes" have the server in another process, as QEMU and SoftCXL are; the others leave the
kernel's wakes out, by handling messages that are all there already.

    python benchmarks/vfio_user.py
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import Any, cast

from softcxl.spec.vfio_user import Command
from softcxl.testing.vfio_client import Client
from softcxl.transport import Bus, Region
from softcxl.transport.vfio_user import Door, Traffic
from softcxl.transport.vfio_user.framing import Channel
from softcxl.transport.vfio_user.session import MAX_MESSAGE, Session

BATCH = 200
ROUNDS = 60
READ = pack("<HHIII", 1, Command.REGION_READ, 32, 0, 0) + pack("<QII", 0x100, 0, 4)
WRITE = pack("<HHIII", 1, Command.REGION_WRITE, 36, 0, 0) + pack("<QII", 0x100, 0, 4) + b"data"
POSTED = pack("<HHIII", 1, Command.REGION_WRITE, 36, 0x10, 0) + pack("<QII", 0x100, 0, 4) + b"data"
RESET = pack("<HHIII", 2, Command.DEVICE_RESET, 16, 0, 0)


class Nothing:
    """A port that does as little as it can."""

    bus: Bus | None = None

    def regions(self) -> list[Region | None]:
        return [Region(0x10000), *[None] * 6, Region(0x1000)]

    def irqs(self) -> list[int]:
        return [0, 1, 0, 0, 0]

    def read(self, region: int, offset: int, size: int) -> bytes:
        return b"\0\0\0\0"

    def write(self, region: int, offset: int, data: bytes) -> None:
        pass

    def reset(self) -> None:
        pass

    def attach(self, bus: Bus) -> None:
        self.bus = bus

    def detach(self) -> None:
        pass


def bare(server: socket.socket, message: bytes, reply: bytes) -> None:
    """The least that any server does for `message`: header with room for descriptors, payload, reply."""
    space = socket.CMSG_SPACE(64)
    while True:
        head = server.recvmsg(16, space, socket.MSG_CMSG_CLOEXEC)[0]
        if not head:
            return
        server.recv(len(message) - 16)
        if reply:
            server.sendall(reply, socket.MSG_NOSIGNAL)


def ready_messages(serve: Callable[[socket.socket], None], greeting: bytes, message: bytes) -> float:
    """Microseconds of CPU a message, when all of them lie in the socket before the server looks."""
    best = []
    for _ in range(ROUNDS):
        client, server = socket.socketpair()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        client.sendall(greeting + message * BATCH)
        client.shutdown(socket.SHUT_WR)
        start = time.thread_time()
        serve(server)
        best.append((time.thread_time() - start) / BATCH * 1e6)
        client.close()
        server.close()
    return statistics.median(best)


class Unplugged:
    """A socket whose messages cost nothing: one VERSION, then `left` reads."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.messages = [(READ[:16], READ[16:])] * 2
        self.messages[0] = (pack("<HHIII", 0, Command.VERSION, 20, 0, 0), bytes(4))
        self.at = 0

    def recvmsg(self, *_: object) -> tuple[bytes, list[Any], int, None]:
        self.left -= 1
        return (self.messages[self.at][0] if self.left >= 0 else b""), [], 0, None

    def recv(self, *_: object) -> bytes:
        payload = self.messages[self.at][1]
        self.at = 1
        return payload

    def sendall(self, *_: object) -> None:
        pass

    def shutdown(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def without_a_socket() -> tuple[float, float]:
    """Microseconds of Python for a read, and those of the calls that stand for the socket."""
    count = 50_000
    ours, theirs = [], []
    for _ in range(5):
        start = time.thread_time()
        session(cast("socket.socket", Unplugged(count)))
        ours.append((time.thread_time() - start) / count * 1e6)
        dummy = Unplugged(count)
        start = time.thread_time()
        for _ in range(count):
            dummy.recvmsg(16, 80, 0)
            dummy.recv(16)
            dummy.sendall(b"", 0)
        theirs.append((time.thread_time() - start) / count * 1e6)
    return statistics.median(ours), statistics.median(theirs)


def session(server: socket.socket) -> None:
    Session(Channel(server, MAX_MESSAGE), Nothing(), Traffic(), 1.0, set()).serve()


def door_process(path: str, spin_us: float, ready: threading.Event, stop: threading.Event) -> None:
    with Door(Nothing(), path, spin_us=spin_us):
        ready.set()
        stop.wait(60)


def bare_process(path: str, spin_us: float, ready: threading.Event, stop: threading.Event) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        ready.set()
        server, _ = listener.accept()
        version = server.recv(4096)
        server.sendall(version[:8] + pack("<II", 1, 0) + version[16:])
        bare(server, READ, pack("<HHIII", 1, 9, 36, 1, 0) + READ[16:] + bytes(4))
        server.close()


def round_trip(target: Callable[..., None], spin_us: float = 0) -> float:
    """Microseconds from sending a read to having its reply, with the server in another process."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "door"))
        ready, stop = context.Event(), context.Event()
        process = context.Process(target=target, args=(path, spin_us, ready, stop))
        process.start()
        ready.wait(10)
        with Client(path) as client, socket.socket(fileno=os.dup(client.fileno())) as raw:
            client.negotiate()
            raw.setblocking(True)
            times = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                for _ in range(BATCH):
                    raw.sendall(READ)
                    raw.recv(36)
                times.append((time.perf_counter() - start) / BATCH * 1e6)
        stop.set()
        process.join(10)
    return statistics.median(times)


def interrupts() -> tuple[float, float]:
    """Microseconds for an interrupt, and for the bare write to an eventfd."""
    port, count = Nothing(), 20000
    with (
        tempfile.TemporaryDirectory() as folder,
        Door(port, Path(folder, "door")) as door,
        Client(door.path) as client,
    ):
        client.negotiate()
        event = os.eventfd(0, os.EFD_NONBLOCK)
        client.set_irqs(1, 0, 1, events=[event])
        assert port.bus is not None
        interrupt = port.bus.interrupt
        start = time.perf_counter()
        for _ in range(count):
            interrupt(1, 0)
        ours = time.perf_counter() - start
        start = time.perf_counter()
        for _ in range(count):
            os.eventfd_write(event, 1)
        theirs = time.perf_counter() - start
        os.close(event)
    return ours / count * 1e6, theirs / count * 1e6


def guest_memory(*, sealed: bool, shared: bool, size: int, count: int) -> float:
    """Microseconds for a read of guest memory by a thread of the device."""
    port = Nothing()
    with (
        tempfile.TemporaryDirectory() as folder,
        Door(port, Path(folder, "door")) as door,
        Client(door.path) as client,
    ):
        client.negotiate()
        client.dma_map(0, 1 << 20, sealed=sealed, shared=shared)
        assert port.bus is not None
        bus, times = port.bus, []

        def work() -> None:
            bus.dma_read(0, size)
            start = time.perf_counter()
            for _ in range(count):
                bus.dma_read(0, size)
            times.append((time.perf_counter() - start) / count * 1e6)

        thread = threading.Thread(target=work)
        thread.start()
        client.serve_until(lambda: not thread.is_alive())
        thread.join()
    return times[0]


def main() -> None:
    greeting = pack("<HHIII", 0, Command.VERSION, 20, 0, 0) + bytes(4)
    reply = pack("<HHIII", 1, 9, 36, 1, 0) + READ[16:] + bytes(4)
    rows: list[tuple[str, float, float]] = []
    for name, message, answer in (
        ("region read", READ, reply),
        ("region write", WRITE, reply[:32]),
        ("region write, posted", POSTED, b""),
    ):
        least = functools.partial(bare, message=message, reply=answer)
        rows.append((name, ready_messages(session, greeting, message), ready_messages(least, b"", message)))
    rows.append(("region read, without a socket", *without_a_socket()))
    theirs = round_trip(bare_process)
    rows.append(("read, with wakes", round_trip(door_process), theirs))
    rows += [
        (f"read, with wakes, spin_us={spin}", round_trip(door_process, spin), theirs)
        for spin in (20, 50, 200)
    ]
    rows.append(("interrupt", *interrupts()))
    copy = guest_memory(sealed=True, shared=True, size=4096, count=20000)
    rows.append(("guest memory 4 KiB, sealed file", copy, copy))
    rows.append(
        (
            "guest memory 4 KiB, other file",
            guest_memory(sealed=False, shared=True, size=4096, count=20000),
            copy,
        )
    )
    rows.append(
        (
            "guest memory 4 KiB, messages",
            guest_memory(sealed=False, shared=False, size=4096, count=1000),
            copy,
        )
    )
    print(f"{'':<36}{'ours µs':>10}{'peer µs':>10}{'ratio':>8}{'beyond µs':>11}")
    for name, ours, peer in rows:
        print(f"{name:<36}{ours:>10.2f}{peer:>10.2f}{ours / peer:>8.2f}{ours - peer:>11.2f}")


if __name__ == "__main__":
    main()
