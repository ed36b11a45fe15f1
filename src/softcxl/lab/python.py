"""Python for a guest, and `softcxl.pool` in it: folders to lay over the guest's root.

Debian's or Ubuntu's own interpreter, of the release that the guest's tools are of, with msgspec and numpy. It is for
guests that ask for it: others boot faster without. Its modules are compiled here, by itself, because an emulated
processor takes long over that.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from softcxl.lab import cache
from softcxl.lab.errors import FetchError, PartsError
from softcxl.lab.parts import Parts
from softcxl.lab.progress import Progress, silent
from softcxl.lab.setup import unpack, updated_apt

PACKAGES = ("python3", "python3-msgspec", "python3-numpy")
MODULES = ("__init__.py", "wire", "spec", "memory", "pool")
"""What of this package a client of the pool is made of."""

_FORMAT = 1
_HOME = "usr/lib/python3/dist-packages"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_KEPT = re.compile(
    r"(lib)?python3|lib(ffi|expat|ssl|lzma|bz2|uuid|stdc\+\+|gcc-s|gfortran|quadmath|blas|lapack|zstd|crypt|mpdec)"
    r"|zlib1g"
)
"""Packages of the closure that hold anything that a program runs on; the C library is the guest's own."""
_UNWANTED = (
    "usr/share",
    "usr/bin/*[!0-9]",
    "usr/bin/f2py*",
    "usr/bin/p[!y]*",
    "usr/bin/py[!t]*",
    "usr/lib/x86_64-linux-gnu/pkgconfig",
    "usr/lib/x86_64-linux-gnu/engines-3",
    "usr/include",
    "var",
    "etc",
    "usr/lib/python3.*/test",
    "usr/lib/python3.*/idlelib",
    "usr/lib/python3.*/tkinter",
    "usr/lib/python3.*/ensurepip",
    "usr/lib/python3.*/pydoc_data",
    "usr/lib/python3.*/turtledemo",
    f"{_HOME}/numpy/**/tests",
    f"{_HOME}/numpy/f2py",
    f"{_HOME}/numpy/_core/include",
)
_ALTERNATIVES = ("blas/libblas.so.3", "lapack/liblapack.so.3")
"""Libraries that an installed system finds by links that its packages' scripts make."""
_C_LIBRARY = ("libm.so.6", "libmvec.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1")
"""Of the C library what the guest's tools need not have brought; it has to be of the same version as theirs."""
_SECONDS = 600.0


def overlays(parts: Parts, progress: Progress = silent) -> tuple[Path, ...]:
    """Folders with Python and with the pool's client; they are fetched and made where the cache has none.

    Raises:
        PartsError: this machine is not one the lab knows how to fetch for.
        FetchError: the network, the archive or the disk failed.
    """
    interpreter = fetched(parts, progress)
    return interpreter, _package(parts, interpreter)


def fetched(parts: Parts, progress: Progress = silent) -> Path:
    """The folder with Python and its libraries. Raises as `overlays` does."""
    root = cache.folder() / "python" / f"{'-'.join(PACKAGES)}-{_FORMAT}"
    with cache.locked("python", lambda: progress("waiting for another fetch to finish")):
        if not root.is_dir():
            apt = updated_apt(progress)
            files = [file for file in apt.download(PACKAGES, progress) if _KEPT.match(file.name)]
            root.parent.mkdir(exist_ok=True)
            cache.sweep(root.parent)
            with cache.replacing_folder(root) as draft:
                for done, file in enumerate(files):
                    progress("unpacking Python", done / len(files))
                    unpack(file, draft)
                _tidy(draft)
                progress("compiling Python's modules", 1.0)
                _compile(parts, draft, draft, _modules(draft))
            apt.forget()
    return root


def _tidy(root: Path) -> None:
    for pattern in _UNWANTED:
        for path in list(root.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
    for name in _ALTERNATIVES:
        place = root / _LIBRARIES
        if (place / name).exists() and not (place / Path(name).name).exists():
            (place / Path(name).name).symlink_to(name)


def _modules(root: Path) -> list[Path]:
    return [path for path in (*root.glob("usr/lib/python3.*"), root / _HOME) if path.is_dir()]


def _package(parts: Parts, interpreter: Path) -> Path:
    """The folder with the pool's client, of this package as it is now."""
    here = resources.files("softcxl")
    with resources.as_file(here) as source:
        files = {
            f"{_HOME}/softcxl/{path.relative_to(source)}": path.read_bytes() for path in _sources(source)
        }
        for name in _C_LIBRARY:
            found = next((path for one in parts.tools.libraries if (path := one / name).is_file()), None)
            if found is not None:
                files[f"{_LIBRARIES}/{name}"] = found.read_bytes()
        told = repr(
            (
                _FORMAT,
                interpreter.name,
                [(name, hashlib.sha256(data).digest()) for name, data in files.items()],
            )
        )
        folder = cache.folder() / "python" / f"softcxl-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
        with cache.locked("python"):
            if not folder.is_dir():
                with cache.replacing_folder(folder) as draft:
                    for name, data in files.items():
                        (draft / name).parent.mkdir(parents=True, exist_ok=True)
                        (draft / name).write_bytes(data)
                    _compile(parts, interpreter, draft, [draft / _HOME])
    return folder


def _sources(source: Path) -> Iterator[Path]:
    for name in MODULES:
        path = source / name
        found = [path] if path.is_file() else sorted(path.rglob("*"))
        yield from (one for one in found if one.is_file() and one.suffix in (".py", ".so"))


def _compile(parts: Parts, interpreter: Path, root: Path, folders: list[Path]) -> None:
    """Compile modules below `root` by the fetched interpreter, which runs on the C library of the guest's tools."""
    programs = sorted(interpreter.glob("usr/bin/python3.*[0-9]"))
    if not programs:
        raise FetchError("The packages of Python hold no interpreter.")
    tools = parts.tools
    linkers = (tools.root / folder / "ld-linux-x86-64.so.2" for folder in ("usr/lib64", "lib64"))
    linker = next((path for path in linkers if path.is_file()), None)
    if linker is None:
        raise PartsError(f"There is no dynamic linker below {tools.root}.")
    libraries = ":".join(map(str, (*tools.libraries, interpreter / _LIBRARIES)))
    command = [str(linker), "--library-path", libraries, str(programs[-1])]
    words = ["-I", "-S", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash"]
    try:
        done = subprocess.run(
            [*command, *words, "-s", str(root), "-p", "/", *map(str, folders)],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env={"PYTHONHOME": str(interpreter / "usr"), "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartsError(f"The guest's Python does not run here: {error}.") from error
    if done.returncode and not any(root.glob("usr/lib/python3*/**/__pycache__")):
        raise PartsError(f"The guest's Python does not run here: {done.stderr.strip()[-500:]}")
