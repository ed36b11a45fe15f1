"""What sysfs is made of: directories, attributes, links; and the errors that reading and writing them comes back with.

Whatever is here is made when it is looked at, so that a view is never older than the system.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from softcxl.host.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Mapping

READ, WRITE, BOTH, ADMIN = 0o444, 0o200, 0o644, 0o400


class SysfsError(HostError, OSError):
    """The kernel's answer to a read or write that it refuses: `errno`, and why."""

    def __init__(self, number: int, reason: str) -> None:
        OSError.__init__(self, number, reason)

    @property
    def name(self) -> str:
        """The errno's name: "EBUSY"."""
        return errno.errorcode.get(self.errno or 0, str(self.errno))

    def __str__(self) -> str:
        where = f"{self.filename}: " if self.filename else ""
        return f"{where}{self.strerror} ({self.name})"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One file: `show` makes its text, without the newline at its end, or its bytes; `store` takes what is written.
    None for what the kernel has no permission for; `mode` is that of the file."""

    show: Callable[[], str | bytes] | None
    store: Callable[[str], None] | None = None
    mode: int = READ


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link; `target` is a path below /sys."""

    target: str


@dataclass(frozen=True, slots=True)
class Directory:
    """`entries` by name, as they are now. `device` says that it is a device's own, not a group of attributes."""

    entries: Callable[[], Mapping[str, Entry]]
    device: bool = False


Entry: TypeAlias = Attribute | Link | Directory


def value(text: object) -> Attribute:
    """A file that shows one value."""
    return Attribute(lambda: str(text))


def group(entries: Mapping[str, Entry]) -> Directory:
    """A directory of attributes that are named already."""
    return Directory(lambda: entries)


def number(text: str) -> int:
    """A number as the kernel's kstrtoull reads it: decimal, 0x hexadecimal, or octal after a 0. Raises EINVAL."""
    digits = text.strip().removeprefix("+")
    base = 16 if digits[:2].lower() == "0x" else 8 if digits.startswith("0") and len(digits) > 1 else 10
    try:
        if not digits[:1].isalnum() or "_" in digits:
            raise ValueError
        found = int(digits, base)
    except ValueError:
        raise SysfsError(errno.EINVAL, f"{text!r} is no number") from None
    if found >= 1 << 64:
        raise SysfsError(errno.ERANGE, f"{text!r} is more than 64 bits")
    return found


def boolean(text: str) -> bool:
    """A boolean as the kernel's kstrtobool reads it: y, t, 1, on; n, f, 0, off. Raises EINVAL."""
    word = text.strip().lower()
    if word[:1] in ("y", "t", "1") or word[:2] == "on":
        return True
    if word[:1] in ("n", "f", "0") or word[:2] == "of":
        return False
    raise SysfsError(errno.EINVAL, f"{text!r} is neither true (1, y, on) nor false (0, n, off)")
