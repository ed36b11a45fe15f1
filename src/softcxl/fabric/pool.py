"""A topology's pool, made live: its memory as sources for whoever serves it, and the files that it is kept in.

Memory of the pool is no host's: a fabric manager that binds it is refused, and no door opens to it. What befalls it is
told first (`softcxl.device.custody`), whatever has brought it about: an injected fault, a scenario, a command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from softcxl.device.mld.logical import LogicalDevice
from softcxl.device.persist import StateDamaged, StatePage
from softcxl.device.poison import LINE
from softcxl.device.type3 import Type3
from softcxl.fabric.errors import BuildError
from softcxl.fabric.keys import Topology, split
from softcxl.fabric.stretches import Stretches
from softcxl.spec.command.poison import PoisonSource

if TYPE_CHECKING:
    from softcxl.fabric.build import Fabric

HOLDER: Final = "the pool"
"""Who has the memory, for people."""

_LISTED: Final = 256 * LINE
"""Bytes that are bad at once, at most, which the device itself has for bad after a kill: more are an erasure."""


class Observer(Protocol):
    """Who is told what befalls a source, before its bytes are bad; `softcxl.fm.pool.source` says it in full."""

    def failed(self, reason: str) -> None: ...

    def spoiled(self) -> None: ...

    def returned(self, kept: bool) -> None: ...

    def poisoned(self, ranges: Sequence[tuple[int, int]]) -> None: ...


class MemorySource:
    """The static capacity of a memory device, or of a logical device, as the pool's: `name`, the `device` that it is
    of, the `switch` that this is plugged into, if it is.

    What the pool was told is lost stays lost until the pool itself takes it for good, whatever others do with the
    device meanwhile: lines whose poison an operator clears, or that are erased, hold nothing of anybody's. With a
    `page` that outlives a server that is killed, as the data do.
    """

    offset: Final = 0

    def __init__(self, memory: Type3, switch: str | None, page: Path | None) -> None:
        self.name, self.switch = memory.name, switch
        self.device = split(memory.name)[0]
        self.size = memory.capacity.total
        self._memory = memory
        self._clears = False
        self._page: StatePage | None = None
        self._lost = Stretches()
        if page is not None:
            self._page, self._lost = _remembered(memory, page)

    def __repr__(self) -> str:
        return f"<source {self.name}: {self.size:#x} bytes>"

    @property
    def fd(self) -> int:
        """The file that holds it. It stays the device's."""
        return self._memory.medium.fd

    @property
    def failure(self) -> str | None:
        """Why it does not answer, None if it does."""
        return self._memory.custody.lost

    def watch(self, observer: Observer) -> None:
        """Tell `observer` of what is so already, and of what happens from now on, and nobody else any more."""
        with self._memory.lock:
            self._memory.custody.give(_Told(self, observer))
            if self._lost:
                observer.poisoned([*self._lost])

    def poisoned(self, offset: int, size: int) -> list[tuple[int, int]]:
        """The lines of a range (bytes) that are lost, as (offset, length), in order. Raises `ValueError` for a range
        outside the source."""
        self._check(offset, size)
        with self._memory.lock:
            bad = self._memory.custody.bad(offset, size)
            first, last = offset // LINE * LINE, -(-(offset + size) // LINE) * LINE
            lost = self._lost.within(first, last - first)
        return [*Stretches([*bad, *lost])] if lost else bad

    def clear_poison(self, offset: int, length: int) -> None:
        """Make the 64-byte lines of a range good again, and zeros; those that are worn out go bad at once. Raises
        `ValueError` for a range outside the source, or of no whole lines, and `OSError` where it cannot be written
        down: then they are as they were."""
        self._check(offset, length)
        if offset % LINE or length % LINE:
            raise ValueError(
                f"{self.name}: {length:#x} bytes at {offset:#x} are no whole lines of {LINE} bytes"
            )
        memory = self._memory
        with memory.lock:
            memory.medium.clear(offset, length)
            self._lost.remove(offset, length)
            self._clears = True
            try:
                memory.clear_poison(offset, length)
            finally:
                self._clears = False
            try:
                self._keep(())
            except OSError:
                self._lost.add(offset, length)
                raise

    def told_bad(self, ranges: Sequence[tuple[int, int]], tell: Callable[[], None]) -> None:
        """These are about to be bad: `tell` says so to who has to know. The device's lock is held."""
        erased = sum(length for _, length in ranges) > _LISTED
        for one in ranges if erased else ():
            self._lost.add(*one)
        tell()
        self._keep(() if erased else ranges)

    def told_good(self, ranges: Sequence[tuple[int, int]]) -> None:
        """The device takes these for good. The device's lock is held."""
        if not self._clears:
            for one in ranges:
                self._lost.add(*one)
            self._keep(())

    def _keep(self, coming: Sequence[tuple[int, int]]) -> None:
        if self._page is not None:
            bad = self._memory.custody.bad(0, self._memory.capacity.total)
            self._page.put(
                "poison",
                ranges=[list(one) for one in (*bad, *coming)],
                lost=[list(one) for one in self._lost],
            )

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(
                f"{self.name}: {size:#x} bytes at {offset:#x} are not within its {self.size:#x} bytes"
            )


class _Told:
    """Passes on to an observer what a device's custodian is told, and has the source remember what must not be
    forgotten."""

    def __init__(self, source: MemorySource, observer: Observer) -> None:
        self._source, self._observer = source, observer

    def lost(self, reason: str) -> None:
        self._observer.failed(reason)

    def spoiled(self) -> None:
        self._observer.spoiled()

    def back(self, kept: bool) -> None:
        self._observer.returned(kept)

    def poisoned(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._source.told_bad(ranges, lambda: self._observer.poisoned(ranges))

    def cleared(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._source.told_good(ranges)


def _remembered(memory: Type3, path: Path) -> tuple[StatePage, Stretches]:
    """The page of a source's poison, and what of it is lost; what is bad on it, the device has."""

    def read(section: dict[str, Any]) -> list[list[tuple[int, int]]]:
        return [[(int(a), int(b)) for a, b in section.get(part, ())] for part in ("ranges", "lost")]

    try:
        page = StatePage(path)
        found, lost = page.take("poison", read) or ([], [])
    except StateDamaged as error:
        raise BuildError(f"pool: {error}") from error
    with memory.lock:
        for start, length in found:
            for line in range(max(start, 0), min(start + length, memory.capacity.total), LINE):
                memory.poison.map.add(line, PoisonSource.INTERNAL)
    return page, Stretches(Stretches(lost).within(0, memory.capacity.total))


def hold(fabric: Fabric) -> None:
    """Have the memory of a fabric's pool be nobody else's from now on. Raises `BuildError` where it is somebody's, or
    is not there any more."""
    given = fabric.topology.pool
    for number, name in enumerate(given.memory if given else ()):
        at, memory = f"pool.memory[{number}]", fabric.devices.get(name)
        if memory is None or not memory.capacity.total:
            raise BuildError(f"{at}: {name} has no memory any more; a fabric manager gave it to others")
        if isinstance(memory, LogicalDevice):
            try:
                memory.bind(HOLDER)
            except ValueError as error:
                raise BuildError(f"{at}: {error}") from error
        memory.custody.holder = HOLDER


def sources(fabric: Fabric) -> list[MemorySource]:
    """The memory of a fabric's pool, in the topology's order; nothing where it has none."""
    given, files = fabric.topology.pool, fabric.pool_files
    return [
        MemorySource(
            fabric.devices[name],
            switch_of(fabric.topology, name),
            None if files is None else files.folder / f"{name}.poison",
        )
        for name in (given.memory if given else ())
    ]


def switch_of(topology: Topology, name: str) -> str | None:
    """The first switch that has the device of that name, or the device that it is of, in a port."""
    wanted = {name, split(name)[0]}
    return next((one for one, key in topology.switches.items() if wanted & {*key.ports}), None)
