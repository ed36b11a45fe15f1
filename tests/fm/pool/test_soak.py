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


@pytest.mark.timeout(1800)
def test_a_short_soak_finds_nothing_wrong() -> None:
    ours = os.environ | {"PYTHONPATH": str(Path(softcxl.__file__).parents[1])}
    for minutes in (0.15, 1.0, 5.0):  # where there is no time for it nothing may come of the first
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


def test_what_calls_have_come_to_is_looked_at(tmp_path: Path) -> None:
    """A call that was run twice, one that was answered and never run, one that was run where nobody served, one too
    few that was done; and of calls that are as they should be nothing."""
    program = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from pool_peers import soak_account, soak_log
folder, done, *lines = Path(sys.argv[2]), *sys.argv[3:]
for name in ("client", "service"):
    log = soak_log.Log(folder / name)
    for line in lines:
        if (line[0] == "r") == (name == "service"):
            log.say(line[0].encode(), 5, 0, int(line[1:]))
account = soak_account.Account([folder / "client"], [folder / "service"])
print(*account.counted(int(done)), sep="\\n")
"""
    ours = os.environ | {"PYTHONPATH": str(Path(softcxl.__file__).parents[1])}
    good = ["c1", "r1", "C1", "c2", "u2", "c3", "r3", "l3", "c4"]  # 4: whoever made it was killed
    cases = {
        ("1", *good): "",
        ("2", *good): "",
        ("2", *good, "r1"): "2 runs of calls that were run more than once, 1 of client 5 among them",
        ("2", *good, "c5", "C5"): "1 calls were answered and not run, 5 of client 5 among them",
        (
            "2",
            *good,
            "r2",
        ): "1 calls were run, and their callers told that nobody serves, 2 of client 5 among them",
        ("2", *good, "r9"): "1 calls were run that nobody had made, 9 of client 5 among them",
        (
            "0",
            *good,
        ): "0 calls were done, 1 answered, and of 2 more it is not known: their workers or their callers died "
        "over them, or they were given up",
    }
    for number, (given, expected) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", program, str(SOAK.parent), str(folder), *given],
            env=ours,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{expected}\n"
