"""Poison: which 64-byte lines of a device's media are bad, and why: one truth for lists, events and reads.

A line can have gone bad unnoticed. That is latent poison: in no list, until a read, a scrub or a scan meets it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.events import EventLog
from softcxl.spec.command.poison import (
    CLEAR_POISON,
    GET_POISON_LIST,
    INJECT_POISON,
    ClearPoisonRequest,
    GetPoisonListRequest,
    GetPoisonListResponse,
    InjectPoisonRequest,
    MediaErrorAddress,
    MediaErrorRecord,
    PoisonListFlags,
    PoisonSource,
)
from softcxl.spec.cxl.events import (
    GENERAL_MEDIA_EVENT,
    EventAddress,
    EventDescriptor,
    EventHeader,
    GeneralMediaEvent,
    GeneralMediaEventType,
    TransactionType,
)

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

LINE = 64
"""Bytes of a cache line, the unit of poison (CXL 3.1 §8.2.9.9.4)."""


class PoisonMap:
    """The poisoned lines of a device, by DPA, each with its source (CXL 3.1 Table 8-140).

    What a look-up or a change costs does not grow with the number of lines: addresses are kept in order in chunks of
    bounded size, each with the address that its lines are not below.
    """

    chunk = 512

    def __init__(self) -> None:
        self._source: dict[int, int] = {}
        self._chunks: list[list[int]] = [[]]  # only the first one is ever empty
        self._first = [0]

    def __len__(self) -> int:
        return len(self._source)

    def __contains__(self, dpa: int) -> bool:
        return dpa & ~(LINE - 1) in self._source

    def add(self, dpa: int, source: int) -> None:
        """Poison the line at `dpa`. A line that is poisoned already keeps its first source."""
        line = dpa & ~(LINE - 1)
        if line in self._source:
            return
        self._source[line] = source
        at = self._chunk_of(line)
        chunk = self._chunks[at]
        insort(chunk, line)
        if len(chunk) > self.chunk:
            half = len(chunk) // 2
            self._chunks.insert(at + 1, chunk[half:])
            self._first.insert(at + 1, chunk[half])
            del chunk[half:]

    def remove(self, dpa: int, length: int = LINE) -> int:
        """Take the poison off every line of the range; returns how many there were."""
        start, end = dpa & ~(LINE - 1), dpa + length
        before, at = len(self._source), self._chunk_of(start)
        while at < len(self._chunks) and self._first[at] < end:
            chunk = self._chunks[at]
            low, high = bisect_left(chunk, start), bisect_left(chunk, end)
            for line in chunk[low:high]:
                del self._source[line]
            del chunk[low:high]
            if chunk or not at:
                at += 1
            else:
                del self._chunks[at], self._first[at]
        return before - len(self._source)

    def any_in(self, dpa: int, length: int) -> int | None:
        """The first poisoned line of the range, or None."""
        start, end = dpa & ~(LINE - 1), dpa + length
        if end <= start + LINE:
            return start if start in self._source and start < end else None
        for at in range(self._chunk_of(start), len(self._chunks)):
            chunk = self._chunks[at]
            place = bisect_left(chunk, start)
            if place < len(chunk):
                return chunk[place] if chunk[place] < end else None
        return None

    def runs(self, dpa: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Poisoned stretches of the range as (DPA, bytes, source), neighbours of one source together, by DPA."""
        first = last = source = -1
        for line in self._lines(dpa, length):
            if line == last + LINE and self._source[line] == source:
                last = line
                continue
            if first >= 0:
                yield first, last + LINE - first, source
            first, last, source = line, line, self._source[line]
        if first >= 0:
            yield first, last + LINE - first, source

    def _chunk_of(self, line: int) -> int:
        return bisect_left(self._first, line + 1) - 1

    def _lines(self, dpa: int, length: int) -> Iterator[int]:
        """The poisoned lines of the range, in order."""
        start, end = dpa & ~(LINE - 1), dpa + length
        while start < end:
            at = self._chunk_of(start)
            chunk, following = self._chunks[at], at + 1
            lines = chunk[bisect_left(chunk, start) : bisect_left(chunk, end)]
            start = self._first[following] if following < len(self._first) else end
            yield from lines


class PoisonCommands(CommandSet):
    """Get Poison List, Inject Poison and Clear Poison over `map`, of at most `limit` lines.

    A list too long for one reply is fetched by the same request again: the device remembers the address where
    it was, and goes on from there even if the list has changed meanwhile.
    """

    def __init__(self, device: Type3, limit: int) -> None:
        self.map = PoisonMap()
        self.latent = PoisonMap()
        self.limit = limit
        self.scanning = False
        self.sending = False  # poison goes out with the next data, whatever the media hold
        self.spoiled: list[Callable[[], None]] = []  # called when there is more latent poison
        self.listed: Callable[[int, PoisonSource], None] = lambda dpa, source: None
        """Called with each line that comes into the list."""
        self.cleared: Callable[[int, int], None] = lambda dpa, length: None
        """Called with each range (bytes) that poison was taken off."""
        self._device = device
        self._overflowed: int | None = None  # when, by the device's clock
        self._room = (device.cci.payload_max - GetPoisonListResponse.__layout__.size) // (
            MediaErrorRecord.__layout__.size
        )
        self._asked: tuple[int, int] | None = None  # address and length of a list half fetched
        self._next = 0

    def add(self, dpa: int, source: PoisonSource = PoisonSource.INTERNAL) -> bool:
        """Poison the line at `dpa` (in bytes), and log the event. Safe from any thread.

        Returns False where the list has no room for it. Raises `ValueError` for an address that the device does
        not have.
        """
        capacity = self._device.capacity
        if not 0 <= dpa < capacity.end:
            raise ValueError(f"DPA {dpa:#x}: the device has {capacity.end:#x} bytes")
        with self._device.lock:
            if dpa in self.map:
                return True
            if not self._room_for_more():
                return False
            self._device.custody.goes_bad(dpa & -LINE)
            self.latent.remove(dpa)
            self.map.add(dpa, source)
            injected = source is PoisonSource.INJECTED
            self._device.events.record(
                EventLog.INFORMATIONAL if injected else EventLog.FAILURE,
                GeneralMediaEvent(
                    header=EventHeader(identifier=GENERAL_MEDIA_EVENT),
                    address=EventAddress.make(dpa=dpa // LINE, volatile=self._device.volatile_at(dpa)),
                    descriptor=EventDescriptor.make(uncorrectable=True),
                    event_type=GeneralMediaEventType.ECC_ERROR,
                    transaction_type=(
                        TransactionType.HOST_INJECT_POISON if injected else TransactionType.UNKNOWN
                    ),
                ),
            )
            self.listed(dpa, source)
            return True

    def _room_for_more(self) -> bool:
        full = len(self.map) >= self.limit
        if full and self._overflowed is None:
            self._overflowed = self._device.timestamp.now()
        return not full

    def clear(self, dpa: int, length: int = LINE) -> int:
        """Take the poison off `length` bytes from `dpa`; returns how many lines had it. Where the media are worn out
        it comes back at once, unnoticed. Safe from any thread."""
        with self._device.lock:
            removed = self.map.remove(dpa, length) + self.latent.remove(dpa, length)
            if len(self.map) < self.limit:
                self._overflowed = None
            if removed:
                self._device.custody.is_good(dpa, length)
            for line in self._device.faults.worn(dpa, length):
                self._go_bad(line)
            self.cleared(dpa, length)
            return removed

    # -- poison that nobody has noticed --------------------------------------------------------------------------

    def spoil(self, dpa: int) -> None:
        """The line at `dpa` goes bad, and nobody notices. Raises `ValueError` for an address that the device does not
        have. Safe from any thread."""
        capacity = self._device.capacity
        if not 0 <= dpa < capacity.end:
            raise ValueError(f"DPA {dpa:#x}: the device has {capacity.end:#x} bytes")
        with self._device.lock:
            if dpa not in self.map:
                self._go_bad(dpa)

    @property
    def any(self) -> bool:
        """There is a bad line, listed or latent, or one that is sent as if it were."""
        return bool(len(self.map) or len(self.latent) or self.sending)

    def bad(self) -> Iterator[tuple[int, int]]:
        """Stretches of bad lines as (DPA, bytes), listed ones and then latent ones."""
        for which in (self.map, self.latent):
            yield from ((dpa, length) for dpa, length, _ in which.runs(0, self._device.capacity.end))

    def _go_bad(self, line: int) -> None:
        self._device.custody.goes_bad(line & -LINE)
        self.latent.add(line, PoisonSource.INTERNAL)
        for tell in self.spoiled:
            tell()

    def met(self, dpa: int, length: int) -> int | None:
        """The first bad line that a host's read of the range meets, or None. It is noticed by that. The function's
        lock is held."""
        if self.sending:
            self.sending = False
            return dpa & -LINE
        line = self.latent.any_in(dpa, length)
        if line is not None:
            self.notice(line, TransactionType.HOST_READ)
        known = self.map.any_in(dpa, length)
        return known if line is None or (known is not None and known < line) else line

    def notice(self, line: int, by: TransactionType, *, quiet: bool = False) -> bool:
        """A line with latent poison is met: it is listed, and, unless `quiet`, logged. Returns False where the list is
        full; it stays latent then. The function's lock is held."""
        room = self._room_for_more()
        if room:
            self.latent.remove(line)
            self.map.add(line, PoisonSource.INTERNAL)
            self.listed(line, PoisonSource.INTERNAL)
        if not quiet:
            self._device.faults.uncorrected(line, by, listed=room)
        return room

    def reset(self) -> None:
        """A conventional reset: poison stays (Identify says so), a list half fetched does not."""
        self._asked = None

    @command(GET_POISON_LIST)
    def get_poison_list(self, request: GetPoisonListRequest) -> GetPoisonListResponse:
        start, length = request.address, request.length * LINE
        self.aligned(start, length)
        asked, end = (start, length), start + length
        if asked == self._asked:
            start = self._next
        records: list[MediaErrorRecord] = []
        self._asked = None
        for first, size, source in self.map.runs(start, end - start):
            if len(records) == self._room:
                self._asked, self._next = asked, first
                break
            address = MediaErrorAddress(first)  # its low bits, which are no part of a line's, hold the source
            address.source = PoisonSource(source)
            records.append(MediaErrorRecord(address=address, length=size // LINE))
        flags = PoisonListFlags()
        flags.more, flags.overflow = self._asked is not None, self._overflowed is not None
        flags.scan_in_progress = self.scanning
        return GetPoisonListResponse(
            flags=flags, overflow_timestamp=self._overflowed or 0, count=len(records), records=records
        )

    @command(INJECT_POISON)
    def inject_poison(self, request: InjectPoisonRequest) -> None:
        self._single(request.address)
        if not self.add(request.address, PoisonSource.INJECTED):
            raise CommandError(ReturnCode.INJECT_POISON_LIMIT)

    @command(CLEAR_POISON)
    def clear_poison(self, request: ClearPoisonRequest) -> None:
        self._single(request.address)
        if self._device.faults.worn(request.address, LINE):
            raise CommandError(ReturnCode.PERMANENT_MEDIA_FAILURE)
        self._device.space.write(request.address, request.write_data)
        self.clear(request.address)

    def _single(self, address: int) -> None:
        """Refuse a line that is none, or none of the host's, or locked."""
        self.aligned(address, LINE)
        if self._device.is_others(address, LINE):
            raise CommandError(ReturnCode.INVALID_PHYSICAL_ADDRESS)
        self.unlocked(address)

    def aligned(self, address: int, length: int) -> None:
        """Refuse a range (in bytes) that does not begin at a line, or that the device does not have."""
        if address % LINE:
            raise CommandError(ReturnCode.INVALID_INPUT)
        if address + length > self._device.capacity.end:
            raise CommandError(ReturnCode.INVALID_PHYSICAL_ADDRESS)

    def unlocked(self, address: int, length: int = LINE) -> None:
        """Refuse a range (in bytes) that is locked."""
        if self._device.security.locks(address, length):
            raise CommandError(ReturnCode.MEDIA_DISABLED)
