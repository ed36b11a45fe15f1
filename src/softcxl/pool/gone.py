"""What stands where something of the C core was, so that the memory which that had can go."""

from __future__ import annotations

from typing import Any, NoReturn

from softcxl.pool.errors import PoolError


class Gone:
    """Whatever is asked of it raises that error."""

    left = True
    """As of an end of a ring, or of a queue, that was left."""

    def __init__(self, why: PoolError) -> None:
        self._why = type(why), str(why)

    def why(self) -> PoolError:
        """The error, new each time: one that is raised keeps its traceback."""
        kind, text = self._why
        return kind(text)

    def __getattr__(self, name: str) -> NoReturn:
        raise self.why()

    def __call__(self, *_: Any) -> NoReturn:
        raise self.why()
