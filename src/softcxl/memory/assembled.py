"""A medium that is put together from pieces of others' files.

It has no file of its own: a guest maps each piece at its place, and what lies between pieces is nobody's.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from softcxl.memory.errors import MediumUnfit
from softcxl.memory.media import Medium

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PAGE: Final = 4096
_SHARED_FIXED: Final = mmap.MAP_SHARED | 0x10
_NORESERVE: Final = 0x4000


@dataclass(frozen=True, slots=True)
class Piece:
    """`size` bytes of the file `fd` from its byte `start` on, which are the medium's from `offset` on."""

    offset: int
    size: int
    fd: int
    start: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.size


class Assembled(Medium):
    """`size` bytes, of which `pieces` are there; between them zeros are read, and what is written is lost.

    The bytes are those of whoever owns the files: `clear` raises `MediumUnfit`.
    """

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name, size, None, None, None)
        self.pieces: tuple[Piece, ...] = ()

    def assemble(self, pieces: Sequence[Piece]) -> None:
        """Have these be its pieces, whose files stay the caller's. Raises `MediumUnfit` for one that does not fit: that
        overlaps another, ends behind the medium, or is of no whole pages."""
        found = sorted(pieces, key=lambda one: one.offset)
        end = 0
        for one in found:
            if one.offset < end or one.end > self.size:
                raise MediumUnfit(
                    f"medium {self.name}: a piece of {one.size:#x} bytes at {one.offset:#x}; "
                    f"there is room from {end:#x} to {self.size:#x}"
                )
            if one.size <= 0 or (one.offset | one.size | one.start) % _PAGE:
                raise MediumUnfit(
                    f"medium {self.name}: a piece of {one.size:#x} bytes at {one.offset:#x}, {one.start:#x} of its "
                    f"file; all are multiples of {_PAGE}"
                )
            end = one.end
        with self._mapping:
            self.pieces = tuple(found)
            self._array = None

    @property
    def fd(self) -> int:
        """Raises `MediumUnfit`: there is not one."""
        raise MediumUnfit(
            f"medium {self.name} is put together from {len(self.pieces)} files, and none itself"
        )

    def view(self) -> NDArray[np.uint8]:
        """All bytes as one array: the pieces share memory with every user of their files. It stays what it was when
        other pieces are assembled."""
        with self._mapping:
            if self._array is None:
                place = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
                array = np.frombuffer(place, np.uint8)
                for one in self.pieces:
                    at = array.ctypes.data + one.offset
                    if (
                        _map(at, one.size, mmap.PROT_READ | mmap.PROT_WRITE, _SHARED_FIXED, one.fd, one.start)
                        != at
                    ):
                        error = os.strerror(ctypes.get_errno())
                        raise MediumUnfit(
                            f"medium {self.name}: what is at {one.offset:#x} cannot be mapped: {error}"
                        )
                self._array = array
            return self._array

    def read(self, offset: int, size: int) -> bytes:
        self._check(offset, size)
        found, at = [], offset
        for one, start, end in self._met(offset, size):
            data = os.pread(one.fd, end - start, one.start + start - one.offset)
            found += [bytes(start - at), data, bytes(end - start - len(data))]
            at = end
        return b"".join([*found, bytes(offset + size - at)])

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        self._check(offset, view.nbytes)
        rest = view.cast("B") if view.nbytes else view
        for one, start, end in self._met(offset, view.nbytes):
            try:
                os.pwrite(one.fd, rest[start - offset : end - offset], one.start + start - one.offset)
            except OSError as error:
                raise MediumUnfit(f"medium {self.name}: cannot be written: {error.strerror}") from error

    def clear(self, offset: int, size: int) -> None:
        raise MediumUnfit(f"medium {self.name}: its bytes are others', and not to be cleared by it")

    def data_ranges(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        self._check(offset, size)
        return iter([(start, end) for _, start, end in self._met(offset, size)])

    def close(self) -> None:
        with self._mapping:
            self.pieces, self._array = (), None

    def _met(self, offset: int, size: int) -> Iterator[tuple[Piece, int, int]]:
        """The pieces within a range, and from where to where."""
        for one in self.pieces:
            start, end = max(offset, one.offset), min(offset + size, one.end)
            if start < end:
                yield one, start, end


_map = ctypes.CDLL(None, use_errno=True).mmap
_map.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_map.restype = ctypes.c_void_p
