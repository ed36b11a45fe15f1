"""ELF files read as the dynamic linker reads them: small ones made here, and this Python against ld.so itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from softcxl.lab import elf
from softcxl.lab.errors import PartsError
from tests.lab.elves import module, shared_object

LINKER = Path("/lib64/ld-linux-x86-64.so.2")


def test_linkage() -> None:
    image = shared_object(
        ["libc.so.6", "libm.so.6"], runpath="/usr/lib/private:/opt", interpreter="/lib64/ld.so"
    )
    assert elf.linkage(image) == elf.Linkage(
        "/lib64/ld.so", ("libc.so.6", "libm.so.6"), ("/usr/lib/private", "/opt")
    )


def test_static_program_links_nothing() -> None:
    assert elf.linkage(module()) == elf.Linkage(None, (), ())


def test_section() -> None:
    image = module(license="GPL", depends="a,b")
    assert elf.section(image, ".modinfo") == b"license=GPL\0depends=a,b\0"
    assert elf.section(image, ".text") == b""


@pytest.mark.parametrize(
    "image", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(80), shared_object(["x"])[:100]]
)
def test_other_files_are_refused(image: bytes) -> None:
    with pytest.raises(PartsError, match=r"thing is not a 64-bit little-endian ELF file, or a damaged one"):
        elf.linkage(image, "thing")


def test_libraries_are_followed(tmp_path: Path) -> None:
    lib, private = tmp_path / "lib", tmp_path / "opt/private"
    lib.mkdir()
    private.mkdir(parents=True)
    program = tmp_path / "program"
    program.write_bytes(shared_object(["liba.so", "libc.so"], "/opt/private", "/lib64/ld.so"))
    (private / "liba.so").write_bytes(shared_object(["libb.so", "libc.so"]))
    (lib / "libb.so").write_bytes(shared_object(["liba.so"]))
    (lib / "libc.so").write_bytes(shared_object([]))
    (lib / "ld.so").write_bytes(shared_object([]))
    # libb needs liba too, but only the program's run path leads there: found once is found
    assert elf.libraries([program], tmp_path, [lib]) == {
        "/lib64/ld.so": lib / "ld.so",
        "liba.so": private / "liba.so",
        "libb.so": lib / "libb.so",
        "libc.so": lib / "libc.so",
    }


def test_missing_library_is_named(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(shared_object(["libgone.so.1"]))
    with pytest.raises(PartsError, match=r"program needs the library libgone\.so\.1, which is in none of"):
        elf.libraries([program], tmp_path, [tmp_path])


@pytest.mark.skipif(not LINKER.exists(), reason="another C library")
def test_agrees_with_the_dynamic_linker() -> None:
    program = Path(sys.executable).resolve()
    listing = subprocess.run([LINKER, "--list", program], capture_output=True, text=True, check=True).stdout
    told = {line.split()[0]: Path(line.split()[2]) for line in listing.splitlines() if "=>" in line}
    found = elf.libraries([program], Path("/"), list(dict.fromkeys(path.parent for path in told.values())))
    assert {name: path.resolve() for name, path in found.items() if "ld-linux" not in name} == {
        name: path.resolve() for name, path in told.items()
    }
