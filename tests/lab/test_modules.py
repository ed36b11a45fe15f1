"""Kernel modules and what they need, as depmod would say it."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from softcxl.lab.errors import PartsError
from softcxl.lab.modules import ModuleTree, modules_alias, modules_dep
from tests.lab.elves import module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    drivers = tmp_path / "kernel/drivers/cxl"
    drivers.mkdir(parents=True)
    (drivers / "cxl_pci.ko.xz").write_bytes(
        lzma.compress(module(depends="cxl_core", alias="pci:v*d*bc05sc02i10*"))
    )
    (drivers / "cxl-core.ko").write_bytes(module(depends="einj-core", softdep="pre: cxl_port post: cxl_late"))
    (drivers / "cxl_port.ko.gz").write_bytes(gzip.compress(module(depends="")))
    (drivers / "einj-core.ko").write_bytes(module())
    (drivers / "cxl_lost.ko").write_bytes(module(depends="gone"))
    (tmp_path / "modules.builtin").write_text("kernel/drivers/dax/dax.ko\n")
    return tmp_path


def test_closure_has_dependencies_first(folder: Path) -> None:
    closure = ModuleTree(folder).closure(["cxl_pci", "dax", "not_there", "cxl_core"])
    assert [one.name for one in closure] == ["einj_core", "cxl_port", "cxl_core", "cxl_pci"]
    assert closure[-1].path == "kernel/drivers/cxl/cxl_pci.ko"
    assert closure[-1].image.startswith(b"\x7fELF")


def test_dep_and_alias_files(folder: Path) -> None:
    closure = ModuleTree(folder).closure(["cxl_pci"])
    lines = modules_dep(closure).splitlines()
    assert lines[-1] == (
        "kernel/drivers/cxl/cxl_pci.ko: kernel/drivers/cxl/cxl-core.ko kernel/drivers/cxl/einj-core.ko"
    )
    assert modules_alias(closure) == "alias pci:v*d*bc05sc02i10* cxl_pci\n"


def test_module_that_needs_an_absent_one(folder: Path) -> None:
    with pytest.raises(PartsError, match=r"The kernel module gone is not below .*, and others need it"):
        ModuleTree(folder).closure(["cxl_lost"])


@pytest.mark.parametrize(
    ("name", "data"), [("a.ko.xz", b"\xfd7zXZ\0bad"), ("a.ko.gz", b"\x1f\x8bbad"), ("a.ko", b"x")]
)
def test_damaged_module(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / name).write_bytes(data)
    with pytest.raises(PartsError):
        ModuleTree(tmp_path).closure(["a"])
