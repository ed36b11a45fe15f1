"""The folder where fetched and built things are kept, and how its users stay out of each other's way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from softcxl.lab.errors import FetchError


def folder() -> Path:
    """SOFTCXL_CACHE if set, else softcxl in the XDG cache folder. Not created here."""
    chosen = os.environ.get("SOFTCXL_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME")
    # the XDG base directory specification says to ignore a relative path
    base = Path(xdg) if xdg and xdg.startswith("/") else Path.home() / ".cache"
    return base / "softcxl"


@contextlib.contextmanager
def locked(name: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the cache's lock `name`; `waiting` is called once if another process holds it now.

    Raises:
        FetchError: the cache folder cannot be written.
    """
    path = folder() / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FetchError(f"The cache folder {path.parent} cannot be written: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def require(size: int) -> None:
    """Raise FetchError unless `size` bytes are free where the cache is. The folder exists."""
    home = folder()
    free = shutil.disk_usage(home).free
    if free < size:
        raise FetchError(
            f"The disk that holds {home} has {free >> 20} MB free and {size >> 20} MB are needed:"
            " free some, or point SOFTCXL_CACHE elsewhere."
        )


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Give a path to write; it takes the name `path` when the block ends well and vanishes when it does not.

    Raises:
        FetchError: the disk is full or the folder cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(path)
    except OSError as error:
        raise FetchError(f"{path} could not be written: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `path` when the block ends well and vanishes when it does not.

    What was at `path` is removed, after the new folder stands. The caller holds the lock that guards `path`.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    draft.mkdir(parents=True)
    old = draft.with_name(draft.name + ".old")
    try:
        yield draft
        if path.exists():
            path.rename(old)
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove drafts that killed processes left in `parent`. The caller holds the lock that guards them."""
    for draft in parent.glob(".*"):
        shutil.rmtree(draft, ignore_errors=True)
