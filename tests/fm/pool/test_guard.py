"""Damage to the arena's header is seen, said and mended."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import pytest

from softcxl.fm.pool.guard import Guard
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.layout import HEADER
from tests.fm.pool.memories import PLAN, FakeSource


def test_who_writes_over_the_header_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    arena = os.memfd_create("arena", os.MFD_CLOEXEC)
    os.truncate(arena, PLAN.size)
    told: list[tuple[str, str, Mapping[str, Any]]] = []
    with PoolServer(arena, [FakeSource("mem0")], plan=PLAN) as server:
        guard = Guard(server.directory, lambda *happened: told.append(happened))
        whole = server.directory.map
        right = whole[:32]
        for name in ("beat", "health", "regions_used"):  # those live
            whole[HEADER[name]] ^= 0xFF
        guard.look()
        assert told == []
        whole[8:24] = b"\xaa" * 16
        with caplog.at_level(logging.ERROR):
            guard.look()
        assert whole[:32] == right
        guard.look()
    os.close(arena)
    assert told == [
        ("damaged", "arena", {"what": "somebody has written over its header, 16 bytes from byte 8 on"})
    ]
    assert "what else is in the pool cannot be trusted" in caplog.text
