"""A server that ends, is killed and comes again: its clients go on, with what they had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from softcxl.pool import errors
from softcxl.pool.link import Mapped, Place
from softcxl.pool.opened import Opened
from softcxl.pool.region import Region
from tests.fm.pool.memories import FakeSource, arena
from tests.pool.served import LONG, ROOMY, Served, wait_until


def test_a_client_goes_on_with_the_next_server(served: Served) -> None:
    with served.connect() as pool:
        named, bare = pool.allocate(4096, name="named"), pool.allocate(4096, replicas=2)
        view = named.view()
        named.write(0, b"before")
        served.stop()
        assert named.read(0, 6) == b"before"  # that takes no server
        bare.write(0, b"between")
        served.start()
        wait_until(lambda: served.server.regions.known[named.index].pins)  # it comes by itself
        assert served.server.regions.known[bare.index].opened == 1
        named.write(0, b"after.")
        assert bytes(view[:6]) == b"after."
        assert bare.read(0, 7) == b"between"
        assert pool.allocate(64).read() == bytes(64)
        assert {one.name for one in pool.regions()} == {"", "named"}
        bare.close()
        wait_until(lambda: bare.index not in served.server.regions.known)
    wait_until(lambda: not served.server.names)


@pytest.mark.parametrize(
    ("act", "found"),
    [
        (lambda region: region.write(0, b"written."), b"written."),
        (lambda region: region.swap(0, 0, 1), (1).to_bytes(8, "little")),
        (lambda region: region.add(0, 7), (7).to_bytes(8, "little")),
    ],
)
def test_a_lock_that_a_killed_server_had_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Region], object], found: bytes
) -> None:
    """It copied a region when it was killed, and its lock is let go of only when the next one is there."""
    served = Served(tmp_path / "pool", lease=0.5)
    served.start()
    with served.connect() as pool:
        region = pool.allocate(64, replicas=2)
        held = served.server.rebuilder.copier.open(region.index, served.server.regions.known[region.index])
        held.lock()
        served.stop()
        mend = Opened._mend
        busy: list[errors.PoolError] = []

        def late(self: Opened, error: errors.PoolError | None, waits: bool = False) -> None:
            if isinstance(error, errors.Busy) and not busy:
                busy.append(error)
                served.start()
            mend(self, error, waits)

        monkeypatch.setattr(Opened, "_mend", late)
        act(region)
        assert busy
        assert region.read(0, 8) == found
    served.stop()


def test_a_lock_of_the_server_is_waited_for_no_longer_than_was_said(tmp_path: Path) -> None:
    served = Served(tmp_path / "pool", lease=0.5)
    served.start()
    with served.connect() as pool:
        region = pool.allocate(64, replicas=2)
        held = served.server.rebuilder.copier.open(region.index, served.server.regions.known[region.index])
        held.lock()
        with pytest.raises(errors.Busy, match="slot 0 has its lock"):
            region.write(0, b"x", timeout=0.01)
        with pytest.raises(errors.Busy, match="slot 0 has its lock"), region.locked(0.01):
            pass
        held.unlock()
        region.write(0, b"x", timeout=0.01)
    served.stop()


def test_who_needs_memory_mapped_waits_for_the_next_server(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one who reads a region whose copies have been made anew, on a device that has come, when the server died."""
    with served.connect() as pool:
        link = pool._connection.link
        attach, came = link.attach, []

        def late(name: str, place: Place) -> Mapped:
            came.append(threading.get_ident())
            if came.count(threading.get_ident()) == 3:
                served.start()
            return attach(name, place)

        served.stop()
        monkeypatch.setattr(link, "attach", late)
        pool.renew()
        assert pool.allocate(64).read() == bytes(64)


def test_who_needs_memory_mapped_waits_no_longer_than_its_patience(served: Served) -> None:
    with served.connect() as pool:
        served.stop()
        pool._connection.patience = 0
        with pytest.raises(errors.NoServer, match="no pool answers at"):
            pool.renew()
        served.start()
        wait_until(lambda: pool.slot in served.server.names)
        pool._connection.patience = LONG
        pool.renew()


def test_memory_that_the_next_server_has_besides_is_mapped(served: Served) -> None:
    with served.connect() as pool, served.connect() as other:
        made = pool.allocate(64, name="before")
        served.stop()
        served.sources.append(FakeSource("more", 64 << 20))
        served.start()
        large = pool.allocate(32 << 20, name="large")
        assert large.info.copies[0].source == 4
        large.write(0, b"there")
        assert other.open("large").read(0, 5) == b"there"
        made.write(0, b"still")
        assert other.open("before").read(0, 5) == b"still"
        assert pool.sources == {0, 1, 2, 3, 4}


def test_callbacks_hear_of_another_server(served: Served) -> None:
    with served.connect() as pool:
        heard: list[int] = []
        pool.on_return(lambda: heard.append(pool.tell("server")["epoch"]))
        served.stop()
        served.start()
        wait_until(lambda: heard)
        assert heard == [2]


def test_a_server_with_another_arena_is_told(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(64)
        served.stop()
        served.arena = arena(ROOMY)
        served.start()
        with pytest.raises(errors.Stale, match=r"slot 1, epoch 1, is not this client's any more"):
            pool.allocate(64)
        with pytest.raises(errors.Stale):
            region.free()
        with served.connect() as other:
            assert other.allocate(64).read() == bytes(64)


def test_who_is_taken_for_dead_is_told(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(64, name="left")
        served.server.left(pool.slot)
        with pytest.raises(errors.Stale, match="taken this client for dead"):
            pool.allocate(64)
        with pytest.raises(errors.Stale, match="taken this client for dead"):
            region.read(0, 1)
        with pytest.raises(errors.Stale, match="taken this client for dead"):
            region.write(0, b"x")


def more(by: int, count: Callable[[], int], working: list[Future[None]]) -> None:
    """Wait until so much more was done, or the threads have failed."""
    before = count()
    wait_until(lambda: count() > before + by or any(one.done() for one in working))


def test_restarts_under_load_lose_nothing(served: Served) -> None:
    """Threads allocate, count and free while the server is stopped and started."""
    with served.connect() as pool:
        counter = pool.allocate(64, name="counter", replicas=2)
        stop = threading.Event()
        counts = [0] * 4

        def work(number: int) -> None:
            while not stop.is_set():
                with pool.allocate(256, replicas=1 + number % 2) as region:
                    region.write(0, bytes([number]) * 256)
                    counter.add(0, 1)
                    counts[number] += 1
                    assert region.read() == bytes([number]) * 256

        with ThreadPoolExecutor(4) as threads:
            working = [threads.submit(work, number) for number in range(4)]
            for _ in range(5):
                more(50, lambda: sum(counts), working)
                served.stop()
                served.start()
            stop.set()
        for one in working:
            one.result()
        assert counter.load(0) == sum(counts)
        wait_until(lambda: [one.name for one in pool.regions()] == ["counter"])


# -- processes -------------------------------------------------------------------------------------------------------

SERVE = """
import os, sys
from pathlib import Path
from tests.pool.served import Served
from tests.fm.pool.memories import FakeSource
one = Served(Path(sys.argv[1]))
one.arena = int(sys.argv[2])
for source, fd in zip(one.sources, sys.argv[3:]):
    source.fd = int(fd)
one.start()
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_server_that_is_killed_under_load_loses_nothing(tmp_path: Path) -> None:
    served = Served(tmp_path / "pool.sock")
    files = [served.arena, *(source.fd for source in served.sources)]
    root = Path(__file__).parents[2]

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SERVE, str(served.path), *map(str, files)]
        environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
        pipe = subprocess.PIPE
        server = subprocess.Popen(command, stdin=pipe, stdout=pipe, pass_fds=files, env=environment)
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        return server

    server = start()
    with served.connect() as pool:
        region = pool.allocate(4096, name="kept", replicas=2)
        stop = threading.Event()
        made: list[int] = []

        def work() -> None:
            while not stop.is_set():
                with pool.allocate(64) as bare:
                    bare.write(0, b"x" * 64)
                    made.append(region.add(0, 1))

        with ThreadPoolExecutor(3) as threads:
            working = [threads.submit(work) for _ in range(3)]
            for _ in range(3):
                more(20, lambda: len(made), working)
                server.send_signal(signal.SIGKILL)
                server.communicate()
                server = start()
            stop.set()
        for one in working:
            one.result()
        assert sorted(made) == list(range(1, len(made) + 1))
        wait_until(lambda: [info.name for info in pool.regions()] == ["kept"])
    server.communicate()
    for fd in files:
        os.close(fd)
