"""What tests of regions share: patterns by geometry, memory as a program's and as the system's.

Interleave arithmetic is done here once more, by dealing cards: nothing of it comes from `softcxl.memory`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from softcxl.device.decoder import Mapping
from tests.kernel.conftest import STEP, Linux, dealt, pattern
from tests.kernel.traces import Traces

MIB = 1 << 20


@dataclass(frozen=True)
class Geometry:
    """Devices in the order of their positions, and the bytes that each gets in turn."""

    order: list[str]
    granularity: int

    def __str__(self) -> str:
        return f"{'-'.join(self.order)}-{self.granularity}"

    @property
    def ways(self) -> int:
        return len(self.order)

    @property
    def round(self) -> int:
        """Bytes after which every device has had its turn."""
        return self.ways * self.granularity

    def place(self, offset: int) -> tuple[str, int]:
        """The device that holds the byte at `offset` of the region, and where in its part."""
        card, within = divmod(offset, self.granularity)
        turn, position = divmod(card, self.ways)
        return self.order[position], turn * self.granularity + within


def check_by_device(guest: Linux, path: str, geometry: Geometry, dpa: int = 0, seed: int = 7) -> None:
    """Fill some memory in the guest and find it in each device from `dpa` on; then the other way round."""
    size = MIB // geometry.round * geometry.round
    guest.sh(f"softcxl-memory fill {path} 0 {size} {seed}")
    for position, name in enumerate(geometry.order):
        space = guest.fabric.devices[name].space
        wanted, answer = (
            dealt(pattern(size, one), geometry.ways, geometry.granularity, position).tobytes()
            for one in (seed, seed + 1)
        )
        assert space.read(dpa, len(wanted)) == wanted, f"{name} at {dpa:#x}"
        space.write(dpa, answer)
    guest.sh(f"softcxl-memory check {path} 0 {size} {seed + 1}")


def check_addresses(
    guest: Linux, region: dict[str, Any], offsets: list[int], place: Callable[[int], tuple[str, int]]
) -> None:
    """Linux, the device and `place` mean the same byte by each of these offsets in the region.

    Poison tells: Linux works out whose an offset is to inject it there, and traces which host address that is.
    """
    debug = f"/sys/kernel/debug/cxl/{region['region']}"
    traces = Traces(guest)
    guest.sh(" && ".join(f"echo {offset:#x} > {debug}/inject_poison" for offset in offsets))
    told = {
        int(one["hpa"], 0) - region["resource"]: (int(one["serial"], 0), int(one["dpa"], 0))
        for one in traces.wait("cxl_poison", len(offsets))
    }
    for offset in offsets:
        name, dpa = place(offset)
        device = guest.fabric.devices[name]
        assert told[offset] == (device.serial, dpa)
        assert dpa in device.poison.map
        assert device.space.dpa_to_hpa(dpa) == region["resource"] + offset
        assert device.space.hpa_to_dpa(region["resource"] + offset) == dpa
    guest.sh(" && ".join(f"echo {offset:#x} > {debug}/clear_poison" for offset in offsets))
    assert not any(len(device.poison.map) for device in guest.fabric.devices.values())


def seen_through(first: Geometry, second: Geometry, length: int, seed: int) -> Iterator[tuple[int, int, int]]:
    """Where the first `length` bytes of a pattern that was stored through `first` are seen through `second`.

    Yields offset, length and seed of pieces: the pattern goes on within each.
    """
    piece = min(first.granularity, second.granularity)
    stored = {first.place(offset): offset for offset in range(0, length, piece)}
    for offset in range(0, length * second.ways // first.ways, piece):
        came_from = stored.get(second.place(offset))
        if came_from is not None:
            with np.errstate(over="ignore"):
                yield offset, piece, int(np.uint64(seed) + np.uint64(came_from // 8) * STEP)


def check_pieces(guest: Linux, path: str, pieces: Iterator[tuple[int, int, int]]) -> None:
    """Compare each piece in the guest with the pattern it should hold."""
    commands = [f"softcxl-memory check {path} {offset} {size} {seed}" for offset, size, seed in pieces]
    assert commands
    guest.sh(" && ".join(commands))


def check_as_system_ram(guest: Linux, region: dict[str, Any], geometry: Geometry) -> None:
    """A new region of volatile memory is the system's: bound to a file system's pages it holds what a file holds.

    Ends with the memory offline.
    """
    device = dax_online(guest, region)
    assert device["movable"]
    node = device["target_node"]
    assert node != 0
    assert device["total_memblocks"] == region["size"] // block_size(guest)
    assert node_kilobytes(guest, node) == region["size"] // 1024
    with_it, blocks = total_kilobytes(guest), online_blocks(guest)

    words = pattern(2 * MIB, 0x5EED)
    guest.machine.output(
        f"mount -t tmpfs -o mpol=bind:{node} tmpfs /mnt && cat > /mnt/file && sync", given=words.tobytes()
    )
    page = words[: 4096 // 8]
    (host,) = guest.fabric.hosts.values()
    windows = host.memory.windows
    window = next(one for one in windows if one.base <= region["resource"] < one.base + one.window.size)
    offset = _found(window.medium, region["resource"] - window.base, region["size"], page.tobytes())
    for start in range(0, 4096, min(geometry.granularity, 4096)):
        name, place = geometry.place(offset + start)
        piece = page.tobytes()[start : start + min(geometry.granularity, 4096)]
        assert guest.fabric.devices[name].space.read(place, len(piece)) == piece
    guest.sh("umount /mnt")

    guest.sh(f"daxctl offline-memory {device['chardev']}")
    assert dax(guest, region)["online_memblocks"] == 0
    assert total_kilobytes(guest) == with_it - region["size"] // 1024
    assert online_blocks(guest) == blocks - device["total_memblocks"]


def dax(guest: Linux, region: dict[str, Any]) -> dict[str, Any]:
    """The dax device of a volatile region, as `daxctl list` has it."""
    name = guest.sh(f"basename /sys/bus/cxl/devices/{region['region']}/dax_region*/dax*.*").strip()
    (found,) = [one for one in guest.json("daxctl list") if one["chardev"] == name]
    assert isinstance(found, dict)
    return found


def devdax(guest: Linux, region: dict[str, Any]) -> str:
    """Make a volatile region's memory a character device that programs map; returns its path."""
    return guest.sh(f"softcxl-devdax {dax(guest, region)['chardev']}").strip()


def dax_online(guest: Linux, region: dict[str, Any]) -> dict[str, Any]:
    """The same, once the kernel has made all of it the system's memory, which it does in the background."""

    def online() -> bool:
        found = dax(guest, region)
        return bool(found["mode"] == "system-ram" and found["online_memblocks"] == found["total_memblocks"])

    wait_until(online)
    return dax(guest, region)


def wait_until(condition: Callable[[], bool], seconds: float = 180.0) -> None:
    """Ask again and again; asking a guest takes its time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds:g} s: {condition}"


def _found(medium: Any, start: int, size: int, page: bytes) -> int:
    """Where in a window's file, from `start` on, a page is."""
    for begin, end in medium.data_ranges(start, size):
        for at in range(begin, end, 16 * MIB):
            data = medium.read(at, min(16 * MIB, end - at))
            found = data.find(page)
            if found >= 0:
                return int(at + found - start)
    raise AssertionError("the page is nowhere in the window")


def block_size(guest: Linux) -> int:
    """Bytes of a memory block."""
    return int(guest.sh("cat /sys/devices/system/memory/block_size_bytes"), 16)


def online_blocks(guest: Linux) -> int:
    """How many memory blocks are online."""
    return int(guest.sh("cat /sys/devices/system/memory/memory*/state | grep -c '^online'"))


def total_kilobytes(guest: Linux) -> int:
    """MemTotal of /proc/meminfo."""
    return int(guest.sh("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo"))


def node_kilobytes(guest: Linux, node: int) -> int:
    """MemTotal of a NUMA node."""
    return int(
        guest.sh(f"sed -n 's/.*MemTotal: *\\([0-9]*\\) kB/\\1/p' /sys/devices/system/node/node{node}/meminfo")
    )


def destroy(guest: Linux, region: dict[str, Any]) -> None:
    """Destroy a region; its devices' decoders are free after."""
    # the kernel would go on giving the next device of this name to programs, and not to the system
    guest.sh(
        f"for each in /sys/bus/cxl/devices/{region['region']}/dax_region*/dax*.*; do"
        " case $(readlink $each/driver) in */device_dax) daxctl disable-device ${each##*/} ;; esac;"
        f" done; cxl destroy-region -f {region['region']}"
    )


def committed(guest: Linux) -> dict[str, list[Mapping]]:
    """What the decoders of each device map now; devices that map nothing are left out."""
    mappings = {name: device.decoders.mappings for name, device in guest.fabric.devices.items()}
    return {name: one for name, one in mappings.items() if one}
