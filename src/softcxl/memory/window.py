"""A window: a range of host physical addresses backed by one file in HPA order.

A guest or a program maps the file whole and reaches it at memory speed whatever the interleave. Which
device's bytes a place in the file holds is the window's residency map; `DpaSpace.commit` changes it.

Locks. Each window has one lock, each `DpaSpace` another. Whoever takes several takes windows before spaces,
and both in the order in which they were made. A space's own lock is enough to reach its bytes, because they
move only while it is held.
"""

from __future__ import annotations

import threading
from itertools import count
from typing import TYPE_CHECKING

from softcxl.memory import residency
from softcxl.memory.errors import AddressError, MapDamaged, MediumUnfit, ResidencyError
from softcxl.memory.interleave import ADDRESS_LIMIT
from softcxl.memory.residency import Resident

if TYPE_CHECKING:
    from softcxl.memory.dpa import DpaSpace
    from softcxl.memory.media import Medium

_serials = count()


class Window:
    """`size` bytes of host physical addresses from `base`, resting in `medium`.

    The medium has exactly that size and stays the caller's to close. With a named medium the residency map
    is kept in ``<file>.json``: bytes that rested here when the process ended, or was killed, are found again
    by the devices of the same names once they are attached. `shared` says that the medium is memory of several
    devices (`softcxl.memory.places.Shared`), which other windows have, too: no device's own bytes come to rest in it,
    and there is no map. Raises `MediumUnfit` for a medium of another
    size, `AddressError` for addresses past 2**52, `MapDamaged` for a page that cannot be used.
    """

    def __init__(self, base: int, size: int, medium: Medium, *, shared: bool = False) -> None:
        if medium.size != size:
            raise MediumUnfit(
                f"window at {base:#x}: {size:#x} bytes, its medium {medium.name} has {medium.size:#x}"
            )
        if base < 0 or base + size > ADDRESS_LIMIT:
            raise AddressError(f"window at {base:#x}: {size:#x} bytes do not end below 2**52")
        self.base = base
        self.size = size
        self.medium = medium
        self.shared = shared
        self.lock = threading.RLock()
        self.serial = next(_serials)
        self._page = residency.page_beside(medium.path) if medium.path and not shared else None
        self._residents = residency.load(self._page, size) if self._page else ()
        self._saved = self._residents
        self._spaces: dict[str, DpaSpace] = {}

    @property
    def residents(self) -> tuple[Resident, ...]:
        """Who rests here, in order of name and DPA: a snapshot."""
        return self._residents

    def offset(self, hpa: int, size: int = 1) -> int:
        """Where in the file `hpa` is. Raises `AddressError` unless `size` bytes from it are in the window."""
        if hpa < self.base or hpa + size > self.base + self.size:
            raise AddressError(
                f"{size:#x} bytes at HPA {hpa:#x} are not within the window"
                f" {self.base:#x} to {self.base + self.size - 1:#x}"
            )
        return hpa - self.base

    def space(self, device: str) -> DpaSpace | None:
        """The attached device of that name."""
        return self._spaces.get(device)

    def admit(self, space: DpaSpace) -> None:
        """Make an attached device of `space`; `DpaSpace.attach` calls this, holding both locks.

        Raises `ResidencyError` if another device has the name, `MapDamaged` if the residency map gives it
        bytes that it cannot have.
        """
        known = self._spaces.get(space.name)
        if known not in (None, space):
            raise ResidencyError(f"window at {self.base:#x}: two devices are named {space.name}")
        for one in self._residents:
            if one.device == space.name and one.end > space.capacity:
                raise MapDamaged(
                    f"{self._page}: DPA {one.end - 1:#x} of {space.name} rests here,"
                    f" and the device has only {space.capacity:#x} bytes"
                )
        self._spaces[space.name] = space

    def dismiss(self, space: DpaSpace) -> None:
        """Forget an attached device, and what rests here of it; `DpaSpace.abandon` calls this, holding both locks."""
        self.change(tuple(one for one in self._residents if one.device != space.name))
        del self._spaces[space.name]

    def change(self, residents: tuple[Resident, ...]) -> None:
        """Replace the residency map, on disk first. The callers of this have moved the bytes already."""
        kept = tuple(one for resident in residents for one in self._persistent_part(resident))
        if self._page and kept != self._saved:
            residency.save(self._page, kept)
            self._saved = kept
        self._residents = residents

    def _persistent_part(self, resident: Resident) -> tuple[Resident, ...]:
        """What of it must be found again: volatile bytes do not outlive their device."""
        space = self._spaces.get(resident.device)
        start = max(resident.start, space.persistent_from) if space else resident.start
        return (
            (Resident(resident.device, start, resident.end, resident.stripe),) if start < resident.end else ()
        )

    def __repr__(self) -> str:
        return f"<Window {self.base:#x} to {self.base + self.size - 1:#x} on {self.medium.name}>"
