"""newc archives, against bytes written out by hand from the kernel's buffer-format.rst, and unpacked by busybox."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from softcxl.lab import cpio
from softcxl.lab.setup import setup


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


@pytest.mark.guest
def test_busybox_unpacks_it(tmp_path: Path) -> None:
    """The busybox that every guest starts, outside of one."""
    made = cpio.archive(
        [
            cpio.directory("a", 0o750),
            cpio.file("a/b", b"text", 0o640),
            cpio.symlink("c", "a/b"),
            cpio.file("d", b""),
        ]
    )
    busybox = str(setup().parts().tools.programs["busybox"])
    listed = subprocess.run([busybox, "cpio", "-t"], input=made, capture_output=True, check=True)
    assert listed.stdout.split() == [b"a", b"a/b", b"c", b"d"]
    subprocess.run([busybox, "cpio", "-i"], input=made, capture_output=True, check=True, cwd=tmp_path)
    assert (tmp_path / "a/b").read_bytes() == b"text"
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o750, 0o640]
    assert (tmp_path / "c").readlink() == Path("a/b")
    assert (tmp_path / "d").stat().st_size == 0
