"""From which sources an allocation's copies are taken.

Copies are never on the same device: the logical devices of one count as it does, since they fail with it. Behind the
same switch they are only where there is no other way, or not at all where that is asked for; a device that is plugged
into no switch shares none. Among the sources that are left, `Policy.SPREAD` takes the least full one first, as a part
of what it holds, and `Policy.PACK` the fullest that there is room on.

>>> placement = Placement()
>>> for number, name in enumerate(("mem0", "mem1"), start=1):
...     placement.add(Room(number, name, device=name, switch=None, space=Space(1 << 30)))
>>> placement.allocate(64 << 20, copies=2)
[(1, 0), (2, 0)]
>>> placement.allocate(64 << 20, copies=3)
Traceback (most recent call last):
    ...
softcxl.pool.errors.NoRoom: 3 copies on 3 devices were asked for; there are 2 healthy ones (mem0, mem1)
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from softcxl.fm.pool.space import Space
from softcxl.pool.errors import NoRoom
from softcxl.pool.layout import SourceState
from softcxl.pool.protocol import Policy, Separate
from softcxl.wire.sizes import format_size

_SHOWN = 4  # sources, devices or switches that an error names


@dataclass(slots=True, eq=False)
class Room:
    """A source, as something to allocate from. `number` is its own in the directory, 0 to 254."""

    number: int
    name: str
    device: str
    switch: str | None
    space: Space
    state: SourceState = SourceState.HEALTHY
    asked_for: bool = False
    """Only for what asks for it by number, as the arena is."""
    behind: tuple[str, str] = field(init=False)
    """What it has in common with all that is behind the same switch."""
    _key: int = field(init=False, default=-1)
    _granules: int = field(init=False)
    _part: int = field(init=False)

    def __post_init__(self) -> None:
        self._granules = self.space.size // self.space.granule
        self._part = _WHOLE // self._granules if self._granules else 0
        self.behind = ("switch", self.switch) if self.switch is not None else ("device", self.device)

    @property
    def fill(self) -> int:
        """How full it is, in parts of 2**72, and in the lowest byte its number: by which sources are sorted."""
        return (self._granules - self.space.unallocated) * self._part & ~_NUMBERS | self.number


_NUMBER = 8  # bits
_NUMBERS = (1 << _NUMBER) - 1
_WHOLE = 1 << 72


class Placement:
    """The sources of a pool, in the order in which they are taken.

    An allocation of one copy costs as much as finding a place in its source and in a sorted list, whatever the number
    of sources; one of several looks at as many as it takes until they are on different devices and switches.
    """

    def __init__(self) -> None:
        self.rooms: dict[int, Room] = {}
        self._emptiest: list[int] = []
        """The sources that are open to all, each as its `Room.fill`, sorted."""

    # -- sources ---------------------------------------------------------------------------------------------------

    def add(self, room: Room) -> None:
        """Have another source. ValueError: its number is taken."""
        if room.number in self.rooms:
            raise ValueError(f"source {room.number} is {self.rooms[room.number].name} already")
        self.rooms[room.number] = room
        self._enter(room)

    def set_state(self, number: int, state: SourceState) -> None:
        """Nothing is allocated from a source that is not healthy; what is there stays there, and can be freed."""
        room = self.rooms[number]
        self._leave(room)
        room.state = state
        self._enter(room)

    def replace_space(self, number: int, space: Space) -> None:
        """Give a source another picture of what is allocated on it, as after a restart."""
        room = self.rooms[number]
        self._leave(room)
        room.space = space
        room.__post_init__()
        self._enter(room)

    def _enter(self, room: Room) -> None:
        if room.state is SourceState.HEALTHY and not room.asked_for:
            room._key = room.fill
            insort(self._emptiest, room._key)

    def _leave(self, room: Room) -> None:
        if room._key >= 0:
            del self._emptiest[bisect_left(self._emptiest, room._key)]
            room._key = -1

    def _by_fullness(self) -> Iterator[int]:
        """The fullest first; of those that are as full, the one with the lowest number."""
        order = self._emptiest
        end = len(order)
        while end:
            start = bisect_left(order, order[end - 1] >> _NUMBER << _NUMBER)
            yield from order[start:end]
            end = start

    # -- allocating and freeing ------------------------------------------------------------------------------------

    def allocate(
        self,
        size: int,
        copies: int = 1,
        policy: Policy = Policy.SPREAD,
        separate: Separate = Separate.DEVICE,
        *,
        source: int | None = None,
        beside: Collection[int] = (),
    ) -> list[tuple[int, int]]:
        """Allocate `size` bytes `copies` times: the number of the source and the offset in it of each.

        `source` is the number of the only one that will do. `beside` are the sources that have copies of the same
        already: these are kept away from, too. All are allocated or none: NoRoom says what there is.
        """
        if source is not None:
            order: Iterable[int] = (source,) if source in self.rooms else ()
        else:
            order = self._by_fullness() if policy is Policy.PACK else self._emptiest
        if copies == 1 and not beside:
            for key in order:
                room = self.rooms[key & _NUMBERS]
                if room.state is SourceState.HEALTHY and (offset := room.space.allocate(size)) is not None:
                    self._changed(room)
                    return [(room.number, offset)]
            raise NoRoom(self._why(size, 1, separate, source, ()))
        chosen = self._choose(size, copies, separate, order, beside)
        if len(chosen) < copies:
            raise NoRoom(self._why(size, copies, separate, source, beside))
        placed = []
        for room in chosen:
            at = room.space.allocate(size)
            assert at is not None, "what is the largest fits"
            self._changed(room)
            placed.append((room.number, at))
        return placed

    def spread(self, size: int) -> tuple[int, int] | None:
        """The most common allocation, quickly: of one copy on the least full source; None where that has no room."""
        if not self._emptiest:
            return None
        order = self._emptiest
        room = self.rooms[order[0] & _NUMBERS]
        space = room.space
        offset = space.allocate(size)
        if offset is None:
            return None
        number = room.number
        room._key = new = (room._granules - space.unallocated) * room._part & ~_NUMBERS | number
        if len(order) == 1 or new < order[1]:
            order[0] = new
        else:
            del order[0]
            insort(order, new)
        return number, offset

    def free_all(self, source: int, offsets: list[int]) -> None:
        """Free what was allocated at these offsets. ValueError: there is nothing at one of them."""
        room = self.rooms[source]
        room.space.free_all(offsets)
        self._changed(room)

    def free(self, source: int, offset: int) -> int:
        """Free what was allocated there; returns how many bytes it had. ValueError: there is nothing."""
        room = self.rooms[source]
        size = room.space.free(offset)
        self._changed(room)
        return size

    def _changed(self, room: Room) -> None:
        old = room._key
        if old < 0:
            return
        new, order = room.fill, self._emptiest
        if new == old:
            return
        room._key = new
        at = bisect_left(order, old)
        if (not at or order[at - 1] < new) and (at + 1 == len(order) or new < order[at + 1]):
            order[at] = new
        else:
            del order[at]
            insort(order, new)

    def _choose(
        self, size: int, copies: int, separate: Separate, order: Iterable[int], beside: Collection[int]
    ) -> list[Room]:
        """As many of the sources as there can be, up to `copies`, those behind switches of their own first."""
        rooms = self.rooms
        devices = {rooms[number].device for number in beside}
        switches = {rooms[number].behind for number in beside}
        chosen: list[Room] = []
        second: list[Room] = []
        for key in order:
            room = rooms[key & _NUMBERS]
            device = room.device
            if device in devices or room.space.largest < size or room.state is not SourceState.HEALTHY:
                continue
            behind = room.behind
            if behind in switches:
                second.append(room)
                continue
            chosen.append(room)
            if len(chosen) == copies:
                return chosen
            devices.add(device)
            switches.add(behind)
        if separate is Separate.SWITCH:
            return chosen
        for room in second:
            if room.device not in devices and len(chosen) < copies:
                devices.add(room.device)
                chosen.append(room)
        return chosen

    # -- why not ---------------------------------------------------------------------------------------------------

    def _why(
        self, size: int, copies: int, separate: Separate, source: int | None, beside: Collection[int]
    ) -> str:
        if source is not None:
            return self._why_not_there(size, copies, source)
        everyone = [room for room in self.rooms.values() if not room.asked_for]
        healthy = [room for room in everyone if room.state is SourceState.HEALTHY]
        if not healthy:
            states = [f"{room.name} {_IN_WORDS[room.state]}" for room in everyone]
            return f"no memory of the pool is healthy: {_some(states) or 'it has none'}"
        what = "a copy more was" if beside else f"{copies} copies were" if copies > 1 else "one copy was"
        taken = [self.rooms[number] for number in beside]
        others = [room for room in healthy if room.device not in {one.device for one in taken}]
        devices = list(dict.fromkeys(room.device for room in others))
        if len(devices) < copies:
            if not beside:
                return (
                    f"{copies} copies on {copies} devices were asked for; "
                    f"there {_are(len(devices))} healthy one{'s' * (len(devices) != 1)} ({_some(devices)})"
                )
            return f"{what} asked for; all healthy devices ({_some([one.device for one in healthy])}) have one already"
        if separate is Separate.SWITCH:
            others = [room for room in others if room.behind not in {one.behind for one in taken}]
            switches = list(dict.fromkeys(room.behind[1] for room in others))
            if len(switches) < copies:
                behind = f"healthy memory is behind {len(switches)} ({_some(switches) or 'no other'})"
                return f"{what} asked for, each behind a switch of its own; {behind}"
        rooms = sorted(others, key=lambda room: -room.space.largest)
        largest: dict[str, Room] = {}
        for room in rooms:
            largest.setdefault(room.behind[1] if separate is Separate.SWITCH else room.device, room)
        have = _some([f"{format_size(room.space.largest)} on {room.name}" for room in largest.values()])
        says = f"{what} asked for, of {format_size(size)}" + (", on different devices" if copies > 1 else "")
        says += (
            f"; the largest free extents are {have}"
            if len(largest) > 1
            else f"; the largest free extent is {have}"
        )
        scattered = [room.name for room in rooms if room.space.largest < size <= room.space.available]
        if scattered:
            says += f"; there is as much in pieces on {_some(scattered)}: defragmenting helps"
        return says

    def _why_not_there(self, size: int, copies: int, source: int) -> str:
        room = self.rooms.get(source)
        if room is None:
            return f"there is no source {source}; there are {_some([str(number) for number in self.rooms]) or 'none'}"
        if room.state is not SourceState.HEALTHY:
            return f"{room.name} was asked for, and {_IN_WORDS[room.state]}"
        if copies > 1:
            return f"{copies} copies were asked for on {room.name} alone; copies are on different devices"
        space = room.space
        return (
            f"{format_size(size)} were asked for on {room.name}; the largest free extent there is "
            f"{format_size(space.largest)}, of {format_size(space.available)} that are free"
        )


_IN_WORDS = {
    SourceState.ABSENT: "is not there",
    SourceState.HEALTHY: "is healthy",
    SourceState.FAILED: "has failed",
}


def _are(count: int) -> str:
    return f"{'is' if count == 1 else 'are'} {count or 'no'}"


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
