"""A kernel of one's own for guests: all of CXL built in, with what distributions leave out (see kernel.config).

Built from the kernel source that the distribution packages, in the cache, once for each source and configuration.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
from importlib import resources
from pathlib import Path

from softcxl.lab import cache, toolchain
from softcxl.lab.errors import BuildError, FetchError
from softcxl.lab.parts import Kernel, kernel_release
from softcxl.lab.progress import Progress, silent
from softcxl.lab.recipe import recipe_for
from softcxl.lab.setup import this_release, unpack, updated_apt
from softcxl.lab.toolchain import Toolchain

_SOURCE_SPACE, _BUILD_SPACE = 3 << 30, 1 << 30
_STEPS = 2_150
"""Lines that `make` prints in a whole build, about: only the progress shown depends on it."""


def fragment(extra: Path | None = None) -> str:
    """The configuration on top of tinyconfig: the lab's own, then that of the file `extra`.

    Raises:
        BuildError: `extra` cannot be read.
    """
    text = (resources.files("softcxl.lab") / "kernel.config").read_text()
    if extra is None:
        return text
    try:
        return f"{text}\n{extra.read_text()}"
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"The configuration {extra} cannot be read: {error}.") from error


def built(extra: Path | None = None) -> Kernel | None:
    """The kernel that `build` made of this configuration, the newest source first, or None."""
    images = list(_images().glob(f"*-{_key(fragment(extra))}/bzImage"))
    if not images:
        return None
    image = max(images, key=lambda path: path.stat().st_mtime)
    return Kernel(image, None, kernel_release(image), "built")


def build(
    progress: Progress = silent,
    *,
    source: Path | None = None,
    extra: Path | None = None,
    jobs: int | None = None,
) -> Kernel:
    """The kernel of this configuration: built now, unless it was before. Needs no root.

    `source` is a kernel source tree of yours (built beside it, never in it; always made anew, as it may have
    changed); without one the distribution's package is fetched. `extra` is a configuration fragment to add. Takes
    about 13 minutes of processor time, `jobs` at a time (as many as there are processors).

    Raises:
        PartsError: this machine is not one the lab knows how to fetch for.
        FetchError: the network, the archive or the disk failed.
        BuildError: the sources do not build; the message has what `make` said last.
    """
    config = fragment(extra)
    with cache.locked("kernel", lambda: progress("waiting for another build to finish")):
        if source is None and (done := built(extra)):
            return done
        tools = _toolchain(progress)
        tree = source.absolute() if source is not None else _source(progress)
        if not (tree / "scripts/kconfig/merge_config.sh").is_file():
            raise BuildError(f"{tree} is not a kernel source tree.")
        _images().mkdir(parents=True, exist_ok=True)
        cache.sweep(_images())
        cache.require(_BUILD_SPACE)
        with cache.replacing_folder(_images() / f"{tree.name}-{_key(config)}") as draft:
            objects = draft / "objects"
            objects.mkdir()
            _make(tree, objects, config, tools, jobs or os.cpu_count() or 1, progress)
            shutil.copyfile(objects / "arch/x86/boot/bzImage", draft / "bzImage")
            shutil.copyfile(objects / ".config", draft / "config")
            shutil.rmtree(objects)
        image = _images() / f"{tree.name}-{_key(config)}" / "bzImage"
        return Kernel(image, None, kernel_release(image), "built")


def _images() -> Path:
    return cache.folder() / "own-kernels"


def _key(config: str) -> str:
    return hashlib.sha256(config.encode()).hexdigest()[:12]


def _toolchain(progress: Progress) -> Toolchain:
    progress("looking for a compiler and what a kernel's build needs")
    lacking = toolchain.missing()
    if not lacking:
        return Toolchain()
    return toolchain.unpacked(toolchain.fetched([*lacking, "m4"], progress), lacking)


def _source(progress: Progress) -> Path:
    """The distribution's kernel source, unpacked in the cache: of the recipe's packages the first that there is."""
    folder = cache.folder() / "source"
    names = recipe_for(this_release()).kernel_sources
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    folder.mkdir(parents=True, exist_ok=True)
    cache.sweep(folder)
    cache.require(_SOURCE_SPACE)
    apt = updated_apt(progress)
    failure: FetchError | None = None
    for name in names:
        try:
            packages = apt.download([name], progress)
        except FetchError as error:
            failure = failure or error
            continue
        _unpack_source(
            next(file for file in packages if re.match(r"linux-source-\d", file.name)),
            folder / name,
            progress,
        )
        apt.forget()
        return folder / name
    assert failure is not None, "a recipe names one at least"
    raise failure


def _unpack_source(package: Path, tree: Path, progress: Progress) -> None:
    progress("unpacking the kernel's sources")
    with cache.replacing_folder(tree.with_name(f"{tree.name}.package")) as around:
        unpack(package, around)
        archive = next(around.rglob("linux-source-*.tar.*"), None)
        if archive is None:
            raise FetchError(f"{package.name} holds no source archive.")
        with cache.replacing_folder(tree) as draft:
            _run(["tar", "-xf", str(archive), "-C", str(draft), "--strip-components=1"], Toolchain())
    shutil.rmtree(tree.with_name(f"{tree.name}.package"))


def _make(tree: Path, objects: Path, config: str, tools: Toolchain, jobs: int, progress: Progress) -> None:
    make = ["make", "-C", str(tree), f"O={objects}", "ARCH=x86_64", *tools.variables]
    progress("configuring the kernel")
    _run([*make, "tinyconfig"], tools)
    (objects / "wanted.config").write_text(config)
    merge = [str(tree / "scripts/kconfig/merge_config.sh"), "-m", "-O", str(objects)]
    _run([*merge, str(objects / ".config"), str(objects / "wanted.config")], tools)
    _run([*make, "olddefconfig"], tools)
    if lost := unmet(config, (objects / ".config").read_text()):
        raise BuildError(
            f"This kernel's configuration cannot have {', '.join(lost)}: see {tree}/drivers/cxl/Kconfig."
        )
    _run([*make, f"-j{jobs}", "bzImage"], tools, progress)


def unmet(wanted: str, config: str) -> list[str]:
    """Options of the fragment `wanted` that the .config text `config` does not have at that value; the last line
    for an option counts."""
    asked = dict(re.findall(r"^(CONFIG_\w+)=(.+)$", wanted, re.MULTILINE))
    given = dict(re.findall(r"^(CONFIG_\w+)=(.+)$", config, re.MULTILINE))
    return sorted(f"{name}={value}" for name, value in asked.items() if given.get(name, "n") != value)


def _run(command: list[str], tools: Toolchain, progress: Progress | None = None) -> None:
    """Run to the end. Raises BuildError with the complaints of `command`."""
    tail: list[str] = []
    done = 0
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=tools.environ(),
            start_new_session=True,
        )
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be started: {error.strerror}.") from error
    with process:
        try:
            assert process.stdout is not None, "asked for above"
            for line in process.stdout:
                tail = [*tail[-30:], line.rstrip()]
                done += 1
                if progress is not None:
                    progress("compiling the kernel", min(0.99, done / _STEPS))
        except BaseException:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself meanwhile
                os.killpg(process.pid, signal.SIGTERM)
            raise
    if process.returncode:
        said = [line for line in tail if "rror" in line] or tail
        raise BuildError(f"{Path(command[0]).name} failed: {'; '.join(said[-5:])}")
