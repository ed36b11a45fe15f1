"""What MCTP doors have alike: open, they have a thread of their own; closed, it has ended."""

from __future__ import annotations

from typing import Final, Self

from softcxl.transport.errors import DoorError
from softcxl.transport.mctp.loop import Loop

CLOSE_SECONDS: Final = 10.0


class LoopDoor:
    """Base of doors that a `Loop` works, while they are open. `_shut`, which the loop calls, lets go of all else."""

    _loop: Loop | None = None

    @property
    def title(self) -> str:
        """What messages call it."""
        raise AssertionError("every door has a name")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start to listen. Raises `DoorError`."""
        raise AssertionError("every door says how it opens")

    def close(self) -> None:
        """Let go of everything, and stop listening. From any thread, and more than once.

        Raises `DoorError` where a command does not return within 10 seconds.
        """
        loop = self._loop
        if loop is None:
            return
        loop.post(self._shut)
        if not loop.stop(CLOSE_SECONDS):
            raise DoorError(f"{self.title}: a command has not returned for {CLOSE_SECONDS:.0f} s")
        if loop.ended:
            self._loop = None

    def _shut(self) -> None:
        raise AssertionError("every door says what it lets go of")
