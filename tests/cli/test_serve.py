"""`softcxl serve` as a program, with real sockets: what goes on after a command, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from softcxl.cli import main
from softcxl.testing.vfio_client import Client

# Signals are as a shell in a terminal leaves them, whoever runs the tests.
CODE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from softcxl.cli import main
sys.exit(main())
"""
PROGRAM = [sys.executable, "-c", CODE]
TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, persistent: 256MiB, serial: 0x10}
  mem1: {volatile: 256MiB, persistent: 256MiB, serial: 0x11}
  mem2: {volatile: 256MiB}
hosts:
  alpha: {bridges: {hb0: {ports: [mem0, mem1]}}, windows: [{size: 2GiB, targets: [hb0]}]}
  beta: {bridges: {hb0: {ports: [mem2]}}, windows: [{size: 1GiB, targets: [hb0]}]}
state: state
"""
GOOD = b'{"version": 1, "verb": "iomem"}\n'


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a server puts what nobody gave a place. After each test nothing is left there."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    yield folder
    assert [
        path for path in folder.iterdir() if path.name != f"softcxl-{os.geteuid()}" or any(path.iterdir())
    ] == []


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "fabric.yaml"
    path.write_text(TOPOLOGY)
    return str(path)


class Server:
    """A running `softcxl serve` that has said it is ready."""

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, str]) -> None:
        self.process, self.ready = process, ready
        self.address = ready["address"]
        self.path = Path(self.address.removeprefix("unix:"))

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit status after a signal, and what it said on stderr."""
        self.process.send_signal(number)
        _, err = self.process.communicate()
        return self.process.returncode, err


@contextmanager
def serving(file: str, *words: str, **environment: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [*PROGRAM, "serve", file, "--json", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            yield Server(process, json.loads(line))
        finally:
            if process.poll() is None:
                process.terminate()


@pytest.fixture
def server(file: str, tmp_path: Path) -> Iterator[Server]:
    with serving(file, "--socket", f"unix:{tmp_path}/control") as running:
        yield running
        assert running.end() == (0, "")
        assert not running.path.exists()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all who do not change it."""
    folder = tmp_path_factory.mktemp("patient")
    (folder / "fabric.yaml").write_text(TOPOLOGY)
    with serving(str(folder / "fabric.yaml"), "--socket", f"unix:{folder}/c", TMPDIR=str(folder)) as running:
        yield running
        assert running.end() == (0, "")


def test_what_one_command_does_the_next_finds(server, capsys):
    assert main(["region", "create", server.address, "-t", "ram", "mem0", "mem1"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(["list", server.address, "-R"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["resource"] == made["resource"]
    poison = "kernel/debug/cxl/mem1/inject_poison"
    assert main(["sysfs", server.address, poison, "--write", "0x40"]) == 0
    assert main(["list", server.address, "-R", "-L"]) == 0
    (region,) = json.loads(capsys.readouterr().out)
    # 256 bytes to each in turn: the second device's 0x40 is the region's 0x140
    assert region["media_errors"] == [{"offset": 0x140, "length": 64, "source": "Injected"}]
    assert main(["events", server.address]) == 0
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events == ["cxl_poison", "cxl_general_media"]
    assert main(["events", server.address]) == 0
    assert capsys.readouterr().out == ""  # they have been fetched
    assert main(["region", "destroy", server.address, "region0"]) == 0
    assert main(["list", server.address, "-R"]) == 0
    assert capsys.readouterr().out == "destroyed region0\n[]\n"


@pytest.mark.parametrize("words", [["list", "-vvv"], ["tree"], ["iomem", "--json"], ["sysfs", "--json"]])
def test_the_answer_is_that_of_the_file(file, patient, words, capsys):
    assert main([words[0], file, *words[1:]]) == 0
    of_file = capsys.readouterr()
    assert main([words[0], patient.address, *words[1:]]) == 0
    assert capsys.readouterr() == of_file
    assert len(of_file.out) > 50


def test_each_host_is_its_own(server, capsys):
    assert main(["region", "create", server.address, "--host", "beta", "mem0"]) == 0
    capsys.readouterr()
    assert main(["list", server.address, "-R"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["list", server.address, "-R", "--host", "beta"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_the_ready_line(file, tmp_path):
    with serving(file, "--socket", f"unix:{tmp_path}/control", "--host", "beta", "--host", "alpha") as server:
        assert server.ready.pop("softcxl")
        assert server.ready == {
            "address": f"unix:{tmp_path}/control",
            "topology": file,
            "hosts": ["alpha", "beta"],
            "fm": None,
            "pool": None,
            "pid": server.process.pid,
        }
        assert stat.S_IMODE(server.path.stat().st_mode) == 0o600


def test_the_ready_line_for_people(file, tmp_path):
    process = subprocess.Popen(
        [*PROGRAM, "serve", file, "--socket", f"unix:{tmp_path}/control"], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"serving {file} at unix:{tmp_path}/control\n"
        process.terminate()


def test_places_of_the_socket(file, places, tmp_path, monkeypatch):
    with serving(file) as server:
        folder = places / f"softcxl-{os.geteuid()}"
        assert server.path == folder / "softcxl-fabric.sock"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)  # where others could put a socket there, it is not used
    with serving(file) as server:
        assert server.path.parent.parent == places
        assert server.path.name == "control.sock"
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with serving(file) as server:
        assert server.path == runtime / "softcxl-fabric.sock"
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_order(file, places, tmp_path, number, capsys):
    words = ["--socket", f"unix:{tmp_path}/control"]
    with serving(file, *words) as server:
        assert main(["region", "create", server.address, "-t", "pmem"]) == 0
        made = json.loads(capsys.readouterr().out)
        with socket.socket(socket.AF_UNIX) as idle:  # a client that only sits there keeps nobody
            idle.connect(str(server.path))
            idle.sendall(GOOD)
            assert idle.recv(1 << 16).endswith(b"\n")
            assert server.end(number) == (0, "")
            assert idle.recv(1) == b""
        assert not server.path.exists()
    with serving(file, *words) as server:
        assert main(["list", server.address, "-R"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["resource"] == made["resource"]


def test_a_signal_that_was_ignored_stays_so(file, tmp_path, capsys):
    """As nohup(1) wants it."""
    code = CODE.replace("SIG_DFL", "SIG_IGN")
    words = ["serve", file, "--socket", f"unix:{tmp_path}/control"]
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("serving ")
        process.send_signal(signal.SIGHUP)
        assert main(["tree", f"unix:{tmp_path}/control"]) == 0
        process.terminate()
    assert process.returncode == 0


def test_a_killed_servers_socket_is_replaced(file, tmp_path, places, capsys):
    words = ["--socket", f"unix:{tmp_path}/control"]
    with serving(file, *words) as server:
        assert server.end(signal.SIGKILL)[0] == -signal.SIGKILL
        assert server.path.is_socket()
        assert main(["list", server.address]) == 3
        said = f"softcxl: {server.address}: no server listens there: Connection refused\n"
        assert capsys.readouterr() == ("", said)
    with serving(file, *words) as server:
        assert main(["list", server.address]) == 0


def test_a_live_servers_place_is_refused(server, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text("devices: {mem0: {volatile: 256MiB}}\nhosts: {alpha: {bridges: {hb0: {ports: [mem0]}}}}")
    ran = subprocess.run(
        [*PROGRAM, "serve", str(other), "--socket", server.address],
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"softcxl: {server.path}: a live server listens there; --socket names another place\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", said)
    assert main(["tree", server.address]) == 0


def test_the_same_files_are_not_served_twice(server, file, tmp_path):
    ran = subprocess.run(
        [*PROGRAM, "serve", file, "--socket", f"unix:{tmp_path}/second"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "/state is in use by another server" in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["serve", "FILE", "--socket", "control"], 2, "'control' is no address; it has the form unix:PATH"),
        (["serve", "FILE", "--socket", "unix:"], 2, "'unix:' is no address"),
        (
            ["serve", "FILE", "--socket", "unix:/nowhere/control"],
            1,
            "/nowhere/control: cannot listen: No such",
        ),
        (["serve", "FILE", "--socket", "unix:FILE"], 1, "exists and is no socket, so it is left alone"),
        (
            ["serve", "FILE", "--socket", f"unix:/{'x' * 120}"],
            1,
            "121 bytes, a socket's path has at most 107",
        ),
        (["serve", "FILE", "--host", "gamma"], 2, "'gamma' is no host of FILE; there are alpha, beta"),
        (["serve", "/nowhere.yaml"], 2, "cannot be read: No such file"),
        (
            ["list", "unix:/nowhere/control"],
            3,
            "unix:/nowhere/control: no server listens there: No such file",
        ),
        (["list", "unix:"], 3, "unix:: no address of a server; it has the form unix:PATH"),
        (["list", f"unix:/{'x' * 120}"], 3, "121 bytes, a socket's path has at most 107"),
        (["list", "unix:FILE"], 3, "no server listens there: Connection refused"),
        (["doors", "FILE"], 2, "is no address of a server"),
        (["vm", "run", "unix:/nowhere/control", "--", "true"], 3, "no server listens there: No such file"),
        (["vm", "run", "unix:FILE", "--scenario", "FILE"], 2, "--scenario acts on a fabric of its own"),
        (["shell", "unix:/nowhere/control"], 2, "is a server's fabric; a prompt has one of its own"),
    ],
)
def test_what_cannot_be_is_one_line(file, capsys, words, status, said):
    assert main([word.replace("FILE", file) for word in words]) == status
    out, err = capsys.readouterr()
    assert said.replace("FILE", file) in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(file, tmp_path, monkeypatch, abstract):
    name = f"softcxl-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        with serving(file, "--socket", f"unix:{tmp_path}/control") as server:
            ready = manager.recv(4096).decode().splitlines()
            assert ready == ["READY=1", f"STATUS=serving {file} at {server.address}"]
            assert server.end() == (0, "")
        assert manager.recv(4096) == b"STOPPING=1"


def test_a_service_manager_that_is_not_there_is_a_warning(file, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with serving(file, "--socket", f"unix:{tmp_path}/control") as server:
        status, err = server.end()
    assert status == 0
    line = f"softcxl: NOTIFY_SOCKET {tmp_path}/nobody: [Errno 2] No such file or directory\n"
    assert err == line * 2


def talk(path: Path, sent: bytes) -> bytes:
    """All that the server says to a client that sends so much and no more."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        try:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has heard enough
        said = b""
        try:
            while piece := client.recv(1 << 20):
                said += piece
        except ConnectionResetError:
            pass  # what it has not read is lost; what it said is not
        return said


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", []),
        (b'{"version": 1, "verb": "io', []),  # and then it dies
        (b"hello\n" + GOOD, ["no request of a verb: "]),  # not listened to any more
        (b"\xff\xfe\n" + GOOD, ["no request of a verb: "]),
        (b"[1]\n", ["no request of a verb: Expected `object`, got `array`"]),
        (b'{"version": 1}\n', ["Object missing required field `verb`"]),
        (b'{"version": 1, "verb": "iomem", "hots": "beta"}\n', ["unknown field `hots`"]),
        (b"[" * 100_000 + b"\n", ["no request of a verb: "]),
        (b"x" * (1 << 20) + b"\n" + GOOD, ["a request has at most 1048576 bytes"]),
        (
            b'{"version": 2, "verb": "iomem"}\n' + GOOD,
            ["version 2 is asked for; this server speaks 1", None],
        ),
        (b'{"version": 1, "verb": "reboot"}\n' + GOOD, ["there is no verb 'reboot'; there are list, ", None]),
        (
            b'{"version": 1, "verb": "list", "arguments": {"verbos": 1}}\n' + GOOD,
            ["arguments: there is no 'verbos'; there are include, verbose", None],
        ),
        (
            b'{"version": 1, "verb": "list", "arguments": {"include": {"memdev": true}}}\n' + GOOD,
            ["arguments.include: there is no 'memdev'; there are buses, ", None],
        ),
        (
            b'{"version": 1, "verb": "list", "arguments": {"verbose": "much"}}\n' + GOOD,
            ["arguments: Expected `int`, got `str` - at `$.verbose`", None],
        ),
        (b'{"version": 1, "verb": "explain"}\n' + GOOD, ["missing required field `address`", None]),
        (b'{"version": 1, "verb": "iomem", "host": "gamma"}\n' + GOOD, ["'gamma' is no host of", None]),
        (
            b'{"version": 1, "verb": "explain", "arguments": {"address": -5}}\n' + GOOD,
            ["is in no CXL window", None],
        ),
        (
            b'{"version": 1, "verb": "sysfs", "arguments": {"path": "' + b"a/" * 1000 + b'"}}\n' + GOOD,
            ["(ENOENT)", None],
        ),
    ],
)
def test_nonsense_costs_its_own_connection_only(patient, sent, said):
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(patient.path))
        answers = [json.loads(line) for line in talk(patient.path, sent).splitlines()]
        assert len(answers) == len(said)
        for answer, sentence in zip(answers, said, strict=True):
            assert answer["version"] == 1
            if sentence is None:
                assert (answer["status"], answer["stderr"]) == (0, "")
                assert answer["stdout"].startswith("100000000-17fffffff : CXL Window 0\n")
            else:
                assert answer["status"] in (1, 2)
                assert sentence in answer["stderr"]
                assert answer["stderr"].startswith("softcxl: ")
                assert answer["stderr"].count("\n") == 1
                assert answer["stdout"] == ""
        other.sendall(GOOD)  # who was there before is served as ever
        with other.makefile("rb") as lines:
            assert json.loads(lines.readline())["status"] == 0


def test_a_client_that_goes_without_its_answer(server, capsys):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.path))
        client.sendall(b'{"version": 1, "verb": "region create"}\n')
    assert main(["list", server.address, "-R"]) == 0
    capsys.readouterr()


def test_many_clients_at_once(server):
    """Each makes a region and destroys it, again and again, on whichever host; listings meanwhile are of a moment."""

    def create(host: str) -> str | None:
        arguments = {"memdevs": ["mem0"], "type": "ram", "size": 256 << 20}
        request = {"version": 1, "verb": "region create", "host": host, "arguments": arguments}
        (answer,) = talk(server.path, json.dumps(request).encode() + b"\n").splitlines()
        made = json.loads(answer)
        return json.loads(made["stdout"])["region"] if made["status"] == 0 else None

    def visit(number: int) -> tuple[int, int]:
        host = ("alpha", "beta")[number % 2]
        there = gone = 0
        for _ in range(5):
            name = create(host)
            there += name is not None
            if name is not None:
                request = {"version": 1, "verb": "region destroy", "host": host}
                line = json.dumps({**request, "arguments": {"regions": [name]}}).encode()
                gone += json.loads(talk(server.path, line + b"\n"))["status"] == 0
            listed = json.loads(
                talk(server.path, b'{"version": 1, "verb": "list", "host": "%s"}\n' % host.encode())
            )
            assert listed["status"] == 0
        return there, gone

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(visit, range(8)))
    assert any(there for there, _ in counts[0::2])
    assert any(there for there, _ in counts[1::2])
    assert all(there == gone for there, gone in counts)
    for host in ("alpha", "beta"):
        assert create(host) is not None  # nothing has been lost
        assert json.loads(talk(server.path, GOOD))["status"] == 0


def test_doors_of_a_host(server, capsys, places):
    assert main(["doors", server.address, "--host", "beta"]) == 0
    opened = json.loads(capsys.readouterr().out)
    assert list(opened["devices"]) == ["mem2"]
    assert opened["opened"]
    door = opened["devices"]["mem2"]
    traffic = door.pop("traffic")
    assert door == {"socket": str(next(places.iterdir()) / "mem2.sock"), "connected": False}
    assert traffic == {"reads": 0, "writes": 0, "interrupts": 0}
    (window,) = opened["windows"]
    assert (window["window"], window["size"]) == ("window0", 1 << 30)
    assert Path(window["file"]).stat().st_size == 1 << 30
    with Client(Path(door["socket"])) as guest:
        guest.negotiate()
        assert main(["doors", server.address, "--host", "beta"]) == 0  # once more opens nothing
        again = json.loads(capsys.readouterr().out)
        assert not again["opened"]
        assert again["devices"]["mem2"]["connected"]
        # and no second guest gets it
        assert main(["vm", "run", server.address, "-q", "--host", "beta", "--", "true"]) == 1
        said = f"softcxl: devices.mem2: a guest has it, through {door['socket']}\n"
        assert capsys.readouterr() == ("", said)
        # a guest has it, so nobody drives it in the server
        assert main(["list", server.address, "--host", "beta"]) == 1
        assert f"devices.mem2: is in use, its door is {door['socket']}" in capsys.readouterr().err
        assert main(["list", server.address]) == 0
        capsys.readouterr()
    assert main(["doors", server.address, "--host", "beta", "--close"]) == 0
    assert capsys.readouterr() == ("", "")
    assert not Path(door["socket"]).exists()
    assert main(["list", server.address, "--host", "beta"]) == 0
    capsys.readouterr()
    assert main(["doors", server.address, "--host", "beta"]) == 1
    said = "softcxl: devices.mem2: is in use by a host in this process\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "the server has gone before it answered"),
        (b'{"version": 1, "sta', "the server has gone before it answered"),
        (b"220 ready\n", "what listens there is no server of SoftCXL (no answer of a server: "),
    ],
)
def test_a_server_that_is_none(tmp_path, capsys, answer, said):
    path = tmp_path / "control"

    def serve_one(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            client.recv(1 << 16)
            client.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(str(path))
        listener.listen()
        served = pool.submit(serve_one, listener)
        assert main(["tree", f"unix:{path}"]) == 3
        served.result()
    out, err = capsys.readouterr()
    assert out == ""
    assert f"unix:{path}: {said}" in err
    assert err.count("\n") == 1
