"""The C core of `softcxl.pool`, built with a compiler that is fetched where this machine has none."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from softcxl.lab import toolchain
from softcxl.lab.errors import BuildError
from softcxl.lab.progress import Progress, silent
from softcxl.pool import build as core


def built() -> bool:
    """Whether the pool has its C core, and it can be loaded."""
    try:
        importlib.import_module("softcxl.pool._native")
    except ImportError:
        return False
    return True


def build(progress: Progress = silent) -> Path:
    """Make the C core, unless it is there; returns its file. Needs no root.

    Raises:
        PartsError: this machine is not one the lab knows how to fetch for.
        FetchError: the network, the archive or the disk failed.
        BuildError: it does not compile; the message has what the compiler said last.
    """
    folder = Path(core.__file__).parent
    path = folder / core.BUILT
    if built():
        return path
    if not os.access(folder, os.W_OK):
        raise BuildError(f"{folder} cannot be written: install SoftCXL where its files are yours.")
    lacking = []
    if core.compiler() is None:
        lacking += ["gcc", "libc6-dev"]
    if core.headers() is None:
        lacking.append(f"libpython{sys.version_info.major}.{sys.version_info.minor}-dev")
    if not lacking:
        problem = core.build(folder)
    else:
        root = toolchain.fetched(lacking, progress)
        tools = toolchain.unpacked(root, lacking)
        progress("compiling the pool's C core")
        command = ["gcc", f"--sysroot={root}"] if "gcc" in lacking else None
        includes = (
            None
            if core.headers()
            else [*sorted((root / "usr/include").glob("python3.*")), root / "usr/include"]
        )
        problem = core.build(
            folder, command=command, includes=includes, environment=tools.environ() if command else None
        )
    if problem:
        raise BuildError(f"The pool's C core cannot be made: {problem}")
    return path
