"""What befalls the pool's memory, shown to all at once: a copy is given up first, only then may its bytes go bad."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from softcxl.fm.pool.copies import Copies
from softcxl.fm.pool.sweep import Sweeps, bits_on
from softcxl.pool.layout import LINE, PAGE, SourceState

if TYPE_CHECKING:
    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.regions import Regions
    from softcxl.fm.pool.source import Ranges
    from softcxl.fm.pool.sources import Held, Sources

_TRIES = 10  # ticks
_PIECE = 1 << 20
"""Bytes that go bad at once, at most, of which each line is noted: more are an erasure, however they are lost."""


class Health:
    """Watches the sources of a pool.

    What has to be there when a source's observer returns is done at once, with the server's `lock`, and without a
    call of any source; the rest goes to `later`, which runs it in another thread. `changed` is told when copies have
    gone or memory has come: there may be something to rebuild, or room for it."""

    def __init__(
        self,
        directory: Directory,
        sources: Sources,
        regions: Regions,
        lock: Any,
        *,
        later: Callable[[Callable[[], None]], None],
        changed: Callable[[], None],
        event: Callable[[str, str, Mapping[str, Any]], None],
    ) -> None:
        self._directory = directory
        self._sources = sources
        self._regions = regions
        self._lock = lock
        self._later = later
        self._changed = changed
        self._event = event
        self._pages: dict[tuple[Held, int], int] = {}
        self._told: dict[tuple[Held, int], set[int]] = {}
        """Lines of these pages that a source has told of, and may not have made bad yet."""
        self._out: set[tuple[Held, int]] = set()
        self._closed = False
        self._sweeps = Sweeps(directory, lock, later)

    @property
    def sweeps(self) -> Sweeps:
        """What is done to all regions of a source."""
        return self._sweeps

    def watch(self) -> None:
        """Hear from all sources from now on, and what is so already."""
        with self._lock:
            for number in self._sources.lost:
                self._sweeps.at_once(number, Copies.drop)
            self._directory.health_changed()
        for held in list(self._sources.all.values()):
            if held.source is not None:
                held.source.watch(_Observer(self, held))
        for number in self._sources.lost:
            if number in self._sources.all:
                self._answers(self._sources.all[number])

    def _answers(self, held: Held) -> None:
        """A source that had failed when the server before ended, which may be amid its return, answers unless it has
        told otherwise."""
        with self._lock:
            if held.failures:
                return
            spoiled = self._directory.source_spoiled(held.number)
            self._sweeps.at_once(held.number, Copies.forget if spoiled else Copies.revive)
        if spoiled:
            self._empty(held, 0)
        else:
            with self._lock:
                if not held.failures:
                    self._sources.set_state(held.number, SourceState.HEALTHY)
        self._looked_at()

    def close(self) -> None:
        """The server ends: what befalls its sources from now on the next one is told when it watches."""
        with self._lock:
            self._closed = True
        self._sweeps.finish(hurry=True)

    # -- what sources tell -----------------------------------------------------------------------------------

    def failed(self, held: Held, reason: str) -> None:
        """No copy there is read or written from now on."""
        with self._lock:
            if self._closed:
                return
            held.failures += 1
            self._sources.set_state(held.number, SourceState.FAILED, reason)
            self._sweeps.begin(held.number, Copies.drop, self._looked_at)
        self._event("source failed", held.name, {"reason": reason})

    def returned(self, held: Held, kept: bool) -> None:
        """It answers again, with or without what it held."""
        with self._lock:
            if self._closed:
                return
            if not kept:
                self._directory.spoil_source(held.number)
            # Also where that befell it before it failed once more: nothing of it has been used since
            spoiled = self._directory.source_spoiled(held.number)
            failures = held.failures

            def then() -> None:
                if spoiled:
                    self._later(lambda: self._empty(held, failures))
                elif held.failures == failures:
                    self._sources.set_state(held.number, SourceState.HEALTHY)
                self._looked_at()

            self._sweeps.begin(held.number, Copies.forget if spoiled else Copies.revive, then)
        self._event("source returned", held.name, {"kept": not spoiled})

    def spoiled(self, held: Held) -> None:
        """What it held is lost, while it does not answer: that outlives this server."""
        with self._lock:
            if not self._closed:
                self._directory.spoil_source(held.number)

    def _looked_at(self) -> None:
        self._directory.health_changed()
        self._changed()

    def poisoned(self, held: Held, ranges: Ranges) -> None:
        """Copies that have bytes there are read no more, but where they are known to be clean. Of one that is erased
        nothing is: where others have all of it, it is made anew."""
        aside: list[tuple[int, int]] = []
        with self._lock:
            if self._closed:
                return
            for start, length in ranges:
                if length > _PIECE:
                    aside += self._sources.set_aside(held, start, start + length)
                    continue
                first, end = start // LINE * LINE, start + length
                for at in range(first // PAGE * PAGE, end, PAGE):
                    self._pages[held, at] = 0
                    self._take_out(held, at)
                    lines = range(max(first, at), min(end, at + PAGE), LINE)
                    self._told.setdefault((held, at), set()).update(lines)
        touched = self._mark(held, ranges)
        self._event("poison", held.name, {"ranges": [list(one) for one in ranges[:16]]})
        if aside:
            self._later(partial(self._clean, held, aside))
        self._later(self._retire)
        if touched:
            self._changed()

    def clear(self, held: Held, offset: int, length: int) -> None:
        """Make lines good again of which it is known that nothing is in them then. Without the server's lock."""
        assert held.source is not None
        held.source.clear_poison(offset, length)
        with self._lock:
            for line in range(offset, offset + length, LINE):
                self._told.get((held, line // PAGE * PAGE), set()).discard(line)

    # -- later -----------------------------------------------------------------------------------------------

    def _empty(self, held: Held, failures: int) -> None:
        """Nothing of what a source holds is what was: what is free there becomes zeros before it is given to
        anybody."""
        self._sources.cleaning.clear_free(held, self._lock)
        with self._lock:
            if held.failures != failures:
                return  # it has failed again
            self._sources.set_state(held.number, SourceState.HEALTHY)
        self._changed()

    def about_to_be(self, held: Held, offset: int, length: int) -> list[tuple[int, int]]:
        """Lines in a range of a source that are poisoned at any moment, if they are not yet. With the server's lock."""
        return [
            (line, LINE)
            for (one, _), lines in self._told.items()
            if one is held
            for line in lines
            if offset - LINE < line < offset + length
        ]

    def expects(self, held: Held) -> bool:
        """Whether a source has told of poison that is not there yet, as far as is known."""
        return any(one is held and lines for (one, _), lines in list(self._told.items()))

    def tick(self) -> None:
        """Look again at memory that was about to go bad."""
        if self._pages:
            self._later(self._retire)

    def _clean(self, held: Held, aside: list[tuple[int, int]]) -> None:
        """Make zeros of what was free when it was erased, and have it given out again, but for pages that are worn. A
        source is not asked while it erases: that waits, and not the server's lock."""
        assert held.source is not None
        for offset, size in aside:
            self._give_back(held, offset, size)
        self._changed()

    def _give_back(self, held: Held, offset: int, size: int) -> None:
        place, cleaning = self._sources.at(held.number, offset), self._sources.cleaning
        stains = cleaning.clear([([place], size)])
        with self._lock:
            if not self._closed:
                cleaning.free([place], stains)

    def _take_out(self, held: Held, page: int) -> bool:
        """Have nobody given a page. False: it is not free."""
        if (held, page) not in self._out and self._sources.take_out(held, page):
            self._out.add((held, page))
        return (held, page) in self._out

    def _retire(self) -> None:
        """Clear poison where nobody has anything; what cannot be cleared is given to nobody any more. A source tells
        before it is so: a page is looked at again until it is, or for a while. One that is on its way from one to
        another is looked at until it has got there."""
        for (held, at), tries in () if self._closed else list(self._pages.items()):
            assert held.source is not None
            with self._lock:
                mine = self._take_out(held, at)
            bad = held.source.poisoned(at, PAGE)
            with self._lock:
                so = {line for start, length in bad for line in range(start, start + length, LINE)}
                if self._told.get((held, at), set()) - so and tries < _TRIES:
                    self._pages[held, at] = tries + 1
                    continue
                del self._pages[held, at]
                self._told.pop((held, at), None)
            if not mine:
                with self._lock:
                    if not self._mark(held, bad) and bad and not self._sources.cleaning.is_retired(held, at):
                        self._pages.setdefault((held, at), tries)
                self._changed()
                continue
            self._give_back(held, at, PAGE)
            with self._lock:
                self._out.discard((held, at))

    def _mark(self, held: Held, ranges: Ranges) -> bool:
        with self._lock:
            if self._closed:
                return False
            held.poisonings += 1
            erased = set(self._touched(held, [one for one in ranges if one[1] > _PIECE]))
            touched = self._touched(held, ranges)
            for index in touched:
                copies = Copies(self._directory, index)
                bits = bits_on(copies, held.number)
                if index in erased and copies.healthy & ~copies.poisoned & ~bits:
                    copies.drop(bits)
                else:
                    copies.set_poisoned(bits)
            self._directory.health_changed()
            return bool(touched)

    # -- whose it is -----------------------------------------------------------------------------------------

    def _touched(self, held: Held, ranges: Ranges) -> list[int]:
        """Regions that have bytes in these ranges of a source."""
        starts = np.sort(np.fromiter(held.regions, np.int64, len(held.regions)))
        found: set[int] = set()
        for start, length in ranges:
            first = max(int(np.searchsorted(starts, start, "right")) - 1, 0)
            near = starts[first : int(np.searchsorted(starts, start + length))].tolist()
            found.update(held.regions[at] for at in near if at + held.space.size_at(at) > start)
        return sorted(found)


class _Observer:
    """One source's."""

    def __init__(self, health: Health, held: Held) -> None:
        self._health = health
        self._held = held

    def failed(self, reason: str) -> None:
        self._health.failed(self._held, reason)

    def spoiled(self) -> None:
        self._health.spoiled(self._held)

    def returned(self, kept: bool) -> None:
        self._health.returned(self._held, kept)

    def poisoned(self, ranges: Ranges) -> None:
        self._health.poisoned(self._held, ranges)
