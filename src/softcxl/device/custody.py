"""Custody: somebody uses a device's memory past its HDM decoders, by its file, as a pool does, and is told first of
what befalls it.

>>> from softcxl.device.type3 import Type3
>>> class Pool:
...     def lost(self, reason): print("lost:", reason)
...     def spoiled(self): print("spoiled")
...     def back(self, kept): print("back, kept:", kept)
...     def poisoned(self, ranges): print("poisoned:", ranges)
...     def cleared(self, ranges): print("cleared:", ranges)
>>> device = Type3("mem0", volatile=256 << 20)
>>> device.custody.give(Pool())
>>> device.inject.poison(0x1000), device.inject.link_down(), device.inject.link_up()
poisoned: [(4096, 64)]
lost: its link is down
back, kept: True
(1, None, None)
>>> device.close()
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from softcxl.spec.cxl.device import MediaStatus

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

_LINE: Final = 64
_ONES: Final = b"\xff" * _LINE
"""What whoever maps the file finds in a poisoned line."""

_MEDIA: Final = {MediaStatus.DISABLED: "its media are disabled", MediaStatus.ERROR: "its media have failed"}


class Custodian(Protocol):
    """Who is told, the device's lock held, before the bytes are bad. Ranges are device addresses and lengths in bytes,
    of static capacity, whole 64-byte lines of which only some may have been good."""

    def lost(self, reason: str) -> None:
        """The memory does not answer any more."""

    def spoiled(self) -> None:
        """What it held goes while it does not."""

    def back(self, kept: bool) -> None:
        """It does again; `kept`: with all that it held, poisoned lines aside."""

    def poisoned(self, ranges: Sequence[tuple[int, int]]) -> None:
        """What was in these lines is lost."""

    def cleared(self, ranges: Sequence[tuple[int, int]]) -> None:
        """These lines can be used again; what was in them is lost."""


class Custody:
    """Who has the memory of `device`, and whether it answers. Safe from any thread.

    With a custodian the file shows what a host would meet: poisoned lines are ones, and volatile memory of a dead
    device is zeros.
    """

    def __init__(self, device: Type3) -> None:
        self.lost: str | None = None
        """Why the memory does not answer; None while it does."""
        self._device = device
        self._custodian: Custodian | None = None
        self._kept, self._cut = True, False
        self.holder: str | None = None
        """Whose it is, for people: nobody else gets it."""

    def give(self, custodian: Custodian) -> None:
        """Tell `custodian` from now on, and nobody else; now of what is so already."""
        with self._device.lock:
            self._custodian = custodian
            if self.lost is not None:
                custodian.lost(self.lost)
                if not self._kept:
                    custodian.spoiled()
            else:
                self.look()
            if bad := self.bad(0, self._device.capacity.total):
                custodian.poisoned(bad)

    @property
    def given(self) -> bool:
        """Somebody has it."""
        return self._custodian is not None

    def bad(self, dpa: int, length: int) -> list[tuple[int, int]]:
        """The bad stretches of a range, listed or not, as (DPA, bytes), in order."""
        poison = self._device.poison
        with self._device.lock:
            found = sorted(
                run[:2] for which in (poison.map, poison.latent) for run in which.runs(dpa, length)
            )
        joined: list[tuple[int, int]] = []
        for start, size in found:
            if joined and sum(joined[-1]) == start:
                joined[-1] = joined[-1][0], joined[-1][1] + size
            else:
                joined.append((start, size))
        return joined

    # -- the device as a whole -----------------------------------------------------------------------------------

    def lose(self, reason: str) -> None:
        """The memory is about to answer no more: what was before is what counts, if it does not already."""
        with self._device.lock:
            if self.lost is None:
                self.lost, self._kept = reason, True
                if self._custodian is not None:
                    self._custodian.lost(reason)

    def spoil(self) -> None:
        """A device that is lost has no power, or might as well: what it would not find again goes now."""
        with self._device.lock:
            if self._custodian is not None and self.lost is not None:
                self._goes()
                self._device.clear_volatile()

    def _goes(self) -> None:
        """What it held is about to be lost, and it does not answer."""
        if self._kept and self._custodian is not None:
            self._custodian.spoiled()
        self._kept = False

    def link(self, *, up: bool) -> None:
        """The link above it is down, or up again."""
        with self._device.lock:
            self._cut = not up
            if up:
                self.look()
            else:
                self.lose("its link is down")

    def look(self) -> None:
        """What decides whether the memory answers may be otherwise now."""
        with self._device.lock:
            if reason := self._reason():
                self.lose(reason)
            elif self.lost is not None:
                self.lost = None
                if self._custodian is not None:
                    self._custodian.back(self._kept)

    def _reason(self) -> str | None:
        device = self._device
        if self._cut:
            return "its link is down"
        if device.silent:
            return "it does not answer"
        if device.viral:
            return "it is viral"
        return _MEDIA.get(MediaStatus(device.memory_status.media_status))

    # -- parts of it ---------------------------------------------------------------------------------------------

    def goes_bad(self, line: int) -> None:
        """The line at the DPA `line` is about to be poisoned. The function's lock is held."""
        if self._custodian is not None and line < self._device.capacity.total:
            self._custodian.poisoned([(line, _LINE)])
            self._device.medium.write(line, _ONES)

    def is_good(self, dpa: int, length: int) -> None:
        """Lines have no poison any more. The function's lock is held."""
        if self._custodian is not None and (good := self._own(dpa, length)):
            self._custodian.cleared([good])

    @contextmanager
    def altering(self, dpa: int, length: int) -> Iterator[None]:
        """The device itself puts other bytes in the place of what is there: it erases, or a command has it write."""
        if self._custodian is None:
            yield
            return
        with self._device.lock:
            own = self._own(dpa, length)
            if self.lost is not None:
                self._goes()
            if self.lost is not None or own is None:
                yield
                return
            self._custodian.poisoned([own])
            yield
            self._custodian.cleared([own])
            if bad := self.bad(*own):
                self._custodian.poisoned(bad)

    def _own(self, dpa: int, length: int) -> tuple[int, int] | None:
        """The whole lines of static capacity that a range touches."""
        start, end = dpa & -_LINE, min(dpa + length + _LINE - 1 & -_LINE, self._device.capacity.total)
        return (start, end - start) if start < end else None
