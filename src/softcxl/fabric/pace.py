"""How time passes while a scenario is played: turned on at once, or as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from softcxl.device.clock import Clock, ManualClock

TICK = 0.05
"""Seconds between two looks at what is awaited in real time."""


class Pace(Protocol):
    """How time passes: `clock` says it, `wait` lets it pass until `done`, or for `seconds`; returns if it is done."""

    clock: Clock

    def wait(self, seconds: float, done: Callable[[], bool]) -> bool: ...


class Turned:
    """Time that passes where a step waits, at once."""

    def __init__(self, clock: ManualClock) -> None:
        self._turned = clock
        self.clock: Clock = clock

    def wait(self, seconds: float, done: Callable[[], bool]) -> bool:
        clock = self._turned
        clock.advance(0)
        until = clock.now() + seconds
        while not done():
            now, due = clock.now(), clock.due
            if now >= until:
                return False
            clock.advance(min(until, until if due is None else due) - now)
        return True


class Real:
    """The machine's time. `stop` ends all waiting."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.stop = threading.Event()

    def wait(self, seconds: float, done: Callable[[], bool]) -> bool:
        until = self.clock.now() + seconds
        while not done():
            left = until - self.clock.now()
            if left <= 0 or self.stop.wait(min(left, TICK)):
                return done()
        return True
