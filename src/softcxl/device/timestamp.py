"""The device's clock: what software set it to, going on from there (CXL 3.1 §8.2.9.4)."""

from __future__ import annotations

from softcxl.device.cci import CommandSet, command
from softcxl.device.clock import Clock
from softcxl.spec.command.timestamp import GET_TIMESTAMP, SET_TIMESTAMP, Timestamp

_WRAP = 1 << 64


class TimestampCommands(CommandSet):
    """Get and Set Timestamp. Zero until software sets it; a conventional reset clears it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget what was set."""
        self._set, self._at = 0, 0.0

    def now(self) -> int:
        """Nanoseconds since 1970 as software last set the clock, 0 if it never did."""
        if not self._set:
            return 0
        return (self._set + int((self._clock.now() - self._at) * 1e9)) % _WRAP

    @command(GET_TIMESTAMP)
    def get_timestamp(self) -> Timestamp:
        return Timestamp(timestamp=self.now())

    @command(SET_TIMESTAMP)
    def set_timestamp(self, request: Timestamp) -> None:
        self._set, self._at = request.timestamp, self._clock.now()
