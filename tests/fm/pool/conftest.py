"""A server of two devices, for tests that need no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from softcxl.fm.pool.server import PoolServer
from tests.fm.pool.memories import PLAN, FakeSource, arena


@pytest.fixture
def sources() -> list[FakeSource]:
    return [FakeSource("mem0"), FakeSource("mem1")]


@pytest.fixture
def server(sources: list[FakeSource]) -> Iterator[PoolServer]:
    served = PoolServer(arena(), sources, plan=PLAN, quotas={"small": 1 << 20, "*": 1 << 30})
    served.directory.ready()
    yield served
    served.close()
