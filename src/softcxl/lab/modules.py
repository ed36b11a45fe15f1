"""Kernel modules: which depend on which, read from the modules themselves.

A kernel package carries no modules.dep (it is made when the package is installed), so dependencies come from each
module's own `.modinfo` section, the same place depmod takes them from.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from softcxl.lab import elf
from softcxl.lab.errors import PartsError


@dataclass(frozen=True)
class Module:
    """One module: its name with underscores, its path below the modules folder, its uncompressed ELF image."""

    name: str
    path: str
    image: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


class ModuleTree:
    """The modules of one kernel, found by name, read when asked for."""

    def __init__(self, folder: Path) -> None:
        """`folder` is lib/modules/RELEASE, holding `kernel/`."""
        self._folder = folder
        self._files = {_name(path): path for path in sorted((folder / "kernel").rglob("*.ko*"))}
        builtin = folder / "modules.builtin"
        lines = builtin.read_text().splitlines() if builtin.is_file() else []
        self._builtin = {_name(Path(line)) for line in lines}

    def closure(self, names: Iterable[str]) -> list[Module]:
        """The modules `names` and all they depend on, dependencies first.

        Built-in ones, and ones this kernel does not have at all, are left out.

        Raises:
            PartsError: a module depends on one that is not there, or a file is damaged.
        """
        ordered: dict[str, Module] = {}
        for name in names:
            self._add(name.replace("-", "_"), ordered, required=False)
        return list(ordered.values())

    def _add(self, name: str, ordered: dict[str, Module], *, required: bool) -> None:
        if name in ordered or name in self._builtin:
            return
        path = self._files.get(name)
        if path is None:
            if required:
                raise PartsError(f"The kernel module {name} is not below {self._folder}, and others need it.")
            return
        module = self._read(name, path)
        for other in module.depends:
            self._add(other, ordered, required=True)
        for other in _info(module.image, "softdep", name):
            for soft in other.partition("pre:")[2].partition("post:")[0].split():
                self._add(soft.replace("-", "_"), ordered, required=False)
        ordered[name] = module

    def _read(self, name: str, path: Path) -> Module:
        image = _decompressed(path)
        depends = [
            one.replace("-", "_") for line in _info(image, "depends", name) for one in line.split(",") if one
        ]
        relative = path.relative_to(self._folder)
        plain = relative.with_name(relative.name.partition(".ko")[0] + ".ko")
        return Module(name, str(plain), image, tuple(depends), tuple(_info(image, "alias", name)))


def modules_dep(modules: Iterable[Module]) -> str:
    """A modules.dep(5) for these modules: each with all it needs, nearest first."""
    known = {module.name: module for module in modules}
    lines: list[str] = []
    for module in known.values():
        needed: list[str] = []
        _needs(module, known, needed)
        lines.append(f"{module.path}: {' '.join(reversed(needed))}".rstrip())
    return "\n".join(lines) + "\n"


def modules_alias(modules: Iterable[Module]) -> str:
    """A modules.alias for these modules, by which the kernel asks for a file system or a driver."""
    return "".join(f"alias {alias} {module.name}\n" for module in modules for alias in module.aliases)


def _needs(module: Module, known: dict[str, Module], needed: list[str]) -> None:
    for name in module.depends:
        other = known.get(name)
        if other is not None and other.path not in needed:
            _needs(other, known, needed)
            needed.append(other.path)


def _info(image: bytes, key: str, name: str) -> list[str]:
    prefix = key.encode() + b"="
    fields = elf.section(image, ".modinfo", name).split(b"\0")
    return [field[len(prefix) :].decode(errors="replace") for field in fields if field.startswith(prefix)]


def _decompressed(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        match path.suffix:
            case ".xz":
                return lzma.decompress(data)
            case ".gz":
                return gzip.decompress(data)
            case ".zst":
                return _zstd(data, path)
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise PartsError(f"{path} cannot be decompressed: {error}.") from error
    return data


def _zstd(data: bytes, path: Path) -> bytes:
    if shutil.which("zstd") is None:
        raise PartsError(f"{path} is compressed with zstd: install the zstd program.")
    result = subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=False)
    if result.returncode != 0:
        raise PartsError(f"{path} cannot be decompressed: {result.stderr.decode(errors='replace').strip()}.")
    return result.stdout


def _name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")
