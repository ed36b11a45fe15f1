"""A client's part in a channel: an end of a ring, or a queue as one of its users, until it is closed."""

from __future__ import annotations

import struct
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn, Self

from softcxl.pool import arguments, buffer, layout
from softcxl.pool.buffer import SPOT as _SPOT
from softcxl.pool.buffer import Spot
from softcxl.pool.errors import Closed, Corrupt, Refused, Stale
from softcxl.pool.native import Life
from softcxl.pool.protocol import (
    Adopt,
    Attach,
    Attached,
    ChannelKind,
    Detach,
    Give,
    Opcode,
    Role,
    request_numbers,
)
from softcxl.pool.reference import GIVEN, MOST_KIND, REFERENCE, Lent, Record, Reference

if TYPE_CHECKING:
    from softcxl.pool.region import Region
    from softcxl.pool.session import Pool

_OPEN: Final = 16
"""Regions of others that are kept open for the next reference to them."""
_numbers = request_numbers()


class Part:
    """This client's part in a channel."""

    def __init__(
        self, pool: Pool, kind: ChannelKind, role: Role, name: str, size: int = 0, cells: int = 0
    ) -> None:
        asked = Attach(
            kind=kind,
            role=role,
            flags=0,
            cells=cells,
            size=size,
            request=next(_numbers),
            name=arguments.name(name),
        )
        self._pool = pool
        self._role = role
        self.place = Attached.unpack(pool.ask(Opcode.ATTACH, asked.pack()))
        self.name = name
        self._life = pool.life()
        self._regions_at = pool.header.regions_at
        self._regions: dict[tuple[int, int], Lent] = {}
        self._lock = threading.Lock()  # of what is done about a reference that has come

    def close(self) -> None:
        """Take part no more. A channel that nobody has open any more goes once it is empty."""
        if self._life.ended:
            return
        lived = bool(self._life)
        self._life.end()
        self.stop()
        regions, self._regions = self._regions, {}
        if not lived:
            return  # the pool has taken this client for dead, and given its part to others
        self._leave()
        for lent in regions.values():
            lent.region.close()
        asked = Detach(index=self.place.index, generation=self.place.generation, role=self._role)
        try:
            self._pool.ask(Opcode.DETACH, asked.pack())
        except Stale:
            pass  # the pool has forgotten this client, and so its part

    def _leave(self) -> None: ...

    def stop(self) -> None:
        """Have those of this client's threads come back that wait in it: they raise `Closed`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> NoReturn:
        self._pool.check()
        raise Closed(f"{self!r} was closed here")

    def end(self) -> None:
        """It is this client's no more, and somebody else sees to it."""
        self._life.end()

    # What the core is told: the region that is referred to, and what references are to that come

    _refers: Callable[[Callable[[], Region | None] | None, Life, int, int, int], None]
    _opens: Callable[[Lent | None, int, int, int, type[Record], type[Reference]], None]

    # -- references ------------------------------------------------------------------------------------------

    def _refer(
        self,
        put: Callable[..., None],
        region: Region,
        offset: int,
        size: int | None,
        give: bool,
        kind: int,
        timeout: float | None,
    ) -> None:
        if not self._life:
            self._check()
        if size is None:
            size = region.size - offset
        if offset < 0 or size < 0 or offset + size > region.size:
            raise Refused(f"{size} bytes at {offset}: the region has {region.size}")
        index, generation = region.index, region.generation
        word = generation << 24 | layout.RegionState.LIVE
        life = Life(self._pool.directory, self._regions_at + 256 * index, word)
        if region.closed or not life:
            raise Stale(f"region {index} is not this client's any more")
        self._refers(weakref.ref(region), life, index, generation, region.size)
        data = _SPOT.pack(index, generation, offset, size)
        if not give:
            put(data, (kind and checked(kind)) | REFERENCE, timeout)
            return
        gift = self._gift(Give, index, generation)
        self._pool.ask(Opcode.GIVE, gift)
        try:
            put(data, checked(kind) | REFERENCE | GIVEN, timeout)
        except BaseException:
            self._pool.ask(Opcode.ADOPT, gift)  # it stays the sender's
            raise
        region.let_go()

    def _gift(self, kind: type[Give | Adopt], index: int, generation: int) -> bytes:
        channel, of = self.place.index, self.place.generation
        return kind(index=index, generation=generation, channel=channel, channel_generation=of).pack()

    def _opened(self, data: bytes, kind: int) -> Reference:
        try:
            index, generation, offset, length = _SPOT.unpack(data)
        except struct.error:
            raise Corrupt(f"a reference has {_SPOT.size} bytes, this has {len(data)}") from None
        given = bool(kind & GIVEN)
        with self._lock:
            lent = self._regions.get((index, generation))
            if lent is None or given:
                lent = self._open_region(Spot(index, generation, offset, length), given)
            if offset + length > lent.size:
                raise Corrupt(f"{length} bytes at {offset} of a region that has {lent.size}")
            if not given:
                self._opens(lent, index, generation, lent.size, Record, Reference)
        return Reference(lent, offset, length, given)

    def _open_region(self, spot: Spot, given: bool) -> Lent:
        record = buffer.record_of(self._pool, spot)
        key = spot.region, spot.generation
        if given:
            self._pool.ask(Opcode.ADOPT, self._gift(Adopt, *key))
            return Lent(self._pool, self._pool.adopted(*key, record.size))
        if len(self._regions) >= _OPEN:
            self._regions.pop(next(iter(self._regions)))
        lent = self._regions[key] = Lent(self._pool, self._pool.referred(*key))
        return lent

    def _read(self, data: bytes, kind: int) -> Record:
        if kind < REFERENCE:
            return Record(data, kind)
        return Record(b"", kind & MOST_KIND, self._opened(data, kind))

    def _bytes(self, data: bytes, kind: int) -> bytes:
        with self._opened(data, kind) as reference:
            return reference.read()


def checked(kind: int) -> int:
    if not 0 <= kind <= MOST_KIND:
        raise Refused(f"kind {kind}: it is between 0 and {MOST_KIND}")
    return kind
