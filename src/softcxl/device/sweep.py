"""A pass over media: it comes to each address in its time, and meets what has gone bad there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from softcxl.device.clock import Timer
from softcxl.device.geometry import LINE

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3


class Sweep:
    """Goes over device addresses at an even speed, once or endlessly, and calls `meet` with each line of latent poison
    that it comes to. Between them it costs nothing."""

    def __init__(self, device: Type3, meet: Callable[[int], None], *, endless: bool = False) -> None:
        self._device, self._meet, self._endless = device, meet, endless
        self.start = self.end = 0
        self._at, self._since, self._speed = 0.0, 0.0, 0.0
        self._passed = 0  # the end of the line met last
        self._timer: Timer | None = None
        self._due: list[int] | None = None
        device.poison.spoiled.append(self.wake)

    def begin(self, start: int, end: int, seconds: float, *, at: float | None = None) -> None:
        """Go over `start` to `end` in `seconds`, from `at` on. The function's lock is held."""
        self.start, self.end, self._passed = start, end, 0
        self._at, self._since = start if at is None else at, self._device.clock.now()
        self._speed = (end - start) / seconds
        self.wake()

    def stop(self) -> None:
        """Go no further. The function's lock is held."""
        self._at, self._since, self._speed = self.position, self._device.clock.now(), 0.0
        self.wake()

    @property
    def position(self) -> float:
        """Where it is now."""
        at = self._at + (self._device.clock.now() - self._since) * self._speed
        if at < self.end:
            return at
        return self.start + (at - self.end) % (self.end - self.start) if self._endless else self.end

    def wake(self) -> None:
        """Find again what comes next. The function's lock is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = None
        latent = self._device.poison.latent
        if not self._speed or not len(latent):
            return
        at = self.position
        first = -int(-at // LINE) * LINE
        if self._passed - LINE <= at < self._passed:
            first = self._passed
        line = latent.any_in(first, self.end - first) if first < self.end else None
        way = None if line is None else line - at
        if line is None and self._endless:
            line = latent.any_in(self.start, self.end - self.start)
            way = None if line is None else self.end - at + line - self.start
        if line is not None and way is not None:
            due = self._due = [line]
            self._timer = self._device.clock.call_later(way / self._speed, lambda: self._arrive(due))

    def _arrive(self, due: list[int]) -> None:
        """By now something else may be due."""
        with self._device.lock:
            if due is not self._due:
                return
            line = due[0]
            self._at, self._since, self._passed = line, self._device.clock.now(), line + LINE
            if line in self._device.poison.latent:
                self._meet(line)
            self.wake()
