"""What a server answers, and what keeps it from starting."""

from __future__ import annotations

from softcxl.fm.errors import FmError
from softcxl.pool.protocol import Status


class ArenaUnfit(FmError):
    """The arena's file is none, or of another layout."""


class Refusal(Exception):
    """What a request is answered with instead: a status, and a sentence for who asked."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
