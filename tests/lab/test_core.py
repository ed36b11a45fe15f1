"""The pool's C core is built with what there is, and what is missing is fetched."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from softcxl.lab import core, toolchain
from softcxl.lab.errors import BuildError, FetchError
from softcxl.pool import build as how


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pool's package elsewhere, without its core."""
    folder = tmp_path / "pool"
    shutil.copytree(Path(how.__file__).parent / "core", folder / "core")
    monkeypatch.setattr(how, "__file__", str(folder / "build.py"))
    monkeypatch.setattr(core, "built", lambda: False)
    return folder


def test_the_core_is_built_beside_its_sources(package: Path) -> None:
    if how.compiler() is None or how.headers() is None:
        pytest.skip("there is no C compiler, or no headers of Python")
    path = core.build()
    assert path == package / "_native.abi3.so"
    assert path.read_bytes().startswith(b"\x7fELF")


def test_what_is_missing_is_fetched(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetched(packages: list[str], progress: object) -> Path:
        asked.append(packages)
        raise FetchError("no network")

    monkeypatch.setattr(toolchain, "fetched", fetched)
    monkeypatch.setattr(how, "compiler", lambda: None)
    monkeypatch.setattr(how, "headers", lambda: None)
    with pytest.raises(FetchError, match="no network"):
        core.build()
    assert asked == [["gcc", "libc6-dev", f"libpython3.{sys.version_info.minor}-dev"]]


def test_what_does_not_compile_is_told(package: Path) -> None:
    if how.compiler() is None or how.headers() is None:
        pytest.skip("there is no C compiler, or no headers of Python")
    (package / "core/module.c").write_text("#error it is broken\n")
    with pytest.raises(BuildError, match="it is broken"):
        core.build()
    assert not list(package.glob("_native*"))
