"""The pool's socket: programs that come, die, and come again; and whoever says something else."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.fm.pool.clients import lives
from softcxl.pool.errors import Busy, NoSuchName
from softcxl.pool.layout import Plan
from softcxl.pool.protocol import (
    LARGEST,
    PROTOCOL,
    Allocate,
    Head,
    Hello,
    Hold,
    ListQuery,
    Located,
    Named,
    Opcode,
    Status,
    Welcome,
)
from softcxl.pool.region import Region
from softcxl.pool.session import Pool, connect
from tests.pool.served import Served, wait_until

HEAD = Head.__layout__.size


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    one = Served(tmp_path / "pool.sock")
    one.start()
    yield one
    one.stop()


class Raw:
    """A connection on which anything is said."""

    def __init__(self, served: Served) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(60)
        self.socket.connect(str(served.path))

    def say(self, what: int, data: bytes, number: int = 1) -> None:
        self.socket.send(Head(what=what, number=number).pack() + data)

    def hear(self) -> tuple[Head, bytes]:
        message, files, _, _ = socket.recv_fds(self.socket, 65536, 253)
        for fd in files:
            os.close(fd)
        return Head.unpack_from(message), message[HEAD:]

    def ended(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def raw(served: Served) -> Iterator[Raw]:
    one = Raw(served)
    yield one
    one.close()


def hello(**changes: object) -> bytes:
    said = Hello(protocol=PROTOCOL, pid=0, slot=0, epoch=0, token=b"", lease=0, name=b"raw", host=b"")
    return said.replace(**changes).pack()


@pytest.mark.parametrize("message", [b"x", b"GET / HTTP/1.0\r\n\r\n"[:7]])
def test_what_is_no_message_ends_that_connection_alone(served: Served, raw: Raw, message: bytes) -> None:
    raw.socket.send(message)
    assert raw.ended()
    with served.connect() as pool:
        assert pool.tell("clients")


@pytest.mark.parametrize("length", [0, 1, 100, 175, 177, LARGEST])
def test_a_hello_of_another_length_is_malformed(served: Served, raw: Raw, length: int) -> None:
    raw.say(Opcode.HELLO, b"\1" * length)
    head, said = raw.hear()
    assert head.what in (Status.MALFORMED, Status.VERSION), said
    assert served.server.names == {}


def test_a_request_longer_than_any_is_malformed(served: Served, raw: Raw) -> None:
    raw.say(Opcode.HELLO, bytes(LARGEST * 4))
    head, said = raw.hear()
    assert head.what in (Status.MALFORMED, Status.VERSION), said


def test_a_version_that_is_not_spoken_is_told_which_one_is(raw: Raw) -> None:
    raw.say(Opcode.HELLO, hello(protocol=99))
    head, said = raw.hear()
    assert (head.what, said) == (Status.VERSION, b"protocol 99: this server speaks 1")
    raw.say(Opcode.HELLO, hello())
    assert raw.hear()[0].what == Status.OK


def test_one_who_is_in_does_not_come_in(served: Served, raw: Raw) -> None:
    raw.say(Opcode.HELLO, hello())
    assert raw.hear()[0].what == Status.OK
    raw.say(Opcode.HELLO, hello(), 2)
    head, _ = raw.hear()
    assert (head.what, head.number) == (Status.MALFORMED, 2)
    assert len(served.server.names) == 1


def test_nothing_is_answered_to_who_is_not_in(raw: Raw) -> None:
    raw.say(Opcode.LIST, ListQuery(start=0).pack())
    assert raw.hear()[0].what == Status.GONE


def test_requests_go_over_the_socket_too(raw: Raw) -> None:
    raw.say(Opcode.HELLO, hello())
    _, data = raw.hear()
    assert Welcome.unpack(data).slot == 1
    raw.say(Opcode.LIST, ListQuery(start=0).pack(), 7)
    head, _ = raw.hear()
    assert (head.what, head.number) == (Status.OK, 7)
    raw.say(77, b"")
    assert raw.hear()[0].what == Status.MALFORMED


def test_a_slot_is_not_anothers_by_its_number(served: Served, raw: Raw) -> None:
    with served.connect() as pool:
        raw.say(Opcode.HELLO, hello(slot=pool.slot, epoch=pool.epoch, token=b"guess"))
        assert raw.hear()[0].what == Status.GONE
        assert pool.tell("clients")[0]["slot"] == pool.slot


def test_who_hangs_up_has_left(served: Served) -> None:
    raw = Raw(served)
    raw.say(Opcode.HELLO, hello())
    raw.hear()
    assert len(served.server.names) == 1
    raw.close()
    wait_until(lambda: not served.server.names)


# -- processes ---------------------------------------------------------------------------------------------------

CLIENT = """
import sys
from softcxl.pool.session import connect
pool = connect(sys.argv[1], name="child")
kept = pool.allocate("64KiB", name="kept")
mine = pool.allocate("1MiB", replicas=2)
mine.write(0, b"mine")
shared = pool.open("shared")
view = shared.view()
{more}
print("ready", flush=True)
sys.stdin.read()
"""


def child(served: Served, more: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT.format(more=more), served.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=60)


def test_who_is_killed_leaves_what_has_a_name_and_nothing_else(served: Served) -> None:
    with served.connect() as pool:
        shared = pool.allocate(4096, name="shared")
        process = child(served)
        assert len(served.server.names) == 2
        assert served.server.regions.known[shared.index].pins == 1
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: len(served.server.names) == 1)
        end(process)
        assert served.server.regions.known[shared.index].pins == 0
        wait_until(lambda: served.server.regions.clearing.coming == 0)
        assert {one.name for one in pool.regions()} == {"shared", "kept"}
        told = {one["name"]: one["size"] - one["available"] for one in pool.tell("sources")}
        assert sum(size for name, size in told.items() if name != "arena") == 4096 + (64 << 10)


def test_a_lock_that_the_dead_had_is_free(served: Served) -> None:
    with served.connect() as pool:
        shared = pool.allocate(1 << 20, name="shared", replicas=2)
        shared.write(0, b"old")
        process = child(served, "shared._native.lock()")
        end(process)
        with shared.locked(timeout=60):
            assert shared.read(0, 3) == b"old"
        shared.write(0, b"new")


def test_one_that_is_stopped_over_a_write_holds_up_writers_of_that_region_alone(served: Served) -> None:
    """It lives, and writes on when it goes on: nobody can take from it what it has mapped. Its end is what helps."""
    with served.connect() as pool:
        shared = pool.allocate(1 << 20, name="shared", replicas=2)
        shared.write(0, b"old")
        process = child(served, "shared._native.lock()")
        try:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            assert shared.read(0, 3) == b"old"
            with pytest.raises(Busy, match="slot 2 has its lock"):
                shared.write(0, b"new", timeout=0.05)
            with pool.allocate(4096, name="another") as other:
                other.write(0, b"goes on")
            process.kill()
            shared.write(0, b"new", timeout=60)
            assert shared.read(0, 3) == b"new"
        finally:
            end(process)


def test_a_freed_region_that_the_dead_had_locked_is_cleared(served: Served) -> None:
    with served.connect() as pool:
        shared = pool.allocate(1 << 20, name="shared")
        process = child(served, "shared._native.lock()")
        index = shared.index
        shared.free()
        assert index in served.server.regions.known
        end(process)
        wait_until(lambda: index not in served.server.regions.known)


def test_a_child_of_a_fork_holds_nothing_up(served: Served) -> None:
    """The connection lives on in the child; the client is the process that made it."""
    with served.connect() as pool:
        pool.allocate(4096, name="shared")
        process = child(served, "import os, time\nif not os.fork(): os.close(1); time.sleep(600)\n")
        forked = int(
            subprocess.run(
                ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
            ).stdout
        )
        try:
            process.kill()
            wait_until(lambda: len(served.server.names) == 1)
        finally:
            os.kill(forked, signal.SIGKILL)
            end(process)


def test_a_client_that_died_while_no_server_was_there_is_seen_to(served: Served) -> None:
    pool = served.connect()
    pool.allocate(4096, name="shared")
    process = child(served)
    served.stop()
    end(process)
    served.start()
    try:
        wait_until(lambda: len(served.server.names) == 1)
        with pytest.raises(NoSuchName):
            pool.open("nothing")
        wait_until(lambda: served.server.clients.unseen == set())
        assert {one.name for one in pool.regions()} == {"shared", "kept"}
    finally:
        pool.close()


def test_a_thousand_clients(tmp_path: Path) -> None:
    served = Served(tmp_path / "pool.sock", plan=Plan(slots=1024, regions=4096, heap=8 << 20))
    served.start()
    pools: list[Pool] = []
    made: list[Region] = []
    try:
        for number in range(1000):
            pools.append(served.connect(f"client{number}"))
            made.append(pools[-1].allocate(4096))
            made[-1].write(0, f"{number}".encode())
        assert len(pools[0].tell("clients")) == 1000
        assert len(list(pools[-1].regions())) == 1000
    finally:
        for pool in pools:
            pool.close()
        wait_until(lambda: not served.server.names)
        wait_until(lambda: not served.server.regions.known)
        served.stop()


def come(raw: Raw, was: Welcome | None = None) -> Welcome:
    raw.say(Opcode.HELLO, hello(slot=was.slot, epoch=was.epoch, token=was.token) if was else hello())
    return Welcome.unpack(raw.hear()[1])


def give_up(served: Served, was: Welcome | None = None) -> None:
    """Come, and be gone when the server answers, which has much to do."""
    with contextlib.closing(Raw(served)) as one, served.server.lock:
        one.say(Opcode.HELLO, hello(slot=was.slot, epoch=was.epoch, token=was.token) if was else hello())
        one.close()


@pytest.mark.parametrize("restarts", [True, False])  # then no other connection is there
def test_who_comes_again_and_gives_up_waiting_has_not_gone(served: Served, raw: Raw, restarts: bool) -> None:
    """It lives, and comes once more: a server that has just begun, or has no descriptors, may take long."""
    was = come(raw)
    if restarts:
        served.stop()
        served.start()
    give_up(served, was)
    give_up(served)  # after which the other one has been answered
    wait_until(lambda: list(served.server.names) == [was.slot])
    with contextlib.closing(Raw(served)) as again:
        assert come(again, was).slot == was.slot
        again.say(Opcode.GOODBYE, b"", 2)
        wait_until(lambda: not served.server.names)


def test_who_comes_again_and_hangs_up_before_all_is_said_has_not_gone(served: Served) -> None:
    with contextlib.closing(Raw(served)) as first:
        was = come(first)
        served.stop()
        served.start()
    with contextlib.closing(Raw(served)) as again:
        come(again, was)
    wait_until(lambda: was.slot in served.server.clients.unseen)
    with contextlib.closing(Raw(served)) as again:
        assert come(again, was).slot == was.slot
        again.say(Opcode.HOLD, Hold(index=0, generation=0, opened=0, pins=0).pack(), 2)
        again.hear()
    wait_until(lambda: not served.server.names)


def test_who_gives_up_and_has_died_has_gone(served: Served) -> None:
    program = (
        "import socket, sys\n"
        "for data in (bytes.fromhex(one) for one in sys.argv[2:]):\n"
        "    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "    one.connect(sys.argv[1])\n"
        "    one.send(data)\n"
        "    print(one.recv(65536).hex(), flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    said = (Head(what=Opcode.HELLO, number=1).pack() + hello()).hex()
    command = [sys.executable, "-c", program, str(served.path), said]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        was = Welcome.unpack(bytes.fromhex(one.stdout.readline().decode())[HEAD:])
        served.stop()
        served.start()
        assert was.slot in served.server.clients.unseen
        one.kill()
    wait_until(lambda: not served.server.names)


# -- requests that wait ------------------------------------------------------------------------------------------


def test_one_that_waits_does_not_hold_up_others_at_the_door(tmp_path: Path) -> None:
    """After a restart nothing is cleared until all have said what they look at: they say so by this door."""
    served = Served(tmp_path / "pool.sock", lease=60.0)
    size = served.sources[0].size
    asked = Allocate(
        size=size, request=0, copies=3, policy=0, separate=0, mode=2, flags=0, source=0, lease=0,
        reserved0=b"", name=b"",
    ).pack()  # fmt: skip
    said = Hold(index=0, generation=0, opened=0, pins=0).pack()
    served.start()
    came = []
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            one = stack.enter_context(contextlib.closing(Raw(served)))
            one.say(Opcode.HELLO, hello())
            came.append(Welcome.unpack(one.hear()[1]))
            if len(came) == 1:
                one.say(Opcode.ALLOCATE, asked)
                made = Located.unpack(one.hear()[1])
        served.stop()
        served.start()
        stack.callback(served.stop)
        both = []
        for was in came:
            one = stack.enter_context(contextlib.closing(Raw(served)))
            one.say(Opcode.HELLO, hello(slot=was.slot, epoch=was.epoch, token=was.token))
            assert one.hear()[0].what == Status.OK
            both.append(one)
        first, second = both
        first.say(Opcode.FREE, Named(index=made.index, generation=made.generation, name=b"").pack(), 1)
        assert first.hear()[0].what == Status.OK
        first.say(Opcode.ALLOCATE, asked, 2)
        second.say(Opcode.HOLD, said, 7)
        assert (second.hear()[0].what, served.server.regions.clearing.held) == (Status.OK, True)
        first.say(Opcode.HOLD, said, 3)
        heard = {head.number: (head.what, data) for head, data in (first.hear(), first.hear())}
        assert [heard[number][0] for number in (2, 3)] == [Status.OK, Status.OK]
        assert Located.unpack(heard[2][1]).size == size


# -- descriptors -------------------------------------------------------------------------------------------------

SERVER = """
import resource, sys
from pathlib import Path
from softcxl.fm.pool.door import PoolDoor
from tests.pool.served import Served
tries = [0]
accept = PoolDoor._accept
def counted(door, listener):
    tries[0] += 1
    accept(door, listener)
PoolDoor._accept = counted
events = []
served = Served(Path(sys.argv[1]), event=lambda kind, subject, detail: events.append(kind))
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
served.start()
served.server.tell("tries", lambda: tries[0])
served.server.tell("events", lambda: [one for one in events if one.startswith("door")])
print("ready", flush=True)
sys.stdin.read()
served.stop()
"""


def test_without_descriptors_the_door_waits_for_some(tmp_path: Path) -> None:
    path = tmp_path / "pool.sock"
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with connect(f"unix:{path}", name="first") as pool:
            others = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(40)]
            for one in others:
                one.connect(str(path))
            wait_until(lambda: pool.tell("door")["full"])
            assert pool.tell("door")["full"] == os.strerror(errno.EMFILE)

            def quiet() -> bool:
                """It looks again now and then, and says nothing of it unless somebody has come in meanwhile, as where
                the server itself had a file open and has it no more."""
                tries, said, since = pool.tell("tries"), pool.tell("events"), time.monotonic()
                wait_until(lambda: pool.tell("tries") >= tries + 3)
                assert time.monotonic() - since > 0.4
                return bool(pool.tell("events") == said and said[-1] == "door full")

            wait_until(quiet)
            assert pool.allocate(4096).read(0, 1) == b"\0"  # who is in is served
            for one in others:
                one.close()
            with connect(f"unix:{path}", name="second") as second:
                wait_until(lambda: not second.tell("door")["full"])
                assert {one["name"] for one in second.tell("clients")} == {"first", "second"}
    finally:
        process.communicate("", timeout=60)
    assert process.returncode == 0


def test_a_process_that_cannot_be_looked_at_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    assert not lives(os.getpid(), 1)
    monkeypatch.setattr(Path, "read_bytes", full)
    assert lives(os.getpid(), 1)


NEEDY = """
import os, resource, sys
from softcxl.pool.session import connect
fd = os.dup(0)
os.close(fd)
resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 2, fd + 2))  # for a socket, and for one file more
try:
    connect(sys.argv[1], name="needy", patience=0)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_client_without_descriptors_is_told(served: Served) -> None:
    said = subprocess.run(
        [sys.executable, "-c", NEEDY, served.address], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("NoServer"), said
    assert "no descriptors left" in said.stdout
    wait_until(lambda: not served.server.names)
