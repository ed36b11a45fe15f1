"""The layout of a pool's region: nothing in it overlaps, and everything can be mapped."""

from __future__ import annotations

import pytest

from softcxl.spec import pool_region as spec

MIB = 1 << 20


def test_parts_of_the_front_do_not_overlap() -> None:
    parts = [
        (0, 64),
        (spec.TABLE_OFFSET, spec.ENTRIES * 64),
        (spec.BELLS_OFFSET, spec.BELLS * 8),
        (spec.WORDS_OFFSET, spec.CELLS * 8),
        (spec.CELLS_OFFSET, spec.CELLS * spec.CELL_SIZE),
    ]
    ends = [start + size for start, size in parts]
    assert all(end <= start for end, (start, _) in zip(ends, parts[1:], strict=False))
    assert ends[-1] <= 2 * MIB


@pytest.mark.parametrize(
    ("sizes", "places", "end", "capacity"),
    [
        ([2 * MIB], [2 * MIB], 4 * MIB, 256 * MIB),
        ([16 * MIB, 256 * MIB], [2 * MIB, 18 * MIB], 274 * MIB, 512 * MIB),
        ([3 * MIB, MIB, 248 * MIB], [2 * MIB, 6 * MIB, 8 * MIB], 256 * MIB, 256 * MIB),
    ],
)
def test_pieces_begin_at_whole_2_mib(sizes: list[int], places: list[int], end: int, capacity: int) -> None:
    assert spec.places(sizes) == (places, end)
    assert spec.capacity(sizes) == capacity


def test_a_bell_tells_of_one_word() -> None:
    assert [spec.bell_of(offset) for offset in (0, 8, 4096)] == [1, 2, 513]
    assert [spec.rung(bell) for bell in (1, 2, 513)] == [0, 8, 4096]
