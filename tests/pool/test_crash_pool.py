"""Clients of a whole pool are killed at each of their points: who reads sees whole writes, and nobody is held up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pool.crashing import CrashBuild

SCRIPT = Path(__file__).with_name("dies_in_pool.py")


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_a_client_that_is_killed_at_any_point_leaves_a_whole_region(
    copies: int, crash_build: CrashBuild
) -> None:
    command = [sys.executable, str(SCRIPT), str(copies)]
    result = subprocess.run(command, env=crash_build.environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 10 * copies + 10
