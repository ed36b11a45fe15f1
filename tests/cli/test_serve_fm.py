"""The fabric manager's door of `softcxl serve`: where it is, who comes in, and what hosts see of what is done there."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.cli import main
from tests.cli.test_serve import PROGRAM, Server, serving

SHARED = """
devices:
  pool: {type: mld, volatile: 512MiB, logical_devices: [256MiB, 256MiB], serial: 0x50}
  spare: {volatile: 256MiB, serial: 7}
switches:
  rack: {ports: [pool, spare], virtual: {left: {ports: [null]}, right: {ports: [spare]}}}
hosts:
  a: {bridges: {hb: {ports: [left]}}, windows: [{size: 1GiB, targets: [hb]}]}
  b: {bridges: {hb: {ports: [right]}}, windows: [{size: 1GiB, targets: [hb]}]}
"""
PLAIN = "devices: {m: {volatile: 256MiB}}\nhosts: {h: {bridges: {hb: {ports: [m]}}}}"


@pytest.fixture
def shared(tmp_path: Path) -> str:
    path = tmp_path / "shared.yaml"
    path.write_text(SHARED)
    return str(path)


@pytest.fixture
def server(shared: str, tmp_path: Path) -> Iterator[Server]:
    with serving(shared, "--socket", f"unix:{tmp_path}/control") as running:
        yield running


def listed(server: Server, host: str, capsys: pytest.CaptureFixture[str]) -> list[int]:
    capsys.readouterr()
    assert main(["list", server.address, "--host", host]) == 0
    return [one["serial"] for one in json.loads(capsys.readouterr().out)]


def managed(server: Server, *words: str) -> int:
    return main(["fm", "--at", server.address, *words])


def test_what_is_bound_and_unbound_there_a_host_of_the_server_sees(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    first = (0x50 | 1 << 48) & (1 << 64) - 1  # an LD's has its number and one more in the upper 16 bits
    assert listed(server, "a", capsys) == []
    assert listed(server, "b", capsys) == [7]
    assert managed(server, "bind", "0", "0", "0", "--ld", "0") == 0
    assert listed(server, "a", capsys) == [first]
    assert main(["region", "create", server.address, "--host", "a"]) == 0
    assert managed(server, "unbind", "0", "0") == 0
    assert listed(server, "a", capsys) == []
    assert listed(server, "b", capsys) == [7]
    assert server.end() == (0, "")


def test_the_ready_line_and_the_server_say_where_it_is(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    address = server.ready["fm"]
    assert address.startswith("tcp:127.0.0.1:")
    assert main(["fm", "--at", address, "switches", "--json"]) == 0
    switches = json.loads(capsys.readouterr().out)
    assert [one["vcs"] for one in switches] == [0, 1]


def test_a_place_and_a_dialect_of_ones_own(
    shared: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--socket", f"unix:{tmp_path}/control", "--fm", "tcp:127.0.0.1:0", "--fm-dialect", "cxl2"]
    with serving(shared, *words) as server:
        assert managed(server, "ports", "--json") == 0  # it has asked the server for the dialect, too
        assert len(json.loads(capsys.readouterr().out)) == 4
        assert main(["fm", "--at", server.ready["fm"], "--dialect", "cxl2", "ports"]) == 0


def test_the_line_for_people(shared: str, tmp_path: Path) -> None:
    words = ["serve", shared, "--socket", f"unix:{tmp_path}/control"]
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
    assert line.startswith(f"serving {shared} for fabric managers at tcp:127.0.0.1:")
    assert line.endswith(f", and at unix:{tmp_path}/control\n")


def test_none_where_none_is_wanted(shared: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(shared, "--socket", f"unix:{tmp_path}/control", "--fm", "none") as server:
        assert server.ready["fm"] is None
        assert managed(server, "switches") != 0
        said = capsys.readouterr().err
        assert f"no fabric manager can come to {shared}; softcxl serve --fm says where one can" in said
        assert said.count("\n") == 1


def test_devices_alone_have_a_door_if_one_asks_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text(PLAIN)
    with serving(str(path), "--socket", f"unix:{tmp_path}/control") as server:
        assert server.ready["fm"] is None
    with serving(str(path), "--socket", f"unix:{tmp_path}/control", "--fm", "tcp:127.0.0.1:0") as server:
        assert managed(server, "commands", "--json") == 0
        assert json.loads(capsys.readouterr().out)


def has_mctp() -> bool:
    """Whether this machine's kernel has what a guest's has in tests/kernel/test_fm_kernel_door.py."""
    try:
        socket.socket(45, socket.SOCK_DGRAM).close()  # AF_MCTP
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--fm", "somewhere"], 2, "'somewhere' is no address of an endpoint"),
        (["--fm", "tcp:127.0.0.1:70000"], 2, "port 70000; 0 to 65535 are allowed"),
        (["--fm", "unix:/tmp/x"], 2, "fabric managers come in by TCP; it has the form tcp:HOST:PORT"),
        (["--fm-dialect", "cxl3"], 2, "'cxl3' is not one of 'standard', 'cxl2'"),
        (["--fm", "tcp:PORT"], 1, "--fm names another place"),
        pytest.param(
            ["--fm-kernel"],
            1,
            "--fm-kernel: this kernel has no MCTP sockets",
            marks=pytest.mark.skipif(has_mctp(), reason="this kernel has MCTP sockets"),
        ),
    ],
)
def test_what_cannot_be_is_said(
    shared: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    said: str,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"127.0.0.1:{taken.getsockname()[1]}"
        given = [word.replace("PORT", port) for word in words]
        assert main(["serve", shared, "--socket", f"unix:{tmp_path}/control", *given]) == status
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "control").exists()
