"""Accesses to configuration space and memory behind a port, as requests of the FM API have them."""

from __future__ import annotations

from collections.abc import Iterator

from softcxl.spec.fm.mld_port import MemoryTransaction
from softcxl.spec.fm.switch import ConfigurationTransaction

CONFIGURATION_SPACE = 1 << 12
"""Bytes of a function's configuration space."""

DWORD = 4


def configuration(
    offset: int, size: int, data: bytes | None = None
) -> Iterator[tuple[int, int, ConfigurationTransaction, int]]:
    """The requests for `size` bytes from `offset`, a dword each: where its bytes begin in what is accessed, how many
    they are, the transaction, and for a write of `data` the dword."""
    if offset < 0 or size < 1 or offset + size > CONFIGURATION_SPACE:
        raise ValueError(
            f"{size} bytes from {offset:#x}; configuration space has {CONFIGURATION_SPACE} bytes"
        )
    at = 0
    while at < size:
        register, first = (offset + at) & ~(DWORD - 1), (offset + at) % DWORD
        count = min(DWORD - first, size - at)
        transaction = ConfigurationTransaction.make(
            register_number=register & 0xFF,
            extended_register_number=register >> 8,
            first_byte_enables=enables(first, count),
            write=data is not None,
        )
        dword = 0 if data is None else int.from_bytes(data[at : at + count], "little") << 8 * first
        yield at, count, transaction, dword
        at += count


def extract(dword: int, offset: int, count: int) -> bytes:
    """The `count` bytes of a dword from a byte offset, which may be of the whole space."""
    first = offset % DWORD
    return dword.to_bytes(DWORD, "little")[first : first + count]


def memory(address: int, size: int, write: bool) -> MemoryTransaction:
    """The byte enables of an access of `size` bytes at `address`: of one dword the last ones are 0."""
    first, end = address % DWORD, (address + size) % DWORD
    if first + size <= DWORD:
        return MemoryTransaction.make(first_byte_enables=enables(first, size), write=write)
    return MemoryTransaction.make(
        first_byte_enables=enables(first, DWORD - first),
        last_byte_enables=enables(0, end or DWORD),
        write=write,
    )


def enables(first: int, count: int) -> int:
    """Byte enables of `count` bytes of a dword from its byte `first`: a bit each."""
    return (1 << count) - 1 << first
