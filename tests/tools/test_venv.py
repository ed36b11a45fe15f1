"""tools/venv: what it says when it cannot go on, and that it does nothing twice."""

import importlib.util
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

SCRIPT = Path("tools/venv").absolute()


@pytest.fixture
def script():
    loader = SourceFileLoader("tools_venv", str(SCRIPT))
    spec = importlib.util.spec_from_loader("tools_venv", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    previous, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = previous
    return module


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize(
    ("stamps", "arguments"),
    [(("STAMP", "RUNS"), []), (("RUNS",), ["run"]), (("PEERS", "STAMP", "RUNS"), ["bench"])],
)
def test_an_environment_that_is_ready_is_left_alone(script, tmp_path, stamps, arguments):
    target = tmp_path / "env"
    (target / "bin").mkdir(parents=True)
    (target / "bin/python").touch()
    for name in stamps:
        (target / getattr(script, name)).write_text(script.fingerprint(target))
    done = run(str(target), *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "extras", "stamps"),
    [
        ([], ["[dev,docs]"], {"softcxl.ready", "softcxl.runs"}),
        (["run"], [""], {"softcxl.runs"}),
        (["bench"], ["[dev,docs]", "[dev,docs,bench]"], {"softcxl.bench", "softcxl.ready", "softcxl.runs"}),
    ],
)
def test_what_is_installed(script, tmp_path, monkeypatch, arguments, extras, stamps):
    installed = []
    monkeypatch.setattr(script, "install", lambda target, extras: installed.append(extras))
    monkeypatch.setattr(sys, "argv", ["tools/venv", str(tmp_path / "env"), *arguments])
    # What runs is not enough for the tests.
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / script.RUNS).write_text("of another time")
    monkeypatch.setattr(script, "create", lambda target: None)
    assert script.main() == 0
    assert installed == extras
    written = {one.name for one in (tmp_path / "env").iterdir() if one.read_text() != "of another time"}
    assert written == stamps


def test_benchmarks_do_without_what_is_not_to_be_had(script, tmp_path, monkeypatch, capsys):
    def install(target, extras):
        if "bench" in extras:
            raise script.Failed("no wheel")

    monkeypatch.setattr(script, "install", install)
    monkeypatch.setattr(script, "create", lambda target: None)
    monkeypatch.setattr(sys, "argv", ["tools/venv", str(tmp_path / "env"), "bench"])
    (tmp_path / "env").mkdir()
    assert script.main() == 0
    assert {one.name for one in (tmp_path / "env").iterdir()} == {"softcxl.ready", "softcxl.runs"}
    assert "not all that benchmarks compare with is to be had here:\nno wheel" in capsys.readouterr().err


def test_a_folder_that_is_something_else_is_not_removed(tmp_path):
    precious = tmp_path / "env" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("irreplaceable")
    done = run(str(precious.parent))
    assert done.returncode == 1
    assert "exists and is not a Python environment; move it away" in done.stderr
    assert "Traceback" not in done.stderr
    assert precious.read_text() == "irreplaceable"


def test_without_ensurepip_and_without_apt_it_says_what_to_install(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    monkeypatch.setattr(script, "WHEELS", tmp_path / "absent")
    with pytest.raises(script.Failed, match="install your distribution's venv package for Python 3"):
        script.distribution_pip(tmp_path)


def test_when_apt_cannot_fetch_it_says_what_to_install(script, tmp_path, monkeypatch):
    def fail(command, why, folder=None, **environment):
        raise script.Failed(f"{why} failed")

    monkeypatch.setattr(script.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(script, "WHEELS", tmp_path / "absent")
    monkeypatch.setattr(script, "run", fail)
    with pytest.raises(script.Failed, match="sudo apt install python3-venv"):
        script.distribution_pip(tmp_path)


def test_a_command_that_fails_shows_the_end_of_its_output(script):
    program = "print('\\n'.join(map(str, range(40)))); raise SystemExit(3)"
    with pytest.raises(script.Failed) as caught:
        script.run([sys.executable, "-c", program], "counting")
    lines = str(caught.value).splitlines()
    assert lines[0] == "28"
    assert lines[-2:] == ["39", "venv: counting failed (exit status 3)"]


def test_usage():
    done = run()
    assert (done.returncode, done.stderr) == (2, "usage: tools/venv DIRECTORY [run|bench]\n")


def test_the_pins_hold_for_every_dependency():
    pins = [line.partition("==")[0].lower() for line in Path("constraints.txt").read_text().splitlines()]
    for name in (
        "click",
        "msgspec",
        "numpy",
        "pyyaml",
        "rich",
        "pytest",
        "mypy",
        "ruff",
        "sphinx",
        "pip",
        "hatchling",
    ):
        assert name in pins
