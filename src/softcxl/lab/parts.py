"""What a guest is made of: QEMU, a kernel with its modules, and the programs inside.

Each part is looked for in three places: an environment variable, the system, the lab's cache (see setup).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from softcxl.lab.errors import PartsError

OLDEST_QEMU = (10, 1)
OLDEST_TOOLS = 80
OLDEST_SYSTEM_KERNEL = (6, 12)
PROGRAMS = ("busybox", "cxl", "daxctl", "ndctl", "mkfs.ext4")
_PROGRAM_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin")
_LIBRARY_FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib64",
    "lib64",
    "usr/lib",
    "lib",
)


@dataclass(frozen=True)
class Qemu:
    """A QEMU to start.

    `command` is how, several words when it brings its own C library; `data` are its firmware folders.
    """

    command: tuple[str, ...]
    version: tuple[int, int, int]
    origin: str
    data: tuple[Path, ...] = ()
    environment: dict[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"QEMU {'.'.join(map(str, self.version))} ({self.origin}, {self.command[-1]})"


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot. `modules` is the folder that holds `kernel/`, None when everything is built in."""

    image: Path
    modules: Path | None
    release: str
    origin: str

    def __str__(self) -> str:
        built_in = "" if self.modules else ", no modules"
        return f"Linux {self.release} ({self.origin}, {self.image}{built_in})"


@dataclass(frozen=True)
class Tools:
    """Programs for the guest's inside. Their libraries are looked up below `root`."""

    root: Path
    programs: dict[str, Path] = field(hash=False)
    origin: str

    @property
    def libraries(self) -> tuple[Path, ...]:
        """Folders to look for shared libraries in, existing ones only."""
        return tuple(self.root / name for name in _LIBRARY_FOLDERS if (self.root / name).is_dir())

    def __str__(self) -> str:
        return f"{', '.join(sorted(self.programs))} ({self.origin}, {self.root})"


@dataclass(frozen=True)
class Parts:
    """Everything a guest needs."""

    qemu: Qemu
    kernel: Kernel
    tools: Tools


def kernel_release(image: Path) -> str:
    """The version inside a bzImage, such as "7.2.12".

    Raises:
        PartsError: the file cannot be read or is no bzImage (Documentation/arch/x86/boot.rst: "HdrS" at 0x202).
    """
    try:
        with image.open("rb") as file:
            head = file.read(0x210)
            if head[0x202:0x206] != b"HdrS":
                raise PartsError(
                    f"{image} is not a Linux kernel image: a bzImage is wanted (arch/x86/boot/bzImage)."
                )
            file.seek(0x200 + int.from_bytes(head[0x20E:0x210], "little"))
            return file.read(256).partition(b"\0")[0].split(b" ")[0].decode("ascii", "replace") or "unknown"
    except OSError as error:
        raise PartsError(f"The kernel {image} cannot be read: {error.strerror}.") from error


def given_kernel(image: Path) -> Kernel:
    """A kernel the user names; its modules are taken from the usual places if its release is found there."""
    release = kernel_release(image)
    beside = image.parent if (image.parent / "kernel").is_dir() else None
    return Kernel(image, beside or _modules(Path("/"), release), release, "given")


def unpacked_kernel(root: Path, origin: str) -> Kernel:
    """The newest kernel of an unpacked tree. Raises PartsError if there is none."""
    found = [*root.glob("usr/lib/modules/*/vmlinuz"), *root.glob("boot/vmlinuz-*")]
    if not found:
        raise PartsError(f"There is no kernel below {root}.")
    kernels = [
        Kernel(image, _modules(root, release := kernel_release(image)), release, origin) for image in found
    ]
    return max(kernels, key=lambda kernel: _numbers(kernel.release))


def unpacked_qemu(root: Path, origin: str) -> Qemu:
    """The QEMU of an unpacked tree, started through that tree's own dynamic linker."""
    program = root / "usr/bin/qemu-system-x86_64"
    linkers = [root / folder / "ld-linux-x86-64.so.2" for folder in ("usr/lib64", "lib64")]
    linker = next((path for path in linkers if path.is_file()), None)
    if linker is None or not program.is_file():
        raise PartsError(f"There is no whole QEMU below {root}.")
    libraries = ":".join(str(root / name) for name in _LIBRARY_FOLDERS[:2] if (root / name).is_dir())
    modules = root / "usr/lib/x86_64-linux-gnu/qemu"
    command = (str(linker), "--library-path", libraries, str(program))
    data = (root / "usr/share/qemu", root / "usr/share/seabios")
    return _probed(command, origin, data, {"QEMU_MODULE_DIR": str(modules)})


def system_qemu() -> Qemu:
    """The QEMU of SOFTCXL_QEMU, else of PATH. Raises PartsError if absent, too old or without vfio-user."""
    given = os.environ.get("SOFTCXL_QEMU")
    program = given or shutil.which("qemu-system-x86_64")
    if not program:
        raise PartsError("qemu-system-x86_64 is not installed.")
    return _probed((program,), "SOFTCXL_QEMU" if given else "system")


def system_kernel() -> Kernel:
    """The kernel of SOFTCXL_KERNEL, else the newest installed one that can be read, is new enough and has CXL."""
    given = os.environ.get("SOFTCXL_KERNEL")
    if given:
        return given_kernel(Path(given).expanduser().absolute())
    refusals: list[str] = []
    for image in (*Path("/boot").glob("vmlinuz-*"), *Path("/usr/lib/modules").glob("*/vmlinuz")):
        try:
            release = kernel_release(image)
        except PartsError as error:
            refusals.append(str(error))
            continue
        modules = _modules(Path("/"), release)
        if _numbers(release)[:2] < OLDEST_SYSTEM_KERNEL:
            wanted = ".".join(map(str, OLDEST_SYSTEM_KERNEL))
            refusals.append(f"{image} is {release}, older than {wanted}.")
        elif modules is None or not any(modules.glob("kernel/drivers/cxl/cxl_*")):
            refusals.append(f"{image} has no CXL modules.")
        else:
            return Kernel(image, modules, release, "system")
    raise PartsError(" ".join(refusals) or "No kernel image is installed.")


def find_tools(root: Path, origin: str) -> Tools:
    """PROGRAMS below `root`. Raises PartsError naming those that are absent or too old."""
    programs = {name: path for name in PROGRAMS if (path := _program(root, name))}
    absent = [name for name in PROGRAMS if name not in programs]
    if absent:
        raise PartsError(f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed.")
    if root == Path("/"):
        version = _first_line([str(programs["cxl"]), "version"])
        if (_numbers(version) or (0,))[0] < OLDEST_TOOLS:
            raise PartsError(
                f"The installed cxl is version {version or 'unknown'}, older than {OLDEST_TOOLS}."
            )
        if b"\0ld-linux" in programs["busybox"].read_bytes()[:0x1000].replace(b"/lib64/", b"\0"):
            raise PartsError("The installed busybox is not static.")
    return Tools(root, programs, origin)


def _probed(
    command: tuple[str, ...],
    origin: str,
    data: tuple[Path, ...] = (),
    environment: dict[str, str] | None = None,
) -> Qemu:
    line = _first_line([*command, "-version"], environment)
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", line)
    if not found:
        raise PartsError(f"{command[-1]} does not run.")
    version = (int(found[1]), int(found[2]), int(found[3]))
    if version[:2] < OLDEST_QEMU:
        wanted = ".".join(map(str, OLDEST_QEMU))
        raise PartsError(
            f"{command[-1]} is version {found[1]}.{found[2]}.{found[3]}; vfio-user needs {wanted} or later."
        )
    if not _first_line([*command, "-device", "vfio-user-pci,help"], environment).startswith("vfio-user-pci"):
        raise PartsError(f"{command[-1]} was built without vfio-user-pci.")
    return Qemu(command, version, origin, data, environment or {})


def _first_line(command: list[str], environment: dict[str, str] | None = None) -> str:
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **(environment or {})},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip().partition("\n")[0]


def _program(root: Path, name: str) -> Path | None:
    return next((path for folder in _PROGRAM_FOLDERS if (path := root / folder / name).is_file()), None)


def _modules(root: Path, release: str) -> Path | None:
    folders: Iterator[Path] = (root / prefix / release for prefix in ("usr/lib/modules", "lib/modules"))
    return next((path for path in folders if (path / "kernel").is_dir()), None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
