"""The pool's memory as a client has it mapped: the arena, whose header is checked, and each source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from softcxl.pool import layout
from softcxl.pool.errors import Corrupt, Foreign, PoolError, Stale
from softcxl.pool.gone import Gone
from softcxl.pool.link import Mapped, Place
from softcxl.pool.native import Memory


class Mapping:
    """What a client has mapped, over the deaths of servers: memory that is the same stays mapped where it is.

    `directory` is the arena for the C core, and `memories` are all sources by number, None where there is none.
    `header` is the arena's, as it was when the client came to this server. `ring` and `rest` are a `Link`'s. One thread
    at a time changes it.

    Raises `Foreign` and `Corrupt` for an arena that no pool of this version has.
    """

    def __init__(
        self,
        mapped: Mapped,
        ring: Callable[[int], object],
        rest: Callable[[int, float], object] | None,
    ) -> None:
        header = check(mapped.maps[layout.ARENA], mapped.place)
        arena = mapped.maps[layout.ARENA]
        directory = Memory(arena, ring=ring, rest=rest) if rest else Memory(arena, ring=ring)
        self._use(mapped, header, {layout.ARENA: directory})

    def take(self, mapped: Mapped) -> None:
        """Use these from now on, and what is mapped already where it is.

        Raises `Foreign` and `Corrupt` as at first, `Stale` where they are another pool's, or another client's.
        """
        header = check(mapped.maps[layout.ARENA], mapped.place)
        old = self.mapped
        if mapped.place != old.place or header.identity != self.header.identity:
            raise Stale("the pool has forgotten this client")
        for number, file in old.files.items():
            if mapped.files.get(number) == file:
                mapped.maps[number] = old.maps[number]
        if mapped.maps[layout.ARENA] is not old.maps[layout.ARENA]:
            raise Stale("the pool's arena is another one")
        kept = {
            number: memory
            for number, memory in self._memories.items()
            if mapped.maps.get(number) is old.maps[number]
        }
        self._use(mapped, header, kept)

    def _use(self, mapped: Mapped, header: layout.Header, memories: dict[int, Memory]) -> None:
        for number, one in mapped.maps.items():
            if number not in memories:
                memories[number] = Memory(one)
        self.header = header
        self.mapped = mapped
        self._memories = memories
        self.directory = memories[layout.ARENA]
        self.memories = [memories.get(number) for number in range(max(memories) + 1)]

    def release(self, why: PoolError) -> None:
        """Let go of the memory, which views of it keep for as long as they need it. The directory raises that then."""
        self.mapped = replace(self.mapped, maps={}, files={})
        self.directory = cast("Memory", Gone(why))
        self.memories, self._memories = [], {}


def check(arena: memoryview | object, place: Place) -> layout.Header:
    """The header of an arena, if all that it says can be.

    Raises `Foreign` where none of this version is there, `Corrupt` where something would be outside of the arena, or
    where there is no such slot.
    """
    whole = memoryview(arena)  # type: ignore[arg-type]
    size = layout.Header.__layout__.size
    if len(whole) < layout.PAGE:
        raise Foreign(f"the arena has {len(whole)} bytes: its header alone has {layout.PAGE}")
    header = layout.Header.unpack(bytes(whole[:size]))
    if header.magic != layout.MAGIC or header.version != layout.VERSION:
        raise Foreign(
            f"the arena is of no pool of version {layout.VERSION}: it begins with {header.magic:#x}, version "
            f"{header.version}"
        )
    parts = {
        "sources": (header.sources_at, header.sources * layout.LINE),
        "slots": (header.slots_at, header.slots * 256),
        "regions": (header.regions_at, header.regions * 256),
        "calls": (header.calls_at, header.slots * header.calls_stride),
        "queue": (header.queue_at, header.queue_size),
        "heap": (header.heap_at, 0),
    }
    if header.size > len(whole):
        raise Corrupt(
            f"the arena says that it has {header.size} bytes; it has {len(whole)}: it was cut short"
        )
    for what, (at, length) in parts.items():
        if at % layout.LINE or at < layout.PAGE or at + length > header.size:
            raise Corrupt(
                f"the arena says that its {what} are {length} bytes at {at:#x}; it has {header.size} bytes"
            )
    if not 0 < place.slot < header.slots:
        raise Corrupt(f"the server gives this client slot {place.slot}: there are 1 to {header.slots - 1}")
    return header
