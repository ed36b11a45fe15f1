"""Bitmaps of ports, virtual switches and hosts."""

from __future__ import annotations


def set_bits(bitmap: bytes) -> list[int]:
    """Which bits of a bitmap are set, bit 0 of the first byte being 0.

    >>> set_bits(bytes([0b101, 0x80]))
    [0, 2, 15]
    """
    return [8 * at + bit for at, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1]
