"""Builds the C core of softcxl.pool as the package is built or installed: hatchling calls it (see pyproject.toml).

It takes a C compiler and Python's headers. Where they are missing the package is built without, and says so: the pool
then says what it needs, and everything else works. `softcxl lab core` fetches them.
"""

from __future__ import annotations

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/softcxl/pool")


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
        build_data["artifacts"].append(f"/{FOLDER / how()['BUILT']}")
        if version != "editable":
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"cp311-abi3-{platform}"


def how() -> dict[str, Any]:
    """The package's own module that says how; the package itself may not be importable yet."""
    return runpy.run_path(str(Path(__file__).parents[1] / FOLDER / "build.py"))


def build(folder: Path) -> str:
    """Compile the core in `folder`. Returns why it could not be, or nothing."""
    return str(how()["build"](folder))
