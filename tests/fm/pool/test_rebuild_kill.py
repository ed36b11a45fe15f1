"""A server that rebuilds is killed before each thing that it does; the next one finds a whole region and finishes."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from softcxl.fm.pool.copying import CHUNK
from softcxl.pool.native import Memory
from softcxl.pool.protocol import Located
from tests.fm.pool.memories import Client
from tests.fm.pool.test_rebuild import Pool, devices

SIZE = 2 * CHUNK + 4096


class Death:
    """Kills the process at its `after`-th step."""

    def __init__(self, after: int) -> None:
        self.left = after

    def step(self) -> None:
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def before(self, what: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.step()
            return what(*arguments)

        return counted

    def around(self, what: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> None:
            self.step()
            what(*arguments)
            self.step()

        return counted


class Words:
    """The arena's words, before each change of which the process may die."""

    def __init__(self, memory: Memory, death: Death) -> None:
        self.load = memory.load
        self.store, self.swap, self.add = (
            death.before(one) for one in (memory.store, memory.swap, memory.add)
        )


def killed(pool: Pool, after: int, work: Callable[[Pool], None]) -> bool:
    """Have another server, in a process of its own, do that, and die at its `after`-th step. False: it was through."""
    pool.server.close()
    child = os.fork()
    if not child:
        try:
            pool.serve()
            death = Death(after)
            pool.server.sources.memories()
            pool.server.directory.memory = Words(pool.server.directory.memory, death)  # type: ignore[assignment]
            pool.rebuilder.copier.copy_chunk = death.before(pool.rebuilder.copier.copy_chunk)  # type: ignore[method-assign]
            for source in pool.sources:
                source.clear_poison = death.around(source.clear_poison)  # type: ignore[method-assign]
            work(pool)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "see what it has printed"
    pool.serve()
    return os.WIFSIGNALED(status)


def each_death(make: Callable[[], Pool], work: Callable[[Pool], None]) -> Any:
    """Pools whose servers have died, each at one step later than the one before."""
    for after in range(200):
        pool = make()
        died = killed(pool, after, work)
        yield pool
        if not died:
            assert after > 5, "there were steps to die at"
            return
    pytest.fail("it never comes to an end")


def test_a_rebuild_is_finished_by_the_next_server() -> None:
    data = os.urandom(SIZE)

    def make() -> Pool:
        pool = Pool(*devices(3))
        located = pool.client.allocate(SIZE, 2, name="r")
        pool.client.region(located).write(0, data)
        pool.sources[0].fail()
        pool.sources[0].memory[:] = b"\xee" * pool.sources[0].size
        return pool

    for pool in each_death(make, lambda pool: pool.rebuilder.round()):
        pool.client = Client(pool.server, pool.sources)
        index = pool.server.regions.names["r"]
        located = Located(index=index, generation=1, size=SIZE)
        assert pool.client.region(located).read(0, SIZE) == data
        pool.client.region(located).write(CHUNK - 3, b"between")
        pool.rebuilder.round()
        expected = data[: CHUNK - 3] + b"between" + data[CHUNK + 4 :]
        pool.holds(located, expected, 2)
        assert pool.where(located) == ["mem2", "mem1"]
        assert pool.used()["mem0"] == 0
        assert pool.rebuilder.waiting == {}


def test_a_writer_goes_on_over_the_servers_death() -> None:
    """It finds the lock of the server that died, and takes it."""
    first = os.urandom(SIZE)

    def make() -> Pool:
        pool = Pool(*devices(3))
        pool.located, _ = pool.region(2, SIZE)  # type: ignore[attr-defined]
        region = pool.client.region(pool.located)  # type: ignore[attr-defined]
        region.write(0, first)
        pool.sources[1].fail()
        pool.stop, pool.expected = threading.Event(), bytearray(first)  # type: ignore[attr-defined]

        def write() -> None:
            count = 0
            while not pool.stop.is_set() or count < 50:  # type: ignore[attr-defined]
                at, piece = count * 7919 % (SIZE - 300), os.urandom(300)
                region.write(at, piece)
                pool.expected[at : at + 300] = piece  # type: ignore[attr-defined]
                count += 1

        pool.writer = threading.Thread(target=write)  # type: ignore[attr-defined]
        pool.writer.start()  # type: ignore[attr-defined]
        return pool

    def rebuild(pool: Pool) -> None:
        pool.rebuilder.round()
        while "somebody has its lock" in pool.rebuilder.waiting.values():  # a writer that was not let run
            pool.rebuilder.round()

    for pool in each_death(make, rebuild):
        pool.rebuilder.round()
        pool.stop.set()
        pool.writer.join()
        pool.rebuilder.round()
        pool.holds(pool.located, bytes(pool.expected), 2)


def test_a_repair_of_poison_is_finished_by_the_next_server_or_by_a_writer() -> None:
    data = os.urandom(SIZE)

    def make() -> Pool:
        pool = Pool(*devices(2))
        pool.located, _ = pool.region(2, SIZE)  # type: ignore[attr-defined]
        pool.client.region(pool.located).write(0, data)  # type: ignore[attr-defined]
        pool.sources[0].poison(0, 128, CHUNK, SIZE - 64)
        return pool

    for pool in each_death(make, lambda pool: pool.rebuilder.round()):
        assert pool.client.region(pool.located).read(0, SIZE) == data
        pool.client.region(pool.located).write(4096, data[4096:4100])
        pool.rebuilder.round()
        pool.holds(pool.located, data, 2)
        assert pool.sources[0].lines == set()
        assert pool.server.directory.region(pool.located.index).poisoned == 0
