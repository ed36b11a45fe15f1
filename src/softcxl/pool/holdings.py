"""What a client has open, and what the server knows of it.

A region may be open several times here, and have several views; the server hears of each that begins, and of the last
one that ends alone. A server that comes after another's death is told once what there is: were each end told, one that
was told to both would take what is open yet for closed.
"""

from __future__ import annotations

import threading
from typing import Final

from softcxl.pool.protocol import Hold

OPENED: Final = 0
"""How often a region is open here."""
VIEWS: Final = 1
"""How many views of it there are."""
_OWN: Final = 2
_OPENED_TOLD: Final = 3
_VIEWS_TOLD: Final = 4
_TOLD: Final = 3
"""From a count to what the server takes it for."""


class Holdings:
    """A client's regions, each by the index and the generation of its record. From any thread."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int], list[int]] = {}
        """Open, views, whether it is this client's own, and open and views as the server has them."""
        self._lock = threading.Lock()

    def open(self, index: int, generation: int, own: bool) -> None:
        """It is open once more, and the server knows."""
        if own and (index, generation) not in self._counts:
            self._counts[index, generation] = [1, 0, True, 1, 0]  # nobody else knows of it yet
            return
        with self._lock:
            counts = self._counts.setdefault((index, generation), [0, 0, own, 0, 0])
            counts[OPENED] += 1
            counts[_OPENED_TOLD] += 1

    def view(self, index: int, generation: int) -> None:
        """There is one view more, and the server does not know yet."""
        with self._lock:
            self._counts.setdefault((index, generation), [0, 0, False, 0, 0])[VIEWS] += 1

    def view_told(self, index: int, generation: int) -> None:
        """The server knows of one view more."""
        with self._lock:
            self._counts[index, generation][_VIEWS_TOLD] += 1

    def less(self, index: int, generation: int, what: int) -> int:
        """One less: `OPENED` or `VIEWS`. Returns how often the server is to be told so: 0 before it is the last one."""
        with self._lock:
            counts = self._counts.get((index, generation))
            if counts is None or not counts[what]:
                return 0
            counts[what] -= 1
            if counts[what]:
                return 0
            told, counts[what + _TOLD] = counts[what + _TOLD], 0
            if not counts[OPENED] and not counts[VIEWS]:
                del self._counts[index, generation]
            return told

    def views(self, index: int, generation: int) -> int:
        """How many views there are of a region."""
        counts = self._counts.get((index, generation))
        return 0 if counts is None else counts[VIEWS]

    def told(self) -> list[Hold]:
        """What another server has to hear, which from now on counts as told. The last one says that that was all."""
        with self._lock:
            held = self._counts.copy()  # in one step: what is new comes without the lock
            said = []
            for (index, generation), counts in held.items():
                opened, views, own = counts[:_OPENED_TOLD]
                counts[_OPENED_TOLD:] = opened, views
                if not own or opened != 1 or views:  # otherwise it is as a server that starts takes it to be
                    said.append(Hold(index=index, generation=generation, opened=opened, pins=views))
        return [*said, Hold(index=0, generation=0, opened=0, pins=0)]

    def forked(self) -> None:
        """This is the child of a fork: a thread of its parent's may have the lock for ever."""
        self._lock = threading.Lock()
