"""What a client and the pool's server say to each other.

A request is an opcode and a record; an answer is a status and a record, or, where the status is not 0, a
sentence in UTF-8. They go through a table of calls in shared memory (`softcxl.pool.calls`), or as they are over
the Unix socket, each behind a `Head`. On that socket the first exchange is `Hello` and `Welcome`; with the
welcome come file descriptors: the arena's, and those of the sources that it lists. In a guest they go through a
device's registers (`softcxl.pool.device`) or its memory (`softcxl.pool.dax`).
"""

from __future__ import annotations

import enum
import itertools
import time
from collections.abc import Iterator
from typing import Final

from softcxl.pool import errors
from softcxl.wire import Record, counted, raw, reserved, tail, u8, u16, u32, u64

PROTOCOL: Final = 1
LARGEST: Final = 1008
"""Bytes of a request or an answer, at most."""


class Opcode(enum.IntEnum):
    """What is asked, by which record, and by which it is answered, if by any."""

    HELLO = 1
    """`Hello`, answered by `Welcome`."""
    GOODBYE = 2
    """Nothing more: the client leaves."""
    ALLOCATE = 3
    """`Allocate`, answered by `Located`."""
    OPEN = 4
    """`Named`, answered by `Located`."""
    FREE = 5
    """`Named`."""
    PIN = 6
    """`Named`, by index and generation: the region stays where it is, since somebody looks at its memory."""
    UNPIN = 7
    """`Named`: nobody of this client does any more."""
    JOURNAL = 8
    """Nothing more, answered by `Journal`: it is made where the client has none."""
    POISON = 9
    """`PoisonQuery`, answered by `PoisonAnswer`."""
    RING = 10
    """`Ring`."""
    LIST = 11
    """`ListQuery`, answered by `ListAnswer`."""
    TELL = 12
    """`TellQuery`, answered by `TellAnswer`."""
    CLOSE = 14
    """`Named`, by index and generation: this client has it open no more."""
    ATTACH = 32
    """`Attach`, answered by `Attached`."""
    DETACH = 33
    """`Detach`."""
    CALLS_OF = 34
    """`CallsOf`, answered by `Attached`: one's own table of calls is made where there is none."""
    GIVE = 35
    """`Give`."""
    ADOPT = 36
    """`Adopt`."""
    REMOVE = 37
    """`Remove`."""
    DECLARE = 38
    """`Declare`."""
    HOLD = 40
    """`Hold`."""
    ALLOCATE_MANY = 41
    """`AllocateMany`, answered by index and generation of each region's record: u64 and u64."""
    HEAL = 42
    """`Heal`."""


def request_numbers() -> Iterator[int]:
    """Numbers for requests that are made anew where no answer came: the server does once what has one number.

    They go up, and no client that had the slot before has had them: records keep the numbers by which they were made.
    """
    return itertools.count(time.monotonic_ns() << 8 & (1 << 63) - 1 | 1)


class Status(enum.IntEnum):
    """How it went."""

    OK = 0
    MALFORMED = 1
    UNKNOWN = 2
    EXISTS = 3
    NO_ROOM = 4
    DENIED = 5
    QUOTA = 6
    BUSY = 7
    VERSION = 8
    GONE = 9
    FAILED = 10


FAILURES: Final[dict[int, type[errors.PoolError]]] = {
    Status.MALFORMED: errors.Refused,
    Status.UNKNOWN: errors.NoSuchName,
    Status.EXISTS: errors.NameTaken,
    Status.NO_ROOM: errors.NoRoom,
    Status.DENIED: errors.Denied,
    Status.QUOTA: errors.QuotaExceeded,
    Status.BUSY: errors.Busy,
    Status.VERSION: errors.Foreign,
    Status.GONE: errors.Stale,
    Status.FAILED: errors.ServerFailed,
}
"""What a client raises."""


class Head(Record, size=8):
    """What stands before a request or an answer on the socket."""

    what: int = u32("opcode, or status")
    number: int = u32("of the request; an answer repeats it")


class Hello(Record, size=176):
    """Who comes. One that comes again says which slot it had, and shows the token that it was given."""

    protocol: int = u32()
    pid: int = u32("for a look at; what the socket says of the peer is what counts")
    slot: int = u32("0 for a new client")
    _reserved: None = reserved(4)
    epoch: int = u64()
    token: bytes = raw(16)
    lease: int = u64("in milliseconds that the client wishes, 0 for the pool's")
    name: bytes = raw(64)
    host: bytes = raw(64, "where it runs, if not here")


class SourceFile(Record, size=24):
    """Where a source's bytes are."""

    number: int = u32()
    _reserved: None = reserved(4)
    offset: int = u64("in the file, in bytes")
    size: int = u64("in bytes")


class Welcome(Record, size=48):
    """The client's slot."""

    protocol: int = u32()
    slot: int = u32()
    epoch: int = u64()
    token: bytes = raw(16, "to be shown when it comes again")
    server: int = u64("the server's epoch")
    lease: int = u32("in milliseconds")
    count: int = u32()
    sources: list[SourceFile] = counted(SourceFile, "count", "whose file descriptors come behind the arena's")


class Policy(enum.IntEnum):
    """Which sources are taken first."""

    SPREAD = 0
    PACK = 1


class Separate(enum.IntEnum):
    """What copies of a region have to themselves."""

    DEVICE = 0
    SWITCH = 1


class Allocate(Record, size=104):
    """Make a region."""

    size: int = u64("in bytes, 1 or more")
    request: int = u64("the client's number for it: asked twice, it is made once")
    copies: int = u8("1 to 8")
    policy: int = u8()
    separate: int = u8()
    mode: int = u8("what others may do with it")
    flags: int = u16()
    source: int = u16("1 + the source that it has to be from, 0 for any memory device")
    lease: int = u64("in milliseconds: how long it stays when nobody has it open, 0 for ever")
    reserved0: bytes = raw(8)
    name: bytes = raw(64, "empty for one without a name")


class AllocateMany(Record, size=112):
    """Make several regions alike: all of them, or none."""

    count: int = u64("1 to 62")
    each: bytes = raw(104, "an `Allocate`, without a name")


MANY: Final = 62
"""Regions that one request makes at most."""


class Located(Record, size=24):
    """A region's record."""

    index: int = u64()
    generation: int = u64()
    size: int = u64("in bytes")


class Named(Record, size=80):
    """A region, by index and generation, or by name."""

    index: int = u64()
    generation: int = u64("0: by name")
    name: bytes = raw(64)


class Hold(Record, size=24):
    """How often a client has a region open and looks at its memory: for a server that has just started. At last one of
    generation 0: that was all."""

    index: int = u64()
    generation: int = u64("0, at last: that was all")
    opened: int = u32()
    pins: int = u32()


class PoisonQuery(Record, size=32):
    """Which bytes of a region are poisoned."""

    index: int = u64()
    generation: int = u64()
    offset: int = u64()
    length: int = u64()


class Heal(Record, size=40):
    """Poisoned lines of a region that were just written, all of each: they are good from now on."""

    index: int = u64()
    generation: int = u64()
    offset: int = u64()
    length: int = u64()
    health: int = u64("what the directory's count of health was before they were written")


class PoisonedRange(Record, size=24):
    """Bytes of one copy."""

    copy: int = u64()
    offset: int = u64("in the region")
    length: int = u64()


class PoisonAnswer(Record, size=8):
    """Poisoned bytes within what was asked for: the first ones of them, if there are many."""

    count: int = u32()
    more: int = u32("1: there are more, behind the last of these")
    ranges: list[PoisonedRange] = counted(PoisonedRange, "count")


class Ring(Record, size=8):
    """Wake who sleeps behind a device on a word of the arena."""

    offset: int = u64()


class ListQuery(Record, size=8):
    """Regions from an index on."""

    start: int = u64()


class ListAnswer(Record, size=16):
    """Indices of regions that there are."""

    next: int = u64("where to go on; 0: that was all")
    count: int = u32()
    _reserved: None = reserved(4)
    indices: list[int] = counted(u64, "count")


class TellQuery(Record, size=48):
    """What the server tells in JSON, in pieces."""

    offset: int = u64("0 has it made anew")
    what: bytes = raw(40)


class TellAnswer(Record, size=8):
    """A piece."""

    total: int = u64("bytes of all of it")
    piece: bytes = tail()


class Journal(Record, size=16):
    """The client's journal."""

    at: int = u64("pool address")
    size: int = u64("in bytes")


class ChannelKind(enum.IntEnum):
    """What is in a region with the flag CHANNEL."""

    RING = 1
    QUEUE = 2
    SERVICE = 3
    CALLS = 4
    """A client's calls to services."""


class Role(enum.IntEnum):
    """What somebody is at a channel."""

    PRODUCER = 1
    CONSUMER = 2
    USER = 3
    WORKER = 4
    CLIENT = 5


class Attach(Record, size=88):
    """Take part in a channel, which is made where there is none."""

    kind: int = u8()
    role: int = u8()
    flags: int = u16("1: only if it is there")
    cells: int = u32("of a queue: a power of two, 2 or more; 0 for whatever there is")
    size: int = u64("in bytes: of a ring, or of a queue's records; 0 for whatever there is")
    request: int = u64("the client's number for it: asked twice, an end is taken once")
    name: bytes = raw(64)


class Attached(Record, size=40):
    """Where a channel is."""

    index: int = u64("of its region")
    generation: int = u64()
    at: int = u64("of the ring, queue or table of calls, in the arena")
    size: int = u64("of that, in bytes")
    created: int = u32("1: it was made")
    cells: int = u32("of a queue")


class Detach(Record, size=24):
    """Take part in a channel no more."""

    index: int = u64()
    generation: int = u64()
    role: int = u32()
    _reserved: None = reserved(4)


class CallsOf(Record, size=8):
    """Where a client's calls to services are."""

    slot: int = u32()
    _reserved: None = reserved(4)


class Give(Record, size=32):
    """Have a region belong to a channel, and then to who takes the record of it."""

    index: int = u64()
    generation: int = u64()
    channel: int = u64("index of the channel's region")
    channel_generation: int = u64()


class Adopt(Record, size=32):
    """Have a region that was given to a channel."""

    index: int = u64()
    generation: int = u64()
    channel: int = u64()
    channel_generation: int = u64()


class Declare(Record, size=24):
    """A function of a service may be run again where its worker died."""

    index: int = u64("of the service's region")
    generation: int = u64()
    function: int = u32("its number")
    _reserved: None = reserved(4)


class Remove(Record, size=72):
    """Remove a channel that nobody has open, with what is left in it."""

    kind: int = u8()
    _reserved: None = reserved(7)
    name: bytes = raw(64)
