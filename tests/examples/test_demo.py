"""What `make demo` runs: it works from anywhere, leaves nothing, and its exit status tells when something is wrong."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def demo():
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_runs_in_an_empty_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "checks, all ok" in done.stdout
    assert "\x1b" not in done.stdout  # nobody looks: no colours, no progress
    assert "WRONG" not in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert "an order that works: mem0, mem4, mem1, mem5" in done.stdout
    assert "b'still here tomorrow'" in done.stdout
    # What README shows of it is what it prints.
    readme = (EXAMPLES.parent / "README.md").read_text()
    (block,) = re.findall(r"```text\n(>>> .*?)```", readme, re.DOTALL)
    printed = done.stdout.splitlines()
    for line in block.splitlines():
        assert line in printed
    verdict = re.search(r"`(\d+ checks, all ok), in", readme)
    assert verdict is not None
    assert verdict[1] in done.stdout


def test_what_is_wrong_is_said_and_is_the_exit_status(demo, capsys, monkeypatch):
    monkeypatch.setattr(np, "array_equal", lambda one, other: False)
    assert demo.main() == 1
    out = capsys.readouterr().out
    assert "WRONG  64 MiB are on 8 devices" in out
    assert "1 WRONG, in" in out


def test_a_line_that_should_be_refused_and_is_not(demo, capsys):
    session = demo.Session()
    assert session.fails("1 + 1") == ""
    assert session.wrong == 1
    assert "this should have been refused" in capsys.readouterr().out


def test_a_fabric_that_does_not_hold(demo, capsys, monkeypatch, tmp_path):
    (tmp_path / "showcase.yaml").write_text("devices: {mem0: {volatile: 1MiB}}")
    monkeypatch.setattr(demo, "SHOWCASE", tmp_path / "showcase.yaml")
    assert demo.main() == 1
    assert "1MiB is not a multiple of 256MiB" in capsys.readouterr().out
