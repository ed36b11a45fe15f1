"""A function that is plain memory, for doors to serve."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from softcxl.transport import Bus, Region

BAR, READ_ONLY, WRITE_ONLY, CONFIG = 0, 2, 4, 7
BAR_SIZE = 0x10000
SPARSE = ((0x4000, 0x4000), (0xC000, 0x1000))


class ScratchPort:
    """Region 0: 64 KiB, two areas mappable; 2: 4 KiB to read, all mappable; 4: 4 KiB to write; 7: config
    space.

    `on_read` and `on_write` replace single offsets of region 0 by functions. `calls` is what the door asked
    for.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("bar0", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, BAR_SIZE)
        self.fd2 = os.memfd_create("bar2", os.MFD_CLOEXEC)
        os.ftruncate(self.fd2, 0x1000)
        self.config = bytearray(range(256)) + bytearray(0x1000 - 256)
        self.written = bytearray(0x1000)
        self.counts = [1, 4, 32, 0, 1]
        self.on_read: dict[int, Callable[[int], bytes]] = {}
        self.on_write: dict[int, Callable[[bytes], None]] = {}
        self.calls: list[tuple[object, ...]] = []
        self.bus: Bus | None = None
        self.attached = threading.Event()
        self.detached = threading.Event()

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.fd2)

    def regions(self) -> list[Region | None]:
        return [
            Region(BAR_SIZE, True, True, SPARSE, self.fd),
            None,
            Region(0x1000, True, False, ((0, 0x1000),), self.fd2),
            None,
            Region(0x1000, False, True),
            None,
            None,
            Region(0x1000),
        ]

    def irqs(self) -> list[int]:
        return self.counts

    def read(self, region: int, offset: int, size: int) -> bytes:
        self.calls.append(("read", region, offset, size))
        if region == CONFIG:
            return bytes(self.config[offset : offset + size])
        if region == BAR and offset in self.on_read:
            return self.on_read[offset](size)
        return os.pread(self.fd if region == BAR else self.fd2, size, offset)

    def write(self, region: int, offset: int, data: bytes) -> None:
        self.calls.append(("write", region, offset, bytes(data)))
        if region == CONFIG:
            self.config[offset : offset + len(data)] = data
        elif region == WRITE_ONLY:
            self.written[offset : offset + len(data)] = data
        elif offset in self.on_write:
            self.on_write[offset](data)
        else:
            os.pwrite(self.fd, data, offset)

    def reset(self) -> None:
        self.calls.append(("reset",))

    def attach(self, bus: Bus) -> None:
        self.bus = bus
        self.calls.append(("attach",))
        self.attached.set()

    def detach(self) -> None:
        self.bus = None
        self.calls.append(("detach",))
        self.detached.set()


class QemuPort(ScratchPort):
    """What QEMU takes for a PCI function: one 64 KiB BAR, mappable in part or not at all, and one MSI vector.

    A write to 0x10 of the BAR fires it, one to 0x18 makes a thread use guest memory.
    """

    def __init__(self, *, mappable: bool) -> None:
        super().__init__()
        self.mappable = mappable
        self.counts = [0, 1, 0, 0, 1]
        self.config = bytearray(0x1000)
        self.config[0x00:0x10] = bytes.fromhex("f41a0010 0000 1000 00 00 8005 00000000".replace(" ", ""))
        self.config[0x34] = 0x40
        self.config[0x40:0x44] = bytes.fromhex("05008000")
        self.on_write[0x10] = lambda _: self.bus.interrupt(1, 0)  # type: ignore[union-attr]
        self.on_write[0x18] = lambda _: self.start()
        self.fetched = b""
        self.threads: list[threading.Thread] = []

    def start(self) -> None:
        if self.mappable:
            self.work()  # its memory is mapped, too: nobody has to answer
            return
        # Inside the command QEMU would not answer: the guest's access holds its big lock.
        thread = threading.Thread(target=self.work)
        thread.start()
        self.threads.append(thread)

    def finish(self) -> None:
        """Wait until all work has ended."""
        for thread in self.threads:
            thread.join(60)

    def work(self) -> None:
        bus = self.bus
        if bus is not None:
            try:
                bus.dma_write(0x1000000, b"sixteen bytes ok")
                self.fetched = bus.dma_read(0x1000004, 8)
            except OSError:
                pass  # the guest has gone

    def regions(self) -> list[Region | None]:
        bar = Region(BAR_SIZE, True, True, SPARSE, self.fd) if self.mappable else Region(BAR_SIZE)
        return [bar, *[None] * 6, Region(0x1000)]

    def write(self, region: int, offset: int, data: bytes) -> None:
        if region == CONFIG and not (offset == 0x04 or 0x40 <= offset < 0x50):
            # BARs are the server's to size: QEMU does not emulate them.
            mask = 0xFFFF0000 if offset == 0x10 else 0
            data = (int.from_bytes(data, "little") & mask).to_bytes(len(data), "little")
            if not 0x10 <= offset < 0x28:
                return
        super().write(region, offset, data)
