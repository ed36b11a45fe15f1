"""Finding the parts of a guest, and fetching those that are missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from softcxl.lab import cache
from softcxl.lab.apt import PrivateApt
from softcxl.lab.errors import FetchError, PartsError
from softcxl.lab.parts import (
    Kernel,
    Parts,
    Qemu,
    Tools,
    find_tools,
    given_kernel,
    system_kernel,
    system_qemu,
    unpacked_kernel,
    unpacked_qemu,
)
from softcxl.lab.progress import Progress, silent
from softcxl.lab.recipe import GROUPS, recipe_for
from softcxl.lab.sources import Release, archives, parse_os_release, read_sources

_NEEDED_SPACE = 1 << 30
_UNWANTED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "var",
)


@dataclass(frozen=True)
class Finding:
    """One part: what it is, or why it is not there."""

    part: str
    found: Qemu | Kernel | Tools | None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.part}: {self.found if self.found is not None else 'missing. ' + self.reason}"


@dataclass(frozen=True)
class Status:
    """What `status` found, part by part, and what to do about the rest."""

    findings: tuple[Finding, ...]
    advice: str

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the parts that are not there."""
        return tuple(finding.part for finding in self.findings if finding.found is None)

    def parts(self) -> Parts:
        """All parts. Raises PartsError if one is missing."""
        found: dict[str, Qemu | Kernel | Tools | None] = {
            finding.part: finding.found for finding in self.findings
        }
        qemu, kernel, tools = (found.get(group) for group in GROUPS)
        if isinstance(qemu, Qemu) and isinstance(kernel, Kernel) and isinstance(tools, Tools):
            return Parts(qemu, kernel, tools)
        reasons = "; ".join(str(finding) for finding in self.findings if finding.found is None)
        raise PartsError(f"A guest cannot be started. {reasons} {self.advice}")


def status(kernel: Path | None = None) -> Status:
    """Look for every part and change nothing. `kernel` names a bzImage to use instead of the one found.

    Raises:
        PartsError: `kernel` is no kernel image.
    """
    chosen = given_kernel(kernel) if kernel is not None else None
    findings = (
        _first("qemu", system_qemu, unpacked_qemu),
        Finding("kernel", chosen) if chosen else _first("kernel", system_kernel, unpacked_kernel),
        _first("tools", lambda: find_tools(Path("/"), "system"), find_tools),
    )
    missing = [finding.part for finding in findings if finding.found is None]
    return Status(findings, "Run `softcxl lab setup` to fetch what is missing." if missing else "")


def setup(progress: Progress = silent, kernel: Path | None = None) -> Status:
    """Fetch the parts that are neither on the system nor in the cache; needs no root. See `status` for `kernel`.

    Of several runs at a time one fetches and the others wait.

    Raises:
        PartsError: this machine is not one the lab knows how to fetch for, or `kernel` is no kernel image.
        FetchError: the network, the archive or the disk failed.
    """
    with cache.locked("setup", lambda: progress("waiting for another setup to finish")):
        found = status(kernel)
        if found.missing:
            _fetch(found.missing, progress)
            found = status(kernel)
            if found.missing:
                raise FetchError(f"What was fetched does not work. {'; '.join(map(str, found.findings))}")
        return found


def fetched(group: str) -> Path:
    """Where the unpacked packages of one of GROUPS live, existing or not."""
    return cache.folder() / "parts" / group


def _first(
    group: str,
    system: Callable[[], Qemu | Kernel | Tools],
    unpacked: Callable[[Path, str], Qemu | Kernel | Tools],
) -> Finding:
    reasons: list[str] = []
    try:
        return Finding(group, system())
    except PartsError as error:
        reasons.append(str(error))
    if fetched(group).is_dir():
        try:
            return Finding(group, unpacked(fetched(group), "fetched"))
        except PartsError as error:
            reasons.append(str(error))
    return Finding(group, None, " ".join(reasons))


def _fetch(groups: tuple[str, ...], progress: Progress) -> None:
    if platform.machine() != "x86_64":
        raise PartsError(f"This machine is {platform.machine()}; the lab knows x86_64 packages only.")
    home = cache.folder()
    cache.require(_NEEDED_SPACE)
    recipe = recipe_for(this_release())
    apt = updated_apt(progress)
    packages = {group: _own(group, apt.download(recipe.names([group]), progress)) for group in groups}
    (home / "parts").mkdir(exist_ok=True)
    cache.sweep(home / "parts")
    total = sum(len(files) for files in packages.values())
    done = 0
    for group, files in packages.items():
        with cache.replacing_folder(fetched(group)) as draft:
            for file in files:
                progress("unpacking packages", done / total)
                unpack(file, draft)
                done += 1
            for name in _UNWANTED:
                shutil.rmtree(draft / name, ignore_errors=True)
            progress("checking what was unpacked", done / total)
            _verify(group, draft)
    apt.forget()


def updated_apt(progress: Progress, *, own_suite: bool = False) -> PrivateApt:
    """An apt with fresh lists, from the first archive that has the recipe's suites, or with `own_suite` the one
    that this system is of.

    Raises:
        PartsError: this system's family of distributions is not known, or its archive is not.
        FetchError: the archive cannot be reached.
    """
    release = this_release()
    recipe = recipe_for(release)
    if own_suite:
        recipe = replace(recipe, suites=(release.codename,), preferences="")
    failure: FetchError | None = None
    for archive in archives(read_sources(), release):
        apt = PrivateApt(cache.folder() / "apt", recipe.sources(archive), recipe.preferences)
        try:
            apt.update(progress)
            return apt
        except FetchError as error:
            failure = failure or error
    assert failure is not None, "archives() never returns an empty list"
    raise failure


def _own(group: str, packages: list[Path]) -> list[Path]:
    """The packages of a closure that the group is made of: a kernel needs no user space to be booted."""
    return [file for file in packages if group != "kernel" or file.name.startswith("linux-")]


def unpack(package: Path, folder: Path) -> None:
    """Extract a package's files below `folder`. Raises FetchError."""
    result = subprocess.run(
        ["dpkg-deb", "--extract", str(package), str(folder)], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        if "No space left" in result.stderr:
            raise FetchError(
                f"The disk that holds {folder.parent} is full: free about 1 GB, or set SOFTCXL_CACHE."
            )
        detail = (result.stderr.strip().splitlines() or ["dpkg-deb gave no reason"])[-1]
        # a damaged file would be found in the cache again by the next setup
        package.unlink(missing_ok=True)
        raise FetchError(f"{package.name} could not be unpacked: {detail}.")


def _verify(group: str, folder: Path) -> None:
    """Raise PartsError unless the unpacked tree works."""
    match group:
        case "qemu":
            unpacked_qemu(folder, "fetched")
        case "kernel":
            kernel = unpacked_kernel(folder, "fetched")
            if kernel.modules is None or not any(kernel.modules.glob("kernel/drivers/cxl/cxl_*")):
                raise PartsError(f"The fetched kernel {kernel.release} has no CXL modules.")
        case _:
            find_tools(folder, "fetched")


def this_release() -> Release:
    """Which distribution this machine runs; one without a name where it does not say."""
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if os.access(path, os.R_OK):
            return parse_os_release(path.read_text(encoding="utf-8", errors="replace"))
    return Release("", (), "")
