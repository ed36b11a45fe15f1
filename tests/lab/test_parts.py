"""Parts found, refused and named: stand-ins for QEMU, kernels and tools that answer as the real ones do."""

from __future__ import annotations

from pathlib import Path

import pytest

from softcxl.lab import parts
from softcxl.lab.errors import PartsError
from tests.lab.bzimages import bzimage

NEW = "QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)"


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def qemu(path: Path, version: str = NEW, devices: str = "vfio-user-pci options:") -> Path:
    return script(path, f"case $1 in -version) echo '{version}' ;; *) echo '{devices}' ;; esac\n")


def test_system_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = qemu(tmp_path / "qemu")
    monkeypatch.setenv("SOFTCXL_QEMU", str(program))
    found = parts.system_qemu()
    assert (found.command, found.version, found.origin) == ((str(program),), (11, 1, 3), "SOFTCXL_QEMU")
    assert str(found) == f"QEMU 11.1.3 (SOFTCXL_QEMU, {program})"


@pytest.mark.parametrize(
    ("version", "devices", "sentence"),
    [
        ("QEMU emulator version 7.2.17 (Debian)", "", r"is version 7\.2\.17; vfio-user needs 10\.1 or later"),
        ("QEMU emulator version 10.0.13", "", r"is version 10\.0\.13"),
        (NEW, "", r"was built without vfio-user-pci"),
        ("", "", r"does not run"),
    ],
)
def test_unsuitable_qemu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, devices: str, sentence: str
) -> None:
    monkeypatch.setenv("SOFTCXL_QEMU", str(qemu(tmp_path / "qemu", version, devices)))
    with pytest.raises(PartsError, match=sentence):
        parts.system_qemu()


def test_absent_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SOFTCXL_QEMU", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PartsError, match=r"qemu-system-x86_64 is not installed"):
        parts.system_qemu()
    monkeypatch.setenv("SOFTCXL_QEMU", "/gone/qemu")
    with pytest.raises(PartsError, match=r"/gone/qemu does not run"):
        parts.system_qemu()


def test_unpacked_qemu_runs_through_its_own_linker(tmp_path: Path) -> None:
    # the stand-in linker runs what it is given after --library-path PATH, as ld.so does
    script(tmp_path / "usr/lib64/ld-linux-x86-64.so.2", 'shift 2; exec "$@"\n')
    (tmp_path / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    qemu(tmp_path / "usr/bin/qemu-system-x86_64")
    found = parts.unpacked_qemu(tmp_path, "fetched")
    assert found.command[1:3] == ("--library-path", f"{tmp_path}/usr/lib/x86_64-linux-gnu")
    assert found.data[0] == tmp_path / "usr/share/qemu"
    with pytest.raises(PartsError, match=r"There is no whole QEMU below"):
        parts.unpacked_qemu(tmp_path / "usr", "fetched")


def test_kernel_release(tmp_path: Path) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage(b"", b"7.2.12+deb13-amd64 (debian-kernel@lists.debian.org) #1 SMP"))
    assert parts.kernel_release(image) == "7.2.12+deb13-amd64"
    image.write_bytes(b"\x7fELF" + bytes(1000))
    with pytest.raises(PartsError, match=r"is not a Linux kernel image: a bzImage is wanted"):
        parts.kernel_release(image)
    with pytest.raises(PartsError, match=r"The kernel .*/gone cannot be read: No such file or directory"):
        parts.kernel_release(tmp_path / "gone")


def test_newest_unpacked_kernel(tmp_path: Path) -> None:
    for release in ("7.2.9", "7.2.12", "6.12.1"):
        folder = tmp_path / "usr/lib/modules" / release
        (folder / "kernel").mkdir(parents=True)
        (folder / "vmlinuz").write_bytes(bzimage(b"", release.encode()))
    found = parts.unpacked_kernel(tmp_path, "fetched")
    assert (found.release, found.modules) == ("7.2.12", tmp_path / "usr/lib/modules/7.2.12")
    with pytest.raises(PartsError, match=r"There is no kernel below"):
        parts.unpacked_kernel(tmp_path / "usr", "fetched")


def test_given_kernel_without_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage(b"", b"7.2.0-mine"))
    found = parts.given_kernel(image)
    assert (found.modules, str(found)) == (None, f"Linux 7.2.0-mine (given, {image}, no modules)")
    monkeypatch.setenv("SOFTCXL_KERNEL", str(image))
    assert parts.system_kernel() == found


def test_tools(tmp_path: Path) -> None:
    for name in parts.PROGRAMS:
        script(tmp_path / "usr/sbin" / name, "")
    found = parts.find_tools(tmp_path, "fetched")
    assert set(found.programs) == set(parts.PROGRAMS)
    (tmp_path / "usr/sbin/cxl").unlink()
    with pytest.raises(PartsError, match=r"^cxl is not installed"):
        parts.find_tools(tmp_path, "fetched")
    (tmp_path / "usr/sbin/ndctl").unlink()
    with pytest.raises(PartsError, match=r"^cxl, ndctl are not installed"):
        parts.find_tools(tmp_path, "fetched")
