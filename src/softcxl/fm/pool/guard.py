"""Looks whether the arena's header is still what the server has written: a kernel that takes the pool for memory of its
own, or a program with a stray pointer, writes there as everywhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from softcxl.fm.pool.directory import Directory
from softcxl.pool import layout

log = logging.getLogger(__name__)

_LIVE: Final = {"epoch", "beat", "health", "clean", "regions_used"}
"""What changes while a server serves."""

_MASK: Final = b"".join(
    (b"\0" if item.name in _LIVE else b"\xff") * (item.size or 0) for item in layout.Header.__layout__.fields
)


class Guard:
    """Of the header of `directory`, as it is now. `event` is told of damage, as that of `softcxl.fm.pool.server`."""

    def __init__(self, directory: Directory, event: Callable[[str, str, Mapping[str, Any]], None]) -> None:
        self._map, self._event = directory.map, event
        self._right = self._map[: len(_MASK)]

    def look(self) -> None:
        """Put the header right if it is not as it was, since clients that come need it, and say so: who has written
        there has written elsewhere, too."""
        found = self._map[: len(_MASK)]
        if not (_number(found) ^ _number(self._right)) & _number(_MASK):
            return
        wrong = [
            at
            for at, (one, other, mask) in enumerate(zip(found, self._right, _MASK, strict=True))
            if mask and one != other
        ]
        said = f"somebody has written over its header, {len(wrong)} bytes from byte {wrong[0]} on"
        log.error(
            "the pool's arena: %s. It is put right; what else is in the pool cannot be trusted. Has a guest put a CXL"
            " region of the pool online as memory of its own?",
            said,
        )
        for at in wrong:
            self._map[at] = self._right[at]
        self._event("damaged", "arena", {"what": said})


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
