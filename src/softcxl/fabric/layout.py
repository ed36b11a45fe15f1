"""Where a host's fixed memory windows lie in its physical address space.

The layout is that of the machine which a guest gets (QEMU's q35), so that an address means the same in a guest
and in this process. Source: QEMU hw/i386/pc_q35.c and pc.c.
"""

from __future__ import annotations

from collections.abc import Sequence

GIB = 1 << 30
_SPLIT_FROM, _LOW_MEMORY = 0xB0000000, 2 * GIB


def device_memory_base(memory: int) -> int:
    """The lowest address that a window can have beside `memory` bytes of RAM: memory from 2.75 GiB on is split
    at 2 GiB, and the rest lies from 4 GiB up."""
    above = memory - _LOW_MEMORY if memory >= _SPLIT_FROM else 0
    return _up(4 * GIB + above)


def window_bases(memory: int, sizes: Sequence[int], ways: Sequence[int] | None = None) -> list[int]:
    """Addresses for windows of these sizes (bytes), one after the other, each at a multiple of 1 GiB.

    `ways` are how many bridges each is interleaved over, 1 by default. Over three or a multiple of it a window
    begins at a multiple of 3 GiB: a bridge is chosen by the whole address modulo 3 (CXL 3.1 §8.2.4.20.13), and
    only there does the first granule of a region belong to the first of its devices.
    """
    bases: list[int] = []
    base = device_memory_base(memory)
    for size, over in zip(sizes, ways or [1] * len(sizes), strict=True):
        base = _up(base, 3 * GIB if over % 3 == 0 else GIB)
        bases.append(base)
        base += size
    return bases


def _up(address: int, unit: int = GIB) -> int:
    return -(-address // unit) * unit
