"""Whoever dies at any point of any operation leaves what can be mended: nothing lost, nothing twice, nothing stuck."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pool.header import ran

HERE = Path(__file__).parent


@pytest.mark.parametrize("source", ["crash.c", "crash_region.c"])
def test_death_at_every_point_can_be_mended(source: str, tmp_path: Path) -> None:
    status, said = ran(HERE / source, tmp_path)
    assert status == 0, said
    points = {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in said.splitlines()}
    assert points
    assert min(points.values()) >= 2
