"""sysfs of a host in this process: names and values of the kernel's ABI, to read and, where it allows that, to write.

>>> from softcxl import Fabric
>>> with Fabric.load("examples/two-devices.yaml") as fabric:
...     system = fabric.hosts["alpha"].boot()
...     system.sysfs["bus/cxl/devices/mem0/serial"]
'0xc0ffee01'
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from softcxl.host.sysfs import cxl, debug, memory, pci
from softcxl.host.sysfs.node import Attribute, Directory, Entry, Link, SysfsError

if TYPE_CHECKING:
    from softcxl.host.system import System

__all__ = ["Sysfs", "SysfsError"]

_LINKS = 40
"""As many links as the kernel follows before ELOOP."""


class Sysfs:
    """/sys as the system has it now. Paths are below /sys, or begin with it; links are followed.

    Reading and writing raise `SysfsError`, an `OSError` whose errno is the kernel's: ENOENT for what is not there,
    EACCES for a file without that permission, and what a driver refuses with.
    """

    def __init__(self, system: System) -> None:
        self.system = system

    def __getitem__(self, path: str) -> str:
        """The text of an attribute, without the newline at its end."""
        return self.read_bytes(path).decode("utf-8", "replace").removesuffix("\n")

    def __setitem__(self, path: str, text: str | int) -> None:
        """Write an attribute."""
        found = self._attribute(path)
        if found.store is None:
            raise _at(path, SysfsError(errno.EACCES, "it is not to be written"))
        try:
            found.store(str(text).removesuffix("\n"))
        except SysfsError as error:
            raise _at(path, error) from None

    def __contains__(self, path: str) -> bool:
        try:
            self.entry(path)
        except SysfsError:
            return False
        return True

    def read_bytes(self, path: str) -> bytes:
        """An attribute as its file has it: text with a newline at its end, or binary (CDAT, config)."""
        found = self._attribute(path)
        if found.show is None:
            raise _at(path, SysfsError(errno.EACCES, "it is not to be read"))
        try:
            shown = found.show()
        except SysfsError as error:
            raise _at(path, error) from None
        return shown if isinstance(shown, bytes) else f"{shown}\n".encode()

    def list(self, path: str = "") -> list[str]:
        """The names in a directory, in order."""
        found = self.entry(path)
        if not isinstance(found, Directory):
            raise _at(path, SysfsError(errno.ENOTDIR, "it is no directory"))
        return sorted(found.entries(), key=_natural)

    def link(self, path: str) -> str:
        """Where a link leads, as a path below /sys."""
        above, _, name = _clean(path).rpartition("/")
        found = self.entry(above, path)
        one = found.entries().get(name) if isinstance(found, Directory) else None
        if not isinstance(one, Link):
            raise _at(path, SysfsError(errno.EINVAL, "it is no link"))
        return one.target

    def entry(self, path: str, asked: str | None = None) -> Entry:
        """What is at a path: an attribute or a directory."""
        where: Entry = self._root()
        parts = [part for part in _clean(path).split("/") if part]
        links = 0
        while parts:
            name = parts.pop(0)
            if not isinstance(where, Directory):
                raise _at(asked or path, SysfsError(errno.ENOTDIR, f"{name} is asked for in what is a file"))
            found = where.entries().get(name)
            if found is None:
                raise _at(asked or path, SysfsError(errno.ENOENT, f"there is no {name}"))
            if isinstance(found, Link):
                links += 1
                if links > _LINKS:
                    raise _at(asked or path, SysfsError(errno.ELOOP, "too many links"))
                parts = found.target.split("/") + parts
                where = self._root()
            else:
                where = found
        return where

    def walk(self, path: str = "bus/cxl/devices") -> Iterator[tuple[str, Attribute | Link]]:
        """Every attribute and link below a directory, with its path from there; of `path` itself an empty one.

        As ``grep -r . /sys/bus/cxl/devices/*/`` goes: into the devices that the directory lists or links to, not
        into the devices inside those.
        """
        found = self.entry(path)
        if isinstance(found, Directory):
            yield from self._walk(found, "", top=not found.device)
        else:
            assert isinstance(found, Attribute)
            yield "", found

    def tree(self, path: str = "bus/cxl/devices") -> Any:
        """The same as nested dictionaries: texts of attributes, {"link": path} for links, {"errno": name} for what
        refuses to be read, None for what cannot be."""
        answer: Any = {}
        for where, one in self.walk(path):
            shown = shown_of(one)
            if not where:
                return shown
            *above, name = where.split("/")
            inside = answer
            for part in above:
                inside = inside.setdefault(part, {})
            inside[name] = shown
        return answer

    def _walk(self, found: Directory, where: str, *, top: bool) -> Iterator[tuple[str, Attribute | Link]]:
        entries = found.entries()
        for name in sorted(entries, key=_natural):
            one, path = entries[name], f"{where}{name}"
            if isinstance(one, Link) and top:
                inside = self.entry(one.target)
                assert isinstance(inside, Directory)
                yield from self._walk(inside, f"{path}/", top=False)
            elif isinstance(one, Directory):
                if top or not one.device:
                    yield from self._walk(one, f"{path}/", top=top and not one.device)
            else:
                yield path, one

    def _attribute(self, path: str) -> Attribute:
        found = self.entry(path)
        if not isinstance(found, Attribute):
            raise _at(path, SysfsError(errno.EISDIR, "it is a directory"))
        return found

    def _root(self) -> Directory:
        system = self.system
        return Directory(
            lambda: {
                "bus": Directory(
                    lambda: {
                        "cxl": cxl.bus(system),
                        "dax": cxl.dax_bus(system),
                        "memory": memory.memory_bus(system),
                        "node": memory.node_bus(system),
                        "pci": pci.bus(system),
                    }
                ),
                "devices": Directory(
                    lambda: {
                        **pci.buses(system),
                        "platform": Directory(lambda: {"ACPI0017:00": cxl.acpi(system)}),
                        "system": Directory(
                            lambda: {"memory": memory.memory(system), "node": memory.nodes(system)}
                        ),
                    }
                ),
                "kernel": Directory(lambda: {"debug": Directory(lambda: {"cxl": debug.cxl(system)})}),
            }
        )


def shown_of(one: Attribute | Link) -> Any:
    """An attribute or link as JSON has it (see `Sysfs.tree`)."""
    if isinstance(one, Link):
        return {"link": one.target}
    if one.show is None:
        return None
    try:
        shown = one.show()
    except SysfsError as error:
        return {"errno": error.name}
    return shown.hex() if isinstance(shown, bytes) else shown


def _clean(path: str) -> str:
    return path.removeprefix("/sys").strip("/")


def _at(path: str, error: SysfsError) -> SysfsError:
    error.filename = f"/sys/{_clean(path)}"
    return error


def _natural(name: str) -> tuple[str, int, str]:
    """decoder1.2 before decoder1.10, and mem2 before mem10."""
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    return stem, int(digits) if digits else -1, name
