"""Reading and writing the memory of a region.

Whole copies go at memory speed where the machine can map its windows (`softcxl.host.machine.Mapped`): a window's file
holds its bytes in host address order, so that whatever the interleave a region is one array. Where a line in the way
is poisoned, and on a machine that cannot map, accesses are routed through the decoders, one by one. A copy during which
anything came to lead elsewhere, a device pulled out by another thread for one, counts for nothing: it is made again.

What the machine raises says the address; here the offset, the region and the device are added to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from softcxl.host.errors import AccessError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from softcxl.host.machine import Machine
    from softcxl.host.memdev import Memdev

LINE = 64
"""Bytes of a cache line: what is poisoned, and what a store of all of it heals."""

_PIECE = 4096
"""Bytes of a routed access."""

_TRIES = 4
"""Copies that are made before an access is routed, where one change follows the other."""


class RegionAccess:
    """Access to a region's bytes by their offset in it. Every method raises `AccessError` for a range outside the
    region or a region that is not enabled, and whatever the machine raises on the way: for poison among it."""

    __slots__ = ()

    if TYPE_CHECKING:
        machine: Machine
        hpa: int
        size: int
        enabled: bool
        problem: str

        @property
        def name(self) -> str: ...

        def position_at(self, hpa: int) -> int | None: ...

        @property
        def memdevs(self) -> Sequence[Memdev | None]: ...

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """`size` bytes from `offset`; without `size` all to the end."""
        return self.read_into(np.empty(self._check(offset, size), np.uint8), offset).tobytes()

    def read_into(self, out: NDArray[np.uint8], offset: int = 0) -> NDArray[np.uint8]:
        """Fill `out`, an array of bytes, from `offset` on; returns it."""
        size = self._check(offset, out.size)
        hpa = self.hpa + offset
        for _ in range(_TRIES):
            seen = self._changes()
            for line in self._poisoned(hpa, size):
                self._load(line, LINE)  # raises, as a processor's load would
            mapped = self._mapped(hpa, size)
            if mapped is None:
                break
            np.copyto(out, mapped)
            if self._changes() == seen:
                return out
        for start in range(0, size, _PIECE):
            piece = min(_PIECE, size - start)
            out[start : start + piece] = np.frombuffer(self._load(hpa + start, piece), np.uint8)
        return out

    def write(self, offset: int, data: bytes | bytearray | memoryview | NDArray[np.uint8]) -> None:
        """Store `data` at `offset`. Lines that it covers whole are healed of poison; of others the poison stays."""
        array = (
            np.frombuffer(data, np.uint8)
            if not isinstance(data, np.ndarray)
            else data.view(np.uint8).reshape(-1)
        )
        size = self._check(offset, array.size)
        hpa = self.hpa + offset
        pieces = [(start, min(start + _PIECE, hpa + size)) for start in range(hpa, hpa + size, _PIECE)]
        for _ in range(_TRIES):
            seen = self._changes()
            poisoned = self._poisoned(hpa, size)
            mapped = self._mapped(hpa, size)
            if mapped is None:
                break
            np.copyto(mapped, array)
            if self._changes() == seen:
                pieces = [(max(line, hpa), min(line + LINE, hpa + size)) for line in poisoned]
                break
        for start, end in pieces:
            self._store(start, array[start - hpa : end - hpa].tobytes())

    def view(self, offset: int = 0, size: int | None = None) -> NDArray[np.uint8]:
        """The bytes as one array that shares memory with them: what is written to it is in the region at once.

        It is for as long as the region is; poison is looked for now, and not at each access. Raises `AccessError`
        on a machine that cannot map.
        """
        size = self._check(offset, size)
        hpa = self.hpa + offset
        for line in self._poisoned(hpa, size):
            self._load(line, LINE)
        mapped = self._mapped(hpa, size)
        if mapped is None:
            raise AccessError(
                f"{self.name}: {size:#x} bytes at offset {offset:#x} cannot be mapped; read and write can"
            )
        return mapped

    def load(self, offset: int, size: int) -> bytes:
        """A processor's load: `size` bytes, routed through every decoder."""
        self._check(offset, size)
        return self._load(self.hpa + offset, size)

    def store(self, offset: int, data: bytes) -> None:
        """A processor's store, routed through every decoder."""
        self._check(offset, len(data))
        self._store(self.hpa + offset, data)

    def _load(self, hpa: int, size: int) -> bytes:
        try:
            return self.machine.load(hpa, size)
        except Exception as error:
            self._name(error)
            raise

    def _store(self, hpa: int, data: bytes) -> None:
        try:
            self.machine.store(hpa, data)
        except Exception as error:
            self._name(error)
            raise

    def _name(self, error: Exception) -> None:
        """Add to what an error of the machine says where in the region it was, and whose bytes those are."""
        hpa = getattr(error, "hpa", None)
        if not isinstance(hpa, int) or not self.hpa <= hpa < self.hpa + self.size:
            return
        where = f"offset {hpa - self.hpa:#x} of {self.name}"
        position = self.position_at(hpa)
        memdev = None if position is None else self.memdevs[position]
        if memdev is not None:
            where += f", position {position}, {memdev.name} ({memdev.host})"
        error.args = (f"{error}; {where}",)

    def _changes(self) -> int:
        # Asked by name, as below; a machine that does not count its changes cannot be changed meanwhile.
        count: int = getattr(self.machine, "changes", 0)
        return count

    def _check(self, offset: int, size: int | None) -> int:
        if not self.enabled:
            raise AccessError(f"{self.name} is not enabled{': ' + self.problem if self.problem else ''}")
        if size is None:
            size = self.size - offset
        if offset < 0 or size < 0 or offset + size > self.size:
            raise AccessError(
                f"{self.name}: {size:#x} bytes at offset {offset:#x} are not within its {self.size:#x} bytes"
            )
        return size

    def _mapped(self, hpa: int, size: int) -> NDArray[np.uint8] | None:
        # Asked by name: a protocol's isinstance costs more than a short access.
        view = getattr(self.machine, "view", None)
        found: NDArray[np.uint8] | None = None if view is None or not size else view(hpa, size)
        return found

    def _poisoned(self, hpa: int, size: int) -> Sequence[int]:
        poisoned = getattr(self.machine, "poisoned", None)
        found: Sequence[int] = () if poisoned is None or not size else poisoned(hpa, size)
        return found
