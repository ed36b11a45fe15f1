"""What clients have of regions: which are their own, which they have open, and which they look at themselves."""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from softcxl.fm.pool.errors import Refusal
from softcxl.pool import layout
from softcxl.pool.layout import RegionFlag
from softcxl.pool.protocol import Hold, Located, Named, Status

if TYPE_CHECKING:
    from softcxl.fm.pool.directory import Directory
    from softcxl.fm.pool.records import Known
    from softcxl.fm.pool.regions import Regions

_INDEX = 32  # bits of an index, below a generation
_INDICES = (1 << _INDEX) - 1
_KEPT = int(RegionFlag.KEPT)
_NAMED = struct.Struct("<2Q64x")
assert _NAMED.size == Named.__layout__.size


@dataclass(slots=True)
class Holdings:
    """What a slot has."""

    own: set[int] = field(default_factory=set)
    opened: dict[int, int] = field(default_factory=dict)
    """How often it has others' regions open, by generation and index; of its own `Known.mine` says it."""
    pins: dict[int, int] = field(default_factory=dict)
    requests: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """What its last requests have made, by their numbers, as they came."""
    forgotten: int = 0
    """No request of a higher number has been forgotten."""


class Uses:
    """The uses of `regions`, by slot. Its caller holds the server's lock."""

    def __init__(self, directory: Directory, regions: Regions, known: dict[int, Known]) -> None:
        self._directory = directory
        self._regions = regions
        self._known = known
        self.holdings: defaultdict[int, Holdings] = defaultdict(Holdings)

    def open(self, slot: int, asked: Named) -> Located:
        """Find a region, and note that this client uses it."""
        index = self._regions.find(asked)
        one = self._known[index]
        self._regions.allowed(slot, one)
        self._opens(slot, index, one, 1)
        return Located(index=index, generation=one.generation, size=one.size)

    def close(self, slot: int, data: bytes) -> bytes:
        """A client is through with a region (a `Named`). One without a name goes when nobody has it open."""
        if len(data) == _NAMED.size:
            index, generation = _NAMED.unpack(data)
            one = self._known.get(index)
            if (
                one is not None and one.generation == generation and one.owner == slot and one.mine == one.opened == 1
                and not one.flags & _KEPT and not one.leaving
            ):  # fmt: skip
                one.mine = one.opened = 0
                self._regions.leave(index)
                return b""
        self._close(slot, Named.unpack(data))
        return b""

    def _close(self, slot: int, asked: Named) -> None:
        opened = self.holdings[slot].opened
        try:
            index = self._regions.find(asked)
        except Refusal:
            opened.pop(asked.generation << _INDEX | asked.index, None)  # its owner has freed it
            raise
        one = self._known[index]
        if not self._opened(slot, index, one):
            raise Refusal(Status.MALFORMED, f"{self._regions.called(index)} is not open here")
        self._opens(slot, index, one, -1)
        self._closes(slot, index, one)

    def _closes(self, slot: int, index: int, one: Known) -> None:
        """A client has a region open less often."""
        if one.owner == slot and not one.mine and one.flags & _KEPT:
            # What its owner has open the next server takes for so, who is not told of what was closed before
            self.holdings[slot].own.discard(index)
            one.owner = layout.SERVER
            self._directory.disown_region(index)
        self._regions.closed(index, one)

    def _opened(self, slot: int, index: int, one: Known) -> int:
        """How often a client has a region open."""
        if one.owner == slot:
            return one.mine
        return self.holdings[slot].opened.get(one.generation << _INDEX | index, 0)

    def _opens(self, slot: int, index: int, one: Known, by: int) -> None:
        one.opened += by
        if one.owner == slot:
            one.mine += by
            return
        opened, key = self.holdings[slot].opened, one.generation << _INDEX | index
        count = opened.get(key, 0) + by
        if count:
            opened[key] = count
        else:
            opened.pop(key, None)

    def pin(self, slot: int, asked: Named) -> None:
        """A client looks at a region's memory itself: it stays where it is until `unpin`."""
        index = self._regions.find(asked)
        self._regions.allowed(slot, self._known[index])
        self._regions.pins.add(index)
        pins = self.holdings[slot].pins
        pins[index] = pins.get(index, 0) + 1

    def unpin(self, slot: int, asked: Named) -> None:
        """A client no longer looks there; also of a region that was freed meanwhile."""
        pins = self.holdings[slot].pins
        one = self._known.get(asked.index)
        if one is None or asked.index not in pins or one.generation != asked.generation:
            raise Refusal(
                Status.MALFORMED,
                f"region {asked.index}, generation {asked.generation}, is not pinned here",
            )
        self._less(pins, asked.index)
        self._regions.pins.remove(asked.index, 1)

    def hold(self, slot: int, asked: Hold) -> None:
        """A client that was there before this server says what it has: that is so from now on."""
        one = self._known.get(asked.index)
        regions = self._regions
        if (
            one is None or one.generation != asked.generation
            or (one.leaving and not (regions.clearing.keeps(asked.index) or regions.pins.doubtful(asked.index)))
        ):  # fmt: skip
            raise Refusal(
                Status.GONE, f"region {asked.index}, generation {asked.generation}, is not there any more"
            )
        self._regions.allowed(slot, one)
        more = asked.opened - self._opened(slot, asked.index, one)
        self._opens(slot, asked.index, one, more)
        pins = self.holdings[slot].pins
        before = pins.pop(asked.index, 0)
        if asked.pins:
            pins[asked.index] = asked.pins
            self._regions.pins.add(asked.index, asked.pins)
        self._regions.pins.remove(asked.index, before)
        if more < 0:  # it was closed while no server was there
            self._closes(slot, asked.index, one)

    def gone(self, slot: int) -> None:
        """A client has left, or died: what it held is let go, and what was its own without a name is freed."""
        holdings = self.holdings.pop(slot, None)
        if holdings is None:
            return
        for index in holdings.own:
            one = self._known[index]
            one.opened, opened = one.opened - one.mine, one.mine
            one.mine = 0
            if one.flags & _KEPT:
                one.owner = layout.SERVER
                self._directory.disown_region(index)
                if opened:
                    self._regions.closed(index, one)
            elif not one.leaving:
                self._regions.leave(index)
        for key, count in holdings.opened.items():
            index = key & _INDICES
            there = self._known.get(index)
            if there is not None and there.generation == key >> _INDEX:
                there.opened -= count
                self._regions.closed(index, there)
        for index, count in holdings.pins.items():
            self._regions.pins.remove(index, count)

    @staticmethod
    def _less(counts: dict[int, int], index: int) -> None:
        counts[index] -= 1
        if not counts[index]:
            del counts[index]

    def own(self, slot: int, index: int, one: Known) -> None:
        """A region is a client's own from now on, who has it open as often as he had before, and once more."""
        others = self.holdings[slot]
        one.opened += 1 - one.mine
        one.mine = 1 + others.opened.pop(one.generation << _INDEX | index, 0)
        others.own.add(index)


__all__ = ["Holdings", "Uses"]
