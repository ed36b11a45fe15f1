"""A guest that is a host of a fabric elsewhere: what it is made of, from what that fabric says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from softcxl.fabric import topology
from softcxl.lab import visit
from softcxl.lab.errors import PlanError
from softcxl.lab.plan import GuestPlan, Piece

MIB = 1 << 20
TOPOLOGY = """
devices: {mem0: {volatile: 256MiB}, way: {type: pool-memory}}
pool: {memory: [mem0], arena: 62MiB}
hosts:
  a: {bridges: {hb0: {ports: [way]}}, windows: [{size: 512MiB, targets: [hb0], shared: way}]}
"""


class NoOrders:
    def stop(self) -> None:
        pass


def doors(*pieces: dict[str, Any]) -> dict[str, Any]:
    return {
        "host": "a",
        "devices": {"way": {"socket": "/run/way.sock"}},
        "virtual": {},
        "serial": None,
        "windows": [
            {"window": "window0", "base": 1 << 32, "size": 512 * MIB, "file": None, "pieces": [*pieces]}
        ],
        "regions": [],
    }


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[GuestPlan]:
    """The plans of guests that were to be booted."""
    found: list[GuestPlan] = []

    @contextmanager
    def booted(plan: GuestPlan, *given: object, **options: object) -> Iterator[None]:
        found.append(plan)
        yield

    monkeypatch.setattr(visit, "Guest", booted)
    monkeypatch.setattr(visit, "own_overlays", lambda *given: ())
    return found


def test_a_window_of_the_pools_memory_is_of_its_pieces(plans: list[GuestPlan], tmp_path: Path) -> None:
    files = [tmp_path / "front", tmp_path / "arena"]
    for one in files:
        one.write_bytes(b"")
    told = doors(
        {"offset": 0, "size": 2 * MIB, "file": str(files[0]), "start": 0},
        {"offset": 2 * MIB, "size": 62 * MIB, "file": str(files[1]), "start": 4096},
    )
    with visit.visit(topology.loads(TOPOLOGY), told, None, NoOrders()):  # type: ignore[arg-type]
        (window,) = plans[0].windows
        assert [(one.offset, one.size, one.start) for one in window.pieces] == [
            (0, 2 * MIB, 0),
            (2 * MIB, 62 * MIB, 4096),
        ]
        found = [os.fstat(one.backing).st_ino for one in window.pieces if isinstance(one.backing, int)]
        assert found == [one.stat().st_ino for one in files]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(_first(window.pieces))


def test_a_piece_that_cannot_be_opened(plans: list[GuestPlan], tmp_path: Path) -> None:
    told = doors({"offset": 0, "size": 2 * MIB, "file": str(tmp_path / "gone"), "start": 0})
    with (
        pytest.raises(PlanError, match="gone cannot be opened: No such file"),
        visit.visit(topology.loads(TOPOLOGY), told, None, NoOrders()),  # type: ignore[arg-type]
    ):
        pass
    assert not plans


def _first(pieces: tuple[Piece, ...]) -> int:
    assert isinstance(pieces[0].backing, int)
    return pieces[0].backing
