"""Where a range of a device's bytes rests just now, for accesses of a few bytes."""

from __future__ import annotations

from softcxl.memory.dpa import DpaSpace
from softcxl.memory.media import Medium
from softcxl.memory.residency import Resident
from softcxl.memory.stripe import Stripe
from softcxl.memory.window import Window


class Rest:
    """DPA `start` to `end` of `space`, looked up once and again whenever bytes have moved.

    An access lies within 256 bytes that begin at a multiple of 256: no interleave divides it.
    """

    __slots__ = ("_end", "_first", "_medium", "_seen", "_space", "_start", "_stripe", "_windows")

    def __init__(self, space: DpaSpace, start: int, end: int) -> None:
        self._space, self._start, self._end = space, start, end
        self._windows: tuple[Window, ...] | None = None
        self._seen: tuple[tuple[Window, tuple[Resident, ...]], ...] = ()
        self._medium: Medium | None = None
        self._first = 0  # the address of the medium's first byte, where it is home
        self._stripe: Stripe | None = None

    def _look(self) -> None:
        """Find the bytes again if they may have moved: residency maps are replaced, never changed."""
        space = self._space
        if self._windows is space.windows:
            for one, seen in self._seen:
                if one.residents is not seen:
                    break
            else:
                return
        self._windows = space.windows
        self._seen = tuple((one, one.residents) for one in space.windows)
        parts = space.parts(self._start, self._end)
        self._medium = self._stripe = None
        if len(parts) == 1:
            part = parts[0]
            self._stripe = part.stripe
            if part.window is None:
                self._medium, self._first = space.home_of(part.start)
            else:
                self._medium = part.window.medium

    def read(self, dpa: int, size: int) -> bytes:
        with self._space.lock:
            self._look()
            medium, stripe = self._medium, self._stripe
            if medium is None:
                return self._space.read(dpa, size)
            return medium.read(dpa - self._first if stripe is None else stripe.offset(dpa), size)

    def write(self, dpa: int, data: bytes) -> None:
        with self._space.lock:
            self._look()
            medium, stripe = self._medium, self._stripe
            if medium is None:
                self._space.write(dpa, data)
            else:
                medium.write(dpa - self._first if stripe is None else stripe.offset(dpa), data)
