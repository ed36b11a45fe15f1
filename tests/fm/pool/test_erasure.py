"""A source that is erased, or most of it: what is told of all of it costs no more than what is bad of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from softcxl.fm.pool.copies import Copies
from softcxl.fm.pool.server import PoolServer
from softcxl.pool import errors
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena
from tests.pool.served import wait_until

OFFSETS = (1 << 56) - 1


class Erased(FakeSource):
    """Says how often it was asked."""

    asked = 0

    def poisoned(self, offset: int, size: int) -> list[tuple[int, int]]:
        self.asked += 1
        first, last = offset // 64, -(-(offset + size) // 64)
        bad = self._bad[first:last]
        return [(64 * (first + at), 64) for at in range(last - first) if bad[at]] if any(bad) else []

    def erase(self, *bad: int) -> None:
        """All of it, but for lines that stay bad."""
        assert self.observer is not None
        whole = [(0, self.size)]
        self.observer.poisoned(whole)
        self.memory[:] = bytes(self.size)
        for line in bad:
            self._bad[line // 64] = 1
        self.observer.cleared(whole)
        if bad:
            self.observer.poisoned(whole)


@pytest.fixture
def sources() -> list[Erased]:
    return [Erased("mem0", 32 << 20), Erased("mem1", 32 << 20)]


@pytest.fixture
def server(sources: list[Erased]) -> Iterator[PoolServer]:
    with PoolServer(arena(PLAN), sources, plan=PLAN) as one:
        yield one


def test_what_is_bad_after_that_is_given_to_nobody_and_the_rest_is_as_before(
    server: PoolServer, sources: list[Erased]
) -> None:
    client = Client(server, sources)
    twice, alone = client.allocate(4096, 2), client.allocate(4096, source=2)
    client.region(twice).write(0, b"twice" * 100)
    place = server.regions.known[alone.index].extents[0]
    assert place >> 56 == 1
    bad, free = (place & OFFSETS) + 128, 16 << 20
    sources[0].asked = 0
    sources[0].erase(bad, free)
    wait_until(lambda: sources[0].lines == {bad})  # what nobody has is good again
    wait_until(lambda: Copies(server.directory, twice.index).healthy == 0b11)
    wait_until(lambda: client.region(twice).read(0, 500) == b"twice" * 100)
    assert Copies(server.directory, alone.index).poisoned
    with pytest.raises(errors.Poisoned):
        client.region(alone).read(0, 4096)
    assert sources[0].asked < 1000, "one for each of 8192 pages"
