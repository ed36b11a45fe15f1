"""Memory that hosts share without their caches' help: a program with a missing flush or invalidate fails here."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from softcxl.pool import errors
from softcxl.pool.coherence import Cache, Managed, Shadow, lines
from softcxl.pool.managed import ManagedRegion
from softcxl.pool.region import Region
from softcxl.pool.session import Pool
from tests.pool.served import Served, wait_until

Step = Callable[[Managed], None]
SEEDS = range(20)


@pytest.fixture
def pools(served: Served) -> Iterator[tuple[Pool, Pool]]:
    """Programs on two hosts."""
    with (
        served.connect("one", drop_unflushed=True) as one,
        served.connect("other", drop_unflushed=True) as other,
    ):
        yield one, other


def hosts(pools: tuple[Pool, Pool], evict: float = 0, seed: int = 0) -> tuple[Region, Shadow, Shadow]:
    """Two hosts' views of one region."""
    one, other = pools
    region = one.allocate(4096, name="shared")
    theirs = other.open("shared")
    return (
        region,
        region.view(coherence="managed", drop=True, evict=evict, seed=seed),
        theirs.view(coherence="managed", drop=True, evict=evict, seed=seed),
    )


def send(view: Managed, *, flush_data: bool = True, flush_flag: bool = True) -> None:
    """A message of 200 bytes at 64, then a flag at 0 that it is there; each in lines of its own."""
    view.buffer[64:264] = b"m" * 200
    if flush_data:
        view.flush(64, 200)
    view.buffer[0] = 1
    if flush_flag:
        view.flush(0, 1)


def receive(view: Managed, *, invalidate_data: bool = True, invalidate_flag: bool = True) -> bytes | None:
    """The message, or None where no flag is seen."""
    if invalidate_flag:
        view.invalidate(0, 1)
    if not view.buffer[0]:
        return None
    if invalidate_data:
        view.invalidate(64, 200)
    return bytes(view.buffer[64:264])


def test_the_right_program_is_right_whatever_caches_do(pools: tuple[Pool, Pool]) -> None:
    for seed in SEEDS:
        region, mine, theirs = hosts(pools, evict=0.3, seed=seed)
        assert receive(theirs) is None
        send(mine)
        assert receive(theirs) == b"m" * 200
        region.free()


@pytest.mark.parametrize(
    ("sending", "receiving"),
    [
        ({"flush_data": False}, {}),
        ({"flush_flag": False}, {}),
        ({}, {"invalidate_data": False}),
        ({}, {"invalidate_flag": False}),
    ],
)
def test_a_program_that_forgets_one_fails(
    pools: tuple[Pool, Pool], sending: dict[str, bool], receiving: dict[str, bool]
) -> None:
    region, mine, theirs = hosts(pools)
    assert receive(theirs) is None
    send(mine, **sending)
    assert receive(theirs, **receiving) != b"m" * 200
    region.free()


def test_a_program_that_writes_its_flag_first_fails_where_lines_go_early(pools: tuple[Pool, Pool]) -> None:
    """Nothing of it is missing, but the order: the flag may be in memory before the message is."""
    wrong = 0
    for seed in SEEDS:
        region, mine, theirs = hosts(pools, evict=0.5, seed=seed)
        mine.buffer[0] = 1
        mine.buffer[64:264] = b"m" * 200
        mine.evict()
        wrong += receive(theirs) not in (None, b"m" * 200)
        region.free()
    assert wrong


def test_what_was_not_flushed_is_lost(pools: tuple[Pool, Pool]) -> None:
    region, mine, theirs = hosts(pools)
    mine.buffer[100:130] = b"x" * 30
    assert mine.unflushed == [64, 128]
    mine.flush(100, 20)
    assert mine.unflushed == [128]
    mine.close()
    theirs.invalidate()
    assert bytes(theirs.buffer[100:130]) == b"x" * 28 + bytes(2)
    again = region.view(coherence="managed", drop=True)
    assert bytes(again.buffer[100:130]) == b"x" * 28 + bytes(2)


def test_whole_lines_are_written_back_over_what_others_wrote_in_them(pools: tuple[Pool, Pool]) -> None:
    region, mine, theirs = hosts(pools)
    theirs.buffer[1] = 2
    mine.buffer[0] = 1
    mine.flush(0, 1)
    theirs.flush(1, 1)
    mine.invalidate()
    assert bytes(mine.buffer[:2]) == b"\0\2"
    assert region.read(0, 2) == b"\0\2"


def test_views_of_one_host_share_its_caches(pools: tuple[Pool, Pool]) -> None:
    region, mine, theirs = hosts(pools)
    same = region.view(coherence="managed")
    mine.buffer[0] = 7
    assert same.buffer[0] == 7
    assert isinstance(same, Shadow)
    same.invalidate(0, 1)
    assert mine.buffer[0] == 0
    assert theirs.buffer[0] == 0


def test_the_last_line_of_a_region_that_ends_within_one() -> None:
    memory = bytearray(100)
    cache = Cache(memoryview(memory), 0, 0)
    cache.held[64:] = b"x" * 36
    cache.flush(99, 1)
    assert memory == bytes(64) + b"x" * 36
    memory[99] = 1
    cache.invalidate(99, 1)
    assert cache.held[99] == 1
    assert lines(99, 1) == (64, 128)
    assert lines(0, 0) == (0, 0)
    assert lines(63, 2) == (0, 128)


def test_a_managed_view_of_real_memory(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(4096)
        with region.view(coherence="managed") as view:
            assert not isinstance(view, Shadow)
            assert (view.coherence, view.size) == ("managed", 4096)
            view.buffer[5:10] = b"bytes"
            view.flush(5, 5)
            view.flush()
            view.invalidate(4095, 1)
            assert region.read(5, 5) == b"bytes"
            for offset, size in ((4096, 1), (-1, 1), (0, 5000), (0, -1)):
                with pytest.raises(errors.Refused, match="the region has 4096"):
                    view.flush(offset, size)
                with pytest.raises(errors.Refused, match="the region has 4096"):
                    view.invalidate(offset, size)
        for access in (lambda: view.buffer, view.flush, view.invalidate):
            with pytest.raises(errors.Closed, match="this view was closed"):
                access()
        gc.collect()
        wait_until(lambda: not served.server.regions.known[region.index].pins)


def test_what_a_pool_says_of_its_memory(served: Served) -> None:
    with served.connect() as pool:
        assert pool.coherence == "host"
        assert not pool.drop_unflushed
        assert isinstance(pool.allocate(64).view(), memoryview)
    with served.connect(coherence="managed") as pool:
        assert pool.coherence == "managed"
        region = pool.allocate(64)
        with pytest.raises(errors.Refused, match=r"has to be flushed: view\(coherence='managed'\)"):
            region.view()
        assert isinstance(region.view(coherence="host"), memoryview)  # said by who knows better
    with served.connect(drop_unflushed=True) as pool:
        assert pool.coherence == "managed"
        region = pool.allocate(64)
        assert isinstance(region.view(coherence="managed"), Shadow)
        assert not isinstance(region.view(coherence="managed", drop=False), Shadow)
        with pytest.raises(errors.Refused, match="a share, from 0 to 1"):
            pool.allocate(64).view(coherence="managed", drop=True, evict=2)


@pytest.mark.parametrize("replicas", [1, 2])
def test_regions_of_managed_memory_flush_and_invalidate_by_themselves(served: Served, replicas: int) -> None:
    flushed: list[tuple[str, int, int]] = []

    class Watched(ManagedRegion):
        __slots__ = ()

        def _each(self, do: Callable[..., None], offset: int, size: int) -> None:
            assert self._holder == threading.get_ident()
            flushed.append((do.__name__, offset, size))
            super()._each(do, offset, size)

    with served.connect(coherence="managed") as pool:
        made = pool.allocate(4096, replicas=replicas, name="managed")
        assert isinstance(made, ManagedRegion)
        region = Watched(pool, made.index, made.generation, made.size)
        data = os.urandom(1000)
        region.write(10, data)
        assert region.read(10, 1000) == data
        into = bytearray(4)
        region.read_into(10, into)
        assert into == data[:4]
        with region.locked():
            assert region.add(2048, 3) == 3
            assert region.swap(2048, 3, 4)
        assert region.load(2048) == 4
        assert flushed == [
            ("flush", 10, 1000),
            ("invalidate", 10, 1000),
            ("invalidate", 10, 4),
            ("invalidate", 2048, 8),
            ("flush", 2048, 8),
            ("invalidate", 2048, 8),
            ("flush", 2048, 8),
            ("invalidate", 2048, 8),
        ]
        with pytest.raises(errors.Refused, match="the region has 4096"):
            region.read(4096, 1)
        with pytest.raises(errors.Refused, match="the region has 4096"):
            region.write(4000, bytes(97))
        region.let_go()
