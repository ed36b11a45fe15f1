"""A program whose memory fails, and one that asks for much: what is done about it is not theirs to notice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.pool.errors import NoRoom
from tests.pool.served import Served, wait_until

MIB = 1 << 20


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    one = Served(tmp_path / "pool.sock", count=3)
    one.start()
    yield one
    one.stop()


def test_a_program_reads_and_writes_on_while_one_device_after_the_other_fails(served: Served) -> None:
    with served.connect() as pool, pool.allocate("1MiB", replicas=2) as region:
        data = os.urandom(MIB)
        region.write(0, data)
        for number in (0, 1, 2, 0):
            failing = served.sources[number]
            failing.fail()
            assert region.read(0, MIB) == data
            failing.memory[:] = b"\xee" * failing.size
            wait_until(lambda: all(copy.healthy for copy in region.info.copies))
            data = os.urandom(MIB)
            region.write(0, data)
            failing.come_back(kept=False)
        assert served.copy(region, 0) == served.copy(region, 1) == data == region.read(0, MIB)
        assert pool.tell("rebuild") == {"rebuilding": [], "waiting": [], "moved": 0}


WRITER = """
import sys, threading
import softcxl
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
with softcxl.connect(sys.argv[1], name="writer") as pool, pool.open("shared") as region:
    count = 0
    while not stop.is_set() or count < 256:
        region.write(count % 256 * 4000, count.to_bytes(4, "little") * 1000)
        count += 1
        if count == 256:
            print("begun", flush=True)
    print(count)
"""


def test_another_process_writes_while_copies_are_made_anew(served: Served) -> None:
    """What it has written last is in every place, whole, of every copy."""
    with served.connect() as pool, pool.allocate("1MiB", replicas=2, name="shared") as region:
        command = [sys.executable, "-c", WRITER, served.address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdin is not None
            assert writer.stdout.readline() == "begun\n"
            for number in (0, 1, 2, 0, 1, 2):
                failing = served.sources[number]
                failing.fail()
                failing.memory[:] = b"\xee" * failing.size
                wait_until(lambda: all(copy.healthy for copy in region.info.copies))
                failing.come_back(kept=False)
            writer.stdin.close()
            count = int(writer.stdout.read())
        assert writer.returncode == 0
        expected = b"".join(
            (at + (count - 1 - at) // 256 * 256).to_bytes(4, "little") * 1000 for at in range(256)
        )
        for copy in (0, 1):
            assert served.copy(region, copy)[: len(expected)] == expected


def test_what_waits_for_memory_is_told(served: Served) -> None:
    with served.connect() as pool, pool.allocate("1MiB", replicas=3, name="kept") as region:
        served.sources[1].fail()
        wait_until(lambda: pool.tell("rebuild")["waiting"])
        ((said),) = pool.tell("rebuild")["waiting"]
        assert said["name"] == "kept"
        assert said["why"] == "a copy more was asked for; all healthy devices (mem0, mem2) have one already"
        served.sources[1].come_back(kept=True)
        wait_until(lambda: all(copy.healthy for copy in region.info.copies))
        wait_until(lambda: not pool.tell("rebuild")["waiting"])


def test_a_large_region_gets_room_where_there_is_only_as_much_in_pieces(tmp_path: Path) -> None:
    served = Served(tmp_path / "pool.sock", count=1)
    served.start()
    with served.connect() as pool:
        regions = [pool.allocate(MIB) for _ in range(8)]
        data = {region.index: os.urandom(MIB) for region in regions}
        for region in regions:
            region.write(0, data[region.index])
        for region in regions[::2]:
            region.free()
        with pool.allocate("3MiB") as large:
            large.write(0, b"\x55" * (3 * MIB))
            for region in regions[1::2]:
                assert region.read(0, MIB) == data[region.index]
        with pytest.raises(NoRoom, match="the largest free extent is"):
            pool.allocate("5MiB")
        assert pool.tell("rebuild")["moved"] >= MIB
    served.stop()
