"""Our own small programs for the guest: `softcxl-memory`, `softcxl-mailbox`, `softcxl-key`, `softcxl-count`,
`softcxl-fwctl`, `softcxl-cci`, `softcxl-mctp` and `softcxl-extents`, in C and compiled where they are used, and
`softcxl-devdax` and `softcxl-pool-region`. What each does and how it is called, its source in inside/ begins with.

They are compiled by the machine's own C compiler, or by the tiny one that is fetched with the guest's tools; they use
no C library, so either will do.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from importlib import resources
from pathlib import Path

from softcxl.lab import cache
from softcxl.lab.errors import PartsError
from softcxl.lab.parts import Parts

_PROGRAMS = {
    "softcxl-memory": "memory.c",
    "softcxl-mailbox": "mailbox.c",
    "softcxl-key": "key.c",
    "softcxl-count": "count.c",
    "softcxl-fwctl": "fwctl.c",
    "softcxl-mctp": "mctp.c",
    "softcxl-cci": "cci.c",
    "softcxl-extents": "extents.c",
}
_HEADERS = ("bare.h", "function.h")
_SCRIPTS = {"softcxl-devdax": "devdax", "softcxl-pool-region": "pool-region"}
_TIMEOUT = 60.0


def overlay(parts: Parts) -> Path:
    """A folder to lay over a guest's root, with our programs in `usr/bin`.

    Raises:
        PartsError: there is no compiler, or it fails.
        FetchError: the cache cannot be written.
    """
    inside = resources.files("softcxl.lab") / "inside"
    sources = {file: (inside / file).read_bytes() for file in (*_PROGRAMS.values(), *_HEADERS)}
    scripts = {name: (inside / file).read_bytes() for name, file in _SCRIPTS.items()}
    command = _compiler(parts)
    key = hashlib.sha256(repr((command, sources, scripts)).encode()).hexdigest()[:12]
    folder = cache.folder() / "compiled" / key
    with cache.locked("compiled"):
        if not folder.is_dir():
            with cache.replacing_folder(folder) as draft:
                programs = draft / "usr/bin"
                programs.mkdir(parents=True)
                for file, text in sources.items():
                    (draft / file).write_bytes(text)
                for name, file in _PROGRAMS.items():
                    _run([*command, "-o", str(programs / name), str(draft / file)])
                for file in sources:
                    (draft / file).unlink()
                for name, script in scripts.items():
                    (programs / name).write_bytes(script)
                for one in programs.iterdir():
                    one.chmod(0o755)
    return folder


def _compiler(parts: Parts) -> list[str]:
    bare = ["-static", "-nostdlib"]
    for name in ("gcc", "cc", "clang"):
        if found := shutil.which(name):
            return [
                found,
                "-O2",
                "-ffreestanding",
                "-fno-builtin",
                "-fno-stack-protector",
                "-fno-pie",
                "-no-pie",
                *bare,
            ]
    for root in (parts.tools.root, Path("/")):
        for own in root.glob("usr/lib/*/tcc"):
            if (root / "usr/bin/tcc").is_file():
                return [str(root / "usr/bin/tcc"), f"-B{own}", *bare]
    raise PartsError("No C compiler for the guest's small programs: install gcc or tcc.")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartsError(f"The guest's small programs cannot be compiled: {error}") from error
    if done.returncode:
        raise PartsError(
            f"The guest's small programs cannot be compiled by {command[0]}: {done.stderr.strip()[:500]}"
        )
