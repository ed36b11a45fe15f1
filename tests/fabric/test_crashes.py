"""kill -9 at any instant leaves a consistent fabric, with all that was acknowledged (the program is `crashes.py`)."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PROGRAM = str(Path(__file__).with_name("crashes.py"))
MEMORY = Path("/dev/shm")


@pytest.fixture
def folder():
    """In memory where there is such a place: who is killed leaves what the kernel has, on a disk or not yet."""
    where = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="softcxl-crashes-", dir=where) as made:
        yield made


def killed(folder, *words):
    done = subprocess.run(
        [sys.executable, PROGRAM, folder, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.timeout(1800)
def test_killed_ahead_of_every_statement(folder):
    assert killed(folder, "every") > 100


@pytest.mark.timeout(1800)
def test_killed_at_random_instants(folder):
    assert killed(folder, "random", "1", "30") == 30


@pytest.mark.timeout(1800)
def test_every_write_refused_in_turn(folder):
    assert killed(folder, "refused") > 20
