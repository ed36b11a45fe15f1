"""Private folders for sockets: short paths, ours alone, gone when we are.

A Unix socket's path has at most 107 bytes (unix(7)), so the folder lies as high up as it can.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from softcxl.lab.errors import LabError

_PREFIX = "softcxl-"
_LOCK = "owner"
_LONGEST = 107


@contextlib.contextmanager
def runtime_folder() -> Iterator[Path]:
    """A new folder, mode 0700, removed with its contents at the end.

    A process that is killed leaves its folder behind; the next one to come here removes it, knowing by the lock that
    dies with its holder.

    Raises:
        LabError: no folder can be made.
    """
    parent = _parent()
    _sweep(parent)
    try:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise LabError(f"No folder for sockets can be made in {parent}: {error.strerror}.") from error
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def socket_path(folder: Path, name: str) -> Path:
    """A path for the socket `name` in `folder`. Raises LabError if the kernel would refuse its length."""
    path = folder / f"{name}.sock"
    length = len(os.fsencode(path))
    if length > _LONGEST:
        raise LabError(
            f"The socket path {path} has {length} bytes and at most {_LONGEST} are possible: set TMPDIR shorter."
        )
    return path


def _parent() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and len(runtime) < 40 and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime)
    return Path(tempfile.gettempdir())


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(lock)
