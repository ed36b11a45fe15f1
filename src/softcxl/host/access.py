"""Reading and writing the memory of a region.

Whole copies go at memory speed where the machine can map its windows (`softcxl.host.machine.Mapped`): a window's file
holds its bytes in host address order, so that whatever the interleave a region is one array. Where a line in the way
is poisoned, and on a machine that cannot map, accesses are routed through the decoders, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from softcxl.host.errors import AccessError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from softcxl.host.machine import Machine

LINE = 64
"""Bytes of a cache line: what is poisoned, and what a store of all of it heals."""

_PIECE = 4096
"""Bytes of a routed access."""


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

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """`size` bytes from `offset`; without `size` all to the end."""
        return self.read_into(np.empty(self._check(offset, size), np.uint8), offset).tobytes()

    def read_into(self, out: NDArray[np.uint8], offset: int = 0) -> NDArray[np.uint8]:
        """Fill `out`, an array of bytes, from `offset` on; returns it."""
        size = self._check(offset, out.size)
        hpa = self.hpa + offset
        for line in self._poisoned(hpa, size):
            self.machine.load(line, LINE)  # raises, as a processor's load would
        mapped = self._mapped(hpa, size)
        if mapped is not None:
            np.copyto(out, mapped)
            return out
        for start in range(0, size, _PIECE):
            piece = min(_PIECE, size - start)
            out[start : start + piece] = np.frombuffer(self.machine.load(hpa + start, piece), np.uint8)
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
        poisoned = self._poisoned(hpa, size)
        mapped = self._mapped(hpa, size)
        if mapped is not None:
            np.copyto(mapped, array)
            pieces = [(max(line, hpa), min(line + LINE, hpa + size)) for line in poisoned]
        else:
            pieces = [(start, min(start + _PIECE, hpa + size)) for start in range(hpa, hpa + size, _PIECE)]
        for start, end in pieces:
            self.machine.store(start, array[start - hpa : end - hpa].tobytes())

    def view(self, offset: int = 0, size: int | None = None) -> NDArray[np.uint8]:
        """The bytes as one array that shares memory with them: what is written to it is in the region at once.

        It is for as long as the region is; poison is looked for now, and not at each access. Raises `AccessError`
        on a machine that cannot map.
        """
        size = self._check(offset, size)
        hpa = self.hpa + offset
        for line in self._poisoned(hpa, size):
            self.machine.load(line, LINE)
        mapped = self._mapped(hpa, size)
        if mapped is None:
            raise AccessError(
                f"{self.name}: {size:#x} bytes at offset {offset:#x} cannot be mapped; read and write can"
            )
        return mapped

    def load(self, offset: int, size: int) -> bytes:
        """A processor's load: `size` bytes, routed through every decoder."""
        self._check(offset, size)
        return self.machine.load(self.hpa + offset, size)

    def store(self, offset: int, data: bytes) -> None:
        """A processor's store, routed through every decoder."""
        self._check(offset, len(data))
        self.machine.store(self.hpa + offset, data)

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
