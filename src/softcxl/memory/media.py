"""Media: the shared files in which bytes rest.

A medium is a file that this process, guests and other programs map. Without a name it is a memfd and goes
when its last user goes; with a name it survives. It is sparse: what was never written takes no room, reads
as zeros and is skipped by every copy.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from softcxl.memory import sparse
from softcxl.memory.errors import (
    AddressError,
    MediumClosed,
    MediumError,
    MediumFull,
    MediumInUse,
    MediumUnfit,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from numpy.typing import NDArray

    ByteArray = NDArray[np.uint8]  # for packages that pass views on and compute nothing

_LARGEST = (1 << 63) - 1
"""The last byte of a file has an offset of 63 bits."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM}


class Medium:
    """A shared file of a fixed size, mapped on demand.

    `name` is for messages, `path` is None for a medium that does not survive. Offsets and sizes are bytes;
    anything outside the medium raises `AddressError`. Reads and writes of one medium from several threads
    are safe in the sense in which memory is: there is no order between bytes.
    """

    def __init__(self, name: str, size: int, fd: int | None, path: Path | None, lock: int | None) -> None:
        self.name = name
        self.size = size
        self.path = path
        self._fd = fd  # None for a memfd that nobody has needed yet
        self._lock = lock
        self._mapping = threading.RLock()
        self._map: mmap.mmap | None = None
        self._array: NDArray[np.uint8] | None = None

    @classmethod
    def memfd(cls, name: str, size: int) -> Self:
        """Anonymous shared memory of `size` bytes. `name` shows in /proc and in messages only.

        The file is made when the first byte is stored, or somebody asks for it: what holds nothing has no file
        descriptor. Raises `MediumUnfit` for a size that no file can have.
        """
        if size <= 0:
            raise AddressError(f"medium {name}: a size of {size} bytes; it must be positive")
        if size > _LARGEST:
            raise MediumUnfit(f"medium {name}: no memfd of {size} bytes; {_LARGEST} are possible")
        return cls(name, size, None, None, None)

    @classmethod
    def open(cls, path: str | os.PathLike[str], size: int, reserve: bool = False) -> Self:
        """The medium in the file `path`, which is created (sparse, mode 0600) if it is not there.

        With `reserve` its room on disk is taken now, so that no later write can find the disk full.
        Raises `MediumUnfit` for a file of another size or kind, `MediumInUse` if it is a medium already, here
        or in another process, and `MediumFull` if there is no room to reserve.
        """
        path = Path(path)
        if size <= 0:
            raise AddressError(f"{path}: a size of {size} bytes; it must be positive")
        # The lock stands on a descriptor of its own, because the other is handed to guests, which may live
        # longer than this process, and a lock lives as long as any copy of its descriptor.
        lock = _open(path)
        try:
            _lock(path, lock)
            fd = _open(path)
        except BaseException:
            os.close(lock)
            raise
        try:
            _fit(path, fd, size)
            if reserve:
                _reserve(str(path), fd, 0, size)
        except BaseException:
            os.close(fd)
            os.close(lock)
            raise
        return cls(str(path), size, fd, path, lock)

    @property
    def persistent(self) -> bool:
        """Whether the bytes survive this process."""
        return self.path is not None

    @property
    def fd(self) -> int:
        """The file descriptor, to hand to those who map the medium; the medium keeps owning it.

        Raises `MediumClosed`, and `MediumUnfit` where a memfd is asked for first and cannot be made.
        """
        fd = self._fd
        if fd is None:
            with self._mapping:
                if self._fd is None:
                    self._fd = _memfd(self.name, self.size)
                fd = self._fd
        if fd < 0:
            raise MediumClosed(f"medium {self.name} was closed")
        return fd

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fd is not None and self._fd < 0

    def view(self) -> NDArray[np.uint8]:
        """All bytes as one array that shares memory with every user of the file.

        Views stay good after `close`; the mapping goes with the last of them. Reading a hole through a view
        of shared memory takes a page: for what may be sparse use `read` or `data_ranges`.
        """
        with self._mapping:
            if self._array is None:
                self._map = mmap.mmap(self.fd, self.size)
                self._array = np.frombuffer(self._map, np.uint8)
            return self._array

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`."""
        self._check(offset, size)
        if self._fd is None:
            return bytes(size)
        found = os.pread(self.fd, size, offset)
        while len(found) < size:
            part = os.pread(self.fd, size - len(found), offset + len(found))
            if not part:
                raise MediumUnfit(
                    f"medium {self.name} was cut short by another program: no byte at {offset + len(found):#x}"
                )
            found += part
        return found

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Store `data` at `offset`. Raises `MediumFull` when there is no room for it."""
        view = memoryview(data)
        self._check(offset, view.nbytes)
        if not view.nbytes:  # a view of nothing cannot be cast
            return
        rest = view.cast("B")
        while rest:
            try:
                done = os.pwrite(self.fd, rest, offset)
            except OSError as error:
                raise _explained(self.name, error) from error
            offset += done
            rest = rest[done:]

    def reserve(self, offset: int, size: int) -> None:
        """Take room for a range before it is written through a view, where a full disk would be a signal.

        Holes in it stay holes to `data_ranges`. Raises `MediumFull`.
        """
        self._check(offset, size)
        if self.persistent and size:
            _reserve(self.name, self.fd, offset, size)

    def clear(self, offset: int, size: int) -> None:
        """Make a range zeros and give its room back."""
        self._check(offset, size)
        if size and self._fd is not None and not sparse.punch(self.fd, offset, size):
            for start, end in self.data_ranges(offset, size):
                self.view()[start:end] = 0

    def data_ranges(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """The (start, end) ranges within the given one that may hold something other than zeros."""
        self._check(offset, size)
        return iter(()) if self._fd is None else sparse.data_ranges(self.fd, offset, size)

    def sync(self) -> None:
        """Bring what was written, through views too, to the disk. Nothing to do for a memfd."""
        if self.persistent:
            os.fdatasync(self.fd)

    def close(self) -> None:
        """Give the file up. Views that others still hold stay good. Closing twice is harmless."""
        if self.closed:
            return
        self._array = None
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:
                pass  # someone holds a view: the mapping goes when the last view goes
            self._map = None
        if self._fd is not None:
            os.close(self._fd)
        self._fd = -1
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Medium {self.name} of {self.size:#x} bytes{', closed' if self.closed else ''}>"

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise AddressError(
                f"medium {self.name}: {size:#x} bytes at {offset:#x} are not within its {self.size:#x} bytes"
            )


def _memfd(name: str, size: int) -> int:
    fd = -1
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise MediumUnfit(f"medium {name}: no memfd of {size} bytes: {error.strerror}") from error
    return fd


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MediumUnfit(f"{path}: cannot be opened as a medium: {error.strerror}") from error


def _lock(path: Path, fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MediumInUse(f"{path} is in use as a medium, here or by another process") from None


def _fit(path: Path, fd: int, size: int) -> None:
    """Give a new file its size, or check that of an old one."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise MediumUnfit(f"{path} is not a plain file")
    if found.st_size == size:
        return
    if found.st_size:
        raise MediumUnfit(f"{path} has {found.st_size} bytes, {size} were asked for; it was left as it is")
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        raise MediumUnfit(f"{path}: cannot be made {size} bytes long: {error.strerror}") from error


def _reserve(name: str, fd: int, offset: int, size: int) -> None:
    try:
        sparse.allocate(fd, offset, size)
    except OSError as error:
        raise _explained(name, error) from error


def _explained(name: str, error: OSError) -> MediumError:
    if error.errno in _FULL:
        return MediumFull(f"medium {name}: no room left to store its bytes: {error.strerror}")
    return MediumUnfit(f"medium {name}: cannot be written: {error.strerror}")
