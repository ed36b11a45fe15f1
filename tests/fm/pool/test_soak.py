"""Whatever dies at random, nothing is lost, done twice, or kept by the dead. `make bench` has a longer one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import softcxl

SOAK = Path(__file__).parents[3] / "benchmarks/pool_soak.py"


@pytest.mark.timeout(300)
def test_a_short_soak_finds_nothing_wrong() -> None:
    ours = os.environ | {"PYTHONPATH": str(Path(softcxl.__file__).parents[1])}
    for minutes in (0.15, 1.0):  # on a machine that has no time for it nothing may come of the first
        done = subprocess.run(
            [sys.executable, SOAK, "--minutes", str(minutes), "--json"],
            env=ours,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)
        assert found["wrong"] == []
        assert done.returncode == 0
        if found["writes"] and found["calls"]:
            break
    assert found["writes"] > 0
    assert found["calls"] > 0


def test_what_a_soak_looks_for_it_finds() -> None:
    """A block of two writes, and one that is neither the acknowledged nor the begun one."""
    program = """
import sys; sys.path.insert(0, sys.argv[1])
from pool_peers import soaking
good = soaking.content(7)
assert soaking.sequence_of(good) == 7
try:
    soaking.sequence_of(good[:8000] + soaking.content(8)[8000:])
except AssertionError as error:
    print(error)
"""
    ours = os.environ | {"PYTHONPATH": str(Path(softcxl.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program, str(SOAK.parent)],
        env=ours,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "a block of sequence 7 holds words of 2 writes\n"
