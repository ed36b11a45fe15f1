"""What lands where in the guest's first file system."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from softcxl.lab import cpio
from softcxl.lab.errors import PartsError
from softcxl.lab.initramfs import Tree, initramfs
from softcxl.lab.parts import Kernel, Parts, Qemu, Tools
from tests.lab.elves import module, shared_object


def members(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Names, modes and contents of a newc archive, read by the format's description."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        fields = [int(archive[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        name = archive[at + 110 : at + 110 + fields[11] - 1].decode()
        at = at + 110 + fields[11] + 3 & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], archive[at : at + fields[6]])
        at = at + fields[6] + 3 & ~3


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setenv("SOFTCXL_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/lib").mkdir()
    (root / "usr/bin/busybox").write_text("#!/bin/sh\necho sh; echo cxl; echo ls\n")
    (root / "usr/bin/busybox").chmod(0o755)
    (root / "usr/bin/cxl").write_bytes(shared_object(["libcxl.so.1"], interpreter="/lib64/ld.so.2"))
    (root / "usr/lib/libcxl.so.1").write_bytes(shared_object([]))
    (root / "usr/lib/ld.so.2").write_bytes(shared_object([]))
    modules = root / "usr/lib/modules/7.2.12"
    (modules / "kernel").mkdir(parents=True)
    (modules / "kernel/cxl_pci.ko").write_bytes(module(depends=""))
    (modules / "kernel/ext4.ko").write_bytes(module(depends="", alias="fs-ext4"))
    (modules / "vmlinuz").write_bytes(b"")
    tools = Tools(root, {name: root / "usr/bin" / name for name in ("cxl",)}, "fetched")
    # busybox is a script here, and so has no linkage to follow
    monkeypatch.setattr("softcxl.lab.initramfs._applets", lambda path: ["sh", "cxl", "ls"])
    tools.programs["busybox"] = root / "usr/bin/cxl"
    return Parts(Qemu(("q",), (11, 1, 3), "x"), Kernel(modules / "vmlinuz", modules, "7.2.12", "x"), tools)


def test_contents(parts: Parts) -> None:
    found = members(initramfs(parts).read_bytes())
    assert found["init"][0] == stat.S_IFREG | 0o755
    assert found["softcxl/agent"][1].startswith(b"#!/bin/sh\n")
    assert found["dev/console"][0] & stat.S_IFCHR
    assert found["usr/bin/ls"] == (stat.S_IFLNK | 0o777, b"busybox")
    # the real program wins over busybox's applet of the same name
    assert found["usr/bin/cxl"][0] == stat.S_IFREG | 0o755
    assert {"usr/lib/libcxl.so.1", "usr/lib/ld.so.2"} <= set(found)
    assert found["lib64"][1] == b"usr/lib"
    assert found["etc/modules"][1] == b"cxl_pci\n"
    assert found["usr/lib/modules/7.2.12/modules.alias"][1] == b"alias fs-ext4 ext4\n"


def test_folders_come_before_what_is_in_them(parts: Parts) -> None:
    seen: set[str] = set()
    for name in members(initramfs(parts).read_bytes()):
        folder = name.rpartition("/")[0]
        assert not folder or folder in seen, name
        seen.add(name)


def test_cached_until_something_changes(parts: Parts, tmp_path: Path) -> None:
    first = initramfs(parts)
    before = first.stat().st_ino
    assert initramfs(parts) == first
    assert first.stat().st_ino == before
    (tmp_path / "root/usr/bin/cxl").write_bytes(shared_object(["libcxl.so.1"]))
    assert initramfs(parts) != first


def test_overlay(parts: Parts, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay"
    (overlay / "sbin").mkdir(parents=True)
    (overlay / "etc").mkdir()
    (overlay / "sbin/mine").write_text("#!/bin/sh\n")
    (overlay / "sbin/mine").chmod(0o700)
    (overlay / "etc/passwd").write_text("root::0:0::/:/bin/sh\n")
    (overlay / "data").symlink_to("/share")
    found = members(initramfs(parts, [overlay]).read_bytes())
    # sbin is a link in the guest, and stays one
    assert found["sbin"] == (stat.S_IFLNK | 0o777, b"usr/bin")
    assert found["usr/bin/mine"] == (stat.S_IFREG | 0o700, b"#!/bin/sh\n")
    assert found["etc/passwd"][1] == b"root::0:0::/:/bin/sh\n"
    assert found["data"][1] == b"/share"


def test_overlay_that_is_no_folder(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(PartsError, match=r"The overlay .*/gone is not a folder"):
        initramfs(parts, [tmp_path / "gone"])


@pytest.mark.parametrize(
    ("name", "lands"),
    [
        ("bin/x", "usr/bin/x"),
        ("usr/sbin/x", "usr/bin/x"),
        ("lib64/ld.so", "usr/lib/ld.so"),
        ("lib/modules/7/a.ko", "usr/lib/modules/7/a.ko"),
        ("libx/y", "libx/y"),
        ("opt/bin/x", "opt/bin/x"),
    ],
)
def test_where_members_land(name: str, lands: str) -> None:
    tree = Tree()
    tree.add(cpio.file(name, b"data"))
    assert members(tree.archive())[lands][1] == b"data"


def test_own_kernel_without_modules(parts: Parts) -> None:
    bare = Parts(parts.qemu, Kernel(parts.kernel.image, None, "7.2.12", "given"), parts.tools)
    found = members(initramfs(bare).read_bytes())
    # names only, for modules that an overlay may bring
    assert b" cxl_pci " in found["etc/modules"][1]
    assert not any(name.endswith(".ko") for name in found)
