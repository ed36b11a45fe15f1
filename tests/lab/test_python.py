"""Python for a guest, from packages that are on this machine: nothing is fetched."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from softcxl.lab import python
from softcxl.lab.apt import PrivateApt
from softcxl.lab.errors import FetchError, PartsError
from softcxl.lab.parts import Kernel, Parts, Qemu, Tools


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Tools whose dynamic linker is a script that writes its words down, and "compiles"."""
    root = tmp_path / "tools"
    (root / "usr/lib64").mkdir(parents=True)
    (root / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (root / "usr/lib/x86_64-linux-gnu/libm.so.6").write_text("mathematics")
    linker = root / "usr/lib64/ld-linux-x86-64.so.2"
    linker.write_text(f'#!/bin/sh\nprintf "%s " "$@" >>{tmp_path}/words\n')
    linker.chmod(0o755)
    return Parts(
        Qemu(("qemu",), (11, 1, 0), "given"),
        Kernel(Path("/vmlinuz"), None, "7.2", "given"),
        Tools(root, {}, "given"),
    )


def package(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A Debian package with these files."""
    root = folder / name
    for file, text in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name.partition('_')[0]}\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody\nDescription: none\n"
    )
    made = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--build", str(root), str(made)], check=True, capture_output=True)
    return made


class Archive:
    """An apt that has fetched these."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.forgotten = False

    def download(self, names: tuple[str, ...], progress: object) -> list[Path]:
        assert names == python.PACKAGES
        return self.files

    def forget(self) -> None:
        self.forgotten = True


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setenv("SOFTCXL_CACHE", str(tmp_path / "cache"))
    found = Archive(
        [
            package(
                tmp_path,
                "python3.13-minimal_1",
                {"usr/bin/python3.13": "interpreter", "usr/bin/pdb3": "no", "usr/share/doc/x": "no"},
            ),
            package(
                tmp_path,
                "libpython3.13-stdlib_1",
                {"usr/lib/python3.13/os.py": "", "usr/lib/python3.13/test/test_os.py": ""},
            ),
            package(tmp_path, "libblas3_1", {"usr/lib/x86_64-linux-gnu/blas/libblas.so.3": "blas"}),
            package(tmp_path, "libc6_1", {"usr/lib/x86_64-linux-gnu/libc.so.6": "another C library"}),
            package(tmp_path, "debconf_1", {"usr/sbin/debconf": "no"}),
        ]
    )
    monkeypatch.setattr(python, "updated_apt", lambda progress: found)
    return found


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_what_a_guest_gets(parts: Parts, archive: Archive, tmp_path: Path) -> None:
    interpreter, package = python.overlays(parts)
    assert files(interpreter) == {
        "usr/bin/python3.13",
        "usr/lib/python3.13/os.py",
        "usr/lib/x86_64-linux-gnu/blas/libblas.so.3",
        "usr/lib/x86_64-linux-gnu/libblas.so.3",
    }
    assert (interpreter / "usr/lib/x86_64-linux-gnu/libblas.so.3").read_text() == "blas"
    inside = files(package)
    home = "usr/lib/python3/dist-packages/softcxl"
    assert {f"{home}/__init__.py", f"{home}/pool/session.py", f"{home}/spec/pool_access.py"} <= inside
    assert (package / "usr/lib/x86_64-linux-gnu/libm.so.6").read_text() == "mathematics"
    assert not any(name.startswith((f"{home}/lab", f"{home}/fabric", f"{home}/fm")) for name in inside)
    assert archive.forgotten
    words = (tmp_path / "words").read_text()
    assert "compileall" in words
    assert "unchecked-hash" in words


def test_it_is_made_once(parts: Parts, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    first = python.overlays(parts)

    def fetch(progress: object) -> PrivateApt:
        raise AssertionError("fetched again")

    monkeypatch.setattr(python, "updated_apt", fetch)
    assert python.overlays(parts) == first


def test_packages_without_an_interpreter(parts: Parts, archive: Archive) -> None:
    archive.files = archive.files[1:]
    with pytest.raises(FetchError, match="hold no interpreter"):
        python.overlays(parts)


def test_tools_without_a_dynamic_linker(parts: Parts, archive: Archive) -> None:
    (parts.tools.root / "usr/lib64/ld-linux-x86-64.so.2").unlink()
    with pytest.raises(PartsError, match="no dynamic linker below"):
        python.overlays(parts)


def test_an_interpreter_that_does_not_run(parts: Parts, archive: Archive) -> None:
    linker = parts.tools.root / "usr/lib64/ld-linux-x86-64.so.2"
    linker.write_text("#!/bin/sh\necho version GLIBC_9.99 not found >&2\nexit 1\n")
    with pytest.raises(PartsError, match=r"does not run here: version GLIBC_9.99 not found"):
        python.overlays(parts)
