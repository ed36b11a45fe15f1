"""The programs of examples/pool*.py, at a server of examples/pool.yaml."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import softcxl
from tests.pool.served import wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVE = "import sys; from softcxl.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the example's pool, in a server of its own; programs find it."""
    topology = shutil.copy(EXAMPLES / "pool.yaml", tmp_path)
    ours = os.environ | {"PYTHONPATH": str(Path(softcxl.__file__).parents[1])}
    command = [
        sys.executable,
        "-c",
        SERVE,
        "serve",
        topology,
        "--socket",
        f"unix:{tmp_path}/control",
        "--json",
    ]
    with subprocess.Popen(command, env=ours, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = str(json.loads(server.stdout.readline())["pool"])
            monkeypatch.setenv("SOFTCXL_POOL", address)
            monkeypatch.setenv("PYTHONPATH", ours["PYTHONPATH"])
            yield address
        finally:
            server.terminate()
            assert server.wait(300) == 0


def run(name: str, *arguments: str) -> tuple[int, str, str]:
    """Status and what was printed of an example."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_map_is_shared(pool: str) -> None:
    for key, value in (("colour", "blue"), ("size", "large"), ("colour", "green")):
        assert run("pool_map.py", "put", key, value) == (0, "", "")
    assert run("pool_map.py", "get", "colour") == (0, "green\n", "")
    assert run("pool_map.py", "list") == (0, "colour=green\nsize=large\n", "")
    assert run("pool_map.py", "get", "shape") == (1, "", "pool_map: there is no 'shape'\n")
    assert run("pool_map.py", "put", "k", "v" * 300)[0] == 1
    status, out, err = run("pool_map.py")
    assert (status, out) == (2, "")
    assert "pool_map.py put KEY VALUE" in err


def test_an_array_is_shared(pool: str) -> None:
    assert run("pool_numpy.py") == (0, "4 processes squared 32 MiB in place: right\n", "")
    with softcxl.connect(pool) as session:
        assert list(session.regions()) == []


def test_a_stream_flows(pool: str) -> None:
    status, out, err = run("pool_stream.py")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"1024 MiB at [0-9.]+ GB/s, each byte written and read: right\n", out)
    with softcxl.connect(pool) as session:
        assert [one for one in session.regions() if one.name] == []


def test_calls_are_answered_whoever_is_killed(pool: str) -> None:
    """A worker is killed while another program calls: no call of `digest` fails, and none is counted twice."""

    def worker() -> subprocess.Popen[str]:
        one = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "pool_calls.py"), "serve"], stdout=subprocess.PIPE, text=True
        )
        assert one.stdout is not None
        assert one.stdout.readline() == "serving\n"
        return one

    status, out, err = run("pool_calls.py", "call", "0.1")
    assert (status, out) == (1, "")
    assert err.startswith("pool_calls: nobody serves: ")
    assert run("pool_calls.py", "dance")[0] == 2
    with contextlib.ExitStack() as stack:
        first, second = worker(), worker()
        for one in (first, second):
            stack.enter_context(one)
            stack.callback(one.kill)
        command = [sys.executable, str(EXAMPLES / "pool_calls.py"), "call", "2"]
        caller = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        with softcxl.connect(pool) as session:
            number = session.open("calls")
            wait_until(lambda: number.load(0) > 20)
        first.kill()
        out = caller.communicate(timeout=300)[0]
    told = re.fullmatch(
        r"(\d+) calls answered, 0 of them wrong; (\d+) lost\ncounted by all callers: (\d+)\n", out
    )
    assert told is not None, out
    answered, lost, counted = map(int, told.groups())
    assert lost <= 1
    assert 0 <= counted - (answered - lost) // 2 <= lost


def test_without_a_server_they_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTCXL_POOL", f"unix:{tmp_path}/nobody")
    for name, arguments in (
        ("pool_map.py", ["list"]),
        ("pool_numpy.py", []),
        ("pool_stream.py", ["consume"]),
        ("pool_calls.py", ["call"]),
        ("pool_calls.py", ["serve"]),
    ):
        status, out, err = run(name, *arguments)
        assert (status, out) == (1, "")
        assert err.startswith(f"{name.removesuffix('.py')}: no pool answers at unix:")
        assert err.count("\n") == 1


def test_a_time_that_is_none_is_said() -> None:
    status, out, err = run("pool_calls.py", "call", "soon")
    assert (status, out) == (1, "")
    assert err == "pool_calls: could not convert string to float: 'soon'\n"


def test_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without guests, which tests/kernel has: all is as it should be, and is said."""
    monkeypatch.setenv("PYTHONPATH", str(Path(softcxl.__file__).parents[1]))
    status, out, err = run("demo_pool.py", "--no-guests")
    assert (status, err) == (0, "")
    assert "WRONG" not in out
    assert out.splitlines()[-1] == "ok    nothing that was acknowledged is lost, and nothing is there by half"
