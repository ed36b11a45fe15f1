"""Whatever somebody writes into shared structures, those who use them get a result or an error: no crash, no hang."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pool.crashing import CrashBuild

SCRIPT = Path(__file__).with_name("vandal.py")


@pytest.mark.parametrize("seed", range(1, 5))
def test_what_cannot_be_is_an_error(seed: int, crash_build: CrashBuild) -> None:
    command = [sys.executable, str(SCRIPT), str(seed), "400"]
    result = subprocess.run(
        command, env=crash_build.environment(), capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 5000  # most of what is used has not been hit
