"""The free space of a source, against a map of bytes that says of each granule whose it is."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from softcxl.fm.pool.space import Space

GRANULE = 4096
KIB = 1 << 10
GRANULES = 40


def runs(owners: list[int]) -> list[tuple[int, int]]:
    """First granule and length of each run of granules that are nobody's."""
    found, start = [], None
    for at, owner in enumerate([*owners, -1]):
        if owner == 0 and start is None:
            start = at
        elif owner and start is not None:
            found.append((start, at - start))
            start = None
    return found


def extents_of(owners: list[int]) -> list[tuple[int, int]]:
    return [(start * GRANULE, length * GRANULE) for start, length in runs(owners)]


class SpaceAgainstGranules(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.space = Space(GRANULES * GRANULE + 17)
        self.owners = [0] * GRANULES
        self.live: dict[int, int] = {}
        self.count = 0

    def take(self, start: int, granules: int) -> None:
        self.count += 1
        self.owners[start : start + granules] = [self.count] * granules
        self.live[start * GRANULE] = granules * GRANULE

    @rule(size=st.integers(1, 12 * GRANULE))
    def allocate(self, size: int) -> None:
        need = -(-size // GRANULE)
        fitting = sorted(length for _, length in runs(self.owners) if length >= need)
        offset = self.space.allocate(size)
        if not fitting:
            assert offset is None
            return
        assert offset is not None
        assert offset % GRANULE == 0
        assert (offset // GRANULE, fitting[0]) in runs(self.owners)
        self.take(offset // GRANULE, need)

    @rule(start=st.integers(-2, GRANULES + 2), size=st.integers(-1, 9 * GRANULE))
    def allocate_at(self, start: int, size: int) -> None:
        need = -(-size // GRANULE)
        free = start >= 0 and size > 0 and self.owners[start : start + need] == [0] * need
        if not free:
            with pytest.raises(ValueError, match=r"not all free|are not in a space"):
                self.space.allocate_at(start * GRANULE, size)
            return
        self.space.allocate_at(start * GRANULE, size)
        self.take(start, need)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.live)))
        size = self.live.pop(offset)
        assert self.space.free(offset) == size
        start = offset // GRANULE
        self.owners[start : start + size // GRANULE] = [0] * (size // GRANULE)

    @rule(
        offset=st.integers(0, (GRANULES + 1) * GRANULE)
        | st.integers(0, GRANULES).map(lambda at: at * GRANULE)
    )
    def free_what_is_not(self, offset: int) -> None:
        if offset not in self.live:
            with pytest.raises(ValueError, match=f"nothing is allocated at {offset:#x}"):
                self.space.free(offset)

    @rule(order=st.randoms(use_true_random=False))
    def restore(self, order: random.Random) -> None:
        records = list(self.live.items())
        order.shuffle(records)
        offsets, sizes = ([record[i] for record in records] for i in (0, 1))
        self.space = Space.restore(
            GRANULES * GRANULE + 17, np.array(offsets, np.uint64), np.array(sizes, np.uint64)
        )

    @rule(first=st.integers(0, GRANULES - 1), count=st.integers(1, GRANULES))
    def look_at_a_part(self, first: int, count: int) -> None:
        start, end = first * GRANULE, (first + count) * GRANULE
        whole = [(offset, size, True) for offset, size in extents_of(self.owners)]
        whole += [(offset, size, False) for offset, size in self.live.items()]
        there = sorted(one for one in whole if one[0] < end and one[0] + one[1] > start)
        assert self.space.pieces(start, end) == there

    @rule(which=st.sets(st.integers(0, 40), min_size=1, max_size=8))
    def free_several(self, which: set[int]) -> None:
        offsets = (
            sorted({sorted(self.live)[number % len(self.live)] for number in which}) if self.live else []
        )
        assert self.space.free_all(offsets[::-1]) == sum(self.live[offset] for offset in offsets)
        for offset in offsets:
            size = self.live.pop(offset)
            self.owners[offset // GRANULE : (offset + size) // GRANULE] = [0] * (size // GRANULE)

    @rule(twice=st.booleans(), strange=st.integers(1, GRANULES * GRANULE))
    def free_several_of_which_one_is_none(self, twice: bool, strange: int) -> None:
        mine = sorted(self.live)[:2]
        if twice and mine:
            strange = mine[0]
        elif strange in self.live:
            strange += 1
        with pytest.raises(ValueError, match="freed before, or never allocated"):
            self.space.free_all([*mine, strange])

    @invariant()
    def says_what_the_map_says(self) -> None:
        free = extents_of(self.owners)
        largest = max((size for _, size in free), default=0)
        available = self.owners.count(0) * GRANULE
        assert self.space.extents() == free
        assert self.space.allocations() == sorted(self.live.items())
        assert len(self.space) == len(self.live)
        assert self.space.available == available
        assert self.space.largest == largest
        assert self.space.fragmentation == (1 - largest / available if available else 0)


TestSpaceAgainstGranules = SpaceAgainstGranules.TestCase
TestSpaceAgainstGranules.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(
    sizes=st.lists(st.integers(1, 1 << 33), max_size=60),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 59)), max_size=200),
)
@settings(max_examples=60, deadline=None)
def test_large_extents_are_found_as_well_as_small_ones(
    sizes: list[int], steps: list[tuple[bool, int]]
) -> None:
    """Sizes of up to 8 GiB in a space of 64 GiB: the smallest extent that fits is taken, however the sizes differ."""
    space = Space(1 << 36)
    live: dict[int, int] = {}
    for allocates, which in steps:
        if allocates and which < len(sizes):
            need = -(-sizes[which] // GRANULE) * GRANULE
            before = space.extents()
            best = min((size for _, size in before if size >= need), default=None)
            offset = space.allocate(sizes[which])
            assert (offset is None) == (best is None)
            if offset is not None:
                assert (offset, best) in before
                live[offset] = need
        elif live:
            offset = sorted(live)[which % len(live)]
            assert space.free(offset) == live.pop(offset)
    assert space.largest == max((size for _, size in space.extents()), default=0)
    assert space.available == (1 << 36) - sum(live.values())
    for offset in live:
        space.free(offset)
    assert space.extents() == [(0, 1 << 36)]


def test_the_same_calls_give_the_same_offsets() -> None:
    def offsets() -> list[int | None]:
        draw, space = random.Random(7), Space(1 << 24)
        live: list[int] = []
        given: list[int | None] = []
        for _ in range(2000):
            if live and draw.random() < 0.45:
                space.free(live.pop(draw.randrange(len(live))))
            else:
                offset = space.allocate(draw.randrange(1, 64 * KIB))
                given.append(offset)
                if offset is not None:
                    live.append(offset)
        return given

    assert offsets() == offsets()


def test_the_whole_space_can_be_one_allocation() -> None:
    space = Space(1 << 20)
    assert space.allocate(1 << 20) == 0
    assert (space.allocate(1), space.largest, space.available, space.fragmentation) == (None, 0, 0, 0)
    assert space.size_at(0) == 1 << 20
    assert space.size_at(4096) == space.size_at(1) == 0
    assert space.free(0) == 1 << 20


def test_a_small_granule_is_for_small_things() -> None:
    space = Space(1000, granule=64)
    assert space.size == 960
    assert [space.allocate(size) for size in (1, 65, 64)] == [0, 64, 192]
    assert space.available == 960 - 256


def test_a_space_of_nothing_gives_nothing() -> None:
    space = Space(100)
    assert (space.size, space.allocate(1), space.largest, space.extents()) == (0, None, 0, [])


@pytest.mark.parametrize("size", [0, -1, -4096, -(1 << 40)])
def test_an_allocation_of_nothing_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"an allocation of {size} bytes: it must have one or more"):
        Space(1 << 20).allocate(size)


def test_an_allocation_beyond_every_size_is_none() -> None:
    assert Space(1 << 20).allocate(1 << 70) is None


@pytest.mark.parametrize(
    ("size", "granule", "says"),
    [(4096, 3000, "power of two"), (4096, 0, "power"), (-1, 64, "less than none")],
)
def test_a_space_that_cannot_be_is_refused(size: int, granule: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Space(size, granule)


@pytest.mark.parametrize(
    ("offset", "size", "says"),
    [
        (1, 4096, "offset 0x1 is not a multiple of 4KiB"),
        (4096, 0, r"0 bytes from 0x1000 on are not in a space of 1MiB"),
        (1 << 20, 1, r"1 bytes from 0x100000 on are not in a space of 1MiB"),
        (0, (1 << 20) + 1, r"1048577 bytes from 0x0 on are not in a space of 1MiB"),
        (8192, 4096, r"the 4KiB from 0x2000 on are not all free"),
        (4096, 8192, r"the 8KiB from 0x1000 on are not all free"),
    ],
)
def test_what_cannot_be_allocated_there_is_refused_and_changes_nothing(
    offset: int, size: int, says: str
) -> None:
    space = Space(1 << 20)
    space.allocate_at(8192, 8192)
    with pytest.raises(ValueError, match=says):
        space.allocate_at(offset, size)
    assert space.extents() == [(0, 8192), (16384, (1 << 20) - 16384)]


def test_freeing_twice_says_so() -> None:
    space = Space(1 << 20)
    space.allocate(4096)
    space.free(0)
    with pytest.raises(
        ValueError, match="nothing is allocated at 0x0: it was freed before, or never allocated"
    ):
        space.free(0)


@pytest.mark.parametrize(
    ("offsets", "sizes", "says"),
    [
        ([0, 4096], [4096], "2 offsets and 1 sizes"),
        ([0, 100], [4096, 4096], "offset 0x64 is not a multiple of 4KiB"),
        ([8192], [0], "0 bytes from 0x2000 on are not in a space of 1MiB"),
        ([0], [(1 << 20) + 1], "1048577 bytes from 0x0 on are not in"),
        ([(1 << 20) - 4096], [4097], "4097 bytes from 0xff000 on are not in"),
        ([1 << 63], [4096], "4096 bytes from 0x8000000000000000 on are not in"),
        ([0], [(1 << 64) - 1], "bytes from 0x0 on are not in"),
        ([16384, 0], [1, 20000], "the allocations at 0x0 and 0x4000 overlap"),
        ([4096, 4096], [1, 1], "the allocations at 0x1000 and 0x1000 overlap"),
    ],
)
def test_records_that_cannot_be_are_refused(offsets: list[int], sizes: list[int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Space.restore(1 << 20, np.array(offsets, np.uint64), np.array(sizes, np.uint64))


def test_a_million_records_come_back() -> None:
    """Every other granule of 8 GiB, and the last of all."""
    offsets = np.arange(1 << 20, dtype=np.uint64) * np.uint64(8192)
    space = Space.restore(1 << 33, offsets, np.full(len(offsets), 4000, np.uint64))
    assert len(space) == 1 << 20
    assert space.available == 1 << 32
    assert space.largest == 4096
    assert space.allocate(4097) is None
    assert space.free(4 * 8192) == 4096
    assert space.allocate(3 * 4096) == 4 * 8192 - 4096
