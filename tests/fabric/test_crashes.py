"""kill -9 at any instant leaves a consistent fabric, with all that was acknowledged (the program is `crashes.py`)."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(__file__).with_name("crashes.py"))


def killed(folder, *words):
    done = subprocess.run(
        [sys.executable, PROGRAM, str(folder), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.timeout(300)
def test_killed_ahead_of_every_statement(tmp_path):
    assert killed(tmp_path, "every") > 100


def test_killed_at_random_instants(tmp_path):
    assert killed(tmp_path, "random", "1", "30") == 30


@pytest.mark.timeout(300)
def test_every_write_refused_in_turn(tmp_path):
    assert killed(tmp_path, "refused") > 20
