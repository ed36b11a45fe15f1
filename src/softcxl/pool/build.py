"""How the C core is made: one shared object of Python's stable ABI, beside its sources, with a C compiler alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

BUILT = "_native.abi3.so"
FLAGS = ["-std=gnu11", "-O2", "-g0", "-Wall", "-Wextra", "-fPIC", "-shared"]


def compiler() -> str | None:
    """This machine's C compiler; None where there is none."""
    return shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")


def headers() -> Path | None:
    """The folder of this Python's headers; None where they are not installed."""
    folder = Path(sysconfig.get_path("include"))
    return folder if (folder / "Python.h").exists() else None


def build(
    folder: Path,
    to: Path | None = None,
    flags: Sequence[str] = (),
    *,
    command: Sequence[str] | None = None,
    includes: Sequence[Path] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Compile the core in `folder`, that of the package, into the file `to`, or else to where it is imported from.

    `command` is the compiler, and `includes` are the folders of headers, where those that are installed are not meant;
    `flags` come on top. Returns why it could not be, or nothing.
    """
    if command is None:
        found = compiler()
        if found is None:
            return "there is no C compiler (Debian, Ubuntu: gcc)"
        command = [found]
    if includes is None:
        installed = headers()
        if installed is None:
            return f"{sysconfig.get_path('include')} has no Python.h (Debian, Ubuntu: python3-dev)"
        includes = [installed]
    to = to or folder / BUILT
    made = to.with_name(f"{to.name}.{os.getpid()}")
    where = [f"-I{one}" for one in includes]
    whole = [*command, *FLAGS, *flags, *where, str(folder / "core/module.c"), "-o", str(made)]
    result = subprocess.run(whole, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        made.unlink(missing_ok=True)
        return "\n".join([f"{command[0]} failed", *result.stderr.splitlines()[-12:]])
    made.replace(to)  # who has the old one mapped keeps it
    return ""
