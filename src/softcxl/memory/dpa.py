"""A device's memory by device physical address, wherever its bytes rest.

Every byte is in exactly one place: the device's own medium, its *home*, in DPA order; or, once a decoder was
committed over it, the file of a window in HPA order, where it stays when the decoder is released, so that
committing the same geometry again moves nothing. Memory that several devices share has a medium of its own, which is
its home for each of them, and never moves.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from softcxl.memory import moves
from softcxl.memory.errors import AddressError, ResidencyError, SharedStays
from softcxl.memory.places import Commitment, Part, Shared
from softcxl.memory.stripe import Stripe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from softcxl.memory.interleave import Interleave
    from softcxl.memory.media import Medium
    from softcxl.memory.residency import Resident
    from softcxl.memory.window import Window

_serials = count()

_PORTION = 1 << 20
"""Bytes of a fill pattern written at a time."""


def _unwatched(dpa: int, size: int) -> AbstractContextManager[None]:
    return nullcontext()


class DpaSpace:
    """`capacity` bytes by DPA, whose home is `medium`, for the device called `name`.

    The name is how residency maps know the device: give it the same one in every run. `windows` are those
    in which its bytes may rest from earlier runs; without them those bytes cannot be found. DPA from
    `persistent_from` on must survive the process; by default all of it if the medium does, else none. The
    medium is at least as large as the capacity and stays the caller's to close. With `shared` the addresses from its
    start on are others', too; the medium may end before them, and what is between is nobody's.

    DPA ranges outside the capacity raise `AddressError`. Methods may be called from any thread.
    """

    def __init__(
        self,
        medium: Medium,
        capacity: int,
        name: str | None = None,
        windows: tuple[Window, ...] = (),
        persistent_from: int | None = None,
        shared: Shared | None = None,
    ) -> None:
        if not 0 < capacity <= (medium.size if shared is None else shared.end):
            raise AddressError(
                f"{medium.name}: a capacity of {capacity:#x}; the medium has {medium.size:#x} bytes"
            )
        self.home, self.shared = medium, shared
        self.own_end = min(capacity, medium.size, capacity if shared is None else shared.start)
        """The first address that is not the device's alone."""
        self.capacity = capacity
        self.name = name or medium.name
        self.lock = threading.RLock()
        self.serial = next(_serials)
        self.altering: Callable[[int, int], AbstractContextManager[None]] = _unwatched
        """What is around each change of bytes (DPA, size) by `write`, `fill` and `clear`, before the lock."""
        self._windows: tuple[Window, ...] = ()
        self._commitments: tuple[Commitment, ...] = ()
        self._persistent_from = capacity
        if persistent_from is not None:
            self._persistent_from = self._checked_boundary(persistent_from)
        elif medium.persistent:
            self._persistent_from = 0
        for window in windows:
            self.attach(window)

    @property
    def windows(self) -> tuple[Window, ...]:
        """The windows in which bytes of this device may rest."""
        return self._windows

    @property
    def commitments(self) -> tuple[Commitment, ...]:
        """The committed decoders, in order of commit."""
        return self._commitments

    @property
    def persistent_from(self) -> int:
        """The first DPA that must survive the process. Setting it moves bytes that would not survive home."""
        return self._persistent_from

    @persistent_from.setter
    def persistent_from(self, dpa: int) -> None:
        dpa = self._checked_boundary(dpa)
        with moves.everything_held(self):
            for window in self._windows:
                if not window.medium.persistent:
                    lost = [one for one in self._residents(window) if one.end > dpa]
                    moves.send_home(window, [replace(one, start=max(one.start, dpa)) for one in lost])
            self._persistent_from = dpa
            for window in self._windows:
                window.change(window.residents)

    def attach(self, window: Window) -> None:
        """Make a window known, and with it the bytes of this device that rest there from an earlier run.

        Raises `ResidencyError` if the name is taken or bytes would rest in two windows, `MapDamaged` if the
        window's map gives the device bytes it does not have. `commit` attaches its window by itself.
        """
        with moves.everything_held(self, window):
            if window in self._windows:
                return
            for one in self._residents(window):
                for part in self.parts(one.start, min(one.end, self.capacity)):
                    if part.window is not None:
                        raise ResidencyError(
                            f"{self.name}: DPA {part.start:#x} rests in {window!r} and {part.window!r}"
                        )
            window.admit(self)
            self._windows = (*self._windows, window)

    def detach(self, window: Window) -> None:
        """Bring what rests in a window home and forget it: whoever has the window cannot reach bytes of this device any
        more. Raises `AddressError` while a decoder is committed there, `MediumFull` as `commit` does."""
        with moves.everything_held(self, window):
            if window not in self._windows:
                return
            if any(one.window is window for one in self._commitments):
                raise AddressError(f"{self.name}: a decoder is committed in {window!r}")
            moves.send_home(window, list(self._residents(window)))
            window.dismiss(self)
            self._windows = tuple(one for one in self._windows if one is not window)

    def parts(self, start: int, end: int) -> list[Part]:
        """Where DPA `start` to `end` rests, in order and without gaps."""
        found = sorted(
            (
                Part(max(start, one.start), min(end, one.end), window, one.stripe)
                for window in self._windows
                for one in self._residents(window)
                if one.start < end and start < one.end
            ),
            key=lambda part: part.start,
        )
        parts: list[Part] = []
        for part in found:
            if start < part.start:
                parts.append(Part(start, part.start, None, None))
            parts.append(part)
            start = part.end
        if start < self.own_end < end:
            parts.append(Part(start, self.own_end, None, None))
            start = self.own_end
        if start < end:
            parts.append(Part(start, end, None, None))
        return parts

    def home_of(self, dpa: int) -> tuple[Medium, int]:
        """The medium that is home to `dpa`, and the address of its first byte: the device's own, or the shared one."""
        if self.shared is not None and dpa >= self.shared.start:
            return self.shared.medium, self.shared.start
        return self.home, 0

    def read(self, dpa: int, size: int) -> bytes:
        """`size` bytes from `dpa`."""
        self._check(dpa, size)
        pieces = []
        with self.lock:
            for part in self.parts(dpa, dpa + size):
                if part.window is None or part.stripe is None:
                    medium, first = self.home_of(part.start)
                    pieces.append(medium.read(part.start - first, part.end - part.start))
                else:
                    out = np.empty(part.end - part.start, np.uint8)
                    part.stripe.read(part.window.medium, part.start, out)
                    pieces.append(out.tobytes())
        return b"".join(pieces)

    def write(self, dpa: int, data: bytes | bytearray | memoryview) -> None:
        """Store `data` from `dpa` on. Raises `MediumFull`, and then part of it may have been stored."""
        found = np.frombuffer(data, np.uint8)
        self._check(dpa, found.size)
        with self.altering(dpa, found.size):
            self._store(dpa, found)

    def fill(self, dpa: int, size: int, value: int = 0) -> None:
        """Store `size` bytes of `value`; zeros take no room."""
        if not value:
            self.clear(dpa, size)
            return
        self._check(dpa, size)
        pattern = np.full(min(_PORTION, size), value, np.uint8)
        with self.altering(dpa, size), self.lock:
            for start in range(dpa, dpa + size, _PORTION):
                self._store(start, pattern[: min(_PORTION, dpa + size - start)])

    def clear(self, dpa: int, size: int) -> None:
        """Make a range zeros wherever it rests, and give its room back where that takes few calls."""
        self._check(dpa, size)
        with self.altering(dpa, size), self.lock:
            for part in self.parts(dpa, dpa + size):
                if part.window is None or part.stripe is None:
                    medium, first = self.home_of(part.start)
                    medium.clear(part.start - first, part.end - part.start)
                else:
                    part.stripe.wipe(part.window.medium, part.start, part.end)

    def sync(self) -> None:
        """Bring everything persistent to the disk."""
        with self.lock:
            self.home.sync()
            if self.shared is not None:
                self.shared.medium.sync()
            for window in self._windows:
                window.medium.sync()

    def commit(
        self,
        window: Window,
        hpa: int,
        size: int,
        interleave: Interleave,
        position: int,
        dpa: int,
        skip: int = 0,
    ) -> int:
        """Commit a decoder: after this the device's share of the region rests in the window's file.

        The region is `size` bytes of HPA from `hpa`; the device's share is dealt to `position` of the
        interleave and starts at DPA ``dpa + skip`` (`dpa` is where the decoder before it ended, `skip` its
        DPA Skip, CXL 3.1 §8.2.4.20.9). Bytes of others that rest in the way go home first. XOR maps are taken
        to look at `hpa`. Returns the number of bytes that had to move, 0 if all rested there already.

        Raises `AddressError` for a region outside the window, of no whole number of rounds, or over HPA or
        DPA that another committed decoder of the device has; `GeometryError`, `ResidentAbsent`, `SharedStays`,
        `PersistenceLost`, `MediumFull` as they say. After any of them nothing is committed and no byte lost.
        """
        if interleave.xor_maps:
            interleave = replace(interleave, base=hpa)
        if size <= 0 or size % interleave.round:
            raise AddressError(f"a region of {size:#x} bytes; it must be a multiple of {interleave.round:#x}")
        origin = window.offset(hpa, size)
        wanted = Commitment(window, hpa, size, interleave, position, dpa + skip)
        self._check(wanted.dpa, wanted.dpa_end - wanted.dpa)
        stays = self._shown_in_place(wanted, origin)
        stripe = Stripe(origin, interleave, position, wanted.dpa)
        with moves.everything_held(self, window):
            for other in self._commitments:
                if other != wanted and wanted.meets(other):
                    raise AddressError(f"{self.name}: {wanted} overlaps {other}, which is committed")
            moved = 0
            if not stays:
                self.attach(window)
                moved = moves.settle(self, window, stripe, wanted.dpa, wanted.dpa_end)
            if wanted not in self._commitments:
                self._commitments = (*self._commitments, wanted)
        return moved

    def release(self, hpa: int | None = None) -> None:
        """Forget the decoder committed at `hpa`, or all of them; the bytes stay where they are.

        Raises `AddressError` if none is committed there.
        """
        with self.lock:
            staying = tuple(one for one in self._commitments if hpa is not None and one.hpa != hpa)
            if hpa is not None and len(staying) == len(self._commitments):
                raise AddressError(f"{self.name}: no decoder is committed at HPA {hpa:#x}")
            self._commitments = staying

    def go_home(self) -> None:
        """Have all bytes of the device's own rest in its medium: no window shows any of them, whoever still has it
        mapped. Raises `MediumFull`, and then every byte has its place, old or home."""
        with moves.everything_held(self):
            for window in self._windows:
                moves.send_home(window, list(self._residents(window)))

    def abandon(self) -> None:
        """Lose all bytes of its own, wherever they rest, and be unknown to every window, whose places are zeros then:
        the device is no more. Raises `MediumFull` where a window's map cannot be saved; what was abandoned by then
        is."""
        with moves.everything_held(self):
            self._commitments = ()
            for window in self._windows:
                leaving = list(self._residents(window))
                window.dismiss(self)
                for one in leaving:
                    one.stripe.wipe(window.medium, one.start, one.end)
                self._windows = tuple(one for one in self._windows if one is not window)
            self.home.clear(0, self.own_end)

    def dpa_to_hpa(self, dpa: int) -> int | None:
        """The HPA at which a committed decoder shows `dpa`, None if none does."""
        for one in self._commitments:
            if one.dpa <= dpa < one.dpa_end:
                return one.hpa + one.interleave.offset(one.position, dpa - one.dpa)
        return None

    def hpa_to_dpa(self, hpa: int) -> int | None:
        """The DPA that a committed decoder shows at `hpa`, None if that is no byte of this device."""
        for one in self._commitments:
            if one.hpa <= hpa < one.hpa + one.size:
                position, offset = one.interleave.locate(hpa - one.hpa)
                if position == one.position:
                    return one.dpa + offset
        return None

    def _store(self, dpa: int, data: NDArray[np.uint8]) -> None:
        self._check(dpa, data.size)
        with self.lock:
            for part in self.parts(dpa, dpa + data.size):
                piece = data[part.start - dpa : part.end - dpa]
                if part.window is None or part.stripe is None:
                    medium, first = self.home_of(part.start)
                    medium.write(part.start - first, piece.data)
                else:
                    part.stripe.write(part.window.medium, part.start, piece)

    def _shown_in_place(self, wanted: Commitment, origin: int) -> bool:
        """Whether a decoder is over shared memory, which its window shows without a move. Raises `SharedStays` where
        the window cannot, or shows shared memory that the decoder is not over."""
        shared, window = self.shared, wanted.window
        if shared is None or wanted.dpa_end <= shared.start:
            if window.shared:
                raise SharedStays(
                    f"{self.name}: {wanted} is not of the memory that {window!r} is, which several devices share"
                )
            return False
        if wanted.dpa < shared.start or not shared.shows(wanted, origin):
            raise SharedStays(
                f"{self.name}: {wanted} is memory that other devices have, too, and stays in {shared.medium!r}: only"
                " a window of that memory shows it, each byte at its place"
            )
        return True

    def _residents(self, window: Window) -> Iterator[Resident]:
        return (one for one in window.residents if one.device == self.name)

    def _check(self, dpa: int, size: int) -> None:
        if dpa < 0 or size < 0 or dpa + size > self.capacity:
            raise AddressError(
                f"{self.name}: {size:#x} bytes at DPA {dpa:#x} are not within its {self.capacity:#x} bytes"
            )
        shared = self.shared
        if shared is not None and self.own_end < min(dpa + size, shared.start) and dpa < shared.start:
            raise AddressError(
                f"{self.name}: {size:#x} bytes at DPA {dpa:#x}; it has none from {self.own_end:#x} to"
                f" {shared.start - 1:#x}"
            )

    def _checked_boundary(self, dpa: int) -> int:
        if not 0 <= dpa <= self.capacity:
            raise AddressError(
                f"{self.name}: persistent from DPA {dpa:#x}; the capacity is {self.capacity:#x}"
            )
        return dpa
