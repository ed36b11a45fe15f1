"""Stretches of bytes, against a set of bytes."""

import itertools

from hypothesis import given
from hypothesis import strategies as some

from softcxl.fabric.stretches import Stretches

STEPS = some.lists(
    some.tuples(some.sampled_from(["add", "remove"]), some.integers(0, 60), some.integers(0, 20))
)


@given(STEPS, some.integers(0, 60), some.integers(0, 30))
def test_they_are_as_many_bytes_as_there_were_and_no_two_touch(steps, start, length):
    stretches = Stretches()
    wanted: set[int] = set()
    for what, at, size in steps:
        getattr(stretches, what)(at, size)
        (wanted.update if what == "add" else wanted.difference_update)(range(at, at + size))
    found = list(stretches)
    assert {byte for at, size in found for byte in range(at, at + size)} == wanted
    assert all(one[0] + one[1] < other[0] for one, other in itertools.pairwise(found))
    assert len(stretches) == len(found)
    within = stretches.within(start, length)
    assert [byte for at, size in within for byte in range(at, at + size)] == sorted(
        wanted & set(range(start, start + length))
    )
