"""Memory blocks: a volatile region as system RAM, in the pieces that Linux puts online and takes offline.

`region.online()` is ``daxctl reconfigure-device -m system-ram``: the region's device-dax device goes to the kmem driver
(drivers/dax/kmem.c), which adds its range as memory blocks (drivers/base/memory.c), and they are put online.
`region.offline()` is ``daxctl offline-memory``. A block goes offline when every page in it can be moved elsewhere;
`region.pin` stands for one that cannot: the kernel's own, or one that a device has been given for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from softcxl.host.errors import AccessError, BusyError, RegionError

if TYPE_CHECKING:
    from softcxl.host.decoder import RootDecoder
    from softcxl.host.region import Region
    from softcxl.host.system import System

BLOCK_SIZE = 128 << 20
"""Bytes of a block on x86 where there are less than 64 GiB at boot (arch/x86/mm/init_64.c)."""

LARGEST_BLOCK_SIZE = 2 << 30
"""Bytes of the largest blocks, on machines with more."""

PAGE_SIZE = 4096

ZONES = {"online": "Normal", "online_kernel": "Normal", "online_movable": "Movable"}
"""The zone that a block comes to, by what is written to its `state`."""


@dataclass(eq=False, slots=True)
class MemoryBlock:
    """`size` bytes of a region from host address `hpa`; `zone` is "Normal" or "Movable" while it is online."""

    region: Region
    hpa: int
    size: int
    zone: str = ""

    @property
    def number(self) -> int:
        return self.hpa // self.size

    @property
    def name(self) -> str:
        return f"memory{self.number}"

    @property
    def state(self) -> str:
        return "online" if self.zone else "offline"

    def __repr__(self) -> str:
        return f"<{self.name} {self.hpa:#x}+{self.size:#x} of {self.region.name}: {self.zone or 'offline'}>"

    def online(self, how: str = "online_movable") -> None:
        """Put it online: "online", "online_kernel" or "online_movable". Raises `BusyError` where its device is gone."""
        if how not in ZONES:
            raise RegionError(f"{how} is no way to be online; ways are {', '.join(ZONES)}")
        if not self.region.enabled:
            raise BusyError(f"{self.name}: {self.region.name} is not enabled: {self.region.problem}")
        self.zone = self.zone or ZONES[how]

    def offline(self) -> None:
        """Take it offline. Raises `BusyError` while there is a page in it that cannot be moved, or not read."""
        pinned = self.pinned
        if pinned and self.zone:
            raise BusyError(
                f"{self.name}: the page at {pinned[0]:#x} is pinned and cannot be moved elsewhere"
            )
        if self.zone and not self.region.enabled:
            raise BusyError(f"{self.name}: {self.region.problem or 'its region is not enabled'}")
        self.zone = ""

    @property
    def pinned(self) -> list[int]:
        """Host addresses of the first pages of what is pinned in it."""
        start, end = self.hpa, self.hpa + self.size
        return [max(low, start) for low, high in self.region.pins if low < end and high > start]


class SystemRam:
    """What a region is as system RAM. Nothing, until `online`: then `blocks` has its memory blocks."""

    __slots__ = ()

    if TYPE_CHECKING:
        root: RootDecoder
        type: str
        hpa: int
        size: int
        enabled: bool
        problem: str
        blocks: list[MemoryBlock]
        pins: list[tuple[int, int]]

        @property
        def name(self) -> str: ...

    @property
    def target_node(self) -> int:
        """The NUMA node that its memory comes to. Linux gives each window that the SRAT does not mention its own,
        after those that it does (drivers/acpi/numa/srat.c): here node 0 is the host's own memory."""
        return self.root.number + 1

    @property
    def online_size(self) -> int:
        """Bytes of it that are online."""
        return sum(one.size for one in self.blocks if one.zone)

    def online(self, how: str = "online_movable", block_size: int = BLOCK_SIZE) -> list[MemoryBlock]:
        """Make it system RAM and put all of its blocks online; returns them.

        `how` is "online_movable", "online" or "online_kernel"; `block_size` is in bytes, 128 MiB to 2 GiB. As in
        Linux only whole blocks are used: what remains at either end is of no use then. Raises `RegionError`, if
        there is no whole block among other things.
        """
        if how not in ZONES:
            raise RegionError(f"{how} is no way to be online; ways are {', '.join(ZONES)}")
        if self.type != "ram" or not self.enabled:
            why = f"its type is {self.type}" if self.type != "ram" else self.problem or "it is not enabled"
            raise RegionError(f"{self.name} cannot be system RAM: {why}")
        if not self.blocks:
            self._plug(block_size)
        for one in self.blocks:
            one.online(how)
        return list(self.blocks)

    def offline(self) -> None:
        """Take its blocks offline; they stay plugged in, and can be put online again.

        Raises `BusyError` for those with pages that cannot be moved; the others are offline then.
        """
        refusals = []
        for one in self.blocks:
            try:
                one.offline()
            except BusyError as error:
                refusals.append(str(error))
        if refusals:
            raise BusyError(f"{self.name}: {len(refusals)} of its blocks stay online: {'; '.join(refusals)}")

    def unplug(self) -> None:
        """Make it device-dax again, as ``daxctl reconfigure-device -m devdax`` does. Raises `BusyError` for blocks
        that are online."""
        self.not_online("be device-dax again")
        self.blocks.clear()

    def not_online(self, wish: str) -> None:
        """Raise `BusyError` if any of its memory is online."""
        if self.online_size:
            raise BusyError(
                f"{self.name} cannot {wish}: {self.online_size:#x} bytes of it are online; offline them first"
            )

    @contextmanager
    def pin(self, offset: int, size: int = PAGE_SIZE) -> Iterator[None]:
        """Meanwhile the pages of a range cannot be moved, and their blocks not be taken offline.

        Raises `AccessError` for a range that is not all online.
        """
        low = (self.hpa + offset) // PAGE_SIZE * PAGE_SIZE
        high = -(-(self.hpa + offset + size) // PAGE_SIZE) * PAGE_SIZE
        held = sum(
            max(0, min(high, one.hpa + one.size) - max(low, one.hpa)) for one in self.blocks if one.zone
        )
        if size <= 0 or held != high - low:
            raise AccessError(f"{self.name}: {size:#x} bytes at offset {offset:#x} are not all online memory")
        pinned = (low, high)
        self.pins.append(pinned)
        try:
            yield
        finally:
            self.pins.remove(pinned)

    def _plug(self, block_size: int) -> None:
        if block_size & (block_size - 1) or not BLOCK_SIZE <= block_size <= LARGEST_BLOCK_SIZE:
            raise RegionError(
                f"memory blocks of {block_size:#x} bytes: a power of two from {BLOCK_SIZE:#x} to"
                f" {LARGEST_BLOCK_SIZE:#x} is allowed"
            )
        first = -(-self.hpa // block_size) * block_size
        last = (self.hpa + self.size) // block_size * block_size
        if first >= last:
            raise RegionError(
                f"{self.name}: no whole memory block of {block_size:#x} bytes is in {self.hpa:#x} to"
                f" {self.hpa + self.size - 1:#x}"
            )
        region = cast("Region", self)
        self.blocks += [MemoryBlock(region, hpa, block_size) for hpa in range(first, last, block_size)]


@dataclass(frozen=True, slots=True)
class NumaNode:
    """A NUMA node of CXL memory: node 0 is the host's own and has none. Sizes in bytes."""

    number: int
    blocks: tuple[MemoryBlock, ...] = field(default=())

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def online_size(self) -> int:
        return sum(one.size for one in self.blocks if one.zone)


def nodes(system: System) -> list[NumaNode]:
    """The nodes that have memory blocks, online or not, by number. A node appears with its first block."""
    found: dict[int, list[MemoryBlock]] = {}
    for region in system.regions.values():
        if region.blocks:
            found.setdefault(region.target_node, []).extend(region.blocks)
    return [
        NumaNode(number, tuple(sorted(found[number], key=lambda one: one.hpa))) for number in sorted(found)
    ]
