"""The guest's first file system: busybox, the CXL tools with their libraries, modules, and the agent.

Built from the parts, kept in the cache under a key of everything that goes into it.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import subprocess
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from softcxl.lab import cache, cpio, elf
from softcxl.lab.errors import PartsError
from softcxl.lab.modules import ModuleTree, modules_alias, modules_dep
from softcxl.lab.parts import Kernel, Parts, Tools
from softcxl.lab.progress import Progress, silent

EAGER = (
    *("virtio_pci", "virtio_console"),
    *("libnvdimm", "nd_pmem", "cxl_acpi", "cxl_port", "cxl_pci", "cxl_mem", "cxl_pmem"),
    *("dax", "device_dax", "kmem", "dax_cxl", "dax_pmem", "uio_pci_generic"),
)
"""Modules loaded at boot; names a kernel does not have, or has built in, are passed over."""

LAZY = ("9p", "9pnet_virtio", "ext4", "loop", "msr", "virtio_blk", "encrypted_keys", "einj")
"""Modules that are there to be loaded when asked for."""

_FORMAT = "1"
_FOLDERS = (
    "dev",
    "etc",
    "mnt",
    "proc",
    "root",
    "run",
    "share",
    "softcxl",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib",
    "var",
)
_MERGED = {"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib", "usr/sbin": "usr/bin"}
_LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib",
    "usr/sbin": "bin",
    "usr/lib64": "lib",
}


class Tree:
    """Members of an archive by name; folders above a member appear by themselves.

    bin, sbin, lib, lib64 and usr/sbin are links in the guest, so a member named below one lands where it points: the
    kernel would otherwise replace the link by a folder and lose everything behind it.
    """

    def __init__(self) -> None:
        self._entries: dict[str, cpio.Entry] = {}
        for name in _FOLDERS:
            self.folder(name)
        for name, target in _LINKS.items():
            self._entries[name] = cpio.symlink(name, target)

    def folder(self, name: str) -> None:
        """Add a folder and those above it."""
        name = _landing(name)
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            self._entries.setdefault(path, cpio.directory(path))

    def add(self, entry: cpio.Entry) -> None:
        """Add a member; a later one replaces an earlier one of the same name."""
        name = _landing(entry.name)
        if name in _LINKS:
            return
        if stat.S_ISDIR(entry.mode):
            self.folder(name)
            return
        if "/" in name:
            self.folder(posixpath.dirname(name))
        self._entries[name] = cpio.Entry(name, entry.mode, entry.data, entry.device)

    def archive(self) -> bytes:
        """The newc archive."""
        return cpio.archive(self._entries.values())


def initramfs(parts: Parts, overlays: Sequence[Path] = (), progress: Progress = silent) -> Path:
    """The path of an initramfs for these parts, with the contents of the `overlays` folders laid over it in order.

    Raises:
        PartsError: a part is damaged, or an overlay is not a folder that can be read.
        FetchError: the cache cannot be written.
    """
    key = _key(parts, overlays)
    path = cache.folder() / "initramfs" / f"{key}.cpio"
    if path.is_file():
        os.utime(path)
        return path
    progress("building the guest's initramfs")
    tree = Tree()
    _add_programs(tree, parts.tools)
    _add_modules(tree, parts.kernel)
    inside = resources.files("softcxl.lab") / "inside"
    tree.add(cpio.file("init", (inside / "init").read_bytes(), 0o755))
    tree.add(cpio.file("softcxl/agent", (inside / "agent").read_bytes(), 0o755))
    tree.add(cpio.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"))
    tree.add(cpio.file("etc/group", b"root:x:0:\n"))
    # the kernel opens /dev/console before anything is mounted
    tree.add(cpio.character_device("dev/console", 5, 1))
    for overlay in overlays:
        for entry in _overlay(overlay):
            tree.add(entry)
    with cache.replacing_file(path) as draft:
        draft.write_bytes(tree.archive())
    _forget_old(path.parent, keep=8)
    return path


def _add_programs(tree: Tree, tools: Tools) -> None:
    for name, path in tools.programs.items():
        tree.add(cpio.file(f"usr/bin/{name}", path.read_bytes(), 0o755))
    for name, path in elf.libraries(tools.programs.values(), tools.root, tools.libraries).items():
        # the dynamic linker is asked for by its whole path, the rest by name in the default folders
        tree.add(cpio.file(name.lstrip("/") if "/" in name else f"usr/lib/{name}", path.read_bytes(), 0o755))
    for applet in _applets(tools.programs["busybox"]):
        if applet not in tools.programs:
            tree.add(cpio.symlink(f"usr/bin/{applet}", "busybox"))


def _applets(busybox: Path) -> list[str]:
    try:
        result = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PartsError(f"{busybox} does not run: {error}.") from error
    return result.stdout.split()


def _add_modules(tree: Tree, kernel: Kernel) -> None:
    if kernel.modules is None:
        # it may have modules all the same, in an overlay
        tree.add(cpio.file("etc/modules", " ".join(EAGER).encode() + b"\n"))
        return
    everything = ModuleTree(kernel.modules)
    eager = everything.closure(EAGER)
    modules = everything.closure((*EAGER, *LAZY))
    where = f"usr/lib/modules/{kernel.release}"
    for module in modules:
        tree.add(cpio.file(f"{where}/{module.path}", module.image))
    tree.add(cpio.file(f"{where}/modules.dep", modules_dep(modules).encode()))
    tree.add(cpio.file(f"{where}/modules.alias", modules_alias(modules).encode()))
    tree.add(cpio.file("etc/modules", " ".join(module.name for module in eager).encode() + b"\n"))


def _overlay(folder: Path) -> Iterator[cpio.Entry]:
    if not folder.is_dir():
        raise PartsError(f"The overlay {folder} is not a folder.")
    try:
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                yield cpio.symlink(name, str(path.readlink()))
            elif stat.S_ISDIR(mode):
                yield cpio.directory(name, stat.S_IMODE(mode))
            elif stat.S_ISREG(mode):
                yield cpio.file(name, path.read_bytes(), stat.S_IMODE(mode))
    except OSError as error:
        raise PartsError(f"The overlay {folder} cannot be read: {error}.") from error


def _key(parts: Parts, overlays: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    inside = resources.files("softcxl.lab") / "inside"
    told = [_FORMAT, repr(EAGER), repr(LAZY), parts.kernel.release, str(parts.kernel.modules)]
    told += [(inside / name).read_text() for name in ("init", "agent")]
    looked_at = [parts.kernel.image, *parts.tools.programs.values()]
    for overlay in overlays:
        told.append(str(overlay.absolute()))
        looked_at += sorted(overlay.rglob("*"))
    for path in looked_at:
        facts = path.lstat()
        told.append(f"{path} {facts.st_mode} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}")
    for text in told:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:24]


def _forget_old(folder: Path, keep: int) -> None:
    files = sorted(folder.glob("*.cpio"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[keep:]:
        path.unlink(missing_ok=True)


def _landing(name: str) -> str:
    for link in sorted(_MERGED, key=len, reverse=True):
        if name.startswith(link + "/"):
            return _MERGED[link] + name[len(link) :]
    return name
