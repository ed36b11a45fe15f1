"""Connections to a pool: how one comes to it, and that neither a server's end nor a lie of its hurts."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import softcxl
from softcxl.pool import errors
from softcxl.pool.layout import HEADER, Plan
from softcxl.pool.link import Mapped, Place, SocketLink
from softcxl.pool.mapping import check
from softcxl.pool.opened import Opened
from softcxl.pool.protocol import Head, Opcode, SourceFile, Welcome
from softcxl.pool.region import Region
from softcxl.pool.session import Pool, connect
from tests.fm.pool.memories import PLAN, FakeSource, arena
from tests.pool.served import LONG, ROOMY, Served, wait_until

# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["", "nonsense", "tcp:1.2.3.4:5", "unix:", "unix:a\0b", "unix:" + "x" * 200]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(errors.Refused, match=r"(unix:PATH|at most 107 bytes)"):
        connect(address)


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.NoServer, match=r"no pool answers at unix:.*nothing\.pool: No such file"):
        connect(f"unix:{tmp_path}/nothing.pool")
    (tmp_path / "file").touch()
    with pytest.raises(errors.NoServer, match="Connection refused"):
        connect(f"unix:{tmp_path}/file")
    monkeypatch.delenv("SOFTCXL_POOL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(errors.NoServer, match=r"no address was given, \$SOFTCXL_POOL is not set"):
        softcxl.connect()
    monkeypatch.setenv("SOFTCXL_POOL", "bad")
    with pytest.raises(errors.Refused, match=r"\$SOFTCXL_POOL: 'bad' is no address"):
        softcxl.connect()


def test_a_server_is_found_where_there_is_no_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container: servers of one user have a folder of their own, and of no others."""
    monkeypatch.delenv("SOFTCXL_POOL", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = tmp_path / f"softcxl-{os.geteuid()}"
    with pytest.raises(errors.NoServer, match="no server's pool is in"):
        softcxl.connect()
    assert not folder.exists()  # who only looks makes nothing
    folder.mkdir(mode=0o700)
    served = Served(folder / "softcxl-one.pool")
    served.start()
    for unset in ("", "relative", "/nowhere"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", unset)
        with softcxl.connect() as pool:
            assert pool.address == served.address
    folder.chmod(0o777)
    with pytest.raises(errors.NoServer, match="no server's pool is in"):
        softcxl.connect()
    served.stop()


def test_the_one_server_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOFTCXL_POOL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(tmp_path / "softcxl-dead.pool"))
    with pytest.raises(errors.NoServer, match=r"softcxl-dead\.pool is there, but no server"):
        softcxl.connect()
    first, second = Served(tmp_path / "softcxl-one.pool"), Served(tmp_path / "softcxl-two.pool")
    first.start()
    with softcxl.connect() as pool:
        assert pool.address == first.address
    second.start()
    with pytest.raises(
        errors.NoServer, match=r"2 pools are there: say which \(unix:.*one\.pool, unix:.*two\.pool\)"
    ):
        softcxl.connect()
    monkeypatch.setenv("SOFTCXL_POOL", second.address)
    with softcxl.connect() as pool:
        assert pool.address == second.address
    first.stop()
    second.stop()


@pytest.mark.parametrize("name", ["", "x" * 64, "a\nb", "ä" * 32])
def test_a_client_needs_a_name(served: Served, name: str) -> None:
    with pytest.raises(errors.Refused, match=r"the client's name: .* 1 to 63 bytes"):
        Pool(SocketLink(served.path), name)


def test_arguments_are_checked(served: Served) -> None:
    with pytest.raises(errors.Refused, match="patience=-1"):
        served.connect(patience=-1)
    with pytest.raises(errors.Refused, match="'host' or 'managed'"):
        served.connect(coherence="none")
    with served.connect() as pool:
        cases: list[tuple[Callable[[], object], str]] = [
            (lambda: pool.allocate(0), "size=0"),
            (lambda: pool.allocate(-5), "size=-5"),
            (lambda: pool.allocate("12 parsecs"), "size='12 parsecs'"),
            (lambda: pool.allocate(1 << 60), "size="),
            (lambda: pool.allocate(float("inf")), "size=inf"),  # type: ignore[arg-type]
            (lambda: pool.allocate(1, replicas=0), "replicas=0"),
            (lambda: pool.allocate(1, replicas=9), "replicas=9"),
            (lambda: pool.allocate(1, policy="best"), "one of spread, pack"),  # type: ignore[arg-type]
            (lambda: pool.allocate(1, separate="rack"), "one of device, switch"),  # type: ignore[arg-type]
            (lambda: pool.allocate(1, mode="rw"), "one of private, read, write"),  # type: ignore[arg-type]
            (lambda: pool.allocate(1, lease=-1), "lease=-1"),
            (lambda: pool.allocate(1, name=""), "'' is no name"),
            (lambda: pool.open("x" * 64), "is no name"),
            (lambda: pool.open(""), "is no name"),
            (lambda: pool.free("a\x07b"), "is no name"),
        ]
        for attempt, message in cases:
            with pytest.raises(errors.Refused, match=message):
                attempt()
        assert list(pool.regions()) == []


def test_regions_take_nothing_but_python(served: Served) -> None:
    """A guest may have neither numpy nor msgspec."""
    script = f"""
import sys
class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("numpy", "msgspec", "yaml", "click", "rich"):
            raise ImportError(name)
sys.meta_path.insert(0, Missing)
import softcxl
with softcxl.connect({served.address!r}) as pool, pool.allocate(4096, replicas=2) as region:
    region.write(0, b"plain")
    print(region.read(0, 5), bytes(region.view()[:5]))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LONG)
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'plain' b'plain'\n", "")


# -- a server that ends ----------------------------------------------------------------------------------------------


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


def test_what_is_closed_is_so_before_what_anybody_asks_later(served: Served) -> None:
    with served.connect() as pool, served.connect() as other:
        for _ in range(20):
            for region in pool.allocate_many(64, 70):
                region.close()
            assert other.tell("regions")["regions"] == 0


def test_what_is_closed_while_no_server_is_there_the_next_one_closes(served: Served) -> None:
    with served.connect() as pool:
        stays, *go = pool.allocate_many(64, 4)
        served.stop()
        for region in go:
            region.close()  # waits for nobody
            assert region.closed
        served.start()
        wait_until(lambda: set(served.server.regions.known) == {stays.index})
        assert pool.tell("regions")["regions"] == 1


def test_what_is_open_twice_and_closed_once_stays_over_the_servers_end(served: Served) -> None:
    with served.connect() as pool, served.connect("other") as other:
        one = pool.allocate(64)
        twice = pool.referred(one.index, one.generation)
        theirs = [other.referred(one.index, one.generation) for _ in range(2)]
        views = [one.view(), one.view()]
        one.write(0, b"data")
        served.stop()
        twice.close()
        theirs.pop().close()
        del views[1:]
        served.start()
        wait_until(lambda: pool.views_of(one.index, one.generation) == 1)
        wait_until(lambda: not pool._connection.away() and not other._connection.away())
        assert one.read(0, 4) == b"data"
        one.close()
        assert pool.tell("regions")["regions"] == 1
        assert theirs[0].read(0, 4) == bytes(views[0][:4]) == b"data"
        theirs[0].close()
        views.clear()
        wait_until(lambda: other.tell("regions")["regions"] == 0)


def test_a_server_that_did_not_hear_all_is_told_all_once_more(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served.connect("owner") as owner, served.connect() as pool:
        theirs = owner.allocate(64)
        region = pool.referred(theirs.index, theirs.generation)
        served.stop()
        link, asked = pool._connection.link, []

        def ask(opcode: int, data: bytes, timeout: float | None = None) -> tuple[int, bytes]:
            asked.append(opcode)
            if len(asked) == 1:
                raise errors.NoServer("it was too slow")
            return type(link).ask(link, opcode, data, timeout)

        monkeypatch.setattr(link, "ask", ask)
        served.start()
        wait_until(lambda: asked.count(Opcode.HOLD) > 2)
        wait_until(lambda: not pool._connection.away())
        owner.allocate(64)  # it is back, too
        theirs.close()
        owner.tell("regions")
        assert region.read(0, 4) == bytes(4)


def test_what_could_not_be_closed_in_time_is_closed_later(served: Served) -> None:
    with served.connect(patience=0.2) as pool:
        region = pool.allocate(64)
        served.stop()
        region.close()
        with pytest.raises(errors.NoServer):
            pool._calls.settle()
        served.start()
        wait_until(lambda: pool.slot in served.server.names and not served.server.regions.known)


def test_what_there_was_no_room_to_close_is_closed_later(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue of calls may be full, of others' that nobody answers; or all calls may be under way."""
    with served.connect(patience=0.2) as pool:
        calls = pool._calls
        full, late = pool.allocate(64), pool.allocate(64)
        served.stop()

        class Crowded:
            def __init__(self, caller: Any) -> None:
                self.caller = caller

            def start(self, *asked: Any) -> Any:
                raise errors.Full("others' calls are not answered")

            def cancel(self, call: Any) -> None:
                self.caller.cancel(call)

        caller = calls._callers.get()
        with monkeypatch.context() as patch:
            patch.setattr(calls, "_caller", lambda: Crowded(caller))
            with pytest.raises(errors.NoServer):
                full.close()
        crowded = calls._posted.pop()
        calls._posted.append((caller, *crowded[1:]))
        with monkeypatch.context() as patch:

            def none_left() -> Any:
                raise errors.NoServer("all calls are under way")

            patch.setattr(calls, "_caller", none_left)
            with pytest.raises(errors.NoServer):
                late.close()
        served.start()
        wait_until(lambda: pool.slot in served.server.names and not served.server.regions.known)


def test_threads_that_close_leave_calls_for_those_that_ask(served: Served) -> None:
    with served.connect() as pool:

        def run() -> None:
            for _ in range(50):
                for region in [pool.allocate(64) for _ in range(5)]:
                    region.close()

        threads = [threading.Thread(target=run) for _ in range(12)]  # more than a client has calls
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
            assert not thread.is_alive()
        assert pool.tell("regions")["regions"] == 0


def test_a_call_waits_for_the_next_server(served: Served) -> None:
    with served.connect() as pool:
        served.stop()
        made: list[object] = []
        threads = [threading.Thread(target=lambda: made.append(pool.allocate(64).read())) for _ in range(12)]
        for thread in threads:
            thread.start()
        served.start()
        for thread in threads:
            thread.join(LONG)
        assert made == [bytes(64)] * 12


def test_patience_ends(served: Served) -> None:
    with served.connect(patience=0) as pool:
        region = pool.allocate(64)
        served.stop()
        with pytest.raises(errors.NoServer, match="no pool answers at"):
            pool.allocate(64)
        region.write(0, b"x")
        served.start()
        wait_until(lambda: pool.slot in served.server.names)
        assert pool.allocate(64).read() == bytes(64)


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
    with served.connect(patience=0) as pool:
        served.stop()
        with pytest.raises(errors.NoServer, match="no pool answers at"):
            pool.renew()
        served.start()
        wait_until(lambda: pool.slot in served.server.names)
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


class FullTable:
    """A client's calls, of which so many find no cell."""

    def __init__(self, caller: Any, times: float) -> None:
        self._caller, self.times = caller, times

    def start(self, *given: Any) -> Any:
        self.times -= 1
        if self.times >= 0:
            raise errors.Full
        return self._caller.start(*given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._caller, name)


def test_a_call_that_finds_no_cell_pauses_before_it_looks_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    with served.connect() as pool:
        callers = pool._calls._callers
        full = FullTable(callers.get(), 10)
        monkeypatch.setattr("softcxl.pool.calls.time.sleep", pauses.append)
        assert pool._calls._call(full, Opcode.LIST, bytes(8), 30.0)[0] == 0  # type: ignore[arg-type]
        monkeypatch.undo()
        callers.put(full._caller)
        assert len(pauses) == 10
        assert pauses == sorted(pauses)
        assert pauses[0] > 0


def test_a_table_that_stays_full_is_told(served: Served) -> None:
    with served.connect(patience=0) as pool:
        callers = pool._calls._callers
        full = FullTable(callers.get(), float("inf"))
        with pytest.raises(errors.NoServer, match="has not answered earlier calls"):
            pool._calls._call(full, Opcode.LIST, bytes(8), 1.5)  # type: ignore[arg-type]
        callers.put(full._caller)


def test_many_threads_have_calls_at_the_same_time(served: Served) -> None:
    """More threads than the table of calls has cells, one of which never waits for another's answer."""
    with served.connect() as pool:
        found: list[int] = []

        def work() -> None:
            regions = [pool.allocate(64) for _ in range(10)]
            found.extend(one.index for one in regions)

        threads = [threading.Thread(target=work) for _ in range(24)]
        served.server.lock.acquire()
        for thread in threads:
            thread.start()
        served.server.lock.release()
        for thread in threads:
            thread.join(LONG)
        assert len(found) == 24 * 10


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


def test_the_child_of_a_fork_is_told(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(4096, name="parents")
        region.write(0, b"parent")
        view = region.view()
        with region.locked():
            child = os.fork()
            if not child:
                try:
                    told = 0
                    for access in (
                        lambda: pool.allocate(64),
                        lambda: region.read(0, 1),
                        lambda: region.write(0, b"x"),
                        lambda: pool.open("parents"),
                        region.view,
                        pool.renew,
                    ):
                        try:
                            access()
                        except errors.Stale as error:
                            told += "the process that forked" in str(error)
                    pool.close()
                    assert bytes(view[:6]) == b"parent"
                    with connect(served.address, name="child") as own:
                        assert own.open("parents").read(0, 6) == b"parent"
                    os._exit(0 if told == 6 else 1)
                except BaseException:  # noqa: BLE001 - what the child of a fork must not do is go on with the tests
                    os._exit(2)
            assert os.waitpid(child, 0)[1] == 0
            assert region.info.locked_by == pool.slot
        assert pool.open("parents").read(0, 6) == b"parent"
        assert pool.slot in served.server.names


@pytest.mark.parametrize("end", ["", "pool.close()", "del pool", "sys.exit(0)", "os._exit(0)"])
def test_a_program_that_ends_leaves_nothing(served: Served, end: str) -> None:
    script = f"""
import os, sys, softcxl
pool = softcxl.connect({served.address!r}, name="ends")
region = pool.allocate(4096)
view = region.view()
array = region.numpy()
print("made", flush=True)
{end}
"""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LONG)
    assert (done.returncode, done.stdout, done.stderr) == (0, "made\n", "")
    wait_until(lambda: not served.server.names and not served.server.regions.known)


# -- a server that lies ----------------------------------------------------------------------------------------------


class Liar:
    """Answers one hello with what it is told to."""

    def __init__(self, path: Path, welcome: bytes, files: list[int]) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._run, args=(welcome, files))
        self._thread.start()

    def _run(self, welcome: bytes, files: list[int]) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.recv(2000)
            socket.send_fds(connection, [welcome], files)

    def __enter__(self) -> Liar:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(LONG)
        self._socket.close()


def welcome(
    slot: int = 1, sources: tuple[tuple[int, int, int], ...] = (), status: int = 0, protocol: int = 1
) -> bytes:
    head = Head(what=status, number=0).pack()
    told = [SourceFile(number=number, offset=offset, size=size) for number, offset, size in sources]
    body = Welcome(
        protocol=protocol, slot=slot, epoch=1, token=b"t" * 16, server=1, lease=10_000, sources=told
    )
    return head + body.pack()


def made(**fields: int) -> int:
    """An arena whose header says that."""
    fd = arena()
    plan = PLAN
    header = {
        "magic": 0x4C4F4F504C584353, "size": plan.size, "identity": 1, "epoch": 1, "regions": plan.regions,
        "sources_at": plan.sources_at, "slots_at": plan.slots_at, "regions_at": plan.regions_at,
        "calls_at": plan.calls_at, "calls_stride": 8320, "queue_at": plan.queue_at, "queue_size": 262400,
        "heap_at": plan.heap_at,
    } | {name: value for name, value in fields.items() if name not in ("slots", "version")}  # fmt: skip
    for name, value in header.items():
        os.pwrite(fd, struct.pack("<Q", value), HEADER[name])
    for name, value in (
        ("version", fields.get("version", 1)),
        ("ready", 1),
        ("slots", fields.get("slots", 16)),
    ):
        os.pwrite(fd, struct.pack("<I", value), HEADER[name])
    return fd


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, errors.Foreign),  # no queue is there
        ({"magic": 5}, errors.Foreign),
        ({"version": 2}, errors.Foreign),
        ({"size": 1 << 62}, errors.Corrupt),
        ({"slots": 0xFFFFFFFF}, errors.Corrupt),
        ({"slots": 1}, errors.Corrupt),
        ({"regions": 1 << 60}, errors.Corrupt),
        ({"slots_at": (1 << 64) - 64}, errors.Corrupt),
        ({"slots_at": 0}, errors.Corrupt),
        ({"regions_at": 1 << 50}, errors.Corrupt),
        ({"regions_at": 8200}, errors.Corrupt),
        ({"calls_at": 1 << 40}, errors.Corrupt),
        ({"calls_stride": 1 << 62}, errors.Corrupt),
        ({"queue_at": 1 << 63}, errors.Corrupt),
        ({"queue_size": 1 << 63}, errors.Corrupt),
        ({"heap_at": 1 << 63}, errors.Corrupt),
    ],
)
def test_a_header_that_cannot_be_is_told(
    tmp_path: Path, fields: dict[str, int], kind: type[errors.PoolError]
) -> None:
    fd = made(**fields)
    with Liar(tmp_path / "liar", welcome(), [fd]), pytest.raises(kind):
        connect(f"unix:{tmp_path / 'liar'}")
    os.close(fd)


def test_a_welcome_that_cannot_be_is_told(tmp_path: Path) -> None:
    short, empty, whole = os.memfd_create("short"), os.memfd_create("empty"), arena()
    os.truncate(short, 8192)
    cases: list[tuple[bytes, list[int], type[errors.PoolError], str]] = [
        (b"", [], errors.NoServer, "hung up"),
        (b"abc", [], errors.Foreign, "what answers is no pool"),
        (b"\0" * 12, [], errors.Foreign, "what answers is no pool"),
        (Head(what=8, number=0).pack() + b"other times", [], errors.Foreign, "other times"),
        (Head(what=999, number=0).pack() + b"\xff", [], errors.ServerFailed, "."),
        (welcome(protocol=7), [whole], errors.Foreign, "protocol 7"),
        (welcome(), [], errors.Foreign, "0 sources were told of, 0 files came"),
        (welcome(), [whole, whole], errors.Foreign, "0 sources were told of, 2 files came"),
        (welcome(), [empty], errors.Corrupt, "the arena has 0 bytes"),
        (welcome(), [short], errors.Foreign, "it begins with 0x0"),
        (
            welcome(sources=((1, 0, 65536),)),
            [whole, short],
            errors.Corrupt,
            "source 1 has 65536 .* cut short",
        ),
        (welcome(sources=((1, 4096, 8192),)), [whole, short], errors.Corrupt, "cut short"),
        (welcome(sources=((1, 100, 50),)), [whole, short], errors.Corrupt, "within a page"),
        (welcome(sources=((1, 0, 0),)), [whole, short], errors.Corrupt, "source 1 has 0 bytes"),
        (
            welcome(sources=((0, 0, 64),)),
            [whole, short],
            errors.Corrupt,
            "a source 0, which there is already",
        ),
        (welcome(sources=((255, 0, 64),)), [whole, short], errors.Corrupt, "a source 255"),
    ]
    for number, (message, files, kind, said) in enumerate(cases):
        path = tmp_path / f"liar{number}"
        with Liar(path, message, files), pytest.raises(kind, match=said):
            connect(f"unix:{path}")
    for fd in (short, empty, whole):
        os.close(fd)


def test_a_slot_that_cannot_be_is_told() -> None:
    fd = made()
    data = os.pread(fd, Plan(slots=16, regions=256, heap=4 << 20).size, 0)
    assert check(memoryview(data), Place(slot=15)).slots == 16
    for slot in (0, 16, 0xFFFFFFFF):
        with pytest.raises(errors.Corrupt, match="there are 1 to 15"):
            check(memoryview(data), Place(slot=slot))
    with pytest.raises(errors.Foreign, match="its header alone"):
        check(memoryview(data)[:100], Place(slot=1))
    with pytest.raises(errors.Corrupt, match="cut short"):
        check(memoryview(data)[:8192], Place(slot=1))
    os.close(fd)


@pytest.mark.parametrize(
    "answer", [b"", b"\0" * 23, struct.pack("<QQQ", 1 << 40, 1, 64), struct.pack("<QQQ", 0, 9, 1 << 50)]
)
def test_an_answer_that_cannot_be_is_told(
    served: Served, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    with served.connect() as pool:
        monkeypatch.setattr(pool._calls, "ask_twice", lambda opcode, data: answer)
        with pytest.raises((errors.Corrupt, errors.Stale)):
            pool.allocate(64)
