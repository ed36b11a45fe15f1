"""Memory that somebody looks at is nobody else's, whatever becomes of its region and of servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.fm.pool.server import PoolServer
from softcxl.pool.errors import NoRoom
from softcxl.pool.protocol import Hold, Located, Opcode, Status
from softcxl.pool.session import Pool
from tests.fm.pool.asking import asking, of
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena
from tests.pool.served import Served, wait_until

SIZE = 8 << 20
NOTHING_MORE = Hold(index=0, generation=0, opened=0, pins=0).pack()


class Pooled:
    """A server that is followed by others, two clients of it, and memory that they fill."""

    def __init__(self) -> None:
        self.sources = [FakeSource(name, SIZE) for name in ("mem0", "mem1", "mem2")]
        self.arena = arena()
        self.serve()
        self.looks, self.takes = (Client(self.server, self.sources, name) for name in ("looks", "takes"))

    def serve(self) -> None:
        self.server = PoolServer(self.arena, self.sources, plan=PLAN)
        self.server.directory.ready()

    def another(self, *, killed: bool = False) -> None:
        """The next server. What one that is killed leaves is there when it has not ended in order."""
        if killed:
            self.server.directory.ended = lambda: None  # type: ignore[method-assign]
        self.server.close()
        self.serve()
        self.looks.server = self.takes.server = self.server

    def says(self, client: Client, made: Located | None = None, pins: int = 0) -> None:
        """What a client that has come back says that it has."""
        if made is not None:
            hold = Hold(index=made.index, generation=made.generation, opened=1, pins=pins)
            client.execute(Opcode.HOLD, hold.pack())
        client.execute(Opcode.HOLD, NOTHING_MORE)

    def fill(self) -> list[Located]:
        """All memory that there is becomes the other client's, who writes it."""
        made = []
        for size in (SIZE, 1 << 20, 64 << 10, 4096):
            while True:
                status, answer = self.server.execute(self.takes.slot, Opcode.ALLOCATE, asking(size).pack())
                if status:
                    assert status == Status.NO_ROOM
                    break
                made.append(Located.unpack(answer))
                self.takes.region(made[-1]).write(0, b"\xff" * size)
        return made

    def clear(self) -> None:
        self.server.regions.clearing.look_again()
        self.server.regions.clearing.clear(self.server.lock)

    def close(self) -> None:
        self.server.close()


@pytest.fixture
def pool() -> Iterator[Pooled]:
    one = Pooled()
    yield one
    one.close()


def looked_at(pool: Pooled, copies: int = 1) -> Located:
    """A region with something in it, of which there is a view."""
    made = pool.looks.allocate(4096, copies)
    pool.looks.region(made).write(0, b"seen")
    pool.looks.execute(Opcode.PIN, of(made))
    return made


@pytest.mark.parametrize("killed", [False, True])
def test_freed_memory_that_is_looked_at_outlives_servers(pool: Pooled, killed: bool) -> None:
    made = looked_at(pool)
    pool.looks.execute(Opcode.FREE, of(made))
    pool.another(killed=killed)
    pool.clear()  # before anybody has come back
    pool.fill()
    assert pool.sources[0].memory[:4] == b"seen"
    pool.says(pool.takes)
    pool.says(pool.looks, made, pins=1)
    pool.clear()
    pool.another(killed=killed)
    pool.says(pool.takes)
    pool.clear()
    assert pool.sources[0].memory[:4] == b"seen"
    pool.says(pool.looks)  # it looks no more
    pool.clear()
    assert pool.sources[0].memory[:4] == bytes(4)
    assert made.index not in pool.server.regions.known


@pytest.mark.parametrize("killed", [False, True])
def test_the_place_of_a_copy_that_was_lost_outlives_servers(pool: Pooled, killed: bool) -> None:
    """Its view does not follow: it shows where the copy was."""
    made = looked_at(pool, copies=2)
    pool.sources[0].fail()
    pool.server.rebuilder.round()
    assert pool.server.regions.known[made.index].extents[0] >> 56 == 3
    pool.sources[0].come_back(kept=True)
    for _ in range(2):
        pool.another(killed=killed)
        pool.fill()
        pool.says(pool.takes)
        pool.says(pool.looks, made, pins=1)
        pool.clear()
        pool.fill()
        assert pool.sources[0].memory[:4] == b"seen"
    pool.looks.execute(Opcode.UNPIN, of(made))
    pool.clear()
    assert pool.sources[0].memory[:4] == bytes(4)
    assert len(pool.fill()) == 1
    assert pool.sources[0].memory[:4] == b"\xff" * 4


def test_a_server_that_dies_before_a_copy_has_left_its_place_leaves_the_region_whole(pool: Pooled) -> None:
    made = looked_at(pool, copies=2)
    place = pool.server.regions.known[made.index].extents[0]
    pool.server.regions.leave_behind(made.index, place)
    pool.another(killed=True)
    assert pool.server.regions.damaged == []
    assert pool.server.regions.known[made.index].extents[0] == place
    assert len([one for one in pool.server.regions.known.values() if place in one.extents]) == 1
    assert pool.looks.region(made).read(0, 4) == b"seen"


def test_who_dies_looks_no_more(pool: Pooled) -> None:
    made = looked_at(pool, copies=2)
    pool.sources[0].fail()
    pool.server.rebuilder.round()
    pool.sources[0].come_back(kept=True)
    pool.another()
    pool.says(pool.takes)
    pool.server.left(pool.looks.slot)
    pool.clear()
    assert made.index not in pool.server.regions.known
    assert pool.sources[0].memory[:4] == bytes(4)


def test_without_a_record_for_where_it_was_a_copy_is_not_made_elsewhere(pool: Pooled) -> None:
    made = looked_at(pool, copies=2)
    small = []
    while len(pool.server.regions.known) < PLAN.regions:
        small.append(pool.takes.allocate(4096, source=3))
    pool.sources[0].fail()
    pool.server.rebuilder.round()
    assert "records for no more" in pool.server.rebuilder.waiting[made.index]
    pool.takes.execute(Opcode.FREE, of(small.pop()))
    pool.clear()
    pool.server.rebuilder.round()
    assert not pool.server.rebuilder.waiting


# -- one that is stopped ---------------------------------------------------------------------------------------------

STOPPED = """
import sys
from softcxl.pool.session import connect
pool = connect(sys.argv[1], name="stopped")
region = pool.allocate(4096)
region.write(0, b"seen")
view = region.view()
region.free()
print("ready", flush=True)
sys.stdin.readline()
print(bytes(view[:4]), flush=True)
sys.stdin.read()
"""


def all_of(pool: Pool, size: int) -> int:
    """Allocate all that there is, and write it. Returns how many regions that were."""
    made = []
    try:
        while True:
            made.append(pool.allocate(size))
            made[-1].write(0, b"\xff" * size)
    except NoRoom:
        return len(made)
    finally:
        for one in made:
            one.free()


def test_who_is_stopped_while_servers_change_has_its_view_yet(tmp_path: Path) -> None:
    served = Served(tmp_path / "pool.sock", lease=0.2)
    served.start()
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, served.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        served.stop()
        served.start()
        with served.connect() as pool:
            wait_until(lambda: not served.server.regions.clearing.held)  # the grace period is over
            whole = sum(source.size for source in served.sources) >> 20
            assert all_of(pool, 1 << 20) < whole
            process.send_signal(signal.SIGCONT)
            process.stdin.write("look\n")
            process.stdin.flush()
            assert process.stdout.readline() == "b'seen'\n"
            process.kill()
            wait_until(lambda: served.server.regions.clearing.coming == 0 and len(served.server.names) == 1)
            wait_until(lambda: all_of(pool, 1 << 20) == whole)
    finally:
        process.kill()
        process.communicate(timeout=60)
        served.stop()


def test_what_is_being_cleared_is_nobodys_to_look_at() -> None:
    """It was freed and looked at by nobody when the server ended: the next one may be at it when somebody says so."""
    pooled = Pooled()
    made = pooled.takes.allocate(4096)
    pooled.server.regions.clearing.held = True  # so that it has not come to that
    pooled.takes.execute(Opcode.FREE, of(made))
    pooled.another(killed=True)
    pooled.server.regions.clearing.held = True
    hold = Hold(index=made.index, generation=made.generation, opened=1, pins=1)
    status, _ = pooled.server.execute(pooled.looks.slot, Opcode.HOLD, hold.pack())
    pooled.server.regions.clearing.clear(pooled.server.lock)
    pooled.server.left(pooled.looks.slot)
    assert status == Status.GONE
    pooled.server.close()
