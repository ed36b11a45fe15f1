"""Reading around poison: each line from a copy that has it, whatever is poisoned where."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from softcxl.pool.poison import Poison
from softcxl.pool.protocol import PoisonAnswer, PoisonedRange, PoisonQuery

SIZE = 1024

ranges = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, SIZE - 1), st.integers(1, 200)).map(
        lambda one: (one[0], one[1], min(one[2], SIZE - one[1]))
    ),
    max_size=12,
)


@given(ranges, st.integers(0, SIZE), st.integers(0, SIZE), st.integers(1, 7))
def test_a_plan_is_what_a_look_at_each_byte_says(
    poisoned: list[tuple[int, int, int]], offset: int, size: int, copies: int
) -> None:
    size = min(size, SIZE - offset)
    pieces, lost = Poison(0, tuple(poisoned)).plan(offset, size, copies)
    clean = [
        {copy for copy in range(3) if copies >> copy & 1}
        - {copy for copy, at, length in poisoned if at <= byte < at + length}
        for byte in range(SIZE)
    ]
    gone = [byte for at, length in lost for byte in range(at, at + length)]
    assert gone == [byte for byte in range(offset, offset + size) if not clean[byte]]
    read: list[int] = []
    for at, length, whole in pieces:
        assert whole
        for byte in range(at, at + length):
            assert all(not whole >> copy & 1 or copy in clean[byte] for copy in range(3))
        read += range(at, at + length)
    assert sorted(read + gone) == list(range(offset, offset + size))
    assert len(pieces) <= 1 + 2 * len(poisoned)


@given(ranges, st.integers(2, 5))
def test_all_of_it_is_asked_for(poisoned: list[tuple[int, int, int]], most: int) -> None:
    """A server that tells a few at a time, in order of their offset, as it does."""
    lines = sorted({(offset // 64 * 64, copy) for copy, offset, _ in poisoned})

    def ask(query: bytes) -> bytes:
        asked = PoisonQuery.unpack(query)
        assert (asked.index, asked.generation) == (7, 3)
        found = [(at, copy) for at, copy in lines if asked.offset - 64 < at < asked.offset + asked.length]
        told = found[: max(most, 4)]
        answer = PoisonAnswer(
            more=len(found) > len(told),
            ranges=[PoisonedRange(copy=copy, offset=at, length=64) for at, copy in told],
        )
        return answer.pack()

    found = Poison.of(7, 3, SIZE, 9, ask)
    assert found.health == 9
    assert {(copy, at) for copy, at, _ in found.ranges} == {(copy, at) for at, copy in lines}
