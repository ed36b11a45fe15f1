"""Media: what they hold, what they take up, and what happens when two want the same."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from softcxl.memory import (
    AddressError,
    Medium,
    MediumClosed,
    MediumFull,
    MediumInUse,
    MediumUnfit,
    copy_range,
)

SIZE = 1 << 20
PAGE = 4096


@pytest.fixture(params=["memfd", "named"])
def medium(request, tmp_path):
    made = Medium.memfd("m", SIZE) if request.param == "memfd" else Medium.open(tmp_path / "m", SIZE)
    with made:
        yield made


def room(medium):
    return os.fstat(medium.fd).st_blocks * 512


def test_new_media_are_zeros_and_take_no_room(medium):
    assert medium.read(0, SIZE) == bytes(SIZE)
    assert room(medium) == 0
    assert list(medium.data_ranges(0, SIZE)) == []


def test_reads_writes_and_views_see_the_same_bytes(medium):
    medium.write(PAGE - 2, b"abcd")
    view = medium.view()
    assert view[PAGE - 2 : PAGE + 2].tobytes() == b"abcd"
    view[10] = 7
    assert medium.read(9, 3) == b"\0\7\0"
    medium.write(0, b"")
    medium.write(0, np.empty(0, np.uint8).data)
    assert list(medium.data_ranges(0, SIZE)) == [(0, 2 * PAGE)]
    assert list(medium.data_ranges(100, PAGE)) == [(100, PAGE + 100)]
    medium.sync()


def test_clear_is_exact_to_the_byte_and_frees_whole_pages(medium):
    medium.write(0, b"\xff" * 8 * PAGE)
    before = room(medium)
    medium.clear(100, 6 * PAGE)
    assert medium.read(0, 8 * PAGE) == b"\xff" * 100 + bytes(6 * PAGE) + b"\xff" * (2 * PAGE - 100)
    assert before - room(medium) == 5 * PAGE


def test_clear_works_where_holes_cannot_be_made(medium, monkeypatch):
    monkeypatch.setattr("softcxl.memory.sparse.punch", lambda *_: False)
    medium.write(PAGE, b"x" * PAGE)
    medium.clear(PAGE + 1, SIZE - PAGE - 1)
    assert medium.read(0, SIZE) == bytes(PAGE) + b"x" + bytes(SIZE - PAGE - 1)


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (0, SIZE + 1), (SIZE, 1), (5, -1)])
def test_nothing_reaches_outside(medium, offset, size):
    for use in (medium.read, medium.clear, medium.data_ranges, medium.reserve):
        with pytest.raises(AddressError, match="are not within"):
            use(offset, size)
    if size >= 0:
        with pytest.raises(AddressError):
            medium.write(offset, bytes(size))


def test_views_outlive_the_medium_and_nothing_else_does(medium):
    view = medium.view()
    view[3] = 9
    medium.close()
    medium.close()
    assert view[3] == 9
    assert medium.closed
    for use in (lambda: medium.fd, medium.view, lambda: medium.read(0, 1), lambda: medium.clear(0, 1)):
        with pytest.raises(MediumClosed, match="was closed"):
            use()


def test_named_media_survive(tmp_path):
    with Medium.open(tmp_path / "m", SIZE) as medium:
        medium.write(5, b"kept")
        assert medium.persistent
        assert (tmp_path / "m").stat().st_mode & 0o777 == 0o600
    with Medium.open(tmp_path / "m", SIZE) as medium:
        assert medium.read(5, 4) == b"kept"


def test_a_named_medium_has_one_user(tmp_path):
    path = tmp_path / "m"
    program = (
        "import sys; from softcxl.memory import Medium, MediumInUse\n"
        "try: Medium.open(sys.argv[1], 4096)\n"
        "except MediumInUse as error: print(error)\n"
    )

    def other_process():
        return subprocess.run(
            [sys.executable, "-c", program, path], check=True, capture_output=True, text=True, timeout=60
        ).stdout

    with Medium.open(path, 4096) as medium:
        with pytest.raises(MediumInUse, match="is in use as a medium"):
            Medium.open(path, 4096)
        assert f"{path} is in use" in other_process()
        handed_over = os.dup(medium.fd)  # what a guest holds does not keep the medium in use
    assert other_process() == ""
    os.close(handed_over)


def test_unfit_files_are_refused_and_left_alone(tmp_path):
    (tmp_path / "small").write_bytes(b"precious")
    with pytest.raises(MediumUnfit, match="has 8 bytes, 4096 were asked for"):
        Medium.open(tmp_path / "small", 4096)
    assert (tmp_path / "small").read_bytes() == b"precious"
    with pytest.raises(MediumUnfit, match="cannot be opened as a medium"):
        Medium.open(tmp_path, 4096)
    with pytest.raises(MediumUnfit, match="No such file"):
        Medium.open(tmp_path / "nowhere" / "m", 4096)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediumUnfit, match="is not a plain file"):
        Medium.open(tmp_path / "pipe", 4096)
    with pytest.raises(AddressError, match="must be positive"):
        Medium.open(tmp_path / "m", 0)
    with pytest.raises(AddressError, match="must be positive"):
        Medium.memfd("m", 0)


def test_a_full_disk_is_said_and_the_file_can_be_opened_again(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Medium.open(tmp_path / "m", SIZE) as medium:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(MediumFull, match="no room left to store its bytes"):
            medium.write(0, b"x")
    monkeypatch.setattr("softcxl.memory.sparse.allocate", full)
    with pytest.raises(MediumFull):
        Medium.open(tmp_path / "m", SIZE, reserve=True)
    monkeypatch.undo()
    with Medium.open(tmp_path / "m", SIZE, reserve=True) as medium:
        assert room(medium) >= SIZE


def test_a_file_cut_short_by_others_is_said(tmp_path):
    with Medium.open(tmp_path / "m", SIZE) as medium:
        os.truncate(tmp_path / "m", 100)
        with pytest.raises(MediumUnfit, match="cut short by another program: no byte at 0x64"):
            medium.read(0, 200)


def test_copies_are_sparse_and_clear_what_was_there(medium):
    with Medium.memfd("other", SIZE) as other:
        medium.write(3 * PAGE, b"a" * PAGE)
        medium.write(20 * PAGE + 5, b"b")
        other.write(0, b"\xff" * SIZE)
        copy_range(medium, PAGE, other, 4 * PAGE, 30 * PAGE)
        expected = np.full(SIZE, 0xFF, np.uint8)
        expected[4 * PAGE : 34 * PAGE] = np.frombuffer(medium.read(PAGE, 30 * PAGE), np.uint8)
        assert other.read(0, SIZE) == expected.tobytes()  # a view would fill the holes
        assert list(other.data_ranges(0, SIZE)) == [
            (0, 4 * PAGE),
            (6 * PAGE, 7 * PAGE),
            (23 * PAGE, 24 * PAGE),
            (34 * PAGE, SIZE),
        ]
        assert room(medium) == 2 * PAGE


def descriptors():
    gc.collect()  # what earlier tests have let go of is not ours
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_memfd_is_made_when_it_is_needed_first():
    before = descriptors()
    with Medium.memfd("late", SIZE) as medium:
        assert medium.read(SIZE - 4, 4) == bytes(4)
        assert list(medium.data_ranges(0, SIZE)) == []
        medium.clear(0, SIZE)
        medium.sync()
        with pytest.raises(AddressError):
            medium.read(SIZE, 1)
        assert descriptors() == before
        medium.write(3, b"x")
        assert descriptors() == before + 1
        assert medium.read(2, 3) == b"\0x\0"
        assert os.fstat(medium.fd).st_size == SIZE
        assert not medium.closed
    assert medium.closed
    assert descriptors() == before


def test_a_memfd_that_was_never_needed_is_closed_all_the_same():
    medium = Medium.memfd("never", SIZE)
    medium.close()
    assert medium.closed
    for use in (lambda: medium.read(0, 1), lambda: medium.write(0, b"1"), medium.view):
        with pytest.raises(MediumClosed):
            use()


def test_a_memfd_of_a_size_that_no_file_has_is_refused_at_once():
    with pytest.raises(MediumUnfit, match="no memfd of 9223372036854775808 bytes"):
        Medium.memfd("vast", 1 << 63)


def test_a_memfd_that_cannot_be_made_says_why(monkeypatch):
    def refuse(name, flags):
        raise OSError(24, "Too many open files")

    with Medium.memfd("late", SIZE) as medium, monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", refuse)
        with pytest.raises(MediumUnfit, match="late: no memfd of 1048576 bytes: Too many open files"):
            medium.write(0, b"x")
        patch.undo()
        medium.write(0, b"x")  # a later attempt may find room
        assert medium.read(0, 1) == b"x"
