"""Copies that were lost are made anew on other memory, and poisoned lines are written anew from a copy that has them.

A copy that is to be made joins: from then on every writer writes it, too. Then the region is copied to it, chunk by
chunk, each within the region's lock and compared by checksum, while writers go on between chunks. At last the copy is
healthy. Whatever is done is in the region's record by single stores, in an order in which a server that is killed at
any point leaves a region that is as whole as before: the next server finds what joins, and copies it once more.

Regions with the fewest healthy copies come first. What cannot be done now, for want of memory on another device, is
done when there is some.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softcxl.fm.pool.copies import Copies, impaired
from softcxl.fm.pool.copying import PATIENCE, Copier, Progress, locked
from softcxl.fm.pool.repair import Repairer
from softcxl.pool.errors import Busy, Corrupt, Failed, NoRoom, PoolError, Stale
from softcxl.pool.layout import SourceState, split
from softcxl.pool.native import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.health import Health
    from softcxl.fm.pool.regions import Known, Regions
    from softcxl.fm.pool.sources import Sources

    Event = Callable[[str, str, Mapping[str, Any]], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orphan:
    """Where a copy of a region was on its way to, which nobody wants there any more. Writers may write there yet.

    `place` is its pool address; 0 where that is what the record says of another copy, which has got there.
    """

    index: int
    one: Known
    copy: int
    place: int


class Rebuilder:
    """Mends the regions of a server, in a thread of its own between `start` and `close`, or when `round` is called.

    `lock` is the server's: it is taken within a region's lock, never the other way round, and never while a source is
    asked for something.
    """

    def __init__(
        self,
        directory: Directory,
        sources: Sources,
        regions: Regions,
        health: Health,
        lock: Any,
        event: Event | None = None,
    ) -> None:
        self.directory = directory
        self.sources = sources
        self.regions = regions
        self.lock = lock
        self._event = event or (lambda kind, subject, detail: None)
        self._refused: dict[int, set[int]] = {}
        self._wake = threading.Event()
        self._looks = False
        self._thread: threading.Thread | None = None
        self._jobs: deque[Callable[[], None]] = deque()
        self.orphans: list[Orphan] = []
        self.under_way: dict[int, Progress] = {}
        self.waiting: dict[int, str] = {}
        """Why a region is not whole, by index, where nothing can be done about it now."""
        self.copier = Copier(directory, sources, health, lock, self._refuse)
        self.repairer = Repairer(directory, sources, health, self.copier, lock, self._refuse, self._repaired)
        self._reserve()

    # -- running -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, with what another server has left."""
        self._wake.set()
        self._thread = threading.Thread(target=self._run, name="pool rebuilding", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, after the chunk that is being copied. What joins goes on joining: the next server resumes it."""
        self.copier.stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def changed(self) -> None:
        """Memory has failed, or has come back, or is free again: look at all regions."""
        self._wake.set()

    def freed(self) -> None:
        """Memory is free again: look at all regions where one waits for that, or may be about to."""
        if self._looks or self.waiting or self.orphans:
            self._wake.set()

    def do(self, job: Callable[[], None]) -> None:
        """Have something done by the same thread, before what is not whole is seen to further."""
        self._jobs.append(job)
        self._wake.set()

    def told(self) -> dict[str, Any]:
        """What is under way, and what waits and why."""
        under_way = [one.told() for one in list(self.under_way.values())]
        waiting = [
            {"region": index, "name": self._name(index), "why": why}
            for index, why in sorted(self.waiting.items())
        ]
        return {"rebuilding": under_way, "waiting": waiting}

    def _run(self) -> None:
        while not self.copier.stopping.is_set():  # a round may have taken what woke it to stop
            # What only somebody's lock stood in the way of is tried again
            self._wake.wait(PATIENCE if self.orphans or _BUSY in self.waiting.values() else None)
            self._looks = True
            self._wake.clear()
            if self.copier.stopping.is_set():
                return
            try:
                self._do_jobs()
                self.round()
            except Exception:
                log.exception("rebuilding the pool's regions")
            finally:
                self._looks = False

    def _do_jobs(self) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            try:
                job()
            except Exception:  # the others are waited for
                log.exception("the pool's work")

    def round(self) -> None:
        """See to every region that is not whole, those with the fewest copies first; again where something has changed
        meanwhile, until there is nothing left that can be done."""
        seen: set[int] = set()
        found = impaired(self.directory)
        self._settle()
        self._refused = {index: refused for index, refused in self._refused.items() if index in found}
        self.waiting = {index: why for index, why in self.waiting.items() if index in found}
        while found and not self.copier.stopping.is_set():
            index = found.pop(0)
            if index not in seen:
                seen.add(index)
                self.mend(index)
            if self._jobs:
                return
            if self._wake.is_set():
                self._wake.clear()
                seen.clear()
                found = impaired(self.directory)

    def mend(self, index: int) -> bool:
        """Bring a region back to all of its copies, and to no poison, as far as that can be done now. Returns whether
        it is whole then."""
        with self.lock:
            one = self.regions.known.get(index)
            if one is None or one.leaving:
                return True
            self.regions.clearing.work_begins(index)
        copies = Copies(self.directory, index)
        why = ""
        try:
            if copies.count != len(one.extents) or any(
                copies.extent(copy) != extent for copy, extent in enumerate(one.extents)
            ):
                raise Corrupt("somebody has written over its record")
            region = self.copier.open(index, one)
            if copies.poisoned & copies.healthy:
                why = self.repairer.repair(region, copies)
            for copy in range(copies.count):
                if not copies.healthy >> copy & 1:
                    why = self._rebuild(index, one, region, copies, copy) or why
            if not why and copies.poisoned:
                why = self.repairer.repair(region, copies)
        except Stale:
            return True  # it was freed
        except Busy:
            why = _BUSY
        except (Failed, NoRoom) as error:
            why = str(error)
        except PoolError as error:
            log.warning("region %d cannot be rebuilt: %s", index, error)
            why = str(error)
        except Exception:
            log.exception("rebuilding region %d", index)
            why = "the server failed at it"
        finally:
            self.under_way.pop(index, None)
            with self.lock:
                self.regions.clearing.work_ends(index)
        if not why:
            self.waiting.pop(index, None)
            return True
        if self.waiting.get(index) != why and not self.copier.stopping.is_set():
            self.waiting[index] = why
            self._event("rebuild waits", self._called(index), {"region": index, "why": why})
        return False

    # -- a copy --------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Give back where copies were on their way to when that was given up."""
        orphans, self.orphans = self.orphans, []
        self.orphans += [orphan for orphan in orphans if not self._settled(orphan)]

    def _settled(self, orphan: Orphan) -> bool:
        with self.lock:
            there = self.regions.known.get(orphan.index) is orphan.one
            if there and orphan.one.leaving:
                return False
            if there:
                self.regions.clearing.work_begins(orphan.index)
        if there:
            try:
                with locked(self.copier.open(orphan.index, orphan.one)):
                    Copies(self.directory, orphan.index).leave(1 << orphan.copy)
            except (Busy, Stale):
                return False
            finally:
                with self.lock:
                    self.regions.clearing.work_ends(orphan.index)
        self.copier.give_back(orphan.one.capacity, orphan.place)
        return True

    def _reserve(self) -> None:
        """Where copies were being moved to when another server was killed is not free: writers write there.

        What has been moved may be where the record says already, while readers do not know yet.
        """
        for index in impaired(self.directory):
            one, copies = self.regions.known.get(index), Copies(self.directory, index)
            stray = copies.joining & ~copies.own
            if one is None or not stray or not copies.healthy:
                continue
            copies.displaced()
            for copy, place in copies.extents().items():
                if stray >> copy & 1:
                    try:
                        if place in one.extents:
                            place = 0
                        else:
                            self.sources.take_at(one.capacity, place)
                            self.sources.note(index, [place])
                    except ValueError as error:
                        log.error("region %d was on its way to %#x, which cannot be: %s", index, place, error)
                        place = 0
                    self.orphans.append(Orphan(index, one, copy, place))

    def _rebuild(self, index: int, one: Known, region: Region, copies: Copies, copy: int) -> str:
        healthy, joining = copies.state
        if not healthy:
            return "no copy is healthy"
        if not joining >> copy & 1 or not self._usable(copies.extent(copy)):
            self._join(index, one, region, copies, copy)
        number, _ = split(copies.extent(copy))
        name = self.sources.all[number].name
        progress = Progress(index, one.name, copy, name, copies.size)
        self.under_way[index] = progress
        self._event("rebuild began", self._called(index), {"region": index, "copy": copy, "source": name})
        if not self.copier.copy(region, copies, copy, progress):
            if self.copier.stopping.is_set():
                return "the server stops"
            self._wake.set()  # the memory it was copied to has failed: another one may do
            return f"{name} failed on the way"
        with locked(region):
            if not copies.promote(copy):
                self._wake.set()
                return f"{name} failed on the way"
        if not self._usable(copies.extent(copy)):
            copies.drop(1 << copy)
            self._wake.set()
            return f"{name} failed on the way"
        self.directory.health_changed()
        self._refused.pop(index, None)
        self.under_way.pop(index, None)
        detail = {"region": index, "copy": copy, "source": name, "bytes": copies.size}
        self._event("rebuilt", self._called(index), detail)
        return ""

    def _join(self, index: int, one: Known, region: Region, copies: Copies, copy: int) -> None:
        """Find room for a copy, and have it written from now on. Raises `NoRoom`."""
        with self.lock:
            old = copies.extent(copy)
            fit = self._usable(old) and old >> 56 not in self._refused.get(index, ())
            new = old if fit else self._spare(index, one, copies, copy)
        taken, given_up = new != old, False
        number = split(new)[0]
        try:
            told = self.sources.all[number].poisonings
            self.copier.clean(new, one.capacity)
            with locked(region), self.lock:
                looked_at = new != old and one.pins > 0
                if looked_at:
                    self.regions.leave_behind(index, old)
                copies.place(copy, new)
                copies.displaced()
                if self.sources.all[number].poisonings == told:
                    copies.set_clean(1 << copy)
                else:  # there may be some here, of which nobody knew whose it is
                    copies.set_poisoned(1 << copy)
                joined = copies.join(copy)
                one.place(copy, new)
                self.sources.note(index, [new])
                taken = False
                given_up = new != old and not looked_at
                self.directory.health_changed()
                if not self._usable(new):
                    copies.drop(1 << copy)
                if not joined:
                    raise Failed("no copy is healthy")
        finally:
            if taken:
                self.copier.give_back(one.capacity, new)
            if given_up:
                self.copier.give_back(one.capacity, old)

    def _spare(self, index: int, one: Known, copies: Copies, copy: int) -> int:
        healthy, joining = copies.state
        others = [
            split(extent)[0] for other, extent in enumerate(one.extents)
            if other != copy and (healthy | joining) >> other & 1
        ]  # fmt: skip
        return self.sources.spare(one.capacity, [*others, *self._refused.get(index, ())])

    def _refuse(self, copies: Copies, copy: int, at: int) -> None:
        number, offset = split(copies.extent(copy))
        name = self.sources.all[number].name
        log.error("what was written to %s at %#x is not there: it is not used for this", name, offset + at)
        copies.drop(1 << copy)
        index = copies.index
        self._refused.setdefault(index, set()).add(number)
        self._event(
            "rebuild failed", self._called(index), {"region": index, "source": name, "offset": offset + at}
        )
        self._wake.set()

    def _repaired(self, copies: Copies, copy: int, size: int) -> None:
        name = self.sources.all[copies.extent(copy) >> 56].name
        detail = {"region": copies.index, "copy": copy, "source": name, "bytes": size}
        self._event("poison repaired", self._called(copies.index), detail)

    # -- memory --------------------------------------------------------------------------------------------------------

    def _usable(self, extent: int) -> bool:
        held = self.sources.all.get(extent >> 56)
        return held is not None and held.state is SourceState.HEALTHY

    def _name(self, index: int) -> str:
        one = self.regions.known.get(index)
        return one.name if one is not None else ""

    def _called(self, index: int) -> str:
        return self._name(index) or f"region {index}"


_BUSY = "somebody has its lock"
