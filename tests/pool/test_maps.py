"""A file is mapped as by mmap, and no descriptor of it stays open."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.pool import maps
from softcxl.pool.maps import mapped


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("test")
    os.ftruncate(fd, 4 * mmap.PAGESIZE)
    yield fd
    os.close(fd)


def opened() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_both_ways_bytes_are_the_files(file: int) -> None:
    before = opened()
    with mapped(file, 2 * mmap.PAGESIZE, mmap.PAGESIZE) as one:
        assert opened() == before
        assert len(one) == 2 * mmap.PAGESIZE
        one[3:6] = b"abc"
        assert os.pread(file, 3, mmap.PAGESIZE + 3) == b"abc"
        os.pwrite(file, b"xyz", 3 * mmap.PAGESIZE - 3)
        assert one[-3:] == b"xyz"


def test_it_outlives_the_descriptor_and_goes_when_it_is_closed() -> None:
    fd = os.memfd_create("test that outlives")
    os.ftruncate(fd, mmap.PAGESIZE)
    one = mapped(fd, mmap.PAGESIZE)
    os.close(fd)
    one[0] = 7
    assert "test that outlives" in Path("/proc/self/maps").read_text()
    one.close()
    assert "test that outlives" not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(("size", "offset"), [(4096, 1), (0, 4 * mmap.PAGESIZE), (-1, 0)])
def test_what_cannot_be_mapped_is_an_error(file: int, size: int, offset: int) -> None:
    with pytest.raises((OSError, ValueError, OverflowError)):
        mapped(file, size, offset)


def test_what_is_no_regular_file_takes_no_other_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[object] = []
    monkeypatch.setattr(maps, "_map", lambda *given: placed.append(given))
    with Path("/dev/zero").open("r+b") as device, mapped(device.fileno(), mmap.PAGESIZE) as one:
        one[0] = 7
    assert placed == []


def test_what_is_no_file_is_an_error(file: int) -> None:
    read, write = os.pipe()
    try:
        with pytest.raises(OSError, match=r"."):
            mapped(read, mmap.PAGESIZE)
    finally:
        os.close(read)
        os.close(write)
