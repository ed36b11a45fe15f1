"""For the pool's tests: a build of the C core in which processes die where a test wants them to."""

from __future__ import annotations

import pytest

from tests.pool.crashing import CrashBuild, build
from tests.pool.served import served

__all__ = ["crash_build", "served"]


@pytest.fixture(scope="session")
def crash_build(tmp_path_factory: pytest.TempPathFactory) -> CrashBuild:
    """Interpreters started with `crash_build.environment(N)` die at point N of what they do in shared memory."""
    made = build(tmp_path_factory.mktemp("crash"))
    if isinstance(made, str):
        pytest.skip(made)
    return made
