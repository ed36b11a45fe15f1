"""Reading the few things of an ELF file that an initramfs builder needs, and finding a program's libraries.

Source: System V ABI, ELF-64 object file format; 64-bit little-endian files only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from softcxl.lab.errors import PartsError

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC = struct.Struct("<qQ")


@dataclass(frozen=True)
class Linkage:
    """What the dynamic linker is asked for: the linker itself, library names, and extra folders."""

    interpreter: str | None
    needed: tuple[str, ...]
    runpath: tuple[str, ...]


def linkage(image: bytes, name: str = "file") -> Linkage:
    """The linkage of a program or library; empty for a static one.

    Raises:
        PartsError: not an ELF file of the right kind, or a damaged one. `name` says which, for the message.
    """
    try:
        return _linkage(image)
    except (struct.error, ValueError, IndexError) as error:
        raise PartsError(f"{name} is not a 64-bit little-endian ELF file, or a damaged one.") from error


def section(image: bytes, wanted: str, name: str = "file") -> bytes:
    """The contents of a section, empty if there is none of that name. Raises PartsError as `linkage` does."""
    try:
        _check(image)
        (offset,) = struct.unpack_from("<Q", image, 40)
        size, count, names_index = struct.unpack_from("<HHH", image, 58)
        headers = [_SECTION.unpack_from(image, offset + index * size) for index in range(count)]
        if not headers:
            return b""
        names = _slice(image, headers[names_index])
        for header in headers:
            if _string(names, header[0]) == wanted:
                return _slice(image, header)
        return b""
    except (struct.error, ValueError, IndexError) as error:
        raise PartsError(f"{name} is not a 64-bit little-endian ELF file, or a damaged one.") from error


def libraries(programs: Iterable[Path], root: Path, folders: Sequence[Path]) -> dict[str, Path]:
    """Every library the programs need, directly or not, by the path or name it must have in the guest.

    Keys are bare library names and, for the dynamic linker, its absolute path. Run paths are taken below `root`.

    Raises:
        PartsError: a library is in none of `folders`, or a file is no ELF file.
    """
    found: dict[str, Path] = {}
    waiting = [(path, linkage(path.read_bytes(), str(path))) for path in programs]
    while waiting:
        path, links = waiting.pop()
        if links.interpreter and links.interpreter not in found:
            found[links.interpreter] = _locate(Path(links.interpreter).name, folders, path)
        for name in links.needed:
            if name not in found:
                extra = [root / folder.lstrip("/") for folder in links.runpath if "$" not in folder]
                found[name] = _locate(name, (*extra, *folders), path)
                waiting.append((found[name], linkage(found[name].read_bytes(), name)))
    return found


def _locate(name: str, folders: Sequence[Path], needed_by: Path) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise PartsError(
        f"{needed_by} needs the library {name}, which is in none of {', '.join(map(str, folders))}."
    )


def _linkage(image: bytes) -> Linkage:
    _check(image)
    (offset,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    headers = [_PROGRAM.unpack_from(image, offset + index * size) for index in range(count)]
    interpreter: str | None = None
    entries: list[tuple[int, int]] = []
    for kind, _, start, _, _, length, _, _ in headers:
        if kind == _PT_INTERP:
            interpreter = image[start : start + length].rstrip(b"\0").decode()
        elif kind == _PT_DYNAMIC:
            entries = [(tag, value) for tag, value in _DYNAMIC.iter_unpack(image[start : start + length])]
    tables = [value for tag, value in entries if tag == _DT_STRTAB]
    if not tables:
        return Linkage(interpreter, (), ())
    # the table's address is one in memory: the loaded segment around it says where it is in the file
    strings = next(
        image[tables[0] - address + start :]
        for kind, _, start, address, _, length, _, _ in headers
        if kind == _PT_LOAD and address <= tables[0] < address + length
    )
    paths = [_string(strings, value) for tag, value in entries if tag in (_DT_RPATH, _DT_RUNPATH)]
    return Linkage(
        interpreter,
        tuple(_string(strings, value) for tag, value in entries if tag == _DT_NEEDED),
        tuple(folder for path in paths for folder in path.split(":") if folder),
    )


def _check(image: bytes) -> None:
    if image[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not ELF-64 little-endian")


def _slice(image: bytes, header: tuple[int, ...]) -> bytes:
    return image[header[4] : header[4] + header[5]]


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()
