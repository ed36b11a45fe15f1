"""The arena's directory: who is there, what memory there is, and who has which part of it.

The arena is a shared file. At its start is the directory, laid out as declared here and in `softcxl_directory.h`;
behind it a heap, from which channels are allocated. Everything is little-endian, everything that points is an
offset, and structures begin on lines of 64 bytes. The server makes it; clients trust nothing that they read
from it.

A *pool address* names a byte of any source of memory: the source's number in bits 63:56, and an offset in it below.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import Final
from unicodedata import category

from softcxl.wire import Record, raw, reserved, u32, u64

MAGIC: Final = int.from_bytes(b"SCXLPOOL", "little")
VERSION: Final = 2
LINE: Final = 64
"""Bytes of a cache line, which structures do not share."""
PAGE: Final = 4096
"""Bytes of a page of memory, of which regions have whole ones."""

MAX_SOURCES: Final = 252
"""Beside the arena. Their descriptors come in one message, which holds 253 (SCM_MAX_FD, include/net/scm.h)."""
MAX_COPIES: Final = 8
MAX_NAME: Final = 63
"""Bytes of a name in UTF-8."""

ARENA: Final = 0
"""The number of the source that is the arena itself."""
SERVER: Final = 0
"""The server's slot."""

_OFFSET = (1 << 56) - 1


def address(source: int, offset: int) -> int:
    """The pool address of byte `offset` of a source."""
    return source << 56 | offset


def split(pool_address: int) -> tuple[int, int]:
    """The source and the offset of a pool address."""
    return pool_address >> 56, pool_address & _OFFSET


class SourceState(enum.IntEnum):
    """Whether a source can be used."""

    ABSENT = 0
    HEALTHY = 1
    FAILED = 2


class SlotState(enum.IntEnum):
    """Whether somebody has a slot."""

    FREE = 0
    LIVE = 1
    DEAD = 2
    """Who had it has gone, and what it had is being seen to."""


class RegionState(enum.IntEnum):
    """Whether a record is a region's."""

    FREE = 0
    LIVE = 1
    LEAVING = 2
    """It was freed, or a copy has moved away from there, and somebody is at the memory yet."""


class RegionFlag(enum.IntFlag):
    """What a region is."""

    KEPT = 1
    """It has a name, and stays when its owner goes."""
    ATOMIC = 2
    """Writes of it are all or nothing, also where it has one copy."""
    CHANNEL = 4
    """A channel or a table of calls, in the arena's heap."""
    PINNED = 8
    """Somebody looks at its memory: the server says so to the next one."""
    OLD = 16
    """None, but the place at which a copy was of the region that is `request` - 1, of the generation that is `lease`:
    somebody looks there."""


class Mode(enum.IntEnum):
    """What others than its owner may do with a region."""

    PRIVATE = 0
    READ = 1
    WRITE = 2


class Header(Record, size=0x98):
    """The arena's first bytes."""

    magic: int = u64()
    version: int = u32()
    ready: int = u32("0 while the server makes it")
    size: int = u64("of the arena, in bytes")
    identity: int = u64("a random number: which pool this is")
    epoch: int = u64("of the server: one more each time that one starts")
    beat: int = u64("goes up while the server lives")
    sources: int = u32("of how many sources there is a line")
    slots: int = u32("of how many clients there is a record")
    regions: int = u64("of how many regions there is a record")
    sources_at: int = u64()
    slots_at: int = u64()
    regions_at: int = u64()
    calls_at: int = u64("of the table of calls of slot 0")
    calls_stride: int = u64("bytes from one slot's table of calls to the next one's")
    queue_at: int = u64("of the queue of calls to the server")
    queue_size: int = u64()
    heap_at: int = u64()
    health: int = u64("goes up when a source's state changes, or a region's copies do")
    lease: int = u32("of clients, in milliseconds")
    clean: int = u32("1: the last server has ended in order")
    regions_used: int = u64("records from this one on have never been used")


class SourceLine(Record, size=64):
    """A source of memory."""

    size: int = u64("in bytes")
    state: int = u32()
    generation: int = u32("of two that failed the first one has the lower; bit 31: what it held is lost")
    name: bytes = raw(48)


class Slot(Record, size=256):
    """A client. The first and last lines are the server's; the second one the client's."""

    word: int = u64("epoch (40 bits), 16 bits of zeros, state")
    pid: int = u32("0 where it is behind a device")
    flags: int = u32("1: it is behind a device")
    start: int = u64("when the process began: field 22 of /proc/PID/stat, in clock ticks")
    token: int = u64("a hash of what the client has to show when it comes again")
    _reserved0: None = reserved(32)
    beat: int = u64("goes up while the client lives")
    intent: int = u64("index + 1 of the region that it locks")
    journal_at: int = u64("pool address of its journal, 0 without one")
    journal_size: int = u64("in bytes")
    intent1: int = u64("another intent: threads that hold locks at the same time have one each")
    intent2: int = u64()
    intent3: int = u64()
    intent4: int = u64()
    name: bytes = raw(64)
    host: bytes = raw(64)


class RegionRecord(Record, size=256):
    """A region. The second line is changed by compare-and-swap, or by who holds the lock."""

    word: int = u64("generation (40 bits), 16 bits of zeros, state")
    size: int = u64("in bytes")
    owner: int = u32("slot")
    flags: int = u32()
    copies: int = u32("1 to 8")
    mode: int = u32("what others may do")
    request: int = u64("number of the owner's request that made it")
    identity: int = u64("a hash of the owner's name: whose it is when the slot is another's")
    lease: int = u64("in milliseconds: how long it stays when nobody has it open, 0 for ever")
    capacity: int = u64("bytes that each of its copies takes")
    lock: int = u64("slot (16 bits), the slot's epoch (40 bits), 1 where it is held")
    sequence: int = u64("writes (40 bits), the writer's slot (16), the copy that is first (6), the phase (2)")
    intent_at: int = u64("what is being written: an offset in the region")
    intent_length: int = u64()
    healthy: int = u32("bitmap of the copies that may be read")
    joining: int = u32("bitmap of the copies that are written, and not read yet")
    poisoned: int = u32("bitmap of the copies that have poison somewhere")
    layout: int = u32("goes up when a copy moves")
    waiting: int = u32("who sleeps for the lock (2 bits), how often one was woken (30)")
    remote: int = u32()
    torn: int = u64("what a dead writer left neither old nor new: first byte (32 bits), count (32 bits)")
    extent0: int = u64("pool address of copy 0")
    extent1: int = u64()
    extent2: int = u64()
    extent3: int = u64()
    extent4: int = u64()
    extent5: int = u64()
    extent6: int = u64()
    extent7: int = u64()
    name: bytes = raw(64, "UTF-8, padded with NULs")


class ChannelHead(Record, size=0x440):
    """What a channel's region begins with. The server alone writes it."""

    magic: int = u64()
    version: int = u32()
    kind: int = u32()
    owner0: int = u64("of a ring's producer's end, or of a client's calls: slot + 1, 0 nobody's")
    owner1: int = u64("of a ring's consumer's end: slot + 1, 0 nobody's")
    cells: int = u64("of a queue")
    request0: int = u64("number of the request by which the producer's end was taken")
    request1: int = u64("the consumer's")
    _reserved: None = reserved(8)
    users: bytes = raw(512, "bitmap of slots that have it open")
    workers: bytes = raw(512, "bitmap of slots that serve it")


CHANNEL_MAGIC: Final = int.from_bytes(b"SCXLCHAN", "little")
CHANNEL_HEAD: Final = 0x440
"""Bytes of a `ChannelHead`."""
REPEATABLE: Final = 240
"""Behind a service's head: how many numbers of functions, 4 bytes each, that may be run again; 0 is none."""
CHANNEL_AT: Final = 0x800
"""Where a channel's ring, queue or table of calls is, from the beginning of its region."""


def offsets(record: type[Record]) -> dict[str, int]:
    """Where each item of a record of a fixed size is, in bytes."""
    found, at = {}, 0
    for item in record.__layout__.fields:
        found[item.name] = at
        at += item.size or 0
    return found


HEADER: Final = offsets(Header)
SOURCE: Final = offsets(SourceLine)
SLOT: Final = offsets(Slot)
REGION: Final = offsets(RegionRecord)
CHANNEL: Final = offsets(ChannelHead)

CALLS: Final = 8
"""Calls to the server that a client can have outstanding."""
CALL_STRIDE: Final = 1024
"""Bytes of such a call's cell: 16 for its words, and the request or the answer."""
CALLS_HEADER: Final = 128
"""Bytes of a table of calls before its first cell."""
CALLS_STRIDE: Final = CALLS_HEADER + CALLS * CALL_STRIDE
"""Bytes of a slot's table of calls to the server."""
QUEUE_CELLS: Final = 4096
"""Calls of all clients that the server has not taken yet, at most."""
QUEUE_SIZE: Final = 256 + QUEUE_CELLS * LINE
"""Bytes of the queue of calls to the server."""


@dataclass(frozen=True)
class Plan:
    """Where things are in an arena with so many slots and records. All numbers are bytes."""

    slots: int = 4096
    regions: int = 1 << 20
    heap: int = 1 << 30

    @classmethod
    def within(cls, size: int) -> Plan:
        """For an arena of so many bytes, 1 MiB or more: at most a quarter for records, an eighth for clients."""
        most = cls()
        bare = cls(min(most.slots, size >> 16), min(most.regions, size >> 10), 0)
        return cls(bare.slots, bare.regions, (size - bare.heap_at) & -PAGE)

    @property
    def sources_at(self) -> int:
        return PAGE

    @property
    def slots_at(self) -> int:
        return self.sources_at + _pages(64 * (MAX_SOURCES + 1))

    @property
    def queue_at(self) -> int:
        return self.slots_at + _pages(256 * self.slots)

    @property
    def calls_at(self) -> int:
        return self.queue_at + _pages(QUEUE_SIZE)

    @property
    def regions_at(self) -> int:
        return self.calls_at + _pages(CALLS_STRIDE * self.slots)

    @property
    def heap_at(self) -> int:
        return self.regions_at + _pages(256 * self.regions)

    @property
    def size(self) -> int:
        return self.heap_at + _pages(self.heap)


def room(size: int) -> int:
    """Bytes that each copy of a region of `size` bytes takes."""
    return _pages(size)


def identity(name: str) -> int:
    """The hash of a client's name by which regions say whose they are."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") | 1


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


_UNFIT = frozenset(("Cc", "Cs", "Zl", "Zp"))


def encode_name(name: str) -> bytes:
    """A name as it stands in the directory. Raises ValueError where it cannot, TypeError where it is no text."""
    if not isinstance(name, str):
        raise TypeError(f"a name is text, not {name!r}")
    # Also what ends a line elsewhere than in ASCII, and halves of characters, of which there is no UTF-8
    data = name.encode(errors="replace")
    if not 0 < len(data) <= MAX_NAME or any(category(letter) in _UNFIT for letter in name):
        raise ValueError(
            f"{name!r} is no name: one has 1 to {MAX_NAME} bytes of UTF-8 and no control characters"
        )
    return data


def decode_name(data: bytes) -> str:
    """The name that stands in the directory; what is no UTF-8 shows as question marks."""
    return data.partition(b"\0")[0].decode(errors="replace")
