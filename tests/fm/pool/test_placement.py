"""Where copies go, against every choice that there is."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcxl.fm.pool.placement import Placement, Room
from softcxl.fm.pool.space import Space
from softcxl.pool.errors import NoRoom
from softcxl.pool.layout import SourceState
from softcxl.pool.protocol import Policy, Separate

MIB = 1 << 20
HEALTHY, FAILED, ABSENT = SourceState.HEALTHY, SourceState.FAILED, SourceState.ABSENT


def placement(*rooms: tuple[str, str | None, int], used: dict[str, int] | None = None) -> Placement:
    """Sources from 1 on, as (name, switch, size); the device is what is before the dot."""
    made = Placement()
    for number, (name, switch, size) in enumerate(rooms, start=1):
        space = Space(size)
        if (used or {}).get(name):
            space.allocate_at(0, (used or {})[name])
        made.add(Room(number, name, name.partition(".")[0], switch, space))
    return made


def sources(placed: list[tuple[int, int]]) -> list[int]:
    return [source for source, _ in placed]


Rooms = list[tuple[int, int | None, int, bool]]
rooms = st.lists(
    st.tuples(
        st.integers(0, 4), st.sampled_from([None, 0, 1, 2]), st.integers(1, 6), st.booleans() | st.just(True)
    ),
    min_size=1,
    max_size=7,
)


def behind(device: int, switches: dict[int, int | None]) -> tuple[str, int]:
    switch = switches[device]
    return ("device", device) if switch is None else ("switch", switch)


@given(
    rooms=rooms,
    copies=st.integers(1, 4),
    need=st.integers(1, 6),
    policy=st.sampled_from(Policy),
    separate=st.sampled_from(Separate),
    beside=st.sets(st.integers(1, 7), max_size=2),
)
@settings(max_examples=400, deadline=None)
def test_copies_are_placed_exactly_where_there_is_a_way(
    rooms: Rooms, copies: int, need: int, policy: Policy, separate: Separate, beside: set[int]
) -> None:
    switches: dict[int, int | None] = {}
    for device, switch, _, _ in rooms:
        switches.setdefault(device, switch)
    made = Placement()
    for number, (device, _, granules, healthy) in enumerate(rooms, start=1):
        switch = switches[device]
        state = HEALTHY if healthy else FAILED
        name = None if switch is None else f"sw{switch}"
        made.add(Room(number, f"mem{number}", f"dev{device}", name, Space(granules * 4096), state))
    beside = {number for number in beside if number <= len(rooms)}
    device_of = {number: room[0] for number, room in enumerate(rooms, start=1)}

    def switches_of(numbers: tuple[int, ...]) -> set[tuple[str, int]]:
        return {behind(device_of[number], switches) for number in numbers}

    def allowed(numbers: tuple[int, ...]) -> bool:
        devices = [device_of[number] for number in (*numbers, *beside)]
        if len(set(devices)) != len(numbers) + len({device_of[number] for number in beside}):
            return False
        if separate is Separate.DEVICE:
            return True
        return len(switches_of((*numbers, *beside))) == len(numbers) + len(switches_of(tuple(beside)))

    fitting = [
        number for number, (_, _, granules, healthy) in enumerate(rooms, 1) if healthy and granules >= need
    ]
    ways = [chosen for chosen in combinations(fitting, copies) if allowed(chosen)]
    before = {number: made.rooms[number].space.available for number in made.rooms}
    if not ways:
        with pytest.raises(NoRoom):
            made.allocate(need * 4096, copies, policy, separate, beside=beside)
        assert {number: made.rooms[number].space.available for number in made.rooms} == before
        return
    placed = made.allocate(need * 4096, copies, policy, separate, beside=beside)
    chosen = tuple(sorted(sources(placed)))
    assert chosen in ways
    most = max(len(switches_of((*way, *beside))) for way in ways)
    assert len(switches_of((*chosen, *beside))) == most
    for source, offset in placed:
        assert made.free(source, offset) == need * 4096
    assert {number: made.rooms[number].space.available for number in made.rooms} == before


@given(
    sizes=st.lists(st.integers(1, 64), min_size=1, max_size=6),
    steps=st.lists(st.tuples(st.sampled_from(Policy), st.integers(1, 8)), max_size=40),
)
@settings(max_examples=100, deadline=None)
def test_spread_takes_the_emptiest_and_pack_the_fullest(
    sizes: list[int], steps: list[tuple[Policy, int]]
) -> None:
    made = placement(*((f"mem{i}", None, size * 4096) for i, size in enumerate(sizes)))
    used = [0] * len(sizes)
    for policy, need in steps:
        fits = [i for i, size in enumerate(sizes) if size - used[i] >= need]
        if not fits:
            with pytest.raises(NoRoom):
                made.allocate(need * 4096, policy=policy)
            continue
        (source, _), *others = made.allocate(need * 4096, policy=policy)
        assert not others
        parts = {i: used[i] / sizes[i] for i in fits}
        best = min(parts.values()) if policy is Policy.SPREAD else max(parts.values())
        assert source - 1 == next(i for i in fits if abs(parts[i] - best) < 1e-8)
        used[source - 1] += need


def test_spread_goes_by_the_part_that_is_used() -> None:
    made = placement(
        ("small", None, 100 * MIB), ("large", None, 1000 * MIB), used={"small": 10 * MIB, "large": 50 * MIB}
    )
    assert sources(made.allocate(MIB)) == [2]
    assert sources(made.allocate(MIB, policy=Policy.PACK)) == [1]


def test_logical_devices_of_one_device_do_not_share_copies() -> None:
    made = placement(("shared.0", None, MIB), ("shared.1", None, MIB), ("mem0", None, MIB))
    assert sources(made.allocate(4096, 2)) == [1, 3]
    with pytest.raises(NoRoom) as raised:
        made.allocate(4096, 3)
    assert (
        str(raised.value) == "3 copies on 3 devices were asked for; there are 2 healthy ones (shared, mem0)"
    )


def test_switches_of_their_own_are_preferred() -> None:
    made = placement(
        ("mem0", "sw0", MIB), ("mem1", "sw0", MIB), ("mem2", "sw1", MIB), used={"mem2": MIB // 2}
    )
    assert sources(made.allocate(4096, 2)) == [1, 3]
    assert sorted(sources(made.allocate(4096, 3))) == [1, 2, 3]


def test_switches_of_their_own_can_be_demanded() -> None:
    made = placement(("mem0", "sw0", MIB), ("mem1", "sw0", MIB), ("mem2", "sw1", MIB))
    assert sources(made.allocate(4096, 2, separate=Separate.SWITCH)) == [1, 3]
    with pytest.raises(NoRoom) as raised:
        made.allocate(4096, 3, separate=Separate.SWITCH)
    assert str(raised.value) == (
        "3 copies were asked for, each behind a switch of its own; healthy memory is behind 2 (sw0, sw1)"
    )


def test_devices_without_a_switch_share_none() -> None:
    made = placement(("mem0", None, MIB), ("mem1", None, MIB))
    assert sources(made.allocate(4096, 2, separate=Separate.SWITCH)) == [1, 2]


def test_failed_and_absent_sources_are_left_out_until_they_are_healthy_again() -> None:
    made = placement(("mem0", None, MIB), ("mem1", None, MIB), ("mem2", None, MIB))
    ((_, offset),) = made.allocate(4096, source=1)
    made.set_state(1, FAILED)
    made.set_state(2, ABSENT)
    assert sources(made.allocate(4096)) == [3]
    with pytest.raises(
        NoRoom, match=r"2 copies on 2 devices were asked for; there is 1 healthy one \(mem2\)"
    ):
        made.allocate(4096, 2)
    assert made.free(1, offset) == 4096
    made.set_state(1, HEALTHY)
    assert sources(made.allocate(4096, 2)) == [1, 3]


def test_a_source_that_has_to_be_asked_for_is_found_by_number_only() -> None:
    made = placement(("mem0", None, MIB))
    made.add(Room(0, "arena", "arena", None, Space(MIB), asked_for=True))
    assert sources(made.allocate(4096)) == [1]
    assert sources(made.allocate(4096, source=0)) == [0]
    with pytest.raises(NoRoom, match=r"there is 1 healthy one \(mem0\)"):
        made.allocate(4096, 2)
    assert made.free(0, 0) == 4096


def test_a_picture_made_anew_takes_the_old_one_s_place() -> None:
    made = placement(("mem0", None, MIB), ("mem1", None, MIB))
    full = Space(MIB)
    full.allocate(MIB)
    made.replace_space(1, full)
    assert sources(made.allocate(4096)) == [2]


def test_a_number_is_one_source_s() -> None:
    made = placement(("mem0", None, MIB))
    with pytest.raises(ValueError, match="source 1 is mem0 already"):
        made.add(Room(1, "mem1", "mem1", None, Space(MIB)))


def test_copies_beside_others_keep_away_from_them() -> None:
    made = placement(("mem0", "sw0", MIB), ("mem1", "sw0", MIB), ("mem2", "sw1", MIB))
    assert sources(made.allocate(4096, beside=[1])) == [3]
    assert sources(made.allocate(4096, beside=[1, 3])) == [2]
    with pytest.raises(NoRoom) as raised:
        made.allocate(4096, beside=[1, 2, 3])
    assert (
        str(raised.value)
        == "a copy more was asked for; all healthy devices (mem0, mem1, mem2) have one already"
    )


LARGEST = (
    "the largest free extents are 64MiB on mem1, 64MiB on mem2, 50MiB on mem0; "
    "there is as much in pieces on mem0: defragmenting helps"
)


def scattered() -> Placement:
    made = placement(("mem0", None, 100 * MIB), ("mem1", None, 64 * MIB), ("mem2", None, 64 * MIB))
    made.rooms[1].space.allocate_at(40 * MIB, 10 * MIB)
    return made


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        ({"size": 80 * MIB}, f"one copy was asked for, of 80MiB; {LARGEST}"),
        (
            {"size": 60 * MIB, "copies": 3},
            f"3 copies were asked for, of 60MiB, on different devices; {LARGEST}",
        ),
        (
            {"size": 51 * MIB, "source": 1},
            "51MiB were asked for on mem0; the largest free extent there is 50MiB, of 90MiB that are free",
        ),
        (
            {"size": 4096, "source": 2, "copies": 2},
            "2 copies were asked for on mem1 alone; copies are on different devices",
        ),
        ({"size": 4096, "source": 9}, "there is no source 9; there are 1, 2, 3"),
    ],
)
def test_what_cannot_be_placed_says_what_there_is(ask: dict[str, int], says: str) -> None:
    size = ask.pop("size")
    with pytest.raises(NoRoom) as raised:
        scattered().allocate(size, **ask)  # type: ignore[arg-type]
    assert str(raised.value) == says


def test_a_source_that_was_asked_for_and_is_not_healthy_says_so() -> None:
    made = scattered()
    made.set_state(3, ABSENT)
    with pytest.raises(NoRoom, match="mem2 was asked for, and is not there"):
        made.allocate(4096, source=3)


def test_a_pool_without_healthy_memory_says_what_became_of_it() -> None:
    made = placement(*((f"mem{i}", None, MIB) for i in range(6)))
    for number in made.rooms:
        made.set_state(number, FAILED if number < 3 else ABSENT)
    with pytest.raises(NoRoom) as raised:
        made.allocate(4096)
    assert str(raised.value) == (
        "no memory of the pool is healthy: "
        "mem0 has failed, mem1 has failed, mem2 is not there, mem3 is not there and 2 more"
    )
    with pytest.raises(NoRoom, match="no memory of the pool is healthy: it has none"):
        Placement().allocate(1)


def test_the_error_fits_in_an_answer() -> None:
    made = placement(*(("m" * 40 + str(i), "s" * 40 + str(i), MIB) for i in range(254)))
    for ask in ((MIB + 1, 1), (MIB + 1, 8)):
        with pytest.raises(NoRoom) as raised:
            made.allocate(*ask)
        assert len(str(raised.value).encode()) < 1000
