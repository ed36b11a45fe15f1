"""Small ELF files for tests, put together field by field from the ELF-64 tables of the System V ABI."""

from __future__ import annotations

import struct


def shared_object(needed: list[str], runpath: str = "", interpreter: str = "") -> bytes:
    """A file with program headers PT_LOAD, PT_DYNAMIC and, if asked, PT_INTERP; loaded at address 0x400000."""
    strings, offsets = b"\0", []
    for text in [*needed, runpath]:
        offsets.append(len(strings))
        strings += text.encode() + b"\0"
    start = 64 + 56 * 3
    dynamic_at = start + len(strings)
    entries = [(1, offset) for offset in offsets[:-1]] + ([(29, offsets[-1])] if runpath else [])
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in [*entries, (5, 0x400000 + start), (0, 0)])
    interp = interpreter.encode() + b"\0" if interpreter else b""
    interp_at = dynamic_at + len(dynamic)
    total = interp_at + len(interp)
    headers = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, total, total, 0x1000)
    headers += struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, 0, 0, len(dynamic), len(dynamic), 8)
    headers += struct.pack("<IIQQQQQQ", 3 if interp else 0, 4, interp_at, 0, 0, len(interp), len(interp), 1)
    return _header(phoff=64, phnum=3) + headers + strings + dynamic + interp


def module(**info: str | list[str]) -> bytes:
    """A relocatable file with a .modinfo section holding these keys."""
    lines = [
        (key, value)
        for key, values in info.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    modinfo = b"".join(f"{key}={value}".encode() + b"\0" for key, value in lines)
    names = b"\0.modinfo\0.shstrtab\0"
    names_at = 64 + len(modinfo)
    table_at = names_at + len(names)
    table = bytes(64)
    table += struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64, len(modinfo), 0, 0, 1, 0)
    table += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    return _header(shoff=table_at, shnum=3, shstrndx=2) + modinfo + names + table


def _header(phoff: int = 0, phnum: int = 0, shoff: int = 0, shnum: int = 0, shstrndx: int = 0) -> bytes:
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return ident + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, phoff, shoff, 0, 64, 56, phnum, 64, shnum, shstrndx
    )
