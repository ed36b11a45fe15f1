"""Registers of SoftCXL's pool access device: a PCI slot by which a guest reaches the memory pool.

Ours, and no standard's; `softcxl_access.h` says the same in C. Function 0 has these registers in BAR 0. Functions 1 and
up have memory in their BARs: the arena first, then the other sources, as the table in the registers tells.
"""

from __future__ import annotations

from typing import Final

from softcxl.wire import RO, RW, RW1C, RW1S, Block, HwInit, Register, at, bit, bits

MAGIC: Final = int.from_bytes(b"SCXLDOOR", "little")
VERSION: Final = 1

ACCESS_CONTROL_ID: Final = 0x5C01
"""PCI device ID of function 0."""

ACCESS_MEMORY_ID: Final = 0x5C02
"""PCI device ID of the functions that have memory."""

CLASS_OTHER_PERIPHERAL: Final = 0x088000
"""Class code of function 0: a base system peripheral of another kind."""

CLASS_OTHER_MEMORY: Final = 0x058000
"""Class code of functions with memory: a memory controller of another kind."""

REGISTERS_SIZE: Final = 0x1000
PAYLOAD_OFFSET: Final = 0x100
PAYLOAD_SIZE: Final = 0x400
TABLE_OFFSET: Final = 0x800
ENTRY_SIZE: Final = 0x40
ENTRY_NAME_OFFSET: Final = 0x10
ENTRY_NAME_SIZE: Final = 0x30

FUNCTIONS: Final = 8
"""Functions that a slot has at most (PCIe 6.0 §7.5.1.1.9)."""

BARS: Final = (0, 2, 4)
"""The 64-bit BARs of a function with memory."""

MOST_MEMORIES: Final = (FUNCTIONS - 1) * len(BARS)
"""How many sources a slot can show, the arena among them."""

VECTORS: Final = 32
"""Interrupt vectors: of the server's news the first, of words in the arena the others."""

NEWS: Final = 0
"""The vector that tells of news from the server: something in the arena's header has changed."""

_LINE = 64


def vector_of(offset: int) -> int:
    """The interrupt vector, 1 to 31, that tells of the word at `offset` (bytes) of the arena."""
    return 1 + offset // _LINE % (VECTORS - 1)


class Magic(Register, width=64, spec="softcxl_access.h"):
    """Tells the registers from others'."""

    value = bits(63, 0, RO, "the bytes `SCXLDOOR`", reset=MAGIC)


class Version(Register, width=32, spec="softcxl_access.h"):
    """Which layout of the registers it is; one with more in it has the same number."""

    value = bits(31, 0, RO, reset=VERSION)


class AccessStatus(Register, width=32, spec="softcxl_access.h"):
    """Whether the pool can be reached."""

    ready = bit(0, RO, "a pool's server answers")


class AccessCapabilities(Register, width=32, spec="softcxl_access.h"):
    """What there is of the rest."""

    memories = bits(7, 0, HwInit, "entries of the table of memories; the first is the arena")
    vectors = bits(15, 8, RO, "interrupt vectors", reset=VECTORS)
    payload = bits(31, 16, RO, "bytes of the payload", reset=PAYLOAD_SIZE)


class Doorbell(Register, width=32, spec="softcxl_access.h"):
    """Wakes who sleeps on a word of the arena, wherever they are: on the host, or in any guest."""

    word = bits(31, 0, RW, "the word's offset in the arena, in units of 8 bytes")


class InterruptAcknowledge(Register, width=32, spec="softcxl_access.h"):
    """Any write says that an INTx interrupt has arrived; it comes before Interrupt Disable is cleared."""

    value = bits(31, 0, RW)


class InterruptEnable(Register, width=32, spec="softcxl_access.h"):
    """Which vectors interrupt, until the next reset: programs of a guest do not take each other's away."""

    vectors = bits(31, 0, RW1S, "one bit a vector")


class InterruptCause(Register, width=32, spec="softcxl_access.h"):
    """Which vectors were rung, enabled or not: for people who look."""

    vectors = bits(31, 0, RW1C, "one bit a vector")


class AccessCommand(Register, width=32, spec="softcxl_access.h"):
    """A write asks the server: the request is in the payload."""

    opcode = bits(15, 0, RW, "what is asked (`softcxl.pool.protocol.Opcode`)")


class AccessResult(Register, width=32, spec="softcxl_access.h"):
    """How the last command went."""

    busy = bit(0, RO, "it is not over")
    status = bits(31, 16, RO, "0, or what went wrong (`softcxl.pool.protocol.Status`)")


class AccessSlot(Register, width=32, spec="softcxl_access.h"):
    """Whose command it is."""

    slot = bits(31, 0, RW, "the slot that the server gave; 0 where none was given yet")


class AccessLength(Register, width=32, spec="softcxl_access.h"):
    """How much of the payload counts."""

    length = bits(31, 0, RW, "bytes of the request; of the answer when the command is over")


class AccessRegisters(Block, size=0x50, spec="softcxl_access.h"):
    """Function 0's BAR 0, up to its payload. One at a time uses command, slot, length and payload."""

    magic = at(0x00, Magic)
    version = at(0x08, Version)
    status = at(0x0C, AccessStatus)
    capabilities = at(0x10, AccessCapabilities)
    doorbell = at(0x20, Doorbell)
    acknowledge = at(0x24, InterruptAcknowledge)
    enable = at(0x28, InterruptEnable)
    cause = at(0x2C, InterruptCause)
    command = at(0x40, AccessCommand)
    result = at(0x44, AccessResult)
    slot = at(0x48, AccessSlot)
    length = at(0x4C, AccessLength)


class MemorySize(Register, width=64, spec="softcxl_access.h"):
    """How much memory an entry of the table is about."""

    size = bits(63, 0, HwInit, "in bytes; the BAR is the next power of two")


class MemoryPlace(Register, width=32, spec="softcxl_access.h"):
    """Where it is."""

    function = bits(2, 0, HwInit, "of this slot")
    bar = bits(10, 8, HwInit, "of that function")
    source = bits(31, 16, HwInit, "the number that pool addresses have; 0 is the arena")


class MemoryEntry(Block, size=ENTRY_SIZE, spec="softcxl_access.h"):
    """One memory of the table; its name, 48 bytes of UTF-8 at most, follows at 10h."""

    size = at(0x00, MemorySize)
    place = at(0x08, MemoryPlace)
