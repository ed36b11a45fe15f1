"""A medium that is put together from pieces of files."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from softcxl.memory.assembled import Assembled, Piece
from softcxl.memory.errors import AddressError, MediumUnfit

PAGE = 4096


@pytest.fixture
def files() -> Iterator[list[int]]:
    found = [os.memfd_create(f"file{at}") for at in range(2)]
    for fd in found:
        os.truncate(fd, 4 * PAGE)
    yield found
    for fd in found:
        os.close(fd)


@pytest.fixture
def medium(files: list[int]) -> Assembled:
    one = Assembled("whole", 8 * PAGE)
    one.assemble([Piece(4 * PAGE, 2 * PAGE, files[1], PAGE), Piece(PAGE, PAGE, files[0])])
    return one


def test_bytes_are_those_of_the_files(medium: Assembled, files: list[int]) -> None:
    data = bytes(range(1, 256)) * 129
    medium.write(0, data[: 8 * PAGE])
    assert os.pread(files[0], 4 * PAGE, 0) == data[PAGE : 2 * PAGE] + bytes(3 * PAGE)
    assert os.pread(files[1], 4 * PAGE, 0) == bytes(PAGE) + data[4 * PAGE : 6 * PAGE] + bytes(PAGE)


def test_between_pieces_there_is_nothing(medium: Assembled, files: list[int]) -> None:
    os.pwrite(files[0], b"a" * 4 * PAGE, 0)
    os.pwrite(files[1], b"b" * 4 * PAGE, 0)
    wanted = bytes(PAGE) + b"a" * PAGE + bytes(2 * PAGE) + b"b" * 2 * PAGE + bytes(2 * PAGE)
    assert medium.read(0, 8 * PAGE) == wanted
    assert medium.read(PAGE - 1, 3) == b"\0aa"
    assert medium.read(7 * PAGE, 5) == bytes(5)
    assert medium.view().tobytes() == wanted
    assert [*medium.data_ranges(0, 8 * PAGE)] == [(PAGE, 2 * PAGE), (4 * PAGE, 6 * PAGE)]


def test_a_view_shares_memory(medium: Assembled, files: list[int]) -> None:
    view = medium.view()
    view[PAGE] = 7
    assert os.pread(files[0], 1, 0) == b"\7"
    os.pwrite(files[1], b"\x08", PAGE)
    assert view[4 * PAGE] == 8


def test_it_has_no_file_and_is_nobodys_to_clear(medium: Assembled) -> None:
    with pytest.raises(MediumUnfit, match="whole is put together from 2 files, and none itself"):
        _ = medium.fd
    with pytest.raises(MediumUnfit, match="its bytes are others'"):
        medium.clear(0, PAGE)
    with pytest.raises(AddressError):
        medium.read(8 * PAGE, 1)


@pytest.mark.parametrize(
    ("piece", "says"),
    [
        (Piece(PAGE, PAGE, -1), "there is room from 0x2000 to 0x8000"),
        (Piece(7 * PAGE, 2 * PAGE, -1), "there is room from 0x2000 to 0x8000"),
        (Piece(3 * PAGE, 100, -1), "all are multiples of 4096"),
        (Piece(3 * PAGE, PAGE, -1, 5), "all are multiples of 4096"),
        (Piece(3 * PAGE, 0, -1), "all are multiples of 4096"),
    ],
)
def test_pieces_that_do_not_fit(medium: Assembled, files: list[int], piece: Piece, says: str) -> None:
    before = medium.pieces
    with pytest.raises(MediumUnfit, match=says):
        medium.assemble([Piece(PAGE, PAGE, files[0]), piece])
    assert medium.pieces == before
