"""Connections to a pool: how a program comes to it, and what it leaves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import softcxl
from softcxl.pool import errors
from softcxl.pool.link import Place, SocketLink
from softcxl.pool.protocol import Head, Opcode
from softcxl.pool.session import Pool, connect
from tests.fm.pool.memories import arena
from tests.pool.answers import welcome
from tests.pool.served import LONG, Served, wait_until


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


@pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("welcomes", [False, True], ids=["at once", "later"])
def test_a_server_that_hangs_up(tmp_path: Path, reads: bool, welcomes: bool) -> None:
    """Of one that has left something unread Linux says that it reset the connection."""
    path = tmp_path / "pool"

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            if welcomes:
                connection.recv(2000)
                fd = arena()
                socket.send_fds(connection, [Head(what=0, number=0).pack() + welcome()], [fd])
                os.close(fd)
            connection.recv(2000, 0 if reads else socket.MSG_PEEK)

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        link = SocketLink(path)
        if welcomes:
            link.attach("test", Place())
            for _ in range(2):  # while it waits for an answer, and when it asks
                with pytest.raises(errors.NoServer, match=r"the pool at unix:.* has hung up$"):
                    link.ask(Opcode.RING, bytes(8))
        else:
            with pytest.raises(errors.NoServer, match=r"no pool answers at unix:.*: it has hung up$"):
                link.attach("test", Place())
        thread.join()
        link.close()


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
