"""Registers and their fields: what a declaration refuses, and values without a register file."""

import copy
from enum import IntEnum
from typing import Any

import pytest

from softcxl.wire import RO, RW, RW1C, RWL, RWO, DeclarationError, RangeError, Register, bit, bits

METACLASS: Any = type(Register)


class Media(IntEnum):
    NOT_READY = 0
    READY = 1
    ERROR = 2


class Status(Register, width=32, spec="CXL 3.1 §8.2.8.5.1"):
    """Something like a status."""

    fatal = bit(0, RO, "reset to recover")
    media = bits(3, 2, RO, Media, "whether the media can be used")
    depth = bits(15, 8, RW, "entries", reset=3)
    lost = bit(31, RW1C, reset=True)


def test_the_layout_has_one_mask_a_law():
    layout = Status.__layout__
    assert (layout.name, layout.spec, layout.doc) == (
        "Status",
        "CXL 3.1 §8.2.8.5.1",
        "Something like a status.",
    )
    assert (layout.width, layout.size, layout.reset) == (32, 4, 0x80000300)
    assert (layout.rw, layout.w1c, layout.w1s) == (0xFF00, 0x80000000, 0)
    assert [field.name for field in layout.fields] == ["fatal", "media", "depth", "lost"]


def test_fields_read_and_write_as_their_types():
    status = Status(0x80000305)
    assert status.fatal is True
    assert status.media is Media.READY
    assert status.depth == 3
    status.media = Media.ERROR
    status.depth = 0xFF
    status.fatal = False
    assert int(status) == 0x8000FF08


def test_a_number_that_is_no_member_stays_a_number():
    status = Status(0xC)
    assert status.media == 3
    assert type(status.media) is int
    assert Status.media.convert(3) == 3
    assert Status.media.convert(1) is Media.READY
    assert Status.depth.convert(9) == 9


@pytest.mark.parametrize("value", [-1, 256, 1 << 40])
def test_a_value_that_does_not_fit_its_field(value):
    status = Status()
    with pytest.raises(RangeError) as caught:
        status.depth = value
    assert str(caught.value) == f"Status.depth: {value} does not fit 8 bits (0 to 0xff)"
    assert int(status) == 0


def test_make_starts_from_the_reset_value():
    assert int(Status.make()) == 0x80000300
    assert int(Status.make(fatal=True, depth=0)) == 0x80000001
    with pytest.raises(AttributeError, match="Status has no field 'deep'; it has depth, fatal, lost, media"):
        Status.make(deep=1)


def test_a_misspelt_field_raises_where_it_is_written():
    with pytest.raises(AttributeError):
        Status().fatall = True  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_a_value_that_does_not_fit_its_register(value):
    with pytest.raises(RangeError, match="does not fit 32 bits"):
        Status(value)
    with pytest.raises(RangeError, match="does not fit 32 bits"):
        Status().assign(value)


def test_equality_is_by_declaration_and_value():
    class Other(Register, width=32):
        fatal = bit(0, RO)

    assert Status(5) == Status(5)
    assert Status(5) != Status(4)
    assert Status(1) != Other(1)
    assert Status(5) == 5
    assert Status(5) != "5"
    with pytest.raises(TypeError):
        hash(Status())


def test_copies_have_bytes_of_their_own():
    data = bytearray(8)
    view = Status.over(data, 4)
    view.depth = 7
    assert data == bytes.fromhex("00000000 00070000")
    for twin in (copy.copy(view), copy.deepcopy(view)):
        twin.depth = 9
        assert view.depth == 7
    assert bytes(view) == b"\0\7\0\0"
    assert repr(view) == "Status(0x700: fatal=False, media=<Media.NOT_READY: 0>, depth=7, lost=False)"


@pytest.mark.parametrize("width", [8, 16, 24, 32, 48, 64, 128])
def test_every_width_is_little_endian(width):
    cls = METACLASS("Sized", (Register,), {"top": bits(width - 1, width - 4, RW)}, width=width)
    register = cls(0)
    register.top = 0xA
    assert bytes(register) == bytes(width // 8 - 1) + b"\xa0"
    assert register.top == 0xA
    assert int(register) == 0xA << width - 4


def test_a_field_describes_itself_on_the_class():
    field = Status.media
    assert (field.hi, field.lo, field.mask, field.ones) == (3, 2, 0xC, 3)
    assert (field.kind, field.law, field.doc) == (Media, RO, "whether the media can be used")
    assert repr(field) == "<Status.media [3:2] RO>"


def test_a_register_that_extends_another():
    class Wider(Status, width=64):
        """Twice as wide."""

        top = bits(63, 60, RW)

    wide = Wider(0)
    wide.top, wide.depth = 5, 2
    assert int(wide) == 0x5000000000000200
    assert Wider.depth.label == "Wider.depth"
    assert Status.depth.label == "Status.depth"
    assert Wider.__layout__.spec == "CXL 3.1 §8.2.8.5.1"
    status = Status()
    status.depth = 9
    assert status.depth == 9


# -- declarations ----------------------------------------------------------------------------------


def test_overlapping_fields():
    with pytest.raises(DeclarationError, match=r"Bad\.b: bits 4:3 overlap another field"):

        class Bad(Register, width=8):
            a = bits(3, 0, RW)
            b = bits(4, 3, RW)


def test_a_field_outside_its_register():
    with pytest.raises(DeclarationError, match=r"Bad\.a: bit 8 lies outside 8 bits"):

        class Bad(Register, width=8):
            a = bit(8, RW)


@pytest.mark.parametrize("width", [0, -8, 7, 12])
def test_widths_are_whole_bytes(width):
    with pytest.raises(DeclarationError, match=f"width {width} is not a positive multiple of 8 bits"):

        class Bad(Register, width=width):
            pass


def test_a_register_without_a_width():
    with pytest.raises(DeclarationError, match="Bad: a register needs width="):

        class Bad(Register):
            pass


def test_positions_the_wrong_way_round():
    with pytest.raises(DeclarationError, match=r"bits\(0, 3\): the high bit comes first"):
        bits(0, 3, RW)
    with pytest.raises(DeclarationError, match=r"bits\(-1, -1\)"):
        bit(-1, RW)


def test_reset_values_and_enums_fit_their_fields():
    with pytest.raises(DeclarationError, match=r"bits\(1, 0\): reset value 0x4 does not fit 2 bits"):
        bits(1, 0, RW, reset=4)
    with pytest.raises(DeclarationError, match=r"bits\(0, 0\): Media\.ERROR does not fit 1 bits"):
        bits(0, 0, RW, Media)
    with pytest.raises(
        DeclarationError, match=r"bits\(1, 0\): takes an IntEnum or a description, not <class 'int'>"
    ):
        bits(1, 0, RW, int)  # type: ignore[type-var]


@pytest.mark.parametrize("name", ["make", "over", "placed", "assign", "_hidden"])
def test_names_that_are_taken(name):
    with pytest.raises(DeclarationError, match=name):
        METACLASS("Bad", (Register,), {name: bit(0, RW)}, width=8)


def test_names_of_the_layout_are_free():
    class Free(Register, width=32):
        width = bits(3, 0, RWL)
        reset = bits(7, 4, RWO)
        value = bits(11, 8, RW)
        doc = bits(15, 12, RW)
        mask = bits(19, 16, RW)

    assert Free.make(width=1, reset=2, value=3, doc=4, mask=5) == 0x54321


def test_one_field_belongs_to_one_register():
    shared = bit(0, RW)

    class First(Register, width=8):
        a = shared

    with pytest.raises(DeclarationError, match=r"Second: First\.a has one of its fields already"):

        class Second(Register, width=8):
            b = shared
