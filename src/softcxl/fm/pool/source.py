"""Sources: memory that is handed to the pool, as files; and what is told of its health.

Whoever has the memory (a fabric, for its devices) makes a `Source` of it. The pool maps the file, and hears what
befalls the memory as a `SourceObserver`: first it is told, and only when it has returned do the bytes go bad. What it
has marked by then no reader takes for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Ranges = Sequence[tuple[int, int]]
"""Parts of a source: offset and length of each, in bytes."""


class SourceObserver(Protocol):
    """Who is told what befalls a source.

    It is told by the thread in which it happens, with locks of the device held. So it marks what it is told, passes the
    rest of the work on to another thread, and waits for nobody who calls the source.
    """

    def failed(self, reason: str) -> None:
        """The memory does not answer, from the moment that this has returned: `reason` is a sentence's end for people,
        such as ``its link is down``. Once until it has `returned`."""

    def spoiled(self) -> None:
        """What it held is lost, from the moment that this has returned: it has failed, and will not have `kept` that.
        Whoever is told remembers it, as the server that hears of its return may be another one."""

    def returned(self, kept: bool) -> None:
        """It answers again. `kept`: all that it held is there yet, poisoned lines aside, as after a link was down; else
        nothing in it is relied upon."""

    def poisoned(self, ranges: Ranges) -> None:
        """What these 64-byte lines held is lost, from the moment that this has returned, and until the pool has them
        cleared: also where they are only erased, or somebody else takes them for good."""


class Source(Protocol):
    """Memory that the pool allocates from: `size` bytes of the file `fd`, from `offset` on."""

    @property
    def name(self) -> str:
        """What people and the directory call it, 47 bytes of UTF-8 at most: ``mem0``, ``shared.2``."""

    @property
    def device(self) -> str:
        """The device that it is a part of. What has the same device fails with it."""

    @property
    def switch(self) -> str | None:
        """The switch that the device is plugged into; None where it is not behind one."""

    @property
    def size(self) -> int:
        """How many bytes there are, a multiple of 4096."""

    @property
    def fd(self) -> int:
        """The file that holds them, for mapping. It stays whose it is."""

    @property
    def offset(self) -> int:
        """Where in the file they begin, a multiple of 4096."""

    def watch(self, observer: SourceObserver) -> None:
        """Tell `observer` of what happens from now on; before this returns also of what is so already: that it has
        failed, and which lines are poisoned. One observer at a time: another takes its place."""

    def poisoned(self, offset: int, size: int) -> list[tuple[int, int]]:
        """The lines of a range (bytes) whose data are lost, as (offset, length), in order, whoever else takes them for
        good. Raises `ValueError` for a range outside the source."""

    def clear_poison(self, offset: int, length: int) -> None:
        """Make the 64-byte lines of a range good again, and zeros: what is worn out goes bad again at once, and the
        observer is told. Raises `ValueError` for a range outside the source."""
