"""newc archives, against bytes written out by hand from the kernel's buffer-format.rst, and against cpio(1)."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from softcxl.lab import cpio


def hand_written(fields: list[int], name: bytes, data: bytes) -> bytes:
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    head += b"\0" * ((4 - len(head) % 4) % 4)
    return head + data + b"\0" * ((4 - len(data) % 4) % 4)


def test_bytes() -> None:
    made = cpio.archive([cpio.directory("etc"), cpio.file("etc/x", b"hello", 0o600)])
    # inode, mode, uid, gid, links, mtime, size, dev major, minor, rdev major, minor, name size, check
    expected = hand_written([1, 0o040755, 0, 0, 2, 0, 0, 0, 0, 0, 0, 4, 0], b"etc", b"")
    expected += hand_written([2, 0o100600, 0, 0, 1, 0, 5, 0, 0, 0, 0, 6, 0], b"etc/x", b"hello")
    expected += hand_written([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11, 0], b"TRAILER!!!", b"")
    assert made == expected + bytes(-len(expected) % 512)


def test_links_and_nodes() -> None:
    made = cpio.archive([cpio.symlink("sh", "busybox"), cpio.character_device("console", 5, 1)])
    assert hand_written([1, 0o120777, 0, 0, 1, 0, 7, 0, 0, 0, 0, 3, 0], b"sh", b"busybox") in made
    assert hand_written([2, 0o020600, 0, 0, 1, 0, 0, 0, 0, 5, 1, 8, 0], b"console", b"") in made


def test_it_can_be_followed_by_another() -> None:
    assert len(cpio.archive([])) == 512
    assert len(cpio.archive([cpio.file("a", bytes(1000))])) % 512 == 0


@pytest.mark.skipif(shutil.which("cpio") is None, reason="no cpio here")
def test_cpio_reads_it() -> None:
    made = cpio.archive([cpio.directory("a"), cpio.file("a/b", b"text"), cpio.symlink("c", "a/b")])
    listing = subprocess.run(["cpio", "-t", "--quiet"], input=made, capture_output=True, check=True).stdout
    assert listing.split() == [b"a", b"a/b", b"c"]


@pytest.mark.skipif(shutil.which("busybox") is None, reason="no busybox here")
def test_busybox_reads_it() -> None:
    made = cpio.archive([cpio.directory("a"), cpio.file("a/b", b"text"), cpio.symlink("c", "a/b")])
    listing = subprocess.run(["busybox", "cpio", "-t"], input=made, capture_output=True, check=True).stdout
    assert listing.split() == [b"a", b"a/b", b"c"]
