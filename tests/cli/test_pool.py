"""`softcxl pool` at a server's pool of two devices: what each verb does, prints, and refuses."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import softcxl
from softcxl.cli import main
from softcxl.cli.serve_pool import serve_pool
from softcxl.fabric.build import Fabric
from softcxl.fabric.pool import MemorySource
from tests.pool.served import wait_until

MIB = 1 << 20
TOPOLOGY = """
devices: {mem0: {volatile: 256MiB}, mem1: {volatile: 256MiB}}
switches: {rack: {ports: [mem1]}}
pool: {memory: [mem0, mem1], arena: 16MiB, lease: 5s, quotas: {poor: 1MiB}}
"""

Run = Callable[..., str]
Fail = Callable[..., tuple[int, str]]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a pool, which SOFTCXL_POOL holds."""
    path = tmp_path / "pool.yaml"
    path.write_text(TOPOLOGY)
    with Fabric.load(path, serves=True) as fabric, serve_pool(fabric, tmp_path / "control") as address:
        monkeypatch.setenv("SOFTCXL_POOL", address)
        yield address


@pytest.fixture
def run(served: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `softcxl pool`, and returns what it printed; a status other than 0 fails."""

    def go(*arguments: object) -> str:
        status = main(["pool", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out

    return go


@pytest.fixture
def ask(run: Run) -> Callable[..., Any]:
    """As `run`, with --json, and what that holds."""
    return lambda *arguments: json.loads(run(*arguments, "--json"))


@pytest.fixture
def fail(served: str, capsys: pytest.CaptureFixture[str]) -> Fail:
    """Runs `softcxl pool`, and returns its status and its one sentence; nothing is on stdout."""

    def go(*arguments: object) -> tuple[int, str]:
        status = main(["pool", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("softcxl: ")
        assert err.count("\n") == 1
        return status, err[len("softcxl: ") : -1]

    return go


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Has a verb find these bytes on stdin."""
    return lambda data: monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


# -- regions ---------------------------------------------------------------------------------------------------


def test_a_region_is_allocated_listed_and_freed(run: Run, ask: Callable[..., Any]) -> None:
    assert run("list") == "no regions\n"
    assert run("allocate", "model", "2MiB", "--replicas", 2) == "model: 2MiB, 2 copies\n"
    assert run("allocate", "notes", 100) == "notes: 100B\n"
    assert run("list").splitlines() == [
        "region  size  copies  health  owner  others",
        "model   2MiB  2       ok      -      write",
        "notes   100B  1       ok      -      write",
    ]
    (model, _) = ask("list")
    assert {copy["source"] for copy in model["copies"]} == {1, 2}
    assert [copy["state"] for copy in model["copies"]] == ["healthy", "healthy"]
    assert (model["size"], model["name"], model["atomic"]) == (2 * MIB, "model", False)
    assert run("free", "model", "notes") == ""
    assert ask("list") == []


def test_what_a_region_is_to_be_can_be_said(ask: Callable[..., Any]) -> None:
    options = ["--policy", "pack", "--others", "read", "--atomic"]
    assert ask("allocate", "one", "4KiB", *options) == {"name": "one", "size": 4096, "copies": 1}
    (one,) = ask("list")
    assert (one["others"], one["atomic"]) == ("read", True)


def test_regions_of_programs_show_their_owner(run: Run, served: str) -> None:
    with softcxl.connect(served, name="trainer") as pool, pool.allocate(4096) as region:
        lines = run("list").splitlines()
        assert lines[1].split() == [f"[{region.index}]", "4KiB", "1", "ok", "trainer", "write"]


def test_only_its_owner_frees_a_region(run: Run, fail: Fail) -> None:
    run("--as", "alice", "allocate", "hers", "4KiB")
    status, sentence = fail("--as", "bob", "free", "hers")
    assert status == 1
    assert "only its owner frees it" in sentence
    run("--as", "alice", "free", "hers")


def test_what_cannot_be_allocated_is_said(run: Run, fail: Fail) -> None:
    run("allocate", "there", 1)
    for arguments, wanted in (
        (("there", "4KiB"), (1, "there is a region 'there' already")),
        (("huge", "1TiB"), (1, "")),
        (("three", "4KiB", "--replicas", 3), (1, "")),
        (("none", 0), (1, "")),
        (("", 5), (1, "")),
    ):
        status, sentence = fail("allocate", *arguments)
        assert status == wanted[0], sentence
        assert wanted[1] in sentence
    assert fail("--as", "poor", "allocate", "big", "2MiB")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("allocate", "x", "much"), "'much' is not a size"),
        (("allocate", "x", "4KiB", "--replicas", "9"), "9"),
        (("allocate", "x", "4KiB", "--policy", "best"), "'best'"),
        (("free",), "NAME..."),
        (("read", "x", "--offset", "-1"), "'-1'"),
        (("write", "x"), "what is to be written? FILE, - for stdin, or --hex"),
        (("write", "x", "-", "--hex", "00"), "what is to be written?"),
        (("write", "x", "--hex", "0"), "not bytes in hexadecimal"),
        (("read", "x", "--hex", "-o", "y"), "--output writes the bytes as they are"),
    ],
)
def test_bad_usage_is_2(fail: Fail, arguments: tuple[str, ...], said: str) -> None:
    status, sentence = fail(*arguments)
    assert status == 2
    assert said in sentence


def test_a_name_is_shown_as_it_is(run: Run) -> None:
    for name in ("[bold]x[/bold]", "[1]", "a:smile:b", "名前"):
        assert run("allocate", name, "4KiB") == f"{name}: 4KiB\n"
        assert any(line.startswith(f"{name} ") for line in run("list").splitlines())
        assert run("stat", name).startswith(f"{name}: 4KiB, ok")


def test_a_terminal_need_not_have_all_letters(run: Run, served: str) -> None:
    run("allocate", "é名🚀", "4KiB")
    code = "import sys; from softcxl.cli import main; sys.exit(main())"

    def said(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, "pool", *arguments],
            env={**os.environ, "PYTHONIOENCODING": "latin-1"},
            capture_output=True,
            encoding="latin-1",
            check=True,
        )
        assert done.stderr == ""
        return done.stdout

    assert said("list").splitlines()[1].startswith("é\\u540d\\U0001f680 ")
    assert json.loads(said("list", "--json"))[0]["name"] == "é名🚀"
    assert said("stat", "é名🚀").startswith("é\\u540d\\U0001f680: 4KiB")
    assert json.loads(said("free", "é名🚀", "--json")) == {"freed": ["é名🚀"]}


def test_what_can_be_freed_is(
    run: Run, ask: Callable[..., Any], served: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two", "three"):
        run("allocate", name, "4KiB")
    run("--as", "alice", "allocate", "hers", "4KiB")
    assert ask("free", "three") == {"freed": ["three"]}
    assert main(["pool", "free", "--json", "nobody", "one", "hers", "two"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"freed": ["one", "two"]}
    assert err.startswith("softcxl: there is no region 'nobody'; region 'hers' is another client's")
    assert err.count("\n") == 1
    assert [one["name"] for one in ask("list")] == ["hers"]


def test_an_empty_client_name_is_none(fail: Fail) -> None:
    assert fail("--as", "", "list")[1].startswith("the client's name: '' is no name")


def test_names_that_there_are_not(fail: Fail) -> None:
    for verb in (
        ("free", "nobody"),
        ("read", "nobody"),
        ("write", "nobody", "--hex", "00"),
        ("stat", "nobody"),
    ):
        assert fail(*verb) == (1, "there is no region 'nobody'")


# -- contents --------------------------------------------------------------------------------------------------


def test_bytes_are_written_and_read(run: Run, ask: Callable[..., Any]) -> None:
    run("allocate", "text", 64, "--replicas", 2)
    assert ask("write", "text", "--hex", "68656c6c6f", "--offset", 3) == {
        "name": "text",
        "offset": 3,
        "written": 5,
    }
    assert ask("read", "text", 7, "--offset", 2) == {"name": "text", "offset": 2, "data": "0068656c6c6f00"}
    assert run("read", "text", 20, "--hex").splitlines() == [
        "00000000: 00 00 00 68 65 6c 6c 6f 00 00 00 00 00 00 00 00",
        "00000010: 00 00 00 00",
    ]
    assert run("read", "text", 5, "--offset", 3) == "hello"


def test_files_go_in_and_out(
    run: Run, tmp_path: Path, standard_input: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softcxl.cli.pool.contents.PIECE", 1000)
    data = bytes(range(256)) * 20
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(data)
    run("allocate", "file", 6000)
    run("write", "file", source)
    run("read", "file", len(data), "-o", target)
    assert target.read_bytes() == data
    standard_input(data[::-1])
    run("write", "file", "-", "--offset", 6000 - len(data))
    run("read", "file", "-o", target)
    assert target.read_bytes() == data[: 6000 - len(data)] + data[::-1]


def test_what_does_not_fit_is_said(
    run: Run, fail: Fail, tmp_path: Path, standard_input: Callable[[bytes], None]
) -> None:
    run("allocate", "small", 10)
    assert fail("read", "small", 11) == (1, "11 bytes from 0: the region small has 10")
    assert fail("read", "small", "--offset", 11)[1] == "0 bytes from 11: the region small has 10"
    assert (
        fail("write", "small", "--hex", "0000", "--offset", 9)[1] == "2 bytes from 9: the region small has 10"
    )
    large = tmp_path / "large"
    large.write_bytes(bytes(11))
    assert fail("write", "small", large) == (1, "11 bytes from 0: the region small has 10")
    assert fail("write", "small", tmp_path / "nowhere")[0] == 1
    standard_input(b"x" * 11)
    assert fail("write", "small", "-", "--offset", 1) == (
        1,
        "stdin has more than the 9 bytes that fit from 1; those are written",
    )
    assert run("read", "small") == "\0" + "x" * 9
    assert fail("write", "small", "/dev/zero") == (
        1,
        "/dev/zero has more than the 10 bytes that fit from 0; those are written",
    )
    assert run("read", "small") == "\0" * 10


def test_a_closed_stdin_is_said(run: Run, fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    run("allocate", "small", 10)
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it where a shell says `<&-`
    assert fail("write", "small", "-") == (1, "stdin is closed: nothing can be read from there")


def test_others_may_be_kept_from_it(run: Run, fail: Fail) -> None:
    run("--as", "alice", "allocate", "secret", 10, "--others", "private")
    run("--as", "alice", "allocate", "news", 10, "--others", "read")
    status, sentence = fail("--as", "bob", "read", "secret")
    assert status == 1
    assert "private" in sentence
    run("--as", "bob", "read", "news")
    assert fail("--as", "bob", "write", "news", "--hex", "00")[0] == 1


# -- the pool --------------------------------------------------------------------------------------------------


def test_stat_shows_devices_copies_and_clients(run: Run, ask: Callable[..., Any]) -> None:
    run("allocate", "model", "64MiB", "--replicas", 2)
    lines = run("stat").splitlines()
    assert "mem0: healthy, 192MiB of 256MiB free" in lines[2]
    assert "model: 64MiB, copy" in lines[3]
    assert "mem1: healthy, 192MiB of 256MiB free, at rack" in lines[4]
    assert any(line.split()[:1] == ["softcxl"] for line in lines)
    found = ask("stat")
    assert {"server", "sources", "regions", "clients"} <= set(found)
    assert [one["name"] for one in found["sources"]][-2:] == ["mem0", "mem1"]
    one = run("stat", "model").splitlines()
    assert one[0] == "model: 64MiB, ok, owner none, others write"
    assert [line.split(" of ")[-1] for line in one[1:]] == ["mem0", "mem1"]
    assert [copy["source"] for copy in ask("stat", "model")["copies"]] == ["mem0", "mem1"]


def test_stat_says_what_cannot_be_cleared_and_why(
    run: Run, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("allocate", "model", "64MiB")

    def full(source: MemorySource, offset: int, size: int) -> list[tuple[int, int]]:
        raise OSError("no space left on device")

    monkeypatch.setattr(MemorySource, "poisoned", full)
    run("free", "model")
    wait_until(lambda: any(one["held_back"] == 64 * MIB for one in ask("stat")["sources"]))
    (line,) = [line for line in run("stat").splitlines() if "mem0:" in line]
    assert "192MiB of 256MiB free, 64MiB cannot be cleared (no space left on device)" in line
    monkeypatch.undo()


def test_stat_waits_for_what_is_being_rebuilt_and_here_nothing_is(run: Run, served: str) -> None:
    run("allocate", "model", 4096)
    assert "model" in run("stat", "--wait")


def test_bench_measures_and_leaves_nothing(ask: Callable[..., Any], fail: Fail) -> None:
    found = ask("bench", "--size", "64KiB", "--rounds", 1, "--replicas", 2)
    assert [one["what"] for one in found] == [
        "copy of plain memory",
        "read",
        "write, 2 copies",
        "allocate and free 4KiB",
    ]
    assert all(one["value"] > 0 for one in found)
    assert ask("list") == []
    assert fail("bench", "--size", 0)[0] == 2


def test_without_a_server_it_is_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SOFTCXL_POOL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for arguments in (("list",), ("--pool", f"unix:{tmp_path}/nobody", "list")):
        assert main(["pool", *arguments]) == 3
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("softcxl: ")
        assert err.count("\n") == 1
    assert main(["pool", "--pool", "tcp:x", "stat"]) == 1
    assert capsys.readouterr().err.startswith(
        "softcxl: 'tcp:x' is no address of a pool; it has the form unix:PATH"
    )


def test_the_one_server_that_runs_is_found(
    served: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    monkeypatch.delenv("SOFTCXL_POOL")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    (runtime / "softcxl-pool.pool").symlink_to(served.removeprefix("unix:"))
    assert main(["pool", "list"]) == 0
    assert capsys.readouterr().out == "no regions\n"
