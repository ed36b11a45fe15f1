"""Flattened levels against sending each address through the decoders one after the other."""

from __future__ import annotations

from itertools import product

import pytest

from softcxl.memory import GeometryError, Level, flatten


def target_of(address, ways, granularity):
    return address // granularity % ways


CHAINS = [
    [(2, 256)],
    [(2, 256), (2, 512)],
    [(2, 512), (2, 256)],
    [(2, 4096), (4, 1024)],
    [(2, 256), (2, 512), (2, 1024)],
    [(4, 1024), (1, 256), (2, 512), (2, 256)],
    [(3, 256)],
    [(3, 512), (2, 256)],
    [(3, 1024), (4, 256)],
]


@pytest.mark.parametrize("base", [0, 256 << 20, 512 << 20, 3 << 30])
@pytest.mark.parametrize("chain", CHAINS)
def test_position_is_that_of_the_devices_chunk_in_the_first_round(chain, base):
    seen = set()
    for targets in product(*(range(ways) for ways, _ in chain)):
        interleave, position = flatten(
            [
                Level(ways, granularity, target)
                for (ways, granularity), target in zip(chain, targets, strict=True)
            ],
            base,
        )
        seen.add(position)
        for address in range(base, base + 3 * interleave.round, 256):
            path = tuple(target_of(address, ways, granularity) for ways, granularity in chain)
            assert (interleave.locate(address - base)[0] == position) == (path == targets)
    assert seen == set(range(interleave.ways))


def test_no_interleave_at_all():
    assert flatten([])[0].ways == 1
    assert flatten([Level(1, 4096, 0)])[1] == 0


@pytest.mark.parametrize(
    "levels",
    [
        [Level(2, 256, 0), Level(2, 256, 1)],
        [Level(2, 256, 0), Level(2, 1024, 1)],
        [Level(4, 256, 0), Level(3, 1024, 1), Level(2, 256, 0)],
    ],
)
def test_granularities_that_leave_gaps_or_overlap_are_refused(levels):
    with pytest.raises(GeometryError, match="the granularity must be"):
        flatten(levels)


def test_bad_levels_are_refused():
    with pytest.raises(GeometryError, match="targets 0 to 1"):
        Level(2, 256, 2)
    with pytest.raises(GeometryError, match="does not start at a multiple"):
        flatten([Level(2, 512, 0)], 256)
    with pytest.raises(GeometryError, match="32 ways"):
        flatten([Level(16, 256, 0), Level(2, 4096, 0)])
