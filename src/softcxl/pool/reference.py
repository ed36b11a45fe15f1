"""References: what is large stays where it is, and goes through a channel as where that is.

A reference has the kind `REFERENCE`, and its record's 32 bytes name the region, and the offset and length in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Self

from softcxl.pool import layout
from softcxl.pool.errors import Stale
from softcxl.pool.native import Life, Pointed

if TYPE_CHECKING:
    from softcxl.pool.region import Region
    from softcxl.pool.session import Pool

__all__ = [
    "Record",
    "Reference",
]

MOST_KIND: Final = (1 << 30) - 1
"""The largest kind that a sender can give: the bits above it say what the record is."""
REFERENCE: Final = 1 << 31
GIVEN: Final = 1 << 30
"""Of a reference: the region is the receiver's, once he has taken it."""


class Record(NamedTuple):
    """What was received: the bytes, or a reference to them, and the kind that the sender gave it."""

    data: bytes
    kind: int
    reference: Reference | None = None


class Lent:
    """A region that references are to, and a view of it once one is asked for."""

    __slots__ = ("life", "region", "size", "view")

    def __init__(self, pool: Pool, region: Region) -> None:
        self.region = region
        self.size = region.size
        self.view: memoryview | None = None
        word_at = pool.header.regions_at + 256 * region.index
        self.life = Life(pool.directory, word_at, region.generation << 24 | layout.RegionState.LIVE)

    def whole(self) -> memoryview:
        """All of it. Raises `Stale` where it has gone."""
        if not self.life:
            raise Stale(f"region {self.region.index} was freed, or who had it has gone")
        view = self.view
        if view is None:
            view = self.view = self.region.view()
        return view


class Reference(Pointed):
    """Bytes of a region, where they are: `offset` and `length` in bytes.

    One that was *lent* is the sender's: it is there until the sender frees it, or dies. One that was *given* is the
    receiver's from the moment that he took it: `free` it, or leave a `with`; if he dies it is freed. Raises `Stale`
    where the region has gone.
    """

    __slots__ = ()
    _lent: Lent

    @property
    def region(self) -> Region:
        """The region that they are in."""
        return self._lent.region

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        how = "given" if self.given else "lent"
        return f"<Reference to {self.length} bytes at {self.offset} of region {self.region.index}, {how}>"

    def view(self) -> memoryview:
        """The bytes themselves, without a copy. See `Region.view`."""
        return self._lent.whole()[self.offset : self.offset + self.length]

    def read(self) -> bytes:
        """A copy of the bytes."""
        return self.region.read(self.offset, self.length)

    def free(self) -> None:
        """Be through with it: a region that was given goes back to the pool."""
        if self.given:
            self.given = False
            self._lent.view = None
            self.region.free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()
