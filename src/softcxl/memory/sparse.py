"""Files with holes: where their data is, how to make a hole, how to take room, how to copy one.

``fallocate(2)`` is reached through ctypes: Python has no call that punches holes.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from softcxl.memory.media import Medium

_KEEP_SIZE = 0x01  # linux/falloc.h
_PUNCH_HOLE = 0x02
_PORTION = 8 << 20
"""Bytes copied at a time: what a copy may hold up, and read ahead of a full disk."""


def data_ranges(fd: int, offset: int, size: int) -> Iterator[tuple[int, int]]:
    """The (start, end) ranges of data in ``offset .. offset + size``, in order; what lies between is zero.

    The file position of `fd` moves, which nobody who maps or uses pread sees.
    """
    limit = offset + size
    while offset < limit:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here to the end of the file
                return
            raise
        if start >= limit:
            return
        offset = min(os.lseek(fd, start, os.SEEK_HOLE), limit)
        yield start, offset


def punch(fd: int, offset: int, size: int) -> bool:
    """Make a range a hole, exact to the byte. False if the file system cannot, and then nothing changed."""
    return _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, size)


def allocate(fd: int, offset: int, size: int) -> None:
    """Take room for a range without writing to it, where the file system can. Raises `OSError` if full."""
    _fallocate(fd, _KEEP_SIZE, offset, size)


def copy_range(source: Medium, offset: int, target: Medium, target_offset: int, size: int) -> None:
    """Make `size` bytes of `target` equal to those of `source`; holes of the source become holes.

    The two are different media. Raises `MediumFull` with the target half written.
    """
    shift = target_offset - offset
    cleared = offset
    for start, end in source.data_ranges(offset, size):
        target.clear(cleared + shift, start - cleared)
        view = source.view()
        for portion in range(start, end, _PORTION):
            target.write(portion + shift, view[portion : min(portion + _PORTION, end)].data)
        cleared = end
    target.clear(cleared + shift, offset + size - cleared)


def _fallocate(fd: int, mode: int, offset: int, size: int) -> bool:
    while _libc().fallocate(fd, mode, offset, size):
        error = ctypes.get_errno()
        if error in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        if error != errno.EINTR:
            raise OSError(error, os.strerror(error))
    return True


@lru_cache(maxsize=1)
def _libc() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    library.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    library.fallocate.restype = ctypes.c_int
    return library
