"""Processes are killed in the Python binding of the C core, at each point of a write; who waits for the lock mends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pool.crashing import CrashBuild

SCRIPT = Path(__file__).with_name("dies_writing.py")


@pytest.mark.parametrize("how", ["1", "2", "3", "degraded"])
def test_a_client_that_waits_mends_what_the_killed_left(how: str, crash_build: CrashBuild) -> None:
    environment = crash_build.environment()
    result = subprocess.run([sys.executable, SCRIPT, how], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 50


def test_what_is_installed_never_dies(crash_build: CrashBuild) -> None:
    script = "from softcxl.pool import native; from tests.pool.directory import Directory\n"
    script += "pool = Directory(); pool.region(); pool.open().write(0, b'x'); print(native.Memory.__module__)"
    environment = crash_build.environment(1)
    died = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert died.returncode == -9
    environment["PYTHONPATH"] = environment["PYTHONPATH"].partition(":")[2]
    lived = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert lived.returncode == 0, lived.stderr
