"""Where a device's register capabilities are, as software finds them: by its lists of capabilities."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from softcxl.pci.function import Function
from softcxl.pci.region import CONFIG_REGION
from softcxl.spec.cxl.component import CACHE_MEM_OFFSET, CACHE_MEM_SIZE
from softcxl.spec.cxl.cpmu import CPMU_SIZE
from softcxl.spec.cxl.dvsec import DvsecId, RegisterBlockId
from softcxl.spec.pci.extended import ExtendedCapabilityId
from softcxl.spec.pci.header import CONFIG_SPACE_SIZE


@dataclass(frozen=True, slots=True)
class Capability:
    """A capability, and where its registers are: from `start` to `end` (bytes) of `region`, its header left out.

    `key` is its kind and number: `dvsec 0x8`, `component 0x5`, `device 0x2`, `extended 0x1`, `block 0x4`.
    """

    key: str
    region: int
    start: int
    end: int

    @property
    def where(self) -> str:
        """The place in words."""
        place = "configuration space" if self.region == CONFIG_REGION else f"BAR {self.region}"
        return f"{place}, {self.start:X}h"


def capabilities(function: Function) -> Iterator[Capability]:
    """The register capabilities of an endpoint, none of one that does not answer. It is read as software reads it."""
    starts = [*_extended(function)]
    for start, end in pairwise([*starts, CONFIG_SPACE_SIZE]):
        number = _dword(function, CONFIG_REGION, start) & 0xFFFF
        if number != ExtendedCapabilityId.DVSEC:
            yield Capability(f"extended {number:#x}", CONFIG_REGION, start + 4, end)
            continue
        kind = _dword(function, CONFIG_REGION, start + 8) & 0xFFFF
        end = start + (_dword(function, CONFIG_REGION, start + 4) >> 20)
        yield Capability(f"dvsec {kind:#x}", CONFIG_REGION, start + 0xC, end)
        if kind == DvsecId.REGISTER_LOCATOR:
            for entry in range(start + 0xC, end, 8):
                yield from _located(function, entry)


def _dword(function: Function, region: int, offset: int) -> int:
    return int.from_bytes(function.read(region, offset, 4), "little")


def _extended(function: Function) -> Iterator[int]:
    """Where the extended capabilities begin, which a function places one after the other."""
    offset = 0x100
    while offset and (header := _dword(function, CONFIG_REGION, offset)) not in (0, 0xFFFFFFFF):
        yield offset
        offset = header >> 20


def _located(function: Function, entry: int) -> Iterator[Capability]:
    """What is in the register block that an entry of the Register Locator names."""
    low, high = (_dword(function, CONFIG_REGION, entry + half) for half in (0, 4))
    block, bar, base = low >> 8 & 0xFF, low & 7, high << 32 | low & 0xFFFF0000
    if block == RegisterBlockId.COMPONENT:
        yield from _component(function, bar, base + CACHE_MEM_OFFSET)
    elif block == RegisterBlockId.DEVICE:
        yield from _device(function, bar, base)
    elif block == RegisterBlockId.CPMU:
        yield Capability(f"block {block:#x}", bar, base, base + CPMU_SIZE)


def _component(function: Function, bar: int, base: int) -> Iterator[Capability]:
    count = _dword(function, bar, base) >> 24
    headers = [_dword(function, bar, base + 4 * number) for number in range(1, count + 1)]
    places = sorted((header >> 20, header & 0xFFFF) for header in headers)
    for (start, number), (end, _) in pairwise([*places, (CACHE_MEM_SIZE, 0)]):
        yield Capability(f"component {number:#x}", bar, base + start, base + end)


def _device(function: Function, bar: int, base: int) -> Iterator[Capability]:
    count = _dword(function, bar, base + 4) & 0xFFFF
    for number in range(1, count + 1):
        identity, offset, length = struct.unpack("<III4x", function.read(bar, base + 16 * number, 16))
        yield Capability(f"device {identity & 0xFFFF:#x}", bar, base + offset, base + offset + length)
