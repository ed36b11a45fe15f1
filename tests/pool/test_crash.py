"""Whoever dies at any point of any operation leaves what can be mended: nothing lost, nothing twice, nothing stuck."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "src/softcxl/pool/core"


@pytest.mark.parametrize("source", ["crash.c", "crash_region.c"])
def test_death_at_every_point_can_be_mended(source: str, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    program = tmp_path / "crash"
    command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{CORE}"]
    subprocess.run([*command, str(HERE / source), "-o", str(program)], check=True)
    result = subprocess.run([program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    points = {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in result.stdout.splitlines()}
    assert points
    assert min(points.values()) >= 2
