"""A PCI function in user space: its registers mapped, its interrupts waited for by UIO. For programs in a guest.

Linux shows BARs as files of sysfs. Its driver uio_pci_generic has a file, /dev/uioN, that counts interrupts: it masks
the function's INTx when one comes (Interrupt Disable in the Command register), and who waits unmasks it.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from softcxl.pool.errors import NoServer
from softcxl.spec.pool_access import REGISTERS_SIZE

_DRIVER: Final = "uio_pci_generic"
_COMMAND: Final = 0x04
_MEMORY: Final = 1 << 1
_DISABLE: Final = 1 << 2
"""Interrupt Disable, in the Command register's upper byte."""
_WORD: Final = 8
_NAP: Final = 0.0005
"""Seconds between two looks at a lock that another program has."""

_Q35: Final = ("0x8086", "0x2918", "0x1af4")
"""Vendor, device and subsystem vendor of the ISA bridge of QEMU's machine q35, which routes INTx."""
_ROUTES: Final = range(0x68, 0x6C)
_LAST_ISA: Final = 15


class Function:
    """One function of a PCI slot at `path` of sysfs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def word(self, name: str) -> str:
        """An attribute's text. Raises `OSError`."""
        return (self.path / name).read_text().strip()

    def enable(self) -> None:
        """Have the function answer at its BARs, which firmware usually sees to. Raises `OSError`."""
        if not int.from_bytes(self._config()[_COMMAND : _COMMAND + 2], "little") & _MEMORY:
            (self.path / "enable").write_text("1")

    def map(self, bar: int, size: int) -> mmap.mmap:
        """The first `size` bytes of a BAR. Raises `OSError`, and `ValueError` where it has not so many."""
        fd = os.open(self.path / f"resource{bar}", os.O_RDWR | os.O_CLOEXEC)
        try:
            return mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def _config(self) -> bytes:
        return (self.path / "config").read_bytes()


class Registers:
    """Function 0's registers. One command at a time, also among the programs of a guest."""

    def __init__(self, function: Function) -> None:
        self._name = function.path.name
        self._map = function.map(0, REGISTERS_SIZE)
        # Accesses are single loads and stores of as many bits as are meant: copies of bytes are not
        self._words = memoryview(self._map).cast("I")
        self._doubles = memoryview(self._map).cast("Q")
        self._lock = threading.Lock()
        self._file = os.open(function.path / "config", os.O_RDONLY | os.O_CLOEXEC)

    def load(self, offset: int) -> int:
        """The 32 bits at `offset`, a multiple of 4."""
        return self._words[offset // 4]

    def store(self, offset: int, value: int) -> None:
        """Store 32 bits at `offset`, a multiple of 4."""
        self._words[offset // 4] = value

    def take(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, a multiple of 8."""
        first = offset // _WORD
        words = (self._doubles[first + at] for at in range(-(-size // _WORD)))
        return b"".join(word.to_bytes(_WORD, "little") for word in words)[:size]

    def put(self, offset: int, data: bytes) -> None:
        """Store bytes, and zeros up to the next multiple of 8, from `offset` on, a multiple of 8."""
        for at in range(0, len(data), _WORD):
            self._doubles[(offset + at) // _WORD] = int.from_bytes(data[at : at + _WORD], "little")

    @contextlib.contextmanager
    def alone(self, until: float | None = None) -> Iterator[None]:
        """Nobody else in this guest uses the payload meanwhile. Raises `NoServer` where another does until that time
        (monotonic, seconds); None: one waits for ever."""
        if not self._lock.acquire(timeout=-1 if until is None else max(until - time.monotonic(), 0)):
            raise self._taken()
        try:
            while until is not None and not self._locked():
                if time.monotonic() > until:
                    raise self._taken()
                time.sleep(_NAP)
            if until is None:
                fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._lock.release()

    def _locked(self) -> bool:
        """Whether this program has the registers now, of all in this guest."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _taken(self) -> NoServer:
        return NoServer(f"another request to the pool behind {self._name} is not answered")

    def close(self) -> None:
        """Unmap them."""
        self._words.release()
        self._doubles.release()
        self._map.close()
        os.close(self._file)


class Interrupts:
    """The interrupts of the function, which uio_pci_generic drives from now on. From any thread.

    Raises `NoServer` where the driver cannot be had.
    """

    def __init__(self, function: Function, devices: Path = Path("/dev")) -> None:
        self._open: list[int] = []
        self._file = devices / _bound(function)
        self._config = os.open(function.path / "config", os.O_RDWR | os.O_CLOEXEC)
        self._open.append(self._config)
        self._here = threading.local()
        _route(function)

    def wait(self, seconds: float) -> bool:
        """Wait for an interrupt that has come since this thread was here last; the first time at once.

        Whoever returns from it says to the device that the interrupt has arrived, and calls `unmask` then.
        """
        fd = getattr(self._here, "fd", None)
        if fd is None:
            # Each that has the file open counts interrupts for itself, so each thread needs one of its own
            self._here.fd = fd = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
            self._open.append(fd)
            return True
        ready = select.poll()
        ready.register(fd, select.POLLIN)
        if not ready.poll(max(0.0, seconds) * 1000):
            return False
        os.read(fd, 4)
        return True

    def unmask(self) -> None:
        """Have the next interrupt come."""
        (upper,) = os.pread(self._config, 1, _COMMAND + 1)
        if upper & _DISABLE:
            os.pwrite(self._config, bytes([upper & ~_DISABLE]), _COMMAND + 1)

    def __del__(self) -> None:
        for fd in self._open:
            os.close(fd)


def _bound(function: Function) -> str:
    """The name of the function's UIO device; the driver is bound to it where it is not."""
    driver = function.path / "driver"
    try:
        if not driver.exists():
            folder = function.path.parents[1] / "drivers" / _DRIVER
            if not folder.exists():
                subprocess.run(["modprobe", "-q", _DRIVER], check=False)
            (function.path / "driver_override").write_text(_DRIVER)
            (folder / "bind").write_text(function.path.name)
        found = sorted((function.path / "uio").glob("uio*"))
    except OSError as error:
        raise NoServer(
            f"{_DRIVER} cannot be bound to {function.path.name}: {error.strerror or error}; it takes root, and a "
            "kernel with CONFIG_UIO_PCI_GENERIC"
        ) from error
    if not found:
        raise NoServer(f"{function.path.name} has another driver than {_DRIVER}: {driver.resolve().name}")
    return found[0].name


def _route(function: Function) -> None:
    """Have INTx arrive below an expander bridge of QEMU's q35.

    QEMU raises one of the interrupt router's lines E to H there, and its ACPI tables speak of lines A to D: so lines E
    to H, which are not in use otherwise, go to the interrupt that the tables have led to.
    """
    bridge = function.path.parent / "0000:00:1f.0"
    try:
        found = tuple(
            (bridge / name).read_text().strip() for name in ("vendor", "device", "subsystem_vendor")
        )
        number = int(function.word("irq"))
        if found != _Q35 or not 0 < number <= _LAST_ISA:
            return
        fd = os.open(bridge / "config", os.O_RDWR | os.O_CLOEXEC)
        try:
            for at in _ROUTES:
                os.pwrite(fd, bytes([number]), at)
        finally:
            os.close(fd)
    except OSError:
        pass  # another machine, where it is right already
