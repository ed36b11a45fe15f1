"""What is free is always zeros: memory that was somebody's becomes so, and others' only then.

Where a source does not let its memory be cleared that is said and tried again, and until then nobody gets it. A page
that is worn out, as it is bad again as soon as it was cleared, is given to nobody any more.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from softcxl.memory import sparse
from softcxl.pool.layout import PAGE

if TYPE_CHECKING:
    from softcxl.fm.pool.sources import Held, Sources

_OFFSET: Final = (1 << 56) - 1
_TRIES: Final = 3
_ZEROS: Final = bytes(1 << 20)


@dataclass(frozen=True)
class Stain:
    """Memory that could not be made zeros: from one pool address to another, and why. Without that it is worn out."""

    start: int
    end: int
    why: str = ""


class Cleaning:
    """Clears and frees the memory of `sources`. Clearing takes no lock of the server's, all else is done with it."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.held_back: dict[int, str] = {}
        """Pool addresses of extents that are nobody's, and could not be cleared: why."""
        self._retired: set[tuple[int, int]] = set()
        self.event: Callable[[str, str, Mapping[str, Any]], None] = lambda kind, subject, detail: None

    def clear(self, extents: Iterable[tuple[Sequence[int], int]]) -> list[Stain]:
        """Make extents zeros: pool addresses of some, and how many bytes each of them has. Neighbours at once. Returns
        what could not be."""
        starts = sorted(
            (address, address + capacity) for addresses, capacity in extents for address in addresses
        )
        merged: list[tuple[int, int]] = []
        for start, end in starts:
            if merged and merged[-1][1] == start:
                merged[-1] = merged[-1][0], end
            else:
                merged.append((start, end))
        stains: list[Stain] = []
        for start, end in merged:
            held = self._sources.all.get(start >> 56)
            if held is not None:
                stains += self._clear(held, start, end)
        return stains

    def free(self, extents: Iterable[int], stains: Sequence[Stain] = ()) -> None:
        """Free extents, which were cleared but for what is stained: those are held back."""
        freed: dict[int, list[int]] = {}
        for extent in self._clean(extents, stains) if stains else extents:
            offset = self._sources.offset(extent)
            if extent >> 56 in freed:
                freed[extent >> 56].append(offset)
            else:
                freed[extent >> 56] = [offset]
        for number, offsets in freed.items():
            held = self._sources.all.get(number)
            if held is None:
                continue
            for offset in offsets:
                held.regions.pop(offset, None)
            self._sources.placement.free_all(number, offsets)
        for stain in stains:
            if not stain.why:
                self._retire(stain)

    def clear_free(self, held: Held, lock: Any) -> None:
        """Make all that is free of a source zeros, without the server's `lock`: a server was killed while it gave
        memory back, or the memory was lost. What comes meanwhile is clean, and nobody is given any."""
        for offset, size in held.space.extents():
            start = self._sources.at(held.number, offset)
            stains = self._clear(held, start, start + size)
            if stains:
                with lock:
                    for first, _ in self._sources.set_aside(held, offset, offset + size):
                        self.free([self._sources.at(held.number, first)], stains)

    def again(self, lock: Any) -> int:
        """Try once more to clear what could not be, without the server's `lock`. Returns how much could."""
        with lock:
            tried = [(place, self._size(place)) for place in self.held_back]
        done = 0
        for place, size in tried:
            stains = self.clear([([place], size)])
            with lock:
                if why := next((one.why for one in stains if one.why), ""):
                    self.held_back[place] = why
                    continue
                del self.held_back[place]
                self.free([place], stains)
                done += 1
        return done

    def is_retired(self, held: Held, page: int) -> bool:
        """Whether a page is given to nobody any more."""
        return (held.number, page) in self._retired

    def told(self) -> dict[int, tuple[int, str]]:
        """By the number of each source of which something is held back: how many bytes, and why."""
        sizes: defaultdict[int, int] = defaultdict(int)
        whys: dict[int, str] = {}
        for place, why in self.held_back.items():
            sizes[place >> 56] += self._size(place)
            whys[place >> 56] = why
        return {number: (size, whys[number]) for number, size in sizes.items()}

    # -- within ----------------------------------------------------------------------------------------------

    def _clear(self, held: Held, start: int, end: int) -> list[Stain]:
        """Make a range of pool addresses zeros. Returns what could not be."""
        try:
            return self._cleared(held, start, end)
        except Exception as error:  # noqa: BLE001 - whatever it was, nobody gets that memory as it is
            return [Stain(start, end, str(error) or type(error).__name__)]

    def _cleared(self, held: Held, start: int, end: int) -> list[Stain]:
        offset, size, worn = self._sources.offset(start), end - start, []
        if held.source is not None:
            worn, tries = held.source.poisoned(offset, size), 0
            while worn and tries < _TRIES:  # it may be erased meanwhile, and not worn out
                for at, length in worn:
                    held.source.clear_poison(at, length)
                worn, tries = held.source.poisoned(offset, size), tries + 1
        if not sparse.punch(held.fd, held.offset + offset, size):
            for done in range(0, size, len(_ZEROS)):  # a file system that has no holes
                os.pwrite(held.fd, _ZEROS[: size - done], held.offset + offset + done)
        first = start - offset
        return [
            Stain(first + at // PAGE * PAGE, first - (-(at + length) // PAGE) * PAGE) for at, length in worn
        ]

    def _clean(self, extents: Iterable[int], stains: Sequence[Stain]) -> Iterable[int]:
        """Those that may be freed; the others are held back."""
        for extent in extents:
            end = extent + self._size(extent)
            why = next((one.why for one in stains if one.why and one.start < end and extent < one.end), "")
            if not why:
                yield extent
                continue
            held = self._sources.all[extent >> 56]
            held.regions.pop(self._sources.offset(extent), None)
            self.held_back[extent] = why
            self.event("memory held back", held.name, {"offset": extent & _OFFSET, "why": why})

    def _retire(self, stain: Stain) -> None:
        """Give pages to nobody any more, of those that are free."""
        held = self._sources.all[stain.start >> 56]
        for place in range(stain.start, stain.end, PAGE):
            offset = self._sources.offset(place)
            if self._sources.take_out(held, offset):
                self._retired.add((held.number, offset))
                self.event("memory retired", held.name, {"offset": offset, "size": PAGE})

    def _size(self, place: int) -> int:
        held = self._sources.all.get(place >> 56)
        return 0 if held is None else held.space.size_at(self._sources.offset(place))


__all__ = ["Cleaning", "Stain"]
