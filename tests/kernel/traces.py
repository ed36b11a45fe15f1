"""The kernel's CXL tracepoints, read from a guest: each event as the fields that it was printed with.

The formats are those of drivers/cxl/core/trace.h.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from tests.kernel.conftest import Linux

T = TypeVar("T")
PATIENCE = 180.0
"""Seconds to wait for what a guest is about to do: never reached but by a failure."""

_TRACING = "/sys/kernel/tracing"
_LINE = re.compile(r":\s(cxl_\w+): (.*)")
_FIELD = re.compile(r"(\w+)=(?:'([^']*)'|(.*?)(?= \w+=| : |: |$))")


def until(look: Callable[[], T], good: Callable[[T], bool], timeout: float = PATIENCE) -> T:
    """What `look` finds as soon as it is good.

    A look is a command in the guest, which takes its time, or at something that is a matter of milliseconds. The
    last thing that was found is returned when time is up, for the test to fail on.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if good(found) or time.monotonic() > deadline:
            return found
        time.sleep(0.01)  # the guest has a use for the processor


def fields(text: str) -> dict[str, str]:
    """The KEY=VALUE and KEY='VALUE' pairs of a trace line; of a key that comes twice the last one."""
    return {key: (quoted or plain).strip() for key, quoted, plain in _FIELD.findall(text)}


class Traces:
    """A guest's CXL trace events, from now on."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux
        linux.sh(f"echo > {_TRACING}/trace; echo 1 > {_TRACING}/events/cxl/enable")

    def texts(self, event: str) -> list[str]:
        """What has been printed for `event` so far, oldest first, without the trace's own prefix."""
        lines = self._linux.sh(f"cat {_TRACING}/trace").splitlines()
        found = [match.groups() for line in lines if (match := _LINE.search(line))]
        return [text for name, text in found if name == event]

    def wait(self, event: str, count: int = 1) -> list[dict[str, str]]:
        """The fields of all `event`s so far, once there are `count` of them."""
        return [fields(text) for text in self.wait_texts(event, count)]

    def wait_texts(self, event: str, count: int = 1) -> list[str]:
        """As `wait`, but as the kernel printed them."""
        found = until(lambda: self.texts(event), lambda texts: len(texts) >= count)
        assert len(found) == count, f"{len(found)} {event} were traced, {count} expected"
        return found
