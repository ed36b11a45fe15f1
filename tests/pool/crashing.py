"""A build of the C core in which a process dies where a test wants it to.

Nothing of it is in what is installed: a finder that a test puts in front of Python's own, by `sitecustomize` on
PYTHONPATH, hands out that build as `softcxl.pool._native`, to the interpreters alone that the test starts with it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from softcxl.pool import build as core

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

FINDER = """\
import sys
from importlib.util import spec_from_file_location


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return spec_from_file_location(name, {built!r}) if name == "softcxl.pool._native" else None


sys.meta_path.insert(0, Finder)
"""


@dataclass(frozen=True)
class CrashBuild:
    """Where the build is, and how interpreters come by it."""

    folder: Path

    def environment(self, point: int = 0) -> dict[str, str]:
        """An environment for an interpreter that dies at that point of the C core; 0: at none."""
        paths = [str(self.folder), str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        found = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        return {**found, "SOFTCXL_POOL_CRASH": str(point)} if point else found


def build(folder: Path) -> CrashBuild | str:
    """Make the build in `folder`. Returns why it could not be made, where it could not."""
    built = folder / "_native.abi3.so"
    problem = core.build(ROOT / "src/softcxl/pool", built, ["-include", str(HERE / "crash_point.h")])
    if problem:
        return problem
    (folder / "sitecustomize.py").write_text(FINDER.format(built=str(built)))
    return CrashBuild(folder)
