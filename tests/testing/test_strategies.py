"""Strategies made from declarations give what the declaration allows, all of it and nothing else."""

from enum import IntEnum
from uuid import UUID

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from softcxl.testing.strategies import records, registers
from softcxl.wire import (
    RO,
    RW,
    Record,
    Register,
    ascii,  # noqa: A004
    bit,
    bits,
    counted,
    i16,
    nested,
    raw,
    reserved,
    tail,
    u8,
    u16,
    u24,
    uuid,
    word,
)


class Colour(IntEnum):
    RED = 1
    BLUE = 6


class Flags(Register, width=24):
    on = bit(3, RO)
    colour = bits(7, 4, RW, Colour)
    depth = bits(20, 10, RW)


class Point(Record, size=3):
    x: int = i16()
    colour: Colour = u8(Colour)


class Drawing(Record, size=4 + 16 + 2 + 3 + 3 + 2 + 1 + 3):
    name: str = ascii(4)
    ident: UUID = uuid(little=True)
    blob: bytes = raw(2)
    flags: Flags = word(Flags)
    origin: Point = nested(Point)
    _reserved: None = reserved(2)
    count: int = u8()
    size: int = u24()
    points: list[Point] = counted(Point, "count")
    rest: list[int] = tail(u16)


class Blob(Record, size=0):
    rest: bytes = tail()


MANY = settings(max_examples=2000, database=None)


@given(registers(Flags))
def test_registers_hold_members_and_leave_unnamed_bits_zero(flags):
    assert isinstance(flags.colour, Colour)
    assert int(flags) & ~0x1FFCF8 == 0


@given(records(Drawing))
def test_records_survive_a_round_trip(drawing):
    assert Drawing.unpack(drawing.pack()) == drawing


@given(records(Blob))
def test_tails_survive_a_round_trip(blob):
    assert Blob.unpack(blob.pack()) == blob


def test_the_ends_of_ranges_are_reached():
    for wanted in (-0x8000, 0x7FFF):
        find(st.builds(lambda point: point.x, records(Point)), wanted.__eq__, settings=MANY)
    find(registers(Flags), lambda flags: flags.depth == 0x7FF, settings=MANY)


def test_an_item_may_have_its_own_strategy():
    point = find(records(Point, x=st.just(5)), lambda one: True, settings=MANY)
    assert point.x == 5
    with pytest.raises(TypeError, match="Drawing has no items colour; it has"):
        records(Drawing, colour=st.just(Colour.RED))
    with pytest.raises(TypeError, match="Drawing has no items count"):
        records(Drawing, count=st.just(1))


def test_lists_under_one_count_are_refused():
    class Pairs(Record, size=1):
        count: int = u8()
        left: list[int] = counted(u8, "count")
        right: list[int] = counted(u8, "count")

    with pytest.raises(TypeError, match="Pairs: left shares its count"):
        records(Pairs)
