"""Gather and scatter against picking the bytes one by one."""

from __future__ import annotations

import numpy as np
import pytest

from softcxl.memory import WAYS, AddressError, GeometryError, Interleave, gather, maps_for, scatter

MAPS = (0x2020900, 0x4041200, 0x1010400, 0x800)
GEOMETRIES = [
    *[Interleave(ways, 256) for ways in WAYS],
    Interleave(2, 4096),
    *[Interleave(ways, 256, maps_for(ways, MAPS), base=0x60000) for ways in (2, 4, 6, 8, 12, 16)],
]


def shares(interleave, region):
    """For each position, the indices of its bytes in DPA order."""
    positions, dpas = interleave.locate_many(np.arange(region.size))
    indices = []
    for position in range(interleave.ways):
        mine = np.flatnonzero(positions == position)
        indices.append(mine[np.argsort(dpas[mine])])
    return indices


@pytest.mark.parametrize("interleave", GEOMETRIES, ids=repr)
def test_a_share_goes_out_and_comes_back(interleave):
    generator = np.random.default_rng(1)
    # The tail that makes no whole round belongs to nobody.
    region = generator.integers(0, 256, 9 * interleave.round + 100, np.uint8)
    whole = region[: 9 * interleave.round]
    size = whole.size // interleave.ways
    ranges = [
        (0, size),
        (3, size - 5),
        (interleave.granularity - 1, 2),
        (700, 1),
        (255, 513),
        (size, 0),
        (9, 0),
    ]
    for position, indices in enumerate(shares(interleave, whole)):
        for start, count in ranges:
            out = np.empty(count, np.uint8)
            gather(region, interleave, position, start, out)
            assert np.array_equal(out, whole[indices[start : start + count]])

            data = generator.integers(0, 256, count, np.uint8)
            expected = region.copy()
            expected[indices[start : start + count]] = data
            scatter(region, interleave, position, start, data)
            assert np.array_equal(region, expected)

            expected[indices[start : start + count]] = 0
            scatter(region, interleave, position, start, None, count)
            assert np.array_equal(region, expected)
            region[:] = generator.integers(0, 256, region.size, np.uint8)


def test_more_granules_than_are_picked_at_a_time(monkeypatch):
    monkeypatch.setattr("softcxl.memory.strides._TURNS", 3)
    interleave = Interleave(4, 256, MAPS[:2])
    region = np.arange(8192, dtype=np.uint16).view(np.uint8)
    out = np.empty(4096, np.uint8)
    gather(region, interleave, 1, 0, out)
    assert np.array_equal(out, region[shares(interleave, region)[1]])
    other = np.zeros_like(region)
    for position in range(4):
        gather(region, interleave, position, 0, out)
        scatter(other, interleave, position, 0, out)
    assert np.array_equal(other, region)
    scatter(other, interleave, 2, 0, None, 4096)
    assert not other[shares(interleave, region)[2]].any()


@pytest.mark.parametrize(("position", "start", "size"), [(0, 0, 1025), (1, -1, 5), (1, 1024, 1)])
def test_shares_end_with_the_region(position, start, size):
    with pytest.raises(AddressError, match="has 0x400 for each of 2 devices"):
        gather(np.zeros(2048, np.uint8), Interleave(2, 256), position, start, np.empty(size, np.uint8))


def test_positions_are_checked():
    with pytest.raises(GeometryError, match="position 2"):
        scatter(np.zeros(2048, np.uint8), Interleave(2, 256), 2, 0, np.empty(1, np.uint8))
