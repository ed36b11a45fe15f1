"""Kernels taken out of their bzImages."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from softcxl.lab.vmlinux import direct_image
from tests.lab.bzimages import bzimage, vmlinux

KERNEL = vmlinux()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOFTCXL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-cq"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    "pack",
    [
        # gzip's own last four bytes are the length that the others have added
        pytest.param(lambda data: gzip.compress(data)[:-4], id="gzip"),
        pytest.param(lzma.compress, id="xz"),
        pytest.param(bz2.compress, id="bzip2"),
        pytest.param(
            zstd, id="zstd", marks=pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd here")
        ),
    ],
)
def test_compressed(home: Path, pack: Callable[[bytes], bytes]) -> None:
    image = home / "bzImage"
    image.write_bytes(bzimage(pack(KERNEL), kernel_size=len(KERNEL)))
    taken = direct_image(image)
    assert taken.read_bytes() == KERNEL
    assert direct_image(image) == taken


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(bzimage(lzma.compress(vmlinux(direct=False))), id="not made for direct entry"),
        pytest.param(bzimage(b"\x89LZO" + bytes(100)), id="compressed some other way"),
        pytest.param(bzimage(lzma.compress(KERNEL)[:-20]), id="cut short"),
        pytest.param(b"short", id="no kernel"),
    ],
)
def test_booted_as_it_is(home: Path, image: bytes) -> None:
    path = home / "bzImage"
    path.write_bytes(image)
    assert direct_image(path) == path
    assert direct_image(path) == path


def test_a_new_kernel_at_the_same_path(home: Path) -> None:
    path = home / "bzImage"
    path.write_bytes(bzimage(lzma.compress(KERNEL)))
    first = direct_image(path)
    path.write_bytes(bzimage(lzma.compress(KERNEL + b"new")))
    assert direct_image(path) != first


def test_a_cache_that_cannot_be_written_is_no_obstacle(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / "bzImage"
    path.write_bytes(bzimage(lzma.compress(KERNEL)))
    monkeypatch.setenv("SOFTCXL_CACHE", str(path / "cache"))
    assert direct_image(path) == path
