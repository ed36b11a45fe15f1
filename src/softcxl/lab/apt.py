"""Packages without root: an apt of our own beside the machine's.

apt-get runs with its state, cache and source list in a folder of ours and an empty list of installed packages,
so it resolves whole dependency closures and installs nothing. Of the machine's configuration only the `Acquire`
settings (proxies, retries, certificates) are kept: its hooks must not run for a private update.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from softcxl.lab.errors import FetchError, PartsError
from softcxl.lab.progress import Progress, silent

_NETWORK = re.compile(
    r"could not (?:resolve|connect)|unable to connect|temporary failure|connection (?:failed|refused|timed out|reset)"
    r"|network is unreachable|no route to host|certificate|403 |407 |502 |503 ",
    re.IGNORECASE,
)
_DROPPED = ("Acquire::IndexTargets", "Acquire::CompressionTypes", "Acquire::Languages", "Acquire::Changelogs")


class PrivateApt:
    """apt-get with everything it writes below `folder`."""

    def __init__(self, folder: Path, sources: str, preferences: str) -> None:
        """Lay out `folder` with these deb822 `sources` and apt_preferences(5) `preferences`.

        Raises:
            PartsError: apt-get or dpkg-deb is not installed.
            FetchError: the folder cannot be written.
        """
        for tool in ("apt-get", "apt-config", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise PartsError(
                    f"{tool} is not here, so packages cannot be fetched: install QEMU 10.1 or later, cxl, daxctl, ndctl"
                    " and a static busybox with this system's own package tool, and name a kernel with --kernel."
                )
        self._folder = folder
        try:
            for name in (
                "state/lists/partial",
                "cache/archives/partial",
                "cache/none/partial",
                "sources",
                "parts",
                "preferences.d",
            ):
                (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / "status").write_text("")
            (folder / "sources" / "lab.sources").write_text(sources)
            (folder / "preferences").write_text(preferences)
            (folder / "parts" / "50host").write_text(acquire_settings(_dump()))
            (folder / "apt.conf").write_text(self._configuration())
        except OSError as error:
            raise FetchError(f"{folder} cannot be written: {error.strerror}.") from error

    @property
    def archives(self) -> Path:
        """Where downloaded packages lie."""
        return self._folder / "cache" / "archives"

    def update(self, progress: Progress = silent) -> None:
        """Fetch the package lists. Raises FetchError."""
        self._run(["update"], "reading package lists", progress)

    def download(self, packages: Sequence[str], progress: Progress = silent) -> list[Path]:
        """Fetch `packages` and everything they depend on; half-fetched files are taken up where they were left.

        Returns the package files. Raises FetchError.
        """
        # apt leaves out of this listing what is downloaded already, so it is made to look into an empty folder
        nothing = f"Dir::Cache::archives={self._folder / 'cache' / 'none'}"
        listing = self._run(
            ["-o", nothing, "--print-uris", "install", *packages], "choosing packages", progress
        )
        names = re.findall(r"^'[^']*' (\S+\.deb) ", listing, re.MULTILINE)
        self._run(["--download-only", "install", *packages], "fetching packages", progress)
        missing = [name for name in names if not (self.archives / name).is_file()]
        if missing or not names:
            raise FetchError(
                f"apt said it fetched the packages, but these are absent: {', '.join(missing) or 'all'}."
            )
        return [self.archives / name for name in names]

    def forget(self) -> None:
        """Drop the packages and the package lists; a later use fetches them again."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _configuration(self) -> str:
        here = self._folder
        settings = {
            "Dir::State": here / "state",
            "Dir::State::status": here / "status",
            "Dir::Cache": here / "cache",
            "Dir::Etc::main": here / "none.conf",
            "Dir::Etc::parts": here / "parts",
            "Dir::Etc::sourcelist": here / "none.list",
            "Dir::Etc::sourceparts": here / "sources",
            "Dir::Etc::preferences": here / "preferences",
            "Dir::Etc::preferencesparts": here / "preferences.d",
            "Dir::Log": here / "log",
            "APT::Install-Recommends": "0",
            "APT::Update::Error-Mode": "any",
            # root's apt would hand downloads to a user who cannot read our folder
            "APT::Sandbox::User": _user(),
            "APT::Get::Assume-Yes": "1",
            "Acquire::Languages": "none",
            "Acquire::PDiffs": "0",
            "Acquire::Retries": "2",
            # our own lock covers apt's, which wants root's folders
            "Debug::NoLocking": "1",
        }
        return "".join(f'{key} "{value}";\n' for key, value in settings.items())

    def _run(self, arguments: Sequence[str], step: str, progress: Progress) -> str:
        progress(step)
        command = ["apt-get", "-qq", *arguments]
        environment = {
            **os.environ,
            "APT_CONFIG": str(self._folder / "apt.conf"),
            "LC_ALL": "C",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            read_end, write_end = os.pipe()
            with os.fdopen(read_end, encoding="utf-8", errors="replace") as status:
                try:
                    process = subprocess.Popen(
                        [*command, "-o", f"APT::Status-Fd={write_end}"],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=complaints,
                        pass_fds=(write_end,),
                        env=environment,
                    )
                except OSError as error:
                    raise FetchError(f"apt-get cannot be started: {error}.") from error
                finally:
                    os.close(write_end)
                try:
                    for line in status:
                        fields = line.split(":")
                        if fields[0] == "dlstatus" and len(fields) >= 3:
                            progress(step, min(1.0, float(fields[2]) / 100))
                    code = process.wait()
                finally:
                    if process.poll() is None:
                        process.kill()
                        process.wait()
            output.seek(0)
            complaints.seek(0)
            if code != 0:
                raise FetchError(explain(step, complaints.read().decode(errors="replace"), self._folder))
            return output.read().decode(errors="replace")


def acquire_settings(dump: str) -> str:
    """The `Acquire` lines of an `apt-config dump`, less those that decide which indexes and languages are fetched."""
    kept = [
        line for line in dump.splitlines() if line.startswith("Acquire::") and not line.startswith(_DROPPED)
    ]
    return "\n".join(kept) + "\n"


def explain(step: str, complaints: str, folder: Path) -> str:
    """One sentence for what apt-get wrote to its standard error."""
    lines = [line[3:].strip() for line in complaints.splitlines() if line.startswith("E: ")]
    detail = (lines or complaints.strip().splitlines() or ["apt-get gave no reason"])[0].rstrip(".")
    if "No space left on device" in complaints or "enough free space" in complaints:
        return f"The disk that holds {folder} is full: free about 1 GB, or point SOFTCXL_CACHE elsewhere."
    absent = re.search(
        r"Unable to locate package (\S+)|Package '?(\S+?)'? has no installation candidate", complaints
    )
    if absent:
        return f"The package archive has no {absent[1] or absent[2]}: its mirror may be partial or too old."
    if _NETWORK.search(complaints):
        return (
            f"The package archive cannot be reached while {step} ({detail}):"
            " is there a network, or a proxy to set in apt?"
        )
    return f"apt-get failed while {step}: {detail}."


def _dump() -> str:
    result = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    return result.stdout if result.returncode == 0 else ""


def _user() -> str:
    return "root" if os.geteuid() == 0 else ""
