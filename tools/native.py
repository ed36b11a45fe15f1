"""Builds the C core of softcxl.pool as the package is built or installed: hatchling calls it (see pyproject.toml).

It takes a C compiler and Python's headers. Where they are missing the package is built without, and says so: the pool
then says what it needs, and everything else works.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/softcxl/pool")
BUILT = "_native.abi3.so"
FLAGS = ["-std=gnu11", "-O2", "-g0", "-Wall", "-Wextra", "-fPIC", "-shared"]


class NativeCore(BuildHookInterface):  # type: ignore[type-arg]
    """The hook: one shared object of Python's stable ABI, beside its sources where the install is editable."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        problem = build(Path(self.root) / FOLDER)
        if problem:
            self.app.display_warning(f"softcxl.pool is built without its C core: {problem}")
            return
        build_data["artifacts"].append(f"/{FOLDER / BUILT}")
        if version != "editable":
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"cp311-abi3-{platform}"


def build(folder: Path, to: Path | None = None, *more: str) -> str:
    """Compile the core in `folder`, with `more` flags, into the file `to`, or else to where it is imported from.

    Returns why it could not be, or nothing.
    """
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    headers = Path(sysconfig.get_path("include"))
    if compiler is None:
        return "there is no C compiler (Debian, Ubuntu: gcc)"
    if not (headers / "Python.h").exists():
        return f"{headers} has no Python.h (Debian, Ubuntu: python3-dev)"
    to = to or folder / BUILT
    made = to.with_name(f"{to.name}.{os.getpid()}")
    command = [compiler, *FLAGS, *more, f"-I{headers}", str(folder / "core/module.c"), "-o", str(made)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        made.unlink(missing_ok=True)
        return "\n".join([f"{compiler} failed", *result.stderr.splitlines()[-12:]])
    made.replace(to)  # who has the old one mapped keeps it
    return ""
