"""Poisoned lines of a region's copies are written anew, from copies that have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softcxl.fm.pool.copying import locked
from softcxl.pool.layout import HEADER, REGION, SERVER, split

if TYPE_CHECKING:
    from collections.abc import Callable

    from softcxl.fm.pool.copies import Copies
    from softcxl.fm.pool.copying import Copier
    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.health import Health
    from softcxl.fm.pool.sources import Held, Sources
    from softcxl.pool.native import Region

_TRIES = 3

_AT_ONCE = 0.005  # seconds that who asks is kept waiting for a lock
_LINE = 64
_PIECE = 64 << 10  # bytes that are looked at within one lock
_FIRST = 1  # the phase of a write in which the first copy is written
_OTHERS = 2  # the phase of a write in which the first copy has it all: see softcxl_region.h


class Repairer:
    """Repairs regions of a server, whose lock is `lock`.

    `refuse` is called with a copy whose lines go bad again as often as they are written.
    """

    def __init__(
        self,
        directory: Directory,
        sources: Sources,
        health: Health,
        copier: Copier,
        lock: Any,
        refuse: Callable[[Copies, int, int], None],
        repaired: Callable[[Copies, int, int], None],
    ) -> None:
        self._directory = directory
        self._sources = sources
        self._health = health
        self._copier = copier
        self._lock = lock
        self._refuse = refuse
        self._repaired = repaired

    def repair(self, region: Region, copies: Copies) -> str:
        """Write the poisoned lines of a region anew. Returns why that cannot be, or nothing.

        Raises `Busy`, `Stale`.
        """
        lost = 0
        for copy in range(copies.count):
            if copies.poisoned >> copy & 1 and copies.healthy >> copy & 1:
                lost += self._repair_copy(region, copies, copy)
        return f"{lost} bytes are poisoned in every copy" if lost else ""

    def _repair_copy(self, region: Region, copies: Copies, copy: int) -> int:
        """Write the poisoned lines of a copy anew. Returns how many bytes of it no other copy has."""
        place = copies.extent(copy)
        held = self._sources.all[place >> 56]
        mended = lost = 0
        for _ in range(_TRIES):
            told = held.poisonings
            ranges = [
                (start, min(_PIECE, at + length - start))
                for at, length in self._copier.poison(copies, copy)
                for start in range(at, at + length, _PIECE)
            ]
            done = [length for at, length in ranges if self._rewrite(held, region, copies, copy, at, length)]
            mended += sum(done)
            lost = sum(length for _, length in ranges) - sum(done)
            if not ranges and (self._health.expects(held) or self._set_clean(place, told, copies, copy)):
                break
            if lost:
                break
        else:
            # Its lines do not hold what is written there
            self._refuse(copies, copy, 0)
        if mended:
            self._repaired(copies, copy, mended)
        return lost

    def heal(self, region: Region, copies: Copies, offset: int, length: int, health: int) -> bool:
        """Make the poisoned lines of a range good which was written since the directory's count of health was that:
        each copy has the bytes, though its lines are marked. False: there may be poison since.

        Raises `Busy`, `Stale`.
        """
        first = -(-offset // _LINE) * _LINE
        end = offset + length if offset + length == copies.size else (offset + length) // _LINE * _LINE
        before: dict[int, tuple[int, int]] = {}
        was = -1
        # Piece by piece, as whoever writes meanwhile waits: what he writes is newer
        for start in range(first, max(end, first + 1), _PIECE):
            region.lock(_AT_ONCE)
            try:
                if was < 0:
                    was = copies.layout
                    before = self._as_it_is(copies)
                    if self._directory.memory.load(HEADER["health"]) != health:
                        return False
                elif was != copies.layout or before != self._as_it_is(copies):
                    return False
                if any(self._health.expects(self._held(copies, copy)) for copy in before):
                    return False
                for copy in before:
                    self._write_over(copies, copy, start, min(start + _PIECE, end))
            finally:
                region.unlock()
        for copy, (place, told) in before.items():
            if not self._copier.poison(copies, copy):
                self._set_clean(place, told, copies, copy)
        self._directory.health_changed()
        return True

    def _held(self, copies: Copies, copy: int) -> Held:
        return self._sources.all[split(copies.extent(copy))[0]]

    def _as_it_is(self, copies: Copies) -> dict[int, tuple[int, int]]:
        """Where the copies are that have poison, and how often there was some there."""
        marked = copies.healthy & copies.poisoned
        return {
            copy: (copies.extent(copy), self._held(copies, copy).poisonings)
            for copy in range(copies.count)
            if marked >> copy & 1 and self._copier.answers(copies, copy)
        }

    def _write_over(self, copies: Copies, copy: int, first: int, end: int) -> None:
        """Make the poisoned lines of a part of a copy good, with what is in them."""
        for at, size in self._copier.poison(copies, copy, first, end - first) if first < end else ():
            start, stop = max(at, first), min(at + size, end)
            if start < stop:
                data = bytes(self._copier.bytes(copies.extent(copy), start, stop - start))
                self._write_anew(copies, copy, start, data)

    def _write_anew(self, copies: Copies, copy: int, at: int, data: bytes) -> None:
        """Replace lines of a copy by what is in them. Whoever finds this server dead takes them for torn."""
        number, offset = split(copies.extent(copy))
        self._intend(copies, at, len(data), copy, _FIRST)
        self._health.clear(self._sources.all[number], offset + at, -(-len(data) // _LINE) * _LINE)
        self._copier.bytes(copies.extent(copy), at, len(data))[:] = data
        self._intend(copies, 0, 0, None)

    def _set_clean(self, place: int, told: int, copies: Copies, copy: int) -> bool:
        with self._lock:
            if copies.extent(copy) != place or self._sources.all[place >> 56].poisonings != told:
                return False
            copies.set_clean(1 << copy)
            return True

    def _rewrite(self, held: Held, region: Region, copies: Copies, copy: int, at: int, length: int) -> bool:
        """Write a range of a copy anew. False: no other copy has it."""
        with locked(region):
            good = self._copier.good(copies, copy, at, length)
            if good is None or not copies.healthy >> copy & 1:
                return False
            size = min(length, copies.size - at)
            data = bytes(self._copier.bytes(copies.extent(good), at, size))
            if good not in self._copier.holders(copies, at, length):
                return False  # it went while it was read
            # As if it were the end of a write of which the good copy has everything: whoever finds this server dead
            # brings it to the others.
            self._intend(copies, at, size, good)
            _, offset = split(copies.extent(copy))
            self._health.clear(held, offset + at, length)
            self._copier.bytes(copies.extent(copy), at, size)[:] = data
            self._intend(copies, 0, 0, None)
        return True

    def _intend(self, copies: Copies, at: int, length: int, first: int | None, phase: int = _OTHERS) -> None:
        memory, record = self._directory.memory, copies.at
        writes = memory.load(record + REGION["sequence"]) >> 24
        if first is None:
            memory.store(record + REGION["sequence"], (writes + 1 & (1 << 40) - 1) << 24)
            return
        memory.store(record + REGION["intent_at"], at)
        memory.store(record + REGION["intent_length"], length)
        memory.store(record + REGION["sequence"], writes << 24 | SERVER << 8 | first << 2 | phase)
