"""What a kernel, or the pool's C core, is built with: the machine's own compiler, and packages beside it where some
are missing.

Nothing is installed. Missing tools are unpacked from this system's own suite, so that they run on its C library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from softcxl.lab import cache
from softcxl.lab.errors import FetchError
from softcxl.lab.progress import Progress, silent
from softcxl.lab.setup import unpack, updated_apt

TOOLS = {
    "gcc": "gcc",
    "make": "make",
    "ld": "binutils",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "xz": "xz-utils",
}
"""Programs that the kernel's makefiles call, and the Debian and Ubuntu package of each."""

LIBRARIES = {"<gelf.h>": "libelf-dev", "<openssl/ssl.h>": "libssl-dev", "<stdio.h>": "libc6-dev"}
"""Headers that its build programs include, and the package of each."""

TRIPLET = "x86_64-linux-gnu"
_RUNTIME = ("libc.so.6", "libm.so.6", "libmvec.so.1", "libgcc_s.so.1")
_RUNTIME_PACKAGES = ("libc6_", "libc-bin_", "libgcc-s1_")


@dataclass(frozen=True)
class Toolchain:
    """How to call `make`: variables for its command line, and its environment."""

    variables: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)

    def environ(self) -> dict[str, str]:
        """The whole environment, on top of this process's."""
        return {
            **os.environ,
            "LC_ALL": "C",
            "KBUILD_BUILD_USER": "softcxl",
            "KBUILD_BUILD_HOST": "lab",
            **self.environment,
        }


def missing() -> list[str]:
    """Packages of what this system lacks, sorted; none when a kernel can be built with what is installed."""
    lacking = {package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    for header, package in LIBRARIES.items():
        if shutil.which("gcc") is None or not _includes(header):
            lacking.add(package)
    return sorted(lacking)


def fetched(packages: list[str], progress: Progress = silent) -> Path:
    """These packages, with what they need, unpacked in a folder of the cache.

    Raises:
        PartsError: this machine is not one the lab knows how to fetch for.
        FetchError: the network, the archive or the disk failed.
    """
    root = cache.folder() / "toolchain" / "-".join(packages)
    if not root.is_dir():
        apt = updated_apt(progress, own_suite=True)
        files = [file for file in apt.download(packages, progress) if wanted(file)]
        root.parent.mkdir(exist_ok=True)
        cache.sweep(root.parent)
        with cache.replacing_folder(root) as draft:
            for done, file in enumerate(files):
                progress("unpacking the compiler's packages", done / len(files))
                unpack(file, draft)
            prepare(draft)
        apt.forget()
    return root


def unpacked(root: Path, lacking: list[str]) -> Toolchain:
    """A toolchain whose missing parts are the packages unpacked below `root`.

    Raises:
        FetchError: what was unpacked is not whole.
    """
    libraries = [path for name in (f"usr/lib/{TRIPLET}", f"lib/{TRIPLET}") if (path := root / name).is_dir()]
    environment = {
        "PATH": f"{root / 'usr/bin'}:{os.environ.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "BISON_PKGDATADIR": str(root / "usr/share/bison"),
        "M4": str(root / "usr/bin/m4"),
    }
    if not libraries:
        raise FetchError(f"The packages below {root} hold no libraries.")
    if "gcc" in lacking or "libc6-dev" in lacking:
        return Toolchain((f"HOSTCC={root / 'usr/bin/gcc'} --sysroot={root}",), environment)
    headers = f"-idirafter {root / 'usr/include'} -idirafter {root / 'usr/include' / TRIPLET}"
    return Toolchain(
        (f"HOSTCFLAGS={headers}", f"HOSTLDFLAGS={' '.join(f'-L{path}' for path in libraries)}"), environment
    )


def prepare(root: Path) -> None:
    """Complete packages unpacked below `root`: folders that are links on an installed system, and this system's own
    C library, which is what its programs are loaded with."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for path in (Path("/lib64/ld-linux-x86-64.so.2"), *(Path("/lib") / TRIPLET / name for name in _RUNTIME)):
        link = root / path.relative_to("/")
        if path.exists() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)


def wanted(package: Path) -> bool:
    """Whether a package of the closure is to be unpacked."""
    return not package.name.startswith(_RUNTIME_PACKAGES)


def _includes(header: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                ["gcc", "-E", "-x", "c", "-", "-o", f"{folder}/out"],
                input=f"#include {header}\n",
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0
