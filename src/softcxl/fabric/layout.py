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


def window_bases(memory: int, sizes: Sequence[int]) -> list[int]:
    """Addresses for windows of these sizes (bytes), one after the other, each at a multiple of 1 GiB."""
    bases: list[int] = []
    base = device_memory_base(memory)
    for size in sizes:
        bases.append(base)
        base = _up(base + size)
    return bases


def _up(address: int) -> int:
    return -(-address // GIB) * GIB
