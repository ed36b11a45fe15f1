"""For the pool's tests: a pool that is served in this process, its clients, and a C core that dies where it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.pool import rpc
from softcxl.pool.session import Pool
from tests.pool.crashing import CrashBuild, build
from tests.pool.index import LONG, Index
from tests.pool.served import Served, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as one:
        yield one


@pytest.fixture
def pool(served: Served) -> Pool:
    return served.client("first")


@pytest.fixture
def other(served: Served) -> Pool:
    return served.client("second")


@pytest.fixture
def index(served: Served) -> Iterator[Index]:
    """A service that a client named "worker" serves."""
    one = Index(served.client("worker"))
    yield one
    one.go_on.set()


@pytest.fixture
def client(served: Served, index: Index) -> rpc.Client:
    """Somebody who calls it."""
    return served.client("caller").client("index", timeout=LONG)


@pytest.fixture(scope="session")
def crash_build(tmp_path_factory: pytest.TempPathFactory) -> CrashBuild:
    """Interpreters started with `crash_build.environment(N)` die at point N of what they do in shared memory."""
    made = build(tmp_path_factory.mktemp("crash"))
    if isinstance(made, str):
        pytest.skip(made)
    return made
