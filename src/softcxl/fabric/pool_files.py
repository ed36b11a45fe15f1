"""The files of a pool that is served: its arena, and the memory of its devices.

They are in the topology's `state` folder, or, where there is none, in shared memory under a name that is the same each
time the same topology file is served: a server that is killed leaves them, and the next one finds all as it was. A
server that ends in order removes them where there is no `state`. When the machine has started anew since, what nobody
has brought to the disk in order is lost, as volatile memory is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any, Final

from softcxl.fabric.errors import BuildError
from softcxl.fabric.keys import Topology
from softcxl.fabric.pool_rules import capacity
from softcxl.memory.errors import MemoryFault
from softcxl.memory.media import Medium
from softcxl.memory.page import replace
from softcxl.wire.sizes import format_size

log = logging.getLogger(__name__)

FORMAT: Final = 1
_PAGE, _LOCK, _ARENA = "pool.json", "lock", "arena"
_MACHINES: Final = ".machines"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_SHARED_MEMORY: Final = Path("/dev/shm")


class PoolFiles:
    """The files of the pool of `given`, whose topology file is `path`; nobody else has them until `close`.

    `arena` is the arena's, `fresh` says that nothing is in it yet; `home` is where a device's memory is. Raises
    `BuildError` where they are served already, cannot be used, or are those of another pool.
    """

    def __init__(self, path: Path, given: Topology, *, boot: str | None = None) -> None:
        assert given.pool is not None, "of a topology with a pool"
        self.kept = given.state is not None
        """They stay when the server ends in order."""
        self.in_order = False
        """Set by whoever serves the pool, when he has ended that in order."""
        self.folder = Path(given.state) / "pool" if given.state else private_folder() / _name_of(path)
        self._arena_size = given.pool.arena
        self._boot = boot or _BOOT.read_text().strip()
        self._wanted = [(name, capacity(given, name)) for name in given.pool.memory]
        self._lock = -1
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(
                self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BuildError(f"pool: another server has it already ({self.folder})") from None
            self.fresh = not self._found()
            self._say(clean=False)
            self.arena = Medium.open(self.folder / _ARENA, self._arena_size)
            self._check_room()
        except OSError as error:
            self._unlock()
            raise BuildError(f"pool: {error.filename or self.folder}: {error.strerror or error}") from error
        except MemoryFault as error:
            self._unlock()
            raise BuildError(f"pool: {error}") from error
        except BaseException:
            self._unlock()
            raise

    def home(self, name: str) -> Path:
        """The file of the memory of a device, or a logical device."""
        return self.folder / f"{name}.mem"

    def machines_of(self, slot: str) -> Path:
        """Where it is written down which machines come by a slot of that name."""
        return self.folder / f"{slot}{_MACHINES}"

    def machines(self) -> dict[str, Path]:
        """All such files that are there, by the names of the slots, which are an earlier server's."""
        return {one.name.removesuffix(_MACHINES): one for one in self.folder.glob(f"*{_MACHINES}")}

    def close(self) -> None:
        """Give them up: they stay if they are kept, or somebody has served them and not ended it in order. Nobody uses
        the memory any more. Twice does no harm."""
        if self._lock < 0:
            return
        try:
            if self.kept and self.in_order:
                self.arena.sync()
                self._say(clean=True)
            self.arena.close()
            if not self.kept and (self.in_order or self.fresh):
                shutil.rmtree(self.folder, ignore_errors=True)
        except OSError as error:
            log.error("the pool's files in %s are not closed in order: %s", self.folder, error)
        finally:
            self._unlock()

    def _check_room(self) -> None:
        """Who touches a page for which there is no room is killed: the arena is everybody's, so all of it has some."""
        there = os.fstatvfs(self.arena.fd)
        if not there.f_blocks:
            return
        free = there.f_bavail * there.f_frsize
        free -= self._arena_size - os.fstat(self.arena.fd).st_blocks * 512
        if free < 0:
            self.arena.close()
            if self.fresh and not self.kept:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise BuildError(
                f"pool: an arena of {format_size(self._arena_size)} is {format_size(-free)} more than the file system "
                f"of {self.folder} has room for: have a smaller one (pool.arena), or keep the pool in another (state)"
            )
        more = 0
        for name, size in self._wanted:
            try:
                more += size - self.home(name).stat().st_blocks * 512
            except FileNotFoundError:
                more += size
        if more > free:
            log.warning(
                "the pool's memory may take %s more, and the file system of %s has %s: what is more than that is "
                "refused",
                format_size(more),
                self.folder,
                format_size(free),
            )

    # -- what was ------------------------------------------------------------------------------------------------

    def _found(self) -> bool:
        """Whether the pool of an earlier server is there, and as it was."""
        page = self._read()
        if page is None:
            self._sweep()
            return False
        if page["boot"] != self._boot and not page["clean"]:
            log.warning(
                "the machine has started anew since the pool in %s was served: what it held is lost",
                self.folder,
            )
            self._sweep()
            return False
        was, now = page["memory"], [list(one) for one in self._wanted]
        if page["arena"] != self._arena_size or was != now[: len(was)]:
            there = ", ".join(f"{name} ({format_size(size)})" for name, size in was)
            raise BuildError(
                f"pool: the pool in {self.folder} has an arena of {format_size(page['arena'])} and the memory {there}, "
                "in this order; serve it as it was, with more memory behind that if you like, or remove that folder "
                "with all that is in the pool"
            )
        return (self.folder / _ARENA).exists()

    def _read(self) -> dict[str, Any] | None:
        path = self.folder / _PAGE
        try:
            page = dict(json.loads(path.read_text(encoding="utf-8")))
            if page["format"] != FORMAT:
                raise BuildError(f"pool: {path}: format {page['format']}, this version reads {FORMAT}")
            memory = [[str(name), int(size)] for name, size in page["memory"]]
            return {
                "boot": str(page["boot"]),
                "clean": bool(page["clean"]),
                "arena": int(page["arena"]),
                "memory": memory,
            }
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BuildError(
                f"pool: {path}: it is damaged: {error!r}; remove it, and the pool begins anew"
            ) from error

    def _say(self, *, clean: bool) -> None:
        page = {
            "format": FORMAT,
            "boot": self._boot,
            "clean": clean,
            "arena": self._arena_size,
            "memory": self._wanted,
        }
        replace(self.folder / _PAGE, json.dumps(page) + "\n")

    def _sweep(self) -> None:
        """What is left of a pool that is no more goes."""
        for one in self.folder.iterdir():
            if one.name == _ARENA or one.suffix in (".mem", ".poison"):
                one.unlink()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def private_folder() -> Path:
    """A folder in shared memory that is this user's alone. Raises `BuildError` where somebody else has its name."""
    parent = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    folder = parent / f"softcxl-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise BuildError(f"pool: {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise BuildError(f"pool: {folder} is not a folder that is yours alone (mode 0700)")
    return folder


def _name_of(path: Path) -> str:
    """What a topology file's pool is called: by its place, and for people by its name."""
    where = path.resolve()
    digest = hashlib.blake2b(os.fsencode(where), digest_size=6).hexdigest()
    return f"pool-{where.stem[:32]}-{digest}"
