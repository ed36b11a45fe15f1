"""For all tests: property tests are not timed, neither in what they do nor in how long their examples take to be drawn,
and in CI they draw the same examples every time.

Signals that a shell in the background or nohup has made ignored are heard again, as programs that tests start would
ignore them too.
"""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("here", _UNTIMED)
settings.register_profile("ci", _UNTIMED, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-coverage",
        type=Path,
        metavar="FILE",
        help="note in FILE what of the standard the tests exercise (see tests/recorder.py)",
    )


@pytest.fixture(scope="session", autouse=True)
def _endpoints_have_a_minute() -> Iterator[None]:
    """Where a test does not say how long an endpoint has to answer, it is not 5 s: a busy machine may stand still."""
    from softcxl.transport.mctp import MctpClient

    connect, usual = MctpClient.connect, 5.0

    async def patient(*place: Any, timeout: float = usual, **how: Any) -> MctpClient:
        return await connect(*place, timeout=60.0 if timeout == usual else timeout, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MctpClient, "connect", patient)
        yield


@pytest.fixture(scope="module", autouse=True)
def _files_are_closed(request: pytest.FixtureRequest) -> Iterator[None]:
    """A map of memory keeps a file open until nobody has it any more: those of servers that ran here are in circles."""
    yield
    if "pool" in request.path.parts:
        gc.collect()


def pytest_configure(config: pytest.Config) -> None:
    file = config.getoption("--record-coverage")
    if file is not None:
        from tests.recorder import Plugin

        config.pluginmanager.register(Plugin(file))
