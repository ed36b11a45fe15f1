"""Files with holes on file systems that are smaller than they say."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from softcxl.fm.pool.server import PoolServer
from softcxl.pool.protocol import Opcode, Status
from tests.fm.pool.asking import asking, of
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena

MIB = 1 << 20


class Disk:
    """What `statvfs` says of every file."""

    def __init__(self, free: int) -> None:
        self.free = free

    def statvfs(self, fd: int) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 1 << 20, self.free >> 12, self.free >> 12, 0, 0, 0, 0, 255))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    one = Disk(1 << 30)
    monkeypatch.setattr(os, "fstatvfs", one.statvfs)
    return one


@pytest.fixture
def sources() -> list[FakeSource]:
    return [FakeSource("mem0"), FakeSource("mem1")]


def test_what_the_file_system_has_no_room_for_is_not_given_out(disk: Disk, sources: list[FakeSource]) -> None:
    events = []
    with closing(
        PoolServer(
            arena(),
            sources,
            plan=PLAN,
            event=lambda kind, subject, detail: events.append((kind, detail.get("bytes"))),
        )
    ) as server:
        server.directory.ready()
        client = Client(server, sources)
        backed = os.fstat(server.directory.fd).st_blocks * 512
        disk.free = PLAN.size - backed + 5 * MIB  # all of the arena, and 5 MiB
        server.sources.backing.look()
        first = client.allocate(4 * MIB)
        status, said = server.execute(client.slot, Opcode.ALLOCATE, asking(2 * MIB).pack())
        assert status == Status.NO_ROOM
        assert b"its file system has no room for them: 1MiB too little" in said
        assert server.execute(client.slot, Opcode.ALLOCATE, asking(MIB, copies=2).pack())[0] == Status.NO_ROOM
        second = client.allocate(MIB)
        # What is written has room, and takes no more of it
        client.region(first).write(0, b"x" * 4 * MIB)
        disk.free -= 4 * MIB
        assert server.execute(client.slot, Opcode.ALLOCATE, asking(4096).pack())[0] == Status.NO_ROOM
        # What is freed has it no more, and makes room
        client.execute(Opcode.FREE, of(first))
        server.regions.clearing.clear(server.lock)
        disk.free += 4 * MIB
        client.execute(Opcode.FREE, of(client.allocate(4 * MIB)))
        client.execute(Opcode.FREE, of(second))
        # Somebody else takes it
        server.sources.backing.tick()
        assert "room short" not in dict(events)
        disk.free = 0
        for _ in range(2):
            server.sources.backing.tick()
        assert [kind for kind, _ in events].count("room short") == 1


def test_memory_without_a_file_system_has_room(sources: list[FakeSource]) -> None:
    with closing(PoolServer(arena(), sources, plan=PLAN)) as server:
        client = Client(server, sources)
        client.allocate(8 * MIB, 2)


def test_nothing_is_moved_where_that_makes_no_room(disk: Disk, sources: list[FakeSource]) -> None:
    with closing(PoolServer(arena(), sources, plan=PLAN)) as server:
        client = Client(server, sources)
        made = [client.allocate(MIB) for _ in range(16)]
        for one in made[::2]:
            client.execute(Opcode.FREE, of(one))
        server.regions.clearing.clear(server.lock)
        assert server.defragmenter.can_help(2 * MIB)
        disk.free = 0
        assert not server.defragmenter.can_help(2 * MIB)


SMALL = """
import os, sys
from pathlib import Path
from softcxl.pool.errors import NoRoom
from softcxl.pool.session import connect
from tests.fm.pool import memories
from tests.pool.served import Served

folder = Path(sys.argv[1])
def file(name):
    return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
os.memfd_create = file  # what tests have without a name is in this small file system
served = Served(folder / "pool.sock", count=2)
served.start()
with connect(served.address, name="greedy") as pool:
    made = []
    for again in range(2):
        try:
            while True:
                made.append(pool.allocate("256KiB"))
                made[-1].write(0, b"x" * made[-1].size)
        except NoRoom as error:
            print(len(made), error)
        assert all(one.read(0, 1) == b"x" for one in made)
        while made:
            made.pop().free()
served.stop()
"""


def test_who_writes_all_that_there_is_is_not_killed_for_it(tmp_path: Path) -> None:
    """A file system of 12 MiB, of which the arena has 5 and a bit, and memory devices that say 16."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = 'mount -t tmpfs -o size=12m none "$1" && exec "$2" -c "$3" "$1"'
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted, "sh", str(small), sys.executable, SMALL],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare:" in run.stderr or "mount:" in run.stderr:
        pytest.skip(f"no file system can be mounted here: {run.stderr}")
    assert run.returncode == 0, run
    counts = [line.split()[0] for line in run.stdout.splitlines()]
    assert len(counts) == 2
    assert counts[0] == counts[1]
    assert "its file system has no room" in run.stdout
