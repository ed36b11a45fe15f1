"""What a region's record says of its copies."""

from __future__ import annotations

import pytest

from softcxl.fm.pool.copies import Copies, impaired
from softcxl.fm.pool.server import PoolServer
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena


def regions(*copies: int) -> tuple[PoolServer, list[Copies]]:
    """A pool with regions of so many copies each."""
    sources = [FakeSource(f"mem{i}", 1 << 20) for i in range(4)]
    server = PoolServer(arena(), sources, plan=PLAN)
    client = Client(server, sources)
    indices = [client.allocate(4096, count, name=f"r{i}").index for i, count in enumerate(copies)]
    return server, [Copies(server.directory, index) for index in indices]


def test_a_dropped_copy_is_rebuilt_by_joining() -> None:
    _, (one,) = regions(3)
    assert (one.state, one.own, one.count, one.size) == ((0b111, 0), 0b111, 3, 4096)
    assert one.drop(0b010)
    assert not one.drop(0b010)
    assert not one.promote(1)
    assert one.join(1)
    assert one.state == (0b101, 0b010)
    assert one.promote(1)
    assert one.state == (0b111, 0)


def test_one_that_fails_while_it_joins_is_not_promoted() -> None:
    _, (one,) = regions(2)
    one.drop(0b10)
    one.join(1)
    assert one.drop(0b10)
    assert not one.promote(1)
    assert one.state == (0b01, 0)


def test_what_was_whole_to_the_last_comes_back_and_nothing_else() -> None:
    _, (one,) = regions(3)
    one.drop(0b001)
    one.join(0)
    one.drop(0b110)
    assert one.state == (0, 0b110)
    assert not one.join(0)
    assert not one.leave(0b110)
    assert not one.promote(1)
    assert not one.drop(0b100)
    assert not one.revive(0b001)
    one.forget(0b010)
    assert not one.revive(0b010)
    assert one.revive(0b110)
    assert one.state == (0b100, 0)
    one.forget(0b100)
    assert one.state == (0b100, 0)


def test_where_a_copy_moves_to_is_one_beyond_the_regions_own() -> None:
    _, (one,) = regions(2)
    assert set(one.extents()) == {0, 1}
    one.place(2, 77 << 12)
    one.join(2)
    assert one.extents()[2] == one.extent(2) == 77 << 12
    one.leave(0b100)
    assert set(one.extents()) == {0, 1}


def test_poison_and_places_are_one_word_and_do_not_disturb_each_other() -> None:
    _, (one,) = regions(2)
    one.set_poisoned(0b11)
    one.displaced()
    one.set_clean(0b01)
    one.displaced()
    assert (one.poisoned, one.layout) == (0b10, 2)


@pytest.mark.parametrize("what", ["drop", "join", "poison"])
def test_the_impaired_are_found_the_barest_first(what: str) -> None:
    server, every = regions(2, 4, 3, 1, 2)
    assert impaired(server.directory) == []
    if what == "drop":
        every[1].drop(0b1111)
        every[2].drop(0b001)
        every[4].drop(0b10)
        expected = [1, 4, 2]
    elif what == "join":
        every[2].join(3)
        every[0].join(2)
        expected = [0, 2]
    else:
        every[3].set_poisoned(1)
        every[2].set_poisoned(0b100)
        expected = [3, 2]
    # The first record is the journal's of the client.
    assert impaired(server.directory) == [index + 1 for index in expected]
    server.regions.leave(1 + expected[0])
    assert impaired(server.directory) == [index + 1 for index in expected[1:]]
