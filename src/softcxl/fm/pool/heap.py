"""What channels are made of: the server's own regions in the arena, and regions that are on their way in a channel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from softcxl.pool import layout
from softcxl.pool.layout import SERVER, Mode, RegionFlag
from softcxl.pool.protocol import Allocate, Named

if TYPE_CHECKING:
    import mmap

    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.regions import Regions
    from softcxl.pool.native import Memory, Queue


class Extent(NamedTuple):
    """A region in the arena: its record's index and generation, where it is, bytes, and its name."""

    region: int
    generation: int
    at: int
    size: int
    name: bytes


class Heap:
    """Regions for channels. Whoever uses it holds the server's lock. `names` are the clients' by slot."""

    def __init__(
        self, directory: Directory, regions: Regions, queue: Queue, names: Mapping[int, str]
    ) -> None:
        self._directory = directory
        self._regions = regions
        self._names = names
        self.queue = queue

    @property
    def memory(self) -> Memory:
        """The arena."""
        return self._directory.memory

    @property
    def map(self) -> mmap.mmap:
        """The same, as bytes."""
        return self._directory.map

    def make(self, name: bytes, size: int) -> Extent:
        """A region of zeros, the server's. Raises Refusal where there is no room, or the name is taken."""
        asked = Allocate(
            size=size,
            request=0,
            copies=1,
            policy=0,
            separate=0,
            mode=Mode.PRIVATE,
            flags=RegionFlag.CHANNEL,
            source=0,
            lease=0,
            reserved0=b"",
            name=name,
        )
        made = self._regions.allocate(SERVER, asked, free_of_charge=True)
        return Extent(made.index, made.generation, self._at(made.index), size, name)

    def drop(self, extent: Extent) -> None:
        """Free it."""
        self.free(extent.region, extent.generation)

    def channels(self) -> Iterable[Extent]:
        """The server's own regions, by what they are."""
        for index, one in list(self._regions.known.items()):
            if one.owner == SERVER and one.name and one.flags & RegionFlag.CHANNEL and not one.leaving:
                yield Extent(index, one.generation, self._at(index), one.size, one.name.encode())

    def title(self, slot: int) -> str:
        """A client, for people."""
        pid = self._directory.slot(slot).pid
        return f"{self._names.get(slot, '')!r}, slot {slot}" + (f", process {pid}" if pid else "")

    def _at(self, index: int) -> int:
        return layout.split(self._regions.known[index].extents[0])[1]

    # -- on their way ----------------------------------------------------------------------------------------

    def keep(self, slot: int, index: int, generation: int) -> None:
        """A client gives its region away. Raises Refusal where it is none of its own, or has a name."""
        self._regions.pass_on(Named(index=index, generation=generation, name=b""), slot, SERVER)

    def hand_over(self, slot: int, index: int, generation: int) -> None:
        """A client has it now."""
        self._regions.pass_on(Named(index=index, generation=generation, name=b""), SERVER, slot)

    def has(self, slot: int, index: int, generation: int) -> bool:
        """Whether a client has that region."""
        one = self._regions.known.get(index)
        return one is not None and one.generation == generation and one.owner == slot and not one.leaving

    def free(self, index: int, generation: int) -> None:
        """Free a region of the server's."""
        self._regions.free(SERVER, Named(index=index, generation=generation, name=b""))

    def kept(self) -> Iterable[tuple[int, int]]:
        """Regions that were given away, and that nobody has taken: index and generation."""
        for index, one in list(self._regions.known.items()):
            if one.owner == SERVER and not one.name and one.flags & RegionFlag.KEPT and not one.leaving:
                yield index, one.generation
