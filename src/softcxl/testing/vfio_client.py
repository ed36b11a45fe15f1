"""A small vfio-user client: what QEMU is to a door, in one thread and without a guest.

For tests of doors and of functions behind them, for fuzzers, and to try a device by hand. Everything waits at
most `timeout` seconds and then raises `TimeoutError`.

>>> from softcxl.testing.vfio_client import Client
>>> with Client("mem0.sock") as client:                                       # doctest: +SKIP
...     client.negotiate()
...     guest = client.dma_map(0x100000, 0x10000)
...     vendor = int.from_bytes(client.read(7, 0, 2), "little")
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from softcxl.spec import vfio_user as spec
from softcxl.spec.vfio_user import Command
from softcxl.testing.vfio_link import Gone, Link, Message, close_all
from softcxl.transport.vfio_user.recording import DescriptorKind, EntryKind, entries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "QEMU_CAPABILITIES",
    "Client",
    "Gone",
    "GuestMemory",
    "Link",
    "Message",
    "RegionDescription",
    "Replay",
    "replay",
]

QEMU_CAPABILITIES: dict[str, Any] = {
    "migration": {"pgsize": 4096, "max_bitmap_size": 256 << 20},
    "max_msg_fds": 16,
    "max_data_xfer_size": 1 << 20,
    "pgsizes": 4096,
    "max_dma_maps": 65535,
    "write_multiple": True,
}
"""What QEMU 11.1 proposes."""


@dataclass(frozen=True, slots=True)
class RegionDescription:
    """What the server says of a region; `fd` is the caller's to close, None where there is none."""

    info: spec.RegionInfo
    areas: tuple[tuple[int, int], ...]
    fd: int | None


class GuestMemory:
    """Memory of the pretended guest at DMA address `address`: `view` is its bytes. `fd` is -1 where not
    shared."""

    def __init__(self, address: int, size: int, *, shared: bool, sealed: bool, length: int | None) -> None:
        self.address = address
        self.size = size
        self.fd = -1
        if shared:
            self.fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self.fd, size if length is None else length)
            if sealed:
                fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.view = mmap.mmap(self.fd if length is None else -1, size)

    def close(self) -> None:
        """Let go of it."""
        self.view.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Client(Link):
    """A connection to the door at `path`, with the memory of a pretended guest.

    Commands of the server (DMA reads and writes) are answered from the memory mapped by `dma_map` whenever
    the client waits for something; `answers` False leaves them in `unanswered`. `early_qemu` chooses QEMU
    10.1's form of these messages instead of the protocol's.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 30.0,
        early_qemu: bool = False,
        answers: bool = True,
    ) -> None:
        super().__init__(path, timeout=timeout)
        self.early_qemu = early_qemu
        self.answers = answers
        self.memory: dict[int, GuestMemory] = {}

    def close(self) -> None:
        """Leave, and let go of all memory and descriptors."""
        super().close()
        for memory in self.memory.values():
            memory.close()
        self.memory.clear()

    def answer(self, message: Message) -> None:
        """Answer a DMA command from `memory`, or keep it in `unanswered`."""
        if not self.answers:
            super().answer(message)
            return
        write = message.header.command == Command.DMA_WRITE
        # In both forms the address is first and the count's lower half second.
        request = spec.EarlyQemuDmaAccess.unpack_from(message.payload)
        count = request.count
        start = spec.EarlyQemuDmaAccess.__layout__.size if self.early_qemu else spec.DmaAccess.__layout__.size
        memory = self._find(request.address, count)
        if memory is None:
            self.reply(message, b"", errno.EFAULT)
            return
        at = request.address - memory.address
        if write:
            memory.view[at : at + count] = message.payload[start : start + count]
            self.reply(message, b"" if self.early_qemu else message.payload[:start])
            return
        data = memory.view[at : at + count]
        head = message.payload[:start]
        self.reply(message, head + data + (bytes(4) if self.early_qemu else b""))

    def _find(self, address: int, count: int) -> GuestMemory | None:
        for memory in self.memory.values():
            if memory.address <= address and address + count <= memory.address + memory.size:
                return memory
        return None

    def negotiate(
        self, capabilities: Mapping[str, Any] | None = None, *, major: int = 0, minor: int = 0
    ) -> Any:
        """Agree on the version; the result is the server's capabilities. Proposes QEMU's by default."""
        proposed = QEMU_CAPABILITIES if capabilities is None else capabilities
        data = json.dumps({"capabilities": proposed}).encode() + b"\0"
        reply = spec.Version.unpack(
            self.call(Command.VERSION, spec.Version(major=major, minor=minor, data=data).pack())
        )
        return json.loads(reply.data[:-1])["capabilities"]

    def device_info(self) -> spec.DeviceInfo:
        """How many regions and interrupt types there are."""
        request = spec.DeviceInfo(argsz=16, flags=spec.DeviceFlags(), num_regions=0, num_irqs=0)
        return spec.DeviceInfo.unpack(self.call(Command.DEVICE_GET_INFO, request.pack()))

    def region_info(self, index: int) -> RegionDescription:
        """All about a region, in as many steps as it takes."""
        argsz = 32
        while True:
            request = spec.RegionInfo(
                argsz=argsz, flags=spec.RegionFlags(), index=index, cap_offset=0, size=0, offset=0
            )
            message = self.wait(self.send(Command.DEVICE_GET_REGION_INFO, request.pack()))
            payload = message.check()
            info = spec.RegionInfo.unpack_from(payload)
            if info.argsz <= argsz:
                break
            argsz = info.argsz
            close_all(message.fds)
        areas: tuple[tuple[int, int], ...] = ()
        if info.flags.caps:
            sparse = spec.SparseCapability.unpack_from(payload, info.cap_offset)
            areas = tuple((area.offset, area.size) for area in sparse.areas)
        elif info.flags.mmap:
            areas = ((0, info.size),)
        close_all(message.fds[1:])
        return RegionDescription(info, areas, message.fds[0] if message.fds else None)

    def map_region(self, index: int) -> dict[int, mmap.mmap]:
        """The mappable areas of a region, mapped: offset in the region -> memory, the caller's to close."""
        described = self.region_info(index)
        if described.fd is None:
            return {}
        try:
            return {
                offset: mmap.mmap(described.fd, size, offset=described.info.offset + offset)
                for offset, size in described.areas
            }
        finally:
            os.close(described.fd)

    def irq_info(self, index: int) -> spec.IrqInfo:
        """All about an interrupt type."""
        request = spec.IrqInfo(argsz=16, flags=spec.IrqInfoFlags(), index=index, count=0)
        return spec.IrqInfo.unpack(self.call(Command.DEVICE_GET_IRQ_INFO, request.pack()))

    def set_irqs(
        self,
        index: int,
        start: int,
        count: int,
        *,
        action: str = "trigger",
        events: Sequence[int] | None = None,
        booleans: Sequence[bool] | None = None,
    ) -> None:
        """Act on vectors. `action` is "mask", "unmask" or "trigger"; `events` are eventfds to assign (none of
        them: unassign), `booleans` say which vectors are meant; with neither all are."""
        data = b"" if booleans is None else bytes(booleans)
        flags = spec.IrqSetFlags.make(
            data_eventfd=events is not None,
            data_bool=booleans is not None,
            data_none=events is None and booleans is None,
            mask=action == "mask",
            unmask=action == "unmask",
            trigger=action == "trigger",
        )
        request = spec.IrqSet(
            argsz=20 + len(data), flags=flags, index=index, start=start, count=count, data=data
        )
        self.call(Command.DEVICE_SET_IRQS, request.pack(), events or ())

    def read(self, region: int, offset: int, size: int) -> bytes:
        """Read from a region."""
        request = spec.RegionAccess(offset=offset, region=region, count=size)
        return spec.RegionData.unpack(self.call(Command.REGION_READ, request.pack())).data

    def write(self, region: int, offset: int, data: bytes, *, posted: bool = False) -> None:
        """Write to a region; `posted` does not wait, nor learn of errors."""
        request = spec.RegionData(offset=offset, region=region, count=len(data), data=data).pack()
        if posted:
            self.send(Command.REGION_WRITE, request, no_reply=True)
        else:
            self.call(Command.REGION_WRITE, request)

    def write_multi(self, writes: Sequence[tuple[int, int, bytes]]) -> int:
        """Many writes of (region, offset, up to 8 bytes); the result is how many were done."""
        request = spec.RegionWriteMulti(
            wr_cnt=len(writes),
            writes=[
                spec.RegionWrite(offset=offset, region=region, count=len(data), data=data)
                for region, offset, data in writes
            ],
        )
        reply = self.call(Command.REGION_WRITE_MULTI, request.pack())
        return int.from_bytes(reply, "little")

    def dma_map(
        self,
        address: int,
        size: int,
        *,
        shared: bool = True,
        sealed: bool = False,
        readable: bool = True,
        writeable: bool = True,
        length: int | None = None,
    ) -> GuestMemory:
        """Give the device memory, which starts as zeros.

        `shared` sends its descriptor along; `sealed` seals it against resizing, as QEMU does; `length` makes
        the file that long instead of `size` (and leaves it apart from the `view`).
        """
        memory = GuestMemory(address, size, shared=shared, sealed=sealed, length=length)
        request = spec.DmaMap(
            argsz=32,
            flags=spec.DmaMapFlags.make(readable=readable, writeable=writeable),
            offset=0,
            address=address,
            size=size,
        )
        try:
            self.call(Command.DMA_MAP, request.pack(), [memory.fd] if shared else ())
        except OSError:
            memory.close()
            raise
        self.memory[address] = memory
        return memory

    def dma_unmap(self, address: int, size: int) -> None:
        """Take memory back, once the device has let go of it."""
        request = spec.DmaUnmap(argsz=24, flags=spec.DmaUnmapFlags(), address=address, size=size)
        self.call(Command.DMA_UNMAP, request.pack())
        self.memory.pop(address).close()

    def dma_unmap_all(self) -> None:
        """Take all memory back."""
        request = spec.DmaUnmap(argsz=24, flags=spec.DmaUnmapFlags.make(all=True), address=0, size=0)
        self.call(Command.DMA_UNMAP, request.pack())
        for memory in self.memory.values():
            memory.close()
        self.memory.clear()

    def reset(self) -> None:
        """Reset the device."""
        self.call(Command.DEVICE_RESET)


@dataclass(slots=True)
class Replay:
    """How a replay went. `differences` are (position in the log, what was recorded, what came)."""

    sent: int = 0
    received: int = 0
    differences: list[tuple[int, bytes, bytes]] = field(default_factory=list)


def replay(path: str | os.PathLike[str], door: str | os.PathLike[str], *, timeout: float = 30.0) -> Replay:
    """Play a log (`Door(record=...)`) to the door at socket `door`, and compare its replies with those
    recorded.

    Descriptors are made anew: empty memory of the size recorded, and eventfds. Raises `TimeoutError` where a
    recorded reply does not come, `Gone` where the server leaves too early.
    """
    result = Replay()
    client: Client | None = None
    ahead: dict[bytes, bytes] = {}
    try:
        for position, entry in enumerate(entries(path)):
            if entry.kind == EntryKind.CONNECT:
                client = Client(door, timeout=timeout)
                continue
            assert client is not None, f"{path}: entry {position} comes before any connection"
            if entry.kind == EntryKind.DISCONNECT:
                client.close()
                client = None
                ahead.clear()
            elif entry.kind == EntryKind.FROM_CLIENT:
                fds = [_recreate(*one) for one in entry.descriptors or ()]
                try:
                    client.send_bytes(entry.message, fds)
                finally:
                    close_all(fds)
                result.sent += 1
            else:
                # A thread of the device may be faster or slower than it was: commands and replies may change
                # places.
                key = _identity(entry.message)
                while key not in ahead:
                    message = client.receive()
                    close_all(message.fds)
                    got = message.header.pack() + message.payload
                    ahead[_identity(got)] = got
                got = ahead.pop(key)
                if got != entry.message:
                    result.differences.append((position, entry.message, got))
                result.received += 1
    finally:
        if client is not None:
            client.close()
    return result


def _identity(message: bytes) -> bytes:
    """Message id, command and type."""
    return message[:4] + bytes([message[8] & 15])


def _recreate(kind: DescriptorKind, size: int) -> int:
    if kind == DescriptorKind.EVENTFD:
        return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    fd = os.memfd_create("replay", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd
