"""A host's side of the memory: its windows, and which device gives which bytes of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from softcxl.device.decoder import CommitError, Mapping
from softcxl.device.type3 import Type3
from softcxl.fabric import keys
from softcxl.memory.errors import MemoryFault, SharedStays
from softcxl.memory.interleave import Interleave
from softcxl.memory.media import Medium
from softcxl.memory.window import Window
from softcxl.memory.xor import maps_for

log = logging.getLogger(__name__)

XOR_MAPS = (0x404100, 0x808200, 0x1010400, 0x2020800)
"""The CXIMS maps of our XOR windows at 256 B, one for each position bit: the first two are those of Linux's own
CXL tests (tools/testing/cxl/test/cxl.c), the others go on in their pattern."""


def xor_maps(granularity: int) -> tuple[int, ...]:
    """The CXIMS maps of an XOR window of this granularity (bytes): its position bits begin there."""
    return tuple(one << granularity.bit_length() - 9 for one in XOR_MAPS)


@dataclass(frozen=True, slots=True)
class HostWindow:
    """One fixed memory window of a host: as the topology has it, and its bytes."""

    name: str
    key: keys.Window
    window: Window

    @property
    def base(self) -> int:
        return self.window.base

    @property
    def medium(self) -> Medium:
        return self.window.medium

    def interleave(self, ways: int, granularity: int) -> Interleave:
        """How a region of this window is dealt out."""
        if self.key.arithmetic == "modulo":
            return Interleave(ways, granularity)
        targets = len(self.key.targets)
        maps = maps_for(targets, xor_maps(self.key.granularity))
        return Interleave(ways, granularity, maps if ways >= targets else ())


_Set = tuple[int, int, int, int]


@dataclass(slots=True)
class HostMemory:
    """All windows of a host. Devices plugged into it tell it of their decoders' commits.

    An endpoint's decoder does not say which position it has in its interleave set: that stands in the target
    lists above it. Linux commits the endpoints of a region in order of position (drivers/cxl/core/region.c),
    so the n-th device to commit the same range and geometry has position n, except while firmware programs it.

    Positions are dealt out in turn, which is how Linux translates addresses (``cxl_calculate_position``). Of 6 and 12
    ways over three bridges its target lists say another order within each round, and that is the one of a host in this
    process, whose accesses go through them.
    """

    windows: list[HostWindow] = field(default_factory=list)
    _members: dict[_Set, dict[int, Type3]] = field(default_factory=dict)
    _told: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plug(self, device: Type3) -> None:
        """Make `device`'s committed decoders appear in this host's windows."""
        device.decoders.host = _Plug(self, device)

    def find(self, hpa: int, size: int = 1) -> HostWindow | None:
        """The window that holds all of a range of host addresses."""
        for one in self.windows:
            if one.base <= hpa and hpa + size <= one.base + one.window.size:
                return one
        return None

    @contextmanager
    def at(self, device: Type3, position: int) -> Iterator[None]:
        """Who commits the device's decoders meanwhile is firmware, and knows their position."""
        self._told[device.name] = position
        try:
            yield
        finally:
            del self._told[device.name]

    def commit(self, device: Type3, mapping: Mapping) -> None:
        window = self.find(mapping.hpa, mapping.size)
        if window is None:
            raise CommitError(
                f"no window holds host addresses {mapping.hpa:#x} to {mapping.hpa + mapping.size:#x}"
            )
        with self._lock:
            members = self._members.setdefault(_set(mapping), {})
            free = [position for position in range(mapping.ways) if position not in members]
            if not free:
                raise CommitError(f"all {mapping.ways} positions of the interleave set are taken")
            position = self._told.get(device.name, free[0])
            if position not in free:
                raise CommitError(f"position {position} of the interleave set is taken")
            try:
                device.space.commit(
                    window.window,
                    mapping.hpa,
                    mapping.size,
                    window.interleave(mapping.ways, mapping.granularity),
                    position,
                    mapping.dpa - mapping.skip,
                    mapping.skip,
                )
            except MemoryFault as error:
                if isinstance(error, SharedStays):
                    log.warning("%s", error)  # the software there cannot know: who made the topology can
                raise CommitError(str(error)) from error
            members[position] = device

    def release(self, device: Type3, mapping: Mapping) -> None:
        with self._lock:
            members = self._members.get(_set(mapping), {})
            for position, member in members.items():
                if member is device:
                    del members[position]
                    device.space.release(mapping.hpa)
                    break
            if not members:
                self._members.pop(_set(mapping), None)

    def members(self, hpa: int) -> list[Type3]:
        """The devices of the region at host address `hpa`, by position."""
        for (base, size, _, _), members in self._members.items():
            if base <= hpa < base + size:
                return [members[position] for position in sorted(members)]
        return []


def _set(mapping: Mapping) -> _Set:
    return mapping.hpa, mapping.size, mapping.ways, mapping.granularity


@dataclass(frozen=True, slots=True)
class _Plug:
    """What a device's decoders know of the host they are plugged into."""

    memory: HostMemory
    device: Type3

    def commit(self, mapping: Mapping) -> None:
        self.memory.commit(self.device, mapping)

    def release(self, mapping: Mapping) -> None:
        self.memory.release(self.device, mapping)
