"""Moving bytes between a device's home and a window, so that they can be lost at no instant.

The residency maps on disk say where every byte is; what no map names rests at home. A move therefore copies
first, brings the copy to the disk, publishes the new map, and only then touches the place the bytes left:

1. everything in the way, and the moving bytes if they rest in some window, is copied home and synced;
2. the maps without them are published: home is now where they are;
3. the places they left are wiped, the moving bytes copied from home into the window and synced;
4. the map with them is published, and home is cleared.

Killed between any two steps, the process leaves a map that names a complete copy. Going through home even
from one place of a window to another costs a second copy in a rare case, and makes overlap harmless.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from softcxl.memory import residency
from softcxl.memory.errors import PersistenceLost, ResidentAbsent
from softcxl.memory.residency import Resident

if TYPE_CHECKING:
    from collections.abc import Iterator

    from softcxl.memory.dpa import DpaSpace
    from softcxl.memory.stripe import Stripe
    from softcxl.memory.window import Window

_PORTION = 8 << 20
"""Bytes gathered at a time: bounds the memory a move takes."""


@contextmanager
def everything_held(space: DpaSpace, window: Window | None = None) -> Iterator[None]:
    """Hold every lock that a move of bytes of `space` may need, taken in the order that avoids deadlock."""
    while True:
        with space.lock:
            windows = {*space.windows, *([window] if window else [])}
        with ExitStack() as locks:
            for one in sorted(windows, key=lambda one: one.serial):
                locks.enter_context(one.lock)
            # Residents of a locked window cannot change, so their spaces are known before they are locked.
            spaces = {space}
            for one in windows:
                spaces.update(filter(None, (one.space(resident.device) for resident in one.residents)))
            for other in sorted(spaces, key=lambda other: other.serial):
                locks.enter_context(other.lock)
            if windows.issuperset(space.windows):
                yield
                return


def settle(space: DpaSpace, window: Window, stripe: Stripe, start: int, end: int) -> int:
    """Make DPA `start` to `end` of `space` rest in `window` as `stripe` says; locks are held.

    Returns the number of bytes whose place changed. Raises `ResidentAbsent`, `PersistenceLost` before
    anything is touched; after `MediumFull` every byte still has its place, old or home.
    """
    moving = [part for part in space.parts(start, end) if (part.window, part.stripe) != (window, stripe)]
    if not moving:
        return 0
    if not window.medium.persistent and end > space.persistent_from:
        raise PersistenceLost(
            f"{space.name}: DPA {max(start, space.persistent_from):#x} to {end - 1:#x} is persistent"
            f" and cannot rest in {window!r}, which does not survive; give the window a named file"
        )
    leaving: dict[Window, list[Resident]] = {window: []}
    for part in moving:
        if part.window is not None and part.stripe is not None:
            leaving.setdefault(part.window, []).append(
                Resident(space.name, part.start, part.end, part.stripe)
            )
        low, high = stripe.span(part.start, part.end)
        for other in window.residents:
            if other.stripe.beside(stripe) or (other.device == space.name and other.stripe == stripe):
                continue
            first, last = other.stripe.within(low, high, other.start, other.end)
            if first < last:
                leaving[window].append(Resident(other.device, first, last, other.stripe))
    for place, residents in leaving.items():
        send_home(place, residents)
    for part in moving:
        _copy_in(space, window, stripe, part.start, part.end)
    window.medium.sync()
    arrived = tuple(Resident(space.name, part.start, part.end, stripe) for part in moving)
    window.change(residency.joined((*window.residents, *arrived)))
    for part in moving:
        space.home.clear(part.start, part.end - part.start)
    return sum(part.end - part.start for part in moving)


def send_home(window: Window, leaving: list[Resident]) -> None:
    """Take residents out of a window into their devices' own media; locks are held.

    Ranges may be named twice. Raises `ResidentAbsent` before anything is touched if one of the devices is not
    attached.
    """
    for one in leaving:
        if window.space(one.device) is None:
            raise ResidentAbsent(
                f"{window!r}: DPA {one.start:#x} to {one.end - 1:#x} of {one.device} rests there,"
                " and that device is not part of this run; start it too, or delete the window's file"
                " to lose the bytes"
            )
    for one in leaving:
        space = window.space(one.device)
        if space is not None:
            _copy_home(space, window, one)
    for space in {window.space(one.device) for one in leaving}:
        if space is not None:
            space.home.sync()
    if leaving:
        window.change(residency.without(window.residents, leaving))
    for one in leaving:
        one.stripe.wipe(window.medium, one.start, one.end)


def _copy_home(space: DpaSpace, window: Window, leaving: Resident) -> None:
    cleared = leaving.start
    for start, end in leaving.stripe.data_ranges(window.medium, leaving.start, leaving.end):
        space.home.clear(cleared, start - cleared)
        for first in range(start, end, _PORTION):
            portion = np.empty(min(_PORTION, end - first), np.uint8)
            leaving.stripe.read(window.medium, first, portion)
            space.home.write(first, portion.data)
        cleared = end
    space.home.clear(cleared, leaving.end - cleared)


def _copy_in(space: DpaSpace, window: Window, stripe: Stripe, start: int, end: int) -> None:
    cleared = start
    for first, last in space.home.data_ranges(start, end - start):
        stripe.wipe(window.medium, cleared, first)
        for low in range(first, last, _PORTION):
            high = min(low + _PORTION, last)
            stripe.write(window.medium, low, space.home.view()[low:high])
        cleared = last
    stripe.wipe(window.medium, cleared, end)
