"""How long work says where it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called from whichever thread does the work, as often as there is something to say."""

    def __call__(self, step: str, fraction: float | None = None, /) -> None:
        """`step` is a short phrase ("fetching packages"); `fraction` is 0.0 to 1.0, None if unknown."""


def silent(step: str, fraction: float | None = None, /) -> None:
    """The progress listener that does not listen."""
