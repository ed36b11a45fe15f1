"""Files that are built alike share what stands where, and nothing else."""

import pytest

from softcxl.wire import (
    RW,
    RWL,
    RWO,
    Block,
    DeclarationError,
    Register,
    RegisterFile,
    Reset,
    at,
    bits,
    on_read,
    on_write,
)
from softcxl.wire.placement import Placement, empty


class Word(Register, width=32):
    value = bits(15, 0, RW, reset=0x11)
    once = bits(23, 16, RWO)
    lockable = bits(31, 24, RWL)


class Table(Block):
    first = at(0x0, Word)
    second = at(0x8, Word)


class Ear:
    def __init__(self):
        self.heard = []

    @on_write(Table.first.value)
    def written(self, old, new):
        self.heard.append((old, new))

    @on_read(Table.second)
    def looked(self):
        self.heard.append("read")


class Other(Ear):
    def written(self, old, new):
        self.heard.append("other")


def build(owner=None):
    file = RegisterFile(0x100)
    table = file.place(0x20, Table, hooks=owner)
    file.ram(0x40, 8)
    return file, table


def test_files_that_are_built_alike_have_one_placement():
    assert build(Ear())[0]._placement is build(Ear())[0]._placement
    assert build(Ear())[0]._placement is not build(Other())[0]._placement
    assert build()[0]._placement is not build(Ear())[0]._placement
    assert RegisterFile(0x200)._placement is not RegisterFile(0x100)._placement


def test_values_and_hooks_are_each_files_own():
    ears = Ear(), Ear()
    (one, table), (other, far) = (build(ear) for ear in ears)
    one.write(0x20, b"\5\0")
    one.write(0x40, b"memo")
    other.read(0x28, 4)
    assert (table.first.value, far.first.value) == (5, 0x11)
    assert (one.read(0x40, 4), other.read(0x40, 4)) == (b"memo", bytes(4))
    assert [ear.heard for ear in ears] == [[(0x11, 5)], ["read"]]


def test_a_subclass_hears_with_its_own_method():
    ear = Other()
    build(ear)[0].write(0x20, b"\5\0")
    assert ear.heard == ["other"]


def test_two_objects_of_one_class_on_one_file_hear_their_own_block():
    near, far = Ear(), Ear()
    file = RegisterFile(0x100)
    file.place(0x20, Table, hooks=near)
    file.place(0x60, Table, hooks=far)
    file.write(0x60, b"\7\0")
    assert (near.heard, far.heard) == ([], [(0x11, 7)])


def test_what_is_narrowed_in_one_file_is_open_in_the_others():
    (one, table), (other, far) = build(), build()
    one.write(0x20, b"\xff\xff\1\1")
    one.lock(table)
    for file in (one, other):
        file.write(0x20, b"\xff\xff\2\2")
    assert (table.first.once, table.first.lockable) == (1, 1)
    assert (far.first.once, far.first.lockable) == (2, 2)
    one.reset(Reset.COLD)
    one.write(0x20, b"\xff\xff\3\3")
    assert (table.first.once, table.first.lockable) == (3, 3)


def test_each_file_is_sealed_with_its_own_values():
    (one, table), (other, far) = build(), build()
    table.first.value = 1
    one.seal()
    other.seal()
    third = other.place(0x60, Table)  # after the seal: resets return to what is declared
    far.first.value = third.first.value = 9
    for file in (one, other):
        file.reset()
    assert (table.first.value, far.first.value, third.first.value) == (1, 0x11, 0x11)


def test_a_step_that_is_refused_is_refused_every_time():
    for _ in range(2):
        file, _ = build()
        with pytest.raises(DeclarationError, match="Table at 0x22 overlaps Word at 0x20"):
            file.place(0x22, Table)
        with pytest.raises(DeclarationError, match="memory at 0x44 overlaps memory at 0x40"):
            file.ram(0x44, 8)
        file.place(0x60, Table)


def test_the_steps_that_are_kept_are_bounded():
    start = empty(0x123457)
    made = [start.memory(offset, 1) for offset in range(1000)]
    assert start.memory(0, 1) is made[0]
    assert start.memory(999, 1) is not made[999]
    assert start.memory(999, 1).ram == made[999].ram == ((999, 1000),)
    assert isinstance(empty(0x123457), Placement)
