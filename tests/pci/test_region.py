"""Registers that a guest can map: they move to a file, in place, when somebody asks for it."""

import gc
import mmap
import os
from pathlib import Path

import pytest

from softcxl.pci.region import Bar, SharedRegisters
from softcxl.wire import RW, Block, Register, at, bits

SIZE = 0x10000


class Word(Register, width=32):
    value = bits(31, 0, RW)


class Table(Block):
    word = at(0x10, Word)


@pytest.fixture
def file():
    made = SharedRegisters(SIZE, "registers")
    yield made
    made.close()


def descriptors():
    gc.collect()  # what earlier tests have let go of is not ours
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_registers_nobody_maps_have_no_descriptor():
    before = descriptors()
    file = SharedRegisters(SIZE, "registers")
    file.place(0x2000, Table).word.value = 7
    assert Bar(2, file).region().fd is None
    assert descriptors() == before
    file.close()
    assert descriptors() == before


def test_registers_keep_their_values_and_views_when_they_move(file):
    table = file.place(0x2000, Table)
    file.write(0x2010, b"\1\2\3\4")
    fd = Bar(2, file, [(0x2000, 0x1000)]).region().fd
    assert fd is not None
    assert fd == file.fd
    assert os.fstat(fd).st_size == SIZE
    with mmap.mmap(fd, SIZE) as guest:
        assert guest[0x2010:0x2014] == b"\1\2\3\4"
        guest[0x2010] = 0xFF
        assert int(table.word) == 0x040302FF
        table.word.value = 5
        assert guest[0x2010:0x2014] == b"\5\0\0\0"
        file.write(0x2010, b"\6\0\0\0")
        assert guest[0x2010] == 6


def test_a_move_that_fails_leaves_them_where_they_are(file, monkeypatch):
    table = file.place(0x2000, Table)
    before = descriptors()

    def refuse(fd, size):
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            _ = file.fd
    assert descriptors() == before
    table.word.value = 9
    assert file.read(0x2010, 4) == b"\t\0\0\0"
    assert file.fd >= 0
