"""Configuration and memory requests with byte enables, as the fabric manager sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.device.cci import CommandError
from softcxl.pci.region import CONFIG_REGION
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.switch import ConfigurationResponse, ConfigurationTransaction

if TYPE_CHECKING:
    from softcxl.pci.function import Function
    from softcxl.spec.fm.mld_port import MemoryTransaction

DWORD = 4


def configuration_request(
    function: Function, transaction: ConfigurationTransaction, data: int
) -> ConfigurationResponse:
    """Read a dword of configuration space, all of it, or write the bytes of one that are enabled. Invalid Input for
    an offset that is none of a dword."""
    offset = transaction.extended_register_number << 8 | transaction.register_number
    if offset % DWORD:
        raise CommandError(ReturnCode.INVALID_INPUT)
    if not transaction.write:
        return ConfigurationResponse(
            data=int.from_bytes(function.read(CONFIG_REGION, offset, DWORD), "little")
        )
    given = data.to_bytes(DWORD, "little")
    for first, end in runs(transaction.first_byte_enables, DWORD):
        function.write(CONFIG_REGION, offset + first, given[first:end])
    return ConfigurationResponse(data=0)


def enabled(transaction: MemoryTransaction, address: int, length: int) -> int:
    """Which of `length` bytes from `address` are enabled, one bit each: of the first dword, and of the last one where
    there are several, what the transaction says; all between (PCIe 6.0 §2.2.5)."""
    before = address % DWORD
    dwords = -(-(before + length) // DWORD)
    lanes = transaction.first_byte_enables
    if dwords > 1:
        between = (1 << DWORD * (dwords - 2)) - 1
        lanes |= between << DWORD | transaction.last_byte_enables << DWORD * (dwords - 1)
    return lanes >> before & (1 << length) - 1


def runs(enables: int, count: int) -> list[tuple[int, int]]:
    """Of `count` bytes those that are enabled, one bit each: where each run of them begins and ends."""
    found: list[tuple[int, int]] = []
    place = 0
    while enables := enables & (1 << count) - 1:
        skip = (enables & -enables).bit_length() - 1
        enables >>= skip
        length = ((enables + 1) & ~enables).bit_length() - 1
        found.append((place + skip, place + skip + length))
        place, count, enables = place + skip + length, count - skip - length, enables >> length
    return found
