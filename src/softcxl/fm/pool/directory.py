"""The arena's directory as the server has it.

Every change that matters is one store of a word, made last: what is found after a server was killed is either what
was before or what should be, never a half of it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from softcxl.fm.pool.errors import ArenaUnfit
from softcxl.memory import sparse
from softcxl.pool import layout
from softcxl.pool.layout import (
    HEADER,
    REGION,
    SLOT,
    SOURCE,
    Header,
    Plan,
    RegionState,
    SlotState,
    SourceState,
)
from softcxl.pool.native import Caller, Memory, Queue

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_Q = struct.Struct("<Q")
_I = struct.Struct("<I")
_WORD = 24  # bits below an epoch or a generation
_STATE = 0xFF
_EPOCHS = (1 << 40) - 1
_SPOILED = 1 << 31  # of a source's generation


class Directory:
    """The directory in the arena `fd`, which is made where there is none, and taken over where there is one.

    `ring` wakes who sleeps behind a device on the word at that offset. Raises `ArenaUnfit` where the file holds
    something else, or another layout.
    """

    def __init__(
        self,
        fd: int,
        plan: Plan | None = None,
        *,
        lease: float = 10.0,
        ring: Callable[[int], object] | None = None,
    ) -> None:
        size = os.fstat(fd).st_size
        if size < layout.PAGE:
            raise ArenaUnfit(f"the arena has {size} bytes, which is less than its header")
        self.fd = fd
        self._mine = _lock(fd)
        self.map = mmap.mmap(fd, size)
        self.memory = Memory(self.map, ring=ring)
        self.fresh = _Q.unpack_from(self.map, HEADER["magic"])[0] == 0
        if self.fresh:
            self._make(plan or Plan(), size, lease)
        self.plan = self._check(size)
        self._slots_at, self._regions_at = self.plan.slots_at, self.plan.regions_at
        self._used = self.memory.load(HEADER["regions_used"])
        self._store32(HEADER["lease"], round(lease * 1000))
        self.epoch = self.memory.add(HEADER["epoch"], 1)
        self.clean = bool(self.map[HEADER["clean"]])
        """Whether the server before this one has ended in order."""
        self._store32(HEADER["clean"], 0)
        self._take_own_slot()

    def close(self) -> None:
        """Give the mapping up, and the arena to another server."""
        os.close(self._mine)
        del self.memory
        try:
            self.map.close()
        except BufferError:
            pass  # somebody holds a view: the mapping goes with it

    def _make(self, plan: Plan, size: int, lease: float) -> None:
        if size < plan.size:
            raise ArenaUnfit(f"the arena has {size} bytes, its directory and heap take {plan.size}")
        for slot in range(plan.slots):
            at = plan.calls_at + slot * layout.CALLS_STRIDE
            Caller.make(self.memory, at, layout.CALLS_STRIDE, layout.CALLS, layout.CALL_STRIDE)
        Queue.make(self.memory, plan.queue_at, layout.QUEUE_SIZE, layout.QUEUE_CELLS, layout.LINE)
        header = Header(
            magic=0,
            version=layout.VERSION,
            ready=0,
            size=plan.size,
            identity=int.from_bytes(os.urandom(8), "little"),
            epoch=0,
            beat=0,
            sources=layout.MAX_SOURCES + 1,
            slots=plan.slots,
            regions=plan.regions,
            sources_at=plan.sources_at,
            slots_at=plan.slots_at,
            regions_at=plan.regions_at,
            calls_at=plan.calls_at,
            calls_stride=layout.CALLS_STRIDE,
            queue_at=plan.queue_at,
            queue_size=layout.QUEUE_SIZE,
            heap_at=plan.heap_at,
            health=0,
            lease=round(lease * 1000),
            clean=1,
            regions_used=0,
        )
        self.map[: Header.__layout__.size] = header.pack()
        self.memory.store(HEADER["magic"], layout.MAGIC)

    def _check(self, size: int) -> Plan:
        header = Header.unpack(self.map[: Header.__layout__.size])
        if header.magic != layout.MAGIC or header.version != layout.VERSION:
            raise ArenaUnfit(
                f"the arena is of no pool of version {layout.VERSION}: it begins with {header.magic:#x}, "
                f"version {header.version}"
            )
        plan = Plan(header.slots, header.regions, header.size - header.heap_at)
        found = (header.sources_at, header.slots_at, header.regions_at, header.calls_at, header.queue_at)
        wanted = (plan.sources_at, plan.slots_at, plan.regions_at, plan.calls_at, plan.queue_at)
        sizes = (header.calls_stride, header.queue_size, header.sources)
        sizes_wanted = (layout.CALLS_STRIDE, layout.QUEUE_SIZE, layout.MAX_SOURCES + 1)
        fits = (
            header.heap_at == plan.heap_at and plan.heap > 0 and plan.size <= size and 1 < plan.slots <= 65536
        )
        if found != wanted or sizes != sizes_wanted or not fits:
            raise ArenaUnfit(f"the arena's directory is damaged: it says {header}")
        return plan

    # -- header ----------------------------------------------------------------------------------------------

    @property
    def header(self) -> Header:
        """What the header says now."""
        return Header.unpack(self.map[: Header.__layout__.size])

    def ended(self) -> None:
        """The server ends, and all that is free is zeros."""
        self._store32(HEADER["clean"], 1)

    def ready(self) -> None:
        """Let clients in."""
        self._store32(HEADER["ready"], 1)

    def beat(self) -> None:
        """Show that the server lives."""
        self.memory.add(HEADER["beat"], 1)

    def health_changed(self) -> None:
        """Have clients look at sources and copies again."""
        self.memory.add(HEADER["health"], 1)

    # -- sources ---------------------------------------------------------------------------------------------

    def set_source(self, number: int, name: str, size: int, state: SourceState) -> None:
        """Write a source's line."""
        at = self.plan.sources_at + 64 * number
        self.map[at + SOURCE["name"] : at + 64] = name.encode()[:48].ljust(48, b"\0")
        self.memory.store(at, size)
        word = self.memory.load(at + SOURCE["state"])
        before, generation = word & 0xFFFFFFFF, word >> 32
        # One that fails once more before it has been used again is as old as it was
        if before != state and (state == SourceState.HEALTHY or before in (0, SourceState.HEALTHY)):
            generation = 1 + max(self.source_generation(line) for line in range(layout.MAX_SOURCES + 1))
        if state == SourceState.HEALTHY:
            generation &= ~_SPOILED
        self.memory.store(at + SOURCE["state"], generation << 32 | state)
        self.health_changed()

    def source_generation(self, number: int) -> int:
        """Of two sources that do not answer, which one failed first: that with the lower one."""
        return self.memory.load(self.plan.sources_at + 64 * number + SOURCE["state"]) >> 32 & ~_SPOILED

    def spoil_source(self, number: int) -> None:
        """What a source held is lost, and will not be there when it answers again."""
        at = self.plan.sources_at + 64 * number + SOURCE["state"]
        self.memory.store(at, self.memory.load(at) | _SPOILED << 32)

    def source_spoiled(self, number: int) -> bool:
        """Whether that is so."""
        return bool(self.memory.load(self.plan.sources_at + 64 * number + SOURCE["state"]) >> 32 & _SPOILED)

    def source_name(self, number: int) -> str:
        """The name that a source had when the arena was last served; empty where there was none."""
        at = self.plan.sources_at + 64 * number + SOURCE["name"]
        return layout.decode_name(self.map[at : at + 48])

    def source_size(self, number: int) -> int:
        """The bytes that it had."""
        return self.memory.load(self.plan.sources_at + 64 * number)

    def source_state(self, number: int) -> int:
        """A source's state, as its line says."""
        return self.memory.load(self.plan.sources_at + 64 * number + SOURCE["state"]) & 0xFFFFFFFF

    # -- slots -----------------------------------------------------------------------------------------------

    def slot_at(self, slot: int) -> int:
        """Where a slot's record is."""
        return self._slots_at + 256 * slot

    def slot(self, slot: int) -> layout.Slot:
        """A slot's record."""
        at = self.slot_at(slot)
        return layout.Slot.unpack(self.map[at : at + 256])

    def slot_state(self, slot: int) -> tuple[int, SlotState]:
        """Its epoch and state. A state that is none counts as dead."""
        word = self.memory.load(self.slot_at(slot))
        state = word & _STATE
        return word >> _WORD, SlotState(state) if state <= SlotState.DEAD else SlotState.DEAD

    def lives(self, slot: int, epoch: int) -> bool:
        """Whether who had a slot in that epoch has it yet, and is not known to be dead."""
        return slot < self.plan.slots and self.slot_state(slot) == (epoch, SlotState.LIVE)

    def take_slot(
        self, slot: int, *, pid: int, start: int, remote: bool, token: int, name: str, host: str
    ) -> int:
        """Give a free slot to a client. Returns its epoch."""
        at = self.slot_at(slot)
        epoch = (self.memory.load(at) >> _WORD) + 1 & _EPOCHS
        record = layout.Slot(
            word=epoch << _WORD | SlotState.DEAD,
            pid=pid,
            flags=int(remote),
            start=start,
            token=token,
            beat=0,
            intent=0,
            journal_at=0,
            journal_size=0,
            name=name.encode(),
            host=host.encode() or host_of(pid),
        )
        self.map[at + 8 : at + 256] = record.pack()[8:]
        self.memory.store(at, epoch << _WORD | SlotState.LIVE)
        return epoch

    def _take_own_slot(self) -> None:
        # Of the server's epoch: whatever the server before this one had locked is nobody's from here on
        at = self.slot_at(layout.SERVER)
        pid = os.getpid()
        record = layout.Slot(
            word=0,
            pid=pid,
            flags=0,
            start=started(pid),
            token=0,
            beat=0,
            intent=0,
            journal_at=0,
            journal_size=0,
            name=b"server",
            host=host_of(pid),
        )
        self.map[at + 8 : at + 256] = record.pack()[8:]
        self.memory.store(at, (self.epoch & _EPOCHS) << _WORD | SlotState.LIVE)

    def set_slot(self, slot: int, epoch: int, state: SlotState) -> None:
        """Change a slot's state."""
        self.memory.store(self.slot_at(slot), epoch << _WORD | state)

    def set_journal(self, slot: int, at: int, size: int) -> None:
        """Tell a client where its journal is."""
        self.memory.store(self.slot_at(slot) + SLOT["journal_at"], at)
        self.memory.store(self.slot_at(slot) + SLOT["journal_size"], size)

    def taken_slots(self) -> list[int]:
        """Slots of clients that are not free."""
        words = self._words(self.plan.slots_at, self.plan.slots)
        return (np.flatnonzero(words[1:, 0] & np.uint64(_STATE)) + 1).tolist()

    def calls_at(self, slot: int) -> int:
        """Where a slot's table of calls is."""
        return self.plan.calls_at + slot * layout.CALLS_STRIDE

    # -- regions ---------------------------------------------------------------------------------------------

    def region_at(self, index: int) -> int:
        """Where a region's record is."""
        return self._regions_at + 256 * index

    def region(self, index: int) -> layout.RegionRecord:
        """A region's record."""
        at = self.region_at(index)
        return layout.RegionRecord.unpack(self.map[at : at + 256])

    def region_name(self, index: int) -> str:
        """A region's name; empty where it has none."""
        at = self.region_at(index) + REGION["name"]
        return layout.decode_name(self.map[at : at + 64])

    def make_region(
        self,
        index: int,
        size: int,
        owner: int,
        flags: int,
        mode: int,
        request: int,
        identity: int,
        lease: int,
        capacity: int,
        extents: tuple[int, ...],
        name: bytes = b"",
    ) -> int:
        """Write a free record, all of it but its first word, and then that. Returns its generation."""
        at = self._regions_at + 256 * index
        generation = (self.memory.load(at) >> _WORD) + 1 & _EPOCHS
        copies = len(extents)
        RECORDS[copies].pack_into(
            self.map, at + 8, size, owner, flags, copies, mode, request, identity, lease, capacity, _WHOLE[copies],
            *extents, name,
        )  # fmt: skip
        if index >= self._used:
            self._used = index + 1
            self.memory.store(HEADER["regions_used"], self._used)
        self.memory.store(at, generation << _WORD | RegionState.LIVE)
        return generation

    def set_region(self, index: int, generation: int, state: int) -> None:
        """Change a record's state."""
        self.memory.store(self._regions_at + 256 * index, generation << _WORD | state)

    def drop_region(self, index: int) -> None:
        """Nothing in a record is believed but its generation."""
        at = self._regions_at + 256 * index
        self.memory.store(at, self.memory.load(at) >> _WORD << _WORD | RegionState.FREE)

    def set_flags(self, index: int, flags: int) -> None:
        """Change what a region is said to be."""
        self._store32(self.region_at(index) + REGION["flags"], flags)

    def disown_region(self, index: int) -> None:
        """The owner of a region that stays has gone."""
        self._store32(self.region_at(index) + REGION["owner"], layout.SERVER)

    def region_words(self) -> NDArray[np.uint64]:
        """The records that have ever been used, as rows of 32 words: what they are at any moment."""
        used = self.memory.load(HEADER["regions_used"])
        return self._words(self.plan.regions_at, min(used, self.plan.regions))

    def pass_region_on(self, index: int, owner: int, flags: int, identity: int) -> None:
        """It is another's."""
        at = self.region_at(index)
        self.memory.store(at + REGION["identity"], identity)
        self.memory.store(at + REGION["owner"], flags << 32 | owner)

    def used_regions(self) -> NDArray[np.uint64]:
        """The records up to the last one that is somebody's, whatever the header says of their number."""
        start, whole = self.plan.regions_at, 256 * self.plan.regions
        end = max((end for _, end in sparse.data_ranges(self.fd, start, whole)), default=start)
        words = self._words(start, -(-(end - start) // 256))
        taken = np.flatnonzero(words[:, 0])
        count = int(taken[-1]) + 1 if len(taken) else 0
        if count != self._used:
            self._used = count
            self.memory.store(HEADER["regions_used"], count)
        return words[:count]

    def _words(self, at: int, count: int) -> NDArray[np.uint64]:
        return np.frombuffer(self.map, "<u8", count * 32, at).reshape(count, 32)

    def _store32(self, at: int, value: int) -> None:
        # Always one of two in a word of 64 bits of which nobody else writes the other
        self.map[at : at + 4] = _I.pack(value)


RECORDS = [
    struct.Struct(f"<Q4I4Q64s{copies}Q{8 * (layout.MAX_COPIES - copies)}x64s")
    for copies in range(layout.MAX_COPIES + 1)
]
"""A new region's record behind its first word, by how many copies it has: the second line is one piece."""

_WHOLE = [struct.pack("<32xI28x", (1 << copies) - 1) for copies in range(layout.MAX_COPIES + 1)]
"""That line, where nobody has locked it, and every copy is healthy."""

assert REGION["lock"] == 64
assert REGION["healthy"] == 96
assert REGION["extent0"] == 128


def _lock(fd: int) -> int:
    # An open file of its own: clients are handed the other one, and would hold the lock as long as they live. Not by
    # flock, which the arena's owner may have taken for itself
    mine = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.fcntl(mine, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        os.close(mine)
        raise ArenaUnfit("another server has this arena") from error
    return mine


def started(pid: int) -> int:
    """When a process began, in clock ticks since the machine did (proc(5), stat, field 22); 0 where there is none that
    runs any more. Raises `OSError` where that cannot be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0


def host_of(pid: int) -> bytes:
    """Where a process runs: those that have the same here can look after each other by number. Empty: unknown."""
    try:
        return f"{os.uname().nodename[:40]} {Path(f'/proc/{pid}/ns/pid').stat().st_ino}".encode()
    except OSError:
        return b""
