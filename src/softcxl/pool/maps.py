"""Files mapped into this process's memory, with no descriptor kept for as long as the map is there."""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import sys
from typing import Final

_SHARED: Final = mmap.MAP_SHARED | 0x10  # MAP_FIXED, which the module does not name
_READ_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE
_NORESERVE: Final = 0x4000


def mapped(fd: int, size: int, offset: int = 0) -> mmap.mmap:
    """`size` bytes of a file from `offset` on, a multiple of the page size, to read and write. Raises `OSError`, and
    `ValueError` for what cannot be."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, offset=offset, trackfd=False)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        # Such as a device's, whose maps begin at 2 MiB. Where a map fails in its driver, what was there before may be
        # gone, and other threads' memory in its place
        return mmap.mmap(fd, size, offset=offset)
    # Older ones keep a copy of the descriptor, which a client with many sources has not to spare. So the file takes
    # the place of memory that has none.
    place = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
    at = ctypes.addressof(ctypes.c_char.from_buffer(place))
    if _map(at, size, _READ_WRITE, _SHARED, fd, offset) == at:
        return place
    return mmap.mmap(fd, size, offset=offset)  # which says what is wrong


_map = ctypes.CDLL(None).mmap
_map.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_map.restype = ctypes.c_void_p
