"""Guest memory that a client shares: which addresses there are, and the files behind them.

A file is used directly where that is safe. Mapping it is fastest, but a client that shrinks a mapped file
kills whoever touches the lost pages, so only a file that is sealed against shrinking (QEMU's
`memory-backend-memfd` is) is mapped, at its first use. Other regular files are read and written by `pread`
and `pwrite`, which fail politely. Whatever cannot be reached so (no descriptor, a device, a file too short)
takes messages.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from bisect import bisect_right
from threading import Lock

from softcxl.spec import vfio_user as spec
from softcxl.transport.vfio_user.errors import Refused

_PAGE = spec.DEFAULT_PGSIZES
_TOP = 1 << 64


class Mapping:
    """One range of guest memory, `address` to `end` (DMA addresses). Owns its descriptor."""

    __slots__ = ("_fd", "_offset", "_sealed", "_view", "address", "end", "readable", "writeable")

    def __init__(self, request: spec.DmaMap, fd: int | None) -> None:
        self.address = request.address
        self.end = request.address + request.size
        self.readable = request.flags.readable
        self.writeable = request.flags.writeable
        self._offset = request.offset
        self._view: mmap.mmap | None = None
        self._sealed = False
        self._fd = -1
        if fd is None:
            return
        if stat.S_ISREG(os.fstat(fd).st_mode) and not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
            self._fd = fd
            try:
                self._sealed = bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
            except OSError:
                pass  # no memfd
        else:
            os.close(fd)

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes at `address`, or None where the file does not give them."""
        start = address - self.address
        view = self._view
        if view is None and self._sealed:
            view = self._map()
        if view is not None:
            return view[start : start + size]
        if self._fd < 0:
            return None
        try:
            data = os.pread(self._fd, size, self._offset + start)
        except OSError:
            return None
        return data if len(data) == size else None

    def write(self, address: int, data: bytes) -> bool:
        """Store `data` at `address`; False where the file does not take it."""
        start = address - self.address
        view = self._view
        if view is None and self._sealed:
            view = self._map()
        if view is not None:
            view[start : start + len(data)] = data
            return True
        if self._fd < 0:
            return False
        try:
            # A write past the end of a file would make it longer instead of failing.
            if os.fstat(self._fd).st_size < self._offset + start + len(data):
                return False
            return os.pwrite(self._fd, data, self._offset + start) == len(data)
        except OSError:
            return False

    def _map(self) -> mmap.mmap | None:
        allowed = mmap.PROT_READ | (mmap.PROT_WRITE if self.writeable else 0)
        try:
            self._view = mmap.mmap(self._fd, self.end - self.address, prot=allowed, offset=self._offset)
        except (OSError, ValueError, OverflowError):
            self._sealed = False  # too short, or not opened for writing: the slower ways may still do
        return self._view

    def close(self) -> None:
        """Let go of the memory and its file."""
        if self._view is not None:
            self._view.close()
            self._view = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._sealed = False


class DmaTable:
    """All memory that a client has mapped, in address order. For any thread.

    An access holds the table's lock, so that an unmap is answered only when nobody uses the memory any more.
    """

    def __init__(self) -> None:
        self.limit = spec.DEFAULT_DMA_MAPS
        self._lock = Lock()
        self._starts: list[int] = []
        self._mappings: list[Mapping] = []

    def __len__(self) -> int:
        return len(self._mappings)

    def map(self, request: spec.DmaMap, fds: list[int]) -> None:
        """Add a range; takes the descriptor out of `fds`. Raises `Refused`."""
        where = f"{request.address:#x}+{request.size:#x}"
        if request.argsz < spec.DmaMap.__layout__.size:
            raise Refused(errno.EINVAL, f"argsz {request.argsz} is less than the structure")
        if int(request.flags) >> 2:
            raise Refused(errno.EINVAL, f"unknown flags {int(request.flags):#x}")
        if not request.size or request.size % _PAGE or request.address % _PAGE:
            raise Refused(errno.EINVAL, f"{where} is no whole number of pages")
        end = request.address + request.size
        if end > _TOP:
            raise Refused(errno.EINVAL, f"{where} passes the end of the address space")
        if len(fds) > 1:
            raise Refused(errno.EINVAL, f"{len(fds)} descriptors for one range")
        if fds and (request.offset % _PAGE or request.offset + request.size >= 1 << 63):
            raise Refused(errno.EINVAL, f"file offset {request.offset:#x} is odd or too large")
        with self._lock:
            index = bisect_right(self._starts, request.address)
            before = self._mappings[index - 1] if index else None
            if (before and before.end > request.address) or (
                index < len(self._starts) and self._starts[index] < end
            ):
                raise Refused(errno.EEXIST, f"{where} lies over an earlier range")
            if len(self._mappings) >= self.limit:
                raise Refused(errno.ENOSPC, f"more than {self.limit} ranges")
            self._mappings.insert(index, Mapping(request, fds.pop() if fds else None))
            self._starts.insert(index, request.address)

    def unmap(self, request: spec.DmaUnmap) -> None:
        """Remove exactly one range, or all of them. Raises `Refused`."""
        where = f"{request.address:#x}+{request.size:#x}"
        if request.argsz < spec.DmaUnmap.__layout__.size:
            raise Refused(errno.EINVAL, f"argsz {request.argsz} is less than the reply")
        if request.flags.get_dirty_bitmap:
            raise Refused(errno.ENOTSUP, "pages are not tracked")
        if int(request.flags) >> 2:
            raise Refused(errno.EINVAL, f"unknown flags {int(request.flags):#x}")
        if request.flags.all:
            if request.address or request.size:
                raise Refused(errno.EINVAL, f"unmap all, but {where}")
            self.clear()
            return
        with self._lock:
            index = bisect_right(self._starts, request.address) - 1
            if (
                index < 0
                or self._starts[index] != request.address
                or self._mappings[index].end != request.address + request.size
            ):
                raise Refused(errno.ENOENT, f"{where} is not a range mapped before")
            self._mappings.pop(index).close()
            del self._starts[index]

    def read(self, address: int, size: int) -> bytes | None:
        """Guest memory, or None where it takes messages. Raises `OSError` where it is not mapped or not
        readable."""
        with self._lock:
            parts = []
            for mapping, start, end in self._pieces(address, size):
                if not mapping.readable:
                    raise OSError(errno.EACCES, f"guest memory at {start:#x} is not readable")
                data = mapping.read(start, end - start)
                if data is None:
                    return None
                parts.append(data)
            return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, address: int, data: bytes) -> bool:
        """Store in guest memory; False where it takes messages. Raises `OSError` as `read` does."""
        with self._lock:
            pieces = self._pieces(address, len(data))
            for mapping, start, _ in pieces:
                if not mapping.writeable:
                    raise OSError(errno.EACCES, f"guest memory at {start:#x} is not writeable")
            return all(
                mapping.write(start, data[start - address : end - address]) for mapping, start, end in pieces
            )

    def _pieces(self, address: int, size: int) -> list[tuple[Mapping, int, int]]:
        found = []
        at, end = address, address + size
        index = bisect_right(self._starts, address) - 1
        while at < end:
            mapping = self._mappings[index] if 0 <= index < len(self._mappings) else None
            if mapping is None or not mapping.address <= at < mapping.end:
                raise OSError(errno.EFAULT, f"guest memory at {at:#x} is not mapped")
            found.append((mapping, at, min(end, mapping.end)))
            at = mapping.end
            index += 1
        return found

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            for mapping in self._mappings:
                mapping.close()
            self._mappings.clear()
            self._starts.clear()
